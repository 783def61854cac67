//! The issues that are not closed, from a file that has them as they were after some record behind
//! the snapshot. See `docs/FORMAT.md`.
//!
//! It is a hint that saves reading the log through that record. It is believed only if it is whole,
//! of the live snapshot, and if both the log and the index beside it are at that record what they
//! were when it was written. Whoever extends the index writes it anew now and then.

use crate::{
    error::Result,
    format::record::recent_first_seq,
    issues::issues::Issues,
    state::{
        materialize::Materialized,
        points::{Points, RELOAD_EVERY, Wanted},
        snapshot::UnclosedFile,
        tail::Tail,
        unclosed,
    },
    wal::{
        durable::End,
        manifest::Manifest,
        store_dir::{StoreDir, replaced},
    },
};

/// The issues that are not closed, and perhaps some that are, after some record; and the records
/// behind it.
#[derive(Debug)]
pub(crate) struct Recent {
    dir: StoreDir,
    manifest: Manifest,
    tail: Tail,
    issues: Issues,
    /// The record at which to look for a newer file.
    reloads_at_seq: u64,
}

impl Recent {
    /// Reads the last of the files that is to be believed, and the log from there through this
    /// record. `None` if there is none.
    pub(crate) fn load(dir: &StoreDir, through: u64) -> Result<Option<Self>> {
        let manifest = Manifest::required(dir)?;
        let names = dir.list()?;
        let segments = names.iter().filter_map(|name| recent_first_seq(name));
        let mut segments: Vec<u64> = segments
            .filter(|segment| *segment >= manifest.first_seq)
            .collect();
        segments.sort_unstable();
        for segment in segments.into_iter().rev() {
            if let Some((tail, issues)) = read(dir, &manifest, segment, through)? {
                return Ok(Some(Self {
                    dir: dir.clone(),
                    manifest,
                    reloads_at_seq: tail.last_seq() + RELOAD_EVERY,
                    tail,
                    issues,
                }));
            }
        }
        Ok(None)
    }

    /// The issues that are not closed, and perhaps some that are, after the last record that was
    /// read.
    pub(crate) fn into_unclosed(mut self) -> Result<Issues> {
        self.go_on()?;
        Ok(self.issues)
    }

    /// As [`Recent::into_unclosed`], through this record. `None` if the files are others now. After
    /// that or an error, it is of no use.
    pub(crate) fn unclosed(&mut self, through: u64) -> Result<Option<&Issues>> {
        let is_live = Manifest::required(&self.dir)? == self.manifest;
        if !is_live || self.tail.last_seq() >= self.reloads_at_seq {
            // A newer file, with less behind it, and without what was closed meanwhile.
            self.reloads_at_seq = self.tail.last_seq() + RELOAD_EVERY;
            match Self::load(&self.dir, through)? {
                Some(recent) => *self = recent,
                None if is_live => {}
                None => return Ok(None),
            }
        }
        if !self.tail.advance(End::Seq(through))? {
            return Ok(None);
        }
        self.go_on()?;
        Ok(Some(&self.issues))
    }

    /// What the state through this record has of this; `None` where others have to be asked.
    pub(crate) fn part(&mut self, wanted: &Wanted, through: u64) -> Result<Option<Issues>> {
        let Some(mut part) = wanted.all_of(&self.issues) else {
            return Ok(None);
        };
        if !self.tail.advance(End::Seq(through))? {
            return Err(replaced(self.dir.path()));
        }
        wanted.apply_tail(&mut part, &mut self.tail)?;
        Ok(Some(part))
    }

    /// As [`Points::save`].
    pub(crate) fn save(&mut self) {
        let through = self.tail.last_seq();
        if self.tail.save()
            && unclosed::is_due(&self.dir, &self.manifest, &self.tail)
            && let Ok(mut points) = Points::load(&self.dir, || End::Seq(through))
        {
            points.save_unclosed();
        }
    }

    fn go_on(&mut self) -> Result<()> {
        let (dir, through) = (&self.dir, self.tail.last_seq());
        let mut points = None;
        let mut others = |ids: &[&str]| {
            let points = match &mut points {
                Some(points) => points,
                None => points.insert(Points::load(dir, || End::Seq(through))?),
            };
            let ids = ids.iter().map(|id| (*id).to_owned());
            points.part(&Wanted::new(ids.collect(), None))
        };
        let issues = std::mem::take(&mut self.issues);
        self.issues = unclosed::go_on(issues, &mut self.tail, &mut others)?;
        Ok(())
    }
}

fn read(
    dir: &StoreDir,
    manifest: &Manifest,
    segment: u64,
    through: u64,
) -> Result<Option<(Tail, Issues)>> {
    let Some(file) = UnclosedFile::open_recent(dir, manifest, segment) else {
        return Ok(None);
    };
    let Some(end) = file.block_end(segment) else {
        return Ok(None);
    };
    let Some(tail) = Tail::load_behind(dir, manifest, &end, through)? else {
        return Ok(None);
    };
    Ok(file.read(|_| true).map(|issues| (tail, issues)))
}

/// Reads the issues that are not closed, and perhaps some that are, to where `end` says. Reads all
/// issues where that is necessary.
pub(crate) fn load_unclosed(dir: &StoreDir, mut end: impl FnMut() -> End) -> Result<Issues> {
    if let End::Seq(through) = end()
        && let Ok(Some(recent)) = Recent::load(dir, through)
        && let Ok(unclosed) = recent.into_unclosed()
    {
        return Ok(unclosed);
    }
    match Points::load(dir, &mut end).and_then(|mut points| points.unclosed()) {
        Ok(Some(unclosed)) => Ok(unclosed),
        // Whatever is wrong, reading everything says so.
        Ok(None) | Err(_) => Ok(Materialized::load(dir, end)?.state),
    }
}
