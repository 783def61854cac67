//! The machine of a run, for its report.

use std::fs;
use std::path::Path;

use serde::Serialize;

/// The machine, as far as the system tells.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Machine {
    /// Processors that may be used.
    pub cores: usize,
    /// The operating system and the release of its kernel.
    pub system: String,
    /// The type of the filesystem that the stores are on.
    pub filesystem: String,
}

impl Machine {
    /// This machine; stores are below `dir`.
    #[must_use]
    pub fn of(dir: &Path) -> Machine {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let kernel = read("/proc/sys/kernel/osrelease");
        Machine {
            cores: cores(),
            system: format!("{} {}", std::env::consts::OS, kernel.trim())
                .trim()
                .to_owned(),
            filesystem: mounted_as(dir, &read("/proc/self/mounts"))
                .unwrap_or_else(|| "unknown".to_owned()),
        }
    }
}

/// Processors that may be used.
#[must_use]
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// The type of the filesystem whose mount point is closest above `dir`; of several mounts at one
/// point, the last.
fn mounted_as(dir: &Path, mounts: &str) -> Option<String> {
    let dir = dir.canonicalize().ok()?;
    let mounts = mounts.lines().filter_map(|line| {
        let mut words = line.split(' ').skip(1);
        let (point, kind) = (words.next()?, words.next()?);
        dir.starts_with(point).then_some((point.len(), kind))
    });
    let closest = mounts.max_by_key(|(length, _)| *length);
    closest.map(|(_, kind)| kind.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_closest_mount_counts() {
        let mounts = "a / overlay rw\na / ext4 rw\nb /x tmpfs rw\n";
        assert_eq!(mounted_as(Path::new("/"), mounts).as_deref(), Some("ext4"));
        let this = Machine::of(&std::env::temp_dir());
        assert!(this.cores > 0);
        assert!(this.system.starts_with(std::env::consts::OS), "{this:?}");
    }
}
