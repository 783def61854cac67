//! `stat`: counts of records, issues and bytes.

use std::{borrow::Cow, collections::BTreeMap, ops::ControlFlow, path::Path};

use serde::Serialize;
use strand_core::{
    Issues,
    check::{CheckReport, FileKind, check},
};

use crate::{
    exit::Failure,
    output::{Output, counted},
    table::{columns, printable},
};

#[derive(Debug, Serialize)]
struct Counts<'a> {
    dir: Cow<'a, str>,
    /// Identifies the store.
    store: Option<&'a str>,
    records: Records,
    issues: IssueCounts,
    snapshot: Option<LiveSnapshot>,
    log: Files,
    quarantine: Files,
}

/// The records after the live snapshot.
#[derive(Debug, Serialize)]
struct Records {
    count: u64,
    first_seq: u64,
    last_seq: u64,
    durable_seq: u64,
    hinted_seq: Option<u64>,
}

#[derive(Debug, Default, Serialize)]
struct IssueCounts {
    count: usize,
    ready: usize,
    /// The events that changed nothing.
    without_effect: u64,
    by_status: BTreeMap<String, usize>,
}

#[derive(Debug, Serialize)]
struct LiveSnapshot {
    seq: u64,
    /// How many files it has: a base, and runs of what changed since.
    files: usize,
    /// The lines of all files. An issue that a run has may have older lines, too.
    issues: u64,
    tombstones: u64,
    keys: u64,
    bytes: u64,
}

#[derive(Debug, Serialize)]
struct Files {
    files: usize,
    bytes: u64,
}

pub(crate) fn stat(dir: &Path, out: &mut Output) -> Result<(), Failure> {
    let issues = IssueCounts::of(dir)?;
    let report = check(dir)?;
    let counts = Counts::of(issues, &report);
    out.result(&counts, || counts.table())
}

impl IssueCounts {
    /// Counts the issues one after the other: there may be more than fits into memory.
    fn of(dir: &Path) -> Result<Self, Failure> {
        let mut counts = Self::default();
        let passed = Issues::each(dir, |_, _, issue| {
            counts.count += 1;
            let status = issue.status().unwrap_or_else(|| "none".to_owned());
            *counts.by_status.entry(status).or_default() += 1;
            ControlFlow::Continue(())
        })?;
        counts.without_effect = passed.without_effect;
        counts.ready = Issues::load_unclosed(dir)?.ready().len();
        Ok(counts)
    }
}

impl<'a> Counts<'a> {
    fn of(issues: IssueCounts, report: &'a CheckReport) -> Self {
        Self {
            dir: report.dir.to_string_lossy(),
            store: report.store.as_deref(),
            records: Records {
                count: report.records,
                first_seq: report.first_seq,
                last_seq: report.last_seq,
                durable_seq: report.durable_seq,
                hinted_seq: report.hinted_seq,
            },
            issues,
            snapshot: LiveSnapshot::of(report),
            log: Files::of(report, FileKind::Segment),
            quarantine: Files::of(report, FileKind::Quarantine),
        }
    }

    fn table(&self) -> String {
        let none = || "none".to_owned();
        let mut rows = Vec::new();
        let mut row = |name: &str, value: String| rows.push([name.to_owned(), value]);
        let Records {
            count,
            first_seq,
            last_seq,
            durable_seq,
            hinted_seq,
        } = &self.records;
        let range = match count {
            0 => "since the snapshot".to_owned(),
            _ => format!("{first_seq} to {last_seq}"),
        };
        row("records", format!("{count} ({range})"));
        row("durable through", durable_seq.to_string());
        row(
            "shared hint",
            hinted_seq.map_or_else(none, |seq| seq.to_string()),
        );
        row("issues", self.issues.count.to_string());
        for (status, count) in &self.issues.by_status {
            row(&format!("  {}", printable(status)), count.to_string());
        }
        row("ready", self.issues.ready.to_string());
        row(
            "events without effect",
            self.issues.without_effect.to_string(),
        );
        let snapshot = self.snapshot.as_ref().map(|snapshot| {
            let LiveSnapshot {
                seq, files, bytes, ..
            } = snapshot;
            format!(
                "through {seq}, {}, {bytes} bytes",
                counted(*files as u64, "file")
            )
        });
        row("snapshot", snapshot.unwrap_or_else(none));
        for (name, Files { files, bytes }) in [("log", &self.log), ("quarantine", &self.quarantine)]
        {
            let files = counted(*files as u64, "file");
            row(name, format!("{files}, {bytes} bytes"));
        }
        columns(&rows)
    }
}

impl LiveSnapshot {
    fn of(report: &CheckReport) -> Option<Self> {
        let is_live = |kind| matches!(kind, FileKind::Snapshot | FileKind::Run);
        let live = || report.snapshots.iter().filter(|seen| is_live(seen.kind));
        let files = Files::of(report, FileKind::Snapshot);
        let runs = Files::of(report, FileKind::Run);
        Some(Self {
            seq: live().map(|seen| seen.seq).max()?,
            files: files.files + runs.files,
            issues: live().map(|seen| seen.issues).sum(),
            tombstones: live().map(|seen| seen.tombstones).sum(),
            keys: live().map(|seen| seen.keys).sum(),
            bytes: files.bytes + runs.bytes,
        })
    }
}

impl Files {
    fn of(report: &CheckReport, kind: FileKind) -> Self {
        let of_kind = || report.files.values().filter(|(found, _)| *found == kind);
        Self {
            files: of_kind().count(),
            bytes: of_kind().filter_map(|(_, bytes)| *bytes).sum(),
        }
    }
}
