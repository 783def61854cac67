use std::process::{Command, Output};

use crate::common::{exe, stdout};

fn torture(arguments: &[&str]) -> Output {
    Command::new(exe())
        .arg("torture")
        .args(arguments)
        .output()
        .expect("the harness starts")
}

#[test]
fn a_short_run_of_kills_ends_with_a_table_and_a_report() {
    let dir = tempfile::tempdir().expect("a directory");
    let report = dir.path().join("report.json");
    let report_path = report.to_str().expect("a name in UTF-8");
    let page = dir.path().join("report.html");
    let page_path = page.to_str().expect("a name in UTF-8");
    let output = torture(&[
        "--tier",
        "T7",
        "--minutes",
        "0.05",
        "--json",
        report_path,
        "--html",
        page_path,
    ]);
    let text = stdout(&output);
    let page = std::fs::read_to_string(page).expect("a page");
    let verdict = text.lines().last().expect("a verdict");
    assert!(page.contains(&format!("✓ {verdict}")), "{verdict}: {page}");
    assert_eq!(output.status.code(), Some(0), "{text}");
    for part in [
        "strand-stress: torture, seed ",
        "tier  attacks",
        "\nT7    ",
        "\nPASS: ",
    ] {
        assert!(text.contains(part), "{text}");
    }
    assert!(
        !text.contains('\u{1b}'),
        "no colours and bars in a pipe: {text}"
    );
    let report = std::fs::read_to_string(report).expect("a report");
    let report: serde_json::Value = serde_json::from_str(&report).expect("JSON");
    let tier = &report["tiers"][0];
    assert!(tier["cases"].as_u64().expect("a number") > 0, "{report}");
    let counts = tier["counts"].as_array().expect("counts");
    for point in strand_core::testing::Failpoint::ALL {
        assert!(
            counts.iter().any(|count| count[0] == point.name()),
            "{point}: {report}"
        );
    }
    assert!(report["machine"]["cores"].as_u64().expect("a number") > 0);
}

#[test]
fn a_quiet_run_says_its_verdict_only() {
    let output = torture(&["--tier", "T4", "--minutes", "0.005", "--quiet"]);
    let text = stdout(&output);
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(
        text.starts_with("PASS: ") && text.lines().count() == 1,
        "{text}"
    );
    assert!(output.stderr.is_empty(), "{output:?}");
}

#[test]
fn usage_errors_have_status_2() {
    for arguments in [
        &["--tier", "T0"][..],
        &["--minutes", "0"],
        &["--replay", "x"],
        &["--quick", "--minutes", "1"],
    ] {
        let output = torture(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?} {output:?}");
        assert!(!output.stderr.is_empty(), "{arguments:?}");
    }
}
