//! The programs in `examples/`, built and run as a user would run them.

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, Instant},
};

use strand_core::{Batch, Compacted, Filter, Issue, IssueLog, Issues, Op, Patch};

use crate::support::{TS, append_numbered, event, open_issues};

/// More than any of these programs takes on a busy machine.
const PATIENCE: Duration = Duration::from_mins(1);

/// The example's binary. `cargo test` builds examples too, but not if it is given the test to
/// build.
fn example(name: &str) -> PathBuf {
    static BUILDING: Mutex<()> = Mutex::new(());
    let _alone = BUILDING.lock().unwrap();
    let exe = std::env::current_exe().unwrap();
    let profile_dir = exe.ancestors().nth(2).unwrap();
    let path = profile_dir
        .join("examples")
        .join(name)
        .with_extension(std::env::consts::EXE_EXTENSION);
    let source = format!("{}/examples/{name}.rs", env!("CARGO_MANIFEST_DIR"));
    let time = |path: &Path| path.metadata().and_then(|metadata| metadata.modified());
    let is_fresh = time(&path)
        .is_ok_and(|built| time(Path::new(&source)).map_or(true, |written| written <= built));
    if !is_fresh {
        let status = Command::new(env!("CARGO"))
            .args(["build", "--quiet", "--package", "strand-core", "--examples"])
            .arg("--target-dir")
            .arg(profile_dir.parent().unwrap())
            .args(if cfg!(debug_assertions) {
                &[][..]
            } else {
                &["--release"]
            })
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .status();
        assert!(status.unwrap().success(), "the examples do not build");
    }
    path
}

/// Starts an example; standard output and error can be read.
fn start(name: &str, arguments: &[&str]) -> Child {
    Command::new(example(name))
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Waits for an example's end, and kills it when it takes too long.
fn end(mut child: Child) -> Output {
    let drain = |pipe: Option<Box<dyn std::io::Read + Send>>| {
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            pipe.unwrap().read_to_end(&mut bytes).unwrap();
            bytes
        })
    };
    let stdout = drain(child.stdout.take().map(|pipe| Box::new(pipe) as Box<_>));
    let stderr = drain(child.stderr.take().map(|pipe| Box::new(pipe) as Box<_>));
    let deadline = Instant::now() + PATIENCE;
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if Instant::now() > deadline {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!("an example hung");
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    Output {
        status,
        stdout: stdout.join().unwrap(),
        stderr: stderr.join().unwrap(),
    }
}

fn lines(bytes: &[u8]) -> Vec<String> {
    let text = String::from_utf8(bytes.to_vec()).unwrap();
    text.lines().map(str::to_owned).collect()
}

fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < deadline, "in vain: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// How often each issue was claimed and closed, as the log says.
fn claims_and_closes(log: &IssueLog) -> BTreeMap<String, (u32, u32)> {
    let mut counts: BTreeMap<String, (u32, u32)> = BTreeMap::new();
    for record in log.log().records().unwrap() {
        for event in record.unwrap().events {
            let of = counts.entry(event.id).or_default();
            let patch = event
                .patch
                .map(|patch| serde_json::to_string(&patch).unwrap());
            of.0 += u32::from(patch.is_some_and(|patch| patch.contains("in_progress")));
            of.1 += u32::from(event.op == Op::Close);
        }
    }
    counts
}

#[test]
fn agents_claim_and_close_each_issue_exactly_once_also_when_one_is_killed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_str().unwrap();
    let log = open_issues(dir.path());
    for number in 0..24 {
        let issue = Issue::new_at(&format!("bd-{number:02}"), "Mend the fence", TS);
        // Every other one waits for the one before it, so that there is something to wait for.
        let before = format!("bd-{:02}", number & !1);
        let dependency = serde_json::json!([
            {"issue_id": issue.id(), "depends_on_id": before, "type": "blocks"}
        ]);
        let issue = if number % 2 == 0 {
            issue
        } else {
            issue.with("dependencies", &dependency).unwrap()
        };
        log.create(issue).unwrap();
    }
    // One is killed as soon as it is at work, and started again under its name.
    let mut killed = start("claiming_agent", &[path, "agent-0"]);
    let mut first = String::new();
    let mut output = BufReader::new(killed.stdout.take().unwrap());
    output.read_line(&mut first).unwrap();
    let left = first.strip_prefix("agent-0: claimed ").unwrap().trim_end();
    killed.kill().unwrap();
    killed.wait().unwrap();

    let names = ["agent-0", "agent-1", "agent-2", "agent-3"];
    let agents: Vec<_> = names
        .iter()
        .map(|name| start("claiming_agent", &[path, name]))
        .collect();
    let outputs: Vec<_> = agents.into_iter().map(end).collect();
    let mut closed = Vec::new();
    for Output {
        status,
        stdout,
        stderr,
    } in &outputs
    {
        assert!(status.success(), "{status}: {:?}", lines(stderr));
        let lines = lines(stdout);
        let ids = lines
            .iter()
            .filter_map(|line| line.split_once(": closed bd-"));
        closed.extend(ids.map(|(_, rest)| rest.split(' ').next().unwrap().to_owned()));
    }
    closed.sort();
    let expected: Vec<_> = (0..24).map(|number| format!("{number:02}")).collect();
    assert_eq!(closed, expected, "each is closed by one agent");
    assert!(
        lines(&outputs[0].stdout).contains(&format!("agent-0: goes on with {left}")),
        "what the killed agent had claimed is its own again"
    );
    for (id, counts) in claims_and_closes(&log) {
        assert_eq!(counts, (1, 1), "claims and closes of {id}");
    }
    log.with_issues(|store| assert_eq!(store.list(&Filter::new().status("closed")).len(), 24))
        .unwrap();
}

#[test]
fn an_agent_closes_an_issue_that_others_edit_and_leaves_one_that_is_taken_away() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_str().unwrap();
    let log = open_issues(dir.path());
    for id in ["bd-edited", "bd-taken"] {
        log.create(Issue::new_at(id, "Mend the fence", TS)).unwrap();
        let mut agent = start("claiming_agent", &[path, "agent-1"]);
        let mut output = BufReader::new(agent.stdout.take().unwrap());
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        assert_eq!(line.trim_end(), format!("agent-1: claimed {id}"));
        let change = if id == "bd-edited" {
            Patch::new().add_label("garden")
        } else {
            Patch::new().set("assignee", "somebody else").unwrap()
        };
        log.commit(&Batch::at(TS).patch(id, change)).unwrap();
        let rest: Vec<_> = output.lines().map(Result::unwrap).collect();
        assert!(agent.wait().unwrap().success());
        let closes = claims_and_closes(&log)[id].1;
        if id == "bd-edited" {
            assert_eq!(closes, 1, "{rest:?}");
        } else {
            assert_eq!(closes, 0, "{rest:?}");
            assert!(rest[0].starts_with("agent-1: bd-taken is not mine any more"));
        }
    }
}

/// The requests to a web hook.
#[derive(Default)]
struct Got {
    /// The applied requests, in order: the kind, the number and the body.
    applied: Vec<(String, u64, Vec<u8>)>,
    repeated: u32,
    requests: u32,
}

impl Got {
    fn last_seq(&self) -> u64 {
        self.applied.last().map_or(0, |(_, seq, _)| *seq)
    }
}

/// A receiver of records that now and then is out of order, answers too late, or not at all.
struct Hook {
    url: String,
    got: Arc<Mutex<Got>>,
}

impl Hook {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/events", listener.local_addr().unwrap());
        let got = Arc::new(Mutex::new(Got::default()));
        let hook = Self {
            url,
            got: Arc::clone(&got),
        };
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                // A mirror that is killed leaves half a request.
                receive(&stream.unwrap(), &got).ok();
            }
        });
        hook
    }

    fn got(&self) -> MutexGuard<'_, Got> {
        self.got.lock().unwrap()
    }
}

fn receive(mut stream: &TcpStream, got: &Mutex<Got>) -> std::io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut input = BufReader::new(stream);
    let mut headers = BTreeMap::new();
    let mut line = String::new();
    input.read_line(&mut line)?;
    assert!(
        line.is_empty() || line == "POST /events HTTP/1.1\r\n",
        "{line:?}"
    );
    loop {
        line.clear();
        if input.read_line(&mut line)? == 0 {
            return Ok(());
        }
        match line.trim_end().split_once(": ") {
            Some((name, value)) => headers.insert(name.to_owned(), value.to_owned()),
            None => break,
        };
    }
    let mut body = vec![0; headers["Content-Length"].parse().unwrap()];
    input.read_exact(&mut body)?;
    let (kind, seq) = (
        headers["Strand-Kind"].clone(),
        headers["Strand-Seq"].parse().unwrap(),
    );
    let mut got = got.lock().unwrap();
    got.requests += 1;
    if got.requests % 7 == 3 {
        stream.write_all(b"HTTP/1.1 503 Service Unavailable\r\n\r\n")?;
        return Ok(());
    }
    let last_seq = got.last_seq();
    match kind.as_str() {
        _ if seq <= last_seq => got.repeated += 1,
        "record" => {
            assert_eq!(seq, last_seq + 1, "none is left out");
            got.applied.push((kind, seq, body));
        }
        "snapshot" => got.applied.push((kind, seq, body)),
        kind => panic!("what is a {kind}?"),
    }
    if got.requests % 7 == 5 {
        return Ok(()); // Applied, but the mirror is not told.
    }
    stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n")
}

#[test]
fn a_mirror_that_is_killed_again_and_again_applies_each_record_exactly_once() {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("store");
    std::fs::create_dir(&store).unwrap();
    let position = dir.path().join("mirror.position");
    let hook = Hook::start();
    let mirror = || {
        let mut mirror = start(
            "follower_mirror",
            &[
                store.to_str().unwrap(),
                &hook.url,
                position.to_str().unwrap(),
            ],
        );
        // Its output is ignored, but must not fill a pipe.
        let mut errors = mirror.stderr.take().unwrap();
        std::thread::spawn(move || std::io::copy(&mut errors, &mut std::io::sink()));
        mirror
    };
    let kill = |mut mirror: Child| {
        assert_eq!(
            mirror.try_wait().unwrap(),
            None,
            "it runs until it is killed"
        );
        mirror.kill().unwrap();
        mirror.wait().unwrap();
    };

    let log = open_issues(&store);
    append_numbered(log.log(), 1..=20);
    for round in 0..10_u64 {
        let running = mirror();
        let wanted = hook.got().last_seq() + 3 + round % 3;
        for number in 0..6 {
            log.append(&event(&format!("bd-{round}-{number}"))).unwrap();
        }
        wait_until("some records more", || hook.got().last_seq() >= wanted);
        kill(running);
    }
    // While no mirror runs, records that are not mirrored yet are compacted away.
    let (mirrored, log_ends) = (
        hook.got().last_seq(),
        log.log().durable_seq().unwrap().unwrap(),
    );
    assert!(mirrored < log_ends.get());
    assert!(matches!(log.compact().unwrap(), Compacted::Done { .. }));
    let at_compaction = Issues::load(&store).unwrap();
    let running = mirror();
    wait_until("the snapshot", || hook.got().last_seq() >= log_ends.get());
    log.append(&event("bd-last")).unwrap();
    wait_until("the last record", || hook.got().last_seq() > log_ends.get());
    kill(running);

    let got = hook.got();
    let snapshots = got.applied.iter().filter(|(kind, ..)| kind == "snapshot");
    assert_eq!(snapshots.count(), 1, "only where records were gone");
    for (kind, seq, body) in &got.applied {
        if kind == "snapshot" {
            let mut issues = Vec::new();
            strand_core::write_jsonl(&at_compaction, &mut issues).unwrap();
            assert_eq!((*seq, body), (log_ends.get(), &issues));
        } else {
            let record: serde_json::Value = serde_json::from_slice(body).unwrap();
            assert_eq!(record["seq"], *seq);
        }
    }
    let stored = log
        .log()
        .records()
        .unwrap()
        .map(|record| record.unwrap().line);
    let last = got.applied.last().map(|(_, _, body)| body.clone());
    assert_eq!(stored.last(), last, "to the byte");
    assert!(
        got.repeated > 0,
        "an answer that is lost has a record sent again"
    );
}

#[test]
fn a_mirror_refuses_a_store_that_ends_before_its_position() {
    let dir = tempfile::tempdir().unwrap();
    let position = dir.path().join("mirror.position");
    std::fs::write(&position, "7\n").unwrap();
    let log = open_issues(dir.path());
    log.append(&event("bd-1")).unwrap();
    let arguments = [dir.path(), Path::new("http://127.0.0.1:1"), &position];
    let output = end(start(
        "follower_mirror",
        &arguments.map(|path| path.to_str().unwrap()),
    ));
    assert!(!output.status.success());
    let said = lines(&output.stderr).join("\n");
    assert!(
        said.contains("ends at record 1, and 7 is mirrored already"),
        "{said}"
    );
}

#[test]
fn an_async_service_appends_from_many_tasks_and_follows_itself() {
    let dir = tempfile::tempdir().unwrap();
    for run in 1..=2 {
        let output = end(start(
            "async_service",
            &[dir.path().to_str().unwrap(), "50"],
        ));
        let (said, errors) = (lines(&output.stdout), lines(&output.stderr));
        assert!(output.status.success(), "{errors:?}");
        assert_eq!(
            said[2..],
            ["the follower saw 50 records, in order", "closed"]
        );
        assert_eq!(errors, [""; 0]);
        assert_eq!(Issues::load(dir.path()).unwrap().len(), run * 51);
    }
}

#[test]
fn a_migration_names_bad_lines_and_can_be_run_again() {
    let dir = tempfile::tempdir().unwrap();
    let (old, store) = (dir.path().join("old.jsonl"), dir.path().join("store"));
    std::fs::create_dir(&store).unwrap();
    let text = "\u{feff}{\"id\":\"bd-1\",\"title\":\"Mend the fence\"}\n\
        not JSON\r\n\n\
        {\"id\":\"bd-2\",\"title\":\"Buy wire\",\"x\":1.10,\"unknown\":{\"b\":1,\"a\":1e400}}\r\n\
        {\"id\":\"bd-1\",\"title\":\"Mend it\"}\n\
        {\"id\":\"bd-3\"}\n\
        {\"id\":\"bd-4\",\"title\":\"The last line has no end\"}";
    std::fs::write(&old, text).unwrap();
    let (old, dir) = (old.to_str().unwrap(), store.to_str().unwrap());
    let migrate = |arguments: &[&str]| {
        let output = end(start("migrate_jsonl", arguments));
        let (said, errors) = (lines(&output.stdout), lines(&output.stderr));
        (output.status.success(), said, errors)
    };

    let (success, _, errors) = migrate(&[old, dir]);
    assert!(!success);
    for (number, line) in [2, 6].into_iter().zip(&errors) {
        assert!(line.contains(&format!("line {number}: ")), "{line}");
    }
    assert_eq!(errors.len(), 3, "{errors:?}");
    assert_eq!(
        std::fs::read_dir(&store).unwrap().count(),
        0,
        "nothing was done"
    );

    let (success, said, errors) = migrate(&[old, dir, "--skip-bad"]);
    assert!(success, "{errors:?}");
    assert_eq!(
        said,
        ["7 lines with 3 issues: 3 added, 0 there before, 2 bad lines left out"]
    );
    let log = open_issues(&store);
    let json = |id: &str| {
        log.with_issues(|store| store.get(id).unwrap().as_json().to_owned())
            .unwrap()
    };
    assert_eq!(json("bd-1"), r#"{"id":"bd-1","title":"Mend it"}"#);
    assert_eq!(
        json("bd-2"),
        r#"{"id":"bd-2","title":"Buy wire","x":1.10,"unknown":{"b":1,"a":1e400}}"#
    );

    // Again, after one was changed, as after a run that was killed before another.
    log.commit(&Batch::at(TS).close("bd-1").delete("bd-4"))
        .unwrap();
    let (success, said, errors) = migrate(&[old, dir, "--skip-bad"]);
    assert!(success, "{errors:?}");
    assert_eq!(
        said,
        [
            "bd-1: the store had it already, and keeps what it has",
            "7 lines with 3 issues: 1 added, 2 there before, 2 bad lines left out",
        ]
    );
    assert!(json("bd-1").contains("closed"));
}
