//! The effect of an event on an issue.

use crate::{
    error::InvalidEvent,
    issues::{
        event::{IssueEvent, Op},
        issue::Issue,
    },
};

/// The effect of an event on an issue.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Nothing changes.
    Nothing,
    /// The issue is replaced.
    Put(Issue),
    /// The issue is replaced by the one that the event has.
    PutData,
    /// The issue is deleted.
    Delete,
}

/// The three kinds of status that events distinguish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Status {
    Open,
    Blocked,
    Closed,
}

impl Status {
    pub(crate) fn of(status: Option<&str>) -> Self {
        match status {
            Some("closed" | "tombstone") => Self::Closed,
            Some("blocked") => Self::Blocked,
            _ => Self::Open,
        }
    }
}

pub(crate) fn is_closed(issue: &Issue) -> bool {
    Status::of(issue.status().as_deref()) == Status::Closed
}

/// Applies `event` to the issue that it names; `now` is `None` if that is absent or deleted. The
/// table is in the documentation of [`crate::Issues`].
///
/// Only `add` creates an issue. So events do not distinguish an absent issue from a deleted one,
/// and the fold does not depend on when a tombstone expires. // I8
pub(crate) fn fold(now: Option<&Issue>, event: &IssueEvent) -> Effect {
    let IssueEvent {
        ts,
        op,
        data,
        patch,
        ..
    } = event;
    let Some(issue) = now else {
        return match (op, data) {
            (Op::Add, Some(_)) => Effect::PutData,
            _ => Effect::Nothing,
        };
    };
    if *op == Op::Delete {
        return Effect::Delete;
    }
    if data.is_some() {
        return Effect::PutData;
    }
    let status = || Status::of(issue.status().as_deref());
    let now = || ts.to_string();
    let changed: Result<Issue, InvalidEvent> = match op {
        Op::Close if status() != Status::Closed => issue
            .with("status", "closed")
            .and_then(|issue| issue.with("closed_at", &now())),
        Op::Reopen if status() == Status::Closed => issue
            .with("status", "open")
            .and_then(|issue| issue.without("closed_at")),
        Op::SetBlocked if status() == Status::Open => issue.with("status", "blocked"),
        Op::UnsetBlocked if status() == Status::Blocked => issue.with("status", "open"),
        Op::Patch => {
            let patched = patch.as_ref().map(|patch| {
                let now = serde_json::value::to_raw_value(&now()).ok();
                patch.apply_with(issue, now.as_deref())
            });
            return match patched {
                Some(Ok(issue)) => Effect::Put(issue),
                Some(Err(_)) | None => Effect::Nothing,
            };
        }
        _ => return Effect::Nothing,
    };
    match changed.and_then(|issue| issue.with("updated_at", &now())) {
        Ok(issue) => Effect::Put(issue),
        Err(_) => Effect::Nothing,
    }
}
