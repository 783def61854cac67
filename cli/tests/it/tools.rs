//! What other programs make of a store's files: `jq`, `grep`, `tail` and Python's `json`.

use std::{
    io::Write as _,
    process::{Command, Stdio},
};
#[cfg(unix)]
use std::{
    io::{BufRead as _, BufReader},
    path::Path,
    time::Duration,
};

use crate::support::{Done, Store, fed, run, spawn};

/// Whether the program runs here. Says so loudly if not.
fn is_here(program: &str) -> bool {
    let done = Command::new(program).arg("--version").output();
    let is_here = done.is_ok_and(|output| output.status.success());
    if !is_here {
        eprintln!("SKIPPED: this test needs {program}");
    }
    is_here
}

/// Runs a line of shell in a directory, and returns what it prints.
#[cfg(unix)]
fn sh(dir: &Path, line: &str) -> String {
    let done = run(Command::new("sh").args(["-c", line]).current_dir(dir));
    assert_eq!(done.code, 0, "{line}: {}", done.err);
    done.out
}

/// As README says: `jq` and `grep` read a log that is being written, `strand follow` goes on with
/// it, and `tail -f` does not.
#[cfg(unix)]
#[test]
fn jq_grep_and_follow_read_a_live_log_and_tail_does_not() {
    if !["jq", "grep", "tail"].into_iter().all(is_here) {
        return;
    }
    let store = Store::of(&[("a", "")]);
    let follow = spawn(&mut store.command("follow", &["--from", "1", "--limit", "9"]));
    let mut tail = Command::new("tail");
    tail.args(["-n", "+1", "-f"]).arg(store.first_segment());
    let mut tail = spawn(tail.stdin(Stdio::null()));
    let mut tailed = BufReader::new(tail.stdout.take().unwrap());
    let mut first = String::new();
    tailed.read_line(&mut first).unwrap();
    assert!(first.contains(r#""seq":1,"#), "{first}");

    // One process goes on writing.
    let mut writer = spawn(store.command("append", &["-"]).stdin(Stdio::piped()));
    let mut events = writer.stdin.take().unwrap();
    let mut answers = BufReader::new(writer.stdout.take().unwrap()).lines();
    for seq in 2..=9_u64 {
        let event = serde_json::json!({"op": "patch", "id": "a", "patch": {"set": {"x": seq}}});
        writeln!(events, "{event}").unwrap();
        let answer = answers.next().unwrap().unwrap();
        assert_eq!(answer, seq.to_string());
        // What was acknowledged is there, and every line is whole.
        let read = sh(store.dir(), "jq -c '[.seq, .op, .id]' log-*.jsonl");
        assert_eq!(read.lines().count() as u64, seq);
        let last = format!(r#"[{seq},"patch","a"]"#);
        assert_eq!(read.lines().last(), Some(last.as_str()));
        let found = sh(store.dir(), &format!(r#"grep '"x":{seq}' log-*.jsonl"#));
        assert_eq!(found.lines().count(), 1, "{found}");
        assert_eq!(sh(store.dir(), "grep -c . log-*.jsonl"), format!("{seq}\n"));
    }
    let followed = Done::of(follow.wait_with_output().unwrap());
    assert_eq!(followed.out.lines().count(), 9);
    assert_eq!(followed.out, sh(store.dir(), "grep -h . log-*.jsonl"));

    // `tail` looks about once a second where nothing wakes it.
    std::thread::sleep(Duration::from_millis(1500));
    tail.kill().unwrap();
    tail.wait().unwrap();
    let more: Vec<String> = tailed.lines().map(Result::unwrap).collect();
    assert!(more.iter().all(String::is_empty), "{more:?}");
    drop(events);
    assert!(writer.wait().unwrap().success());
}

/// JSON texts of the kinds that nst/JSONTestSuite has, which are to be stored.
const STORED: &[&str] = &[
    r#"{"a":1,"a":2}"#,
    // Numbers.
    "0",
    "-0",
    "-0.0",
    "1E22",
    "1e-2",
    "1e+2",
    "123.456789",
    "1.10",
    "-237462374673276894279832",
    "100000000000000000000",
    "0.4e00669999999999999999999999999999999999",
    "1e400",
    "-1e+9999",
    "1e9999",
    "1e-9999",
    "1.5e+9999",
    "123123e100000",
    "9007199254740993",
    // Strings.
    r#""""#,
    r#""\u0000""#,
    r#""\u0060\u012a\u12AB""#,
    r#""\"\\\/\b\f\n\r\t""#,
    r#""\\u0000""#,
    r#""\uD801\udc37""#,
    r#""\ud83d\ude39\ud83d\udc8d""#,
    r#""\uFFFF""#,
    r#""\uFDD0""#,
    r#""\u200b\u2064""#,
    r#""\uDBFF\uDFFE""#,
    r#""\u2028\u2029""#,
    "\"\u{2028}\u{7f}\"",
    "\"€𝄞\u{feff}\"",
    r#""new\u00A0line""#,
    r#""asd ""#,
    r#""\u0022""#,
    "\"\u{fffd}\"",
    // Structures.
    "[]",
    "{}",
    "[[]   ]",
    "[ 4]",
    "[1,null,null,null,2]",
    r#"[""]"#,
    "[null, 1, \"1\", {}]",
    r#"{"":0}"#,
    r#"{"foo\u0000bar": 42}"#,
    r#"{ "min": -1.0e+28, "max": 1.0e+28 }"#,
    "true",
    "false",
    "null",
    r#"{"a":[{"b":{"c":[]}}]}"#,
    "[1\t]",
    r#"{"title":"\u041f\u043e\u043b"}"#,
];

/// Texts of those kinds that are to be refused.
const REFUSED: &[&str] = &[
    // Numbers.
    "+1",
    "-",
    "-01",
    "012",
    "1.",
    ".5",
    "2.e3",
    "1e",
    "1e+",
    "1eE2",
    "0x1",
    "0e",
    "1_000",
    "1 000",
    "NaN",
    "nan",
    "Infinity",
    "-Infinity",
    "Inf",
    "-1x",
    "1.2a-3",
    "１",
    "--2.",
    "0.3e",
    // Strings.
    "'a'",
    "\"a",
    "a\"",
    r#""\x00""#,
    r#""\a""#,
    r#""\u00A""#,
    r#""\uqqqq""#,
    r#""\U0041""#,
    "\"\t\"",
    "\"\u{1}\"",
    "\"a\u{0}a\"",
    r#""\""#,
    r#""\😀""#,
    "“a”",
    "`a`",
    // Halves of surrogate pairs, which UTF-8 can't say.
    r#""\ud800""#,
    r#""\uDd1ea""#,
    r#""\ud800\ud800x""#,
    r#""\udc00\ud800""#,
    r#""\uD834\u0041""#,
    r#""\ud83d""#,
    r#"{"\ud800":1}"#,
    r#"["\uDADA"]"#,
    // Structures.
    "",
    " ",
    "[",
    "]",
    "{",
    "}",
    "[1",
    "[1,",
    "[1,]",
    "[,1]",
    "[1,,2]",
    "[1 2]",
    "[\"\":1]",
    "[*]",
    r#"{"a""#,
    r#"{"a":}"#,
    r#"{"a":1,}"#,
    r#"{"a":1,,"b":2}"#,
    "{a:1}",
    "{1:1}",
    "{'a':0}",
    r#"{"a" "b"}"#,
    r#"{"a":1 "b":2}"#,
    r#"{"a"::1}"#,
    "{null:1}",
    "[}",
    "[1}",
    "{]",
    "[\u{c}1]",
    "[\u{a0}1]",
    "[\u{feff}]",
    "1 // comment",
    "/* c */ 1",
    "# c",
    "nul",
    "tru",
    "True",
    "TRUE",
    "undefined",
    "<.>",
    "1]",
    "[][]",
    "1 1",
    "{}}",
    "\\u0031",
    "\u{feff}1",
];

/// Texts, and whether they are to be stored.
fn cases() -> Vec<(Vec<u8>, bool)> {
    let nested = |levels: usize, open: &str, close: &str| {
        (open.repeat(levels) + "1" + &close.repeat(levels)).into_bytes()
    };
    let mut cases: Vec<(Vec<u8>, bool)> = Vec::new();
    for (texts, is_good) in [(STORED, true), (REFUSED, false)] {
        cases.extend(texts.iter().map(|text| (text.as_bytes().to_vec(), is_good)));
    }
    for (open, close) in [("[", "]"), (r#"{"a":"#, "}")] {
        cases.push((nested(90, open, close), true));
        cases.push((nested(120, open, close), false));
        cases.push((nested(5_000, open, close), false));
    }
    // Not UTF-8: a lone byte, an overlong form, half a surrogate pair, UTF-16, beyond Unicode.
    for bytes in [
        &b"\"\xff\""[..],
        b"\"\xc0\xaf\"",
        b"\"\xed\xa0\x80\"",
        b"\"\x00a\x00",
        b"\xff\xfe\"\x00",
        b"\"\xf4\xbf\xbf\xbf\"",
        b"\"\xe0\xff\"",
        b"{\"\xb9\":1}",
    ] {
        cases.push((bytes.to_vec(), false));
    }
    cases
}

/// The four ways by which a JSON value gets into a store.
const WAYS: [&str; 4] = ["import", "append", "batch", "update"];

/// Stores an issue with the id `id` whose member `x` is this text, and returns how that ended.
fn store_value(store: &Store, way: &str, id: &str, text: &[u8]) -> Done {
    let around =
        |before: &str, after: &str| [before.as_bytes(), text, after.as_bytes(), b"\n"].concat();
    let data = format!(r#"{{"id":"{id}","title":"T","status":"open","x":"#);
    let line = match way {
        "import" => around(&data, "}"),
        "append" | "batch" => around(&format!(r#"{{"op":"add","id":"{id}","data":{data}"#), "}}"),
        _ => {
            store.ok("create", &["T", "--id", id]);
            return set(store, id, text);
        }
    };
    let mut command = store.command(way, &["-"]);
    let mut child = spawn(command.stdin(Stdio::piped()));
    // The command may end before it has read everything.
    child.stdin.take().unwrap().write_all(&line).ok();
    Done::of(child.wait_with_output().unwrap())
}

#[cfg(unix)]
fn set(store: &Store, id: &str, text: &[u8]) -> Done {
    use std::{ffi::OsStr, os::unix::ffi::OsStrExt as _};

    let argument = [b"x=", text].concat();
    let mut command = store.command("update", &[id, "--set"]);
    match run(command.arg(OsStr::from_bytes(&argument))) {
        // Wrong arguments are told from wrong events.
        done if done.code == 2 => Done { code: 9, ..done },
        done => done,
    }
}

#[cfg(not(unix))]
fn set(store: &Store, id: &str, text: &[u8]) -> Done {
    let text = String::from_utf8_lossy(text);
    match store.run("update", &[id, "--set", &format!("x={text}")]) {
        done if done.code == 2 => Done { code: 9, ..done },
        done => done,
    }
}

/// Reads lines of JSON as strictly as RFC 8259, and prints the ids and the members `x` again, in
/// ASCII. Fails for what UTF-8 can't say.
const PYTHON: &str = r#"
import json, sys
def no(name): raise ValueError(name)
for line in sys.stdin.buffer:
    line = line.decode("utf-8", "strict").strip("\n")
    if not line: continue
    value = json.loads(line, parse_constant=no)
    json.dumps(value, ensure_ascii=False).encode("utf-8", "strict")
    if "seq" in value or "x" in value: print(json.dumps([value.get("id"), value.get("x")]))
"#;

#[test]
fn what_one_way_takes_all_ways_take_and_jq_and_python_read_it() {
    let store = Store::new();
    let mut given = Vec::new();
    for (number, (text, is_good)) in cases().into_iter().enumerate() {
        let is_argument = !text.contains(&0) && (cfg!(unix) || text.is_ascii());
        for way in WAYS {
            if way == "update" && !is_argument {
                continue;
            }
            let id = format!("{way}-{number}");
            let done = store_value(&store, way, &id, &text);
            let expected = if is_good { 0 } else { 9 };
            let shown = String::from_utf8_lossy(&text);
            let shown = shown.get(..60).unwrap_or(&shown);
            assert_eq!(done.code, expected, "{way} {shown:?}: {}", done.err);
            if is_good {
                given.push((id, String::from_utf8(text.clone()).unwrap()));
            }
        }
    }

    // Each value is exported to the byte.
    let export = store.ok("export", &[]);
    for (id, text) in &given {
        let head = format!(r#"{{"id":"{id}","#);
        let line = export.lines().find(|line| line.starts_with(&head)).unwrap();
        let member = format!(r#""x":{}"#, text.trim());
        assert!(line.contains(&member), "{line}: {member}");
    }

    let log = std::fs::read_to_string(store.first_segment()).unwrap();
    if is_here("jq") {
        let done = fed(Command::new("jq").args(["-c", ".seq"]), &log);
        assert_eq!(done.code, 0, "{}", done.err);
        let seqs: Vec<usize> = done.out.lines().map(|seq| seq.parse().unwrap()).collect();
        assert!(seqs.iter().copied().eq(1..=seqs.len()));
        let done = fed(
            Command::new("jq").args(["-r", "select(has(\"x\")) | .id"]),
            &export,
        );
        assert_eq!(
            (done.code, done.out.lines().count()),
            (0, given.len()),
            "{}",
            done.err
        );
    }
    let python = ["python3", "python"]
        .into_iter()
        .find(|python| is_here(python));
    if let Some(python) = python {
        let read = |lines: &str| {
            let done = fed(Command::new(python).args(["-c", PYTHON]), lines);
            assert_eq!(done.code, 0, "{}", done.err);
            done.out
        };
        let ids = read(&log).lines().count();
        assert_eq!(ids, log.lines().filter(|line| !line.is_empty()).count());
        // Python makes the same of what was given and of what is exported.
        given.sort();
        let lines = given
            .iter()
            .map(|(id, text)| format!("{{\"id\":\"{id}\",\"x\":{text}}}\n"));
        assert_eq!(read(&lines.collect::<String>()), read(&export));
    }
}
