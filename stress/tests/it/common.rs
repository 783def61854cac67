use std::path::Path;
use std::process::{Command, Output};

use strand_stress::evidence::verdict::Verdict;
use strand_stress::report::run::Report;
use strand_stress::run::config::{Config, Workload, fresh_seed};

/// The harness's binary.
pub(crate) fn exe() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_strand-stress"))
}

/// The command line's defaults, with a seed of its own.
pub(crate) fn config() -> Config {
    Config {
        seed: fresh_seed(),
        ..Config::default()
    }
}

/// Does a run that has to pass, with each operation acknowledged unless processes are killed.
pub(crate) fn passes(config: &Config) -> Report {
    let report = strand_stress::run(config, exe(), &|_| {});
    let report = report.unwrap_or_else(|error| panic!("{error}\n{}", config.replay_line()));
    let shown = || format!("{}{}", report.table(), report.failure_details);
    assert_eq!(report.verdict, Verdict::Pass, "{}", shown());
    assert_eq!(report.lock.max_holders, 1, "{}", shown());
    assert_eq!(report.rejected, 0, "{}", shown());
    // With a key, an operation is made again until it has an outcome.
    let interrupted = match config.workload {
        Workload::Append => report.unknown,
        _ => 0,
    };
    let operations = config.operations();
    let known = report.acknowledged + report.refused;
    assert_eq!(known + interrupted, operations, "{}", shown());
    if config.workload == Workload::Append && !config.kills() {
        assert_eq!(report.stored, operations, "{}", shown());
    }
    assert_eq!(report.store, None, "{}", shown());
    println!("{}", report.table());
    report
}

/// Calls the harness as a user does.
pub(crate) fn harness(arguments: &[&str]) -> Output {
    Command::new(exe())
        .arg("run")
        .args(arguments)
        .output()
        .expect("the harness starts")
}

pub(crate) fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("the harness prints text")
}

/// The entries of a directory.
pub(crate) fn names(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).expect("the directory can be read");
    let mut names: Vec<String> = entries
        .map(|entry| {
            entry
                .expect("an entry")
                .file_name()
                .to_string_lossy()
                .into_owned()
        })
        .collect();
    names.sort();
    names
}
