//! Writes a second through [`EtcdLog`], beside the same transactions by a bare client of the
//! gateway, in turn, on three nodes that it starts; and the processor time of a write.
//!
//! `cargo run --release --package strand-etcd --features testing --example measure`

use std::{
    thread,
    time::{Duration, Instant},
};

use base64::Engine as _;
use serde_json::{Value, json};
use strand_core::{Batch, Issue};
use strand_etcd::{EtcdLog, Options, testing::Nodes};

const ROUND: Duration = Duration::from_secs(2);
const PAIRS: usize = 11;

fn main() {
    let Some(mut nodes) = Nodes::start(3) else {
        return;
    };
    for agents in [1, 20] {
        let (mut ours, mut bare, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
        for pair in 0..PAIRS {
            let address = nodes.address(&store(agents, pair)).parse();
            let address = address.expect("it is an address");
            EtcdLog::open_or_create(&address, Options::default()).expect("it opens");
            let by_log = || timed(&nodes, || by_log(&nodes, agents, pair));
            let by_bare_client = || timed(&nodes, || by_bare_client(&nodes, agents, pair));
            let (one, other) = if pair % 2 == 0 {
                let one = by_log();
                (one, by_bare_client())
            } else {
                let other = by_bare_client();
                (by_log(), other)
            };
            ratios.push(one.writes / other.writes);
            ours.push(one);
            bare.push(other);
        }
        ratios.sort_unstable_by(f64::total_cmp);
        println!(
            "{agents} agents, over a bare client: {:.2}",
            median(&ratios)
        );
        println!("  all pairs: {ratios:.2?}");
        println!("  {}", Round::describe(&ours));
        println!("  bare client: {}", Round::describe(&bare));
    }
    leader_dies(&mut nodes);
}

/// Each pair has a store of its own: to read what is there is no part of a write.
fn store(agents: usize, pair: usize) -> String {
    format!("measured-{agents}-{pair}")
}

/// What a round did.
#[derive(Clone, Copy)]
struct Round {
    /// A second.
    writes: f64,
    /// The microseconds of processor time of a write, here and of the nodes, with what it takes to
    /// begin.
    own_us: f64,
    nodes_us: f64,
}

impl Round {
    fn describe(all: &[Round]) -> String {
        let of = |part: fn(&Round) -> f64| median(&all.iter().map(part).collect::<Vec<_>>());
        format!(
            "{:.0} writes/s, each {:.0} us of a processor, and {:.0} us of the nodes'",
            of(|round| round.writes),
            of(|round| round.own_us),
            of(|round| round.nodes_us)
        )
    }
}

fn timed(nodes: &Nodes, round: impl FnOnce() -> f64) -> Round {
    let used = || {
        let all = (0..nodes.count()).filter_map(|node| nodes.pid(node));
        (
            processor_us(std::process::id()),
            all.map(processor_us).sum::<f64>(),
        )
    };
    let before = used();
    let writes = round();
    let after = used();
    let all = writes * ROUND.as_secs_f64();
    Round {
        writes,
        own_us: (after.0 - before.0) / all,
        nodes_us: (after.1 - before.1) / all,
    }
}

/// How long a process has computed, in ticks of 10 ms.
fn processor_us(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or_default();
    let ticks = fields.split_whitespace().skip(11).take(2);
    ticks
        .filter_map(|field| field.parse::<f64>().ok())
        .sum::<f64>()
        * 10_000.0
}

fn median(all: &[f64]) -> f64 {
    let mut sorted = all.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}

/// Runs the agents for a round, and counts what they did. The first call makes an agent ready; the
/// others say whether they wrote.
fn count<A: FnMut(u64) -> bool>(agents: usize, agent: impl Fn(usize) -> A + Sync) -> f64 {
    let begin = std::sync::Barrier::new(agents);
    let done: u64 = thread::scope(|scope| {
        let running: Vec<_> = (0..agents)
            .map(|number| {
                let (agent, begin) = (&agent, &begin);
                scope.spawn(move || {
                    let mut write = agent(number);
                    write(0);
                    begin.wait();
                    let until = Instant::now() + ROUND;
                    let mut done = 0;
                    for n in 1.. {
                        if Instant::now() >= until {
                            break;
                        }
                        done += u64::from(write(n));
                    }
                    done
                })
            })
            .collect();
        running
            .into_iter()
            .filter_map(|agent| agent.join().ok())
            .sum()
    });
    let seconds = u32::try_from(ROUND.as_secs()).unwrap_or(1);
    let done = u32::try_from(done).unwrap_or(u32::MAX);
    f64::from(done) / f64::from(seconds)
}

fn by_log(nodes: &Nodes, agents: usize, pair: usize) -> f64 {
    let address = nodes.address(&store(agents, pair)).parse();
    let address = address.expect("it is an address");
    count(agents, |agent| {
        let log = EtcdLog::open(&address, Options::default()).expect("it opens");
        move |n| {
            let id = format!("bd-{agents}-{pair}-{agent}-{n}");
            let batch = Batch::new()
                .key(format!("k/{id}"))
                .create(Issue::new(&id, "Mend"));
            log.commit(&batch).is_ok()
        }
    })
}

/// The same transactions, byte for byte but for the random names in them, as text.
fn by_bare_client(nodes: &Nodes, agents: usize, pair: usize) -> f64 {
    let text = nodes.address(&store(agents, pair));
    let hosts = text.strip_prefix("etcd://");
    let (hosts, store) = hosts.and_then(|rest| rest.split_once('/')).expect("both");
    let host = hosts.split(',').next().expect("there is one");
    let url = format!("http://{host}/v3/kv/txn");
    let encode = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
    let key = |name: &str| encode(&format!("strand/1/{store}/{name}"));
    let kv = |key: &str| json!({"key": key}).to_string();
    let client = ureq::Agent::new_with_defaults();
    let epoch = key("epoch");
    let found = client
        .post(format!("http://{host}/v3/kv/range"))
        .send(kv(&epoch));
    let found = found.and_then(|mut found| found.body_mut().read_to_string());
    let found: Value = serde_json::from_str(&found.expect("it answers")).expect("it is JSON");
    let revision = found.pointer("/kvs/0/mod_revision");
    let revision = revision.and_then(Value::as_str).expect("it is there");
    count(agents, |agent| {
        let client = ureq::Agent::new_with_defaults();
        let (epoch, url) = (epoch.clone(), url.clone());
        move |n| {
            let id = format!("be-{agents}-{pair}-{agent}-{n}");
            let issue = Issue::new(&id, "Mend");
            let record = format!(
                r#"{{"ts":1700000000000,"op":"add","id":"{id}","data":{},"key":"k/{id}"}}"#,
                issue.as_json()
            );
            let nonce = format!("{:032x}", (agent as u64) << 32 | n);
            let (k, v) = (key(&format!("k/k/{id}")), key(&format!("v/{id}")));
            let r = key(&format!("r/0000000000000001/{nonce}"));
            let carrier = encode(&format!("{nonce} {n:016x}"));
            let txn = json!({
                "compare": [
                    {"key": epoch, "target": "MOD", "result": "EQUAL", "mod_revision": revision},
                    {"key": k, "target": "MOD", "result": "EQUAL", "mod_revision": "0"},
                    {"key": v, "target": "MOD", "result": "LESS", "mod_revision": "1000000"},
                ],
                "success": [
                    {"request_put": {"key": r, "value": encode(&record)}},
                    {"request_put": {"key": k, "value": carrier}},
                    {"request_put": {"key": v, "value": ""}},
                ],
                "failure": [
                    {"request_range": {"key": epoch}},
                    {"request_range": {"key": k}},
                    {"request_range": {"key": v}},
                ],
            });
            let answer = client.post(&url).send(txn.to_string());
            let answer = answer.and_then(|mut answer| answer.body_mut().read_to_string());
            // On a busy machine, there may be no leader for a while.
            let answer = serde_json::from_str(&answer.unwrap_or_default());
            answer.is_ok_and(|answer: Value| answer.get("succeeded") == Some(&true.into()))
        }
    })
}

/// How long a writer waits when the leader is killed.
fn leader_dies(nodes: &mut Nodes) {
    let address = nodes.address("killed").parse().expect("it is an address");
    let (log, _) = EtcdLog::open_or_create(&address, Options::default()).expect("it opens");
    let mut waits = Vec::new();
    for n in 0..5 {
        nodes.await_leader();
        let Some(leader) = nodes.leader() else {
            continue;
        };
        log.create(Issue::new(&format!("before-{n}"), "Mend"))
            .expect("it is written");
        nodes.kill(leader);
        let started = Instant::now();
        log.create(Issue::new(&format!("after-{n}"), "Mend"))
            .expect("it is written");
        waits.push(started.elapsed());
        nodes.restart(leader);
    }
    println!("a write after the leader was killed takes {waits:.1?}");
}
