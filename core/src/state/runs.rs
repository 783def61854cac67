//! Which files of a snapshot a compaction leaves as they are, and which it writes anew. Pure.

/// The most files of a snapshot, its base included: a point read looks into so many.
pub(crate) const FILES_MAX: usize = 4;

/// A file is left alone while it is so many times as long as all that is newer.
const TIMES_AS_LONG: u64 = 3;

/// How many files of a snapshot stay, by the length of each, when the log behind them is folded.
/// The others become one with it.
///
/// A snapshot that is no longer than `short_bytes` becomes one file.
pub(crate) fn kept(files: &[u64], log_bytes: u64, short_bytes: u64) -> usize {
    if files.iter().sum::<u64>() <= short_bytes {
        return 0;
    }
    let mut newer = log_bytes;
    let mut kept = files.len();
    for bytes in files.iter().rev() {
        if kept < FILES_MAX && *bytes >= TIMES_AS_LONG.saturating_mul(newer) {
            break;
        }
        newer = newer.saturating_add(*bytes);
        kept -= 1;
    }
    kept
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// How many bytes compactions write: the files, what was written and what was appended.
    struct Store {
        files: Vec<u64>,
        written: u64,
        appended: u64,
        /// Whether the records create issues; otherwise they change some that are there.
        grows: bool,
    }

    impl Store {
        fn compact(&mut self, log_bytes: u64) {
            let kept = kept(&self.files, log_bytes, 4 << 20);
            let base = self.files[0];
            let mut merged = self.files.split_off(kept).iter().sum::<u64>() + log_bytes;
            if kept == 0 && !self.grows {
                merged = base;
            }
            self.files.push(merged);
            self.written += merged;
            self.appended += log_bytes;
        }
    }

    proptest! {
        #[test]
        fn compactions_write_few_bytes_for_each_that_is_appended(
            base in (4_u64 << 20)..(2 << 30),
            logs in prop::collection::vec((1_u64..=64, any::<bool>()), 1..32),
            grows: bool,
        ) {
            let mut store = Store { files: vec![base], written: 0, appended: 0, grows };
            for (times, is_long) in logs.iter().cycle().take(2_000) {
                // At least what makes a compaction due.
                let all = store.files.iter().sum::<u64>();
                if all > 1 << 50 {
                    break;
                }
                let shortest = (all / 512).max(4 << 20);
                store.compact(if *is_long { shortest * times } else { shortest });
                prop_assert!(store.files.len() <= FILES_MAX);
            }
            // The base that was there was paid for by others.
            let bound = 12 * store.appended + base;
            prop_assert!(store.written <= bound, "{} of {}", store.written, store.appended);
        }
    }

    #[test]
    fn a_hundredth_that_changes_each_time_costs_seven_times_its_length() {
        let mut store = Store {
            files: vec![1 << 30],
            written: 0,
            appended: 0,
            grows: false,
        };
        for _ in 0..1_000 {
            store.compact((1 << 30) / 100);
        }
        let times = store.written / store.appended;
        assert!((3..=7).contains(&times), "{times}");
    }

    #[test]
    fn a_short_snapshot_is_one_file() {
        assert_eq!(kept(&[], 1, 0), 0);
        assert_eq!(kept(&[100, 20], 1, 120), 0);
        assert_eq!(kept(&[100, 20], 1, 119), 2);
        // What is not much longer than what follows it is written again with it.
        assert_eq!(kept(&[100, 20], 7, 0), 1);
        assert_eq!(kept(&[100, 20], 20, 0), 0);
        assert_eq!(kept(&[1_000, 300, 90, 20], 1, 0), 3);
    }
}
