//! Where the store is: the option `-C`, else `STRAND_DIR`, else `.strand` here or above.

use std::{
    env,
    path::{Path, PathBuf},
};

use crate::exit::{Exit, Failure};

/// The name of a project's store.
const DIR: &str = ".strand";
const VARIABLE: &str = "STRAND_DIR";

/// The store of a command that works on an existing one.
pub(crate) fn find(option: Option<PathBuf>) -> Result<PathBuf, Failure> {
    if let Some(dir) = named(option) {
        return Ok(dir);
    }
    let current = env::current_dir();
    let current = current.map_err(|error| Failure::io("no current directory", &error))?;
    nearest(&current, Path::is_dir).ok_or_else(|| {
        let message = format!(
            "no store: neither {} nor a directory above it has a {DIR}; `strand init` makes one \
             here, `-C STORE` or {VARIABLE} names another",
            current.display()
        );
        Failure::new(Exit::NoStore, message)
    })
}

/// The directory that `init` makes a store.
pub(crate) fn new(option: Option<PathBuf>) -> PathBuf {
    named(option).unwrap_or_else(|| DIR.into())
}

fn named(option: Option<PathBuf>) -> Option<PathBuf> {
    let variable = || env::var_os(VARIABLE).filter(|dir| !dir.is_empty());
    option.or_else(|| variable().map(PathBuf::from))
}

/// The nearest `.strand`, relative where it is in `current` itself, for short messages.
fn nearest(current: &Path, is_dir: impl Fn(&Path) -> bool) -> Option<PathBuf> {
    let mut above = current.ancestors().map(|dir| dir.join(DIR));
    let found = above.find(|dir| is_dir(dir))?;
    let is_here = found.parent() == Some(current);
    Some(if is_here { DIR.into() } else { found })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_store_above_is_found() {
        let stores = ["/a/.strand", "/a/b/c/.strand"].map(Path::new);
        let found = |current: &str| nearest(Path::new(current), |dir| stores.contains(&dir));
        assert_eq!(found("/a"), Some(".strand".into()));
        assert_eq!(found("/a/b"), Some("/a/.strand".into()));
        assert_eq!(found("/a/b/c"), Some(".strand".into()));
        assert_eq!(found("/a/b/c/d/e"), Some("/a/b/c/.strand".into()));
        assert_eq!(found("/a/.strand"), Some("/a/.strand".into()));
        assert_eq!(found("/x"), None);
    }
}
