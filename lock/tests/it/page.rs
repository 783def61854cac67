//! The shared page.

use std::{
    fs,
    path::Path,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use strand_lock::{PageError, SharedPage, SharedPageReader};

use crate::{
    PATIENCE,
    child::{Child, command, say},
    deadline,
};

/// Words of the page in these tests.
const CALL: usize = 0;
const ANSWER: usize = 1;
const ROUNDS: u32 = 200;

/// Sleeps until the word is not `old`; panics if a wake is lost.
fn wait_for_change(page: &SharedPage, word: usize, old: u32) -> u32 {
    let deadline = deadline();
    loop {
        let now = page.u32(word).load(Ordering::Acquire);
        if now != old {
            return now;
        }
        assert!(Instant::now() < deadline, "a wake was lost");
        // Longer than our own deadline and the other side's, so that only a wake helps.
        page.wait(word, old, 2 * PATIENCE);
    }
}

/// A child that answers each call.
pub(crate) fn answer(dir: &Path) {
    let page = SharedPage::open(dir.join("page")).unwrap();
    for round in 1..=ROUNDS {
        assert_eq!(wait_for_change(&page, CALL, round - 1), round);
        page.u32(ANSWER).store(round, Ordering::Release);
        page.wake_one(ANSWER);
    }
    say("answered");
}

/// Another program cuts the file between a check and an access.
#[test]
#[cfg(unix)]
fn a_page_that_is_cut_while_it_is_used_does_not_end_the_process() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("page");
    let page = SharedPage::open(&path).unwrap();
    let view = SharedPageReader::open(&path).unwrap();
    page.u64(3).store(7, Ordering::Relaxed);
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.set_len(0).unwrap();
    page.u64(3).store(8, Ordering::Relaxed);
    assert_eq!(
        (page.u64(3).load(Ordering::Relaxed), view.load_u64(3)),
        (8, 0)
    );
    assert!(matches!(page.check(), Err(PageError::Truncated { .. })));
    // What was stored meanwhile went nowhere, and the page says so.
    file.set_len(SharedPage::BYTES as u64).unwrap();
    assert!(matches!(page.check(), Err(PageError::Lost { .. })));
    assert!(matches!(view.check(), Err(PageError::Lost { .. })));
    let again = SharedPage::open(&path).unwrap();
    assert_eq!(again.u64(3).load(Ordering::Relaxed), 0);
    again.check().unwrap();
}

/// A `SIGBUS` that is not of a shared page still ends the process.
#[cfg(unix)]
pub(crate) fn touch_what_is_gone(dir: &Path) {
    let _page = SharedPage::open(dir.join("page")).unwrap();
    let file = fs::File::create_new(dir.join("other")).unwrap();
    file.set_len(4096).unwrap();
    // SAFETY: the file is this test's own.
    let map = unsafe {
        memmap2::MmapOptions::new()
            .len(4096)
            .map(&fs::File::open(dir.join("other")).unwrap())
    };
    file.set_len(0).unwrap();
    say(map.unwrap()[0]);
}

#[test]
#[cfg(unix)]
fn another_fault_is_not_hidden() {
    use std::os::unix::process::ExitStatusExt as _;

    let dir = tempfile::tempdir().unwrap();
    let ended = command("touch_what_is_gone", dir.path()).output().unwrap();
    assert_eq!(ended.status.signal(), Some(libc::SIGBUS), "{ended:?}");
}

#[test]
fn processes_wake_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let page = SharedPage::open(dir.path().join("page")).unwrap();
    let child = Child::start("answer", dir.path());
    for round in 1..=ROUNDS {
        page.u32(CALL).store(round, Ordering::Release);
        page.wake_all(CALL);
        assert_eq!(wait_for_change(&page, ANSWER, round - 1), round);
    }
    child.expect("answered");
}

/// This holds even where a sleeper in another process is not woken and polls instead.
#[test]
fn a_wake_takes_a_bounded_time() {
    const LIMIT: Duration = Duration::from_millis(100);
    let dir = tempfile::tempdir().unwrap();
    let page = SharedPage::open(dir.path().join("page")).unwrap();
    let child = Child::start("answer", dir.path());
    let mut times: Vec<Duration> = (1..=ROUNDS)
        .map(|round| {
            // The longer it sleeps, the less often it looks.
            std::thread::sleep(Duration::from_millis(u64::from(round % 8)));
            let called = Instant::now();
            page.u32(CALL).store(round, Ordering::Release);
            page.wake_all(CALL);
            wait_for_change(&page, ANSWER, round - 1);
            called.elapsed()
        })
        .collect();
    child.expect("answered");
    // The median round trip, not the longest: the machine may be busy.
    times.sort_unstable();
    let median = times[times.len() / 2];
    println!("round trip: median {median:?}, longest {:?}", times.last());
    assert!(median < LIMIT, "{times:?}");
}

/// On a full disk, touching a page without space raises SIGBUS.
#[test]
#[cfg(target_os = "linux")]
fn a_page_has_its_space_before_it_is_touched() {
    use std::os::unix::fs::MetadataExt as _;
    let dir = tempfile::tempdir().unwrap();
    let blocks = |name: &str| dir.path().join(name).metadata().unwrap().blocks();
    let page = SharedPage::open(dir.path().join("new")).unwrap();
    assert!(blocks("new") > 0);
    drop(page);
    // Files as another program or an earlier version may have left them.
    let longer = 3 * SharedPage::BYTES as u64;
    for (name, len) in [
        ("short", 7),
        ("sparse", SharedPage::BYTES as u64),
        ("longer", longer),
    ] {
        let file = fs::File::create(dir.path().join(name)).unwrap();
        file.set_len(len).unwrap();
        assert_eq!(blocks(name), 0, "the filesystem has no sparse files");
        drop(SharedPage::open(dir.path().join(name)).unwrap());
        assert!(blocks(name) > 0, "{name}");
        let expected = len.max(SharedPage::BYTES as u64);
        assert_eq!(file.metadata().unwrap().len(), expected);
    }
    // Existing content is kept.
    let path = dir.path().join("filled");
    fs::write(&path, [7; 100]).unwrap();
    drop(SharedPage::open(&path).unwrap());
    assert_eq!(
        fs::read(&path).unwrap()[..101],
        [[7; 100].as_slice(), &[0]].concat()
    );
}

#[test]
fn a_reader_is_woken_too() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("page");
    let page = SharedPage::open(&path).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let reader = SharedPageReader::open(&path).unwrap();
            while reader.load_u32(CALL) == 0 {
                reader.wait(CALL, 0, 2 * PATIENCE);
            }
            assert_eq!(reader.load_u64(5), 55);
        });
        page.u64(5).store(55, Ordering::Relaxed);
        page.u32(CALL).store(1, Ordering::Release);
        page.wake_all(CALL);
    });
}

#[test]
fn a_wait_ends_with_its_time_or_at_once_when_the_word_differs() {
    let dir = tempfile::tempdir().unwrap();
    let page = SharedPage::open(dir.path().join("page")).unwrap();
    page.wait(CALL, 0, Duration::from_millis(1));
    page.wait(CALL, 0, Duration::ZERO);
    page.wait(CALL, 1, 2 * PATIENCE);
}

#[test]
fn every_word_is_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("page");
    let page = SharedPage::open(&path).unwrap();
    for index in 0..SharedPage::U64_WORDS {
        page.u64(index).store(index as u64 + 1, Ordering::Relaxed);
    }
    for (index, value) in (0..SharedPage::U32_WORDS).zip(1000..) {
        page.u32(index).store(value, Ordering::Relaxed);
    }
    let reader = SharedPageReader::open(&path).unwrap();
    for index in 0..SharedPage::U64_WORDS {
        assert_eq!(reader.load_u64(index), index as u64 + 1);
    }
    for (index, value) in (0..SharedPage::U32_WORDS).zip(1000..) {
        assert_eq!(reader.load_u32(index), value);
    }
    assert_eq!(fs::metadata(&path).unwrap().len(), SharedPage::BYTES as u64);
    assert_eq!(page.identity().unwrap(), reader.identity().unwrap());
}

#[test]
#[should_panic(expected = "32-bit words")]
fn a_word_beyond_the_page_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let page = SharedPage::open(dir.path().join("page")).unwrap();
    page.u32(SharedPage::U32_WORDS).load(Ordering::Relaxed);
}

#[test]
fn a_long_file_is_not_cut() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("page");
    fs::write(&path, vec![7; 9000]).unwrap();
    let page = SharedPage::open(&path).unwrap();
    page.check().unwrap();
    assert_eq!(fs::read(&path).unwrap(), vec![7; 9000]);
}

#[test]
fn a_reader_creates_and_lengthens_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("page");
    let error = SharedPageReader::open(&path).unwrap_err();
    assert!(
        matches!(error, PageError::Io { op: "open", .. }),
        "{error:?}"
    );
    assert!(!path.exists());
    fs::write(&path, "short").unwrap();
    let error = SharedPageReader::open(&path).unwrap_err();
    assert!(matches!(error, PageError::Truncated { len_bytes: 5, .. }));
    assert_eq!(fs::read(&path).unwrap(), b"short");
}

#[test]
#[cfg(unix)]
fn a_page_cut_short_is_reported_and_can_be_opened_anew() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("page");
    let page = SharedPage::open(&path).unwrap();
    let reader = SharedPageReader::open(&path).unwrap();
    page.u64(1).store(1, Ordering::Relaxed);
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    for len_bytes in [4095, 0] {
        file.set_len(len_bytes).unwrap();
        for error in [page.check().unwrap_err(), reader.check().unwrap_err()] {
            let PageError::Truncated {
                len_bytes: found, ..
            } = error
            else {
                panic!("{error}");
            };
            assert_eq!(found, len_bytes);
        }
    }
    let new = SharedPage::open(&path).unwrap();
    new.check().unwrap();
    assert_eq!(new.u64(1).load(Ordering::Relaxed), 0);
}

#[test]
#[cfg(windows)]
fn a_page_in_use_cannot_be_cut_short() {
    const ERROR_USER_MAPPED_FILE: i32 = 1224;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("page");
    let page = SharedPage::open(&path).unwrap();
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    let error = file.set_len(0).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(ERROR_USER_MAPPED_FILE));
    page.check().unwrap();
}

#[test]
#[cfg(unix)]
fn a_deleted_page_is_reported() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("page");
    let page = SharedPage::open(&path).unwrap();
    let reader = SharedPageReader::open(&path).unwrap();
    fs::remove_file(&path).unwrap();
    for error in [page.check().unwrap_err(), reader.check().unwrap_err()] {
        assert!(matches!(error, PageError::Deleted { .. }), "{error}");
    }
    let new = SharedPage::open(&path).unwrap();
    assert_ne!(new.identity().unwrap(), page.identity().unwrap());
}

#[test]
fn a_copy_has_another_identity() {
    let dir = tempfile::tempdir().unwrap();
    let (original, copy) = (dir.path().join("page"), dir.path().join("copy"));
    let page = SharedPage::open(&original).unwrap();
    fs::copy(&original, &copy).unwrap();
    let copied = SharedPage::open(&copy).unwrap();
    assert_ne!(page.identity().unwrap(), copied.identity().unwrap());
}
