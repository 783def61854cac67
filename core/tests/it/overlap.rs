//! Two segments that claim the same records: a repair keeps every record that is whole, and says
//! which ones it had to set aside.

use std::{fs, ops::RangeInclusive, path::Path, sync::Arc};

use strand_core::{
    Durability, IssueEvent, Log,
    check::{Advice, check},
    repair::repair,
};

use crate::{
    check::copy,
    repair::{Lines, assert_is_well, lines, lost, repaired},
    support::{Mortal, event, first_segment, line_ends, names, options},
};

/// A store of nine records in one segment, whose issues are named after `letter` from record 5 on.
fn store(dir: &Path, durability: Durability, letter: char) -> Lines {
    let log: Log<IssueEvent> = Log::open(dir, options().durability(durability)).unwrap();
    for number in 1..=9 {
        let letter = if number < 5 { 'a' } else { letter };
        log.append(&event(&format!("bd-{letter}{number}"))).unwrap();
    }
    drop(log);
    stored(dir)
}

/// The records in the segments, acknowledged or not. Each is there once.
fn stored(dir: &Path) -> Lines {
    let mut lines = Lines::new();
    for name in names(dir).iter().filter(|name| name.starts_with("log-")) {
        let text = fs::read(dir.join(name)).unwrap();
        for line in text
            .split(|byte| *byte == b'\n')
            .filter(|line| line.starts_with(b"{"))
        {
            let record: serde_json::Value = serde_json::from_slice(line).unwrap();
            let known = lines.insert(record["seq"].as_u64().unwrap(), line.to_vec());
            assert_eq!(known, None, "{record}");
        }
    }
    lines
}

fn text(lines: &Lines, records: RangeInclusive<u64>) -> Vec<u8> {
    let lines = lines.range(records).map(|(_, line)| line);
    lines
        .flat_map(|line| [line.as_slice(), b"\n"].concat())
        .collect()
}

fn write(dir: &Path, first: u64, bytes: &[u8]) {
    fs::write(dir.join(format!("log-{first:020}.jsonl")), bytes).unwrap();
}

/// Runs a test with records that say they were durable and with some that do not, with the hints
/// and without.
fn with_each(test: impl Fn(&Path, &Lines, Durability)) {
    for durability in [Durability::Synced, Durability::Buffered] {
        let dir = tempfile::tempdir().unwrap();
        let before = store(dir.path(), durability, 'a');
        for hints in [true, false] {
            let case = tempfile::tempdir().unwrap();
            copy(dir.path(), case.path());
            if hints {
                fs::copy(dir.path().join("shm"), case.path().join("shm")).unwrap();
            }
            test(case.path(), &before, durability);
        }
    }
}

#[test]
fn an_empty_later_segment_costs_no_record() {
    for firsts in [&[5][..], &[2], &[9], &[3, 5], &[4, 7, 9]] {
        with_each(|dir, before, durability| {
            for first in firsts {
                write(dir, *first, b"");
            }
            assert_eq!(check(dir).unwrap().advice, Advice::Repair);
            let report = repaired(dir, before);
            assert_eq!(
                lost(&report),
                [0; 0],
                "{firsts:?}, {durability:?}: {report}"
            );
            assert!(report.set_aside.is_empty(), "{firsts:?}: {report}");
            assert!(report.to_string().contains("no record is lost"), "{report}");
            let now = stored(dir);
            assert!(before.iter().all(|(seq, line)| now.get(seq) == Some(line)));
        });
    }
}

#[test]
fn a_later_segment_with_the_same_records_costs_none_of_those_that_follow() {
    // It has some of them, all of them, and some that follow; none of the first; one twice.
    for own in [
        &[5..=6][..],
        &[5..=9],
        &[5..=5, 7..=8],
        &[7..=8],
        &[5..=6, 6..=6],
    ] {
        with_each(|dir, before, durability| {
            let bytes: Vec<u8> = own
                .iter()
                .flat_map(|own| text(before, own.clone()))
                .collect();
            write(dir, 5, &bytes);
            let report = repaired(dir, before);
            assert_eq!(lost(&report), [0; 0], "{own:?}, {durability:?}: {report}");
            assert!(report.set_aside.is_empty(), "{own:?}: {report}");
            let now = stored(dir);
            assert!(before.iter().all(|(seq, line)| now.get(seq) == Some(line)));
        });
    }
}

#[test]
fn damage_before_the_overlap_costs_its_record_alone() {
    with_each(|dir, before, durability| {
        let bytes = fs::read(first_segment(dir)).unwrap();
        for damaged in [2, 4, 5, 7] {
            // Behind the last record of a complete segment there may be anything.
            if damaged == 5 && durability == Durability::Buffered {
                continue;
            }
            let case = tempfile::tempdir().unwrap();
            copy(dir, case.path());
            let mut bytes = bytes.clone();
            let at = line_ends(&bytes)[damaged - 1] + 60;
            bytes[at] ^= 1;
            fs::write(first_segment(case.path()), bytes).unwrap();
            write(case.path(), 5, b"");
            let report = repaired(case.path(), before);
            let now = lines(case.path());
            let gone: Vec<u64> = before
                .iter()
                .filter(|(seq, line)| now.get(seq) != Some(line))
                .map(|(seq, _)| *seq)
                .collect();
            // Buffered records do not say what was before them.
            let said = [lost(&report), set_aside(&report.set_aside)].concat();
            let mut unsaid = gone.iter().filter(|seq| !said.contains(seq));
            if durability == Durability::Synced {
                assert_eq!(gone, [damaged as u64], "{report}");
            }
            assert!(
                unsaid.all(|seq| *seq >= damaged as u64 && durability == Durability::Buffered),
                "{gone:?}: {report}"
            );
        }
    });
}

fn set_aside(ranges: &[RangeInclusive<u64>]) -> Vec<u64> {
    ranges.iter().cloned().flatten().collect()
}

#[test]
fn records_that_contradict_the_later_segment_are_set_aside_and_named() {
    for durability in [Durability::Synced, Durability::Buffered] {
        let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let before = store(dir.path(), durability, 'a');
        let others = store(other.path(), durability, 'b');
        let case = tempfile::tempdir().unwrap();
        copy(dir.path(), case.path());
        write(case.path(), 5, &text(&others, 5..=7));
        let report = repair(case.path(), &options()).unwrap();
        let now = stored(case.path());
        assert!((5..=7).all(|seq| now[&seq] == others[&seq]), "{report}");
        assert_eq!(lost(&report), [0; 0], "{report}");
        // What follows them is of their history, unless the numbers are known to be taken.
        let expected = match durability {
            Durability::Synced => 5..=7,
            Durability::Buffered => 5..=9,
        };
        assert_eq!(
            report.set_aside,
            std::slice::from_ref(&expected),
            "{report}"
        );
        let kept = (*expected.end() + 1..=9).all(|seq| now[&seq] == before[&seq]);
        assert!(
            kept && now.len() as u64
                == if durability == Durability::Synced {
                    9
                } else {
                    7
                }
        );
        let text = report.to_string();
        let (from, through) = (expected.start(), expected.end());
        let said = format!("({}): {from} to {through}\n", through - from + 1);
        assert!(
            text.contains("whole records that only quarantine has now"),
            "{text}"
        );
        assert!(
            text.contains(&said) && !text.contains("no record is lost"),
            "{text}"
        );
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["set_aside"][0]["from_seq"], 5, "{json}");
        assert_is_well(case.path());
        if durability == Durability::Buffered {
            continue;
        }
        // A later repair does not take them for the records of these numbers, for lack of a copy.
        let kept = case
            .path()
            .join("quarantine/log-00000000000000000005.jsonl-0.damaged");
        fs::remove_file(kept).unwrap();
        let path = case.path().join("log-00000000000000000005.jsonl");
        let mut bytes = fs::read(&path).unwrap();
        let at = line_ends(&bytes)[1] + 60;
        bytes[at] ^= 1;
        fs::write(&path, bytes).unwrap();
        let again = repair(case.path(), &options()).unwrap();
        assert_eq!(lost(&again), [6], "{again}");
    }
}

#[test]
fn a_repair_of_an_overlap_that_dies_at_any_call_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let before = store(dir.path(), Durability::Buffered, 'a');
    write(dir.path(), 3, b"");
    write(dir.path(), 6, b"");
    let mut deaths = 0;
    for calls in 0.. {
        let case = tempfile::tempdir().unwrap();
        copy(dir.path(), case.path());
        let life = Mortal::of_changes(calls);
        let died = repair(case.path(), &options().storage(Arc::new(life)));
        repair(case.path(), &options()).unwrap();
        assert!(stored(case.path()) == before, "after {calls} calls");
        assert_is_well(case.path());
        if died.is_ok() {
            break;
        }
        deaths += 1;
    }
    assert!(deaths > 20, "{deaths}");
}
