use std::{fmt, fs::File, ops::Range, path::Path, sync::atomic::Ordering, time::Duration};

use crate::{
    files::Dir,
    page::{PageError, SharedPage, SharedPageReader},
    sys,
};

/// The process that holds a lock, as it noted itself in the lock file: returned by [`look_at_lock`]
/// and [`FileLock::holder`](crate::FileLock::holder).
///
/// For diagnostics only: no lock is ever broken because of it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Holder {
    /// The process id.
    pub pid: u32,
    /// How long the process has been running, since pids are reused; zero where the system does not
    /// say.
    pub running_for: Duration,
    /// The command line, cut to 64 bytes.
    pub command: String,
    /// How long it has held the lock.
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

/// The state of a lock as its file shows it: returned by [`look_at_lock`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LockState {
    /// The process that holds the lock exclusively.
    pub holder: Option<Holder>,
    /// Whether a process sleeps until the lock is free, or died while sleeping.
    pub waiting: bool,
}

/// Looks at the lock file at `path` without taking the lock or creating anything. Needs no
/// permission to write, and does not block.
///
/// The answer may be out of date when it arrives; show it to people, but don't act on it.
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
    SharedPageReader::open(path).map(|page| look(&page))
}

/// As [`look_at_lock`], for a name in an open directory.
///
/// # Errors
/// As [`SharedPageReader::open`].
pub fn look_at_lock_in(dir: &Dir, name: impl AsRef<Path>) -> Result<LockState, PageError> {
    SharedPageReader::open_in(dir, name).map(|page| look(&page))
}

fn look(page: &SharedPageReader) -> LockState {
    let sleeps = |word| page.load_u32(word) == word::SLEEPING;
    LockState {
        holder: read(|index| page.load_u64(index)),
        waiting: sleeps(word::EXCLUSIVE_WAITERS) || sleeps(word::SHARED_WAITERS),
    }
}

/// Whether a file with this content may be a lock file: the page of a
/// [`FileLock`](crate::FileLock), as far as a power failure left it. Opening any other file as a
/// lock would overwrite a part of it.
///
/// ```
/// # let dir = tempfile::tempdir()?;
/// let path = dir.path().join("lock");
/// drop(strand_lock::FileLock::open(&path)?.lock()?);
/// assert!(strand_lock::is_lock_content(&std::fs::read(&path)?));
/// assert!(!strand_lock::is_lock_content(b"my notes"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use]
pub fn is_lock_content(bytes: &[u8]) -> bool {
    const NOTE: Range<usize> = 0..8 * (word::KNOWN_AS + 1);
    const COMMAND: Range<usize> = 8 * word::COMMAND.start..8 * word::COMMAND.end;
    const WAITERS: Range<usize> = SharedPage::BYTES / 2..SharedPage::BYTES / 2 + 8;
    // The upper half of the pid is zero, as no text is.
    const PID_HIGH: Range<usize> = 8 * word::PID + 4..8 * word::PID + 8;
    let is_used = |at| {
        let used = [NOTE, COMMAND, WAITERS];
        used.iter().any(|range| range.contains(&at)) && !PID_HIGH.contains(&at)
    };
    let is_blank =
        |(at, byte): (usize, &u8)| *byte == 0 || bytes.len() >= COMMAND.start && is_used(at);
    bytes.len() <= SharedPage::BYTES && bytes.iter().enumerate().all(is_blank)
}

/// The words of a lock file's page.
pub(crate) mod word {
    use std::ops::Range;

    // 64-bit words: the note of the holder.
    pub(super) const PID: usize = 0;
    pub(super) const STARTED: usize = 1;
    pub(super) const SINCE_NS: usize = 2;
    pub(super) const COMMAND: Range<usize> = 8..16;

    /// Which file this is: see [`mark_known`].
    pub(super) const KNOWN_AS: usize = 3;

    // 32-bit words, on which waiters sleep: exclusive ones are woken one at a time, shared ones all
    // at once.
    pub(crate) const EXCLUSIVE_WAITERS: usize = 0;
    pub(crate) const SHARED_WAITERS: usize = 1;
    /// Values of these words.
    pub(crate) const IDLE: u32 = 0;
    pub(crate) const SLEEPING: u32 = 1;
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

/// Clears the note. The caller still holds the lock.
pub(crate) fn clear(page: &SharedPage) {
    page.u64(word::PID).store(0, Ordering::Release);
}

/// The mark of a lock file by which its later holders know it: the same for as long as the file
/// exists, and another one for a copy. Not 0, which a new file has.
///
/// The number of a device changes between two mounts; the time at which a file was made does not.
/// So the device serves only where the filesystem keeps no such time.
pub(crate) fn mark_of(file: &File, (device, inode): (u64, u64)) -> u64 {
    let origin = sys::made_ns(file).unwrap_or_else(|| device.rotate_left(32));
    (origin ^ inode.rotate_left(17)).max(1)
}

/// Writes the mark, for [`is_known`] of later holders, and syncs it: a copy of the last segment is
/// what a lost mark costs after a power failure.
pub(crate) fn mark_known(page: &SharedPage, mark: u64) {
    page.u64(word::KNOWN_AS).store(mark, Ordering::Release);
    drop(page.sync()); // Without it, the mark serves until the next power failure.
}

/// Whether [`mark_known`] was called on this file, and not on one that it is a copy of.
pub(crate) fn is_known(page: &SharedPage, mark: u64) -> bool {
    page.u64(word::KNOWN_AS).load(Ordering::Acquire) == mark
}

/// Reads the note from the page's words, unless its process has ended.
pub(crate) fn read(load: impl Fn(usize) -> u64) -> Option<Holder> {
    const ATTEMPTS: usize = 8;
    let look = || std::array::from_fn::<u64, { word::COMMAND.end }, _>(&load);
    // The lock may change hands meanwhile. Two equal reads in a row saw the same note, since no two
    // notes have the same time.
    let note = (0..ATTEMPTS).find_map(|_| {
        let note = look();
        (note == look()).then_some(note)
    })?;
    let pid = u32::try_from(note[word::PID])
        .ok()
        .filter(|pid| *pid != 0)?;
    let started = note[word::STARTED];
    if started != UNKNOWN && sys::process_started(pid) != Some(started) {
        return None; // It was killed, and its pid may be another process's by now.
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

/// The start of a process where the system does not say.
const UNKNOWN: u64 = 0;

/// This process, as its notes name it. Not in a static, because a forked child is another process.
#[derive(Debug)]
pub(crate) struct Myself {
    pid: u32,
    started: u64,
    command: [u64; 8],
    generation: u64,
}

impl Myself {
    pub(crate) fn new() -> Self {
        let pid = std::process::id();
        let mut args = std::env::args_os().map(|arg| arg.to_string_lossy().into_owned());
        let program = args.next().unwrap_or_default();
        let program = program.rsplit(['/', '\\']).next().unwrap_or_default();
        Self {
            pid,
            started: sys::process_started(pid).unwrap_or(UNKNOWN),
            command: words(&args.fold(program.to_owned(), |line, arg| line + " " + &arg)),
            generation: sys::generation(),
        }
    }

    /// False in a child that was forked after [`Myself::new`].
    pub(crate) fn is_this_process(&self) -> bool {
        self.generation == sys::generation()
    }
}

/// The text as words, cut to their size.
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
    use crate::FileLock;

    fn read(page: &SharedPage) -> Option<Holder> {
        super::read(|index| page.u64(index).load(Ordering::Acquire))
    }

    #[test]
    fn a_note_is_cut_between_characters_and_cleared() {
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

    #[test]
    fn a_lock_file_is_known_whenever_it_was_changed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let lock = FileLock::open(&path).unwrap();
        let guard = lock.lock().unwrap();
        assert!(!guard.is_known());
        guard.mark_known();
        drop(guard);
        let file = std::fs::File::options().write(true).open(&path).unwrap();
        file.set_modified(std::time::UNIX_EPOCH).unwrap();
        let again = FileLock::open(&path).unwrap();
        assert!(lock.lock().unwrap().is_known() && again.lock().unwrap().is_known());
    }

    #[test]
    fn a_lock_file_is_told_from_the_files_of_others_however_much_of_it_a_power_failure_left() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let lock = FileLock::open(&path).unwrap();
        let guard = lock.lock().unwrap();
        guard.mark_known();
        let held = std::fs::read(&path).unwrap();
        assert_eq!(held.len(), SharedPage::BYTES);
        for len in (64..=held.len()).chain([0]) {
            assert!(is_lock_content(&held[..len]), "{len} bytes");
        }
        assert!(is_lock_content(&[0; 5]));
        for text in [
            "1\n",
            "4711\n",
            "my notes",
            &"a".repeat(1_489),
            &"b".repeat(held.len()),
        ] {
            assert!(!is_lock_content(text.as_bytes()), "{text}");
        }
        let mut longer = held;
        longer.push(0);
        assert!(!is_lock_content(&longer));
    }
}
