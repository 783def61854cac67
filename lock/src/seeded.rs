//! Deliberate bugs, each of which the tests must find. They exist only in builds with debug
//! assertions and `--cfg strand_seeded_bugs`, and `STRAND_SEEDED_BUG` switches one of them on.

#[cfg(all(strand_seeded_bugs, not(debug_assertions)))]
compile_error!("deliberate bugs are not for release builds");

/// Each bug's name, the tests that must find it, and what is wrong.
#[cfg(strand_seeded_bugs)]
pub const SEEDED_BUGS: &[(&str, &str, &str)] = &[(
    FORK_KEEPS_LOCK,
    "lock tests",
    "a forked child keeps its parent's lock",
)];

#[cfg(any(unix, strand_seeded_bugs))]
pub(crate) const FORK_KEEPS_LOCK: &str = "fork-keeps-lock";

/// Whether to make this mistake.
#[cfg(all(unix, not(strand_seeded_bugs)))]
pub(crate) const fn seeded(_name: &str) -> bool {
    false
}

/// Whether to make this mistake.
#[cfg(all(unix, strand_seeded_bugs))]
pub(crate) fn seeded(name: &str) -> bool {
    use std::sync::OnceLock;
    static CHOSEN: OnceLock<Option<String>> = OnceLock::new();
    let chosen = CHOSEN.get_or_init(|| std::env::var("STRAND_SEEDED_BUG").ok());
    chosen.as_deref() == Some(name)
}
