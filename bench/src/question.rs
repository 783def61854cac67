//! What one-shot processes are asked.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// What is asked or done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Question {
    Show,
    Create,
    Claim,
    Update,
    Ready,
    ClaimNext,
}

impl Question {
    pub(crate) const ALL: [Self; 6] = [
        Self::Show,
        Self::Create,
        Self::Claim,
        Self::Update,
        Self::Ready,
        Self::ClaimNext,
    ];

    /// Whether it is about one issue that it names.
    pub(crate) fn is_about_one(self) -> bool {
        !matches!(self, Self::Ready | Self::ClaimNext)
    }

    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::Show => "show ID",
            Self::Create => "create",
            Self::Claim => "claim ID",
            Self::Update => "update --if-version",
            Self::Ready => "ready",
            Self::ClaimNext => "claim (next)",
        }
    }

    pub(crate) fn name(self) -> String {
        let value = self.to_possible_value();
        value.map_or_else(String::new, |value| value.get_name().to_owned())
    }
}
