//! Every truncation and every changed byte of a log, classified exactly.

use strand_core::{
    CorruptReason,
    testing::{Tail, classify},
};

use crate::support::{line_ends, store_of};

const RECORDS: u64 = 6;

fn log_bytes() -> Vec<u8> {
    store_of(tempfile::tempdir().unwrap().path(), RECORDS)
}

/// The last boundary between lines at or before `at`.
fn boundary(ends: &[usize], at: usize) -> usize {
    *ends.iter().rev().find(|end| **end <= at).unwrap()
}

#[test]
fn a_log_cut_at_every_byte_is_clean_at_boundaries_and_torn_between() {
    let bytes = log_bytes();
    let ends = line_ends(&bytes);
    for cut in 0..=bytes.len() {
        let start = boundary(&ends, cut);
        let whole = ends.iter().filter(|end| **end <= cut).count() as u64 - 1;
        let expected = if start == cut {
            Tail::Clean
        } else {
            Tail::Torn {
                valid_len: start as u64,
            }
        };
        assert_eq!(classify(&bytes[..cut], 1, 0), expected, "cut at {cut}");
        // The same with the knowledge that more was acknowledged.
        for durable_seq in whole + 1..=RECORDS {
            match classify(&bytes[..cut], 1, durable_seq) {
                Tail::Corrupt { offset, .. } => assert_eq!(offset, start as u64, "cut at {cut}"),
                tail => panic!("cut at {cut}, record {durable_seq} acknowledged: {tail:?}"),
            }
        }
    }
}

#[test]
fn every_changed_byte_is_found_where_it_is() {
    let bytes = log_bytes();
    let ends = line_ends(&bytes);
    let last_start = ends[ends.len() - 2];
    for at in 0..bytes.len() {
        for change in [0x01, 0x20, 0x80, 0xff, bytes[at], bytes[at] ^ b'\n'] {
            let mut damaged = bytes.clone();
            damaged[at] ^= change;
            if damaged == bytes {
                continue;
            }
            let start = boundary(&ends, at);
            let tail = classify(&damaged, 1, 0);
            if start < last_start {
                // A later record proves that this one was durable.
                assert!(
                    matches!(tail, Tail::Corrupt { offset, .. } if offset == start as u64),
                    "byte {at} changed by {change:#x}: {tail:?}"
                );
            } else {
                // Only the hints can prove that the last record was durable …
                assert_eq!(
                    tail,
                    Tail::Torn {
                        valid_len: start as u64
                    },
                    "byte {at} changed by {change:#x}"
                );
                // … and when they do, it is corruption too.
                let tail = classify(&damaged, 1, RECORDS);
                assert!(
                    matches!(tail, Tail::Corrupt { offset, .. } if offset == start as u64),
                    "byte {at}: {tail:?}"
                );
            }
        }
    }
}

#[test]
fn newlines_after_the_last_record_are_preallocated_space() {
    let mut bytes = log_bytes();
    bytes.extend([b'\n'; 5000]);
    assert_eq!(classify(&bytes, 1, RECORDS), Tail::Clean);
}

#[test]
fn a_lost_write_before_a_kept_one_is_torn_as_long_as_neither_was_durable() {
    // Two records written without a sync between them; the disk kept only the second.
    let dir = tempfile::tempdir().unwrap();
    let options = crate::support::options().durability(strand_core::Durability::Buffered);
    let log = strand_core::Log::<strand_core::IssueEvent>::open(dir.path(), options).unwrap();
    for number in 1..=3 {
        log.append(&crate::support::event(&format!("bd-{number}")))
            .unwrap();
    }
    let mut bytes = std::fs::read(crate::support::first_segment(dir.path())).unwrap();
    let ends = line_ends(&bytes);
    bytes[ends[1]..ends[2]].fill(0);
    assert_eq!(
        classify(&bytes, 1, 0),
        Tail::Torn {
            valid_len: ends[1] as u64
        }
    );
    assert_eq!(
        classify(&bytes, 1, 1),
        Tail::Torn {
            valid_len: ends[1] as u64
        }
    );
    let corrupt = Tail::Corrupt {
        offset: ends[1] as u64,
        reason: CorruptReason::Unterminated,
    };
    // The zeros swallowed the newline, so the bad line reaches into the next: no record begins
    // there.
    assert_eq!(
        classify(&bytes, 1, 2),
        Tail::Corrupt {
            offset: ends[1] as u64,
            reason: CorruptReason::NotARecord
        }
    );
    assert_ne!(classify(&bytes, 1, 2), corrupt);
}

#[test]
fn records_out_of_order_or_twice_are_bad() {
    let bytes = log_bytes();
    let ends = line_ends(&bytes);
    let line = |number: usize| &bytes[ends[number - 1]..ends[number]];
    let twice = [line(1), line(1)].concat();
    assert_eq!(
        classify(&twice, 1, 0),
        Tail::Torn {
            valid_len: ends[1] as u64
        }
    );
    let gap = [line(1), line(3)].concat();
    let reason = CorruptReason::Sequence {
        expected: 2,
        found: 3,
    };
    assert_eq!(
        classify(&gap, 1, 0),
        Tail::Corrupt {
            offset: ends[1] as u64,
            reason
        }
    );
    let wrong_start = classify(&bytes, 2, 0);
    assert!(matches!(
        wrong_start,
        Tail::Corrupt {
            offset: 0,
            reason: CorruptReason::Sequence {
                expected: 2,
                found: 1
            }
        }
    ));
}

proptest::proptest! {
    #[test]
    fn any_bytes_are_classified_without_a_panic(bytes: Vec<u8>, first_seq in 1..5_u64, durable_seq in 0..5_u64) {
        let len = bytes.len() as u64;
        match classify(&bytes, first_seq, durable_seq) {
            Tail::Torn { valid_len } => assert!(valid_len <= len),
            Tail::Corrupt { offset, .. } => assert!(offset <= len),
            Tail::Clean => {}
        }
    }

    #[test]
    fn a_log_with_bytes_replaced_is_never_taken_for_whole(
        at in 0..3000_usize, with in proptest::collection::vec(proptest::num::u8::ANY, 1..40)
    ) {
        let bytes = log_bytes();
        let mut damaged = bytes.clone();
        let at = at % bytes.len();
        let end = (at + with.len()).min(bytes.len());
        damaged[at..end].copy_from_slice(&with[..end - at]);
        if damaged != bytes {
            assert_ne!(classify(&damaged, 1, RECORDS), Tail::Clean);
        }
    }
}
