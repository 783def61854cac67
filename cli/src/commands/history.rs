//! `log`: the events of an issue.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use serde::Serialize;
use strand_core::{Error, IssueEvent, Issues, Op, Reader, Record, Seq};

use crate::{
    args::History,
    exit::{Exit, Failure},
    output::{Output, tell},
    remote,
    table::printable,
};

/// How long a cluster may take for one record that it has.
const A_WHILE: Duration = Duration::from_secs(30);

pub(crate) fn history(dir: &Path, args: &History, out: &mut Output) -> Result<(), Failure> {
    #[derive(Serialize)]
    struct Happened<'a> {
        seq: Seq,
        event: &'a IssueEvent,
    }
    out.page();
    let mut found = false;
    let compacted = each_record(dir, |record| {
        for event in record.events.iter().filter(|event| event.id == args.id) {
            found = true;
            let happened = Happened {
                seq: record.seq,
                event,
            };
            out.result(&happened, || line(record.seq, event))?;
        }
        Ok(())
    })?;
    if let Some(first) = compacted
        && !out.json
    {
        tell(&format!("strand: the records before {first} are compacted"));
    }
    if found {
        return Ok(());
    }
    let message = format!("no record names an issue {:?}", args.id);
    Err(Failure::new(Exit::NotFound, message))
}

/// Calls `take` with all records of a store of any kind. Returns the number of the first if those
/// before it are compacted.
fn each_record(
    place: &Path,
    mut take: impl FnMut(&Record<IssueEvent>) -> Result<(), Failure>,
) -> Result<Option<Seq>, Failure> {
    let Some(address) = remote::address(place)? else {
        let reader: Reader<IssueEvent> = Reader::open(place)?;
        let mut first = None;
        for record in reader.records()? {
            let record = record?;
            first.get_or_insert(record.seq);
            take(&record)?;
        }
        return Ok(first.filter(|first| first.get() > 1));
    };
    let log = remote::open(&address, None)?;
    let last = log.with_issues(Issues::last_seq)?;
    let (mut next, mut compacted) = (Seq::new(1), None);
    let mut follower = None;
    while next <= last {
        let opened = match follower.take() {
            Some(records) => Ok(records),
            None => log.follow(next),
        };
        let read = opened.and_then(|records| {
            let records = follower.insert(records);
            records.next_before(Instant::now() + A_WHILE)
        });
        match read {
            Ok(Some(record)) => {
                next = record.seq.next();
                take(&record)?;
            }
            Ok(None) => break,
            Err(Error::Compacted { snapshot_seq, .. }) => {
                next = Seq::new(snapshot_seq).next();
                compacted = Some(next);
                follower = None;
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(compacted)
}

fn line(seq: Seq, event: &IssueEvent) -> String {
    let op = serde_json::to_value(event.op).unwrap_or_default();
    let op = op.as_str().unwrap_or_default();
    let detail = match (&event.patch, &event.data) {
        (Some(patch), _) if event.op == Op::Patch => {
            serde_json::to_string(patch).unwrap_or_default()
        }
        (_, Some(issue)) => issue.title(),
        _ => String::new(),
    };
    let line = format!("{seq:>6}  {}  {op:<8}  {detail}", event.ts);
    printable(line.trim_end())
}
