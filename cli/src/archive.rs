//! The archive of a store: the segments that compactions replaced, compressed, so that `zcat`
//! prints them and `strand follow --archive` goes on from them to the live log.

use std::{
    fs::{self, File},
    io::{self, BufRead, BufReader, Read, Write as _},
    path::{Path, PathBuf},
};

use flate2::{Compression, read::GzDecoder, write::GzEncoder};
use serde::Deserialize;

use crate::exit::{Exit, Failure};

/// The file in a store that has the path of its archive.
const SETTING: &str = "archive-dir";

/// The file in an archive that has the id of its store.
const STORE: &str = "STORE";

/// The directory of an archive.
#[derive(Debug, Clone)]
pub(crate) struct Archive {
    dir: PathBuf,
}

impl Archive {
    /// The archive that every compaction of the store in `dir` is to write, if there is one.
    pub(crate) fn setting(dir: &Path) -> Result<Option<PathBuf>, Failure> {
        let path = dir.join(SETTING);
        match fs::read_to_string(&path) {
            Ok(text) => Ok(Some(text.trim_end_matches(['\r', '\n']).into())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed("read", &path, &error)),
        }
    }

    /// The archive for a compaction of a store: in `dir`, which is created and becomes the setting,
    /// or where the setting says. The setting alone creates nothing: where a disk is missing, what
    /// is written to its place is no archive.
    pub(crate) fn to_write(store: &Path, dir: Option<&Path>) -> Result<Option<Self>, Failure> {
        let setting = Self::setting(store)?;
        let given = dir.map(|dir| {
            let whole = std::path::absolute(dir);
            whole.map_err(|error| failed("find", dir, &error))
        });
        let given = given.transpose()?;
        let is_given = given.is_some();
        let dir = match (given, &setting) {
            (None, None) => return Ok(None),
            (None, Some(dir)) => dir.clone(),
            (Some(dir), Some(other)) if dir != *other => {
                let message = format!(
                    "the archive of this store is {}; to move it, change {}",
                    other.display(),
                    store.join(SETTING).display()
                );
                return Err(Failure::usage(message));
            }
            (Some(dir), _) => dir,
        };
        if is_given {
            fs::create_dir_all(&dir).map_err(|error| failed("create", &dir, &error))?;
            write_once(&dir.join(STORE), &store_id(store)?)?;
        }
        let archive = Self::to_read(store, &dir)?;
        if setting.is_none() {
            let text = dir.to_str().ok_or_else(|| {
                let message = format!("{} is not UTF-8", dir.display());
                Failure::usage(message)
            })?;
            write_once(&store.join(SETTING), text)?;
        }
        Ok(Some(archive))
    }

    /// The archive that the setting of a store names, and what stops compactions from writing to
    /// it. Without an archive, `None`.
    pub(crate) fn examine(store: &Path) -> Option<(PathBuf, Result<(), Failure>)> {
        match Self::setting(store).transpose()? {
            Ok(dir) => {
                let examined = Self::require_writable(store, &dir);
                Some((dir, examined))
            }
            Err(failure) => Some((store.join(SETTING), Err(failure))),
        }
    }

    /// Does what a compaction does in its archive, with a file that is removed again.
    fn require_writable(store: &Path, dir: &Path) -> Result<(), Failure> {
        Self::to_read(store, dir)?;
        let probe = dir.join("doctor.new");
        let written = File::create(&probe).and_then(|mut file| {
            file.write_all(&[0; 4096])?;
            file.sync_all()
        });
        // Another doctor may have removed it.
        fs::remove_file(&probe).ok();
        written.map_err(|error| failed("write", &probe, &error))?;
        let unlisted = |error| failed("list", store, &error);
        for entry in fs::read_dir(store).map_err(unlisted)? {
            let segment = entry.map_err(unlisted)?.path();
            let Some(name) = segment.file_name().and_then(|name| name.to_str()) else {
                continue;
            };
            let is_jsonl = segment.extension().is_some_and(|end| end == "jsonl");
            if is_jsonl && name.starts_with("log-") {
                require_same(&segment, &dir.join(format!("{name}.gz")))?;
            }
        }
        Ok(())
    }

    /// The archive in `dir`, which belongs to the store in `store`.
    pub(crate) fn to_read(store: &Path, dir: &Path) -> Result<Self, Failure> {
        let path = dir.join(STORE);
        let id = fs::read_to_string(&path).map_err(|error| failed("read", &path, &error))?;
        if id.trim_end() == store_id(store)? {
            return Ok(Self { dir: dir.into() });
        }
        let (dir, store) = (dir.display(), store.display());
        let message = format!("{dir} is the archive of another store than {store}");
        Err(Failure::new(Exit::Unusable, message))
    }

    /// Keeps the records of a segment. Durable on return. That it is kept already, as after a
    /// compaction that was killed, is no error.
    pub(crate) fn keep(&self, segment: &str, lines: &mut dyn Read) -> io::Result<()> {
        let path = self.dir.join(format!("{segment}.gz"));
        let mut records = Lines(BufReader::new(lines));
        match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            old => {
                return records
                    .require_same(&mut unzip(old?))
                    .map_err(|error| at(&path, &error));
            }
        }
        let copied = write_durably(&path, |file| {
            let mut zip = GzEncoder::new(file, Compression::default());
            while let Some(mut line) = records.next()? {
                line.push(b'\n');
                zip.write_all(&line)?;
            }
            zip.finish().map(drop)
        });
        copied.map_err(|error| at(&path, &error))
    }

    /// The file with the record `seq`, if the archive has it, and the number of its first record.
    fn file_with(&self, seq: u64) -> io::Result<Option<(u64, PathBuf)>> {
        let mut found = None;
        for entry in fs::read_dir(&self.dir)? {
            let path = entry?.path();
            let name = path.file_name().and_then(|name| name.to_str());
            let first = name
                .and_then(|name| name.strip_prefix("log-")?.strip_suffix(".jsonl.gz"))
                .and_then(|digits| digits.parse::<u64>().ok());
            if let Some(first) = first.filter(|first| *first <= seq)
                && found.as_ref().is_none_or(|(other, _)| *other < first)
            {
                found = Some((first, path));
            }
        }
        Ok(found)
    }

    /// The records of the archive from `from_seq` on.
    pub(crate) fn records(self, from_seq: u64) -> Archived {
        Archived {
            archive: self,
            next_seq: from_seq,
            open: None,
        }
    }
}

/// Records that are read from an archive, in order.
#[derive(Debug)]
pub(crate) struct Archived {
    archive: Archive,
    next_seq: u64,
    open: Option<Opened>,
}

#[derive(Debug)]
struct Opened {
    first_seq: u64,
    path: PathBuf,
    lines: Lines<BufReader<GzDecoder<File>>>,
}

impl Archived {
    /// The line of the next record; `None` if the archive does not have it (yet).
    pub(crate) fn next(&mut self) -> Result<Option<Vec<u8>>, Failure> {
        #[derive(Deserialize)]
        struct Numbered {
            seq: u64,
        }
        loop {
            let Some(open) = &mut self.open else {
                if !self.open_next()? {
                    return Ok(None);
                }
                continue;
            };
            let line = open.lines.next();
            let Some(line) = line.map_err(|error| unreadable(&open.path, &error))? else {
                if !self.open_next()? {
                    return Ok(None);
                }
                continue;
            };
            let parsed = serde_json::from_slice(&line);
            let Numbered { seq } = parsed.map_err(|error| damaged(&open.path, &error))?;
            if seq > self.next_seq {
                let missing = format!("record {} is missing before {seq}", self.next_seq);
                return Err(damaged(&open.path, &missing));
            }
            if seq == self.next_seq {
                self.next_seq += 1;
                return Ok(Some(line));
            }
        }
    }

    pub(crate) fn next_seq(&self) -> u64 {
        self.next_seq
    }

    /// Goes on with record `seq`.
    pub(crate) fn seek(&mut self, seq: u64) {
        self.next_seq = seq;
    }

    /// Opens the file with the next record; false if there is none but the one that was read.
    fn open_next(&mut self) -> Result<bool, Failure> {
        let dir = &self.archive.dir;
        let found = self.archive.file_with(self.next_seq);
        let found = found.map_err(|error| failed("list", dir, &error))?;
        let read = self.open.as_ref().map(|open| open.first_seq);
        let Some((first_seq, path)) = found.filter(|(first, _)| Some(*first) != read) else {
            return Ok(false);
        };
        let file = File::open(&path).map_err(|error| failed("open", &path, &error))?;
        self.open = Some(Opened {
            first_seq,
            path,
            lines: unzip(file),
        });
        Ok(true)
    }
}

/// Lines that are not blank, without their newlines.
#[derive(Debug)]
struct Lines<R>(R);

impl<R: BufRead> Lines<R> {
    fn next(&mut self) -> io::Result<Option<Vec<u8>>> {
        loop {
            let mut line = Vec::new();
            if self.0.read_until(b'\n', &mut line)? == 0 {
                return Ok(None);
            }
            if line.ends_with(b"\n") {
                line.pop();
            }
            if !line.trim_ascii().is_empty() {
                return Ok(Some(line));
            }
        }
    }

    fn require_same(&mut self, other: &mut Lines<impl BufRead>) -> io::Result<()> {
        loop {
            match (self.next()?, other.next()?) {
                (None, None) => return Ok(()),
                (one, two) if one == two => {}
                _ => {
                    let message = "it has other records, from before a repair or of a copy of the store; \
                                   move the archive away";
                    return Err(io::Error::new(io::ErrorKind::AlreadyExists, message));
                }
            }
        }
    }
}

fn unzip(file: File) -> Lines<BufReader<GzDecoder<File>>> {
    Lines(BufReader::new(GzDecoder::new(file)))
}

/// A segment that is kept already, and is still in the store, has the same records in both.
fn require_same(segment: &Path, kept: &Path) -> Result<(), Failure> {
    let files = File::open(kept).and_then(|kept| Ok((kept, File::open(segment)?)));
    let (kept_file, segment) = match files {
        // A compaction may remove the segment now.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        files => files.map_err(|error| failed("open", kept, &error))?,
    };
    let same = Lines(BufReader::new(segment)).require_same(&mut unzip(kept_file));
    same.map_err(|error| Failure::io(&kept.display().to_string(), &error))
}

/// Writes a file that is whole, or not there under its name. Durable on return.
fn write_durably(path: &Path, write: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<()> {
    let new = path.with_added_extension("new");
    let mut file = File::create(&new)?;
    write(&mut file)?;
    file.sync_all()?;
    drop(file);
    fs::rename(&new, path)?;
    // Elsewhere a directory can't be synced, and a rename needs no sync.
    #[cfg(unix)]
    File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()?;
    Ok(())
}

/// Writes a line to a file, unless it is there.
fn write_once(path: &Path, text: &str) -> Result<(), Failure> {
    if path.exists() {
        return Ok(());
    }
    let written = write_durably(path, |file| writeln!(file, "{text}"));
    written.map_err(|error| failed("write", path, &error))
}

/// The id in a store's manifest.
fn store_id(store: &Path) -> Result<String, Failure> {
    #[derive(Deserialize)]
    struct Manifest {
        store: String,
    }
    let path = store.join("MANIFEST");
    let text = fs::read(&path).map_err(|error| failed("read", &path, &error))?;
    let manifest = serde_json::from_slice::<Manifest>(&text);
    Ok(manifest.map_err(|error| damaged(&path, &error))?.store)
}

fn at(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

fn failed(op: &str, path: &Path, error: &io::Error) -> Failure {
    Failure::io(&format!("cannot {op} {}", path.display()), error)
}

/// The failure of a read of compressed bytes.
fn unreadable(path: &Path, error: &io::Error) -> Failure {
    use io::ErrorKind::{InvalidData, InvalidInput, UnexpectedEof};
    match error.kind() {
        InvalidData | InvalidInput | UnexpectedEof => damaged(path, error),
        _ => failed("read", path, error),
    }
}

fn damaged(path: &Path, problem: &dyn std::fmt::Display) -> Failure {
    let message = format!("{} is damaged: {problem}", path.display());
    Failure::new(Exit::Corrupt, message)
}
