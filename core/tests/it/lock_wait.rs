//! A process that waits for a lock of the store can name the holder.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use strand_core::{Error, IssueEvent, LockError, Log, repair::repair};
use strand_lock::FileLock;

use crate::support::{event, options};

#[test]
fn the_callback_names_the_holder_each_second_until_the_deadline() {
    let dir = tempfile::tempdir().unwrap();
    let calls = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&calls);
    let timeout = Duration::from_millis(2200);
    let options = options()
        .lock_timeout(timeout)
        .on_lock_wait(move |holder, waited| {
            let pid = holder.map(|holder| holder.pid);
            noted.lock().unwrap().push((pid, waited));
        });
    let log = Log::<IssueEvent>::open(dir.path(), options.clone()).unwrap();
    log.append(&event("bd-1")).unwrap();
    assert_eq!(*calls.lock().unwrap(), [], "it did not wait");

    let waits: [(&str, &dyn Fn() -> Error); 3] = [
        ("lock", &|| log.append(&event("bd-2")).unwrap_err()),
        ("lock", &|| {
            Log::<IssueEvent>::open(dir.path(), options.clone()).unwrap_err()
        }),
        ("compact.lock", &|| {
            repair(dir.path(), &options).unwrap_err()
        }),
    ];
    for (name, wait) in waits {
        let lock = FileLock::open(dir.path().join(name)).unwrap();
        let guard = lock.lock().unwrap();
        match wait() {
            Error::Lock(LockError::Timeout { waited, .. }) => assert!(waited >= timeout),
            error => panic!("{name}: {error:?}"),
        }
        drop(guard);
        let calls = std::mem::take(&mut *calls.lock().unwrap());
        // On a busy machine, it may wake late.
        assert!(!calls.is_empty() && calls.len() <= 2, "{name}: {calls:?}");
        for (second, (pid, waited)) in (1..).zip(calls) {
            assert_eq!(pid, Some(std::process::id()));
            assert!(waited >= Duration::from_secs(second), "{name}: {waited:?}");
        }
    }
}

#[test]
fn the_longest_timeout_is_for_ever() {
    let dir = tempfile::tempdir().unwrap();
    for options in [options(), options().on_lock_wait(|_, _| {})] {
        let options = options.lock_timeout(Duration::MAX);
        let log = Log::<IssueEvent>::open(dir.path(), options.clone()).unwrap();
        log.append(&event("bd-1")).unwrap();
        repair(dir.path(), &options).unwrap();
    }
}
