//! Several processes on one store. Each test starts this binary again as its own children.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    process::Child,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};
use strand_core::Seq;

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
    let mut stored = ids(log.records().unwrap());
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
    impl strand_core::testing::FailpointHook for Occupancy {
        fn reached(&self, point: strand_core::testing::Failpoint) {
            let holders: &AtomicU64 = self.0.u64(0);
            match point {
                strand_core::testing::Failpoint::LockHeld => {
                    let now = holders.fetch_add(1, Ordering::SeqCst) + 1;
                    self.0.u64(1).fetch_max(now, Ordering::SeqCst);
                    self.0.u64(2).fetch_add(1, Ordering::SeqCst);
                    // Stay long enough that another could come in.
                    std::thread::yield_now();
                }
                strand_core::testing::Failpoint::BeforeUnlock => {
                    holders.fetch_sub(1, Ordering::SeqCst);
                }
                _ => {}
            }
        }
    }
    if let Some((dir, agent)) = as_child() {
        let page = SharedPage::open(dir.with_extension("page")).unwrap();
        let options =
            strand_core::Options::default().failpoint_hook(std::sync::Arc::new(Occupancy(page)));
        let log = strand_core::Log::<strand_core::IssueEvent>::open(&dir, options).unwrap();
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
    assert_eq!((word(0), word(1)), (0, 1), "holders now, and most at once");
    // One for each open, and one for each group of appends.
    assert!(word(2) > 3, "{} holds", word(2));
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
                    // A line that the kill cut short is no acknowledgement; whole ones end in a
                    // digit and are followed by the next one's newline.
                    lines
                        .filter_map(|line| line.strip_prefix("ACK ").map(str::to_owned))
                        .collect::<Vec<_>>()
                })
            })
            .collect();
        // All have begun to write when the log has grown; then kill at a moment that varies.
        let begun = Instant::now();
        let tail = log.tail_seq().unwrap().map_or(0, Seq::get);
        while log.tail_seq().unwrap() < Some(Seq::new(tail + 5 + round)) {
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
    let stored = ids(log.records().unwrap());
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

/// Stops or kills its own process the first time that the log comes to a point.
#[cfg(unix)]
struct AtPoint {
    point: strand_core::testing::Failpoint,
    signal: &'static str,
}

#[cfg(unix)]
impl strand_core::testing::FailpointHook for AtPoint {
    fn reached(&self, point: strand_core::testing::Failpoint) {
        if point == self.point {
            println!("\nAT {point}");
            let pid = std::process::id().to_string();
            let mut kill = std::process::Command::new("kill");
            kill.args([self.signal, &pid]).status().unwrap();
            // A process is stopped by the thread that gets the signal, perhaps another one. Until
            // that runs, this one would go on, and be stopped with the lock.
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

/// A child that appends once and is stopped or killed at the point that its argument names, and the
/// parent's log, once the child has come there.
#[cfg(unix)]
fn stuck_at(
    name: &str,
    dir: &std::path::Path,
    argument: &str,
) -> (Child, strand_core::Log<strand_core::IssueEvent>) {
    let log = open(dir);
    let mut child = child(name, dir, argument);
    let output = BufReader::new(child.stdout.take().unwrap());
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for line in output.lines().map_while(Result::ok) {
            if line.starts_with("AT ") {
                tell.send(()).unwrap();
            }
        }
    });
    told.recv_timeout(Duration::from_secs(30)).unwrap();
    (child, log)
}

#[cfg(unix)]
fn append_with(dir: &std::path::Path, point: &str, signal: &'static str) {
    let point = *strand_core::testing::Failpoint::ALL
        .iter()
        .find(|known| known.name() == point)
        .unwrap();
    let probe = std::sync::Arc::new(AtPoint { point, signal });
    let options = strand_core::Options::default().failpoint_hook(probe);
    let log = strand_core::Log::<strand_core::IssueEvent>::open(dir, options).unwrap();
    log.append(&event("bd-stuck")).unwrap();
}

#[cfg(unix)]
#[test]
fn a_stopped_leader_delays_no_one_and_is_right_when_it_continues() {
    if let Some((dir, point)) = as_child() {
        return append_with(&dir, &point, "-STOP");
    }
    let name = "processes::a_stopped_leader_delays_no_one_and_is_right_when_it_continues";
    for point in [
        "LeaderElected",
        "BeforeSync",
        "AfterSync",
        "DurablePublished",
    ] {
        let dir = tempfile::tempdir().unwrap();
        let (child, log) = stuck_at(name, dir.path(), point);
        let stopped = Instant::now();
        let mut appends = 0_u32;
        while stopped.elapsed() < Duration::from_millis(200) {
            log.append(&event(&format!("bd-{appends}"))).unwrap();
            appends += 1;
            assert_eq!(
                log.durable_seq().unwrap(),
                Some(Seq::new(u64::from(appends) + 1)),
                "at {point}"
            );
        }
        assert!(
            appends > 2,
            "{appends} appends while the leader was stopped at {point}"
        );
        let durable_seq = log.durable_seq().unwrap();
        let pid = child.id().to_string();
        let mut kill = std::process::Command::new("kill");
        assert!(kill.args(["-CONT", &pid]).status().unwrap().success());
        finish(child);
        assert_eq!(
            log.durable_seq().unwrap(),
            durable_seq,
            "the durable number does not fall"
        );
        assert_eq!(ids(log.records().unwrap())[0], "bd-stuck");
    }
}

#[cfg(unix)]
#[test]
fn a_writer_killed_at_any_step_leaves_a_log_that_works() {
    if let Some((dir, point)) = as_child() {
        return append_with(&dir, &point, "-KILL");
    }
    let name = "processes::a_writer_killed_at_any_step_leaves_a_log_that_works";
    // Opening takes and frees the lock too, so a kill at either comes before anything is written.
    let steps = [
        ("LockHeld", 0),
        ("BeforeUnlock", 0),
        ("BeforeWrite", 0),
        ("AfterWrite", 1),
        ("TailPublished", 1),
        ("LeaderElected", 1),
        ("BeforeSync", 1),
        ("AfterSync", 1),
        ("DurablePublished", 1),
        ("Woken", 1),
    ];
    for (point, stored) in steps {
        for _ in 0..10 {
            let dir = tempfile::tempdir().unwrap();
            let (mut child, log) = stuck_at(name, dir.path(), point);
            child.wait().unwrap();
            let started = Instant::now();
            let seq = log.append(&event("bd-next")).unwrap().seq.get();
            assert!(started.elapsed() < Duration::from_secs(5));
            assert_eq!(seq, stored + 1, "killed at {point}");
            assert_eq!(log.durable_seq().unwrap(), Some(Seq::new(seq)));
            assert_eq!(ids(log.records().unwrap()).len() as u64, seq);
        }
    }
}
