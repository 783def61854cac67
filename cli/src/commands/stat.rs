//! `stat`: counts of records, issues and bytes.

use std::{collections::BTreeMap, path::Path};

use serde::Serialize;
use strand_core::{
    Issues, LiveIssues,
    check::{CheckReport, FileKind, check},
};

use crate::{
    args::Reading,
    exit::Failure,
    output::Output,
    table::{columns, printable},
};

#[derive(Debug, Serialize)]
struct Counts {
    dir: String,
    /// Identifies the store.
    store: Option<String>,
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

#[derive(Debug, Serialize)]
struct IssueCounts {
    count: usize,
    ready: usize,
    by_status: BTreeMap<String, usize>,
}

#[derive(Debug, Serialize)]
struct LiveSnapshot {
    seq: u64,
    issues: u64,
    tombstones: u64,
    keys: u64,
    bytes: Option<u64>,
}

#[derive(Debug, Serialize)]
struct Files {
    files: usize,
    bytes: u64,
}

pub(crate) fn stat(args: &Reading, out: &mut Output) -> Result<(), Failure> {
    let store = LiveIssues::open(&args.dir)?;
    let counts = Counts::of(&store, &check(&args.dir)?);
    out.result(&counts, || counts.table())
}

impl Counts {
    fn of(store: &Issues, report: &CheckReport) -> Self {
        let mut by_status = BTreeMap::new();
        for (_, issue) in store.iter() {
            let status = issue.status().unwrap_or_else(|| "none".to_owned());
            *by_status.entry(status).or_default() += 1;
        }
        let bytes_of = |name: &Path| {
            let file = report.files.iter().find(|file| file.file == name);
            file.and_then(|file| file.bytes)
        };
        let live = |kind| kind == FileKind::Snapshot;
        let snapshot = report.snapshots.iter().find(|seen| live(seen.kind));
        Self {
            dir: report.dir.to_string_lossy().into_owned(),
            store: report.store.clone(),
            records: Records {
                count: report.records,
                first_seq: report.first_seq,
                last_seq: report.last_seq,
                durable_seq: report.durable_seq,
                hinted_seq: report.hinted_seq,
            },
            issues: IssueCounts {
                count: store.len(),
                ready: store.ready().len(),
                by_status,
            },
            snapshot: snapshot.map(|seen| LiveSnapshot {
                seq: seen.seq,
                issues: seen.issues,
                tombstones: seen.tombstones,
                keys: seen.keys,
                bytes: bytes_of(&seen.file),
            }),
            log: Files::of(report, FileKind::Segment),
            quarantine: Files::of(report, FileKind::Quarantine),
        }
    }

    fn table(&self) -> String {
        let row = |name: &str, value: String| [name.to_owned(), value];
        let or_none = |value: Option<String>| value.unwrap_or_else(|| "none".to_owned());
        let records = &self.records;
        let mut rows = vec![
            row(
                "records",
                format!(
                    "{} ({} to {})",
                    records.count, records.first_seq, records.last_seq
                ),
            ),
            row("durable through", records.durable_seq.to_string()),
            row(
                "watermark",
                or_none(records.hinted_seq.map(|seq| seq.to_string())),
            ),
            row("issues", self.issues.count.to_string()),
        ];
        for (status, count) in &self.issues.by_status {
            rows.push(row(&format!("  {}", printable(status)), count.to_string()));
        }
        rows.push(row("ready", self.issues.ready.to_string()));
        rows.push(row(
            "snapshot",
            or_none(self.snapshot.as_ref().map(|seen| {
                let bytes = seen.bytes.unwrap_or(0);
                format!(
                    "through {}, {} issues, {bytes} bytes",
                    seen.seq, seen.issues
                )
            })),
        ));
        rows.push(row("log", self.log.words()));
        rows.push(row("quarantine", self.quarantine.words()));
        columns(rows)
    }
}

impl Files {
    fn of(report: &CheckReport, kind: FileKind) -> Self {
        let of_kind = || report.files.iter().filter(|file| file.kind == kind);
        Self {
            files: of_kind().count(),
            bytes: of_kind().filter_map(|file| file.bytes).sum(),
        }
    }

    fn words(&self) -> String {
        format!("{} files, {} bytes", self.files, self.bytes)
    }
}
