//! Writes a second through [`EtcdLog`], beside the same transactions by a bare client of the
//! gateway, in turn, on three nodes that it starts.
//!
//! `cargo run --release --package strand-etcd --features testing --example measure`

use std::{
    thread,
    time::{Duration, Instant},
};

use base64::Engine as _;
use serde_json::json;
use strand_core::{Batch, Issue};
use strand_etcd::{EtcdLog, Options, testing::Nodes};

const ROUND: Duration = Duration::from_secs(3);
const ROUNDS: usize = 3;

fn main() {
    let Some(mut nodes) = Nodes::start(3) else {
        return;
    };
    for agents in [1, 20] {
        let (mut ours, mut bare) = (0.0, 0.0);
        for round in 0..ROUNDS {
            ours += by_log(&nodes, agents, round);
            bare += by_bare_client(&nodes, agents, round);
        }
        let per_second = |sum: f64| sum / f64::from(u8::try_from(ROUNDS).unwrap_or(1));
        let (ours, bare) = (per_second(ours), per_second(bare));
        println!(
            "{agents} agents: {ours:.0} writes/s, bare client {bare:.0}: {:.2}",
            ours / bare
        );
    }
    leader_dies(&mut nodes);
}

/// Runs the agents for a round, and counts what they did. The first call makes an agent ready.
fn count<A: FnMut(u64)>(agents: usize, agent: impl Fn(usize) -> A + Sync) -> f64 {
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
                    while Instant::now() < until {
                        done += 1;
                        write(done);
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

fn by_log(nodes: &Nodes, agents: usize, round: usize) -> f64 {
    let address = nodes.address("measured").parse().expect("it is an address");
    count(agents, |agent| {
        let (log, _) = EtcdLog::open_or_create(&address, Options::default()).expect("it opens");
        move |n| {
            let id = format!("bd-{agents}-{round}-{agent}-{n}");
            let batch = Batch::new()
                .key(format!("k/{id}"))
                .create(Issue::new(&id, "Mend"));
            log.commit(&batch).expect("it is written");
        }
    })
}

fn by_bare_client(nodes: &Nodes, agents: usize, round: usize) -> f64 {
    let text = nodes.address("bare");
    let hosts = text
        .strip_prefix("etcd://")
        .and_then(|rest| rest.split_once('/'));
    let host = hosts
        .and_then(|(hosts, _)| hosts.split(',').next())
        .expect("there is one");
    let url = format!("http://{host}/v3/kv/txn");
    let key = |name: &str| {
        let name = format!("strand/1/bare/{name}");
        base64::engine::general_purpose::STANDARD.encode(name)
    };
    count(agents, |agent| {
        let client = ureq::Agent::new_with_defaults();
        let url = url.clone();
        move |n| {
            let id = format!("bd-{agents}-{round}-{agent}-{n}");
            let names = [format!("k/{id}"), format!("v/{id}"), "epoch".to_owned()];
            let keys = names.map(|name| key(&name));
            let value = json!({"ts": 1_700_000_000_000_u64, "op": "add", "id": id,
                "data": serde_json::from_str::<serde_json::Value>(Issue::new(&id, "Mend").as_json())
                    .expect("it is JSON"),
                "key": format!("k/{id}")});
            let value = base64::engine::general_purpose::STANDARD.encode(value.to_string());
            let record = key(&format!("r/0000000000000001/{id}"));
            let same = |key: &String| json!({"key": key, "target": "MOD", "result": "EQUAL", "mod_revision": "0"});
            let put =
                |key: &String, value: &str| json!({"request_put": {"key": key, "value": value}});
            let read = |key: &String| json!({"request_range": {"key": key}});
            let [k, v, epoch] = &keys;
            let txn = json!({
                "compare": [same(epoch), same(k), same(v)],
                "success": [put(&record, &value), put(k, "eA=="), put(v, "")],
                "failure": [read(epoch), read(k), read(v)],
            });
            let mut answer = client.post(&url).send(txn.to_string()).expect("it answers");
            let answer = answer.body_mut().read_to_string().expect("it answers");
            assert!(answer.contains("\"succeeded\":true"), "{answer}");
        }
    })
}

/// How long a writer waits when the leader is killed.
fn leader_dies(nodes: &mut Nodes) {
    let address = nodes.address("measured").parse().expect("it is an address");
    let log = EtcdLog::open(&address, Options::default()).expect("it opens");
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
