use std::path::Path;

use crate::{
    error::Result,
    format::seq::Seq,
    issues::{
        index::{Facts, blockers},
        issue::Issue,
        issues::Issues,
        version::Version,
    },
    state::points::{Points, Wanted},
    wal::{durable::DurableWatch, store_dir::StoreDir},
};

/// Reads single issues, as of one record, without reading all of them: as
/// [`LiveIssues`](crate::LiveIssues) has them, for a program that asks for few.
///
/// An issue costs a few reads of the snapshot, however many there are, and of the records behind
/// the snapshot those that concern it. Opening reads those records once, unless an index knows
/// where they are. Takes no lock and writes nothing.
///
/// ```
/// use strand_core::{Issue, IssueLog, Options, PointReader, Version};
///
/// # let dir = tempfile::tempdir()?;
/// let log = IssueLog::open(dir.path(), Options::default())?;
/// log.create(Issue::new("bd-1", "Mend the fence"))?;
///
/// let mut issues = PointReader::open(dir.path())?;
/// let found = issues.get("bd-1")?.expect("it was created");
/// assert_eq!(found.version, Version::new(1));
/// assert_eq!(found.issue.title(), "Mend the fence");
/// assert!(issues.get("bd-2")?.is_none() && issues.blockers("bd-1")?.is_empty());
///
/// log.create(Issue::new("bd-2", "Buy wire"))?;
/// assert_eq!(issues.refresh()?, 2);
/// assert!(issues.get("bd-2")?.is_some());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct PointReader {
    points: Points,
    watch: DurableWatch,
}

/// An issue at its version. Example: [`PointReader`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Versioned {
    /// The record that last changed it.
    pub version: Version,
    /// The issue.
    pub issue: Issue,
}

impl Versioned {
    pub(crate) fn of(issues: &Issues, id: &str) -> Option<Self> {
        Some(Self {
            version: issues.version(id)?,
            issue: issues.get(id)?.clone(),
        })
    }
}

impl PointReader {
    /// Opens the store in `dir`, to read it as of the last durable record. Does not block.
    ///
    /// # Errors
    /// As [`crate::Live::open`]; of damage, only what was read is noticed.
    pub fn open(dir: impl AsRef<Path>) -> Result<Self> {
        Self::in_dir(&StoreDir::on_disk(dir.as_ref())?)
    }

    pub(crate) fn in_dir(dir: &StoreDir) -> Result<Self> {
        let mut watch = DurableWatch::open_store(dir)?;
        let points = Points::load(dir, || watch.end())?;
        Ok(Self { points, watch })
    }

    /// The issue with this id; `None` if it does not exist.
    ///
    /// # Errors
    /// [`crate::Error::Corrupt`], [`crate::Error::Io`].
    pub fn get(&mut self, id: &str) -> Result<Option<Versioned>> {
        let part = self.points.part(&Wanted::id(id))?;
        Ok(Versioned::of(&part, id))
    }

    /// The record with this idempotency key: see [`Issues::key`].
    ///
    /// # Errors
    /// As [`PointReader::get`].
    pub fn key(&mut self, key: &str) -> Result<Option<Seq>> {
        let part = self
            .points
            .part(&Wanted::new(Vec::new(), Some(key.to_owned())))?;
        Ok(part.key(key))
    }

    /// As [`Issues::blockers`]; looks up the issues that it depends on and is a part of.
    ///
    /// # Errors
    /// As [`PointReader::get`].
    pub fn blockers(&mut self, id: &str) -> Result<Vec<String>> {
        let facts = |id: &str| -> Result<_> {
            let found = self.get(id)?;
            Ok(found.map(|found| Facts::of(&found.issue)))
        };
        Ok(blockers(id, facts)?.into_iter().collect())
    }

    /// Moves on to the last durable record, and returns its number; 0 if there is none.
    ///
    /// # Errors
    /// As [`PointReader::get`].
    pub fn refresh(&mut self) -> Result<Seq> {
        let end = self.watch.end();
        self.points.advance(end)?;
        self.points.keep_up()?;
        Ok(Seq::new(self.points.last_seq()))
    }
}
