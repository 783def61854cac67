//! `claim`: assigns work to an agent.

use std::path::Path;

use serde::Serialize;
use strand_core::{Batch, CommitError, Issue, Receipt, Seq, backend::Backend};

use super::open;
use crate::{
    args::{Claim, Wanted},
    exit::{Exit, Failure},
    filter::is_free,
    input::new_batch,
    output::Output,
};

pub(crate) fn claim(dir: &Path, args: Claim, out: &mut Output) -> Result<(), Failure> {
    #[derive(Serialize)]
    struct Claimed<'a> {
        id: &'a str,
        seq: Seq,
        repeated: bool,
        issue: Option<&'a Issue>,
    }
    let log = open::store(dir, &args.writing, out)?;
    let (id, receipt) = if let Some(id) = args.id {
        let batch = new_batch(args.key).claim(id.as_str(), &args.agent);
        (id, log.commit(&batch)?)
    } else {
        let wanted = Wanted {
            labels: args.labels,
            priority: args.priority,
            kind: args.kind,
            ..Wanted::default()
        };
        claim_next(&*log, &wanted, &args.agent)?
    };
    // It may have changed again since.
    let issue = if out.json {
        log.get(&id)?.map(|found| found.issue)
    } else {
        None
    };
    let Receipt { seq, repeated, .. } = receipt;
    let claimed = Claimed {
        id: &id,
        seq,
        repeated,
        issue: issue.as_ref(),
    };
    out.answer(&claimed, || id.clone())
}

/// Claims the most urgent issue, or the next one if another agent was faster. This ends because the
/// list becomes shorter each time.
fn claim_next(
    log: &dyn Backend,
    wanted: &Wanted,
    agent: &str,
) -> Result<(String, Receipt), Failure> {
    loop {
        let mut next = None;
        log.look_unclosed(&mut |issues| {
            let ready = wanted.ready(issues).into_iter();
            let mut free = ready.filter(|(_, issue)| is_free(issue));
            next = free.next().map(|(id, _)| id.to_owned());
        })?;
        let Some(id) = next else {
            return Err(Failure::new(Exit::NotFound, "no issue is ready"));
        };
        match log.commit(&Batch::new().claim(id.as_str(), agent)) {
            Err(CommitError::Conflict(_)) => {}
            claimed => return Ok((id, claimed?)),
        }
    }
}
