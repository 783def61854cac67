//! Files of JSON lines, replaced atomically.

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions},
    io::{self, BufWriter, Write as _},
    path::{Path, PathBuf},
};

use strand_lock::files;

use crate::{
    env::{share::adopt, system::ThisMachine},
    error::{Error, Result},
    issues::{
        issues::Issues,
        jsonl::write_jsonl,
        merge::{Merged, three_way},
        merge_sides::{Base, read},
    },
    wal::manifest::random_id,
};

/// Replaces the file at `path` by the issues as JSON lines (see [`write_jsonl`]), and returns their
/// number.
///
/// The new file is written beside the old one, synced, and renamed, so that `path` is always one of
/// the two. The file keeps its permissions, its owner and its group, where that is permitted; a
/// symbolic link is followed, also to a file that does not exist yet. What is no file, such as a
/// device or a pipe, is written into instead. Blocks for two syncs. A process that is killed
/// meanwhile leaves the other file behind.
///
/// # Errors
/// [`Error::Io`]: the old file is unchanged, and no other is left. If only the directory's sync
/// failed, which the error names, the new file is in place, but a power failure may bring back the
/// old one.
///
/// ```
/// use strand_core::{Issue, IssueLog, Issues, Options, export};
///
/// # let dir = tempfile::tempdir()?;
/// let log = IssueLog::open(dir.path(), Options::default())?;
/// log.create(Issue::new("bd-1", "Mend the fence"))?;
/// let file = dir.path().join("issues.jsonl");
/// assert_eq!(export(&Issues::load(dir.path())?, &file)?, 1);
/// assert!(std::fs::read_to_string(&file)?.starts_with(r#"{"id":"bd-1","#));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn export(issues: &Issues, path: impl AsRef<Path>) -> Result<u64> {
    write_to(path.as_ref(), |file| {
        let mut out = BufWriter::with_capacity(1 << 20, file);
        write_jsonl(issues, &mut out)?;
        out.flush()
    })?;
    Ok(issues.len() as u64)
}

/// [Merges](crate::merge) three files, and replaces `ours` by the result, as git asks of a merge
/// driver (`driver = … %O %A %B`). Conflicts are in it between git's markers.
///
/// # Errors
/// [`Error::Io`], [`Error::BadLine`]: `ours` is unchanged.
///
/// ```
/// use strand_core::merge_files;
///
/// # let dir = tempfile::tempdir()?;
/// let [base, ours, theirs] = ["base", "ours", "theirs"].map(|name| dir.path().join(name));
/// std::fs::write(&base, "")?;
/// std::fs::write(&ours, "{\"id\":\"bd-1\",\"title\":\"Mend the fence\"}\n")?;
/// std::fs::write(&theirs, "{\"id\":\"bd-2\",\"title\":\"Buy wire\"}\n")?;
/// assert!(merge_files(&base, &ours, &theirs)?.conflicts.is_empty());
/// assert_eq!(std::fs::read_to_string(&ours)?.lines().count(), 2);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn merge_files(base: &Path, ours: &Path, theirs: &Path) -> Result<Merged> {
    let bytes = |path: &Path| fs::read(path).map_err(Error::io("read", path));
    let sides = (read(ours, &bytes(ours)?)?, read(theirs, &bytes(theirs)?)?);
    let merged = three_way(Base::read(&bytes(base)?), sides.0, sides.1).into_merged();
    write_to(ours, |file| file.write_all(merged.text.as_bytes()))?;
    Ok(merged)
}

/// Where the result is to go.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// A file, or none yet: replaced as a whole. Links have been followed.
    File(PathBuf),
    /// A device, a pipe, a socket, or an open file of a process: written into.
    Stream,
}

/// How many links lead to a file at most, as in Linux.
const LINKS_MAX: usize = 40;

/// Finds out what is at `path`. A link that leads to nothing stands for the file to create.
pub(crate) fn target(path: &Path) -> Result<Target> {
    let mut file = path.to_owned();
    for _ in 0..LINKS_MAX {
        let Ok(to) = fs::read_link(&file) else {
            return match file.metadata() {
                Ok(found) if !found.is_file() && !found.is_dir() => Ok(Target::Stream),
                _ => Ok(Target::File(file)),
            };
        };
        let dir = parent(&file);
        // `/dev/stdout` leads here: an open file, whose name must go on meaning the same.
        if dir.canonicalize().is_ok_and(|dir| dir.starts_with("/proc")) {
            return Ok(Target::Stream);
        }
        file = dir.join(to);
    }
    let links = io::Error::other("too many links");
    Err(Error::io("follow", path)(links))
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    }
}

/// Replaces a file as a whole, or writes into what is none.
pub(crate) fn write_to(path: &Path, write: impl FnOnce(&mut File) -> io::Result<()>) -> Result<()> {
    match target(path)? {
        Target::File(file) => replace_atomically(&file, write),
        Target::Stream => {
            // An open file may have been opened to append.
            let file = OpenOptions::new().append(true).open(path);
            let written = file.and_then(|mut file| write(&mut file));
            written.map_err(Error::io("write", path))
        }
    }
}

/// Writes a file beside `path`, and moves it there when it is complete and durable.
pub(crate) fn replace_atomically(
    path: &Path,
    write: impl FnOnce(&mut File) -> io::Result<()>,
) -> Result<()> {
    let dir = parent(path);
    let mut name = OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(format!(".{}.new", random_id(&ThisMachine)));
    let new = dir.join(name);
    let written = (|| {
        let mut file = OpenOptions::new().write(true).create_new(true).open(&new)?;
        if let Ok(old) = path.metadata() {
            adopt(&file, &old);
        }
        write(&mut file)?;
        file.sync_all()?;
        drop(file);
        files::rename(&new, path)
    })();
    if let Err(error) = written {
        fs::remove_file(&new).ok();
        return Err(Error::io("write", path)(error));
    }
    files::sync_dir(dir).map_err(Error::io("sync", dir))
}
