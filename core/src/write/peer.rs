//! Two stores that take each other's changes: a directory, and a store of any kind.
//!
//! What the two had in common is remembered in the directory, as that of a file is
//! ([`mirror`](crate::write::mirror)). It is written last, so that whatever is interrupted finds
//! both sides with the same changes, and goes on.

use std::{collections::BTreeMap, io::Write as _};

use crate::{
    issues::{
        issue::Issue, jsonl::on_one_line, merge::three_way, merge_sides::Lines, version::Version,
    },
    write::{
        backend::Backend,
        import::{Existing, ImportError, ImportOptions, Imported},
        issue_log::IssueLog,
        mirror::{ATTEMPTS, Limits, Mirror, Store, apply},
    },
};

/// Every kind of store takes such a record.
const LIMITS: Limits = Limits {
    bytes: 512 << 10,
    issues: 100,
};

/// Issues with their versions.
type Versions = BTreeMap<String, (Issue, Version)>;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Pull,
    Push,
}

impl IssueLog {
    /// Makes in this store the changes that another store has had since the two last exchanged any:
    /// what it added, changed and deleted. It does not change the other store. `name` stands for
    /// the other store, and is the same each time.
    ///
    /// What both changed is merged with [`merge`](crate::merge)'s rules. Where both changed the
    /// same in different ways, `options` say what counts, as for [`IssueLog::sync`], with the other
    /// store in the place of the file.
    ///
    /// All changes are written under the condition that nobody has changed the issue meanwhile;
    /// else it begins again. If the process is killed, or the other store fails, call it again.
    ///
    /// # Errors
    /// [`ImportError::Conflicts`], [`ImportError::FileEmpty`]: nothing was changed. Otherwise as
    /// [`IssueLog::sync`].
    ///
    /// ```
    /// use strand_core::{ImportOptions, Issue, IssueLog, Options, Timestamp};
    ///
    /// # let (one, other) = (tempfile::tempdir()?, tempfile::tempdir()?);
    /// let mine = IssueLog::open(one.path(), Options::default())?;
    /// let team = IssueLog::open(other.path(), Options::default())?;
    /// let options = ImportOptions::new(Timestamp::now()).refuse_existing();
    /// team.create(Issue::new("bd-1", "Mend the fence"))?;
    /// assert_eq!(mine.pull(&team, "team", options)?.added, 1);
    /// mine.claim("bd-1", "agent-7")?;
    /// team.create(Issue::new("bd-2", "Buy wire"))?;
    /// assert_eq!(mine.push(&team, "team", options)?.replaced, 1);
    /// assert_eq!(mine.pull(&team, "team", options)?.added, 1);
    /// assert_eq!(mine.live()?.into_state().len(), team.live()?.into_state().len());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn pull(
        &self,
        from: &dyn Backend,
        name: &str,
        options: ImportOptions,
    ) -> Result<Imported, ImportError> {
        self.exchange(from, name, options, Way::Pull)
    }

    /// Makes in another store the changes that this one has had since the two last exchanged any.
    /// It does not change this store. See [`IssueLog::pull`], which has the example; the counts are
    /// those of the other store.
    ///
    /// # Errors
    /// As [`IssueLog::pull`]; [`ImportError::Log`] if the other store fails.
    pub fn push(
        &self,
        to: &dyn Backend,
        name: &str,
        options: ImportOptions,
    ) -> Result<Imported, ImportError> {
        self.exchange(to, name, options, Way::Push)
    }

    fn exchange(
        &self,
        other: &dyn Backend,
        name: &str,
        options: ImportOptions,
        way: Way,
    ) -> Result<Imported, ImportError> {
        let mirror = Mirror::of_store(self.dir(), name);
        mirror.hold(self.lock_timeout(), || {
            for _ in 0..ATTEMPTS {
                if let Some(done) = self.exchange_once(other, &mirror, options, way)? {
                    return Ok(done);
                }
            }
            let path = name.into();
            Err(ImportError::FileChanged { path })
        })
    }

    /// `None` if another process has changed an issue meanwhile.
    fn exchange_once(
        &self,
        other: &dyn Backend,
        mirror: &Mirror,
        options: ImportOptions,
        way: Way,
    ) -> Result<Option<Imported>, ImportError> {
        let mut done = Imported::default();
        let base = mirror.base()?;
        let is_first = base.is_none();
        let mut base = base.unwrap_or_default();
        let theirs = versions(other)?;
        let their_lines = lines(&theirs);
        done.lines = theirs.len() as u64;
        if theirs.is_empty() && !base.issues.is_empty() {
            let path = mirror.file.clone();
            return Err(ImportError::FileEmpty { path });
        }
        let ours = self.with_issues(|issues| Store::of(issues, &base, &their_lines, is_first))?;
        let our_lines = ours.lines();
        base.issues.retain(|id, _| !ours.lost.contains(id));
        let merged = three_way(base, our_lines.clone(), their_lines.clone());
        done.renamed = merged.renamed;
        let decided = &mut done.decided;
        let result = ours.decide_all(merged.issues, &their_lines, options.existing, decided);
        if options.existing == Existing::Refuse && !done.decided.is_empty() {
            let conflicts = done.decided;
            return Err(ImportError::Conflicts { conflicts });
        }
        // The changes of the other side are in common now; the side that was not changed has them.
        let (to, has, common): (&dyn Backend, _, _) = match way {
            Way::Pull => (self, &ours.issues, their_lines),
            Way::Push => (other, &theirs, our_lines),
        };
        if !apply(to, LIMITS, has, &result, options.ts, &mut done)? {
            return Ok(None);
        }
        if way == Way::Pull {
            self.make_durable(&done)?;
        }
        mirror.remember(|base| {
            common
                .values()
                .try_for_each(|issue| writeln!(base, "{}", on_one_line(issue.as_json())))
        })?;
        Ok(Some(done))
    }
}

fn versions(store: &dyn Backend) -> Result<Versions, ImportError> {
    let mut found = Versions::new();
    store.look(&mut |issues| {
        let all = issues.iter().filter_map(|(id, issue)| {
            let version = issues.version(id)?;
            Some((id.to_owned(), (issue.clone(), version)))
        });
        found = all.collect();
    })?;
    Ok(found)
}

fn lines(versions: &Versions) -> Lines {
    let issues = versions.iter();
    issues
        .map(|(id, (issue, _))| (id.clone(), issue.clone()))
        .collect()
}

#[cfg(test)]
mod tests;
