//! A state as bytes, and cut into parts. Pure.

use serde::{Deserialize, Serialize};
use strand_core::{Issues, Seq, State};

use crate::{
    api::KeyValue,
    error::Problem,
    keys::{Keys, Snapshot},
};

/// etcd takes requests of 1.5 MiB at most, unless it is told otherwise.
pub(crate) const CHUNK_BYTES_MAX: usize = 512 << 10;

/// The first line. The others are those of [`State::lines`].
#[derive(Serialize, Deserialize)]
struct Header {
    last_seq: Seq,
    without_effect: u64,
}

/// The snapshot of a state at a revision: its description, and its bytes.
pub(crate) fn encode(issues: &Issues, revision: u64) -> serde_json::Result<(Snapshot, Vec<u8>)> {
    let header = Header {
        last_seq: issues.last_seq(),
        without_effect: issues.without_effect(),
    };
    let mut text = serde_json::to_vec(&header)?;
    text.push(b'\n');
    for line in issues.lines() {
        serde_json::to_writer(&mut text, &line)?;
        text.push(b'\n');
    }
    let snapshot = Snapshot {
        revision,
        last_seq: header.last_seq.get(),
        chunks: text.chunks(CHUNK_BYTES_MAX).count(),
        bytes: text.len() as u64,
        crc: crc32c::crc32c(&text),
    };
    Ok((snapshot, text))
}

/// The state of a snapshot, from its parts in their order.
pub(crate) fn decode(
    snapshot: &Snapshot,
    keys: &Keys,
    chunks: &[KeyValue],
) -> Result<Issues, Problem> {
    let damaged = |reason: String| Problem::Damaged {
        what: format!("the snapshot of revision {}", snapshot.revision),
        reason,
    };
    let is_chunk = |(n, chunk): (usize, &KeyValue)| chunk.key.0 == keys.chunk(snapshot.revision, n);
    if chunks.len() != snapshot.chunks || !chunks.iter().enumerate().all(is_chunk) {
        let (are, should) = (chunks.len(), snapshot.chunks);
        return Err(damaged(format!(
            "there are {are} parts, not the {should} written"
        )));
    }
    let text: Vec<&[u8]> = chunks
        .iter()
        .map(|chunk| chunk.value.0.as_slice())
        .collect();
    let text = text.concat();
    if text.len() as u64 != snapshot.bytes || crc32c::crc32c(&text) != snapshot.crc {
        return Err(damaged("its checksum is wrong".to_owned()));
    }
    let mut lines = text.split(|byte| *byte == b'\n');
    let unreadable = |error: serde_json::Error| damaged(error.to_string());
    let header = serde_json::from_slice(lines.next().unwrap_or_default());
    let header: Header = header.map_err(unreadable)?;
    let mut issues = Issues::default();
    issues.restore_issue_totals(header.last_seq, header.without_effect);
    for line in lines.filter(|line| !line.is_empty()) {
        issues.restore(serde_json::from_slice(line).map_err(unreadable)?);
    }
    Ok(issues)
}

#[cfg(test)]
mod tests {
    use strand_core::{Issue, IssueEvent, Timestamp};

    use super::*;

    fn state(issues: u64) -> Issues {
        let now = Timestamp::from_ms(7);
        let mut state = Issues::default();
        for seq in 1..=issues {
            let issue = Issue::new_at(&format!("bd-{seq}"), &"x".repeat(4000), now);
            let add = IssueEvent::add(issue, now).with_key(format!("k{seq}"));
            state.apply(Seq::new(seq * 3), [add]);
        }
        state.apply(Seq::new(issues * 3 + 1), [IssueEvent::delete("bd-1", now)]);
        state.apply(Seq::new(issues * 3 + 2), [IssueEvent::delete("bd-1", now)]);
        state
    }

    fn chunks(keys: &Keys, text: &[u8]) -> Vec<KeyValue> {
        let chunks = text.chunks(CHUNK_BYTES_MAX).enumerate();
        let kv = |(n, chunk): (usize, &[u8])| KeyValue {
            key: (&keys.chunk(9, n)).into(),
            value: chunk.into(),
            mod_revision: 10,
        };
        chunks.map(kv).collect()
    }

    #[test]
    fn a_state_survives_and_damage_is_found() {
        let keys = Keys::new("s");
        let state = state(300);
        let (snapshot, text) = encode(&state, 9).unwrap();
        assert!(snapshot.chunks > 2);
        let parts = chunks(&keys, &text);
        assert_eq!(decode(&snapshot, &keys, &parts).unwrap(), state);

        assert!(decode(&snapshot, &keys, &parts[1..]).is_err());
        let mut swapped = parts.clone();
        swapped.swap(0, 1);
        assert!(decode(&snapshot, &keys, &swapped).is_err());
        let mut flipped = parts;
        flipped[1].value.0[7] ^= 1;
        assert!(decode(&snapshot, &keys, &flipped).is_err());
    }
}
