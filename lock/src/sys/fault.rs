//! Pages that the system can no longer give this process: their file was cut short, or the disk has
//! no room for the changed page (copy-on-write filesystems) or fails.
//!
//! The system raises `SIGBUS` for an access to such a page, which ends the process. A handler here
//! puts a page of zeros in its place, which no other process sees, and marks the mapping as lost.
//! The access then goes on, and the owner of the mapping finds out at its next check. A signal for
//! any other address goes to the handler that was there before.

use std::{
    ffi::{c_int, c_void},
    fs::File,
    io,
    mem::MaybeUninit,
    ptr,
    sync::{
        Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering},
    },
};

use rustix::mm::{MapFlags, ProtFlags, mmap, mmap_anonymous};

/// A mapping that the handler knows. It must be dropped before the mapping ends.
#[derive(Debug)]
pub(crate) struct Guarded(&'static Entry);

/// An entry of the list that the handler reads. Entries are used again and never freed.
#[derive(Debug)]
struct Entry {
    /// Where the mapping begins; [`FREE`] while there is none.
    base: AtomicUsize,
    len: AtomicUsize,
    writable: AtomicBool,
    lost: AtomicBool,
    next: Option<&'static Entry>,
}

const FREE: usize = 0;

static ENTRIES: AtomicPtr<Entry> = AtomicPtr::new(ptr::null_mut());
/// What was done about `SIGBUS` before.
static BEFORE: OnceLock<libc::sigaction> = OnceLock::new();

fn entries() -> impl Iterator<Item = &'static Entry> {
    // SAFETY: null, or a leaked entry.
    let first = unsafe { ENTRIES.load(Ordering::Acquire).as_ref() };
    std::iter::successors(first, |entry| entry.next)
}

impl Guarded {
    /// Has the handler look after the mapping at `base`.
    pub(crate) fn new(base: *mut u8, len: usize, writable: bool) -> io::Result<Self> {
        static CHANGING: Mutex<()> = Mutex::new(());
        let _alone = CHANGING.lock().unwrap_or_else(PoisonError::into_inner);
        install()?;
        let is_free = |entry: &&Entry| entry.base.load(Ordering::Acquire) == FREE;
        let entry = entries().find(is_free).unwrap_or_else(|| {
            let entry = Box::leak(Box::new(Entry {
                base: AtomicUsize::new(FREE),
                len: AtomicUsize::new(0),
                writable: AtomicBool::new(false),
                lost: AtomicBool::new(false),
                next: entries().next(),
            }));
            ENTRIES.store(entry, Ordering::Release);
            entry
        });
        entry.len.store(len, Ordering::Relaxed);
        entry.writable.store(writable, Ordering::Relaxed);
        entry.lost.store(false, Ordering::Relaxed);
        entry.base.store(base.addr(), Ordering::Release);
        Ok(Self(entry))
    }

    /// Whether the page was replaced by one that no other process sees.
    pub(crate) fn is_lost(&self) -> bool {
        self.0.lost.load(Ordering::Acquire)
    }

    /// Maps the page of `file` again, which is lost again if that can't be touched.
    ///
    /// Only for words of which each stands for itself: other threads may be in the middle of
    /// changing several.
    pub(crate) fn map_again(&self, file: &File) {
        let Entry { base, len, .. } = self.0;
        // Before the page, or a loss in another thread would go unnoticed.
        self.0.lost.store(false, Ordering::SeqCst);
        let at = ptr::with_exposed_provenance_mut(base.load(Ordering::Relaxed));
        let len = len.load(Ordering::Relaxed);
        let (prot, flags) = (
            ProtFlags::READ | ProtFlags::WRITE,
            MapFlags::SHARED | MapFlags::FIXED,
        );
        // SAFETY: replaces a mapping that is registered, and that ends only after `self`.
        let mapped = unsafe { mmap(at, len, prot, flags, file, 0) };
        if mapped.is_err() {
            self.0.lost.store(true, Ordering::SeqCst);
        }
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        self.0.base.store(FREE, Ordering::Release);
    }
}

/// Installs the handler, once per process.
fn install() -> io::Result<()> {
    if BEFORE.get().is_some() {
        return Ok(());
    }
    let mut before = MaybeUninit::uninit();
    // SAFETY: asks only; `before` has room for the answer.
    let failed = unsafe { libc::sigaction(libc::SIGBUS, ptr::null(), before.as_mut_ptr()) };
    if failed != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call has succeeded, so it has filled it in.
    let before = unsafe { before.assume_init() };
    let mut action = before;
    action.sa_sigaction = on_bus_error as *const () as usize;
    action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_RESTART;
    // Known before the handler can run.
    BEFORE.get_or_init(|| before);
    // SAFETY: the handler has the form that `SA_SIGINFO` asks for, and does only what one may do.
    let failed = unsafe { libc::sigaction(libc::SIGBUS, &raw const action, ptr::null_mut()) };
    if failed != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Reads atomics and calls `mmap`; allocates nothing, and takes no lock.
unsafe extern "C" fn on_bus_error(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: the system passes a valid pointer.
    let info_of = unsafe { info.as_ref() };
    // SAFETY: of `SIGBUS`, the union has the address.
    let address = info_of.map(|info| unsafe { info.si_addr() }.addr());
    if address.is_some_and(replace_page_at) {
        return;
    }
    pass_on(signal, info, context);
}

/// False where no guarded page is at that address.
fn replace_page_at(address: usize) -> bool {
    entries().any(|entry| {
        let base = entry.base.load(Ordering::Acquire);
        let len = entry.len.load(Ordering::Relaxed);
        if base == FREE || !(base..base + len).contains(&address) {
            return false;
        }
        let prot = if entry.writable.load(Ordering::Relaxed) {
            ProtFlags::READ | ProtFlags::WRITE
        } else {
            ProtFlags::READ
        };
        // Before, for a thread that already uses the new page.
        entry.lost.store(true, Ordering::SeqCst);
        let at = ptr::with_exposed_provenance_mut(base);
        // SAFETY: replaces a mapping that its owner has registered and not ended yet.
        let mapped =
            unsafe { mmap_anonymous(at, len, prot, MapFlags::PRIVATE | MapFlags::FIXED) }.is_ok();
        // After, for a thread that mapped the file again meanwhile.
        entry.lost.store(true, Ordering::SeqCst);
        mapped
    })
}

/// Does what would have been done without this handler.
fn pass_on(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    let before = BEFORE.get().filter(|before| {
        before.sa_sigaction != libc::SIG_DFL && before.sa_sigaction != libc::SIG_IGN
    });
    match before {
        Some(before) if before.sa_flags & libc::SA_SIGINFO != 0 => {
            type Handler = unsafe extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void);
            // SAFETY: with this flag it is a function of this form.
            let handler = unsafe { std::mem::transmute::<usize, Handler>(before.sa_sigaction) };
            // SAFETY: called as the system would.
            unsafe { handler(signal, info, context) };
        }
        Some(before) => {
            type Handler = unsafe extern "C" fn(c_int);
            // SAFETY: without the flag it is a function of this form.
            let handler = unsafe { std::mem::transmute::<usize, Handler>(before.sa_sigaction) };
            // SAFETY: called as the system would.
            unsafe { handler(signal) };
        }
        None => {
            // The access is tried again after this, and ends the process.
            // SAFETY: changes no memory.
            unsafe { libc::signal(signal, libc::SIG_DFL) };
        }
    }
}
