//! Several processes on one store. Each test starts this binary again as its own children.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    process::Child,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use strand_lock::SharedPage;

use crate::support::{as_child, child, event, finish, ids, open};

/// Lets all children go at once, after each has said that it is ready.
fn release(children: &mut [Child]) {
    for child in children.iter_mut() {
        let mut line = String::new();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        while !line.contains("READY") {
            line.clear();
            assert!(
                output.read_line(&mut line).unwrap() > 0,
                "a child ended before it was ready"
            );
        }
        // Keep draining, so that no child blocks on a full pipe.
        std::thread::spawn(move || std::io::copy(&mut output, &mut std::io::sink()));
    }
    for child in children {
        child.stdin.take().unwrap().write_all(b"\n").unwrap();
    }
}

fn ready() {
    println!("READY");
    std::io::stdin().read_line(&mut String::new()).unwrap();
}

#[test]
fn five_processes_of_twenty_writes_lose_nothing_and_are_fast() {
    if let Some((dir, agent)) = as_child() {
        let log = open(&dir);
        ready();
        for write in 0..20 {
            log.append(&event(&format!("bd-t{agent}w{write}"))).unwrap();
        }
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let name = "processes::five_processes_of_twenty_writes_lose_nothing_and_are_fast";
    let mut children: Vec<_> = (0..5)
        .map(|agent| child(name, dir.path(), &agent.to_string()))
        .collect();
    release(&mut children);
    let started = Instant::now();
    children.into_iter().for_each(finish);
    let elapsed = started.elapsed();
    println!("5 processes x 20 writes: {elapsed:?}");
    assert!(elapsed < Duration::from_secs(2), "{elapsed:?}");
    let log = open(dir.path());
    let mut stored = ids(log.read().unwrap());
    assert_eq!(stored.len(), 100, "no data loss");
    stored.sort();
    let mut expected: Vec<_> = (0..5)
        .flat_map(|agent| (0..20).map(move |write| format!("bd-t{agent}w{write}")))
        .collect();
    expected.sort();
    assert_eq!(stored, expected);
}

#[test]
fn three_processes_of_ten_holds_never_hold_together() {
    struct Occupancy(SharedPage);
    impl strand_core::Probe for Occupancy {
        fn hit(&self, point: strand_core::Point) {
            let holders: &AtomicU64 = self.0.u64(0);
            match point {
                strand_core::Point::LockHeld => {
                    let now = holders.fetch_add(1, Ordering::SeqCst) + 1;
                    self.0.u64(1).fetch_max(now, Ordering::SeqCst);
                    self.0.u64(2).fetch_add(1, Ordering::SeqCst);
                    // Stay long enough that another could come in.
                    std::thread::yield_now();
                }
                strand_core::Point::BeforeUnlock => {
                    holders.fetch_sub(1, Ordering::SeqCst);
                }
                _ => {}
            }
        }
    }
    if let Some((dir, agent)) = as_child() {
        let page = SharedPage::open(dir.with_extension("page")).unwrap();
        let options = strand_core::Options::default().probe(std::sync::Arc::new(Occupancy(page)));
        let log: strand_core::Log = strand_core::Log::open(&dir, options).unwrap();
        ready();
        for write in 0..10 {
            log.append(&event(&format!("bd-t{agent}w{write}"))).unwrap();
        }
        return;
    }
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("store");
    std::fs::create_dir(&dir).unwrap();
    let page = SharedPage::open(dir.with_extension("page")).unwrap();
    let name = "processes::three_processes_of_ten_holds_never_hold_together";
    let mut children: Vec<_> = (0..3)
        .map(|agent| child(name, &dir, &agent.to_string()))
        .collect();
    release(&mut children);
    children.into_iter().for_each(finish);
    let word = |index| page.u64(index).load(Ordering::SeqCst);
    assert_eq!(
        (word(0), word(1), word(2)),
        (0, 1, 33),
        "holders now, most at once, holds: one for each append, one for each open"
    );
}

#[test]
fn agents_killed_at_any_moment_lose_no_acknowledged_write() {
    if let Some((dir, agent)) = as_child() {
        let log = open(&dir);
        for write in 0.. {
            let id = format!("bd-t{agent}w{write}");
            log.append(&event(&id)).unwrap();
            println!("\nACK {id}");
        }
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let name = "processes::agents_killed_at_any_moment_lose_no_acknowledged_write";
    let mut acknowledged = Vec::new();
    let log = open(dir.path());
    for round in 0..50_u64 {
        let mut children: Vec<_> = (0..3)
            .map(|agent| child(name, dir.path(), &format!("{round}-{agent}")))
            .collect();
        let readers: Vec<_> = children
            .iter_mut()
            .map(|child| {
                let output = BufReader::new(child.stdout.take().unwrap());
                std::thread::spawn(move || {
                    let lines = output.lines().map_while(Result::ok);
                    // A line that the kill cut short is no acknowledgement; whole ones end in a digit
                    // and are followed by the next one's newline.
                    lines
                        .filter_map(|line| line.strip_prefix("ACK ").map(str::to_owned))
                        .collect::<Vec<_>>()
                })
            })
            .collect();
        // All have begun to write when the log has grown; then kill at a moment that varies.
        let begun = Instant::now();
        let tail = log.tail_seq();
        while log.tail_seq() < tail + 5 + round {
            assert!(
                begun.elapsed() < Duration::from_mins(1),
                "the agents write nothing"
            );
            std::thread::yield_now();
        }
        for child in &mut children {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        for reader in readers {
            let mut acks = reader.join().unwrap();
            acks.pop();
            acknowledged.extend(acks);
        }
    }
    let started = Instant::now();
    log.append(&event("bd-last")).unwrap();
    assert!(
        started.elapsed() < Duration::from_secs(5),
        "a dead holder keeps nothing"
    );
    let stored = ids(log.read().unwrap());
    let mut unique = stored.clone();
    unique.sort();
    unique.dedup();
    assert_eq!(unique.len(), stored.len(), "nothing is stored twice");
    for id in &acknowledged {
        assert!(
            unique.binary_search(id).is_ok(),
            "{id} was acknowledged and is not stored"
        );
    }
    assert!(
        acknowledged.len() > 50,
        "{} acknowledged",
        acknowledged.len()
    );
}
