//! The state that a process knows, which may be ahead of its revision for some issues. Pure.

use std::collections::HashMap;

use strand_core::{IssueEvent, Issues, Seq, backend::apply_some};

use crate::plan::CurrentEpoch;

/// The state at a revision. Issues that the process itself has changed since are newer: its
/// transaction made sure that nobody else had changed them meanwhile.
#[derive(Debug)]
pub(crate) struct View {
    pub(crate) issues: Issues,
    /// All records through this revision are applied.
    pub(crate) revision: u64,
    /// The epoch at that revision.
    pub(crate) epoch: CurrentEpoch,
    /// The issues that are newer, and the record that they are at.
    ahead: HashMap<String, u64>,
}

impl View {
    pub(crate) fn new(issues: Issues, revision: u64, epoch: CurrentEpoch) -> Self {
        Self {
            issues,
            revision,
            epoch,
            ahead: HashMap::new(),
        }
    }

    /// The revision that an issue is known at.
    pub(crate) fn known(&self, id: &str) -> u64 {
        let ahead = self.ahead.get(id).copied().unwrap_or_default();
        self.revision.max(ahead)
    }

    /// Applies a record that the process wrote under the condition that the view was right.
    pub(crate) fn written(&mut self, seq: u64, events: Vec<IssueEvent>) {
        // Otherwise another thread has read it already.
        if seq > self.revision {
            let ids = events.iter().map(|event| (event.id.clone(), seq));
            self.ahead.extend(ids);
            apply_some(&mut self.issues, Seq::new(seq), events, |_| true);
        }
    }

    /// Applies a record that was read. They come in their order.
    pub(crate) fn read(&mut self, seq: u64, events: Vec<IssueEvent>) {
        let is_new = |id: &str| self.ahead.get(id).is_none_or(|ahead| *ahead < seq);
        apply_some(&mut self.issues, Seq::new(seq), events, is_new);
    }

    /// All records through this revision were read.
    pub(crate) fn advanced(&mut self, revision: u64, epoch: CurrentEpoch) {
        self.revision = revision;
        self.epoch = epoch;
        self.ahead.retain(|_, seq| *seq > revision);
    }
}

#[cfg(test)]
mod tests {
    use strand_core::{Issue, Timestamp, Version};

    use super::*;

    const NOW: Timestamp = Timestamp::from_ms(7);

    fn epoch() -> CurrentEpoch {
        CurrentEpoch {
            number: 1,
            revision: 2,
            compacted: 0,
        }
    }

    #[test]
    fn own_writes_are_seen_at_once_and_counted_once() {
        let add = |id: &str| {
            IssueEvent::add(Issue::new_at(id, "T", NOW), NOW).with_key(format!("k-{id}"))
        };
        let mut view = View::new(Issues::default(), 2, epoch());
        view.written(9, vec![add("a")]);
        assert_eq!((view.known("a"), view.known("b")), (9, 2));
        assert_eq!(view.issues.version("a"), Some(Version::new(9)));
        view.written(
            11,
            vec![IssueEvent::close("a", NOW), IssueEvent::close("a", NOW)],
        );

        let log = [
            (4, vec![add("b")]),
            (9, vec![add("a")]),
            (10, vec![IssueEvent::close("b", NOW)]),
            (
                11,
                vec![IssueEvent::close("a", NOW), IssueEvent::close("a", NOW)],
            ),
        ];
        let mut expected = Issues::default();
        for (seq, events) in log {
            view.read(seq, events.clone());
            expected.apply(Seq::new(seq), events);
        }
        view.advanced(12, epoch());
        assert_eq!(view.issues, expected);
        assert_eq!(view.issues.without_effect(), 1);
        assert_eq!((view.known("a"), view.ahead.len()), (12, 0));
        view.written(9, vec![IssueEvent::delete("a", NOW)]);
        assert_eq!(view.issues, expected);
    }
}
