//! Files, limits and systems that are not as the command would have them.

use std::{fs, process::Command};

use strand_lock::FileLock;

use crate::support::{Store, run, strand};

#[test]
fn init_overwrites_no_file_of_somebody_else() {
    let page = |fill: u8| vec![fill; 4096];
    for name in ["lock", "shm", "compact.lock"] {
        for content in [&b"my notes"[..], &b"my data\n".repeat(1000), &page(1)] {
            let dir = tempfile::tempdir().unwrap();
            let file = dir.path().join(name);
            fs::write(&file, content).unwrap();
            let done = run(strand().arg("-C").arg(dir.path()).arg("init"));
            assert_eq!(done.code, 10, "{name}: {}", done.err);
            assert!(done.err.contains(file.to_str().unwrap()), "{}", done.err);
            assert_eq!(fs::read(&file).unwrap(), content);
            assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "{name}");
        }
    }
}

#[test]
fn init_takes_what_another_store_has_left() {
    let store = Store::of(&[("a", "")]);
    // As compactions and waiters leave it.
    store.ok("compact", &[]);
    drop(
        FileLock::open(store.file("compact.lock"))
            .unwrap()
            .lock()
            .unwrap(),
    );
    for entry in fs::read_dir(store.dir()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|end| end == "jsonl") || path.ends_with("MANIFEST") {
            fs::remove_file(path).unwrap();
        }
    }
    for name in ["lock", "shm", "compact.lock"] {
        assert!(store.file(name).exists(), "{name}");
    }
    store.ok("init", &[]);
    for name in ["lock", "shm", "compact.lock"] {
        fs::write(store.file(name), "").unwrap();
    }
    store.ok("init", &[]);
}

#[test]
#[cfg(unix)]
fn a_limit_on_the_size_of_files_is_an_error_and_not_the_end() {
    let store = Store::of(&[("a", "")]);
    // In blocks of 512 bytes.
    let script = "ulimit -f 16; exec \"$@\"";
    let mut seen = false;
    for number in 0..200 {
        let mut command = Command::new("sh");
        command.args(["-c", script, "sh", env!("CARGO_BIN_EXE_strand"), "-C"]);
        command.arg(store.dir()).args(["create", "--id"]);
        let done = run(command.arg(format!("b-{number}")).arg("y".repeat(1000)));
        if done.code == 0 {
            continue;
        }
        assert_eq!(done.code, 1, "{}", done.err);
        assert!(done.err.contains("File too large"), "{}", done.err);
        seen = true;
        break;
    }
    assert!(seen);
    assert_eq!(store.run("doctor", &[]).code, 0);
}

#[test]
fn a_compaction_needs_no_thread_of_its_own() {
    let store = Store::of(&[("a", "")]);
    let mut compact = store.command("compact", &[]);
    let done = run(compact.env("RUST_MIN_STACK", (1_u64 << 46).to_string()));
    assert_eq!(done.code, 0, "{}", done.err);
}
