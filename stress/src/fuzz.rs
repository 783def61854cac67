//! Properties that hold for any bytes: the bodies of the fuzz targets in `fuzz/`. A test on stable
//! Rust calls them, too.
//!
//! Each function panics where its property does not hold, which must be for no input.

#![expect(
    clippy::missing_panics_doc,
    reason = "to panic is how they say what does not hold"
)]

use std::io::Cursor;
use std::path::Path;
use std::sync::Arc;

use strand_core::{
    Error, ImportOptions, Issue, IssueEvent, IssueLog, Issues, LiveIssues, Options, Reader,
    Timestamp, merge,
    testing::{Storage, Tail, check_in, classify},
    write_jsonl,
};

use crate::evidence::crc32c::crc32c;
use crate::sim::disk::VirtualDisk;
use crate::sim::image::Image;
use crate::sim::machine::{Machine, Process};

/// A target: its name, and what it does with bytes.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: &[Target] = &[
    ("classify", classify_bytes),
    ("recovery", recover),
    ("manifest", read_manifest),
    ("snapshot", read_snapshot),
    ("import", import),
    ("merge", merge_three),
];

const STORE_ID: &str = "2f822990455cb4ba6857b4ced82fb6c2";
const SEGMENT: &str = "log-00000000000000000001.jsonl";

/// The part of a segment that is classified as good is good by itself, and damage is within the
/// bytes.
pub fn classify_bytes(bytes: &[u8]) {
    let (durable_seq, bytes) = match bytes.split_first() {
        Some((first, rest)) => (u64::from(*first % 4), rest),
        None => (0, bytes),
    };
    match classify(bytes, 1, durable_seq) {
        Tail::Clean => assert_eq!(classify(bytes, 1, 0), Tail::Clean),
        Tail::Torn { valid_len } => {
            let good = usize::try_from(valid_len)
                .ok()
                .and_then(|len| bytes.get(..len));
            let good = good.expect("the good part is within the bytes");
            assert_eq!(classify(good, 1, durable_seq), Tail::Clean);
            assert!(good.len() < bytes.len(), "something was torn");
        }
        Tail::Corrupt { offset, .. } => assert!(offset <= bytes.len() as u64),
    }
}

/// A store whose last segment has these bytes opens and goes on, or is refused and left as it is.
pub fn recover(bytes: &[u8]) {
    let files = [("MANIFEST", manifest("null", 1)), (SEGMENT, bytes.to_vec())];
    let before = image(&files);
    let mut machine = machine(&before);
    let opened = machine.alone(|process| {
        let log = match IssueLog::open("", options(process)) {
            Ok(log) => log,
            Err(Error::Corrupt { .. }) => return false,
            Err(error) => panic!("{error}"),
        };
        let records = log.log().records().expect("it was opened").count();
        let last_seq = log
            .log()
            .tail_seq()
            .expect("it is open")
            .unwrap_or_default();
        assert_eq!(last_seq, records as u64);
        let event = IssueEvent::add(
            Issue::new_at("after", "After all", Timestamp::from_ms(0)),
            Timestamp::from_ms(0),
        );
        assert_eq!(log.append(&event).expect("it goes on").seq, last_seq.next());
        drop(log);
        let again = IssueLog::open("", options(process)).expect("it opens again");
        assert_eq!(
            (
                again.log().recovery().adopted,
                again.log().recovery().cut_bytes
            ),
            (0, 0)
        );
        assert_eq!(
            again.log().tail_seq().expect("it is open"),
            Some(last_seq.next())
        );
        true
    });
    if !opened {
        assert_eq!(
            machine.disk().image().files.get(SEGMENT),
            before.files.get(SEGMENT)
        );
    }
}

/// With any manifest, the store is read, or an error says why not; `check` always has an answer.
pub fn read_manifest(bytes: &[u8]) {
    let mut machine = machine(&image(&[
        ("MANIFEST", bytes.to_vec()),
        (SEGMENT, Vec::new()),
    ]));
    machine.alone(look);
}

/// A snapshot with any content and a good checksum is refused, or is read, and a compaction of it
/// leads to the same state.
pub fn read_snapshot(bytes: &[u8]) {
    let (len, crc) = (bytes.len(), crc32c(bytes));
    let mark = format!(r#"{{"seq":1,"bytes":{len},"crc":{crc}}}"#);
    let mut machine = machine(&image(&[
        ("MANIFEST", manifest(&mark, 2)),
        ("snapshot-00000000000000000001.jsonl", bytes.to_vec()),
        ("log-00000000000000000002.jsonl", Vec::new()),
    ]));
    machine.alone(|process| {
        look(process);
        let Ok(before) = state(process) else { return };
        let log = IssueLog::open("", options(process)).expect("what can be read can be opened");
        let event = IssueEvent::delete("nobody", Timestamp::from_ms(0));
        log.append(&event).expect("and appended to");
        log.compact().expect("and compacted");
        assert_eq!(
            text(&state(process).expect("and read again")),
            text(&before)
        );
    });
}

/// An export of an import is imported and exported the same.
pub fn import(bytes: &[u8]) {
    let Some(first) = imported(bytes) else { return };
    assert_eq!(imported(first.as_bytes()).as_deref(), Some(first.as_str()));
}

/// A merge of equal sides is that side, and turning the sides around changes nothing but the sides.
pub fn merge_three(bytes: &[u8]) {
    let mut parts = bytes.splitn(3, |byte| *byte == 0xFF);
    let [base, ours, theirs] = [(); 3].map(|()| parts.next().unwrap_or_default());
    if let Ok(same) = merge(base, ours, ours) {
        assert!(same.conflicts.is_empty(), "{:?}", same.conflicts);
        let again = merge(
            same.text.as_bytes(),
            same.text.as_bytes(),
            same.text.as_bytes(),
        );
        assert_eq!(again.expect("it was merged").text, same.text);
    }
    match (merge(base, ours, theirs), merge(base, theirs, ours)) {
        (Ok(one), Ok(other)) => {
            assert_eq!(one.conflicts.len(), other.conflicts.len());
        }
        (Err(_), Err(_)) => {}
        (one, other) => panic!("only one of the two fails: {one:?}, {other:?}"),
    }
}

/// Reads a store in each way that there is.
fn look(process: &Arc<Process>) {
    let storage = || Arc::clone(process) as Arc<dyn Storage>;
    let dir = Path::new("");
    if let Ok(reader) = Reader::<IssueEvent>::open_in(&storage(), dir)
        && let Ok(records) = reader.records()
    {
        assert!(records.count() < 1_000_000);
    }
    drop(LiveIssues::open_in(&storage(), dir));
    let checkup = check_in(&storage(), dir).expect("the check has an answer");
    assert!(!checkup.to_string().is_empty());
}

fn state(process: &Arc<Process>) -> Result<Issues, Error> {
    let storage = Arc::clone(process) as Arc<dyn Storage>;
    LiveIssues::open_in(&storage, Path::new("")).map(LiveIssues::into_state)
}

fn text(store: &Issues) -> String {
    let mut text = Vec::new();
    write_jsonl(store, &mut text).expect("memory takes it");
    String::from_utf8(text).expect("JSON is UTF-8")
}

/// The export of a new store after this import; `None` where it is refused.
fn imported(bytes: &[u8]) -> Option<String> {
    machine(&Image::default()).alone(|process| {
        let log = IssueLog::open("", options(process)).expect("a new store opens");
        log.import(
            &mut Cursor::new(bytes),
            ImportOptions::new(Timestamp::from_ms(0)),
        )
        .ok()?;
        Some(text(
            &state(process).expect("what was imported can be read"),
        ))
    })
}

fn options(process: &Arc<Process>) -> Options {
    Options::default()
        .storage(Arc::clone(process) as Arc<dyn Storage>)
        .preallocate_bytes(0)
}

fn machine(image: &Image) -> Machine {
    Machine::start(VirtualDisk::from_image(image), 0)
}

fn image(files: &[(&str, Vec<u8>)]) -> Image {
    Image {
        files: files
            .iter()
            .map(|(name, bytes)| (Arc::from(*name), Arc::new(bytes.clone())))
            .collect(),
        ..Image::default()
    }
}

fn manifest(snapshot: &str, first_seq: u64) -> Vec<u8> {
    let members = format!(
        r#""format":2,"store":"{STORE_ID}","first_seq":{first_seq},"snapshot":{snapshot}}}"#
    );
    let crc = crc32c(members.as_bytes());
    format!("{{\"crc\":\"{crc:08x}\",{members}\n").into_bytes()
}
