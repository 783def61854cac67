//! Real etcd nodes on this machine, for tests.
//!
//! ```no_run
//! use strand_etcd::{EtcdLog, Options, testing::Nodes};
//!
//! let mut nodes = Nodes::start(3).expect("etcd is installed");
//! let address = nodes.address("team").parse()?;
//! let (log, created) = EtcdLog::open_or_create(&address, Options::default())?;
//! let leader = nodes.leader().expect("there is one");
//! nodes.kill(leader);
//! nodes.restart(leader);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::{
    env,
    fs::File,
    io,
    net::{SocketAddr, TcpListener, TcpStream},
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;

/// The variable that names etcd's binary; by default, `etcd` on the path.
const BINARY: &str = "STRAND_ETCD";
/// If this variable is set, a missing binary is a failure.
const REQUIRED: &str = "STRAND_REQUIRE_ETCD";

const LAST_WORDS: usize = 8;

/// A cluster of nodes, which end with the value.
#[derive(Debug)]
pub struct Nodes {
    /// Their output.
    dir: TempDir,
    all: Vec<Node>,
    flags: Vec<String>,
}

/// Where a node runs.
#[derive(Debug, Clone)]
pub struct Place {
    /// The network namespace; `None` for that of the calling thread.
    pub host: Option<String>,
    /// Where it listens to clients.
    pub client: SocketAddr,
    /// Where it listens to other nodes.
    pub peer: SocketAddr,
    /// The directory in which it makes its own.
    pub dir: PathBuf,
}

#[derive(Debug)]
struct Node {
    place: Place,
    child: Option<Child>,
}

/// Why no node can be started; `None` if one can.
#[must_use]
pub fn obstacle() -> Option<String> {
    let binary = binary();
    let version = Command::new(&binary)
        .arg("--version")
        .stdin(Stdio::null())
        .output();
    let error = version.err()?;
    Some(format!(
        "cannot run {} ({error}); install etcd-server, or name the binary in {BINARY}",
        binary.display()
    ))
}

/// Whether whoever runs the tests wants a failure where etcd is missing: `STRAND_REQUIRE_ETCD` is
/// set.
#[must_use]
pub fn is_required() -> bool {
    env::var_os(REQUIRED).is_some()
}

fn binary() -> PathBuf {
    PathBuf::from(env::var_os(BINARY).unwrap_or_else(|| "etcd".into()))
}

impl Nodes {
    /// Starts so many nodes, and waits until they have a leader. `None` if there is no binary of
    /// etcd: prints SKIPPED and why.
    ///
    /// # Panics
    /// The nodes do not start, or `STRAND_REQUIRE_ETCD` is set and there is no binary.
    #[must_use]
    #[expect(clippy::print_stderr, reason = "a test that is skipped says so")]
    pub fn start(count: usize) -> Option<Self> {
        if let Some(reason) = obstacle() {
            assert!(!is_required(), "{reason}");
            eprintln!("SKIPPED: {reason}");
            return None;
        }
        let listeners: Vec<TcpListener> = (0..2 * count).map(|_| free()).collect();
        let addresses: io::Result<Vec<_>> = listeners.iter().map(TcpListener::local_addr).collect();
        let addresses = addresses.unwrap_or_else(|error| panic!("no free port: {error}"));
        drop(listeners);
        let dir = tempfile::tempdir().unwrap_or_else(|error| panic!("no directory: {error}"));
        let places = addresses.chunks(2).map(|pair| match pair {
            &[client, peer] => Place {
                host: None,
                client,
                peer,
                dir: dir.path().to_owned(),
            },
            _ => unreachable!("they are pairs"),
        });
        let places = places.collect();
        let cluster = Self::spawn_in(dir, places, &[]);
        cluster.await_leader();
        Some(cluster)
    }

    /// Starts a node at each place, with further flags, and waits until they have a leader.
    ///
    /// # Panics
    /// The nodes do not start.
    #[must_use]
    pub fn start_at(places: Vec<Place>, flags: &[&str]) -> Self {
        let cluster = Self::spawn_at(places, flags);
        cluster.await_leader();
        cluster
    }

    /// Starts a node at each place, with further flags, and does not wait for them.
    ///
    /// # Panics
    /// There is no such program.
    #[must_use]
    pub fn spawn_at(places: Vec<Place>, flags: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap_or_else(|error| panic!("no directory: {error}"));
        Self::spawn_in(dir, places, flags)
    }

    fn spawn_in(dir: TempDir, places: Vec<Place>, flags: &[&str]) -> Self {
        let nodes = places.into_iter().map(|place| Node { place, child: None });
        let mut cluster = Self {
            dir,
            all: nodes.collect(),
            flags: flags.iter().copied().map(str::to_owned).collect(),
        };
        for node in 0..cluster.count() {
            cluster.spawn(node);
        }
        cluster
    }

    /// How many nodes there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.all.len()
    }

    /// The address of a store; for a cluster of one node, with `allow_single_member`.
    #[must_use]
    pub fn address(&self, store: &str) -> String {
        let hosts: Vec<String> = self
            .all
            .iter()
            .map(|node| node.place.client.to_string())
            .collect();
        let single = if hosts.len() < 3 {
            "?allow_single_member"
        } else {
            ""
        };
        format!("etcd://{}/{store}{single}", hosts.join(","))
    }

    fn node(&self, node: usize) -> &Node {
        self.all
            .get(node)
            .unwrap_or_else(|| panic!("there is no node {node}"))
    }

    fn spawn(&mut self, number: usize) {
        let peers: Vec<String> = self
            .all
            .iter()
            .enumerate()
            .map(|(number, node)| format!("{}=http://{}", name(number), node.place.peer))
            .collect();
        let Place {
            host, client, peer, ..
        } = self.node(number).place.clone();
        let data_dir = self.data_dir(number);
        let (client, peer) = (format!("http://{client}"), format!("http://{peer}"));
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.log(number));
        let log = log.unwrap_or_else(|error| panic!("no file for the node's output: {error}"));
        let mut command = match host {
            None => Command::new(binary()),
            Some(host) => {
                let mut command = Command::new("ip");
                command.args(["netns", "exec", &host]).arg(binary());
                // Ctrl-C is for the program that makes hosts: it ends their nodes. Nodes without a
                // host end with the tests that started them.
                #[cfg(unix)]
                std::os::unix::process::CommandExt::process_group(&mut command, 0);
                command
            }
        };
        command
            .args(["--name", &name(number)])
            .arg("--data-dir")
            .arg(data_dir)
            .args([
                "--listen-client-urls",
                &client,
                "--advertise-client-urls",
                &client,
            ])
            .args([
                "--listen-peer-urls",
                &peer,
                "--initial-advertise-peer-urls",
                &peer,
            ])
            .args(["--initial-cluster", &peers.join(",")])
            .args(["--logger", "zap", "--log-level", "warn"])
            .args(&self.flags)
            .env(
                "ETCD_UNSUPPORTED_ARCH",
                env::consts::ARCH.replace("aarch64", "arm64"),
            )
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        let child = command.spawn();
        if let Some(node) = self.all.get_mut(number) {
            let failed = |error| panic!("etcd does not start: {error}");
            node.child = Some(child.unwrap_or_else(failed));
        }
    }

    /// Waits until the cluster has a leader.
    ///
    /// # Panics
    /// There is none after 60 s.
    pub fn await_leader(&self) {
        let words = || (0..self.count()).map(|node| self.last_words(node));
        assert!(
            self.has_leader_within(Duration::from_mins(1)),
            "no leader after 60 s: {:#?}",
            words().collect::<Vec<_>>()
        );
    }

    /// Waits until the cluster has a leader; false if there is none in time.
    #[must_use]
    pub fn has_leader_within(&self, time: Duration) -> bool {
        let deadline = Instant::now() + time;
        while self.leader().is_none() {
            if Instant::now() >= deadline {
                return false;
            }
            thread::sleep(Duration::from_millis(50));
        }
        true
    }

    /// The node that leads, as far as running nodes know.
    #[must_use]
    pub fn leader(&self) -> Option<usize> {
        let running = self.all.iter().filter(|node| node.child.is_some());
        let statuses: Vec<[String; 2]> = running
            .filter_map(|node| status(node.place.client))
            .collect();
        let leader = statuses
            .iter()
            .map(|[_, leader]| leader)
            .find(|leader| *leader != "0")?;
        self.all.iter().position(|node| {
            let own = node.child.as_ref().and_then(|_| status(node.place.client));
            own.is_some_and(|[id, _]| id == *leader)
        })
    }

    /// Ends a node with SIGKILL.
    pub fn kill(&mut self, node: usize) {
        if let Some(mut child) = self.all.get_mut(node).and_then(|node| node.child.take()) {
            child.kill().ok();
            child.wait().ok();
        }
    }

    /// Starts a node again that was killed.
    pub fn restart(&mut self, node: usize) {
        if self.node(node).child.is_none() {
            self.spawn(node);
        }
    }

    /// Whether a node has ended by itself.
    pub fn has_ended(&mut self, node: usize) -> bool {
        let child = self.all.get_mut(node).and_then(|node| node.child.as_mut());
        child.is_some_and(|child| !matches!(child.try_wait(), Ok(None)))
    }

    /// The directory in which a node keeps its data.
    #[must_use]
    pub fn data_dir(&self, node: usize) -> PathBuf {
        self.node(node).place.dir.join(name(node))
    }

    /// Moves a node that was killed: its directory is there already.
    pub fn move_to(&mut self, node: usize, dir: PathBuf) {
        if let Some(node) = self.all.get_mut(node) {
            node.place.dir = dir;
        }
    }

    /// The last lines that a node has written to its standard error.
    #[must_use]
    pub fn last_words(&self, node: usize) -> Vec<String> {
        let text = std::fs::read_to_string(self.log(node)).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let last = lines.iter().skip(lines.len().saturating_sub(LAST_WORDS));
        last.map(|line| (*line).to_owned()).collect()
    }

    /// The process of a node that was started and not killed.
    #[must_use]
    pub fn pid(&self, node: usize) -> Option<u32> {
        self.node(node).child.as_ref().map(Child::id)
    }

    /// The files with all that the nodes have written to their standard error.
    #[must_use]
    pub fn logs(&self) -> Vec<PathBuf> {
        (0..self.count()).map(|node| self.log(node)).collect()
    }

    fn log(&self, node: usize) -> PathBuf {
        self.dir.path().join(format!("{}.log", name(node)))
    }

    /// Sends a node a signal by its name: `STOP`, `CONT`.
    pub fn signal(&self, node: usize, signal: &str) {
        if let Some(pid) = self.pid(node) {
            let pid = pid.to_string();
            Command::new("kill")
                .args([&format!("-{signal}"), &pid])
                .status()
                .ok();
        }
    }
}

impl Drop for Nodes {
    fn drop(&mut self) {
        for node in 0..self.count() {
            self.kill(node);
        }
    }
}

fn name(node: usize) -> String {
    format!("n{node}")
}

fn free() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").unwrap_or_else(|error| panic!("no free port: {error}"))
}

/// The ids of a node and of its leader.
fn status(client: SocketAddr) -> Option<[String; 2]> {
    use io::{Read as _, Write as _};
    #[derive(serde::Deserialize)]
    struct Status {
        header: Header,
        #[serde(default)]
        leader: String,
    }
    #[derive(serde::Deserialize)]
    struct Header {
        member_id: String,
    }
    let patience = Duration::from_millis(300);
    let mut stream = TcpStream::connect_timeout(&client, patience).ok()?;
    stream.set_read_timeout(Some(patience)).ok()?;
    let request = format!(
        "POST /v3/maintenance/status HTTP/1.0\r\nHost: {client}\r\nContent-Length: 2\r\n\r\n{{}}"
    );
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let body = answer.split_once("\r\n\r\n")?.1;
    let status: Status = serde_json::from_str(body).ok()?;
    let leader = if status.leader.is_empty() {
        "0".to_owned()
    } else {
        status.leader
    };
    Some([status.header.member_id, leader])
}
