/// When a name in a directory changed last, as its filesystem has it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Change {
    /// In nanoseconds since 1970, on Windows since 1601.
    pub(crate) at_ns: u64,
    /// The clock that the filesystem takes its times from, read before the directory was looked
    /// at. `None` where it may take them from another one.
    pub(crate) clock_ns: Option<u64>,
}

const SECOND_NS: u64 = 1_000_000_000;

impl Change {
    /// Whether a change after this look certainly gets another time. `now_ns` is the time of day.
    ///
    /// Systems take the time of a change from a clock that ticks every few milliseconds, and some
    /// filesystems keep whole or even seconds, or hundredths, only.
    pub(crate) fn is_past(&self, now_ns: u64) -> bool {
        const MILLISECOND_NS: u64 = 1_000_000;
        match self.clock_ns {
            // The clock has ticked since.
            Some(clock_ns) if !self.at_ns.is_multiple_of(MILLISECOND_NS) => {
                self.is_before(clock_ns, MILLISECOND_NS / 1_000)
            }
            _ if self.at_ns.is_multiple_of(SECOND_NS) => self.is_before(now_ns, 3 * SECOND_NS),
            _ => self.is_before(now_ns, SECOND_NS / 20),
        }
    }

    fn is_before(&self, time_ns: u64, margin_ns: u64) -> bool {
        self.at_ns.saturating_add(margin_ns) <= time_ns
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_NS: u64 = 1_700_000_005_000_000_000;

    #[test]
    fn a_time_counts_once_no_later_change_can_get_it() {
        let is_past = |at_ns| {
            let clock_ns = None;
            Change { at_ns, clock_ns }.is_past(NOW_NS)
        };
        assert!(!is_past(NOW_NS));
        assert!(!is_past(NOW_NS - 49_999_999));
        assert!(is_past(NOW_NS - 50_000_001));
        // Whole seconds may be all that the filesystem keeps.
        assert!(!is_past(NOW_NS - 2_000_000_000));
        assert!(is_past(NOW_NS - 3_000_000_000));
        // A clock that was set back, or a time that was set ahead.
        assert!(!is_past(NOW_NS + 1));
        assert!(!is_past(u64::MAX));
    }

    #[test]
    fn a_time_counts_from_the_next_tick_of_the_clock_that_it_was_taken_from() {
        let tick_ns = NOW_NS + 4_123_456;
        let is_past = |at_ns| {
            let clock_ns = Some(tick_ns);
            Change { at_ns, clock_ns }.is_past(NOW_NS + 5_000_000)
        };
        assert!(!is_past(tick_ns));
        assert!(!is_past(tick_ns - 999));
        assert!(is_past(tick_ns - 1_000));
        // A time between two ticks, as Linux gives since 6.13.
        assert!(!is_past(tick_ns + 1));
        // A filesystem that keeps hundredths of a second.
        assert!(!is_past(NOW_NS - 40_000_000));
        assert!(is_past(NOW_NS - 50_000_000));
    }
}
