//! What can still be found of a damaged store: whole records wherever they stand, a state from what is left of the
//! snapshots, and what the manifest must have said. Changes nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
};

use serde::Deserialize;

use crate::{
    env::storage::OpenMode,
    error::{CorruptReason, Error, Result},
    format::record::{
        EncodedPayload, Header, Line, segment_first_seq, segment_name, snapshot_name, snapshot_seq,
    },
    inspect::scan::{Found, Listed, Piece, Seqs, walk},
    issues::issues::Issues,
    repair::report::{Counts, LostLine, RepairedSnapshot, SnapshotSource},
    state::{
        materialize::Folded,
        snapshot::{self as snapshot_file, BadPart, Contents, Part},
        throttle::Throttle,
    },
    wal::{
        cursor::End,
        manifest::{MANIFEST, Manifest, SnapshotMark, random_id},
        store_dir::{CHUNK_BYTES, QUARANTINE, StoreDir, StoreFile},
    },
};

/// How many records are made void at most; more are not the work of a disk.
pub(crate) const VOID_MAX: u64 = 1 << 20;

/// How the names of copies in quarantine end.
pub(crate) const DAMAGED: &str = ".damaged";
/// What follows the name of a copy in that of the note about it.
pub(crate) const NOTE: &str = ".json";

/// Where the bytes of a record come from.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Source {
    Copy { file: usize, found: Found },
    Void(Header),
}

/// All whole records that are somewhere.
pub(crate) struct Pool<'a> {
    dir: &'a StoreDir,
    quarantine: StoreDir,
    firsts: &'a [u64],
    files: Vec<StoreFile>,
}

/// Records by their numbers, each with the index of its file.
type Records = BTreeMap<u64, (usize, Found)>;

/// The part of a note in quarantine that tells how far a copy can be trusted.
#[derive(Deserialize)]
struct Trust {
    durable_seq: u64,
}

impl<'a> Pool<'a> {
    /// The pool of a store whose segments begin with `firsts`.
    pub(crate) fn new(dir: &'a StoreDir, firsts: &'a [u64]) -> Self {
        Self {
            dir,
            quarantine: dir.subdir(QUARANTINE),
            firsts,
            files: Vec::new(),
        }
    }

    /// The records from `from` through `through`, in their order, and the ranges of those that are nowhere. `from`
    /// is the first of a segment.
    pub(crate) fn gather(&mut self, from: u64, through: u64) -> Result<(Vec<Source>, Vec<Seqs>)> {
        let all = (through + 1).saturating_sub(from);
        let mut found = self.of_segment(from, through)?;
        if (found.len() as u64) < all {
            self.search_elsewhere(&mut found, from, through)?;
        }
        let lost = all - found.len() as u64;
        if lost > VOID_MAX {
            return Err(Error::BeyondRepair {
                path: self.dir.path_of(&segment_name(from)),
                reason: format!(
                    "{lost} of the records {from} to {through} are missing, and {VOID_MAX} are the most that are taken for lost"
                ),
            });
        }
        let (mut records, mut ranges) = (Vec::new(), Vec::new());
        // Before a segment was begun, all records before it were durable.
        let mut synced = from - 1;
        for seq in from..=through {
            if let Some((file, found)) = found.get(&seq) {
                synced = synced.max(found.synced);
                records.push(Source::Copy {
                    file: *file,
                    found: *found,
                });
            } else {
                Seqs::push(&mut ranges, seq);
                records.push(Source::Void(Header { seq, synced }));
            }
        }
        Ok((records, ranges))
    }

    /// How far the records of the last segment go on behind `durable`, without anything between them.
    pub(crate) fn whole_through(&mut self, first: u64, durable: u64) -> Result<u64> {
        let mut through = durable;
        self.walk(self.dir, &segment_name(first), |_, piece| match piece {
            Piece::Record(found, _)
                if found.seq == through + 1 && (through == durable || !found.after_bad) =>
            {
                through += 1;
            }
            _ => {}
        })?;
        Ok(through)
    }

    /// Writes records to a new segment.
    pub(crate) fn write(&self, records: &[Source], to: &StoreFile) -> Result<()> {
        let void = EncodedPayload::batch(b"[]".to_vec());
        let (mut chunk, mut line) = (Vec::new(), Vec::new());
        let mut offset = 0;
        for record in records {
            match record {
                Source::Void(header) => void.write_line(*header, &mut line),
                Source::Copy { file, found } => {
                    let Some(file) = self.files.get(*file) else {
                        unreachable!("files are only added");
                    };
                    line.resize(usize::try_from(found.bytes).unwrap_or(usize::MAX), 0);
                    let read = file.read(&mut line, found.offset)?;
                    let again = Line::parse(line.get(..read).unwrap_or_default());
                    if again.is_ok_and(|line| line.header.seq == found.seq) {
                        line.push(b'\n');
                    } else {
                        let gone = io::Error::other("a record changed while it was being copied");
                        return Err(Error::io("read", file.path())(gone));
                    }
                }
            }
            chunk.extend_from_slice(&line);
            if chunk.len() >= CHUNK_BYTES {
                to.write(&chunk, offset)?;
                offset += chunk.len() as u64;
                chunk.clear();
            }
        }
        to.write(&chunk, offset)
    }

    /// Goes through a file, if it is there; it is opened once.
    fn walk(
        &mut self,
        dir: &StoreDir,
        name: &str,
        mut each: impl FnMut(usize, Piece),
    ) -> Result<()> {
        let path = dir.path_of(name);
        let known = self.files.iter().position(|file| file.path() == path);
        let index = known.unwrap_or(self.files.len());
        if known.is_none() {
            let Some(file) = dir.open_if_there(name, OpenMode::Read)? else {
                return Ok(());
            };
            self.files.push(file);
        }
        match self.files.get(index) {
            Some(file) => walk(file, |piece| each(index, piece)),
            None => Ok(()),
        }
    }

    /// The records that are in their segment: of two with one number, that which stands in its place.
    fn of_segment(&mut self, first: u64, through: u64) -> Result<Records> {
        let mut records = Records::new();
        let mut expected = first;
        self.walk(self.dir, &segment_name(first), |index, piece| {
            if let Piece::Record(found, _) = piece {
                let in_place = found.seq == expected;
                expected = found.seq + 1;
                if (first..=through).contains(&found.seq)
                    && (in_place || !records.contains_key(&found.seq))
                {
                    records.insert(found.seq, (index, found));
                }
            }
        })?;
        Ok(records)
    }

    /// Looks for the rest of a range in the other segments, and in what earlier repairs have kept.
    fn search_elsewhere(&mut self, records: &mut Records, from: u64, through: u64) -> Result<()> {
        let mut take = |pool: &mut Self, dir: &StoreDir, name: &str, through: u64| {
            pool.walk(dir, name, |index, piece| match piece {
                Piece::Record(found, _) if (from..=through).contains(&found.seq) => {
                    records.entry(found.seq).or_insert((index, found));
                }
                _ => {}
            })
        };
        for first in self.firsts {
            take(self, self.dir, &segment_name(*first), through)?;
        }
        let quarantine = self.quarantine.clone();
        let mut kept = match quarantine.list() {
            Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Vec::new(),
            names => names?,
        };
        kept.retain(|name| name.starts_with("log-") && name.ends_with(DAMAGED));
        kept.sort_unstable();
        for name in kept {
            // What was not acknowledged when a copy was made may have another record in its place by now.
            if let Some(durable_seq) = trust(&quarantine, &format!("{name}{NOTE}"))? {
                take(self, &quarantine, &name, through.min(durable_seq))?;
            }
        }
        Ok(())
    }
}

/// The last record that was acknowledged when a copy was made; `None` where no note tells.
fn trust(quarantine: &StoreDir, note: &str) -> Result<Option<u64>> {
    const NOTE_BYTES_MAX: usize = 16 << 20;
    let Some(text) = read_start(quarantine, note, NOTE_BYTES_MAX)? else {
        return Ok(None);
    };
    let trust: Option<Trust> = serde_json::from_slice(&text).ok();
    Ok(trust.map(|trust| trust.durable_seq))
}

/// What is to be done about the live snapshot.
pub(crate) struct SnapshotPlan {
    /// The new one, unless the old one is good.
    pub(crate) store: Option<Issues>,
    pub(crate) mark: SnapshotMark,
    pub(crate) bad: Listed<BadPart>,
    /// Whether there is an old one.
    pub(crate) exists: bool,
    pub(crate) report: RepairedSnapshot,
}

/// What is left of a snapshot's file that should reflect the records through a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Left {
    /// All of it, by itself.
    Whole,
    /// Some lines.
    GoodLines,
    /// All of an older snapshot.
    Older(u64),
    /// Nothing that belongs here.
    Nothing,
}

impl Left {
    pub(crate) fn of(contents: &Contents, seq: u64, store: &str) -> Self {
        let Some(header) = &contents.header else {
            return if contents.counts == [0; 3] {
                Self::Nothing
            } else {
                Self::GoodLines
            };
        };
        if contents.is_whole(seq, Some(store)) {
            Self::Whole
        } else if header.store != store {
            Self::Nothing
        } else if header.snapshot == seq {
            let empty = contents.counts == [0; 3] && header.counts() != [0; 3];
            if empty {
                Self::Nothing
            } else {
                Self::GoodLines
            }
        } else if header.snapshot < seq && contents.is_whole(header.snapshot, Some(store)) {
            Self::Older(header.snapshot)
        } else {
            Self::Nothing
        }
    }
}

/// Decides from what to make the live snapshot; `None` when it is good.
pub(crate) fn plan_snapshot(
    dir: &StoreDir,
    names: &[String],
    manifest: &Manifest,
) -> Result<Option<SnapshotPlan>> {
    let Some(mark) = manifest.snapshot else {
        return Ok(None);
    };
    let seq = mark.seq;
    let name = snapshot_name(seq);
    let mut recovered = Issues::default();
    let contents = contents(dir, &name, |part| {
        restore_later(part, &mut recovered);
    })?;
    let exists = contents.is_some();
    let contents = contents.unwrap_or_default();
    let left = Left::of(&contents, seq, &manifest.store);
    if left == Left::Whole && contents.mark(seq) == mark {
        return Ok(None);
    }
    let mut plan = SnapshotPlan {
        store: None,
        mark: contents.mark(seq),
        exists,
        report: RepairedSnapshot {
            seq,
            from: SnapshotSource::Itself,
            lost_lines: Vec::new(),
            lost_lines_left_off: 0,
            counts: None,
            lost: None,
        },
        bad: contents.bad,
    };
    if left == Left::Whole {
        return Ok(Some(plan));
    }
    let backups = backups(dir, names, seq, &manifest.store)?;
    if let Some((since_seq, store)) = fold_again(dir, names, manifest, seq, &backups) {
        plan.store = Some(store);
        plan.report.from = SnapshotSource::Records { since_seq };
        return Ok(Some(plan));
    }
    if left == Left::GoodLines {
        let header = contents.header;
        recovered.restore_header(seq, header.as_ref().map_or(0, |of| of.without_effect));
        let lost = plan.bad.clone().map(LostLine::of);
        plan.report.from = SnapshotSource::GoodLines;
        plan.report.lost_lines = lost.items;
        plan.report.lost_lines_left_off = lost.left_off;
        plan.report.counts = header.map(|header| Counts::of(header.counts(), recovered.counts()));
        plan.store = Some(recovered);
        return Ok(Some(plan));
    }
    let backup = backups.first().map(|mark| mark.seq);
    let (older, store) = match left {
        Left::Older(older) if backup.is_none_or(|backup| backup < older) => (older, recovered),
        _ => {
            let Some(backup) = backup else {
                return Err(Error::BeyondRepair {
                    path: dir.path_of(&name),
                    reason: "nothing in it is good, and there is no older one".to_owned(),
                });
            };
            let mut store = Issues::default();
            let name = snapshot_name(backup);
            self::contents(dir, &name, |part| part.restore(&mut store))?;
            (backup, store)
        }
    };
    let mut store = store;
    store.restore_header(seq, store.without_effect());
    plan.store = Some(store);
    plan.report.from = SnapshotSource::Backup { seq: older };
    plan.report.lost = Some(Seqs {
        from_seq: older + 1,
        through_seq: seq,
    });
    Ok(Some(plan))
}

/// What is in a snapshot, which is passed to `each`; `None` when there is none.
pub(crate) fn contents(
    dir: &StoreDir,
    name: &str,
    each: impl FnMut(Part<'_>),
) -> Result<Option<Contents>> {
    let file = dir.open_if_there(name, OpenMode::Read)?;
    file.map(|file| snapshot_file::examine(&file, each))
        .transpose()
}

/// Takes a line of a damaged snapshot into a state: of two about the same, the later one.
fn restore_later(part: Part<'_>, store: &mut Issues) {
    let known = match &part {
        Part::Issue(id, version, _) | Part::Tombstone(id, version, _) => {
            store.version(id).is_some_and(|known| known > *version)
        }
        Part::Key(key, seq) => store.key(key).is_some_and(|known| known > *seq),
        Part::Header(_) => false,
    };
    if !known {
        part.restore(store);
    }
}

/// The older snapshots that are whole, the latest first.
fn backups(
    dir: &StoreDir,
    names: &[String],
    before: u64,
    store: &str,
) -> Result<Vec<SnapshotMark>> {
    let all: BTreeSet<u64> = names.iter().filter_map(|name| snapshot_seq(name)).collect();
    let mut whole = Vec::new();
    for seq in all.into_iter().rev().filter(|seq| *seq < before) {
        let found = contents(dir, &snapshot_name(seq), |_| {})?;
        let found = found.unwrap_or_default();
        if found.is_whole(seq, Some(store)) {
            whole.push(found.mark(seq));
        }
    }
    Ok(whole)
}

/// The state that an older snapshot, or none, and all records since lead to, if they are there.
fn fold_again(
    dir: &StoreDir,
    names: &[String],
    manifest: &Manifest,
    through: u64,
    backups: &[SnapshotMark],
) -> Option<(u64, Issues)> {
    let mut bases = backups.iter().copied().map(Some).chain([None]);
    bases.find_map(|base| {
        let since_seq = base.map_or(0, |mark| mark.seq);
        if !names.contains(&segment_name(since_seq + 1)) {
            return None;
        }
        let earlier = Manifest {
            first_seq: since_seq + 1,
            snapshot: base,
            ..manifest.clone()
        };
        let end = || End::Seq(through);
        let folded = Folded::through(dir, &earlier, Throttle::HURRIED, end);
        let store = folded.ok()??.store;
        (store.last_seq() == through).then_some((since_seq, store))
    })
}

/// What the manifest of these files must have said: `None` when nobody can tell.
///
/// It names the latest snapshot that is whole and has a segment behind it; else, if the first segment is there, none; else
/// the latest snapshot, damaged or missing, that has one.
pub(crate) fn guess_manifest(dir: &StoreDir, names: &[String]) -> Result<Option<Manifest>> {
    let segments = names.iter().filter_map(|name| segment_first_seq(name));
    let segments: BTreeSet<u64> = segments.filter(|first| *first > 0).collect();
    let snapshots: BTreeSet<u64> = names.iter().filter_map(|name| snapshot_seq(name)).collect();
    let mut found = Vec::new();
    for seq in snapshots.into_iter().rev() {
        let contents = contents(dir, &snapshot_name(seq), |_| {})?;
        found.push((seq, contents.unwrap_or_default()));
    }
    let latest = |fits: &dyn Fn(u64, &Contents) -> bool| {
        let mut all = found.iter();
        let latest = all.find(|(seq, contents)| fits(*seq, contents));
        latest.map(|(seq, contents)| Some(contents.mark(*seq)))
    };
    let is_followed = |seq: u64| segments.contains(&(seq + 1));
    let unknown = |seq| SnapshotMark {
        seq,
        bytes: 0,
        crc: 0,
    };
    let snapshot = latest(&|seq, contents| is_followed(seq) && contents.is_whole(seq, None))
        .or_else(|| segments.contains(&1).then_some(None))
        .or_else(|| latest(&|seq, _| is_followed(seq)))
        .or_else(|| Some(Some(unknown(segments.first()? - 1))))
        .or_else(|| latest(&|seq, contents| contents.is_whole(seq, None)));
    let Some(snapshot) = snapshot else {
        return Ok(None);
    };
    let seq = snapshot.map_or(0, |mark| mark.seq);
    let nearest = found.iter().filter(|(of, _)| *of == seq).chain(&found);
    let mut headers = nearest.filter_map(|(_, contents)| contents.header.as_ref());
    let store = match headers.next() {
        Some(header) => header.store.clone().into_owned(),
        None => id_in_manifest(dir)?.unwrap_or_else(|| random_id(dir.host())),
    };
    Ok(Some(Manifest {
        store,
        first_seq: seq + 1,
        snapshot,
        ..Manifest::new(dir.host())
    }))
}

/// What the manifest should say instead, where it is of an earlier moment or of another store, and why: the segment that it
/// begins with is not there, but a later snapshot that is whole, and the segment behind that.
pub(crate) fn later_manifest(
    dir: &StoreDir,
    names: &[String],
    manifest: &Manifest,
) -> Result<Option<(Manifest, CorruptReason)>> {
    if names.contains(&segment_name(manifest.first_seq)) {
        return Ok(None);
    }
    let Some(guess) = guess_manifest(dir, names)? else {
        return Ok(None);
    };
    let Some(mark) = guess.snapshot.filter(|mark| mark.seq >= manifest.first_seq) else {
        return Ok(None);
    };
    let contents = contents(dir, &snapshot_name(mark.seq), |_| {})?.unwrap_or_default();
    let fits = contents.is_whole(mark.seq, Some(&guess.store))
        && names.contains(&segment_name(guess.first_seq));
    let message = format!(
        "it begins with record {}, which is not there; the snapshot of record {} and its log are",
        manifest.first_seq, mark.seq
    );
    Ok(fits.then_some((guess, CorruptReason::Manifest { message })))
}

/// The store's id in a damaged manifest. Should it be damaged too, it is as good as a new one.
fn id_in_manifest(dir: &StoreDir) -> Result<Option<String>> {
    const NAME: &[u8] = br#""store":""#;
    const DIGITS: usize = 32;
    let Some(text) = read_start(dir, MANIFEST, 4096)? else {
        return Ok(None);
    };
    let id = memchr::memmem::find(&text, NAME).and_then(|at| {
        let digits = text.get(at + NAME.len()..)?.get(..DIGITS)?;
        let id = std::str::from_utf8(digits).ok()?;
        let is_id = id.bytes().all(|byte| byte.is_ascii_hexdigit());
        is_id.then(|| id.to_owned())
    });
    Ok(id)
}

/// The first bytes of a file; `None` when it is not there.
fn read_start(dir: &StoreDir, name: &str, bytes_max: usize) -> Result<Option<Vec<u8>>> {
    let Some(file) = dir.open_if_there(name, OpenMode::Read)? else {
        return Ok(None);
    };
    let len = usize::try_from(file.len_bytes()?).unwrap_or(bytes_max);
    let mut bytes = vec![0; len.min(bytes_max)];
    let read = file.read(&mut bytes, 0)?;
    bytes.truncate(read);
    Ok(Some(bytes))
}
