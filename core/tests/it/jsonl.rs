//! Issues in and out as JSON lines.

use std::{
    fs,
    io::{self, BufRead, Cursor, Read, Seek, SeekFrom},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use strand_core::{
    ImportError, ImportOptions, Imported, Issue, IssueEvent, IssueLog, Issues, Patch,
    RECORD_BYTES_MAX, Seq, export,
    testing::{Failpoint, FailpointHook},
    write_jsonl,
};

use crate::support::{TS, as_child, child, names, open_issues, options};

fn import(log: &IssueLog, text: &str, options: ImportOptions) -> Result<Imported, ImportError> {
    log.import(&mut Cursor::new(text), options)
}

fn odd_lines() -> Vec<String> {
    let mut lines: Vec<String> = [
        r#"{"id":"a","title":"plain"}"#,
        r#"{"title":"\u0041 \/ \ud83e\udea2 🪢 \"quoted\" \\ \n","id":"b"}"#,
        r#"{"id":"c","title":"numbers","n":[1.10,1e400,-0.0,1E+2,18446744073709551616,0.1e-7]}"#,
        r#"{"id":"d","title":"twice","x":1,"x":2,"title":"last"}"#,
        r#"{ "id" : "e",	"title":"white  space" , "labels":[ ] , "z":null,"a":{"y":{},"b":[[]]}}"#,
        r#"{"id":"f","title":"ü","dependencies":[{"issue_id":"f","depends_on_id":"a","type":"blocks"}],"comments":[{"id":1}]}"#,
        r#"{"id":"g\u0000","title":""}"#,
    ]
    .map(str::to_owned)
    .into();
    lines.push(format!(
        r#"{{"id":"h","title":"deep","x":{}{}}}"#,
        "[".repeat(99),
        "]".repeat(99)
    ));
    lines.push(format!(
        r#"{{"id":"i","title":"long","x":"{}"}}"#,
        "x".repeat(3 << 20)
    ));
    lines
}

#[test]
fn imported_lines_are_exported_byte_for_byte() {
    let dir = tempfile::tempdir().unwrap();
    let log = open_issues(dir.path());
    let lines = odd_lines();
    // In another order, with blank lines, another line end and a mark at the beginning.
    let reversed: Vec<&str> = lines.iter().rev().map(String::as_str).collect();
    let text = format!("\u{feff}  {} \r\n\n", reversed.join(" \r\n\n  "));
    let imported = import(&log, &text, ImportOptions::new(TS)).unwrap();
    assert_eq!((imported.lines, imported.added), (9, 9));
    let expected = lines.join("\n") + "\n";
    for compact in [false, true] {
        if compact {
            log.compact().unwrap();
        }
        let store = Issues::load(dir.path()).unwrap();
        let mut out = Vec::new();
        write_jsonl(&store, &mut out).unwrap();
        assert!(
            out == expected.as_bytes(),
            "{}",
            String::from_utf8_lossy(&out)
        );
        let file = dir.path().join("issues.jsonl");
        assert_eq!(export(&store, &file).unwrap(), 9);
        assert_eq!(fs::read_to_string(&file).unwrap(), expected);
    }
    let again = import(&log, &text, ImportOptions::new(TS)).unwrap();
    assert_eq!(
        (again.added, again.replaced, again.unchanged, again.last_seq),
        (0, 0, 9, None)
    );
}

#[test]
fn a_carriage_return_between_tokens_changes_no_other_white_space() {
    let dir = tempfile::tempdir().unwrap();
    let log = open_issues(dir.path());
    let text = "{ \"id\" : \"a\", \"title\":\"A\"}\r\n{\"id\":\"b\",\r\"title\": \"B\"}\r\n";
    import(&log, text, ImportOptions::new(TS)).unwrap();
    let mut out = Vec::new();
    write_jsonl(&Issues::load(dir.path()).unwrap(), &mut out).unwrap();
    let expected = "{ \"id\" : \"a\", \"title\":\"A\"}\n{\"id\":\"b\", \"title\": \"B\"}\n";
    assert_eq!(String::from_utf8(out).unwrap(), expected);
    let again = import(&log, text, ImportOptions::new(TS)).unwrap();
    assert_eq!((again.unchanged, again.last_seq), (2, None));
}

#[test]
fn an_issue_that_spans_lines_is_exported_as_one_line() {
    let mut store = Issues::default();
    let issue = Issue::from_json("{\n\"id\":\"a\",\r\n\"title\":\"T\"}").unwrap();
    store.apply(Seq::new(1), [IssueEvent::add(issue, TS)]);
    let mut out = Vec::new();
    write_jsonl(&store, &mut out).unwrap();
    assert_eq!(out, b"{ \"id\":\"a\",  \"title\":\"T\"}\n");
}

/// A line of exactly so many bytes, whose id takes six times its length in JSON.
fn line_of(bytes: usize) -> String {
    let head = format!(
        r#"{{"id":"{}","title":"T","x":""#,
        r"\u0001".repeat(strand_core::ID_BYTES_MAX)
    );
    let rest = "x".repeat(bytes - head.len() - 2);
    format!("{head}{rest}\"}}")
}

#[test]
fn the_longest_line_fits_into_a_record_and_a_longer_one_is_bad() {
    let dir = tempfile::tempdir().unwrap();
    let log = open_issues(dir.path());
    let max = RECORD_BYTES_MAX - 2048;
    let before = format!(r#"{{"id":"a","title":"{}"}}"#, "x".repeat(4000));
    let longer = format!("{before}\n{}\n", line_of(max + 1));
    let refused = import(&log, &longer, ImportOptions::new(TS));
    assert!(matches!(refused, Err(ImportError::BadLines { count: 1, first }) if first[0].0 == 2));
    assert_eq!(log.log().tail_seq().unwrap(), None);
    let longest = format!("{before}\n{}\n", line_of(max));
    assert_eq!(
        import(&log, &longest, ImportOptions::new(TS))
            .unwrap()
            .added,
        2
    );
}

#[test]
fn what_other_programs_cannot_read_is_refused_with_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let log = open_issues(dir.path());
    let deep = format!("{}{}", "[".repeat(100), "]".repeat(100));
    for (fields, reason) in [
        (r#""x":"\ud800""#, "column 28"),
        (r#""x":["\ud834\udd1e",{"y":"\udd1e"}]"#, "column 49"),
        (r#""\ud800":1"#, "column 24"),
        (&format!(r#""x":{deep}"#), "100 levels"),
    ] {
        let text = format!("{{\"id\":\"a\",\"title\":\"T\",{fields}}}");
        let error = import(&log, &text, ImportOptions::new(TS)).unwrap_err();
        assert!(error.to_string().contains("line 1: "), "{error}");
        assert!(error.to_string().contains(reason), "{text}: {error}");
        assert!(
            Issue::from_json(&text)
                .unwrap_err()
                .to_string()
                .contains(reason)
        );
        let event = format!("{{\"op\":\"add\",\"id\":\"a\",\"data\":{text}}}");
        let event: Result<IssueEvent, _> = IssueEvent::from_json(&event, TS);
        let refused = event
            .map_err(strand_core::Error::from)
            .and_then(|event| log.append(&event));
        assert!(refused.is_err(), "{text}");
    }
    let value: Box<serde_json::value::RawValue> = serde_json::from_str(r#""\udfff""#).unwrap();
    assert!(Patch::new().set("x", &value).is_err());
    assert!(Patch::new().add("x", &value).is_err());
    assert!(Issue::new_at("a", "T", TS).with("x", &value).is_err());
    let mut event = IssueEvent::close("a", TS);
    event.extra.push(("x".to_owned(), value));
    assert!(log.append(&event).is_err() && log.append_batch(&[event]).is_err());
    assert_eq!(log.log().tail_seq().unwrap(), None);
}

#[test]
fn lines_that_are_no_issue_are_carried_through_and_no_query_finds_them() {
    let dir = tempfile::tempdir().unwrap();
    let log = open_issues(dir.path());
    let memory = |value: &str| format!(r#"{{"_type":"memory","key":"k","value":"{value}" }}"#);
    let other = r#"{"_type":"note","text":"x"}"#;
    let issue = r#"{"_type":"issue","id":"a","title":"A","status":"open"}"#;
    let text = [memory("1").as_str(), other, issue].join("\n");
    let imported = import(&log, &text, ImportOptions::new(TS)).unwrap();
    assert_eq!((imported.added, imported.bad), (3, 0));
    let exported = |memory: &str| {
        let mut out = Vec::new();
        write_jsonl(&Issues::load(dir.path()).unwrap(), &mut out).unwrap();
        let out = String::from_utf8(out).unwrap();
        let mut lines: Vec<&str> = out.lines().collect();
        lines.sort_unstable();
        let mut expected = vec![memory, other, issue];
        expected.sort_unstable();
        assert_eq!(lines, expected);
    };
    exported(&memory("1"));
    // With a key, a line takes the place of the earlier one.
    let changed = import(&log, &memory("2"), ImportOptions::new(TS)).unwrap();
    assert_eq!((changed.added, changed.replaced), (0, 1));
    exported(&memory("2"));
    log.compact().unwrap();
    exported(&memory("2"));
    let issues = Issues::load(dir.path()).unwrap();
    let all = strand_core::Filter::new();
    assert_eq!(issues.list(&all).len(), 1);
    assert_eq!(issues.ready().len(), 1);
    assert!(issues.get("_memory:k").unwrap().is_carried());
    for bad in [
        r#"{"_type":"issue","id":"a"}"#,
        r#"{"id":"a"}"#,
        r#"{"_type":1,"key":"k"}"#,
        r#"{"key":"k"}"#,
    ] {
        assert!(import(&log, bad, ImportOptions::new(TS)).is_err(), "{bad}");
    }
    // Whatever has an id and a title is an issue.
    let epic = Issue::from_json(r#"{"_type":"epic","id":"e","title":"E"}"#).unwrap();
    assert!(!epic.is_carried() && epic.id() == "e");
    let wordy = format!(r#"{{"_type":"memory","key":"{}"}}"#, "x".repeat(300));
    assert_eq!(Issue::from_json(&wordy).unwrap().id().len(), 18);
}

#[test]
fn half_a_surrogate_pair_is_replaced_on_request_also_in_an_id_and_a_name() {
    let dir = tempfile::tempdir().unwrap();
    let log = open_issues(dir.path());
    let text =
        r#"{"id":"a\ud800","title":"\udfff\ud83e\udea2","\ud834":["\\ud800","\ud834\u0041"]}"#;
    let options = ImportOptions::new(TS).replace_surrogates(true);
    let imported = import(&log, text, options).unwrap();
    assert_eq!((imported.added, imported.surrogates), (1, 4));
    let issues = Issues::load(dir.path()).unwrap();
    let expected =
        r#"{"id":"a\ufffd","title":"\ufffd\ud83e\udea2","\ufffd":["\\ud800","\ufffd\u0041"]}"#;
    assert_eq!(issues.get("a\u{fffd}").unwrap().as_json(), expected);
}

/// An input that is another one when it is read again.
struct Unsteady {
    now: Cursor<String>,
    next: String,
}

impl Read for Unsteady {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.now.read(buffer)
    }
}

impl BufRead for Unsteady {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.now.fill_buf()
    }

    fn consume(&mut self, amount: usize) {
        self.now.consume(amount);
    }
}

impl Seek for Unsteady {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        if to == SeekFrom::Start(0) {
            self.now = Cursor::new(std::mem::take(&mut self.next));
        }
        self.now.seek(to)
    }
}

#[test]
fn an_input_that_changes_while_it_is_imported_is_an_error_and_nothing_unchecked_is_written() {
    let line = |id: &str, n: u32| format!("{{\"id\":\"{id}\",\"title\":\"T\",\"n\":{n}}}\n");
    let checked = line("a", 1) + &line("b", 1);
    for (next, at) in [
        (line("a", 1) + "garbage\n", 2),
        (line("a", 1), 2),
        (line("a", 2) + &line("b", 1), 1),
        (checked.clone() + &line("c", 1), 3),
        (line("a", 1) + "\n" + &line("b", 1), 2),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let log = open_issues(dir.path());
        let now = Cursor::new(checked.clone());
        let mut input = Unsteady { now, next };
        match log.import(&mut input, ImportOptions::new(TS)) {
            Err(ImportError::Changed { line, .. }) => assert_eq!(line, at),
            other => panic!("{other:?}"),
        }
        assert_eq!(log.log().tail_seq().unwrap(), None);
    }
}

#[test]
fn bad_lines_are_named_and_nothing_is_imported_unless_asked() {
    let dir = tempfile::tempdir().unwrap();
    let log = open_issues(dir.path());
    let too_long = format!(r#"{{"id":"l","title":"{}"}}"#, "x".repeat(5 << 20));
    let good = r#"{"id":"a","title":"A"}"#;
    let text = format!(
        "{good}\n\n[1]\n{{\"id\":\"b\"}}\n<<<<<<< ours\n{good}\n{too_long}\n{{\"id\":\"c\",\"title\":\"C\"}}"
    );
    let refused = import(&log, &text, ImportOptions::new(TS)).unwrap_err();
    assert!(refused.to_string().contains("; line 3: "), "{refused}");
    let ImportError::BadLines { count, first } = refused else {
        panic!("{refused}");
    };
    let numbers: Vec<u64> = first.iter().map(|(line, _)| *line).collect();
    assert_eq!((count, numbers), (5, vec![3, 4, 5, 6, 7]));
    assert!(first[3].1.contains("line 1"), "{first:?}");
    assert_eq!(log.log().tail_seq().unwrap(), None);

    let skipping = ImportOptions::new(TS).skip_bad_lines(true);
    let imported = import(&log, &text, skipping).unwrap();
    assert_eq!((imported.lines, imported.added), (7, 2));
    assert_eq!((imported.bad, imported.bad_lines), (count, first));
    let mut invalid = good.as_bytes().to_vec();
    invalid[20] = 0xff;
    let refused = log.import(&mut Cursor::new(invalid), ImportOptions::new(TS));
    assert!(
        matches!(refused, Err(ImportError::BadLines { first, .. }) if first[0].1.contains("UTF-8"))
    );
}

#[test]
fn existing_issues_are_replaced_kept_or_refused() {
    let dir = tempfile::tempdir().unwrap();
    let log = open_issues(dir.path());
    let line = |id: &str, n: u32| format!("{{\"id\":\"{id}\",\"title\":\"T\",\"n\":{n}}}\n");
    let first = line("a", 1) + &line("b", 1);
    import(&log, &first, ImportOptions::new(TS)).unwrap();
    let second = line("a", 2) + &line("b", 1) + &line("c", 2);
    let refused = import(&log, &second, ImportOptions::new(TS).refuse_existing());
    assert!(
        matches!(refused, Err(ImportError::Exists { line: 1, .. })),
        "{refused:?}"
    );
    let kept = import(&log, &second, ImportOptions::new(TS).keep_existing()).unwrap();
    assert_eq!((kept.added, kept.replaced, kept.unchanged), (1, 0, 2));
    let replaced = import(&log, &second, ImportOptions::new(TS)).unwrap();
    assert_eq!(
        (replaced.added, replaced.replaced, replaced.unchanged),
        (0, 1, 2)
    );
    log.append(&IssueEvent::delete("a", TS)).unwrap();
    let back = import(&log, &second, ImportOptions::new(TS).keep_existing()).unwrap();
    assert_eq!((back.added, back.unchanged), (1, 2));
}

#[test]
fn a_large_import_is_made_of_several_records_and_an_interrupted_one_can_be_repeated() {
    let dir = tempfile::tempdir().unwrap();
    let log = open_issues(dir.path());
    let lines: Vec<String> = (0..3000)
        .map(|n| format!(r#"{{"id":"bd-{n:04}","title":"{}"}}"#, "x".repeat(1000)))
        .collect();
    let text = lines.join("\n");
    let half = lines[..1500].join("\n");
    import(&log, &half, ImportOptions::new(TS)).unwrap();
    let records = log.log().tail_seq().unwrap().unwrap();
    assert!(records >= Seq::new(2));
    let imported = import(&log, &text, ImportOptions::new(TS)).unwrap();
    assert_eq!((imported.added, imported.unchanged), (1500, 1500));
    assert!(imported.last_seq >= Some(records.next().next()));
    assert_eq!(Issues::load(dir.path()).unwrap().len(), 3000);
}

/// Ends the process as a kill does, when it comes to a point for the nth time.
struct DiesAt(Failpoint, AtomicU64);

impl FailpointHook for DiesAt {
    fn reached(&self, point: Failpoint) {
        if point == self.0 && self.1.fetch_sub(1, Ordering::SeqCst) == 1 {
            std::process::abort();
        }
    }
}

#[test]
fn an_import_that_is_killed_leaves_whole_batches_and_repeating_it_completes_it() {
    let lines: Vec<String> = (0..4000)
        .map(|n| format!(r#"{{"id":"bd-{n:04}","title":"{}"}}"#, "x".repeat(1000)))
        .collect();
    let text = lines.join("\n") + "\n";
    if let Some((dir, argument)) = as_child() {
        let (point, record) = argument.split_once(' ').unwrap();
        let point = Failpoint::ALL.iter().find(|at| at.name() == point).unwrap();
        let probe = DiesAt(*point, AtomicU64::new(record.parse().unwrap()));
        let log = IssueLog::open(dir, options().failpoint_hook(Arc::new(probe))).unwrap();
        import(&log, &text, ImportOptions::new(TS)).unwrap();
        return;
    }
    let name = "jsonl::an_import_that_is_killed_leaves_whole_batches_and_repeating_it_completes_it";
    let points = [
        Failpoint::BeforeWrite,
        Failpoint::AfterWrite,
        Failpoint::DurablePublished,
    ];
    for (point, record) in points
        .into_iter()
        .flat_map(|point| [(point, 1), (point, 3)])
    {
        let dir = tempfile::tempdir().unwrap();
        let argument = format!("{point} {record}");
        let ended = child(name, dir.path(), &argument).wait().unwrap();
        assert!(!ended.success(), "it was to die at {argument}");
        let log = open_issues(dir.path());
        let batches: Vec<_> = log.log().records().unwrap().map(Result::unwrap).collect();
        // The next append finds what was written but not synced.
        let durable_seq = if point == Failpoint::DurablePublished {
            record
        } else {
            record - 1
        };
        assert_eq!(batches.len(), durable_seq, "{argument}");
        let ids: Vec<_> = batches
            .into_iter()
            .flat_map(|batch| batch.events)
            .map(|event| event.id)
            .collect();
        let left: Vec<_> = (0..ids.len()).map(|n| format!("bd-{n:04}")).collect();
        assert_eq!(ids, left);
        let imported = import(&log, &text, ImportOptions::new(TS)).unwrap();
        assert!(
            imported.unchanged >= ids.len() as u64,
            "{argument}: {imported:?}"
        );
        assert_eq!(imported.added + imported.unchanged, 4000);
        let mut out = Vec::new();
        write_jsonl(&Issues::load(dir.path()).unwrap(), &mut out).unwrap();
        assert!(out == text.as_bytes(), "{argument}");
    }
}

#[test]
fn a_failed_export_leaves_the_old_file_and_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let target = dir.path().join("issues.jsonl");
    fs::create_dir(&target).unwrap();
    export(&Issues::default(), &target).unwrap_err();
    assert_eq!(names(dir.path()), ["issues.jsonl"]);
    let missing = dir.path().join("missing").join("issues.jsonl");
    export(&Issues::default(), &missing).unwrap_err();
}

#[cfg(unix)]
#[test]
fn an_export_to_a_symbolic_link_replaces_the_file_that_it_leads_to() {
    let dir = tempfile::tempdir().unwrap();
    let elsewhere = dir.path().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    fs::write(elsewhere.join("issues.jsonl"), "old").unwrap();
    let link = dir.path().join("link");
    std::os::unix::fs::symlink("elsewhere/issues.jsonl", &link).unwrap();
    export(&Issues::default(), &link).unwrap();
    assert!(link.is_symlink());
    assert_eq!(fs::read(&link).unwrap(), b"");
    assert_eq!(names(&elsewhere), ["issues.jsonl"]);
}

#[cfg(unix)]
#[test]
fn an_export_to_a_link_that_leads_to_nothing_creates_the_file_there() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("elsewhere")).unwrap();
    let link = dir.path().join("link");
    std::os::unix::fs::symlink("other", &link).unwrap();
    std::os::unix::fs::symlink("elsewhere/issues.jsonl", dir.path().join("other")).unwrap();
    export(&Issues::default(), &link).unwrap();
    assert!(link.is_symlink());
    assert_eq!(names(&dir.path().join("elsewhere")), ["issues.jsonl"]);
    std::os::unix::fs::symlink("loop", dir.path().join("loop")).unwrap();
    export(&Issues::default(), dir.path().join("loop")).unwrap_err();
    assert!(dir.path().join("loop").is_symlink());
}

#[cfg(unix)]
#[test]
fn an_export_to_what_is_no_file_writes_into_it() {
    use std::os::unix::fs::FileTypeExt as _;
    let dir = tempfile::tempdir().unwrap();
    let mut issues = Issues::default();
    issues.apply(
        Seq::new(1),
        vec![IssueEvent::add(Issue::new_at("a", "T", TS), TS)],
    );
    let fifo = dir.path().join("fifo");
    let made = std::process::Command::new("mkfifo")
        .arg(&fifo)
        .status()
        .unwrap();
    assert!(made.success());
    let reader = std::thread::spawn({
        let fifo = fifo.clone();
        move || fs::read_to_string(fifo).unwrap()
    });
    export(&issues, &fifo).unwrap();
    assert!(reader.join().unwrap().starts_with(r#"{"id":"a""#));
    assert!(fifo.metadata().unwrap().file_type().is_fifo());
    let null = dir.path().join("null");
    std::os::unix::fs::symlink("/dev/null", &null).unwrap();
    export(&issues, &null).unwrap();
    assert!(null.is_symlink() && null.metadata().unwrap().file_type().is_char_device());
    let socket = dir.path().join("socket");
    let _socket = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    export(&issues, &socket).unwrap_err();
    assert!(socket.metadata().unwrap().file_type().is_socket());
    assert_eq!(names(dir.path()), ["fifo", "null", "socket"]);
    let merged = strand_core::merge_files(&null, &null, &null).unwrap();
    assert!(merged.text.is_empty() && null.is_symlink());
}

#[cfg(target_os = "linux")]
#[test]
fn an_export_to_an_open_file_goes_into_that_file() {
    use std::os::fd::AsRawFd as _;
    let dir = tempfile::tempdir().unwrap();
    let open = fs::File::create(dir.path().join("open")).unwrap();
    fs::write(dir.path().join("open"), "before\n").unwrap();
    let mut issues = Issues::default();
    issues.apply(
        Seq::new(1),
        vec![IssueEvent::add(Issue::new_at("a", "T", TS), TS)],
    );
    export(&issues, format!("/proc/self/fd/{}", open.as_raw_fd())).unwrap();
    let text = fs::read_to_string(dir.path().join("open")).unwrap();
    assert!(text.starts_with("before\n{\"id\":\"a\""), "{text}");
    assert_eq!(open.metadata().unwrap().len(), text.len() as u64);
}

#[cfg(unix)]
#[test]
fn an_export_keeps_the_permissions_of_the_file() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let target = dir.path().join("issues.jsonl");
    fs::write(&target, "").unwrap();
    fs::set_permissions(&target, fs::Permissions::from_mode(0o640)).unwrap();
    export(&Issues::default(), &target).unwrap();
    assert_eq!(
        target.metadata().unwrap().permissions().mode() & 0o777,
        0o640
    );
}

#[test]
fn a_patch_after_an_import_changes_only_what_it_names() {
    let dir = tempfile::tempdir().unwrap();
    let log = open_issues(dir.path());
    let line = r#"{ "id":"a", "n":1.10,"title":"T","updated_at":"x","m":1e400}"#;
    import(&log, line, ImportOptions::new(TS)).unwrap();
    let patch = Patch::new().unset("updated_at").set("n", &2).unwrap();
    log.patch("a", patch).unwrap();
    let store = Issues::load(dir.path()).unwrap();
    assert_eq!(
        store.get("a").unwrap().as_json(),
        r#"{"id":"a","n":2,"title":"T","m":1e400}"#
    );
}
