//! Names that nobody else draws.

use std::{
    hash::{BuildHasher as _, Hasher as _, RandomState},
    process,
    sync::atomic::{AtomicU32, Ordering},
};

/// A new name. A fork copies the state of random numbers, so the process is part of it.
pub(crate) fn nonce() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let random = RandomState::new().build_hasher().finish();
    format!("{random:016x}{:08x}{count:08x}", process::id())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_name_is_new() {
        let (first, second) = (nonce(), nonce());
        assert_eq!((first.len(), first == second), (32, false));
    }
}
