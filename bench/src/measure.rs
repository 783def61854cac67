//! What is measured outside the rounds.
use serde::Serialize;
use crate::{Result, cli::Cli, events::Event, progress::Progress, run::Runner};
pub(crate) const MEMORY_COMMAND: &str = "memory";
pub(crate) fn memory_main(_: impl Iterator<Item = String>) -> Result<()> { Ok(()) }
pub(crate) fn parts(_: &Cli) -> usize { 0 }
pub(crate) fn all(_: &Cli, _: &Runner, _: &[Event], _: &mut Progress, _: &mut Extras) -> Result<()> { Ok(()) }
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Extras { pub opening_us: Vec<Opening>, pub five_by_twenty_ms: Option<f64>, pub one_shot_us: Option<OneShot>, pub verify_mb_per_s: Option<f64>, pub fold_mb_per_s: Option<f64>, pub memory: Option<Memory> }
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Opening { pub log: &'static str, pub median_us: f64 }
#[derive(Debug, Clone, Serialize)]
pub(crate) struct OneShot { pub strand_over_bare: f64 }
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Memory { }
impl Memory { pub fn most_mib(&self) -> f64 { 0.0 } }
impl Extras { pub fn lines(&self) -> Vec<String> { vec![] } }
