//! The kind of agents that are measured.

use clap::ValueEnum;
use serde::Serialize;

/// What an agent is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Mode {
    #[default]
    Process,
    Thread,
}
