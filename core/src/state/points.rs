//! Parts of the state of issues: what is known of some ids and keys, and of nothing else.

use crate::{
    error::{Error, Result},
    format::seq::Seq,
    issues::issues::Issues,
    state::{
        lookup::SnapshotLookup,
        materialize::{ATTEMPTS, from_live_files},
        mentions::Name,
        tail::Tail,
        unclosed,
    },
    wal::{durable::End, manifest::Manifest, store_dir::StoreDir},
};

/// The fewest records between two looks whether there is a newer snapshot. Until then its files
/// take space, and the records that it reflects take memory.
pub(super) const RELOAD_EVERY: u64 = 1_024;

/// The ids and the key that are asked for.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Wanted {
    ids: Vec<String>,
    key: Option<String>,
}

impl Wanted {
    pub(crate) fn new(mut ids: Vec<String>, key: Option<String>) -> Self {
        ids.sort_unstable();
        ids.dedup();
        Self { ids, key }
    }

    pub(crate) fn id(id: &str) -> Self {
        Self::new(vec![id.to_owned()], None)
    }

    /// What a whole state has of it.
    pub(crate) fn part_of(&self, issues: &Issues) -> Issues {
        let mut part = Issues::default();
        for id in &self.ids {
            if let Some(entry) = issues.entry(id) {
                part.restore_entry(id.clone(), entry.clone());
            }
        }
        if let Some(key) = &self.key
            && let Some(write) = issues.keyed_write(key)
        {
            part.restore_key(key, write);
        }
        part.moved_on(issues.last_seq());
        part
    }

    fn has(&self, id: &str) -> bool {
        self.ids
            .binary_search_by(|own| own.as_str().cmp(id))
            .is_ok()
    }

    /// As [`Wanted::part_of`]; `None` unless all of it is there.
    pub(super) fn all_of(&self, issues: &Issues) -> Option<Issues> {
        let is_there = |id: &String| issues.entry(id).is_some();
        let all = self.key.is_none() && self.ids.iter().all(is_there);
        all.then(|| self.part_of(issues))
    }

    /// Applies what the records behind a part say of it.
    pub(super) fn apply_tail(&self, part: &mut Issues, tail: &mut Tail) -> Result<()> {
        let after = part.last_seq().get();
        let records = tail.concerning(&self.names(), after);
        let is_wanted_key = |key: &str| self.key.as_deref() == Some(key);
        // Whether a write is the same again depends on all events of the record.
        let ids = self.key.is_none().then_some(self.ids.as_slice());
        tail.segments.each_of(&records, ids, |seq, events| {
            part.apply_some(seq, events, |id| self.has(id), is_wanted_key);
        })?;
        part.moved_on(Seq::new(tail.last_seq()));
        Ok(())
    }

    fn names(&self) -> Vec<Name<'_>> {
        let ids = self.ids.iter().map(|id| Name::of_id(id));
        let key = self.key.iter().map(|key| Name::of_key(key));
        ids.chain(key).collect()
    }
}

/// Finds parts of the state that the log leads to through some record.
#[derive(Debug)]
pub(crate) struct Points {
    dir: StoreDir,
    manifest: Manifest,
    snapshot: SnapshotLookup,
    tail: Tail,
    end: End,
    /// The record at which to look for a newer snapshot.
    reloads_at_seq: u64,
}

impl Points {
    /// Opens the files of the store, to where `end` says once the snapshot is open.
    pub(crate) fn load(dir: &StoreDir, end: impl FnMut() -> End) -> Result<Self> {
        Self::load_with(dir, end, Tail::load)
    }

    fn load_with(
        dir: &StoreDir,
        mut end: impl FnMut() -> End,
        read: fn(&StoreDir, &Manifest, End) -> Result<Tail>,
    ) -> Result<Self> {
        from_live_files(dir, |manifest| {
            let mut read_with = |manifest: &Manifest| {
                let files = manifest.files();
                let Some(snapshot) = SnapshotLookup::open(dir, manifest, &files)? else {
                    return Ok(None);
                };
                let end = end();
                let tail = read(dir, manifest, end)?;
                Ok(Some(Self {
                    dir: dir.clone(),
                    snapshot,
                    reloads_at_seq: tail.last_seq() + RELOAD_EVERY,
                    tail,
                    end,
                    manifest: manifest.clone(),
                }))
            };
            match read_with(manifest) {
                // A compaction or a repair may have replaced what the manifest named.
                Err(error)
                    if is_of_other_files(&error) && Manifest::required(dir)? != *manifest =>
                {
                    Ok(None)
                }
                loaded => loaded,
            }
        })
    }

    /// The last record that the parts reflect.
    pub(crate) fn last_seq(&self) -> u64 {
        self.tail.last_seq()
    }

    /// How many issues there may be at most, deleted ones aside.
    pub(crate) fn issues_at_most(&self) -> usize {
        usize::try_from(self.snapshot.issues()).unwrap_or(usize::MAX) + self.tail.adds()
    }

    /// Moves on to `end`: reads new records, and decodes none of them.
    pub(crate) fn advance(&mut self, end: End) -> Result<()> {
        self.end = end;
        match self.tail.advance(end) {
            Err(Error::Compacted { .. }) => {
                *self = Self::load(&self.dir, || end)?;
                Ok(())
            }
            Ok(false) => {
                *self = Self::load_with(&self.dir, || end, Tail::scan)?;
                Ok(())
            }
            advanced => advanced.map(drop),
        }
    }

    /// Looks for a newer snapshot now and then, which lets go of the files before it.
    pub(crate) fn keep_up(&mut self) -> Result<()> {
        if self.last_seq() >= self.reloads_at_seq {
            self.reloads_at_seq = self.last_seq() + RELOAD_EVERY;
            self.reload_if_replaced()?;
        }
        Ok(())
    }

    /// Goes on with a newer snapshot, if there is one.
    fn reload_if_replaced(&mut self) -> Result<()> {
        if Manifest::required(&self.dir)? != self.manifest {
            let end = self.end;
            *self = Self::load(&self.dir, || end)?;
        }
        Ok(())
    }

    /// Writes down where the records are, for others, when it is worth it; and now and then the
    /// issues that are not closed.
    pub(crate) fn save(&mut self) {
        if self.tail.save() {
            self.save_unclosed();
        }
    }

    pub(super) fn save_unclosed(&mut self) -> Option<()> {
        self.reload_if_replaced().ok()?;
        let Self {
            dir,
            manifest,
            snapshot,
            tail,
            ..
        } = self;
        if unclosed::is_due(dir, manifest, tail) {
            let end = tail.mentioned.block_end()?;
            let unclosed = unclosed::read(dir, manifest, snapshot, tail, end.seq);
            unclosed::write(dir, manifest, &end, &unclosed.ok()??);
        }
        Some(())
    }

    /// What the state has of this.
    pub(crate) fn part(&mut self, wanted: &Wanted) -> Result<Issues> {
        self.in_these_files(|points| points.try_part(wanted))
    }

    /// The issues that are not closed, and perhaps some that are. `None` if no compaction has
    /// written them.
    pub(crate) fn unclosed(&mut self) -> Result<Option<Issues>> {
        self.reload_if_replaced()?;
        self.in_these_files(|points| {
            let Self {
                dir,
                manifest,
                snapshot,
                tail,
                ..
            } = points;
            let through = tail.last_seq();
            unclosed::read(dir, manifest, snapshot, tail, through)
        })
    }

    /// Reads something, and again if that fails because these are other files.
    fn in_these_files<T>(&mut self, mut read: impl FnMut(&mut Self) -> Result<T>) -> Result<T> {
        let mut attempts = 0;
        loop {
            match read(self) {
                // The first time, an index may be to blame. Later on, only other compactions are.
                Err(error)
                    if is_of_other_files(&error)
                        && attempts < ATTEMPTS
                        && (attempts == 0 || Manifest::required(&self.dir)? != self.manifest) =>
                {
                    attempts += 1;
                    // As the files are now, and without an index.
                    let end = self.end;
                    *self = Self::load_with(&self.dir, || end, Tail::scan)?;
                }
                read => return read,
            }
        }
    }

    /// Brings an earlier answer of [`Points::part`] to the same question up to date.
    pub(crate) fn renew(&mut self, part: &mut Issues, wanted: &Wanted) -> Result<()> {
        let mut renewed = part.clone();
        let goes_on = part.last_seq().get() + 1 >= self.manifest.first_seq;
        *part = if goes_on && wanted.apply_tail(&mut renewed, &mut self.tail).is_ok() {
            renewed
        } else {
            self.part(wanted)?
        };
        Ok(())
    }

    fn try_part(&mut self, wanted: &Wanted) -> Result<Issues> {
        let mut part = Issues::default();
        for id in &wanted.ids {
            if let Some(entry) = self.snapshot.entry(id)? {
                part.restore_entry(id.clone(), entry);
            }
        }
        if let Some(key) = &wanted.key
            && let Some(write) = self.snapshot.key(key)?
        {
            part.restore_key(key, write);
        }
        part.moved_on(Seq::new(self.manifest.first_seq - 1));
        wanted.apply_tail(&mut part, &mut self.tail)?;
        Ok(part)
    }
}

/// Whether the files may not be those that were there before: a compaction removes some, a repair
/// replaces some, and an index may be wrong.
fn is_of_other_files(error: &Error) -> bool {
    match error {
        Error::Corrupt { .. } | Error::Compacted { .. } => true,
        Error::Io { source, .. } => source.kind() == std::io::ErrorKind::NotFound,
        _ => false,
    }
}
