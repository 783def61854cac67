//! `log`: the events of an issue.

use std::path::Path;

use serde::Serialize;
use strand_core::{IssueEvent, Op, Reader, Seq};

use crate::{
    args::History,
    exit::{Exit, Failure},
    output::{Output, tell},
    table::printable,
};

pub(crate) fn history(dir: &Path, args: &History, out: &mut Output) -> Result<(), Failure> {
    #[derive(Serialize)]
    struct Happened<'a> {
        seq: Seq,
        event: &'a IssueEvent,
    }
    out.page();
    let reader: Reader<IssueEvent> = Reader::open(dir)?;
    let (mut first, mut found) = (None, false);
    for record in reader.records()? {
        let record = record?;
        first.get_or_insert(record.seq);
        for event in record.events.iter().filter(|event| event.id == args.id) {
            found = true;
            let happened = Happened {
                seq: record.seq,
                event,
            };
            out.result(&happened, || line(record.seq, event))?;
        }
    }
    if let Some(first) = first.filter(|first| first.get() > 1)
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
