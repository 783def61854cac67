//! What one run does: the flags of the command line, checked, and turned back into a replay line.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use strand_core::{RECORD_BYTES_MAX, testing::Failpoint};

/// Most agents in one run: each has one bit in the shared page of [`crate::run::control`].
pub const AGENTS_MAX: u32 = 10_000;
/// Most readers, followers and compactors of each kind.
pub const HELPERS_MAX: u32 = 1_000;
/// Most compactors: each has one bit in the shared page, too.
pub const COMPACTORS_MAX: u32 = 64;
/// Most writes of one agent.
pub const WRITES_MAX: u32 = 10_000_000;
/// Longest padded records: their lengths differ, and the longest must still be a record.
pub const PAYLOAD_BYTES_MAX: usize = RECORD_BYTES_MAX / 4 * 3;
/// Highest rate of what happens by chance.
pub const RATE_MAX: f64 = 10_000.0;
const LOCK_TIMEOUT_BEYOND_WATCHDOG_S: u64 = 600;
/// Longest time the watchdog may be told to wait.
pub const TIMEOUT_S_MAX: u64 = 7 * 24 * 3600;

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

/// What agents write.
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
}

/// A deliberate misdeed of agent 0 that the harness has to notice. For tests of the harness.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Sabotage {
    /// Hang for ever while holding the lock.
    Hang,
    /// Acknowledge the first write without having made it.
    Skip,
    /// Make the first write twice and acknowledge it once.
    Repeat,
    /// Exit in the middle of the first write without having been killed.
    Die,
}

/// Everything that decides what a run does. Two runs with one `Config` differ only in scheduling.
#[expect(
    clippy::struct_excessive_bools,
    reason = "each one is a flag of the command line"
)]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, clap::Args)]
pub struct Config {
    /// Agents that write at the same time
    #[arg(long, default_value_t = 5, value_name = "N")]
    pub agents: u32,
    /// Writes of each agent; a replay goes through the file instead
    #[arg(long, default_value_t = 20, value_name = "N")]
    pub writes: u32,
    /// Runs, each with the next seed; the first failure ends them
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub iterations: u32,
    /// Decides payloads and victims [default: a fresh one, printed]
    #[arg(long, default_value_t = fresh_seed(), hide_default_value = true, value_name = "S")]
    pub seed: u64,
    /// Agents are processes, or threads of one process
    #[arg(long, value_enum, default_value_t = Mode::Process)]
    pub mode: Mode,
    /// Start a new process for each write
    #[arg(long)]
    pub one_shot: bool,
    /// With --one-shot: each of these processes is the command `strand append`, and not an agent that calls the
    /// library. Its exit status and what it prints tell what came of the write
    #[arg(long)]
    pub via_cli: bool,
    /// The binary of that command [default: `strand` beside this one]
    #[arg(long, value_name = "PATH", requires = "via_cli")]
    pub strand: Option<PathBuf>,
    /// What an acknowledgement promises
    #[arg(long, value_enum, default_value_t = Durability::Synced)]
    pub durability: Durability,
    /// What the agents write
    #[arg(long, value_enum, default_value_t = Workload::Append)]
    pub workload: Workload,
    /// Processes that refresh a state of the store, again and again
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub readers: u32,
    /// Processes that follow the log from its first record on
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub followers: u32,
    /// Compact the store so often, in processes of their own
    #[arg(long, value_name = "M", value_parser = clap::value_parser!(u64).range(1..=3_600_000))]
    pub compact_every_ms: Option<u64>,
    /// How many processes do that
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub compactors: u32,
    /// Take the events from this JSONL file instead of making them up
    #[arg(long, value_name = "FILE")]
    pub payload: Option<PathBuf>,
    /// Pad each record to about this size
    #[arg(long, value_name = "BYTES")]
    pub payload_bytes: Option<usize>,
    /// Begin a new segment of the log after so many bytes [default: the log's own]
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u64).range(1..))]
    pub segment_bytes: Option<u64>,
    /// Make so much free space behind the log at a time [default: the log's own]
    #[arg(long, value_name = "BYTES")]
    pub preallocate_bytes: Option<u64>,
    /// SIGKILL random processes of the run at this mean rate and start successors
    #[arg(long, default_value_t = 0.0, value_name = "R")]
    pub kill_per_second: f64,
    /// SIGKILL processes at this named point of the log's protocol, or at `any`, and start successors;
    /// of several points with commas between them, each process draws one
    #[arg(long, value_name = "POINT")]
    pub kill_at: Option<String>,
    /// SIGSTOP random processes of the run at this mean rate, each for some milliseconds
    #[arg(long, default_value_t = 0.0, value_name = "R")]
    pub stop_per_second: f64,
    /// Leave half a record behind the log at this mean rate, as a writer that is killed in its write does
    #[arg(long, default_value_t = 0.0, value_name = "R")]
    pub tear_per_second: f64,
    /// Delete the hints in `shm` at this mean rate
    #[arg(long, default_value_t = 0.0, value_name = "R")]
    pub forget_per_second: f64,
    /// A run that takes longer is a hang: reported, and every child reaped
    #[arg(long, default_value_t = 120, value_name = "N")]
    pub timeout_s: u64,
    /// Make the store's directory in this one, which is created [default: the system's temporary one]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Keep the store also after a run that passed
    #[arg(long)]
    pub keep: bool,
    /// Write the report of the last (or failed) run to this file
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Write a page that shows the last (or failed) run to this file
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    /// Print how evenly the agents were served
    #[arg(long)]
    pub report_starvation: bool,
    /// Print the verdict only
    #[arg(long)]
    pub quiet: bool,
    /// Print the whole configuration as JSON, also for a run that passes
    #[arg(long, conflicts_with = "quiet")]
    pub verbose: bool,
    /// A misdeed of agent 0 that the harness has to notice
    #[arg(long, value_enum, hide = true, value_name = "MISDEED")]
    pub sabotage: Option<Sabotage>,
}

impl Default for Config {
    /// What `strand-stress run` does without a flag, but with seed 1.
    fn default() -> Config {
        Config {
            agents: 5,
            writes: 20,
            iterations: 1,
            seed: 1,
            mode: Mode::Process,
            one_shot: false,
            via_cli: false,
            strand: None,
            durability: Durability::Synced,
            workload: Workload::Append,
            readers: 0,
            followers: 0,
            compact_every_ms: None,
            compactors: 1,
            payload: None,
            payload_bytes: None,
            segment_bytes: None,
            preallocate_bytes: None,
            kill_per_second: 0.0,
            kill_at: None,
            stop_per_second: 0.0,
            tear_per_second: 0.0,
            forget_per_second: 0.0,
            timeout_s: 120,
            dir: None,
            keep: false,
            json: None,
            html: None,
            report_starvation: false,
            quiet: false,
            verbose: false,
            sabotage: None,
        }
    }
}

/// Where agents are killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KillAt {
    /// At every point of the log's protocol, as it comes.
    Any,
    /// At one of them.
    Failpoint(Failpoint),
}

impl KillAt {
    /// The point of this name, or `any`.
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

/// A combination of flags that makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct UsageError(pub String);

/// Where the command `strand` is looked for: beside another binary.
#[must_use]
pub fn command_beside(exe: &Path) -> PathBuf {
    exe.with_file_name(format!("strand{}", std::env::consts::EXE_SUFFIX))
}

impl Config {
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
        within("--timeout-s", self.timeout_s, TIMEOUT_S_MAX)?;
        within(
            "--compactors",
            u64::from(self.compactors),
            u64::from(COMPACTORS_MAX),
        )?;
        for (flag, number) in [("--readers", self.readers), ("--followers", self.followers)] {
            if number > HELPERS_MAX {
                return usage(format!("{flag} takes a number up to {HELPERS_MAX}"));
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
        self.validate_via_cli()?;
        if self.payload.is_some() && self.payload_bytes.is_some() {
            return usage("--payload and --payload-bytes exclude each other");
        }
        Ok(())
    }

    /// The command has neither what tests alone need, nor the conditions of a workload.
    fn validate_via_cli(&self) -> Result<(), UsageError> {
        if !self.via_cli {
            return match self.strand {
                Some(_) => usage("--strand needs --via-cli"),
                None => Ok(()),
            };
        }
        if !self.one_shot {
            return usage("--via-cli needs --one-shot");
        }
        if self.workload != Workload::Append {
            return usage("--via-cli is for --workload append");
        }
        let excluded = [
            ("--kill-at", self.kill_at.is_some()),
            ("--segment-bytes", self.segment_bytes.is_some()),
            ("--preallocate-bytes", self.preallocate_bytes.is_some()),
            ("--sabotage", self.sabotage.is_some()),
        ];
        match excluded.into_iter().find(|(_, is_set)| *is_set) {
            Some((flag, _)) => usage(format!("--via-cli and {flag} exclude each other")),
            None => Ok(()),
        }
    }

    /// The command that makes each write, if one does. `exe` is the harness binary.
    #[must_use]
    pub fn command(&self, exe: &Path) -> Option<PathBuf> {
        let path = || self.strand.clone();
        self.via_cli
            .then(|| path().unwrap_or_else(|| command_beside(exe)))
    }

    /// The directory in which the run makes its own.
    #[must_use]
    pub fn parent_dir(&self) -> PathBuf {
        self.dir.clone().unwrap_or_else(std::env::temp_dir)
    }

    /// All operations that a complete run invokes.
    #[must_use]
    pub fn operations(&self) -> u64 {
        u64::from(self.agents) * u64::from(self.writes)
    }

    /// Processes that compact.
    #[must_use]
    pub fn compacting(&self) -> u32 {
        self.compact_every_ms.map_or(0, |_| self.compactors)
    }

    /// How long a process of the run waits for the log's lock: longer than the watchdog waits for the run.
    #[must_use]
    pub(crate) fn lock_timeout_ms(&self) -> u64 {
        let seconds = self
            .timeout_s
            .saturating_add(LOCK_TIMEOUT_BEYOND_WATCHDOG_S);
        seconds.saturating_mul(1_000)
    }

    /// How many issues are there before the agents begin.
    #[must_use]
    pub fn pool(&self) -> u32 {
        match self.workload {
            Workload::Append | Workload::Replay => 0,
            Workload::Claim => self.writes,
            Workload::Mixed => (self.agents * 3).clamp(10, 64),
        }
    }

    /// Whether processes are killed during the run, or what a killed one leaves is made up.
    #[must_use]
    pub fn kills(&self) -> bool {
        self.kill_per_second > 0.0 || self.kill_at.is_some() || self.tear_per_second > 0.0
    }

    /// The names in [`Config::kill_at`], of which each process draws one.
    #[must_use]
    pub fn kill_points(&self) -> Vec<&str> {
        let names = self.kill_at.as_deref();
        names.map_or_else(Vec::new, |names| names.split(',').collect())
    }

    /// What happens by chance during the run: the flag, and how often a second on average.
    fn rates(&self) -> [(&'static str, f64); 4] {
        [
            ("--kill-per-second", self.kill_per_second),
            ("--stop-per-second", self.stop_per_second),
            ("--tear-per-second", self.tear_per_second),
            ("--forget-per-second", self.forget_per_second),
        ]
    }

    /// The arguments that repeat this run: every flag that decides what happens in it.
    #[must_use]
    pub fn replay_arguments(&self) -> Vec<String> {
        let mut arguments: Vec<String> = Vec::new();
        let mut flag = |name: &str, value: Option<String>| {
            arguments.push(name.to_owned());
            arguments.extend(value);
        };
        flag("--seed", Some(self.seed.to_string()));
        flag("--agents", Some(self.agents.to_string()));
        flag("--writes", Some(self.writes.to_string()));
        flag("--mode", Some(value_name(&self.mode)));
        flag("--durability", Some(value_name(&self.durability)));
        flag("--workload", Some(value_name(&self.workload)));
        flag("--readers", Some(self.readers.to_string()));
        flag("--followers", Some(self.followers.to_string()));
        if let Some(ms) = self.compact_every_ms {
            flag("--compact-every-ms", Some(ms.to_string()));
            flag("--compactors", Some(self.compactors.to_string()));
        }
        for (name, rate) in self.rates() {
            flag(name, Some(rate.to_string()));
        }
        flag("--timeout-s", Some(self.timeout_s.to_string()));
        if let Some(name) = &self.kill_at {
            flag("--kill-at", Some(name.clone()));
        }
        if self.one_shot {
            flag("--one-shot", None);
        }
        if self.via_cli {
            flag("--via-cli", None);
        }
        if let Some(path) = &self.strand {
            flag("--strand", Some(shell_word(&path.display().to_string())));
        }
        if let Some(path) = &self.payload {
            flag("--payload", Some(shell_word(&path.display().to_string())));
        }
        if let Some(bytes) = self.payload_bytes {
            flag("--payload-bytes", Some(bytes.to_string()));
        }
        if let Some(bytes) = self.segment_bytes {
            flag("--segment-bytes", Some(bytes.to_string()));
        }
        if let Some(bytes) = self.preallocate_bytes {
            flag("--preallocate-bytes", Some(bytes.to_string()));
        }
        if let Some(dir) = &self.dir {
            flag("--dir", Some(shell_word(&dir.display().to_string())));
        }
        if let Some(sabotage) = self.sabotage {
            flag("--sabotage", Some(value_name(&sabotage)));
        }
        arguments
    }

    /// One line for a shell that repeats this run.
    #[must_use]
    pub fn replay_line(&self) -> String {
        format!("cargo xtask stress {}", self.replay_arguments().join(" "))
    }
}

/// A seed that no earlier run had, small enough to survive tools that keep numbers as doubles.
#[must_use]
pub fn fresh_seed() -> u64 {
    u64::from(rand::random::<u32>())
}

fn value_name(value: &impl clap::ValueEnum) -> String {
    value
        .to_possible_value()
        .map_or_else(String::new, |value| value.get_name().to_owned())
}

fn shell_word(text: &str) -> String {
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
            via_cli: true,
            strand: Some(PathBuf::from("target/x y/strand")),
            durability: Durability::Buffered,
            payload: Some(PathBuf::from("a b's.jsonl")),
            kill_per_second: 12.5,
            segment_bytes: Some(4096),
            preallocate_bytes: Some(512),
            kill_at: Some("AfterWrite,LeadTakenOver".to_owned()),
            stop_per_second: 2.5,
            tear_per_second: 7.0,
            forget_per_second: 0.25,
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

    #[test]
    fn the_defaults_are_those_of_the_command_line() {
        assert_eq!(
            Flags::parse_from(["run", "--seed", "1"]).config,
            Config::default()
        );
    }

    #[test]
    fn nonsense_is_refused() {
        let refused = [
            Config {
                agents: 0,
                ..Config::default()
            },
            Config {
                agents: AGENTS_MAX + 1,
                ..Config::default()
            },
            Config {
                writes: 0,
                ..Config::default()
            },
            Config {
                timeout_s: 0,
                ..Config::default()
            },
            Config {
                iterations: 0,
                ..Config::default()
            },
            Config {
                kill_per_second: -1.0,
                ..Config::default()
            },
            Config {
                kill_per_second: f64::NAN,
                ..Config::default()
            },
            Config {
                tear_per_second: -1.0,
                ..Config::default()
            },
            Config {
                forget_per_second: RATE_MAX + 1.0,
                ..Config::default()
            },
            Config {
                one_shot: true,
                mode: Mode::Thread,
                ..Config::default()
            },
            Config {
                payload_bytes: Some(PAYLOAD_BYTES_MAX + 1),
                ..Config::default()
            },
            Config {
                kill_at: Some("nowhere".to_owned()),
                ..Config::default()
            },
            Config {
                kill_at: Some("AfterWrite,".to_owned()),
                ..Config::default()
            },
            Config {
                readers: HELPERS_MAX + 1,
                ..Config::default()
            },
            Config {
                compactors: 2,
                ..Config::default()
            },
            Config {
                workload: Workload::Replay,
                ..Config::default()
            },
            Config {
                workload: Workload::Claim,
                sabotage: Some(Sabotage::Skip),
                ..Config::default()
            },
            Config {
                payload: Some("x".into()),
                payload_bytes: Some(9),
                ..Config::default()
            },
        ];
        for config in refused {
            assert!(config.validate().is_err(), "{config:?}");
        }
        assert_eq!(Config::default().validate(), Ok(()));
    }
    #[test]
    fn the_command_makes_plain_appends_of_one_shot_processes() {
        let via_cli = Config {
            one_shot: true,
            via_cli: true,
            kill_per_second: 20.0,
            ..Config::default()
        };
        assert_eq!(via_cli.validate(), Ok(()));
        let refused = [
            Config {
                one_shot: false,
                ..via_cli.clone()
            },
            Config {
                via_cli: false,
                strand: Some("x".into()),
                ..via_cli.clone()
            },
            Config {
                workload: Workload::Claim,
                ..via_cli.clone()
            },
            Config {
                kill_at: Some("any".to_owned()),
                ..via_cli.clone()
            },
            Config {
                segment_bytes: Some(4096),
                ..via_cli
            },
        ];
        for config in refused {
            assert!(config.validate().is_err(), "{config:?}");
        }
    }
}
