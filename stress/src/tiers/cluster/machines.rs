//! A cluster of real etcd nodes whose machines can fail: their processes, their network, and the
//! power of their disks.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rand::Rng as _;
use rand::rngs::StdRng;
use strand_etcd::testing::{Nodes, Place};
use tempfile::TempDir;

use crate::powerfs::mount::{Counts, PowerFs, Tripwire};
use crate::sim::disk::VirtualDisk;
use crate::tiers::cluster::hosts::{Hosts, address};

/// The hosts of the agents are behind those of the nodes.
pub(super) const AGENT_HOSTS: usize = 2;
/// Shorter than etcd's defaults (100 and 1,000 ms), for more faults in the same time.
const FLAGS: [&str; 2] = ["--heartbeat-interval=50", "--election-timeout=500"];
/// A client waits 1 s for a member; most faults are shorter, some are longer.
const FAULT_MS_MAX: u64 = 2_500;
/// The power goes after fewer requests of its kind than this, or after this time.
const PASSES_MAX: u32 = 60;
const TRIP_TIME: Duration = Duration::from_millis(1_500);
/// How long a cluster may take to come up.
const START_LIMIT: Duration = Duration::from_secs(20);
/// How long it may take when all nodes were started again.
const SECOND_START_LIMIT: Duration = Duration::from_mins(1);
/// How long a node may take to say what it is doing.
const LAST_WORDS_LIMIT: Duration = Duration::from_secs(2);
const TICK: Duration = Duration::from_millis(20);

/// A fault of the machines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// SIGKILL.
    Kill,
    /// SIGKILL to all nodes at once.
    KillAll,
    /// SIGSTOP.
    Stop,
    /// The node is unplugged.
    Unplug,
    /// The node and the others do not hear each other; clients hear all.
    Split,
    /// The others do not hear the node.
    Mute,
    /// The agents' first host is unplugged.
    UnplugAgents,
    /// The disk loses what was not synced, and the node dies.
    PowerCut,
    /// The same for all nodes at once.
    PowerCutAll,
}

/// The cluster and its machines.
pub(super) struct Machines<'a> {
    pub(super) hosts: &'a Hosts,
    pub(super) nodes: Nodes,
    /// Those whose power can be cut; otherwise none.
    disks: Vec<PowerFs>,
    dir: TempDir,
    counts: BTreeMap<&'static str, u64>,
    /// What the kernel said of nodes that hung.
    hung: String,
}

impl<'a> Machines<'a> {
    /// Starts a cluster on the first hosts. `has_power`: the power of its disks can be cut.
    pub(super) fn start(hosts: &'a Hosts, count: usize, has_power: bool) -> io::Result<Self> {
        let dir = TempDir::with_prefix("strand-cluster-")?;
        let mut disks = Vec::new();
        let mut places = Vec::new();
        for node in 0..count {
            let own = dir.path().join(node.to_string());
            std::fs::create_dir(&own)?;
            let own = if has_power {
                let disk = PowerFs::serve(VirtualDisk::new(), &own)?;
                let path = disk.path().to_owned();
                disks.push(disk);
                path
            } else {
                own
            };
            places.push(Place {
                host: Some(hosts.name(node).to_owned()),
                client: SocketAddr::new(address(node), 2379),
                peer: SocketAddr::new(address(node), 2380),
                dir: own,
            });
        }
        Ok(Machines {
            hosts,
            nodes: Nodes::spawn_at(places, &FLAGS),
            disks,
            dir,
            counts: BTreeMap::new(),
            hung: String::new(),
        })
    }

    /// What was done so far.
    pub(super) fn take_counts(&mut self) -> BTreeMap<&'static str, u64> {
        std::mem::take(&mut self.counts)
    }

    /// Whether the power of its disks can be cut.
    pub(super) fn has_power(&self) -> bool {
        !self.disks.is_empty()
    }

    /// The namespaces of the agents.
    pub(super) fn agents(&self) -> String {
        let hosts = self.nodes.count()..self.nodes.count() + AGENT_HOSTS;
        let names: Vec<&str> = hosts.map(|host| self.hosts.name(host)).collect();
        names.join(",")
    }

    /// Has faults until `is_over`, for `time` at most, and up to `calm` between two of them.
    /// Afterwards everything is as before.
    pub(super) fn disturb(
        &mut self,
        random: &mut StdRng,
        (time, calm): (Duration, Duration),
        is_over: &AtomicBool,
    ) -> io::Result<()> {
        let until = Instant::now() + time;
        while Instant::now() < until {
            let calm = random.random_range(Duration::ZERO..=calm);
            if is_over_within(is_over, calm) {
                break;
            }
            let fault = self.draw(random);
            // The leader is missed most.
            let leader = self.nodes.leader().filter(|_| random.random_ratio(1, 2));
            let node = leader.unwrap_or_else(|| random.random_range(0..self.nodes.count()));
            let time = Duration::from_millis(random.random_range(0..=FAULT_MS_MAX));
            self.suffer(fault, node, time, random, is_over)?;
            if let Some(ended) = self.ended().first() {
                return Err(io::Error::other(format!("etcd has ended: {ended}")));
            }
            // Without this, a cluster would be down most of the time.
            self.bring_up()?;
        }
        Ok(())
    }

    /// Waits for a leader. Now and then, a node hangs when it opens its database on a disk that has
    /// lost its power: then all are started again, as an operator would.
    ///
    /// # Errors
    /// There is still none.
    pub(super) fn bring_up(&mut self) -> io::Result<()> {
        if self.nodes.has_leader_within(START_LIMIT) {
            return Ok(());
        }
        self.count("starts that hung", 1);
        self.ask_what_hangs();
        for node in 0..self.nodes.count() {
            self.nodes.kill(node);
            self.nodes.restart(node);
        }
        if self.nodes.has_leader_within(SECOND_START_LIMIT) {
            return Ok(());
        }
        self.ask_what_hangs();
        Err(io::Error::other(
            "etcd has no leader, also when started again",
        ))
    }

    /// Has each node write the stacks of its threads to its log, and asks the kernel where they
    /// wait.
    fn ask_what_hangs(&mut self) {
        for node in 0..self.nodes.count() {
            let Some(pid) = self.nodes.pid(node) else {
                continue;
            };
            // A thread that ends meanwhile does not wait.
            let threads = std::fs::read_dir(format!("/proc/{pid}/task"));
            for thread in threads.into_iter().flatten().flatten() {
                let read = |name: &str| {
                    let text = std::fs::read_to_string(thread.path().join(name));
                    text.unwrap_or_default().trim().replace('\n', "; ")
                };
                let (wchan, call, stack) = (read("wchan"), read("syscall"), read("stack"));
                let thread = thread.file_name();
                let thread = thread.to_string_lossy();
                let said = format!("node {node}, thread {thread}: {wchan}; {call}; {stack}\n");
                self.hung.push_str(&said);
            }
            // The runtime of Go prints its stacks and ends.
            self.nodes.signal(node, "QUIT");
        }
        let until = Instant::now() + LAST_WORDS_LIMIT;
        let all = 0..self.nodes.count();
        while !all.clone().all(|node| self.nodes.has_ended(node)) && Instant::now() < until {
            thread::sleep(TICK);
        }
    }

    /// Keeps the logs of the nodes for somebody to look at.
    pub(super) fn keep_logs(&self) -> io::Result<PathBuf> {
        let dir = TempDir::with_prefix("strand-etcd-logs-")?.keep();
        for log in self.nodes.logs() {
            if let Some(name) = log.file_name() {
                std::fs::copy(&log, dir.join(name))?;
            }
        }
        if !self.hung.is_empty() {
            std::fs::write(dir.join("threads"), &self.hung)?;
        }
        Ok(dir)
    }

    fn draw(&self, random: &mut StdRng) -> Fault {
        let many = self.nodes.count() > 1;
        let power = !self.disks.is_empty();
        let faults: &[Fault] = match (many, power) {
            (true, true) => &[
                Fault::Kill,
                Fault::PowerCut,
                Fault::PowerCut,
                Fault::PowerCutAll,
                Fault::Split,
            ],
            (true, false) => &[
                Fault::Kill,
                Fault::Kill,
                Fault::KillAll,
                Fault::Stop,
                Fault::Unplug,
                Fault::Split,
                Fault::Mute,
                Fault::UnplugAgents,
            ],
            (false, true) => &[Fault::Kill, Fault::PowerCut, Fault::PowerCut],
            (false, false) => &[Fault::Kill, Fault::Stop, Fault::Unplug],
        };
        let at = random.random_range(0..faults.len());
        faults.get(at).copied().unwrap_or(Fault::Kill)
    }

    fn suffer(
        &mut self,
        fault: Fault,
        node: usize,
        time: Duration,
        random: &mut StdRng,
        is_over: &AtomicBool,
    ) -> io::Result<()> {
        let all: Vec<usize> = (0..self.nodes.count()).collect();
        let one = [node];
        let others: Vec<usize> = all.iter().copied().filter(|other| *other != node).collect();
        let wait = || {
            is_over_within(is_over, time);
        };
        let first_agents = self.nodes.count();
        match fault {
            Fault::Kill | Fault::KillAll => {
                let nodes = if fault == Fault::Kill { &one[..] } else { &all };
                for node in nodes {
                    self.nodes.kill(*node);
                }
                self.count("node kills", nodes.len());
                wait();
                for node in nodes {
                    self.nodes.restart(*node);
                }
            }
            Fault::PowerCut | Fault::PowerCutAll => {
                let nodes = if fault == Fault::PowerCut {
                    &one[..]
                } else {
                    &all
                };
                self.cut_power(nodes, random)?;
                self.count("power cuts", nodes.len());
                wait();
                for node in nodes {
                    self.nodes.restart(*node);
                }
            }
            Fault::Stop => {
                self.nodes.signal(node, "STOP");
                self.count("node stops", 1);
                wait();
                self.nodes.signal(node, "CONT");
            }
            Fault::Unplug | Fault::UnplugAgents => {
                let host = if fault == Fault::Unplug {
                    node
                } else {
                    first_agents
                };
                self.hosts.plug(host, false)?;
                self.count("partitions", 1);
                wait();
                self.hosts.plug(host, true)?;
            }
            Fault::Split | Fault::Mute => {
                let mut pairs: Vec<(usize, usize)> = Vec::new();
                for other in others {
                    pairs.push((node, other));
                    if fault == Fault::Split {
                        pairs.push((other, node));
                    }
                }
                for (from, to) in &pairs {
                    self.hosts.lose(*from, *to, true)?;
                }
                self.count("partitions", 1);
                wait();
                for (from, to) in &pairs {
                    self.hosts.lose(*from, *to, false)?;
                }
            }
        }
        Ok(())
    }

    fn count(&mut self, name: &'static str, more: usize) {
        *self.counts.entry(name).or_default() += more as u64;
    }

    /// Cuts the power of some nodes at the same moment, and leaves what their disks kept.
    fn cut_power(&mut self, nodes: &[usize], random: &mut StdRng) -> io::Result<()> {
        if let Some(disk) = nodes.first().and_then(|node| self.disks.get(*node)) {
            // Most is not synced where a sync begins.
            disk.arm(Tripwire {
                counts: if random.random_ratio(2, 3) {
                    Counts::FileSyncs
                } else {
                    Counts::Changes
                },
                passes: random.random_range(0..PASSES_MAX),
                is_done: random.random_ratio(1, 4),
            });
            let at_request = disk.is_cut_within(TRIP_TIME);
            self.count("power cuts at a request", usize::from(at_request));
        }
        let disks = |machines: &Self, act: fn(&PowerFs)| {
            nodes
                .iter()
                .filter_map(|node| machines.disks.get(*node))
                .for_each(act);
        };
        disks(self, PowerFs::cut);
        for node in nodes {
            self.nodes.signal(*node, "KILL");
        }
        // A process that waits for the disk can't die before it has an answer.
        disks(self, PowerFs::release);
        for node in nodes {
            self.nodes.kill(*node);
            let Some(place) = self.disks.get_mut(*node) else {
                continue;
            };
            let (left, losses) = place.with_disk(|disk| disk.crash_in_sectors(random));
            let mount_point: PathBuf = self.dir.path().join(node.to_string());
            let served = PowerFs::serve(left, &mount_point)?;
            self.nodes.move_to(*node, served.path().to_owned());
            std::mem::replace(place, served).end()?;
            for (name, count) in losses.named() {
                *self.counts.entry(name).or_default() += count;
            }
        }
        Ok(())
    }

    /// The nodes that have ended by themselves, with the end of what they said.
    pub(super) fn ended(&mut self) -> Vec<String> {
        let mut ended = Vec::new();
        for node in 0..self.nodes.count() {
            if self.nodes.has_ended(node) {
                let last = self.nodes.last_words(node).join(" | ");
                ended.push(format!("node {node}: {last}"));
            }
        }
        ended
    }
}

impl Drop for Machines<'_> {
    fn drop(&mut self) {
        // Before the disks end.
        for disk in &self.disks {
            disk.cut();
        }
        for node in 0..self.nodes.count() {
            self.nodes.signal(node, "KILL");
        }
        for disk in &self.disks {
            disk.release();
        }
        for node in 0..self.nodes.count() {
            self.nodes.kill(node);
        }
    }
}

fn is_over_within(is_over: &AtomicBool, time: Duration) -> bool {
    let until = Instant::now() + time;
    while !is_over.load(Ordering::Relaxed) {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return false;
        }
        thread::sleep(left.min(TICK));
    }
    true
}
