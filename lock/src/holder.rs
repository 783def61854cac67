use std::{
    fmt,
    sync::{OnceLock, atomic::Ordering},
    time::Duration,
};

use crate::{SharedPage, sys};

/// Who holds a lock, as that holder noted it. Diagnostics only: no lock is ever broken because of it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Holder {
    /// The process id.
    pub pid: u32,
    /// How long the process had been running; a pid alone is reused.
    pub running_for: Duration,
    /// The command line, cut to 64 bytes.
    pub command: String,
    /// How long it had held the lock.
    pub held_for: Duration,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            pid,
            running_for,
            command,
            held_for,
        } = self;
        write!(
            f,
            "pid {pid} ({command}, held for {held_for:.1?}, running for {running_for:.1?})"
        )
    }
}

/// What stands in the first words of a lock file's page.
mod word {
    pub(super) const PID: usize = 0;
    pub(super) const STARTED: usize = 1;
    pub(super) const SINCE_NS: usize = 2;
    pub(super) const COMMAND: std::ops::Range<usize> = 8..16;
}

/// Notes this process as the holder. The caller holds the lock.
pub(crate) fn note(page: &SharedPage) {
    let me = Myself::get();
    page.u64(word::SINCE_NS)
        .store(sys::monotonic_ns(), Ordering::Relaxed);
    page.u64(word::STARTED).store(me.started, Ordering::Relaxed);
    for (index, value) in word::COMMAND.zip(me.command) {
        page.u64(index).store(value, Ordering::Relaxed);
    }
    page.u64(word::PID)
        .store(u64::from(me.pid), Ordering::Release);
}

/// Takes the note back. The caller still holds the lock.
pub(crate) fn clear(page: &SharedPage) {
    page.u64(word::PID).store(0, Ordering::Release);
}

/// Reads the note, unless it is from a process that has ended.
pub(crate) fn read(page: &SharedPage) -> Option<Holder> {
    let pid = u32::try_from(page.u64(word::PID).load(Ordering::Acquire))
        .ok()
        .filter(|pid| *pid != 0)?;
    let started = page.u64(word::STARTED).load(Ordering::Relaxed);
    if sys::process_started(pid).is_some_and(|now| now != started) {
        return None;
    }
    let since_ns = page.u64(word::SINCE_NS).load(Ordering::Relaxed);
    let bytes: Vec<u8> = word::COMMAND
        .flat_map(|index| page.u64(index).load(Ordering::Relaxed).to_le_bytes())
        .collect();
    let command = String::from_utf8_lossy(&bytes)
        .trim_end_matches('\0')
        .to_owned();
    Some(Holder {
        pid,
        running_for: sys::running_for(started),
        command,
        held_for: Duration::from_nanos(sys::monotonic_ns().saturating_sub(since_ns)),
    })
}

struct Myself {
    pid: u32,
    started: u64,
    command: [u64; 8],
}

impl Myself {
    fn get() -> &'static Self {
        static MYSELF: OnceLock<Myself> = OnceLock::new();
        // A forked child can't hold a lock (LockError::Forked) until it opens one of its own;
        // by then the pid here may be its parent's, which only blurs a diagnostic.
        MYSELF.get_or_init(|| {
            let pid = std::process::id();
            let mut args = std::env::args_os().map(|arg| arg.to_string_lossy().into_owned());
            let program = args.next().unwrap_or_default();
            let program = program
                .rsplit(['/', '\\'])
                .next()
                .unwrap_or_default()
                .to_owned();
            let mut line = args.fold(program, |line, arg| line + " " + &arg);
            line.truncate(line.floor_char_boundary(64));
            let mut command = [0; 8];
            for (value, chunk) in command.iter_mut().zip(line.as_bytes().chunks(8)) {
                let mut bytes = [0; 8];
                bytes
                    .iter_mut()
                    .zip(chunk)
                    .for_each(|(to, from)| *to = *from);
                *value = u64::from_le_bytes(bytes);
            }
            Self {
                pid,
                started: sys::process_started(pid).unwrap_or(0),
                command,
            }
        })
    }
}
