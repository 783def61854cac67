//! Agents on two hosts: network namespaces with a node of the cluster each. They need root and
//! `ip`; elsewhere the test says SKIPPED.

use std::{
    collections::BTreeMap,
    env,
    io::{BufRead as _, BufReader, Write as _},
    net::SocketAddr,
    process::{Child, Command, Stdio},
};

use strand_core::{CommitError, Issue, backend::Backend as _};
use strand_etcd::{
    Address, EtcdLog, Options,
    testing::{self, Nodes, Place},
};

const TEST: &str = "hosts::of_claims_from_two_hosts_one_wins";
/// The part of a process that the test starts of itself.
const ROLE: &str = "STRAND_TEST_HOSTS";
const ISSUES: usize = 60;

#[test]
#[expect(clippy::print_stderr, reason = "a test that is skipped says so")]
fn of_claims_from_two_hosts_one_wins() {
    if let Ok(role) = env::var(ROLE) {
        let words: Vec<&str> = role.split(' ').collect();
        return match words.as_slice() {
            ["agent", name, address] => claim_all(name, &address.parse().unwrap()),
            hosts => referee(hosts),
        };
    }
    if let Some(why) = testing::obstacle() {
        assert!(!testing::is_required(), "{why}");
        eprintln!("SKIPPED: {why}");
        return;
    }
    let hosts = match Hosts::make() {
        Ok(hosts) => hosts,
        Err(why) => return eprintln!("SKIPPED: network namespaces can't be made: {why}"),
    };
    // The nodes can be reached from the hosts only.
    let refereed = on(hosts.hub(), &hosts.names.join(" ")).output().unwrap();
    let text = [refereed.stdout, refereed.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    assert!(refereed.status.success(), "{text}");
}

/// Starts a node on each host and an agent on two of them, and compares what the agents say with
/// what is stored.
fn referee(hosts: &[&str]) {
    let dir = tempfile::tempdir().unwrap();
    let places = (1..).zip(hosts).map(|(number, host)| Place {
        host: Some((*host).to_owned()),
        client: SocketAddr::from(([10, 78, 0, number], 2379)),
        peer: SocketAddr::from(([10, 78, 0, number], 2380)),
        dir: dir.path().to_owned(),
    });
    let nodes = Nodes::start_at(places.collect(), &[]);
    let address = nodes.address("team");
    let parsed = address.parse().unwrap();
    let (log, _) = EtcdLog::open_or_create(&parsed, Options::default()).unwrap();
    for number in 0..ISSUES {
        log.create(Issue::new(&id(number), "Mend the fence"))
            .unwrap();
    }
    let mut agents: Vec<(&str, Child)> = hosts
        .iter()
        .skip(1)
        .map(|host| {
            let mut agent = on(host, &format!("agent {host} {address}"));
            let agent = agent.stdin(Stdio::piped()).stdout(Stdio::piped());
            (*host, agent.spawn().unwrap())
        })
        .collect();
    let mut said: Vec<_> = agents
        .iter_mut()
        .map(|(_, agent)| BufReader::new(agent.stdout.take().unwrap()).lines())
        .collect();
    for lines in &mut said {
        assert!(lines.any(|line| line.unwrap().ends_with("ready")));
    }
    for (_, agent) in &mut agents {
        agent.stdin.take().unwrap().write_all(b"go\n").unwrap();
    }
    let mut winners: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for ((name, agent), lines) in agents.iter_mut().zip(said) {
        for line in lines {
            if let Some(won) = line.unwrap().strip_prefix("won ") {
                winners.entry(won.to_owned()).or_default().push(name);
            }
        }
        assert!(agent.wait().unwrap().success());
    }
    let issues = log.issues().unwrap();
    for number in 0..ISSUES {
        let id = id(number);
        let assignee = issues.get(&id).and_then(Issue::assignee);
        let won = winners.get(&id).map(Vec::as_slice).unwrap_or_default();
        assert_eq!(won, [assignee.unwrap_or_default()], "{id}");
    }
}

/// Claims all issues in one order, so that the agents meet.
#[expect(clippy::print_stdout, reason = "the referee reads it")]
fn claim_all(name: &str, address: &Address) {
    let log = EtcdLog::open(address, Options::default()).unwrap();
    println!("\nready");
    std::io::stdin().read_line(&mut String::new()).unwrap();
    for number in 0..ISSUES {
        match log.claim(&id(number), name) {
            Ok(_) => println!("won {}", id(number)),
            Err(CommitError::Conflict(_)) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

fn id(number: usize) -> String {
    format!("bd-{number}")
}

/// This test, on a host.
fn on(host: &str, role: &str) -> Command {
    let mut command = Command::new("ip");
    command
        .args(["netns", "exec", host])
        .arg(env::current_exe().unwrap())
        .args(["--exact", TEST, "--nocapture"])
        .env(ROLE, role);
    command
}

/// Three namespaces, which end with the value. The first has the bridge that joins them.
struct Hosts {
    names: Vec<String>,
}

impl Hosts {
    fn hub(&self) -> &str {
        self.names.first().map_or("", String::as_str)
    }

    fn make() -> Result<Hosts, String> {
        let mut hosts = Hosts { names: Vec::new() };
        for number in 1..=3 {
            let name = format!("strand-{}-claims-{number}", std::process::id());
            ip(&format!("netns add {name}"))?;
            hosts.names.push(name.clone());
            ip(&format!("-n {name} link set lo up"))?;
            let hub = hosts.hub();
            if number == 1 {
                ip(&format!("-n {hub} link add link0 type bridge"))?;
            } else {
                let port = format!("port{number}");
                ip(&format!(
                    "-n {hub} link add {port} type veth peer name link0 netns {name}"
                ))?;
                ip(&format!("-n {hub} link set {port} master link0 up"))?;
            }
            ip(&format!("-n {name} addr add 10.78.0.{number}/24 dev link0"))?;
            ip(&format!("-n {name} link set link0 up"))?;
        }
        Ok(hosts)
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        for name in &self.names {
            ip(&format!("netns del {name}")).ok();
        }
    }
}

fn ip(words: &str) -> Result<(), String> {
    let output = Command::new("ip").args(words.split(' ')).output();
    let output = output.map_err(|error| format!("ip: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("ip {words}: {}", said.trim()))
}
