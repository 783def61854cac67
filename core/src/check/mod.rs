//! Checks a whole store. Takes no lock, changes nothing, creates nothing.
//!
//! Other processes may write meanwhile, so that a single look can find a line half-written, or a
//! file just removed by a compaction. Whatever looks wrong is therefore looked at again, with the
//! manifest and the durable sequence number of that moment. Damage stays; anything else is gone, or
//! elsewhere.

mod report;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use crate::{
    env::storage::OpenMode,
    error::{CorruptReason, Error, Result, with_sources},
    format::{
        record::{Reflects, is_hint, segment_first_seq, segment_name},
        resync::Damages,
        scan::Tail,
    },
    inspect::{
        find::{LOST_MAX, Left, contents, fitting_manifest},
        ranges,
        scan::{Segment, SegmentDamage, StoreScan},
    },
    state::snapshot::Contents,
    wal::{
        manifest::is_new,
        manifest::{MANIFEST, Manifest, SnapshotFile, SnapshotMark},
        named::LOCK,
        obsolete::{COMPACT_LOCK, obsolete},
        shm::{Look as HintsLook, SHM, ShmView},
        store_dir::{MIRRORS, QUARANTINE, StoreDir},
    },
};

pub use self::report::{Advice, CheckReport, FileKind, SnapshotReport};
pub use crate::format::resync::Damage;

/// Looks at the store at most, until two looks agree.
const LOOKS: usize = 8;
const BETWEEN_LOOKS: Duration = Duration::from_millis(10);

/// A row of the table at [`Advice`].
#[derive(Debug, Clone, Copy, Default)]
#[expect(clippy::struct_excessive_bools, reason = "it is a row of a table")]
struct Signs {
    newer: bool,
    unreadable: bool,
    beyond_repair: bool,
    damaged: bool,
    unfinished: bool,
}

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

/// Reads every file of a store, and reports its condition and what to do.
///
/// Takes no lock and changes nothing. Never waits for another process. Writes in progress are not
/// reported as damage. Memory: one line, and the damages.
///
/// # Errors
/// [`Error::MissingDirectory`], [`Error::NotADirectory`], and [`Error::Io`] if the directory cannot
/// be listed. Any other problem is part of the report.
///
/// ```
/// use strand_core::{
///     Issue, IssueEvent, Log, Options, Timestamp,
///     check::{Advice, check},
/// };
///
/// let now = Timestamp::now();
/// # let dir = tempfile::tempdir()?;
/// let log = Log::open(dir.path(), Options::default())?;
/// log.append(&IssueEvent::add(Issue::new("bd-1", "Mend the fence"), now))?;
///
/// let report = check(dir.path())?;
/// assert_eq!(report.advice, Advice::Nothing);
/// assert_eq!((report.records, report.hinted_seq), (1, Some(1)));
/// println!("{report}");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn check(dir: impl AsRef<Path>) -> Result<CheckReport> {
    in_dir(&StoreDir::on_disk(dir.as_ref())?)
}

// I3: nothing is written.
pub(crate) fn in_dir(dir: &StoreDir) -> Result<CheckReport> {
    let mut seen = Look::take(dir)?;
    for _ in 1..LOOKS {
        if !seen.is_suspicious() {
            break;
        }
        let again = Look::take(dir)?;
        let agreed = again.agrees_with(&seen);
        seen = again.confirmed_by(&seen);
        if agreed {
            break;
        }
        dir.host().sleep(BETWEEN_LOOKS);
    }
    Ok(seen.finish())
}

/// The condition of the shared hints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hints {
    Good,
    /// The next writer creates them.
    Missing,
    /// From another boot, file or store, or damaged. The next writer rebuilds them.
    Stale,
    /// A writer is changing them, or died while it did. The next writer rebuilds them.
    HalfChanged,
    /// The next writer writes the records in doubt again.
    Poisoned,
    /// Of an earlier moment, put back while the system runs. The next writer brings them up to the
    /// log.
    Behind,
}

impl Hints {
    fn problem(self) -> Option<&'static str> {
        match self {
            Self::Good => None,
            Self::Missing => Some("missing"),
            Self::Stale => Some("stale"),
            Self::HalfChanged => Some("half-changed"),
            Self::Poisoned => Some("a sync failed"),
            Self::Behind => Some("behind the log"),
        }
    }
}

/// One look at a store.
struct Look<'a> {
    dir: &'a StoreDir,
    report: CheckReport,
    damages: Damages,
    hints: Hints,
    newer: bool,
    beyond_repair: bool,
    orphans: Vec<String>,
    /// Whether the directory is not a store yet.
    new: bool,
}

impl<'a> Look<'a> {
    fn take(dir: &'a StoreDir) -> Result<Self> {
        let names = dir.list()?;
        let mut look = Self::new(dir);
        let manifest = look.manifest(&names)?;
        if let Some(manifest) = &manifest {
            let hints = look.hints(manifest);
            look.log(manifest, hints)?;
            look.compare_hints(manifest);
        }
        look.snapshots(&names, manifest.as_ref());
        look.files(names, manifest.as_ref());
        Ok(look)
    }

    fn new(dir: &'a StoreDir) -> Self {
        let lock = |file: &str| (PathBuf::from(file), dir.look_at_lock(file));
        let report = CheckReport {
            dir: dir.path().to_owned(),
            advice: Advice::Nothing,
            store: None,
            format: None,
            filesystem: dir.filesystem().ok(),
            first_seq: 1,
            last_seq: 0,
            records: 0,
            no_op: Vec::new(),
            hinted_seq: None,
            durable_seq: 0,
            hints_problem: None,
            snapshots: Vec::new(),
            files: BTreeMap::new(),
            damages: Vec::new(),
            damages_left_off: 0,
            gaps: Vec::new(),
            torn: None,
            locks: vec![lock(LOCK), lock(COMPACT_LOCK)],
            unreadable: BTreeMap::new(),
        };
        Self {
            dir,
            report,
            damages: Damages::default(),
            hints: Hints::Missing,
            newer: false,
            beyond_repair: false,
            orphans: Vec::new(),
            new: false,
        }
    }

    fn damaged_file(&mut self, file: &str, offset: u64, reason: CorruptReason) {
        self.damages
            .push(Damage::of_file(Path::new(file), offset, reason));
    }

    fn unreadable(&mut self, file: &str, error: &Error) {
        let error = with_sources(error);
        self.report.unreadable.insert(file.into(), error);
    }

    /// The manifest, or the one that fits the files.
    fn manifest(&mut self, names: &[String]) -> Result<Option<Manifest>> {
        let read = Manifest::read(self.dir);
        let present = read.as_ref().ok().cloned().flatten();
        match &read {
            Ok(Some(manifest)) => {
                self.report.store = Some(manifest.store.clone());
                self.report.format = Some(manifest.format);
            }
            Ok(None) => {
                self.new = is_new(self.dir)?;
                if self.new {
                    return Ok(None);
                }
            }
            Err(Error::UnsupportedVersion { found, .. }) => {
                self.report.format = Some(*found);
                self.newer = true;
                return Ok(None);
            }
            Err(_) => {}
        }
        match fitting_manifest(self.dir, names, read) {
            Ok((manifest, reason)) => {
                if let Some(reason) = reason {
                    self.damaged_file(MANIFEST, 0, reason);
                }
                self.beyond_repair |= manifest.is_none();
                Ok(manifest)
            }
            Err(error) => {
                self.unreadable(MANIFEST, &error);
                Ok(present)
            }
        }
    }

    fn hints(&mut self, manifest: &Manifest) -> HintsLook {
        let view = ShmView::open(self.dir, &manifest.store);
        let Some(look) = view.and_then(|view| view.look()) else {
            return HintsLook::default();
        };
        self.hints = if !look.ours || look.durable_seq.is_none() {
            Hints::Stale
        } else if look.poisoned {
            Hints::Poisoned
        } else if look.tail_is_whole {
            Hints::Good
        } else {
            Hints::HalfChanged
        };
        self.report.hinted_seq = look.durable_seq.filter(|_| look.ours);
        look
    }

    /// Compares the durable number as it is now with the log as it was.
    fn compare_hints(&mut self, manifest: &Manifest) {
        let view = ShmView::open(self.dir, &manifest.store);
        let durable_seq = view.and_then(|view| view.durable_seq());
        if durable_seq.is_some_and(|seq| seq < self.report.durable_seq) {
            self.hints = Hints::Behind;
        }
    }

    fn log(&mut self, manifest: &Manifest, hints: HintsLook) -> Result<()> {
        let live = manifest.first_seq;
        self.report.first_seq = live;
        self.report.last_seq = live - 1;
        let durable_seq = hints.durable_seq_of_store.unwrap_or(0);
        let scan = StoreScan::take(self.dir, live, durable_seq)?;
        for (first_seq, error) in &scan.unreadable {
            self.unreadable(&segment_name(*first_seq), error);
        }
        self.report.durable_seq = scan.durable_seq.max(live - 1);
        if let Some(missing) = scan.missing_first(live) {
            let reason = CorruptReason::Missing {
                from_seq: *missing.start(),
                through_seq: *missing.end(),
            };
            self.damaged_file(&segment_name(live), 0, reason);
            self.report.gaps.push(missing);
        }
        for segment in &scan.segments {
            self.report.records += segment.records;
            self.report.no_op.extend_from_slice(&segment.no_op);
            self.report.last_seq = self.report.last_seq.max(segment.scan.last_seq());
            self.segment(segment, scan.durable_seq);
        }
        self.beyond_repair |= ranges::count(&self.report.gaps) > LOST_MAX;
        Ok(())
    }

    fn segment(&mut self, segment: &Segment, durable_seq: u64) {
        let name = segment_name(segment.first_seq);
        match segment.tail(durable_seq) {
            Tail::Clean => {}
            Tail::Torn { valid_len } => {
                self.report.torn = Some((name.into(), valid_len..segment.scan.content_len));
            }
            Tail::Corrupt { offset, reason } => {
                let damage = match SegmentDamage::of(self.dir, segment, durable_seq) {
                    Ok(damage) => damage,
                    Err(error) => return self.unreadable(&name, &error),
                };
                if damage.bad.is_empty() {
                    self.damaged_file(&name, offset, reason);
                }
                self.damages.append(damage.bad);
                // Whole records after the first bad line count too.
                let last_seq = damage.last_seq.unwrap_or(0);
                self.report.last_seq = self.report.last_seq.max(last_seq);
                self.report.records += damage.records.saturating_sub(segment.records);
                self.report.gaps.extend(damage.gaps);
            }
        }
    }

    fn snapshots(&mut self, names: &[String], manifest: Option<&Manifest>) {
        let live = manifest.map(Manifest::files).unwrap_or_default();
        let mut files: Vec<Reflects> = live.iter().map(SnapshotFile::reflects).collect();
        files.extend(names.iter().filter_map(|name| Reflects::of_name(name)));
        files.sort_unstable_by_key(|file| (file.through, file.after));
        files.dedup();
        let obsolete = manifest.map(|manifest| obsolete(names, manifest, usize::MAX));
        let obsolete = obsolete.unwrap_or_default();
        let mut has_backup = false;
        let mut is_lost = false;
        for reflects in files.into_iter().rev() {
            let file = reflects.name();
            let listed = live.iter().find(|one| one.reflects() == reflects);
            let kind = match listed {
                Some(_) if reflects.is_base() => FileKind::Snapshot,
                Some(_) => FileKind::Run,
                None if manifest.is_none() || obsolete.contains(&file) => FileKind::Orphan,
                None => FileKind::Backup,
            };
            let contents = match contents(self.dir, &file, |_| {}) {
                Ok(contents) => contents,
                Err(error) => {
                    self.unreadable(&file, &error);
                    continue;
                }
            };
            let mark = listed.map(|file| file.mark);
            let problem = self.problem(reflects, mark, contents.as_ref(), manifest);
            let contents = contents.unwrap_or_default();
            let [issues, tombstones, keys, other_lines] = contents.counts;
            match kind {
                FileKind::Snapshot | FileKind::Run if problem.is_some() => {
                    if reflects.is_base() {
                        let store = manifest.map_or("", |manifest| &manifest.store);
                        is_lost = Left::of(&contents, reflects, store) == Left::Nothing;
                        // A repair does not know how to rebuild it.
                        self.beyond_repair |= contents.is_of_other_state();
                    }
                    // Damage to a backup is harmless.
                    if let (Some(message), true) = (&problem, contents.bad.is_empty()) {
                        let message = message.clone();
                        self.damaged_file(&file, 0, CorruptReason::Snapshot { message });
                    }
                    self.damages.append(contents.bad);
                }
                FileKind::Backup if reflects.is_base() => has_backup |= problem.is_none(),
                _ => {}
            }
            self.report.snapshots.push(SnapshotReport {
                file: file.into(),
                seq: reflects.through,
                kind,
                problem,
                issues,
                tombstones,
                keys,
                other_lines,
            });
        }
        let has_first = names.iter().any(|name| segment_first_seq(name) == Some(1));
        self.beyond_repair |= is_lost && !has_backup && !has_first;
    }

    /// Why a file of a snapshot cannot be read as a whole, if it cannot.
    fn problem(
        &self,
        reflects: Reflects,
        named: Option<SnapshotMark>,
        contents: Option<&Contents>,
        manifest: Option<&Manifest>,
    ) -> Option<String> {
        let Some(contents) = contents else {
            return Some("the MANIFEST names it, but it does not exist".to_owned());
        };
        let store = manifest.map(|manifest| manifest.store.as_str());
        if !contents.is_whole(reflects, store) {
            return Some(match contents.bad.count() {
                0 => "its lines do not match its first line".to_owned(),
                bad => format!("{bad} damaged lines"),
            });
        }
        // If the manifest is lost, its description is only a guess.
        let differs = self.report.store.is_some() && contents.mark(reflects.through) != named?;
        differs.then(|| "it is not the file that the MANIFEST describes".to_owned())
    }

    fn files(&mut self, mut names: Vec<String>, manifest: Option<&Manifest>) {
        let dir = self.dir;
        if let Some(manifest) = manifest {
            self.orphans = obsolete(&names, manifest, usize::MAX);
            let is_dir = |name: &mut String| dir.subdir(name).is_some();
            for name in self.orphans.extract_if(.., is_dir).collect::<Vec<_>>() {
                let path = dir.path_of(&name);
                self.unreadable(&name, &Error::ForeignFile { path });
            }
        }
        if let Some(quarantine) = dir.subdir(QUARANTINE) {
            let kept = quarantine.list().unwrap_or_default();
            names.extend(kept.iter().map(|name| format!("{QUARANTINE}/{name}")));
        }
        names.sort_unstable();
        for name in names {
            let kind = self.kind_of(&name, manifest);
            let bytes = if dir.subdir(&name).is_some() {
                None
            } else {
                let file = dir.open(&name, OpenMode::Read);
                file.and_then(|file| file.len_bytes()).ok()
            };
            self.report.files.insert(name.into(), (kind, bytes));
        }
    }

    fn kind_of(&self, name: &str, manifest: Option<&Manifest>) -> FileKind {
        let live = manifest.map(Manifest::files).unwrap_or_default();
        let is_live = |file| live.iter().any(|one| one.reflects() == file);
        match name {
            MANIFEST => FileKind::Manifest,
            LOCK | COMPACT_LOCK => FileKind::Lock,
            SHM => FileKind::Hints,
            "no-auto-compact" | "archive-dir" => FileKind::Setting,
            _ if name.split('/').next() == Some(QUARANTINE) => FileKind::Quarantine,
            MIRRORS => FileKind::Mirrors,
            _ if self.orphans.iter().any(|orphan| orphan == name) => FileKind::Orphan,
            _ if segment_first_seq(name).is_some() => FileKind::Segment,
            _ if is_hint(name) => FileKind::Index,
            _ => match Reflects::of_name(name) {
                Some(file) if is_live(file) && file.is_base() => FileKind::Snapshot,
                Some(file) if is_live(file) => FileKind::Run,
                Some(_) => FileKind::Backup,
                None => FileKind::Unknown,
            },
        }
    }

    fn is_held(&self, file: &str) -> bool {
        let mut locks = self.report.locks.iter();
        locks.any(|(lock, state)| {
            let held = state.as_ref().is_some_and(|state| state.holder.is_some());
            lock == Path::new(file) && held
        })
    }

    /// Whether an operation was interrupted, rather than in progress.
    fn is_unfinished(&self) -> bool {
        let hints = matches!(
            self.hints,
            Hints::HalfChanged | Hints::Poisoned | Hints::Behind
        );
        self.new
            || (self.report.torn.is_some() || hints) && !self.is_held(LOCK)
            || !self.orphans.is_empty() && !self.is_held(COMPACT_LOCK)
    }

    fn is_damaged(&self) -> bool {
        !self.damages.is_empty() || !self.report.gaps.is_empty()
    }

    /// Whether anything is wrong, or seems to be.
    fn is_suspicious(&self) -> bool {
        self.is_unfinished()
            || self.newer
            || self.beyond_repair
            || self.is_damaged()
            || !self.report.unreadable.is_empty()
    }

    fn agrees_with(&self, other: &Self) -> bool {
        let (one, two) = (&self.report, &other.report);
        self.damages == other.damages
            && one.gaps == two.gaps
            && one.torn == two.torn
            && one.unreadable == two.unreadable
            && self.hints == other.hints
            && (self.newer, self.beyond_repair, self.new)
                == (other.newer, other.beyond_repair, other.new)
            && self.orphans == other.orphans
    }

    /// Drops what looks wrong now, but did not in an earlier look.
    fn confirmed_by(mut self, earlier: &Self) -> Self {
        let (now, then) = (&mut self.report, &earlier.report);
        let damages = &earlier.damages.listed;
        self.damages
            .listed
            .retain(|damage| damages.contains(damage));
        now.gaps.retain(|gap| then.gaps.contains(gap));
        now.unreadable
            .retain(|file, error| then.unreadable.get(file) == Some(error));
        if now.torn != then.torn {
            now.torn = None;
        }
        self.orphans.retain(|name| earlier.orphans.contains(name));
        self.newer &= earlier.newer;
        self.beyond_repair &= earlier.beyond_repair;
        self.new &= earlier.new;
        self
    }

    fn finish(self) -> CheckReport {
        let advice = advice(Signs {
            newer: self.newer,
            unreadable: !self.report.unreadable.is_empty(),
            beyond_repair: self.beyond_repair,
            damaged: self.is_damaged(),
            unfinished: self.is_unfinished(),
        });
        CheckReport {
            advice,
            damages: self.damages.listed,
            damages_left_off: self.damages.left_off,
            hints_problem: self.hints.problem().map(str::to_owned),
            ..self.report
        }
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
