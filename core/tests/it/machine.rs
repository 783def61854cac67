//! Filesystems, locks and shared memory that fail.

use std::{
    io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use strand_core::{
    Counters, Error, Filesystem, FilesystemKind, IssueEvent, LockError, Log, Outcome,
    testing::{Dir, HeldLock, Host, Page, PageError, Storage, StoreLock, ThisMachine},
};

use crate::support::{event, ids, names, open, options};

type PageFails = fn(&Path) -> PageError;

/// The disk, on a machine that fails on demand.
#[derive(Debug, Default)]
struct Machine {
    filesystem: Option<Filesystem>,
    page_fails: Option<PageFails>,
    /// Shared with the locks: an unlock frees the lock, and then fails.
    unlock_fails: Arc<AtomicBool>,
}

impl Host for Machine {
    fn filesystem(&self, dir: &Dir) -> io::Result<Filesystem> {
        match &self.filesystem {
            Some(filesystem) => Ok(filesystem.clone()),
            None => ThisMachine.filesystem(dir),
        }
    }

    fn open_page(
        &self,
        dir: &Dir,
        name: &str,
        area_words: usize,
    ) -> Result<Box<dyn Page>, PageError> {
        match self.page_fails {
            Some(fails) => Err(fails(&dir.path().join(name))),
            None => ThisMachine.open_page(dir, name, area_words),
        }
    }

    fn open_lock(&self, dir: &Dir, name: &str) -> Result<Box<dyn StoreLock>, LockError> {
        Ok(Box::new(Lock {
            real: ThisMachine.open_lock(dir, name)?,
            path: dir.path().join(name).into(),
            unlock_fails: Arc::clone(&self.unlock_fails),
        }))
    }
}

#[derive(Debug)]
struct Lock {
    real: Box<dyn StoreLock>,
    path: Arc<Path>,
    unlock_fails: Arc<AtomicBool>,
}

impl StoreLock for Lock {
    fn lock_until(&self, deadline: Instant) -> Result<Box<dyn HeldLock + '_>, LockError> {
        let held = self.real.lock_until(deadline)?;
        Ok(Box::new(Held { lock: self, held }))
    }

    fn try_lock(&self) -> Result<Box<dyn HeldLock + '_>, LockError> {
        let held = self.real.try_lock()?;
        Ok(Box::new(Held { lock: self, held }))
    }

    fn counters(&self) -> Counters {
        self.real.counters()
    }

    fn identity(&self) -> (u64, u64) {
        self.real.identity()
    }

    fn reopen(&self) -> Result<(), LockError> {
        self.real.reopen()
    }
}

struct Held<'a> {
    lock: &'a Lock,
    held: Box<dyn HeldLock + 'a>,
}

impl HeldLock for Held<'_> {
    fn is_known(&self) -> bool {
        self.held.is_known()
    }

    fn mark_known(&self) {
        self.held.mark_known();
    }

    fn unlock(self: Box<Self>) -> Result<(), LockError> {
        self.held.unlock()?;
        if self.lock.unlock_fails.load(Ordering::SeqCst) {
            return Err(LockError::Io {
                op: "unlock",
                path: self.lock.path.to_path_buf(),
                source: io::Error::other("told to fail"),
            });
        }
        Ok(())
    }
}

impl Storage for Machine {
    fn host(&self) -> &dyn Host {
        self
    }
}

fn open_on(dir: &Path, machine: Machine) -> Result<Log<IssueEvent>, Error> {
    Log::open(dir, options().storage(Arc::new(machine)))
}

#[test]
fn a_network_filesystem_is_refused_and_left_unchanged() {
    let dir = tempfile::tempdir().unwrap();
    for kind in [FilesystemKind::Network, FilesystemKind::UnknownFuse] {
        let machine = Machine {
            filesystem: Some(Filesystem::new(kind, "somefs")),
            ..Machine::default()
        };
        let refused = open_on(dir.path(), machine).unwrap_err();
        assert!(
            matches!(
                &refused,
                Error::UnsafeFilesystem { filesystem, .. } if filesystem.kind == kind
            ),
            "{refused:?}"
        );
        let text = refused.to_string();
        assert!(text.contains("somefs") && text.contains("allow_unsafe_filesystem"));
        assert!(!refused.is_retryable());
    }
    assert_eq!(names(dir.path()), Vec::<String>::new());
}

#[test]
fn an_allowed_unsafe_filesystem_gets_a_store_without_shared_memory() {
    let dir = tempfile::tempdir().unwrap();
    let machine = || Machine {
        filesystem: Some(Filesystem::new(FilesystemKind::Network, "somefs")),
        ..Machine::default()
    };
    let insists = || {
        options()
            .allow_unsafe_filesystem(true)
            .storage(Arc::new(machine()))
    };
    let one = Log::<IssueEvent>::open(dir.path(), insists()).unwrap();
    let other = Log::<IssueEvent>::open(dir.path(), insists()).unwrap();
    one.append(&event("bd-1")).unwrap();
    other.append(&event("bd-2")).unwrap();
    one.append(&event("bd-3")).unwrap();
    assert!(!dir.path().join("shm").exists());
    assert_eq!(ids(one.records().unwrap()), ["bd-1", "bd-2", "bd-3"]);
}

#[test]
fn a_page_that_cannot_be_opened_is_an_error_with_file_and_reason() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()));
    let fails: [(PageFails, &str, &str); 3] = [
        (
            |path| PageError::Io {
                op: "map",
                path: path.to_owned(),
                source: io::Error::other("no memory"),
            },
            "map",
            "no memory",
        ),
        (
            |path| PageError::Truncated {
                path: path.to_owned(),
                len_bytes: 7,
            },
            "use",
            "cut to 7 bytes",
        ),
        (
            |path| PageError::Deleted {
                path: path.to_owned(),
            },
            "use",
            "was deleted",
        ),
    ];
    for (page_fails, verb, reason) in fails {
        let machine = Machine {
            page_fails: Some(page_fails),
            ..Machine::default()
        };
        match open_on(dir.path(), machine).unwrap_err() {
            Error::Io {
                op,
                path,
                outcome,
                source,
            } => {
                assert_eq!((op, outcome), (verb, Outcome::Rejected));
                assert_eq!(path, dir.path().join("shm"));
                assert!(source.to_string().contains(reason), "{source}");
            }
            error => panic!("{error}"),
        }
    }
    drop(open(dir.path()));
}

#[test]
fn a_record_is_in_doubt_when_its_lock_could_not_be_freed() {
    let dir = tempfile::tempdir().unwrap();
    let machine = Machine::default();
    let unlock_fails = Arc::clone(&machine.unlock_fails);
    let log = open_on(dir.path(), machine).unwrap();
    log.append(&event("bd-1")).unwrap();
    unlock_fails.store(true, Ordering::SeqCst);
    let failed = log.append(&event("bd-2")).unwrap_err();
    assert!(
        matches!(&failed, Error::Io { op: "unlock", .. }),
        "{failed:?}"
    );
    assert_eq!(failed.outcome(), Outcome::Unknown);
    // An event that was refused before anything was written is certain nevertheless.
    let refused = log.append(&event("")).unwrap_err();
    assert_eq!(refused.outcome(), Outcome::Rejected);
    unlock_fails.store(false, Ordering::SeqCst);
    log.append(&event("bd-3")).unwrap();
    assert_eq!(ids(log.records().unwrap()), ["bd-1", "bd-2", "bd-3"]);
}

#[test]
#[cfg(target_os = "linux")]
fn processes_that_see_different_boot_ids_share_the_hints_while_one_of_them_lives() {
    use strand_core::{Durability, Reader, Seq};

    /// The disk, in a container that sees a boot id of its own.
    #[derive(Debug)]
    struct Container(&'static str);

    impl Host for Container {
        fn boot_id(&self) -> String {
            self.0.to_owned()
        }
    }

    impl Storage for Container {
        fn host(&self) -> &dyn Host {
            self
        }
    }

    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let open = |id| {
        let storage = Arc::new(Container(id));
        let options = options().durability(Durability::Buffered).storage(storage);
        Log::<IssueEvent>::open(dir, options).unwrap()
    };
    let one = open("one");
    let other = open("other");
    assert!(one.recovery().rebuilt && !other.recovery().rebuilt);
    let durable = |id| {
        let storage: Arc<dyn Storage> = Arc::new(Container(id));
        let reader = Reader::<IssueEvent>::open_in(&storage, dir).unwrap();
        let records = reader.records().unwrap().count();
        (reader.durable_seq().ok().flatten(), records)
    };
    one.append(&event("buffered")).unwrap();
    for id in ["one", "other", "third"] {
        assert_eq!(
            durable(id),
            (None, 0),
            "a buffered record is visible to {id}"
        );
    }
    for number in 0..4 {
        [&one, &other][number % 2]
            .append(&event(&format!("bd-{number}")))
            .unwrap();
        // A rebuild would have made all of it durable.
        assert_eq!(durable("other"), (None, 0));
    }
    // One that lives on vouches for the page, whoever filled it.
    drop(one);
    assert!(!open("third").recovery().rebuilt);
    // After a reboot nobody lives, and the ids differ: the page means nothing.
    drop(other);
    assert_eq!(durable("third"), (None, 5));
    assert!(open("third").recovery().rebuilt);
    assert_eq!(durable("third"), (Some(Seq::new(5)), 5));
}
