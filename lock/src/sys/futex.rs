use std::{sync::atomic::AtomicU32, time::Duration};

use rustix::thread::futex::{self, Flags, Timespec};

/// Sleeps while `word` is `expected`. Every error of the call (a changed word, a signal, a timeout,
/// a page that is gone) tells the caller the same: look again.
pub(crate) fn wait(word: &AtomicU32, expected: u32, timeout: Duration) {
    let timeout = Timespec::try_from(timeout).ok();
    // Not `Flags::PRIVATE`: the waker may be in another process.
    futex::wait(word, Flags::empty(), expected, timeout.as_ref()).ok();
}

pub(crate) fn wake(word: &AtomicU32, most: u32) {
    // The kernel counts in `i32` and takes a negative number for 1.
    futex::wake(word, Flags::empty(), most.min(i32::MAX.unsigned_abs())).ok();
}
