//! Why a soak ends before its time.

use serde::Serialize;

/// Why a soak ends before its time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Trouble {
    /// A promise was broken.
    Violation(String),
    /// A process hangs.
    Hang(String),
    /// Something outside the log failed.
    Environment(String),
}

impl Trouble {
    /// The evidence.
    #[must_use]
    pub fn evidence(&self) -> &str {
        match self {
            Trouble::Violation(what) | Trouble::Hang(what) | Trouble::Environment(what) => {
                what.trim_end()
            }
        }
    }
}
