//! Files of JSON lines, replaced atomically.

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions},
    io::{self, BufWriter, Write as _},
    path::Path,
};

use strand_lock::files;

use crate::{
    env::system::ThisMachine,
    error::{Error, Result},
    issues::{
        issues::Issues,
        jsonl::write_jsonl,
        merge::{MergeError, Merged, merge},
    },
    wal::manifest::random_id,
};

/// Replaces the file at `path` by the issues as JSON lines (see [`write_jsonl`]), and returns their
/// number.
///
/// The new file is written beside the old one, synced, and renamed, so that `path` is always one of
/// the two. The file keeps its permissions; a symbolic link is followed. Blocks for two syncs. A
/// process that is killed meanwhile leaves the other file behind.
///
/// # Errors
/// [`Error::Io`]: the old file is unchanged, and no other is left. If only the directory's sync
/// failed, which the error names, the new file is in place, but a power failure may bring back the
/// old one.
///
/// ```
/// use strand_core::{Issue, IssueLog, Issues, Options, Timestamp, export};
///
/// let now = Timestamp::now();
/// # let dir = tempfile::tempdir()?;
/// let log = IssueLog::open(dir.path(), Options::default())?;
/// log.create(Issue::new("bd-1", "Mend the fence", now), now)?;
/// let file = dir.path().join("issues.jsonl");
/// assert_eq!(export(&Issues::load(dir.path())?, &file)?, 1);
/// assert!(std::fs::read_to_string(&file)?.starts_with(r#"{"id":"bd-1","#));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn export(issues: &Issues, path: impl AsRef<Path>) -> Result<u64> {
    replace_atomically(path.as_ref(), |file| {
        let mut out = BufWriter::with_capacity(1 << 20, file);
        write_jsonl(issues, &mut out)?;
        out.flush()
    })?;
    Ok(issues.len() as u64)
}

/// [Merges](merge) three files, and replaces `ours` by the result, as git asks of a merge driver
/// (`driver = … %O %A %B`). Conflicts are in it between git's markers.
///
/// # Errors
/// [`MergeError`]: `ours` is unchanged.
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
pub fn merge_files(base: &Path, ours: &Path, theirs: &Path) -> Result<Merged, MergeError> {
    let read = |path: &Path| fs::read(path).map_err(Error::io("read", path));
    let merged = merge(&read(base)?, &read(ours)?, &read(theirs)?)?;
    replace_atomically(ours, |file| file.write_all(merged.text.as_bytes()))?;
    Ok(merged)
}

/// Writes a file beside `path`, and moves it there when it is complete and durable.
fn replace_atomically(path: &Path, write: impl FnOnce(&mut File) -> io::Result<()>) -> Result<()> {
    let target = path.canonicalize();
    let path = target.as_deref().unwrap_or(path);
    let dir = match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    };
    let mut name = OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(format!(".{}.new", random_id(&ThisMachine)));
    let new = dir.join(name);
    let written = (|| {
        let mut file = OpenOptions::new().write(true).create_new(true).open(&new)?;
        if let Ok(old) = path.metadata() {
            file.set_permissions(old.permissions())?;
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
