use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

/// Polls the word at growing intervals of up to a millisecond, since processes can't wait on a
/// shared word here.
pub(crate) fn wait(word: &AtomicU32, expected: u32, timeout: Duration) {
    let started = Instant::now();
    let mut step = Duration::from_micros(20);
    while word.load(Ordering::Acquire) == expected {
        let left = timeout.saturating_sub(started.elapsed());
        if left.is_zero() {
            return;
        }
        std::thread::sleep(step.min(left));
        step = (step * 2).min(Duration::from_millis(1));
    }
}

pub(crate) fn wake(_word: &AtomicU32, _most: u32) {}
