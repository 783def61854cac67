//! `append` and `batch`: raw events.

use std::{collections::BTreeMap, io, path::Path};

use strand_core::{IssueEvent, Issues, Op, Receipt, Timestamp, Version, backend::Backend};

use super::open;
use crate::{
    args::{Append, Batch},
    exit::{Exit, Failure},
    input::{Lines, event, new_batch, say_that_it_waits},
    output::{Output, tell},
};

pub(crate) fn append(dir: &Path, args: Append, out: &mut Output) -> Result<(), Failure> {
    if args.key.is_some() && args.events.len() != 1 {
        return Err(Failure::usage("--key goes with exactly one EVENT"));
    }
    let log = open::store(dir, &args.writing, out)?;
    if let (Some(key), [text]) = (args.key, args.events.as_slice()) {
        let event = event(text.as_bytes(), Timestamp::now())?;
        let receipt = log.commit(&new_batch(Some(key)).event(event))?;
        return out.receipt(receipt, None);
    }
    // A long stream would wait for each look.
    let streamed = args.events.first().is_none_or(|first| first == "-");
    let looks = args.strict || !streamed && !args.unchecked;
    let mut unusual = 0;
    each_event(&args.events, |event| {
        let mut known = Known::default();
        let effect = if looks {
            known.effect(&*log, &event)?
        } else {
            None
        };
        let receipt = match (args.strict, effect) {
            (false, _) => log.append(&event)?,
            (true, Some(effect)) => return Err(effect.refusal(&event)),
            (true, None) => log.commit(&known.unchanged(event.clone()))?,
        };
        out.receipt(receipt, effect.map(Effect::name))?;
        if let Some(effect) = effect.filter(|_| !out.json) {
            unusual += 1;
            if unusual <= MESSAGES_MAX {
                tell(&format!("strand: {}", effect.message(&event)));
            }
        }
        Ok(())
    })?;
    if unusual > MESSAGES_MAX {
        tell(&format!("strand: {unusual} such events in all"));
    }
    Ok(())
}

pub(crate) fn batch(dir: &Path, args: Batch, out: &mut Output) -> Result<(), Failure> {
    let log = open::store(dir, &args.writing, out)?;
    let mut events = Vec::new();
    each_event(&args.events, |event| {
        events.push(event);
        Ok(())
    })?;
    let mut known = Known::default();
    let mut effects = Vec::new();
    for event in &events {
        if let Some(effect) = known.effect(&*log, event)? {
            effects.push(effect.message(event));
        }
    }
    out.receipt(write(&*log, args, events)?, None)?;
    if !out.json {
        for message in effects.iter().take(MESSAGES_MAX) {
            tell(&format!("strand: {message}"));
        }
        if effects.len() > MESSAGES_MAX {
            tell(&format!("strand: {} such events in all", effects.len()));
        }
    }
    Ok(())
}

const MESSAGES_MAX: usize = 10;

/// What is unusual about the effect of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Effect {
    None,
    Replaced,
}

impl Effect {
    /// Its name in JSON.
    fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Replaced => "replaced",
        }
    }

    fn message(self, event: &IssueEvent) -> String {
        let id = &event.id;
        match self {
            Self::None => format!("the event of {id:?} changes nothing as the issue is now"),
            Self::Replaced => format!("the `add` replaces the issue {id:?}, which exists"),
        }
    }

    fn refusal(self, event: &IssueEvent) -> Failure {
        Failure::new(Exit::Conflict, self.message(event) + "; it is not stored")
    }
}

/// The issues that events concern, as they are before and after them.
#[derive(Default)]
struct Known {
    issues: Issues,
    versions: BTreeMap<String, Option<Version>>,
}

impl Known {
    /// Applies an event to the issue that it will meet, if no other process is faster.
    fn effect(&mut self, log: &dyn Backend, event: &IssueEvent) -> Result<Option<Effect>, Failure> {
        if !self.versions.contains_key(&event.id) {
            let found = log.get(&event.id)?;
            self.versions
                .insert(event.id.clone(), found.as_ref().map(|found| found.version));
            if let Some(found) = found {
                self.apply(IssueEvent::add(found.issue, event.ts));
            }
        }
        let was = self.issues.get(&event.id).is_some();
        let before = self.issues.without_effect();
        self.apply(event.clone());
        Ok(match event.op {
            _ if self.issues.without_effect() > before => Some(Effect::None),
            Op::Add if was => Some(Effect::Replaced),
            _ => None,
        })
    }

    fn apply(&mut self, event: IssueEvent) {
        let seq = self.issues.last_seq().next();
        self.issues.apply(seq, [event]);
    }

    /// The event, provided that its issue is still as it was.
    fn unchanged(&self, event: IssueEvent) -> strand_core::Batch {
        let batch = new_batch(None);
        let id = event.id.clone();
        let batch = match self.versions.get(&id).copied().flatten() {
            Some(version) => batch.require(id, version),
            None => batch.require_absent(id),
        };
        batch.event(event)
    }
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
    if matches!(arguments, [] | [_]) && arguments.first().is_none_or(|first| first == "-") {
        say_that_it_waits();
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
