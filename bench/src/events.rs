//! The events that are written, the same for every system.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use strand_core::{Issue, IssueEvent, Timestamp};

use crate::error::Result;

/// Different events; more would only delay the start of each agent.
const EVENTS_MAX: usize = 2_000;
const GENERATED_TEXT_BYTES: usize = 400;

/// An event, decoded for strand and as text for the others, so that no system decodes while it is
/// measured.
#[derive(Debug, Clone)]
pub(crate) struct Event {
    pub(crate) decoded: IssueEvent,
    pub(crate) text: String,
}

impl Event {
    pub(crate) fn from_json(text: &str) -> Result<Self> {
        Ok(Self {
            decoded: serde_json::from_str(text)?,
            text: text.to_owned(),
        })
    }
}

/// Events from `payload`, evenly spaced, or generated.
pub(crate) fn sample(payload: Option<&Path>) -> Result<Vec<Event>> {
    let Some(path) = payload else {
        return (0..EVENTS_MAX).map(generated).collect();
    };
    let text = fs::read_to_string(path)?;
    let lines: Vec<&str> = text.lines().filter(|line| !line.is_empty()).collect();
    if lines.is_empty() {
        return Err(format!("{} has no events", path.display()).into());
    }
    let step = lines.len().div_ceil(EVENTS_MAX);
    lines
        .into_iter()
        .step_by(step)
        .map(Event::from_json)
        .collect()
}

pub(crate) fn save(events: &[Event], path: &Path) -> Result<()> {
    let text = events.iter().fold(String::new(), |mut text, event| {
        text.push_str(&event.text);
        text.push('\n');
        text
    });
    Ok(fs::write(path, text)?)
}

/// The events of one agent: `count` from the file, beginning where the previous agent's end, and
/// wrapping around. No more than there are different ones.
pub(crate) fn load(path: &Path, agent: usize, count: usize) -> Result<Vec<Event>> {
    let text = fs::read_to_string(path)?;
    let lines: Vec<&str> = text.lines().collect();
    let first = (agent * count) % lines.len().max(1);
    let mine = lines
        .iter()
        .cycle()
        .skip(first)
        .take(count.min(lines.len()));
    mine.map(|line| Event::from_json(line)).collect()
}

/// Mean length in bytes.
pub(crate) fn mean_bytes(events: &[Event]) -> usize {
    events.iter().map(|event| event.text.len()).sum::<usize>() / events.len().max(1)
}

fn generated(index: usize) -> Result<Event> {
    const WORDS: [&str; 8] = [
        "lock", "append", "segment", "reader", "sync", "tail", "agent", "issue",
    ];
    let mut description = String::new();
    let mut state = index as u64 + 1;
    while description.len() < GENERATED_TEXT_BYTES {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        let word = usize::try_from(state >> 61)?;
        write!(
            description,
            "{} ",
            WORDS.get(word).copied().unwrap_or_default()
        )?;
    }
    let ts = 1_706_540_000_000 + i64::try_from(index)?;
    let issue = Issue::from_json(&format!(
        r#"{{"id":"bd-{index}","title":"Fix what the last change broke","description":"{}","status":"open","priority":2,"issue_type":"task","created_at":"2024-01-29T14:53:20Z","updated_at":"2024-01-29T14:53:20Z"}}"#,
        description.trim_end(),
    ))?;
    let decoded = IssueEvent::add(issue, Timestamp::from_ms(ts));
    let text = serde_json::to_string(&decoded)?;
    Ok(Event { decoded, text })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_events_have_about_650_bytes_and_survive_decoding() {
        let events = sample(None).unwrap();
        assert!(
            (550..750).contains(&mean_bytes(&events)),
            "{}",
            mean_bytes(&events)
        );
        for event in events.iter().take(20) {
            assert_eq!(
                Event::from_json(&event.text).unwrap().decoded,
                event.decoded
            );
        }
    }

    #[test]
    fn agents_get_their_own_events_and_wrap_around() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("events.jsonl");
        let events: Vec<Event> = sample(None).unwrap().into_iter().take(5).collect();
        save(&events, &path).unwrap();
        let texts = |agent| -> Vec<String> {
            let mine = load(&path, agent, 2).unwrap();
            mine.into_iter().map(|event| event.text).collect()
        };
        let all: Vec<String> = events.iter().map(|event| event.text.clone()).collect();
        assert_eq!(texts(1), all[2..4]);
        assert_eq!(texts(2), [all[4].clone(), all[0].clone()]);
        assert_eq!(load(&path, 0, 99).unwrap().len(), 5);
    }
}
