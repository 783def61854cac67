//! `append` and `batch`: raw events.

use std::{io, path::Path};

use strand_core::{IssueEvent, Receipt, Timestamp, Version, backend::Backend};

use super::open;
use crate::{
    args::{Append, Batch},
    exit::Failure,
    input::{Lines, event, new_batch},
    output::Output,
};

pub(crate) fn append(dir: &Path, args: Append, out: &mut Output) -> Result<(), Failure> {
    if args.key.is_some() && args.events.len() != 1 {
        return Err(Failure::usage("--key goes with exactly one EVENT"));
    }
    let log = open::store(dir, &args.writing, out)?;
    if let (Some(key), [text]) = (args.key, args.events.as_slice()) {
        let event = event(text.as_bytes(), Timestamp::now())?;
        let receipt = log.commit(&new_batch(Some(key)).event(event))?;
        return out.receipt(receipt);
    }
    each_event(&args.events, |event| {
        out.receipt(log.append(&event)?)?;
        // The sender may wait for this receipt before it sends the next event.
        out.flush()
    })
}

pub(crate) fn batch(dir: &Path, args: Batch, out: &mut Output) -> Result<(), Failure> {
    let log = open::store(dir, &args.writing, out)?;
    let mut events = Vec::new();
    each_event(&args.events, |event| {
        events.push(event);
        Ok(())
    })?;
    out.receipt(write(&*log, args, events)?)
}

fn write(log: &dyn Backend, args: Batch, events: Vec<IssueEvent>) -> Result<Receipt, Failure> {
    let Batch {
        require,
        require_absent,
        key,
        ..
    } = args;
    if require.is_empty() && require_absent.is_empty() && key.is_none() {
        // Without conditions the state need not be loaded.
        return Ok(log.append_batch(&events)?);
    }
    let mut batch = new_batch(key);
    for required in require {
        batch = batch.require(required.id, Version::new(required.version));
    }
    for id in require_absent {
        batch = batch.require_absent(id);
    }
    let batch = events.into_iter().fold(batch, strand_core::Batch::event);
    Ok(log.commit(&batch)?)
}

/// Calls `act` for each event in the arguments or, if there are none, on standard input.
fn each_event(
    arguments: &[String],
    mut act: impl FnMut(IssueEvent) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut parse = |text: &[u8], place: String| {
        let done = event(text, Timestamp::now()).and_then(&mut act);
        done.map_err(|failure| failure.at(&place))
    };
    if arguments.is_empty() {
        let mut lines = Lines::new(io::stdin().lock());
        while let Some((number, line)) = lines.next()? {
            parse(line, format!("line {number}"))?;
        }
    } else {
        for (number, text) in (1..).zip(arguments) {
            parse(text.as_bytes(), format!("event {number}"))?;
        }
    }
    Ok(())
}
