//! Any store under the oracle: seeded faults are found by name, and what is right passes.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use strand_stress::evidence::checks::Point;
use strand_stress::evidence::verdict::Verdict;
use strand_stress::report::store::{repro, table};
use strand_stress::run::RunError;
use strand_stress::run::config::{Config, HistoryFormat, Only, SystemFault, Workload};
use strand_stress::stores::shrink::shrink;
use strand_stress::stores::spec::BUILT_IN;
use strand_stress::stores::{self, Report, is_there};

use crate::common::{config, exe, harness, stdout};

/// How long it may take to find a seeded fault.
const LIMIT: Duration = Duration::from_mins(1);

fn other(store: &str) -> Config {
    Config {
        store: store.to_owned(),
        shrink_s: 0,
        ..config()
    }
}

fn run(config: &Config) -> Report {
    let report = stores::run(config, exe(), &|_| {});
    let report = report.unwrap_or_else(|error| panic!("{error}\n{}", config.replay_line()));
    if let Some(kept) = &report.kept {
        println!("kept: {}", kept.display());
    }
    println!("{}: {}", report.store, report.verdict_line());
    report
}

/// Runs until there is a violation of this kind, and no other.
fn finds(config: &Config, kind: &str) -> Report {
    let began = Instant::now();
    for attempt in 0_u64.. {
        if began.elapsed() > LIMIT {
            break;
        }
        let seed = config.seed.wrapping_add(attempt);
        let report = run(&Config {
            seed,
            ..config.clone()
        });
        if let Some(kept) = &report.kept {
            std::fs::remove_dir_all(kept).expect("the run's directory can be removed");
        }
        if report.verdict == Verdict::Environment {
            println!("SKIPPED: {:?}", report.skipped);
            return report;
        }
        if report.count(kind) > 0 {
            return report;
        }
    }
    panic!("{kind} was not found in {LIMIT:?} in {}", config.store);
}

fn passes(config: &Config) -> Report {
    let report = run(config);
    if report.verdict == Verdict::Environment {
        println!("SKIPPED: {:?}", report.skipped);
    } else {
        let found = &report.violations;
        assert_eq!(
            report.verdict,
            Verdict::Pass,
            "{found:?}\n{}",
            report.replay
        );
    }
    report
}

#[test]
fn each_part_that_is_taken_out_of_a_locked_file_is_missed_by_name() {
    let killed = |store: &str| Config {
        kill_per_second: 60.0,
        ..other(store)
    };
    finds(&other("locked-file:no-lock"), "lost");
    finds(&other("locked-file:same-id"), "receipt twice");
    finds(&killed("locked-file:torn-tail"), "lost");
    finds(&killed("locked-file:cut-export"), "artifact invalid");
    let batches = |store: &str| Config {
        workload: Workload::Batch,
        ..killed(store)
    };
    finds(&batches("locked-file:half-batch"), "batch in part");
    finds(&other("locked-file:blind-follower"), "follower missed");
    finds(&killed("locked-file:skipping-follower"), "follower missed");
    let claims = Config {
        workload: Workload::Claim,
        ..other("locked-file:two-win")
    };
    finds(&claims, "won twice");
    let changes = Config {
        workload: Workload::Set,
        ..other("locked-file:stale-set")
    };
    finds(&changes, "won twice");
    let cut = Config {
        power_cuts: 12,
        writes: 1_000,
        ..other("locked-file:no-sync")
    };
    finds(&cut, "lost");
}

#[test]
fn a_whole_locked_file_passes_all_of_that() {
    let base = other("locked-file");
    let report = passes(&Config {
        kill_per_second: 40.0,
        stop_per_second: 10.0,
        ..base.clone()
    });
    assert!(report.answers.ok > 0 && report.checks.iter().any(|check| check.compared == 0));
    passes(&Config {
        workload: Workload::Claim,
        kill_per_second: 20.0,
        ..base.clone()
    });
    passes(&Config {
        one_shot: true,
        ..base.clone()
    });
    let changes = passes(&Config {
        workload: Workload::Set,
        kill_per_second: 20.0,
        history: Some(HistoryFormat::Edn),
        ..base.clone()
    });
    assert!(changes.answers.ok > 0 && changes.answers.refused > 0);
    let history = stores::history(&changes, HistoryFormat::Edn);
    assert!(history.contains(":f :cas, :value [1 [nil "), "{history}");
    let batches = passes(&Config {
        workload: Workload::Batch,
        kill_per_second: 40.0,
        history: Some(HistoryFormat::Jsonl),
        ..base.clone()
    });
    assert!(batches.answers.ok > 0);
    let history = stores::history(&batches, HistoryFormat::Jsonl);
    assert!(
        history.contains(r#"[["append",0,1],["append",0,"#),
        "{history}"
    );
    for workload in [Workload::Append, Workload::Batch] {
        passes(&Config {
            power_cuts: 6,
            writes: 1_000,
            workload,
            ..base.clone()
        });
    }
}

/// Runs of a small adapter of a few lines of shell: what is taken out of it, how it is found, and
/// its name.
#[test]
fn each_part_that_is_taken_out_of_a_small_adapter_is_missed_by_name() {
    if is_there("jsonl", exe()).is_err() {
        println!("SKIPPED: there is no flock");
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let script = dir.path().join("adapter.sh");
    std::fs::write(&script, include_str!("adapter.sh")).expect("a script");
    let adapter = |fault: &str| {
        let place = dir.path().join(fault);
        std::fs::create_dir(&place).expect("a directory");
        let text = ADAPTER.replace("FAULT = \"\"", &format!("FAULT = \"{fault}\""));
        // A follower that always begins with the first write.
        let text = match fault {
            "from-one" => text.replace("\"{from}\"", "\"1\""),
            _ => text,
        };
        Config {
            agents: 4,
            writes: 10,
            ..other(&spec(&place, &text))
        }
    };
    let killed = |config: Config| Config {
        kill_per_second: 30.0,
        ..config
    };
    let cut = |config: Config| Config {
        power_cuts: 8,
        writes: 1_000,
        ..config
    };
    let of = |workload, config: Config| Config { workload, ..config };
    finds(&adapter("no-lock"), "receipt twice");
    finds(&adapter("same-id"), "receipt twice");
    finds(&killed(adapter("torn-tail")), "lost");
    finds(&cut(adapter("no-sync")), "lost");
    finds(&of(Workload::Claim, adapter("two-win")), "won twice");
    finds(&adapter("cut-export"), "artifact invalid");
    finds(
        &of(Workload::Batch, killed(adapter("half-batch"))),
        "batch in part",
    );
    finds(&adapter("part-of-follower"), "follower missed");
    finds(&killed(adapter("skips-on-resume")), "follower missed");
    let whole = adapter("none");
    passes(&killed(whole.clone()));
    passes(&killed(adapter("from-one")));
    passes(&cut(whole.clone()));
    for workload in [Workload::Claim, Workload::Batch] {
        passes(&of(workload, killed(whole.clone())));
    }
}

const ADAPTER: &str = r#"
name = "a small adapter"
version = ["flock", "--version"]

[env]
FAULT = ""

[append]
argv = ["sh", "{spec}/../adapter.sh", "{store}", "append", "{payload}"]
receipt = '^(\d+)$'

[batch]
argv = ["sh", "{spec}/../adapter.sh", "{store}", "batch", "{writes}"]

[list]
argv = ["sh", "{spec}/../adapter.sh", "{store}", "list"]
format = "jsonl"
text = "text"
ordered = true

[follow]
argv = ["sh", "{spec}/../adapter.sh", "{store}", "follow", "{from}"]
skip = '^[^{]|[^}]$'
number = '"id":(\d+)'

[claim]
argv = ["sh", "{spec}/../adapter.sh", "{store}", "claim", "{item}", "{agent}"]
refused = [9]

[show]
argv = ["sh", "{spec}/../adapter.sh", "{store}", "show", "{item}"]
owner = '(agent-\d+)'

[export]
argv = ["sh", "{spec}/../adapter.sh", "{store}", "export", "{export}"]

[[artifact]]
path = "{export}"
format = "jsonl"
complete = true
"#;

/// Whether a file of the system tells of a directory.
#[cfg(target_os = "linux")]
fn is_about(dir: &Path, path: &str) -> bool {
    let text = std::fs::read(path).unwrap_or_default();
    String::from_utf8_lossy(&text).contains(&dir.display().to_string())
}

#[cfg(target_os = "linux")]
fn is_mounted(dir: &Path) -> bool {
    is_about(dir, "/proc/self/mounts")
}

/// The processes whose command lines tell of a directory.
#[cfg(target_os = "linux")]
fn processes(dir: &Path) -> Vec<String> {
    let living = std::fs::read_dir("/proc").expect("processes").flatten();
    let paths = living.map(|entry| entry.path().join("cmdline").display().to_string());
    paths.filter(|path| is_about(dir, path)).collect()
}

#[cfg(target_os = "linux")]
fn harness_at(dir: &Path, store: &str, flags: &[&str]) -> std::process::Child {
    Command::new(exe())
        .args(["run", "--store", store, "--dir"])
        .arg(dir)
        .args(flags)
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("the harness starts")
}

/// Interrupts the harness again and again while it lists what is stored. It ends at once, and
/// leaves neither a filesystem nor a process. The listing waits as soon as there is a byte behind
/// the three lines of the preflight: this store's torn tail swallows the next write.
#[test]
#[cfg(target_os = "linux")]
fn a_second_interrupt_leaves_nothing_mounted_and_nothing_running() {
    use rustix::process::Signal;
    for (signal, flags) in [
        (Signal::INT, &["--quiet", "--power-cuts", "3"][..]),
        (Signal::TERM, &["--quiet", "--power-cuts", "3"]),
        (Signal::HUP, &["--quiet", "--disk-bytes", "1000000"]),
    ] {
        let dir = tempfile::tempdir().expect("a directory");
        let marker = dir.path().join("listing");
        let text = PID_FILE.replace(
            "[\"cat\", \"{store}/log\"]\nordered = true",
            &format!(
                r#"["sh", "-c", "cat '{{store}}/log'; if [ $(tail -n +4 '{{store}}/log' | wc -c) -gt 0 ]; then touch '{}'; exec sleep 1000; fi"]

[follow]
argv = ["tail", "-n", "+1", "-F", "{{store}}/log"]"#,
                marker.display()
            ),
        );
        let text = text.replace("/log\\\"\"", "/log\\\"; sync \\\"$1\\\" \\\"$1/log\\\"\"");
        assert!(text.contains("sync"), "{text}");
        let store = spec(dir.path(), &text);
        let mut child = harness_at(dir.path(), &store, flags);
        let began = Instant::now();
        while !marker.exists() && child.try_wait().expect("a child").is_none() {
            assert!(began.elapsed() < LIMIT, "nothing is listed");
            std::thread::sleep(Duration::from_millis(5));
        }
        if let Some(status) = child.try_wait().expect("a child") {
            assert_eq!(status.code(), Some(4), "{flags:?}");
            println!("SKIPPED: {flags:?} is not possible here");
            continue;
        }
        assert!(is_mounted(dir.path()), "{flags:?}");
        let pid = rustix::process::Pid::from_child(&child);
        while child.try_wait().expect("a child").is_none() {
            assert!(began.elapsed() < LIMIT, "it does not end");
            rustix::process::kill_process(pid, signal).expect("a signal");
            std::thread::sleep(Duration::from_millis(50));
        }
        let status = child.wait().expect("a child");
        assert_eq!(status.code(), Some(130), "{signal:?}");
        assert!(!is_mounted(dir.path()), "{signal:?}");
        assert_eq!(processes(dir.path()), Vec::<String>::new(), "{signal:?}");
    }
}

/// As `timeout` ends it: with two signals, the second of which is the first one again.
#[test]
#[cfg(target_os = "linux")]
fn a_termination_ends_a_run_that_is_made_smaller_with_its_report() {
    use std::io::BufRead as _;
    let dir = tempfile::tempdir().expect("a directory");
    let store = spec(dir.path(), PID_FILE);
    let mut flags = vec!["--power-cuts", "1000", "--writes", "100000"];
    flags.extend(["--shrink-s", "1000"]);
    let mut child = harness_at(dir.path(), &store, &flags);
    let output = std::io::BufReader::new(child.stdout.take().expect("a pipe"));
    let mut lines = output.lines().map_while(Result::ok);
    let verdict = lines.find(|line| line.starts_with("FAIL:") || line.starts_with("SKIPPED:"));
    let verdict = verdict.expect("a verdict");
    if verdict.starts_with("SKIPPED:") {
        println!("{verdict}");
        child.wait().expect("a child");
        return;
    }
    std::thread::sleep(Duration::from_millis(300));
    let pid = rustix::process::Pid::from_child(&child);
    for _ in 0..2 {
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("a signal");
        std::thread::sleep(Duration::from_millis(10));
    }
    let rest: Vec<String> = lines.collect();
    let status = child.wait().expect("a child");
    assert_eq!(status.code(), Some(1), "{rest:?}");
    assert!(
        rest.iter().any(|line| line.starts_with("replay")),
        "{rest:?}"
    );
    assert!(!is_mounted(dir.path()));
    assert_eq!(processes(dir.path()), Vec::<String>::new());
}

/// Nothing can unmount its filesystem, which then answers nobody; what waits for it can end.
#[test]
#[cfg(target_os = "linux")]
fn a_harness_that_is_killed_leaves_no_process_that_waits_for_its_filesystem() {
    for wait_ms in [0, 70, 190] {
        let dir = tempfile::tempdir().expect("a directory");
        let text = PID_FILE.replace("/log\\\"\"", "/log\\\"; sync \\\"$1\\\" \\\"$1/log\\\"\"");
        let text = format!("workdir = \"{{store}}\"{text}") + ARTIFACT;
        let store = spec(dir.path(), &text);
        let flags = [
            "--power-cuts",
            "1000",
            "--writes",
            "100000",
            "--shrink-s",
            "1000",
        ];
        let mut child = harness_at(dir.path(), &store, &flags);
        let began = Instant::now();
        while !is_mounted(dir.path()) && child.try_wait().expect("a child").is_none() {
            assert!(began.elapsed() < LIMIT, "nothing is mounted");
            std::thread::sleep(Duration::from_millis(5));
        }
        if let Some(status) = child.try_wait().expect("a child") {
            assert_eq!(status.code(), Some(4));
            println!("SKIPPED: --power-cuts is not possible here");
            return;
        }
        std::thread::sleep(Duration::from_millis(wait_ms));
        child.kill().expect("a signal");
        while child.try_wait().expect("a child").is_none() {
            assert!(began.elapsed() < LIMIT, "it can't be killed");
            std::thread::sleep(Duration::from_millis(5));
        }
        while !processes(dir.path()).is_empty() {
            let left = processes(dir.path());
            assert!(began.elapsed() < LIMIT, "{wait_ms} ms: {left:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
        let mounts = std::fs::read_to_string("/proc/self/mounts").expect("a table");
        let places = mounts.lines().filter_map(|line| line.split(' ').nth(1));
        for place in places.filter(|place| Path::new(place).starts_with(dir.path())) {
            let detach = rustix::mount::UnmountFlags::DETACH;
            rustix::mount::unmount(place, detach).expect("it is unmounted");
        }
    }
}

#[cfg(target_os = "linux")]
const ARTIFACT: &str = r#"
[[artifact]]
path = "{store}/log"
format = "lines"
"#;

#[test]
fn faults_of_system_calls_and_a_full_disk_lose_nothing_that_was_acknowledged() {
    for fault in [SystemFault::Kill, SystemFault::Eio, SystemFault::Enospc] {
        let report = passes(&Config {
            inject: Some(fault),
            agents: 3,
            ..other("jsonl")
        });
        let answers = report.answers;
        let unknown = answers.unknown + answers.failed;
        assert!(
            report.skipped.is_some() || unknown > 0,
            "{fault:?}: {answers:?}"
        );
    }
    let slow = passes(&Config {
        slow_disk_ms: Some(40),
        agents: 2,
        writes: 5,
        ..other("jsonl")
    });
    assert!(slow.skipped.is_some() || slow.median_ms > 40.0, "{slow:?}");
    let report = passes(&Config {
        disk_bytes: Some(64 << 10),
        payload_bytes: Some(2_000),
        ..other("locked-file")
    });
    assert!(report.skipped.is_some() || report.answers.unknown > 0);
}

#[test]
fn stores_that_come_along_pass_where_they_are_installed() {
    for (name, _) in BUILT_IN {
        // git commits what others have staged, which its check finds.
        if name == "git" || name == "strand-cli" {
            continue;
        }
        if let Err(reason) = is_there(name, exe()) {
            println!("SKIPPED: {name}: {reason}");
            continue;
        }
        let report = run(&Config {
            agents: 4,
            writes: 5,
            ..other(name)
        });
        assert_ne!(report.verdict, Verdict::Hang);
        if !["taskwarrior", "br"].contains(&name) {
            assert_eq!(report.verdict, Verdict::Pass, "{:?}", report.violations);
        }
        if name == "redis" {
            let killed = passes(&Config {
                workload: Workload::Batch,
                kill_per_second: 20.0,
                writes: 200,
                ..other(name)
            });
            assert!(killed.answers.ok > 0 && killed.killed > 0);
            let claims = passes(&Config {
                workload: Workload::Claim,
                ..other(name)
            });
            assert!(claims.answers.ok > 0 && claims.answers.refused > 0);
            passes(&Config {
                power_cuts: 8,
                writes: 1_000,
                ..other(name)
            });
        }
        if name == "sqlite" {
            let changes = passes(&Config {
                workload: Workload::Set,
                agents: 4,
                writes: 8,
                ..other(name)
            });
            assert!(changes.answers.ok > 0);
        }
    }
}

/// Builds the command where the harness looks for it; `None`, with a message, if there is no cargo.
fn command() -> Option<PathBuf> {
    static BUILT: OnceLock<Option<PathBuf>> = OnceLock::new();
    BUILT.get_or_init(build).clone()
}

fn build() -> Option<PathBuf> {
    let dir = exe().parent().expect("the harness is in a directory");
    let target_dir = dir.parent().expect("of a profile");
    let profile = dir.file_name().and_then(|name| name.to_str());
    let profile = match profile.expect("a name in UTF-8") {
        "debug" => "dev",
        other => other,
    };
    let status = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--package", "strand"])
        .args(["--profile", profile, "--target-dir"])
        .arg(target_dir)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .status();
    match status {
        Ok(status) => assert!(status.success(), "the command does not build: {status}"),
        Err(error) => {
            eprintln!("SKIPPED: no cargo builds the command: {error}");
            return None;
        }
    }
    Some(dir.join("strand"))
}

#[test]
fn the_command_strand_loses_nothing() {
    if command().is_none() {
        return;
    }
    let report = passes(&Config {
        agents: 4,
        writes: 6,
        ..other("strand-cli")
    });
    assert_eq!(report.answers.ok, 4 * 6);
    passes(&Config {
        agents: 4,
        writes: 15,
        kill_per_second: 100.0,
        ..other("strand-cli")
    });
    passes(&Config {
        agents: 2,
        writes: 4,
        payload_bytes: Some(200_000),
        ..other("strand-cli")
    });
    for workload in [Workload::Claim, Workload::Set] {
        let report = passes(&Config {
            workload,
            ..other("strand-cli")
        });
        assert!(report.answers.ok > 0);
    }
}

fn spec(dir: &Path, text: &str) -> String {
    let path = dir.join("spec.toml");
    std::fs::write(&path, text).expect("a spec");
    format!("cmd:{}", path.display())
}

/// A small adapter whose counter and file are not locked.
const COUNTER: &str = r#"
name = "a counter in a file"
version = ["sh", "-c", "echo sh"]

[append]
argv = ["sh", "-c", "n=$(($(cat \"$1/n\" 2> /dev/null || echo 0) + 1)); echo $n > \"$1/n\"; echo \"$2\" > \"$1/$n.item\"; echo $n", "sh", "{store}", "{payload}"]
receipt = '^(\d+)$'

[list]
argv = ["sh", "-c", "cat \"$1\"/*.item", "sh", "{store}"]
"#;

#[test]
fn an_adapter_whose_ids_collide_is_found_and_its_script_shows_it_without_the_harness() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = spec(dir.path(), COUNTER);
    let folder = dir.path().join("report");
    let folder = folder.to_str().expect("a name in UTF-8");
    let flags = [
        "--store",
        &store,
        "--agents",
        "8",
        "--shrink-s",
        "5",
        "--report",
        folder,
    ];
    let tries = dir.path().to_str().expect("a name in UTF-8");
    let output = harness(&[&flags[..], &["--dir", tries, "--history", "edn"]].concat());
    let text = stdout(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(
        text.contains("lost") && text.contains("receipt twice"),
        "{text}"
    );
    let read = |name: &str| {
        let path = Path::new(folder).join(name);
        std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{name}: {error}"))
    };
    assert!(read("README.md").contains("## lost"));
    assert!(read("index.html").ends_with("</html>\n"));
    assert!(read("history.edn").contains(":type :invoke"));
    let script = Path::new(folder).join("repro.sh");
    let output = Command::new("sh")
        .arg(script)
        .arg("40")
        .output()
        .expect("a shell");
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(
        output.status.code(),
        Some(1),
        "{said}\n{}",
        read("repro.sh")
    );
    assert!(said.contains("lost: qa"), "{said}");
    // The same store with claims that two agents win.
    let claim = "\n[claim]\nargv = [\"sh\", \"-c\", \"[ ! -e \\\"$1/$2.owner\\\" ] || exit 9; \
                 sleep 0.01; echo \\\"$3\\\" > \\\"$1/$2.owner\\\"\", \"sh\", \"{store}\", \
                 \"{item}\", \"{agent}\"]\nrefused = [9]\n";
    let twice = spec(dir.path(), &(COUNTER.to_owned() + claim));
    let found = finds(
        &Config {
            workload: Workload::Claim,
            ..other(&twice)
        },
        "won twice",
    );
    let path = dir.path().join("claims.sh");
    std::fs::write(&path, repro(&found)).expect("a script");
    let output = Command::new("sh").arg(&path).arg("20").output();
    let output = output.expect("a shell");
    let said = String::from_utf8_lossy(&output.stdout);
    let script = repro(&found);
    assert_eq!(output.status.code(), Some(1), "{said}\n{script}");
    assert!(said.contains(" won, twice: "), "{said}\n{script}");
}

#[test]
fn a_wrong_spec_is_a_usage_error_and_never_a_violation() {
    let dir = tempfile::tempdir().expect("a directory");
    for (from, to, says) in [
        (
            "receipt = '^(\\d+)$'",
            "receipt = '^(x\\d+)$'",
            "success without a receipt",
        ),
        (
            "receipt = '^(\\d+)$'",
            "receipt = '^\\d'\nok = [1]",
            "did not succeed",
        ),
        ("*.item\"", "1.item\"", "does not show write 2"),
        (
            "cat \\\"$1\\\"/*",
            "echo ID; cat \\\"$1\\\"/*",
            "have `skip` match it",
        ),
        (
            "cat \\\"$1\\\"/*",
            "date +%N; cat \\\"$1\\\"/*",
            "none of the three writes",
        ),
        ("*.item\"", "*.item | cut -c1-9\"", "whole = false"),
        (
            "[list]",
            "[list]\nordered = true\nnumber = 'x'",
            "number finds",
        ),
        ("{payload}", "{title}", "no placeholder {title}"),
        ("echo sh", "exit 1", "is not there"),
    ] {
        let text = COUNTER.replace(from, to);
        assert_ne!(text, COUNTER, "{from}");
        let store = spec(dir.path(), &text);
        match stores::check_spec(&other(&store), exe()) {
            Err(RunError::Usage(error)) => assert!(error.0.contains(says), "{says}: {error}"),
            other => panic!("{says}: {other:?}"),
        }
    }
    let store = spec(dir.path(), &COUNTER.replace("{payload}", "x"));
    let output = harness(&["--store", &store]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
}

#[test]
fn a_failing_run_is_made_as_small_as_the_one_operation_that_fails() {
    let dir = tempfile::tempdir().expect("a directory");
    let forgetful = "case $2 in qa1w3q*) ;; *) echo \\\"$2\\\" >>";
    let text = PID_FILE.replace("echo \\\"$2\\\" >>", forgetful);
    let text = text.replace("/log\\\"\"", "/log\\\" ;; esac\"");
    assert!(text.contains("esac"), "{text}");
    let report = run(&Config {
        agents: 5,
        writes: 9,
        dir: Some(dir.path().to_owned()),
        ..other(&spec(dir.path(), &text))
    });
    assert_eq!(report.count("lost"), 1);
    let smallest = shrink(report, exe(), LIMIT, &|| false);
    let only = smallest.config.only.expect("some operations");
    assert_eq!(only, Only::these([(1, 3)]));
}

/// A lock of a file with a process id, as it is often written.
const PID_FILE: &str = r#"
name = "a file with a process id"
version = ["sh", "-c", "echo sh"]

[append]
argv = ["sh", "-c", "echo \"$2\" >> \"$1/log\"", "sh", "{store}", "{payload}"]

[list]
argv = ["cat", "{store}/log"]
ordered = true

[exclusive]
argv = ["sh", "-c", "while [ -e \"$0/pid\" ]; do sleep 0.001; done; echo $$ > \"$0/pid\"; \"$@\"; rm -f \"$0/pid\"", "{store}", "{witness}"]
"#;

#[test]
fn two_holders_of_a_lock_see_each_other() {
    let dir = tempfile::tempdir().expect("a directory");
    let exclusive = |store: &str| Config {
        writes: 8,
        workload: Workload::Exclusive,
        ..other(store)
    };
    finds(&exclusive(&spec(dir.path(), PID_FILE)), "two holders");
    if is_there("jsonl", exe()).is_ok() {
        let report = passes(&exclusive("jsonl"));
        assert_eq!(report.answers.ok, 40);
    }
}

/// It ends when there are ten writes. What it has started shows all of them, until a kill.
#[test]
fn a_follower_that_ended_before_a_kill_was_not_killed() {
    let dir = tempfile::tempdir().expect("a directory");
    let follow = r#"
[init]
argv = ["touch", "{store}/log"]

[follow]
argv = ["sh", "-c", "tail -n +$2 -F \"$1/log\" & while [ $(wc -l < \"$1/log\") -lt 10 ]; do sleep 0.01; done; exit 7", "sh", "{store}", "{from}"]
"#;
    let store = spec(dir.path(), &(PID_FILE.to_owned() + follow));
    let report = run(&Config {
        kill_per_second: 20.0,
        agents: 2,
        writes: 100,
        dir: Some(dir.path().to_owned()),
        ..other(&store)
    });
    assert_eq!(report.verdict, Verdict::Violated);
    assert_eq!(report.kinds.len(), 1, "{:?}", report.violations);
    let table = table(&report);
    assert!(table.contains("it ended: exit status: 7"), "{table}");
}

/// The first server of a run works. Each later one prints a lot and ends.
#[test]
fn a_server_that_does_not_come_back_is_named_with_its_end() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = r#"
[serve]
argv = ["sh", "-c", "if [ -e up ]; then touch broken; seq 1000; echo the log is broken >&2; exit 7; fi; touch up; exec sleep 1000"]
ready = ["sh", "-c", "[ -e up ] && [ ! -e broken ]"]
"#;
    let store = spec(dir.path(), &(PID_FILE.to_owned() + server));
    let killed = Config {
        kill_per_second: 50.0,
        agents: 2,
        writes: 100_000,
        dir: Some(dir.path().to_owned()),
        ..other(&store)
    };
    let began = Instant::now();
    let report = run(&killed);
    assert_eq!(report.verdict, Verdict::Violated, "{:?}", report.violations);
    assert_eq!(report.kinds.len(), 1, "{:?}", report.violations);
    assert!(began.elapsed() < LIMIT);
    let table = table(&report);
    let (_, said) = table
        .split_once("server failed: after a kill: ")
        .expect(&table);
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines[0], "exit status: 7");
    assert!(lines[1].starts_with("  sh -c 'if [ -e up ]"), "{said}");
    assert!(
        lines.contains(&"  1000") && !lines.contains(&"  900"),
        "{said}"
    );
    assert_eq!(lines.last(), Some(&"  the log is broken"));
}

/// A follower ends with its server, and another one goes on with the next server.
#[test]
#[cfg(target_os = "linux")]
fn a_follower_goes_on_after_a_kill_of_its_server() {
    let server = r#"
[init]
argv = ["touch", "{store}/log"]

[serve]
argv = ["sh", "-c", "echo $$ > \"$1/new\"; mv \"$1/new\" \"$1/server\"; exec sleep 1000", "sh", "{run}", "{store}"]
ready = ["sh", "-c", "kill -0 $(cat \"$1/server\")", "sh", "{run}"]

[follow]
argv = ["sh", "-c", "exec tail -s 0.01 --pid=$(cat \"$3/server\") -n +$2 -f \"$1/log\"", "sh", "{store}", "{from}", "{run}"]
"#;
    let of = |changes: &[[&str; 2]], kill_per_second| {
        let dir = tempfile::tempdir().expect("a directory");
        let mut text = PID_FILE.to_owned() + server;
        for [from, to] in changes {
            text = text.replace(from, to);
        }
        let store = spec(dir.path(), &text);
        let config = Config {
            kill_per_second,
            agents: 3,
            writes: 100,
            dir: Some(dir.path().to_owned()),
            ..other(&store)
        };
        (dir, config)
    };
    let (_dir, whole) = of(&[], 20.0);
    let report = passes(&whole);
    let mut checks = report.checks.iter();
    let check = checks.find(|check| check.point == Point::Followers);
    assert!(check.is_some_and(|check| check.compared >= report.answers.ok));
    // The preflight finds one that always skips.
    let skips = "-n +$(($2 + ($2 > 9)))";
    let (_dir, skipping) = of(&[["-n +$2", skips]], 20.0);
    finds(&skipping, "follower missed");
    // It ends when there are ten writes, and as good as no server is killed.
    let until = "until [ $(wc -l < \\\"$LOG\\\") -ge 10 ]; do sleep 0.01; done; exit 7";
    let tail = "-f \\\"$1/log\\\"";
    let follower = format!("{tail} & LOG=$1/log; {until}");
    let (_dir, ending) = of(&[[tail, &follower]], 1e-6);
    finds(&ending, "examination failed");
    // The server ends, too: only that is named.
    let server = format!("LOG=$2/log; {until}");
    let (_dir, both) = of(&[[tail, &follower], ["exec sleep 1000", &server]], 0.0);
    let report = finds(&both, "server failed");
    assert_eq!(report.kinds.len(), 1, "{:?}", report.violations);
}

#[test]
fn what_is_not_done_is_unknown_or_a_hang_and_no_violation() {
    let dir = tempfile::tempdir().expect("a directory");
    let busy = |then: &str| {
        let check = format!(
            "if [ $(ls \\\"$1\\\" | wc -l) -gt 3 ]; then {then}; fi; mktemp \\\"$1/XXXXXX\\\"; "
        );
        let text = PID_FILE.replace("echo \\\"$2\\\" >>", &format!("{check}echo \\\"$2\\\" >>"));
        spec(dir.path(), &text.replace("[list]", "refused = [7]\n[list]"))
    };
    // The preflight makes three writes in another store; a fourth one is refused.
    let report = run(&Config {
        agents: 1,
        writes: 9,
        ..other(&busy("exit 7"))
    });
    assert_eq!((report.verdict, report.answers.refused), (Verdict::Pass, 6));
    let report = run(&Config {
        agents: 2,
        timeout_s: 2,
        dir: Some(dir.path().to_owned()),
        ..other(&busy("sleep 100"))
    });
    assert_eq!(report.verdict, Verdict::Hang);
    assert_eq!(report.hang.map(|doing| doing.len()), Some(2));
}

#[test]
fn the_examples_of_the_page_work_as_they_are() {
    let page = include_str!("../../../docs/STORES.md");
    let dir = tempfile::tempdir().expect("a directory");
    let (_, description) = page.split_once("```toml\n").expect("an example");
    let (description, _) = description.split_once("```").expect("its end");
    passes(&other(&spec(dir.path(), description)));
    let (_, code) = page.split_once("```python\n").expect("an example");
    let (code, _) = code.split_once("```").expect("its end");
    assert!(code.lines().count() <= 40, "{}", code.lines().count());
    if Command::new("python3").arg("--version").output().is_err() {
        println!("SKIPPED: there is no python3");
        return;
    }
    let path = dir.path().join("agent.py");
    std::fs::write(&path, code).expect("a program");
    let report = passes(&Config {
        history: Some(HistoryFormat::Jsonl),
        ..other(&format!("agent:python3 {}", path.display()))
    });
    assert_eq!(report.answers.ok, 100);
    let agent = |name: &str, code: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, code).expect("a program");
        Config {
            kill_per_second: 15.0,
            agents: 3,
            ..other(&format!("agent:python3 {}", path.display()))
        }
    };
    // It says that a write may be made again, and stores that twice.
    let careless = code.replace("\"ordered\", \"receipts\"", "\"idempotent\"");
    finds(&agent("careless.py", &careless), "duplicated");
    let careful = careless.replace(
        "        number = ",
        "        log.seek(0)\n        if payload.encode() in log.read().splitlines():\n            \
         return {\"type\": \"ok\", \"receipt\": \"0\"}\n        log.seek(0)\n        number = ",
    );
    assert_ne!(careful, careless);
    let report = passes(&agent("careful.py", &careful));
    assert_eq!(report.answers.ok, 60);
}

#[test]
fn an_unknown_store_is_named_with_those_that_there_are() {
    let output: Output = harness(&["--store", "leveldb"]);
    assert_eq!(output.status.code(), Some(2));
    let error = String::from_utf8_lossy(&output.stderr);
    for known in ["leveldb", "sqlite", "locked-file:FAULT", "cmd:SPEC.toml"] {
        assert!(error.contains(known), "{known}: {error}");
    }
}
