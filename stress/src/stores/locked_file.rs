//! The plainest store: lock, open, append, sync, close. It is an agent of the protocol
//! (`wire.rs`), and the demonstration that the oracle sees it fail when its lock, or
//! anything else that it is made of, is taken out.

use std::fs::{self, File};
use std::io::{self, BufRead as _, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::stores::wire::{Ability, Done, Listed, Reply, Request, VERSION, Write};

/// A follower that begins later has been through the preflight, which would find the fault.
const SKIPS_FROM: u64 = 9;

/// What is taken out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Fault {
    /// The lock: two writes may go to the same place.
    NoLock,
    /// The removal of a torn tail: it swallows the next write.
    TornTail,
    /// The choice of ids under the lock: ids collide.
    SameId,
    /// The sync: an acknowledged write is lost with the power.
    NoSync,
    /// The lock around a claim: two win.
    TwoWin,
    /// The comparison under the lock: two change the same value.
    StaleSet,
    /// The rename of an export: it is cut while it is written.
    CutExport,
    /// The one record of a batch: its writes have a record each.
    HalfBatch,
    /// The follower's look at the end of a line: it passes over one that is being written.
    BlindFollower,
    /// A write, when a follower goes on behind others.
    SkippingFollower,
}

#[derive(Serialize, Deserialize)]
struct Line {
    id: u64,
    text: String,
    /// The other writes of a batch.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    more: Vec<String>,
}

struct LockedFile {
    dir: PathBuf,
    fault: Option<Fault>,
}

/// Answers the requests on standard input.
#[must_use]
pub fn main(fault: Option<Fault>) -> ExitCode {
    let mut store = LockedFile {
        dir: PathBuf::new(),
        fault,
    };
    for line in io::stdin().lock().lines() {
        let request = line.map(|line| serde_json::from_str::<Request>(&line));
        let reply = match request {
            Ok(Ok(request)) => store.answer(request),
            Ok(Err(error)) => Reply::Fail {
                error: error.to_string(),
            },
            Err(_) => break,
        };
        let mut text = serde_json::to_string(&reply).unwrap_or_default();
        text.push('\n');
        if io::stdout().lock().write_all(text.as_bytes()).is_err() {
            break;
        }
    }
    ExitCode::SUCCESS
}

impl LockedFile {
    fn answer(&mut self, request: Request) -> Reply {
        let done = match request {
            Request::Hello { version, store, .. } => {
                self.dir = store.into();
                if version == VERSION {
                    Ok(Some(hello()))
                } else {
                    Err(io::Error::other(format!("this is version {VERSION}")))
                }
            }
            Request::Init => self.lock().map(|_| Some(Done::default())),
            Request::Append { payload, .. } => self.append(payload, Vec::new()).map(Some),
            Request::Batch { writes } => self.batch(writes).map(Some),
            Request::Follow { from } => self.follow(from),
            Request::Claim { item, agent } => self.claim(&item, &agent),
            Request::List => self.read().map(|lines| Some(list(&lines))),
            Request::Show { item } => self.show(&item).map(Some),
            Request::Get { item } => self.get(&item).map(|value| {
                Some(Done {
                    value: Some(value),
                    ..Done::default()
                })
            }),
            Request::Set { item, old, new } => self.set(&item, &old, &new),
            Request::Export { path } => self.export(Path::new(&path)).map(Some),
        };
        match done {
            Ok(Some(done)) => Reply::Ok(done),
            Ok(None) => Reply::Refused {
                error: "another agent was faster".to_owned(),
            },
            // A write may have been done in part.
            Err(error) => Reply::Info {
                error: error.to_string(),
            },
        }
    }

    fn is(&self, fault: Fault) -> bool {
        self.fault == Some(fault)
    }

    /// The lock, as long as the file is open.
    fn lock(&self) -> io::Result<File> {
        let lock = File::create(self.dir.join("lock"))?;
        if !self.is(Fault::NoLock) {
            lock.lock()?;
        }
        Ok(lock)
    }

    fn path(&self) -> PathBuf {
        self.dir.join("log.jsonl")
    }

    /// In one record: a torn one is cut off as a whole.
    fn batch(&self, writes: Vec<Write>) -> io::Result<Done> {
        let mut texts = writes.into_iter().map(|write| write.payload);
        let mut done = Done::default();
        while let Some(text) = texts.next() {
            let is_half = self.is(Fault::HalfBatch);
            let more = if is_half {
                Vec::new()
            } else {
                texts.by_ref().collect()
            };
            done = self.append(text, more)?;
        }
        Ok(done)
    }

    fn append(&self, text: String, more: Vec<String>) -> io::Result<Done> {
        let early = if self.is(Fault::SameId) {
            Some(self.next_id()?)
        } else {
            None
        };
        let lock = self.lock()?;
        let mut file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(self.path())?;
        let id = match early {
            Some(id) => id,
            None => self.next_id()?,
        };
        let end = if self.is(Fault::TornTail) {
            file.seek(SeekFrom::End(0))?
        } else {
            whole_bytes(&mut file)?
        };
        file.set_len(end)?;
        file.seek(SeekFrom::Start(end))?;
        let line = serde_json::to_string(&Line { id, text, more })? + "\n";
        // In two parts, as any long write may be: a kill between them leaves a torn tail.
        let (first, second) = line.as_bytes().split_at(line.len() / 2);
        file.write_all(first)?;
        std::thread::sleep(Duration::from_micros(200));
        file.write_all(second)?;
        if !self.is(Fault::NoSync) {
            file.sync_data()?;
            File::open(&self.dir)?.sync_all()?;
        }
        drop(lock);
        Ok(Done {
            receipt: Some(id.to_string()),
            ..Done::default()
        })
    }

    fn next_id(&self) -> io::Result<u64> {
        let lines = self.read()?;
        Ok(lines.iter().map(|line| line.id).max().unwrap_or(0) + 1)
    }

    /// The lines that can be read.
    fn read(&self) -> io::Result<Vec<Line>> {
        let bytes = match fs::read(self.path()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            read => read?,
        };
        let lines = bytes.split_inclusive(|&byte| byte == b'\n');
        let lines = lines.filter(|line| line.ends_with(b"\n"));
        Ok(lines
            .filter_map(|line| serde_json::from_slice(line).ok())
            .collect())
    }

    /// Shows each new line, as long as someone reads.
    fn follow(&self, first: u64) -> io::Result<Option<Done>> {
        let mut from = 0;
        let skips = self.is(Fault::SkippingFollower) && first > SKIPS_FROM;
        let known = first.saturating_sub(1) + u64::from(skips);
        let mut known = usize::try_from(known).unwrap_or(usize::MAX);
        for round in 0_u64.. {
            let bytes = fs::read(self.path()).unwrap_or_default();
            let new = bytes.get(from..).unwrap_or_default();
            let whole = match new.iter().rposition(|&byte| byte == b'\n') {
                _ if self.is(Fault::BlindFollower) => new.len(),
                end => end.map_or(0, |end| end + 1),
            };
            from += whole;
            let lines = new.get(..whole).unwrap_or_default();
            let lines = lines.split_inclusive(|&byte| byte == b'\n');
            let lines: Vec<Line> = lines
                .filter_map(|line| serde_json::from_slice(line).ok())
                .collect();
            let mut new = list(&lines);
            let known_here = known.min(new.items.len());
            known -= known_here;
            new.items.drain(..known_here);
            // Now and then in any case: that fails when nobody reads any more.
            if !new.items.is_empty() || round.is_multiple_of(256) {
                let text = serde_json::to_string(&Reply::Ok(new))? + "\n";
                io::stdout().lock().write_all(text.as_bytes())?;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(None)
    }

    fn claims(&self, item: &str) -> PathBuf {
        self.dir.join(format!("owner-{item}"))
    }

    fn claim(&self, item: &str, agent: &str) -> io::Result<Option<Done>> {
        let is_free = |item: &str| !self.claims(item).exists();
        let early = is_free(item);
        if self.is(Fault::TwoWin) {
            std::thread::sleep(Duration::from_millis(1));
        }
        let lock = self.lock()?;
        if !if self.is(Fault::TwoWin) {
            early
        } else {
            is_free(item)
        } {
            return Ok(None);
        }
        let mut file = File::create(self.claims(item))?;
        file.write_all(agent.as_bytes())?;
        file.sync_all()?;
        drop(lock);
        Ok(Some(Done::default()))
    }

    fn show(&self, item: &str) -> io::Result<Done> {
        let owner = match fs::read_to_string(self.claims(item)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            read => Some(read?),
        };
        Ok(Done {
            owner,
            ..Done::default()
        })
    }

    fn values(&self, item: &str) -> PathBuf {
        self.dir.join(format!("value-{item}"))
    }

    fn get(&self, item: &str) -> io::Result<String> {
        match fs::read_to_string(self.values(item)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
            read => read,
        }
    }

    fn set(&self, item: &str, old: &str, new: &str) -> io::Result<Option<Done>> {
        let early = self.get(item)?;
        if self.is(Fault::StaleSet) {
            std::thread::sleep(Duration::from_millis(1));
        }
        let lock = self.lock()?;
        let found = if self.is(Fault::StaleSet) {
            early
        } else {
            self.get(item)?
        };
        if found != old {
            return Ok(None);
        }
        let whole = self.dir.join("value.new");
        let mut file = File::create(&whole)?;
        file.write_all(new.as_bytes())?;
        file.sync_all()?;
        fs::rename(&whole, self.values(item))?;
        File::open(&self.dir)?.sync_all()?;
        drop(lock);
        Ok(Some(Done::default()))
    }

    fn export(&self, path: &Path) -> io::Result<Done> {
        let lock = self.lock()?;
        let lines = self.read()?;
        let whole = path.with_extension("new");
        let place = if self.is(Fault::CutExport) {
            path
        } else {
            &whole
        };
        let mut file = File::create(place)?;
        let mut text = String::new();
        for line in lines {
            text += &(serde_json::to_string(&line)? + "\n");
        }
        let (first, second) = text.as_bytes().split_at(text.len() / 2);
        file.write_all(first)?;
        std::thread::sleep(Duration::from_micros(500));
        file.write_all(second)?;
        file.sync_all()?;
        if place != path {
            fs::rename(place, path)?;
        }
        drop(lock);
        Ok(Done::default())
    }
}

fn hello() -> Done {
    Done {
        can: vec![
            Ability::Batch,
            Ability::Follow,
            Ability::Resume,
            Ability::Claim,
            Ability::Show,
            Ability::Set,
            Ability::Export,
            Ability::Receipts,
            Ability::Ordered,
        ],
        program: Some("a locked file".to_owned()),
        ..Done::default()
    }
}

fn list(lines: &[Line]) -> Done {
    let items = lines.iter().flat_map(|line| {
        let texts = std::iter::once(&line.text).chain(&line.more);
        texts.map(|text| Listed {
            text: text.clone(),
            number: Some(line.id),
        })
    });
    Done {
        items: items.collect(),
        ..Done::default()
    }
}

/// The length of the file's whole lines.
fn whole_bytes(file: &mut File) -> io::Result<u64> {
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(0))?;
    file.read_to_end(&mut bytes)?;
    let end = bytes.iter().rposition(|&byte| byte == b'\n');
    Ok(end.map_or(0, |end| end as u64 + 1))
}
