use std::{fmt, ops::Range, path::Path, sync::atomic::Ordering, time::Duration};

use crate::{
    PageError, SharedPage, SharedPageReader,
    file_lock::{EXCLUSIVE_WAITERS, SHARED_WAITERS, SOMEBODY_SLEEPS},
    sys,
};

/// Who holds a lock, as that holder noted it: from [`look_at_lock`] and [`FileLock::holder`](crate::FileLock::holder).
/// Diagnostics only: no lock is ever broken because of it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Holder {
    /// The process id.
    pub pid: u32,
    /// How long the process had been running (a pid alone is reused), zero where the system does
    /// not tell.
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

/// What a lock's file tells to those who only look: the answer of [`look_at_lock`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LockState {
    /// Who holds the lock exclusively.
    pub holder: Option<Holder>,
    /// Somebody sleeps until the lock is free, or died while sleeping.
    pub waiting: bool,
}

/// Looks at the lock file at `path`: takes no lock, creates nothing, and needs no permission to write.
///
/// A snapshot for people: the lock may have changed hands since.
///
/// # Errors
/// As [`SharedPageReader::open`].
///
/// ```
/// use strand_lock::{FileLock, look_at_lock};
///
/// # let dir = tempfile::tempdir()?;
/// let lock = FileLock::open(dir.path().join("lock"))?;
/// let guard = lock.lock()?;
/// let seen = look_at_lock(lock.path())?;
/// assert_eq!(seen.holder.map(|holder| holder.pid), Some(std::process::id()));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn look_at_lock(path: impl AsRef<Path>) -> Result<LockState, PageError> {
    let page = SharedPageReader::open(path)?;
    let sleep = |word| page.load_u32(word) == SOMEBODY_SLEEPS;
    Ok(LockState {
        holder: read(|index| page.load_u64(index)),
        waiting: sleep(EXCLUSIVE_WAITERS) || sleep(SHARED_WAITERS),
    })
}

/// What stands in the first words of a lock file's page.
mod word {
    use super::Range;

    pub(super) const PID: usize = 0;
    pub(super) const STARTED: usize = 1;
    pub(super) const SINCE_NS: usize = 2;
    pub(super) const COMMAND: Range<usize> = 8..16;
}

/// Notes `me` as the holder since a time of [`sys::monotonic_ns`]. The caller holds the lock.
pub(crate) fn note(page: &SharedPage, me: &Myself, since_ns: u64) {
    page.u64(word::SINCE_NS).store(since_ns, Ordering::Relaxed);
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

/// Reads the note from the page's words, unless it is from a process that has ended.
pub(crate) fn read(load: impl Fn(usize) -> u64) -> Option<Holder> {
    const LOOKS: usize = 8;
    let look = || std::array::from_fn::<u64, { word::COMMAND.end }, _>(&load);
    // The lock may change hands meanwhile. Two equal looks in a row saw one note, since no two
    // have the same time.
    let note = (0..LOOKS).find_map(|_| {
        let note = look();
        (note == look()).then_some(note)
    })?;
    let pid = u32::try_from(note[word::PID])
        .ok()
        .filter(|pid| *pid != 0)?;
    let started = note[word::STARTED];
    if started != UNKNOWN && sys::process_started(pid) != Some(started) {
        return None; // It was killed, and its pid perhaps reused.
    }
    let bytes: Vec<u8> = note
        .iter()
        .skip(word::COMMAND.start)
        .flat_map(|word| word.to_le_bytes())
        .collect();
    let command = String::from_utf8_lossy(&bytes)
        .trim_end_matches('\0')
        .to_owned();
    Some(Holder {
        pid,
        running_for: if started == UNKNOWN {
            Duration::ZERO
        } else {
            sys::running_for(started)
        },
        command,
        held_for: Duration::from_nanos(sys::monotonic_ns().saturating_sub(note[word::SINCE_NS])),
    })
}

/// Stands for a start that the system does not tell.
const UNKNOWN: u64 = 0;

/// This process, as its notes name it. Not kept in a static, because a forked child is another.
#[derive(Debug)]
pub(crate) struct Myself {
    pid: u32,
    started: u64,
    command: [u64; 8],
}

impl Myself {
    pub(crate) fn new() -> Self {
        let pid = std::process::id();
        let mut args = std::env::args_os().map(|arg| arg.to_string_lossy().into_owned());
        let program = args.next().unwrap_or_default();
        let program = program
            .rsplit(['/', '\\'])
            .next()
            .unwrap_or_default()
            .to_owned();
        Self {
            pid,
            started: sys::process_started(pid).unwrap_or(UNKNOWN),
            command: words(&args.fold(program, |line, arg| line + " " + &arg)),
        }
    }

    /// False in a child that was forked after [`Myself::new`].
    pub(crate) fn is_this_process(&self) -> bool {
        self.pid == std::process::id()
    }
}

/// The text as words, cut to what they hold.
fn words(text: &str) -> [u64; 8] {
    let text = text.split_at(text.floor_char_boundary(64)).0;
    let mut chunks = text.as_bytes().chunks(8);
    std::array::from_fn(|_| {
        let mut bytes = [0; 8];
        let chunk = chunks.next().unwrap_or_default();
        for (to, from) in bytes.iter_mut().zip(chunk) {
            *to = *from;
        }
        u64::from_le_bytes(bytes)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(page: &SharedPage) -> Option<Holder> {
        super::read(|index| page.u64(index).load(Ordering::Acquire))
    }

    #[test]
    fn a_note_is_cut_between_characters_and_taken_back() {
        let dir = tempfile::tempdir().unwrap();
        let page = SharedPage::open(dir.path().join("page")).unwrap();
        assert_eq!(read(&page), None);
        let mut me = Myself::new();
        me.command = words("tool é");
        note(&page, &me, 1);
        let holder = read(&page).unwrap();
        assert_eq!(
            (holder.pid, holder.command.as_str()),
            (std::process::id(), "tool é")
        );
        clear(&page);
        assert_eq!(read(&page), None);

        me.command = words(&"é".repeat(40));
        note(&page, &me, 1);
        assert_eq!(read(&page).unwrap().command, "é".repeat(32));
        me.command = words(&format!("x{}", "é".repeat(40)));
        note(&page, &me, 1);
        assert_eq!(read(&page).unwrap().command, format!("x{}", "é".repeat(31)));
    }

    #[test]
    #[cfg(any(target_os = "linux", windows))]
    fn a_reused_pid_is_not_believed() {
        let dir = tempfile::tempdir().unwrap();
        let page = SharedPage::open(dir.path().join("page")).unwrap();
        let mut me = Myself::new();
        me.started -= 1;
        note(&page, &me, 1);
        assert_eq!(read(&page), None);
        me.started = UNKNOWN;
        note(&page, &me, 1);
        assert_eq!(read(&page).unwrap().running_for, Duration::ZERO);
    }
}
