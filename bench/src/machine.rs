//! What the figures were measured on.

use std::{fs, path::Path};

use serde::Serialize;

/// The machine, as far as the system tells.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Machine {
    pub(crate) processor: String,
    pub(crate) cores: usize,
    pub(crate) system: String,
    pub(crate) filesystem: String,
    /// The load average of the last minute when the run began: figures from a busy machine are noisy.
    pub(crate) load_before: f64,
}

impl Machine {
    pub(crate) fn of(dir: &Path) -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let processor = field(&read("/proc/cpuinfo"), "model name").unwrap_or_default();
        let load = read("/proc/loadavg");
        let load = load.split(' ').next().and_then(|load| load.parse().ok());
        Self {
            processor,
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            system: format!(
                "{} {}",
                std::env::consts::OS,
                read("/proc/sys/kernel/osrelease").trim()
            ),
            filesystem: mounted_as(dir, &read("/proc/self/mounts")).unwrap_or_default(),
            load_before: load.unwrap_or(f64::NAN),
        }
    }
}

/// A field of a file of lines `name : value`, or of a process's status in KiB.
pub(crate) fn field(text: &str, name: &str) -> Option<String> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    let (_, value) = line.split_once(':')?;
    Some(value.trim().to_owned())
}

/// The type of the filesystem whose mount point lies closest above `dir`.
fn mounted_as(dir: &Path, mounts: &str) -> Option<String> {
    let dir = dir.canonicalize().ok()?;
    let mounts = mounts.lines().filter_map(|line| {
        let mut words = line.split(' ').skip(1);
        let (point, kind) = (words.next()?, words.next()?);
        dir.starts_with(point).then_some((point.len(), kind))
    });
    mounts
        .max_by_key(|(length, _)| *length)
        .map(|(_, kind)| kind.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_by_name() {
        let status = "Name:\tbench\nVmHWM:\t    4096 kB\nVmRSS:\t    3072 kB\n";
        assert_eq!(field(status, "VmRSS").as_deref(), Some("3072 kB"));
        assert_eq!(field(status, "VmSwap"), None);
    }

    #[test]
    fn the_closest_mount_counts() {
        let root = Path::new("/");
        assert_eq!(
            mounted_as(root, "a / ext4 rw\nb /x tmpfs rw\n").as_deref(),
            Some("ext4")
        );
    }
}
