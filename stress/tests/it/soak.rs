use std::process::Command;

use strand_stress::soak::full_disk;

use crate::common::{exe, names, stdout};

#[test]
fn a_short_soak_ends_with_its_trends_and_leaves_nothing_behind() {
    let dir = tempfile::tempdir().expect("a directory");
    let report = tempfile::NamedTempFile::new().expect("a file");
    let page = tempfile::NamedTempFile::new().expect("a file");
    let output = Command::new(exe())
        // This seed begins with a round of compactions; without optimisation, others take long.
        .args(["soak", "--minutes", "0.02", "--seed", "11", "--dir"])
        .arg(dir.path())
        .arg("--json")
        .arg(report.path())
        .arg("--html")
        .arg(page.path())
        .output()
        .expect("the harness starts");
    let text = stdout(&output);
    assert_eq!(output.status.code(), Some(0), "{text}");
    for part in [
        "\nrounds ",
        "\ntrend ",
        "\nappend p99 ",
        "\ndisk space per live issue ",
        "\nPASS: ",
    ] {
        assert!(text.contains(part), "{text}");
    }
    let report = std::fs::read_to_string(report.path()).expect("a report");
    let report: serde_json::Value = serde_json::from_str(&report).expect("JSON");
    assert!(
        report["acknowledged"].as_u64().expect("a number") > 0,
        "{report}"
    );
    assert_eq!(names(dir.path()), Vec::<String>::new());
    let rounds = report["course"].as_array().expect("the rounds");
    assert!(!rounds.is_empty(), "{report}");
    let page = std::fs::read_to_string(page.path()).expect("a page");
    let plural = if rounds.len() == 1 { "" } else { "s" };
    let verdict = format!("✓ PASS: {} round{plural} in", rounds.len());
    assert!(
        page.contains(&verdict) && page.contains("Open files"),
        "{page}"
    );
}

#[test]
fn a_full_disk_rejects_writes_and_nothing_else() {
    let dir = tempfile::tempdir().expect("a directory");
    // With and without the hints being deleted while it is full.
    for seed in [1, 2] {
        let disk = dir.path().join(format!("disk-{seed}"));
        let done = full_disk::once(exe(), &disk, seed);
        let done = done.unwrap_or_else(|trouble| panic!("seed {seed}: {trouble:?}"));
        if let Some(reason) = done.skipped {
            println!("SKIPPED, no disk was full: {reason}");
            continue;
        }
        assert_eq!(done.rounds, 1);
        assert!(done.acknowledged > 0 && done.rejected > 0, "{done:?}");
    }
}

#[test]
fn usage_errors_have_status_2() {
    for arguments in [
        &["--minutes", "0"][..],
        &[],
        &["--minutes", "1", "--seed", "x"],
    ] {
        let output = Command::new(exe()).arg("soak").args(arguments).output();
        let output = output.expect("the harness starts");
        assert_eq!(output.status.code(), Some(2), "{arguments:?} {output:?}");
    }
}
