//! Cuts the power: what could then be on the disk is made into real lines and judged by the
//! crate's own `classify`, as `rebuild` does after a reboot.

use std::collections::HashSet;

use strand_core::testing::{Tail, classify};

use crate::{
    protocol::{Broken, Property},
    state::{PER_SEGMENT, Page, RECORDS, State, first},
};

/// The choices that the image depends on.
pub(crate) type Files = (u32, [u8; 4]);

/// Looks at every image that the loss of power could leave in this state, unless they were seen
/// before.
pub(crate) fn check(state: &State, seen: &mut HashSet<Files>) -> Result<(), Broken> {
    let pages = state
        .pages
        .iter()
        .fold(0, |pages, page| pages << 2 | *page as u32);
    let files = [
        state.durable_seq,
        u8::from(state.torn),
        state.segments,
        state.named,
    ];
    if !seen.insert((pages, files)) {
        return Ok(());
    }
    let mut forms = [Form::Whole; RECORDS];
    images(state, &mut forms, 1)
}

/// The rest of a record whose bytes no sync has made durable, beside nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Whole,
    /// Free space.
    Newlines,
    /// A hole in the file.
    Zeros,
    /// The first half, and a hole.
    Half,
}

/// Tries all forms of the records from `seq` on.
fn images(state: &State, forms: &mut [Form; RECORDS], seq: u8) -> Result<(), Broken> {
    let at = usize::from(seq) - 1;
    if seq > state.whole + u8::from(state.torn) {
        for segments in state.named..=state.segments {
            for known in [0, state.durable_seq] {
                recover(state, forms, segments, known)?;
            }
        }
        return Ok(());
    }
    let possible: &[Form] = match state.pages[at] {
        Page::Durable => &[Form::Whole],
        Page::Absent => &[Form::Newlines, Form::Zeros, Form::Half],
        Page::Dirty | Page::Lost => &[Form::Whole, Form::Newlines, Form::Zeros, Form::Half],
    };
    for form in possible {
        forms[at] = *form;
        images(state, forms, seq + 1)?;
    }
    forms[at] = Form::Newlines;
    Ok(())
}

/// Recovers as `rebuild` does, with the first `segments` segments and a durable number of `known`.
fn recover(state: &State, forms: &[Form], segments: u8, known: u8) -> Result<(), Broken> {
    let broken = |why| Err(Broken(Property::Recoverable, why));
    let end = state.whole + u8::from(state.torn);
    let mut kept = 0;
    for segment in 0..segments {
        let (from, last) = (first(segment), segment + 1 == segments);
        let mut bytes = Vec::new();
        for seq in from..(from + PER_SEGMENT).min(end + 1) {
            push(
                &mut bytes,
                seq,
                state.durable_seq,
                forms[usize::from(seq) - 1],
            );
        }
        let line_len = line(1, 0).len();
        // All but the last are durable through their end.
        let known = if last { known } else { from + PER_SEGMENT - 1 };
        let records = match classify(&bytes, u64::from(from), u64::from(known)) {
            Tail::Clean => bytes
                .split(|byte| *byte == b'\n')
                .filter(|line| !line.is_empty())
                .count(),
            Tail::Torn { valid_len } if last => usize::try_from(valid_len).unwrap() / line_len,
            Tail::Torn { .. } | Tail::Corrupt { .. } => return broken("taken for corrupt"),
        };
        kept = from - 1 + u8::try_from(records).unwrap();
    }
    if kept < state.durable_seq {
        return broken("an acknowledged record is gone");
    }
    Ok(())
}

/// `synced` is the highest value that the record can have, since the durable number only rises. The
/// lower it is, the less is taken for corrupt.
fn push(bytes: &mut Vec<u8>, seq: u8, durable_seq: u8, form: Form) {
    let mut line = line(seq, durable_seq.min(seq - 1));
    let len = line.len();
    match form {
        Form::Whole => {}
        Form::Newlines => line.fill(b'\n'),
        Form::Zeros => line.fill(0),
        Form::Half => line[len / 2..].fill(0),
    }
    bytes.extend(line);
}

fn line(seq: u8, synced: u8) -> Vec<u8> {
    let checked = format!(r#""seq":{seq},"synced":{synced}}}"#);
    let crc = crc32c::crc32c(checked.as_bytes());
    format!("{{\"crc\":\"{crc:08x}\",{checked}\n").into_bytes()
}
