//! Reports of runs, tiers and soaks: text, JSON and HTML; and the progress while they run.

pub mod machine;
pub mod metrics;
pub mod page;
pub mod progress;
pub mod quantiles;
pub mod run;
pub mod soak;
pub mod text;
pub mod tiers;
