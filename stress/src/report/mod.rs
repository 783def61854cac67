//! Reports of runs, tiers and soaks: text, JSON and HTML; and the progress while they run.

/// Appends to a `String`, which can't fail.
macro_rules! put {
    ($text:expr, $($argument:tt)*) => {{
        use std::fmt::Write as _;
        write!($text, $($argument)*).unwrap_or_else(|_| unreachable!("writing to a String can't fail"));
    }};
}

#[cfg(unix)]
pub mod compare;
pub mod machine;
pub mod metrics;
pub mod page;
pub mod progress;
pub mod quantiles;
pub mod run;
pub mod soak;
#[cfg(unix)]
pub mod store;
pub mod text;
pub mod tiers;
