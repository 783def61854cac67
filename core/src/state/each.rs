//! All issues, one after the other: in memory is only what changed behind the snapshot.

use std::ops::ControlFlow;

use crate::{
    error::{Error, Result},
    format::seq::Seq,
    issues::{
        issue::Issue,
        issues::{Entry, Issues},
        timestamp::Timestamp,
        version::Version,
    },
    state::{
        base::{NewBase, fold_changed},
        materialize::{ATTEMPTS, Materialized},
        snapshot::{corrupt, wrong},
        throttle::Throttle,
    },
    wal::{durable::End, manifest::Manifest, store_dir::StoreDir},
};

/// Of what [`Issues::each`] has gone through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Passed {
    /// The last durable record, as of which the issues were.
    pub last_seq: Seq,
    /// As [`Issues::without_effect`].
    pub without_effect: u64,
}

impl Passed {
    fn of(issues: &Issues) -> Self {
        Self {
            last_seq: issues.last_seq(),
            without_effect: issues.without_effect(),
        }
    }
}

/// Calls `look` with the issues through `end`, sorted by id, until it breaks.
pub(crate) fn each_issue(
    dir: &StoreDir,
    mut end: impl FnMut() -> End,
    mut look: impl FnMut(&str, Version, &Issue) -> ControlFlow<()>,
) -> Result<Passed> {
    for _ in 0..ATTEMPTS {
        let manifest = Manifest::required(dir)?;
        let mut seen = false;
        let read = each_of(dir, &manifest, end(), |id, version, issue| {
            seen = true;
            look(id, version, issue)
        });
        match read {
            Ok(Some(passed)) => return Ok(passed),
            Ok(None) | Err(Error::Compacted { .. }) if !seen => {
                if Manifest::required(dir)? == manifest {
                    break; // An older program wrote the lines in another order.
                }
            }
            Ok(None) => {
                return Err(corrupt(
                    dir.path(),
                    0,
                    wrong("lines of a file are not in order"),
                ));
            }
            Err(error) => return Err(error),
        }
    }
    let all: Issues = Materialized::load(dir, end)?.state;
    for (id, entry) in all.entries() {
        if let Entry::Present { issue, version } = entry
            && look(id, *version, issue).is_break()
        {
            break;
        }
    }
    Ok(Passed::of(&all))
}

/// As [`each_issue`], from the files that this manifest names. `None` if one of them is gone, or
/// its lines are not in order.
fn each_of(
    dir: &StoreDir,
    manifest: &Manifest,
    end: End,
    mut look: impl FnMut(&str, Version, &Issue) -> ControlFlow<()>,
) -> Result<Option<Passed>> {
    let mut throttle = Throttle::HURRIED;
    let files = manifest.files().len();
    let Some((later, said)) = fold_changed(dir, manifest, files, end, &mut throttle)? else {
        return Ok(None);
    };
    let base = NewBase {
        dir,
        manifest,
        later: &later,
        before_seq: Seq::default(),
        before: Timestamp::from_ms(i64::MIN),
    };
    let (mut found, mut is_over) = (0, true);
    let read = base.each_issue(&mut throttle, |id, entry| {
        let Entry::Present { issue, version } = entry else {
            return ControlFlow::Continue(());
        };
        found += 1;
        let flow = look(id, *version, issue);
        is_over = flow.is_continue();
        flow
    })?;
    if read && is_over && found != said {
        let message = format!("there are {found} issues in all files, and it says {said}");
        return Err(corrupt(dir.path(), 0, wrong(&message)));
    }
    Ok(read.then(|| Passed::of(&later)))
}
