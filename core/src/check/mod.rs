//! Looks at a whole store and says how it is. Takes no lock, changes nothing, creates nothing. // I3
//!
//! Others may write meanwhile, and then a single look can see halves: a line that is being written, a file that a
//! compaction has taken away. So whatever looks wrong is looked at again, with the manifest and the watermark as they
//! are then. What was only passing is gone or has moved on; damage stays where it is.

pub(crate) mod report;

use std::{fmt, path::Path, time::Duration};

use strand_lock::FilesystemKind;

use crate::{
    check::report::{
        Advice, Checkup, Damage, FileKind, FileSeen, FilesystemSeen, HintsState, HolderSeen,
        LockSeen, SnapshotSeen, SnapshotState, TornTail, Unreadable,
    },
    env::storage::OpenMode,
    error::{CorruptReason, Error, Result},
    format::{
        record::{segment_first_seq, segment_name, snapshot_name, snapshot_seq},
        scan::Tail,
    },
    inspect::{
        find::{Left, VOID_MAX, contents, guess_manifest, later_manifest},
        scan::{Damages, Listed, Place, Segment, StoreScan},
    },
    state::{
        compaction::{COMPACT_LOCK, obsolete},
        snapshot::Contents,
    },
    wal::{
        log::LOCK,
        manifest::{MANIFEST, Manifest},
        reader::is_new,
        shm::{Look as HintsLook, SHM, ShmView},
        store_dir::{QUARANTINE, StoreDir},
    },
};

/// How often the store is looked at until two looks agree.
const LOOKS: usize = 8;
const BETWEEN_LOOKS: Duration = Duration::from_millis(10);

/// What decides about the advice.
#[derive(Debug, Clone, Copy, Default)]
#[expect(clippy::struct_excessive_bools, reason = "it is a row of a table")]
struct Signs {
    newer: bool,
    unreadable: bool,
    beyond_repair: bool,
    damaged: bool,
    unfinished: bool,
}

/// The table at [`Advice`].
fn advice(signs: Signs) -> Advice {
    match signs {
        Signs { newer: true, .. } => Advice::Upgrade,
        Signs {
            unreadable: true, ..
        } => Advice::CheckDisk,
        Signs {
            beyond_repair: true,
            ..
        } => Advice::RestoreBackup,
        Signs { damaged: true, .. } => Advice::Repair,
        Signs {
            unfinished: true, ..
        } => Advice::Open,
        _ => Advice::Nothing,
    }
}

/// Reads everything in a store's directory, and says how the store is and what to do.
///
/// Takes no lock, and changes and creates nothing. Does not block. Others may write meanwhile: what they are just at is
/// not taken for damage. Holds one line in memory, and the damages.
///
/// # Errors
/// [`Error::MissingDirectory`], [`Error::NotADirectory`], and [`Error::Io`] when the directory can't be listed.
/// Everything else that is wrong stands in the answer.
///
/// ```
/// use strand_core::{Advice, Issue, IssueEvent, Log, Options, Timestamp, doctor};
///
/// let now = Timestamp::now();
/// # let dir = tempfile::tempdir()?;
/// let log = Log::open(dir.path(), Options::default())?;
/// log.append(&IssueEvent::add(Issue::new("bd-1", "Mend the fence", now), now))?;
///
/// let checkup = doctor(dir.path())?;
/// assert_eq!(checkup.advice, Advice::Nothing);
/// assert_eq!((checkup.records, checkup.hinted_seq), (1, Some(1)));
/// println!("{checkup}");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn doctor(dir: impl AsRef<Path>) -> Result<Checkup> {
    in_dir(&StoreDir::on_disk(dir.as_ref()))
}

pub(crate) fn in_dir(dir: &StoreDir) -> Result<Checkup> {
    dir.require()?;
    let mut seen = Exam::take(dir)?;
    for _ in 1..LOOKS {
        if !seen.is_suspicious() {
            break;
        }
        let again = Exam::take(dir)?;
        let agreed = again.agrees_with(&seen);
        seen = again.keep_what_is_in(&seen);
        if agreed {
            break;
        }
        dir.host().sleep(BETWEEN_LOOKS);
    }
    Ok(seen.finish())
}

/// One look at a store.
struct Exam {
    checkup: Checkup,
    newer: bool,
    beyond_repair: bool,
    orphans: Vec<String>,
    /// A directory that is no store yet.
    new: bool,
}

impl Exam {
    fn take(dir: &StoreDir) -> Result<Self> {
        let names = dir.list()?;
        let mut exam = Self::new(dir);
        let manifest = exam.manifest(dir, &names)?;
        let hints = exam.hints(dir, manifest.as_ref());
        if let Some(manifest) = &manifest {
            exam.log(dir, manifest, hints)?;
        }
        exam.snapshots(dir, &names, manifest.as_ref());
        exam.files(dir, names, manifest.as_ref());
        Ok(exam)
    }

    fn new(dir: &StoreDir) -> Self {
        let host = dir.host();
        let filesystem = host
            .filesystem(dir.path())
            .ok()
            .map(|filesystem| FilesystemSeen {
                local: filesystem.kind == FilesystemKind::Local,
                name: filesystem.name,
            });
        let lock = |file: &str| {
            let state = host.look_at_lock(&dir.path_of(file)).ok();
            LockSeen {
                file: file.to_owned(),
                waiting: state.as_ref().is_some_and(|state| state.waiting),
                holder: state.and_then(|state| state.holder).map(HolderSeen::of),
            }
        };
        let checkup = Checkup {
            dir: dir.path().to_string_lossy().into_owned(),
            advice: Advice::Nothing,
            store: None,
            format: None,
            filesystem,
            first_seq: 1,
            last_seq: 0,
            records: 0,
            void: Vec::new(),
            hinted_seq: None,
            durable_seq: 0,
            hints: HintsState::Missing,
            snapshots: Vec::new(),
            files: Vec::new(),
            damages: Vec::new(),
            damages_left_off: 0,
            gaps: Vec::new(),
            torn: None,
            locks: vec![lock(LOCK), lock(COMPACT_LOCK)],
            unreadable: Vec::new(),
        };
        Self {
            checkup,
            newer: false,
            beyond_repair: false,
            orphans: Vec::new(),
            new: false,
        }
    }

    fn damage(&mut self, damages: Listed<Damage>) {
        let room = crate::inspect::scan::LISTED_MAX.saturating_sub(self.checkup.damages.len());
        let more = damages.items.len().saturating_sub(room) as u64;
        self.checkup.damages_left_off += damages.left_off + more;
        self.checkup
            .damages
            .extend(damages.items.into_iter().take(room));
    }

    fn whole_file(&mut self, file: String, offset: u64, reason: CorruptReason) {
        self.damage(Listed {
            items: vec![Damage {
                file,
                offset,
                line: None,
                bytes: 0,
                reason,
            }],
            left_off: 0,
        });
    }

    fn unreadable(&mut self, file: &str, error: &impl fmt::Display) {
        self.checkup.unreadable.push(Unreadable {
            file: file.to_owned(),
            error: error.to_string(),
        });
    }

    /// The manifest, or what it must have been.
    fn manifest(&mut self, dir: &StoreDir, names: &[String]) -> Result<Option<Manifest>> {
        match Manifest::read(dir) {
            Ok(Some(manifest)) => {
                self.checkup.store = Some(manifest.store.clone());
                self.checkup.format = Some(manifest.format);
                return Ok(Some(self.fitting(dir, names, manifest)));
            }
            Ok(None) => {
                self.new = is_new(dir)?;
                if self.new {
                    return Ok(None);
                }
                self.whole_file(MANIFEST.to_owned(), 0, CorruptReason::ManifestMissing);
            }
            Err(Error::Corrupt { reason, .. }) => self.whole_file(MANIFEST.to_owned(), 0, reason),
            Err(Error::UnsupportedVersion { found, .. }) => {
                self.checkup.format = Some(found);
                self.newer = true;
                return Ok(None);
            }
            Err(error) => {
                self.unreadable(MANIFEST, &error);
                return Ok(None);
            }
        }
        match guess_manifest(dir, names) {
            Ok(guess) => {
                self.beyond_repair |= guess.is_none();
                Ok(guess)
            }
            Err(error) => {
                self.unreadable(MANIFEST, &error);
                Ok(None)
            }
        }
    }

    /// The manifest, unless the files say that it is of an earlier moment.
    fn fitting(&mut self, dir: &StoreDir, names: &[String], manifest: Manifest) -> Manifest {
        match later_manifest(dir, names, &manifest) {
            Ok(None) => manifest,
            Ok(Some((later, reason))) => {
                self.whole_file(MANIFEST.to_owned(), 0, reason);
                later
            }
            Err(error) => {
                self.unreadable(MANIFEST, &error);
                manifest
            }
        }
    }

    fn hints(&mut self, dir: &StoreDir, manifest: Option<&Manifest>) -> HintsLook {
        let Some(manifest) = manifest else {
            return HintsLook::default();
        };
        let view = ShmView::open(dir, &manifest.store);
        let Some(look) = view.and_then(|view| view.look()) else {
            return HintsLook::default();
        };
        self.checkup.hints = match look {
            HintsLook { ours: false, .. }
            | HintsLook {
                durable_seq: None, ..
            } => HintsState::Stale,
            HintsLook { poisoned: true, .. } => HintsState::Poisoned,
            HintsLook { settled: false, .. } => HintsState::NotValidated,
            _ => HintsState::Good,
        };
        self.checkup.hinted_seq = look.durable_seq.filter(|_| look.ours);
        look
    }

    fn log(&mut self, dir: &StoreDir, manifest: &Manifest, hints: HintsLook) -> Result<()> {
        let live = manifest.first_seq;
        self.checkup.first_seq = live;
        self.checkup.last_seq = live - 1;
        let known_seq = hints.durable_seq_of_store.unwrap_or(0);
        let scan = StoreScan::take(dir, live, known_seq)?;
        for (first_seq, error) in &scan.unreadable {
            self.unreadable(&segment_name(*first_seq), error);
        }
        self.checkup.durable_seq = scan.durable_seq.max(live - 1);
        if let Some(missing) = scan.missing_first(live) {
            let reason = CorruptReason::Missing {
                from_seq: missing.from_seq,
                through_seq: missing.through_seq,
            };
            self.whole_file(segment_name(live), 0, reason);
            self.checkup.gaps.push(missing);
        }
        for segment in &scan.segments {
            self.checkup.records += segment.records;
            self.checkup.void.extend(&segment.void);
            self.checkup.last_seq = self.checkup.last_seq.max(segment.scan.last_seq());
            self.segment(dir, segment, scan.durable_seq);
        }
        let lost: u64 = self.checkup.gaps.iter().map(|gap| gap.count()).sum();
        self.beyond_repair |= lost > VOID_MAX;
        Ok(())
    }

    fn segment(&mut self, dir: &StoreDir, segment: &Segment, durable_seq: u64) {
        let name = segment_name(segment.first_seq);
        match segment.tail(durable_seq) {
            Tail::Clean => {}
            Tail::Torn { valid_len } => {
                self.checkup.torn = Some(TornTail {
                    file: name,
                    offset: valid_len,
                    bytes: segment.scan.content_len - valid_len,
                });
            }
            Tail::Corrupt { offset, reason } => {
                let damages = match Damages::of(dir, segment, durable_seq) {
                    Ok(damages) => damages,
                    Err(error) => return self.unreadable(&name, &error),
                };
                if damages.bad.is_empty() {
                    self.whole_file(name.clone(), offset, reason);
                }
                self.damage(damages.bad.map(|(place, reason)| at(&name, place, reason)));
                // Whole records behind the first bad line count too.
                if let Some(last) = damages.last_seq {
                    self.checkup.last_seq = self.checkup.last_seq.max(last);
                }
                self.checkup.records += damages.records.saturating_sub(segment.records);
                self.checkup.gaps.extend(damages.gaps);
            }
        }
    }

    fn snapshots(&mut self, dir: &StoreDir, names: &[String], manifest: Option<&Manifest>) {
        let mark = manifest.and_then(|manifest| manifest.snapshot);
        let mut seqs: Vec<u64> = names.iter().filter_map(|name| snapshot_seq(name)).collect();
        seqs.extend(mark.map(|mark| mark.seq));
        seqs.sort_unstable_by(|one, other| other.cmp(one));
        seqs.dedup();
        let mut cures = false;
        let mut hopeless = false;
        for seq in seqs {
            let file = snapshot_name(seq);
            let kind = match mark {
                Some(mark) if mark.seq == seq => FileKind::Snapshot,
                Some(mark) if mark.seq > seq => FileKind::Backup,
                _ => FileKind::Orphan,
            };
            let contents = match contents(dir, &file, |_| {}) {
                Ok(contents) => contents,
                Err(error) => {
                    self.unreadable(&file, &error);
                    continue;
                }
            };
            let state = self.snapshot(seq, kind, contents.as_ref(), manifest);
            let contents = contents.unwrap_or_default();
            match (kind, state) {
                (FileKind::Snapshot, SnapshotState::Damaged | SnapshotState::Missing) => {
                    let left = Left::of(
                        &contents,
                        seq,
                        manifest.map_or("", |manifest| &manifest.store),
                    );
                    hopeless = left == Left::Nothing;
                }
                (FileKind::Backup, SnapshotState::Whole) => cures = true,
                _ => {}
            }
            let [issues, tombstones, keys] = contents.counts;
            self.checkup.snapshots.push(SnapshotSeen {
                file,
                seq,
                kind,
                state,
                issues,
                tombstones,
                keys,
            });
        }
        let from_the_first = names.iter().any(|name| segment_first_seq(name) == Some(1));
        self.beyond_repair |= hopeless && !cures && !from_the_first;
    }

    fn snapshot(
        &mut self,
        seq: u64,
        kind: FileKind,
        contents: Option<&Contents>,
        manifest: Option<&Manifest>,
    ) -> SnapshotState {
        let name = snapshot_name(seq);
        let store = manifest.map(|manifest| manifest.store.as_str());
        let (state, message) = match contents {
            None => (
                SnapshotState::Missing,
                Some("it is named by the MANIFEST, but not there".to_owned()),
            ),
            Some(contents) if !contents.is_whole(seq, store) => {
                let what = "its lines are not those that its first line says".to_owned();
                (
                    SnapshotState::Damaged,
                    contents.bad.is_empty().then_some(what),
                )
            }
            // Where the manifest itself is lost, nobody says what the file should be like.
            Some(contents) => match manifest.and_then(|manifest| manifest.snapshot) {
                Some(mark)
                    if kind == FileKind::Snapshot
                        && self.checkup.store.is_some()
                        && contents.mark(seq) != mark =>
                {
                    let what = "it is not the file that the MANIFEST describes".to_owned();
                    (SnapshotState::Damaged, Some(what))
                }
                _ => (SnapshotState::Whole, None),
            },
        };
        // Damage to a backup does no harm now.
        if kind == FileKind::Snapshot {
            if let Some(contents) = contents {
                let bad = contents.bad.clone();
                self.damage(bad.map(|bad| at(&name, bad.place, bad.reason)));
            }
            if let Some(message) = message {
                self.whole_file(name, 0, CorruptReason::Snapshot { message });
            }
        }
        state
    }

    fn files(&mut self, dir: &StoreDir, names: Vec<String>, manifest: Option<&Manifest>) {
        self.orphans =
            manifest.map_or_else(Vec::new, |manifest| obsolete(&names, manifest, usize::MAX));
        self.orphans.retain(|name| !dir.has_subdir(name));
        let mut names = names;
        if dir.has_subdir(QUARANTINE) {
            let kept = dir.subdir(QUARANTINE).list().unwrap_or_default();
            names.extend(kept.iter().map(|name| format!("{QUARANTINE}/{name}")));
        }
        names.sort_unstable();
        for name in names {
            let kind = self.kind_of(&name, manifest);
            let bytes = if dir.has_subdir(&name) {
                None
            } else {
                let file = dir.open(&name, OpenMode::Read);
                file.and_then(|file| file.len_bytes()).ok()
            };
            self.checkup.files.push(FileSeen { name, kind, bytes });
        }
    }

    fn kind_of(&self, name: &str, manifest: Option<&Manifest>) -> FileKind {
        let live = manifest
            .and_then(|manifest| manifest.snapshot)
            .map(|mark| mark.seq);
        match name {
            MANIFEST => FileKind::Manifest,
            LOCK | COMPACT_LOCK => FileKind::Lock,
            SHM => FileKind::Hints,
            _ if name.split('/').next() == Some(QUARANTINE) => FileKind::Quarantine,
            _ if self.orphans.iter().any(|orphan| orphan == name) => FileKind::Orphan,
            _ if segment_first_seq(name).is_some() => FileKind::Segment,
            _ => match snapshot_seq(name) {
                Some(seq) if Some(seq) == live => FileKind::Snapshot,
                Some(_) => FileKind::Backup,
                None => FileKind::Unknown,
            },
        }
    }

    fn held(&self, file: &str) -> bool {
        let mut locks = self.checkup.locks.iter();
        locks.any(|lock| lock.file == file && lock.holder.is_some())
    }

    /// What somebody left unfinished, who is not at it now.
    fn is_unfinished(&self) -> bool {
        let checkup = &self.checkup;
        let hints = matches!(
            checkup.hints,
            HintsState::NotValidated | HintsState::Poisoned
        );
        self.new
            || (checkup.torn.is_some() || hints) && !self.held(LOCK)
            || !self.orphans.is_empty() && !self.held(COMPACT_LOCK)
    }

    /// Whether something may be wrong, or only passing.
    fn is_suspicious(&self) -> bool {
        let checkup = &self.checkup;
        self.is_unfinished()
            || self.newer
            || self.beyond_repair
            || !checkup.damages.is_empty()
            || !checkup.gaps.is_empty()
            || !checkup.unreadable.is_empty()
    }

    fn agrees_with(&self, other: &Self) -> bool {
        let (one, two) = (&self.checkup, &other.checkup);
        one.damages == two.damages
            && one.damages_left_off == two.damages_left_off
            && one.gaps == two.gaps
            && one.torn == two.torn
            && one.unreadable == two.unreadable
            && one.hints == two.hints
            && (self.newer, self.beyond_repair, self.new)
                == (other.newer, other.beyond_repair, other.new)
            && self.orphans == other.orphans
    }

    /// Leaves of what looks wrong that which an earlier look has seen too.
    fn keep_what_is_in(mut self, earlier: &Self) -> Self {
        let (now, then) = (&mut self.checkup, &earlier.checkup);
        now.damages.retain(|damage| then.damages.contains(damage));
        now.gaps.retain(|gap| then.gaps.contains(gap));
        now.unreadable.retain(|file| then.unreadable.contains(file));
        if now.torn != then.torn {
            now.torn = None;
        }
        self.orphans.retain(|name| earlier.orphans.contains(name));
        self.newer &= earlier.newer;
        self.beyond_repair &= earlier.beyond_repair;
        self.new &= earlier.new;
        self
    }

    fn finish(self) -> Checkup {
        let signs = Signs {
            newer: self.newer,
            unreadable: !self.checkup.unreadable.is_empty(),
            beyond_repair: self.beyond_repair,
            damaged: !self.checkup.damages.is_empty() || !self.checkup.gaps.is_empty(),
            unfinished: self.is_unfinished(),
        };
        Checkup {
            advice: advice(signs),
            ..self.checkup
        }
    }
}

fn at(file: &str, place: Place, reason: CorruptReason) -> Damage {
    Damage {
        file: file.to_owned(),
        offset: place.offset,
        line: Some(place.line),
        bytes: place.bytes,
        reason,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_sign_decides() {
        let bits = |row: u32| Signs {
            newer: row & 16 != 0,
            unreadable: row & 8 != 0,
            beyond_repair: row & 4 != 0,
            damaged: row & 2 != 0,
            unfinished: row & 1 != 0,
        };
        for row in 0..32 {
            let expected = match row {
                16.. => Advice::Upgrade,
                8.. => Advice::CheckDisk,
                4.. => Advice::RestoreBackup,
                2.. => Advice::Repair,
                1 => Advice::Open,
                0 => Advice::Nothing,
            };
            assert_eq!(advice(bits(row)), expected, "{row:05b}");
        }
    }
}
