//! Reports: text and JSON of runs and tiers, progress, and HTML pages.

pub mod machine;
pub mod metrics;
pub mod page;
pub mod progress;
pub mod quantiles;
pub mod run;
pub mod soak;
pub mod text;
pub mod tiers;
