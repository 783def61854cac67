//! The configuration of a run: its flags, their limits, and the line that repeats it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use strand_core::{RECORD_BYTES_MAX, testing::Failpoint};

/// Most agents in one run: each has a bit in the shared page of [`crate::run::control`].
pub const AGENTS_MAX: u32 = 10_000;
/// Most readers, and most followers.
pub const BYSTANDERS_MAX: u32 = 1_000;
/// Most compactors: each has a bit in the shared page, too.
pub const COMPACTORS_MAX: u32 = 64;
/// Most writes of one agent.
pub const WRITES_MAX: u32 = 10_000_000;
/// Longest padding: lengths differ, and the longest record must still be one.
pub const PAYLOAD_BYTES_MAX: usize = RECORD_BYTES_MAX / 4 * 3;
/// Highest rate of a nemesis.
pub const RATE_MAX: f64 = 10_000.0;
/// The store under test unless another one is named.
pub const STRAND: &str = "strand";
const LOCK_TIMEOUT_BEYOND_WATCHDOG_S: u64 = 600;
/// Longest time that the watchdog waits.
pub const TIMEOUT_S_MAX: u64 = 7 * 24 * 3600;
/// Longest time that commands run.
pub(crate) const MINUTES_MAX: f64 = 7.0 * 24.0 * 60.0;

/// The flags that say how often, how long and where something is shown or kept, and not what is
/// done.
const NOT_REPLAYED: [&str; 11] = [
    "iterations",
    "minutes",
    "history",
    "report",
    "shrink_s",
    "keep",
    "json",
    "html",
    "report_starvation",
    "quiet",
    "verbose",
];

/// Whether agents are processes or threads of one process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Every agent is a process of its own with a log of its own.
    Process,
    /// All agents are threads of one child process and share one log.
    Thread,
}

/// The durability that agents ask of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Durability {
    /// An acknowledged append survives power loss.
    Synced,
    /// An acknowledged append survives the death of its process.
    Buffered,
}

/// The kind of events that agents write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Workload {
    /// Events without a condition, each about an issue of its own.
    Append,
    /// Every agent tries to claim every issue of one pool, which has as many as there are writes.
    Claim,
    /// Writes with conditions on shared issues, in the proportions of a real tracker.
    Mixed,
    /// The events of the file `--payload`, each issue's by one agent in their order.
    Replay,
    /// Other stores: batches of some writes, of which all or none must be stored.
    Batch,
    /// Other stores: read an item and change it if it is still as it was read.
    Set,
    /// Other stores: take a lock, look whether anyone else has it, and give it back.
    Exclusive,
}

impl Workload {
    /// Whether agents only make writes, each of its own.
    pub(crate) fn writes(self) -> bool {
        matches!(self, Workload::Append | Workload::Batch)
    }
}

/// What happens at a system call that changes something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum SystemFault {
    /// The process is killed before it.
    Kill,
    /// It fails with EIO.
    Eio,
    /// It fails with ENOSPC.
    Enospc,
}

/// A form of a history.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum HistoryFormat {
    /// An object a line.
    Jsonl,
    /// A map a line, as Jepsen, Elle and Knossos have it.
    Edn,
}

/// A misdeed of agent 0 that the harness has to notice. For tests of the harness.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Sabotage {
    /// Hang while holding the lock.
    Hang,
    /// Acknowledge the first write without having made it.
    Skip,
    /// Make the first write twice and acknowledge it once.
    Repeat,
    /// Exit in the middle of the first write.
    Die,
}

/// Everything that decides what a run does. Two runs of one `Config` differ only in scheduling.
#[expect(
    clippy::struct_excessive_bools,
    reason = "each one is a flag of the command line"
)]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, clap::Args)]
pub struct Config {
    /// Number of agents, which write at the same time
    #[arg(long, default_value_t = 5, value_name = "N")]
    pub agents: u32,
    /// Writes of each agent; a replay takes them from its file instead
    #[arg(long, default_value_t = 20, value_name = "N")]
    pub writes: u32,
    /// Number of runs, each with the next seed; stops at the first failure
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub iterations: u32,
    /// Instead of a number of runs, how long to go on with them
    #[arg(long, value_name = "M", conflicts_with = "iterations")]
    pub minutes: Option<f64>,
    /// Decides payloads and victims [default: a new one, printed]
    #[arg(long, default_value_t = fresh_seed(), hide_default_value = true, value_name = "S")]
    pub seed: u64,
    /// Run agents as processes, or as threads of one process
    #[arg(long, value_enum, default_value_t = Mode::Process)]
    pub mode: Mode,
    /// Start a new process for each write
    #[arg(long)]
    pub one_shot: bool,
    /// The store under test: strand, etcd://HOST:PORT,…/NAME for strand on etcd, locked-file,
    /// sqlite, git and others that come along, cmd:SPEC.toml or agent:PROGRAM (docs/STORES.md)
    #[arg(long, default_value = STRAND, value_name = "S")]
    pub store: String,
    /// A store on etcd: start agents in these network namespaces, in turn
    #[arg(long, value_name = "NAME,…")]
    pub netns: Option<String>,
    /// Other stores: have a system call fail, or kill at it, in one process of three
    #[arg(long, value_enum, value_name = "FAULT")]
    pub inject: Option<SystemFault>,
    /// Other stores: cut the power this often, on a filesystem that loses what was not synced
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub power_cuts: u32,
    /// Other stores: have each sync and each rename take some milliseconds longer
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u64).range(1..=10_000))]
    pub slow_disk_ms: Option<u64>,
    /// Other stores: on a disk of this many bytes, which becomes full
    #[arg(long, value_name = "BYTES")]
    pub disk_bytes: Option<u64>,
    /// Other stores: each agent thinks for some milliseconds between its writes
    #[arg(long, value_name = "MS")]
    pub think_ms: Option<u64>,
    /// Other stores: write the history for Elle, Knossos or Porcupine into the report
    #[arg(long, value_enum, value_name = "FORM")]
    pub history: Option<HistoryFormat>,
    /// Other stores: make only these writes, as 0:1-3,2:7 for three of agent 0 and one of agent 2
    #[arg(long, value_name = "AGENT:WRITES,…")]
    pub only: Option<Only>,
    /// Other stores: write the report to this directory, with a `repro.sh`
    #[arg(long, value_name = "DIR")]
    pub report: Option<PathBuf>,
    /// Other stores: make a failing run smaller for so many seconds
    #[arg(long, default_value_t = 20, value_name = "S")]
    pub shrink_s: u64,
    /// The failures that an acknowledgement promises to survive
    #[arg(long, value_enum, default_value_t = Durability::Synced)]
    pub durability: Durability,
    /// The kind of events that the agents write
    #[arg(long, value_enum, default_value_t = Workload::Append)]
    pub workload: Workload,
    /// Number of processes that keep the state of the store up to date
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub readers: u32,
    /// Number of processes that follow the log from its first record
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub followers: u32,
    /// Compact the store every M milliseconds, in processes of their own
    #[arg(long, value_name = "M", value_parser = clap::value_parser!(u64).range(1..=3_600_000))]
    pub compact_every_ms: Option<u64>,
    /// Number of processes that compact
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub compactors: u32,
    /// Take the events from this JSONL file instead of generating them
    #[arg(long, value_name = "FILE")]
    pub payload: Option<PathBuf>,
    /// Pad each record to about this length
    #[arg(long, value_name = "BYTES")]
    pub payload_bytes: Option<usize>,
    /// Begin a new segment after this many bytes [default: that of the log]
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u64).range(1..))]
    pub segment_bytes: Option<u64>,
    /// Preallocate this many bytes at a time [default: that of the log]
    #[arg(long, value_name = "BYTES")]
    pub preallocate_bytes: Option<u64>,
    /// Kill random processes at this mean rate, and start successors
    #[arg(long, default_value_t = 0.0, value_name = "R")]
    pub kill_per_second: f64,
    /// Kill processes at this failpoint of the log, or at `any`, and start successors. Of several,
    /// separated by commas, each process draws one
    #[arg(long, value_name = "POINT")]
    pub kill_at: Option<String>,
    /// Stop random processes for some milliseconds (SIGSTOP) at this mean rate
    #[arg(long, default_value_t = 0.0, value_name = "R")]
    pub stop_per_second: f64,
    /// Leave a torn tail at this mean rate, as a writer does that is killed while it writes
    #[arg(long, default_value_t = 0.0, value_name = "R")]
    pub tear_per_second: f64,
    /// Delete the shared hints (`shm`) at this mean rate
    #[arg(long, default_value_t = 0.0, value_name = "R")]
    pub forget_per_second: f64,
    /// Remove, move away or replace `lock`, `compact.lock`, `shm` or the last segment at this mean
    /// rate
    #[arg(long, default_value_t = 0.0, value_name = "R")]
    pub displace_per_second: f64,
    /// Move the store away at this mean rate, and put an empty directory, or a link to one, in its
    /// place for some milliseconds. Processes that have the store open go on in it
    #[arg(long, default_value_t = 0.0, value_name = "R")]
    pub move_per_second: f64,
    /// Report a run that takes longer as a hang, and kill all its processes
    #[arg(long, default_value_t = 120, value_name = "N")]
    pub timeout_s: u64,
    /// Make the store in a new directory below this one [default: the system's temporary directory]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Keep the store, even if the run passes
    #[arg(long)]
    pub keep: bool,
    /// Write a JSON report of the last or failed run to this file
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Write an HTML report of the last or failed run to this file
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    /// Print how evenly the agents got the lock
    #[arg(long)]
    pub report_starvation: bool,
    /// Print only the verdict
    #[arg(long)]
    pub quiet: bool,
    /// Print the whole configuration as JSON, even if the run passes
    #[arg(long, conflicts_with = "quiet")]
    pub verbose: bool,
    /// A misdeed of agent 0 that the harness has to notice
    #[arg(long, value_enum, hide = true, value_name = "MISDEED")]
    pub sabotage: Option<Sabotage>,
}

impl Default for Config {
    /// The run of `strand-stress run --seed 1`.
    fn default() -> Config {
        #[derive(clap::Parser)]
        struct Flags {
            #[command(flatten)]
            config: Config,
        }
        <Flags as clap::Parser>::parse_from(["run", "--seed", "1"]).config
    }
}

/// Where processes are killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KillAt {
    /// At every failpoint, as it comes.
    Any,
    /// At one of them.
    Failpoint(Failpoint),
}

impl KillAt {
    /// The failpoint of this name, or `any`.
    ///
    /// # Errors
    /// [`UsageError`] lists the names.
    pub fn parse(name: &str) -> Result<KillAt, UsageError> {
        if name == "any" {
            return Ok(KillAt::Any);
        }
        let point = Failpoint::ALL.iter().find(|point| point.name() == name);
        point.copied().map(KillAt::Failpoint).ok_or_else(|| {
            let names: Vec<&str> = Failpoint::ALL.iter().map(|point| point.name()).collect();
            UsageError(format!(
                "--kill-at takes any, or one of {}",
                names.join(", ")
            ))
        })
    }

    /// Whether `point` is such a place.
    #[must_use]
    pub fn is_at(self, point: Failpoint) -> bool {
        self == KillAt::Any || self == KillAt::Failpoint(point)
    }
}

/// Some writes of some agents.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Only(BTreeSet<(u32, u32)>);

impl Only {
    /// These writes: agent and write of each.
    #[must_use]
    pub fn these(writes: impl IntoIterator<Item = (u32, u32)>) -> Only {
        Only(writes.into_iter().collect())
    }

    /// All of them.
    #[must_use]
    pub fn writes(&self) -> &BTreeSet<(u32, u32)> {
        &self.0
    }

    pub(crate) fn has(&self, agent: u32, write: u32) -> bool {
        self.0.contains(&(agent, write))
    }
}

impl From<Only> for String {
    fn from(only: Only) -> String {
        let mut ranges: Vec<(u32, u32, u32)> = Vec::new();
        for (agent, write) in only.0 {
            match ranges.last_mut() {
                Some((own, _, last)) if *own == agent && *last + 1 == write => *last = write,
                _ => ranges.push((agent, write, write)),
            }
        }
        let texts = ranges.into_iter().map(|(agent, first, last)| {
            let end = if first == last {
                String::new()
            } else {
                format!("-{last}")
            };
            format!("{agent}:{first}{end}")
        });
        texts.collect::<Vec<_>>().join(",")
    }
}

impl FromStr for Only {
    type Err = UsageError;

    fn from_str(text: &str) -> Result<Only, UsageError> {
        let mut writes = BTreeSet::new();
        for part in text.split(',') {
            let range = part.split_once(':').and_then(|(agent, range)| {
                let (first, last) = range.split_once('-').unwrap_or((range, range));
                let numbers: (u32, u32, u32) =
                    (agent.parse().ok()?, first.parse().ok()?, last.parse().ok()?);
                (numbers.2 <= WRITES_MAX).then_some(numbers)
            });
            let (agent, first, last) = range.ok_or_else(|| {
                UsageError(format!("{part:?} is not AGENT:WRITE or AGENT:FIRST-LAST"))
            })?;
            writes.extend((first..=last).map(|write| (agent, write)));
        }
        Ok(Only(writes))
    }
}

impl TryFrom<String> for Only {
    type Error = UsageError;

    fn try_from(text: String) -> Result<Only, UsageError> {
        text.parse()
    }
}

/// A flag or a combination of flags that makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct UsageError(pub String);

impl Config {
    /// Whether the write is one of those that are made: all, or only some.
    pub(crate) fn makes(&self, agent: u32, write: u32) -> bool {
        let only = self.only.as_ref();
        only.is_none_or(|only| only.has(agent, write))
    }

    /// The same with the seed of an iteration: the first one has the seed that was asked for.
    #[must_use]
    pub fn of_iteration(&self, iteration: u32) -> Config {
        Config {
            seed: self.seed.wrapping_add(u64::from(iteration)),
            ..self.clone()
        }
    }

    /// Checks each limit and each combination.
    ///
    /// # Errors
    /// [`UsageError`] names the flag and its limit; nothing was started.
    pub fn validate(&self) -> Result<(), UsageError> {
        within("--agents", u64::from(self.agents), u64::from(AGENTS_MAX))?;
        within("--writes", u64::from(self.writes), u64::from(WRITES_MAX))?;
        within(
            "--iterations",
            u64::from(self.iterations),
            u64::from(u32::MAX),
        )?;
        let is_time = |minutes: f64| minutes > 0.0 && minutes <= MINUTES_MAX;
        if self.minutes.is_some_and(|minutes| !is_time(minutes)) {
            return usage(format!(
                "--minutes takes a number above 0, up to {MINUTES_MAX}"
            ));
        }
        within("--timeout-s", self.timeout_s, TIMEOUT_S_MAX)?;
        within(
            "--compactors",
            u64::from(self.compactors),
            u64::from(COMPACTORS_MAX),
        )?;
        for (flag, number) in [("--readers", self.readers), ("--followers", self.followers)] {
            if number > BYSTANDERS_MAX {
                return usage(format!("{flag} takes a number up to {BYSTANDERS_MAX}"));
            }
        }
        if self.compactors > 1 && self.compact_every_ms.is_none() {
            return usage("--compactors needs --compact-every-ms");
        }
        if self.workload == Workload::Replay && self.payload.is_none() {
            return usage("--workload replay needs --payload");
        }
        if self.workload != Workload::Append && self.sabotage.is_some() {
            return usage("--sabotage is for --workload append");
        }
        for (flag, rate) in self.rates() {
            if !rate.is_finite() || !(0.0..=RATE_MAX).contains(&rate) {
                return usage(format!("{flag} takes a number from 0 to {RATE_MAX}"));
            }
        }
        if self.stop_per_second > 0.0 && cfg!(not(unix)) {
            return usage("--stop-per-second needs a system that can stop a process");
        }
        if self.move_per_second > 0.0 {
            if cfg!(not(unix)) {
                return usage("--move-per-second needs a system that moves open directories");
            }
            let opens_later = self.kills()
                || self.one_shot
                || self.readers > 0
                || self.compact_every_ms.is_some();
            if opens_later {
                return usage(
                    "--move-per-second is for processes that open the store once: it excludes \
                     kills, torn tails, --one-shot, --readers and --compact-every-ms",
                );
            }
        }
        if self
            .payload_bytes
            .is_some_and(|bytes| bytes > PAYLOAD_BYTES_MAX)
        {
            return usage(format!(
                "--payload-bytes takes a number up to {PAYLOAD_BYTES_MAX}"
            ));
        }
        for name in self.kill_points() {
            KillAt::parse(name)?;
        }
        if self.one_shot && self.mode == Mode::Thread {
            return usage("--one-shot starts a process for each write; it excludes --mode thread");
        }
        self.validate_store()?;
        if self.payload.is_some() && self.payload_bytes.is_some() {
            return usage("--payload and --payload-bytes exclude each other");
        }
        Ok(())
    }

    /// What only strand has is not for other stores, and the other way round.
    fn validate_store(&self) -> Result<(), UsageError> {
        let is_strand = self.store == STRAND;
        let of_directories = [
            ("--kill-at", self.kill_at.is_some()),
            ("--segment-bytes", self.segment_bytes.is_some()),
            ("--preallocate-bytes", self.preallocate_bytes.is_some()),
            (
                "--durability buffered",
                self.durability == Durability::Buffered,
            ),
            ("--tear-per-second", self.tear_per_second > 0.0),
            ("--forget-per-second", self.forget_per_second > 0.0),
            ("--displace-per-second", self.displace_per_second > 0.0),
            ("--move-per-second", self.move_per_second > 0.0),
            ("--sabotage", self.sabotage.is_some()),
        ];
        let of_strand = [
            ("--workload mixed", self.workload == Workload::Mixed),
            ("--workload replay", self.workload == Workload::Replay),
            ("--mode thread", self.mode == Mode::Thread),
            ("--readers", self.readers > 0),
            ("--followers", self.followers > 0),
            ("--compact-every-ms", self.compact_every_ms.is_some()),
            ("--payload", self.payload.is_some()),
        ];
        let of_others = [
            ("--workload batch", self.workload == Workload::Batch),
            ("--workload set", self.workload == Workload::Set),
            ("--workload exclusive", self.workload == Workload::Exclusive),
            ("--inject", self.inject.is_some()),
            ("--power-cuts", self.power_cuts > 0),
            ("--slow-disk-ms", self.slow_disk_ms.is_some()),
            ("--disk-bytes", self.disk_bytes.is_some()),
            ("--think-ms", self.think_ms.is_some()),
            ("--history", self.history.is_some()),
            ("--only", self.only.is_some()),
            ("--report", self.report.is_some()),
        ];
        let find = |flags: &[(&'static str, bool)]| flags.iter().find(|(_, is)| *is).copied();
        if let Some((flag, _)) = find(&of_directories).filter(|_| !is_strand) {
            return usage(format!("{flag} is for --store strand"));
        }
        if self.netns.is_some() && !self.is_etcd() {
            return usage("--netns is for a store on etcd");
        }
        let misplaced = if is_strand || self.is_etcd() {
            &of_others[..]
        } else {
            &of_strand[..]
        };
        match find(misplaced) {
            Some((flag, _)) if is_strand || self.is_etcd() => usage(format!(
                "{flag} is for other stores: --store names one, as --store strand-cli"
            )),
            Some((flag, _)) => usage(format!("{flag} is for --store strand")),
            None => Ok(()),
        }
    }

    /// Whether the store under test is strand on etcd.
    #[must_use]
    pub fn is_etcd(&self) -> bool {
        strand_etcd::Address::is_meant(&self.store)
    }

    /// The command that starts `program` as the process at this place among those of the run.
    pub(crate) fn command_at(&self, place: usize, program: &Path) -> Command {
        let names = self.netns.iter().flat_map(|names| names.split(','));
        let names: Vec<&str> = names.collect();
        let Some(name) = names.get(place % names.len().max(1)) else {
            return Command::new(program);
        };
        let mut command = Command::new("ip");
        command.args(["netns", "exec", name]).arg(program);
        command
    }

    /// The directory in which the run makes its own.
    #[must_use]
    pub fn parent_dir(&self) -> PathBuf {
        self.dir.clone().unwrap_or_else(std::env::temp_dir)
    }

    /// The operations of a complete run.
    #[must_use]
    pub fn operations(&self) -> u64 {
        match &self.only {
            Some(only) => only.writes().len() as u64,
            None => u64::from(self.agents) * u64::from(self.writes),
        }
    }

    /// The number of processes that compact.
    #[must_use]
    pub fn compacting(&self) -> u32 {
        self.compact_every_ms.map_or(0, |_| self.compactors)
    }

    /// How long a process waits for the lock of the log: longer than the watchdog.
    #[must_use]
    pub(crate) fn lock_timeout_ms(&self) -> u64 {
        let seconds = self
            .timeout_s
            .saturating_add(LOCK_TIMEOUT_BEYOND_WATCHDOG_S);
        seconds.saturating_mul(1_000)
    }

    /// The number of issues that exist before the agents start.
    #[must_use]
    pub fn pool(&self) -> u32 {
        match self.workload {
            Workload::Append | Workload::Batch | Workload::Replay | Workload::Exclusive => 0,
            Workload::Claim => self.writes,
            // So few that agents meet.
            Workload::Set => (self.writes / 4).clamp(1, 8),
            Workload::Mixed => (self.agents * 3).clamp(10, 64),
        }
    }

    /// Whether processes are killed during the run, or torn tails are left as if they were.
    #[must_use]
    pub fn kills(&self) -> bool {
        self.kill_per_second > 0.0 || self.kill_at.is_some() || self.tear_per_second > 0.0
    }

    /// The failpoints of [`Config::kill_at`].
    #[must_use]
    pub fn kill_points(&self) -> Vec<&str> {
        let names = self.kill_at.as_deref();
        names.map_or_else(Vec::new, |names| names.split(',').collect())
    }

    /// The nemesis of the run: each flag, with its mean rate per second.
    fn rates(&self) -> [(&'static str, f64); 6] {
        [
            ("--kill-per-second", self.kill_per_second),
            ("--stop-per-second", self.stop_per_second),
            ("--tear-per-second", self.tear_per_second),
            ("--forget-per-second", self.forget_per_second),
            ("--displace-per-second", self.displace_per_second),
            ("--move-per-second", self.move_per_second),
        ]
    }

    /// The arguments that repeat this run: every flag that decides what happens in it.
    #[must_use]
    pub fn replay_arguments(&self) -> Vec<String> {
        let fields = serde_json::to_value(self).unwrap_or_default();
        let mut arguments = vec!["--seed".to_owned(), self.seed.to_string()];
        let command = <Config as clap::Args>::augment_args(clap::Command::new("run"));
        for argument in command.get_arguments() {
            let name = argument.get_id().as_str();
            if name == "seed" || NOT_REPLAYED.contains(&name) {
                continue;
            }
            let value = match fields.get(name) {
                None | Some(Value::Null | Value::Bool(false)) => continue,
                Some(Value::Bool(true)) => None,
                Some(Value::String(text)) => Some(shell_word(text)),
                Some(value) => Some(value.to_string()),
            };
            arguments.extend(argument.get_long().map(|long| format!("--{long}")));
            arguments.extend(value);
        }
        arguments
    }

    /// One line for a shell that repeats this run.
    #[must_use]
    pub fn replay_line(&self) -> String {
        format!("cargo xtask stress {}", self.replay_arguments().join(" "))
    }
}

/// A new seed, small enough for tools that keep numbers as doubles.
#[must_use]
pub fn fresh_seed() -> u64 {
    u64::from(rand::random::<u32>())
}

/// A word as a shell takes it.
pub(crate) fn shell_word(text: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "/._-+:=@".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

fn within(flag: &str, value: u64, max: u64) -> Result<(), UsageError> {
    if (1..=max).contains(&value) {
        Ok(())
    } else {
        usage(format!(
            "{flag} takes a number from 1 to {max}, not {value}"
        ))
    }
}

fn usage(message: impl Into<String>) -> Result<(), UsageError> {
    Err(UsageError(message.into()))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Flags {
        #[command(flatten)]
        config: Config,
    }

    #[test]
    fn the_replay_line_means_the_same_run() {
        let config = Config {
            seed: 77,
            agents: 3,
            writes: 9,
            one_shot: true,
            store: "cmd:target/x y.toml".to_owned(),
            inject: Some(SystemFault::Enospc),
            power_cuts: 3,
            slow_disk_ms: Some(7),
            disk_bytes: Some(4096),
            think_ms: Some(2),
            only: Some(Only::these([(0, 1), (0, 2), (2, 9)])),
            durability: Durability::Buffered,
            payload: Some(PathBuf::from("a b's.jsonl")),
            kill_per_second: 12.5,
            segment_bytes: Some(4096),
            preallocate_bytes: Some(512),
            kill_at: Some("AfterWrite,LeadTakenOver".to_owned()),
            stop_per_second: 2.5,
            tear_per_second: 7.0,
            forget_per_second: 0.25,
            displace_per_second: 0.75,
            move_per_second: 0.5,
            timeout_s: 9,
            sabotage: Some(Sabotage::Repeat),
            workload: Workload::Mixed,
            readers: 3,
            followers: 2,
            compact_every_ms: Some(20),
            compactors: 2,
            ..Config::default()
        };
        assert!(config.replay_line().contains(r"--payload 'a b'\''s.jsonl'"));
        let unquoted = config.replay_arguments().into_iter().map(|word| {
            word.strip_prefix('\'')
                .and_then(|word| word.strip_suffix('\''))
                .map_or(word.clone(), |word| word.replace(r"'\''", "'"))
        });
        let parsed = Flags::parse_from(std::iter::once("run".to_owned()).chain(unquoted)).config;
        assert_eq!(parsed, config);
    }

    fn changed(change: fn(&mut Config)) -> Config {
        let mut config = Config::default();
        change(&mut config);
        config
    }

    #[test]
    fn nonsense_is_refused() {
        let changes: [fn(&mut Config); 22] = [
            |c| c.agents = 0,
            |c| c.agents = AGENTS_MAX + 1,
            |c| c.writes = 0,
            |c| c.timeout_s = 0,
            |c| c.iterations = 0,
            |c| c.minutes = Some(0.0),
            |c| c.minutes = Some(f64::NAN),
            |c| c.kill_per_second = -1.0,
            |c| c.kill_per_second = f64::NAN,
            |c| c.tear_per_second = -1.0,
            |c| c.forget_per_second = RATE_MAX + 1.0,
            |c| (c.move_per_second, c.readers) = (1.0, 1),
            |c| (c.one_shot, c.mode) = (true, Mode::Thread),
            |c| c.payload_bytes = Some(PAYLOAD_BYTES_MAX + 1),
            |c| c.kill_at = Some("nowhere".to_owned()),
            |c| c.kill_at = Some("AfterWrite,".to_owned()),
            |c| c.readers = BYSTANDERS_MAX + 1,
            |c| c.compactors = 2,
            |c| c.workload = Workload::Replay,
            |c| (c.workload, c.sabotage) = (Workload::Claim, Some(Sabotage::Skip)),
            |c| (c.payload, c.payload_bytes) = (Some("x".into()), Some(9)),
            |c| c.power_cuts = 1,
        ];
        for config in changes.map(changed) {
            assert!(config.validate().is_err(), "{config:?}");
        }
        assert_eq!(Config::default().validate(), Ok(()));
    }

    #[test]
    fn flags_of_strand_are_not_for_other_stores() {
        let other: fn(&mut Config) = |c| {
            (c.store, c.kill_per_second, c.power_cuts) = ("sqlite".to_owned(), 20.0, 3);
        };
        assert_eq!(changed(other).validate(), Ok(()));
        let changes: [fn(&mut Config); 4] = [
            |c| c.mode = Mode::Thread,
            |c| c.workload = Workload::Mixed,
            |c| c.kill_at = Some("any".to_owned()),
            |c| c.segment_bytes = Some(4096),
        ];
        for change in changes {
            let mut config = changed(other);
            change(&mut config);
            assert!(config.validate().is_err(), "{config:?}");
        }
    }
}
