//! The judgement of a run: the evidence, everything that is wrong, and the verdict in words.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::evidence::checks::Check;
use crate::evidence::ledger::{self, Compacting, End};
use crate::evidence::observations::Journal;
use crate::evidence::verdict::Verdict;
use crate::evidence::violation::Violation;
use crate::run::config::Config;
use crate::run::runner::Outcome;

/// How many violations of each kind are printed; the JSON report has them all.
const VIOLATIONS_SHOWN: usize = 4;
/// How many lines of the agents' standard error are printed.
const STDERR_LINES_SHOWN: usize = 20;

/// A run that was judged.
#[derive(Debug)]
pub struct Judgement {
    /// The configuration.
    pub config: Config,
    /// Everything that was gathered.
    pub gathered: Outcome,
    /// The journals of the followers.
    pub journals: Vec<Journal>,
    /// Records in the store.
    pub stored: u64,
    /// The comparisons of the oracle, point by point; empty if the run did not end.
    pub checks: Vec<Check>,
    /// Everything that is wrong, with its evidence.
    pub violations: Vec<Violation>,
    /// The beginning of the agents' standard error.
    pub agents_stderr: String,
    /// Where the store is, if it was kept.
    pub store: Option<PathBuf>,
}

impl Judgement {
    /// A hang comes before a violation, that before a failed environment, and that before an
    /// interrupt.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        if self.gathered.hang.is_some() {
            Verdict::Hang
        } else if !self.violations.is_empty() {
            Verdict::Violated
        } else if !self.gathered.ledger.environment_errors.is_empty() {
            Verdict::Environment
        } else if self.gathered.interrupted {
            Verdict::Interrupted
        } else {
            Verdict::Pass
        }
    }

    /// The operations of the agents, without those that created the pool.
    fn outcomes(&self) -> impl Iterator<Item = &ledger::Outcome> {
        let operations = self.gathered.ledger.operations.iter();
        let own = operations.filter(|operation| operation.agent < self.config.agents);
        own.map(|operation| &operation.outcome)
    }

    /// Operations that the log acknowledged.
    #[must_use]
    pub fn acknowledged(&self) -> u64 {
        let is_acknowledged =
            |outcome: &&ledger::Outcome| matches!(outcome, ledger::Outcome::Acknowledged { .. });
        self.outcomes().filter(is_acknowledged).count() as u64
    }

    /// Operations that were refused, since a condition did not hold.
    #[must_use]
    pub fn refused(&self) -> u64 {
        let is_refused =
            |outcome: &&ledger::Outcome| matches!(outcome, ledger::Outcome::Refused { .. });
        self.outcomes().filter(is_refused).count() as u64
    }

    /// Attempts whose outcome is not known.
    #[must_use]
    pub fn unknown(&self) -> u64 {
        let is_unknown =
            |outcome: &&ledger::Outcome| matches!(outcome, ledger::Outcome::Unknown { .. });
        self.outcomes().filter(is_unknown).count() as u64
    }

    /// Compactions that were finished.
    #[must_use]
    pub fn compactions(&self) -> u64 {
        let all = self.gathered.ledger.compactions.iter();
        let done = all.filter(|seen| matches!(seen.outcome, Compacting::Done { .. }));
        done.count() as u64
    }

    /// From the start to the last answer.
    #[must_use]
    pub fn elapsed_ms(&self) -> f64 {
        let ends = self.outcomes().filter_map(ledger::Outcome::answered_ns);
        let ns = ends.max().zip(self.gathered.go_ns);
        let ns = ns.map_or(0, |(end_ns, go_ns)| end_ns.saturating_sub(go_ns));
        std::time::Duration::from_nanos(ns).as_secs_f64() * 1e3
    }

    /// How many processes of each role were killed, by chance or at a point.
    #[must_use]
    pub fn killed_roles(&self) -> BTreeMap<&'static str, u64> {
        let mut roles = BTreeMap::new();
        for incarnation in &self.gathered.ledger.incarnations {
            if incarnation.end == End::Killed {
                *roles.entry(incarnation.role).or_default() += 1;
            }
        }
        roles
    }

    /// How many writes are stored whose process was killed before it had the answer. In a run that
    /// passes, nothing else tells the stored writes from the acknowledged ones.
    fn unanswered(&self) -> String {
        match self.stored.saturating_sub(self.acknowledged()) {
            0 => String::new(),
            many => format!(" ({many} without an answer)"),
        }
    }

    /// PASS or FAIL in one line.
    #[must_use]
    pub fn verdict_line(&self) -> String {
        let many = self.violations.len();
        let done = |word: &str, what: &str| {
            format!(
                "{word}: {} acknowledged, {} stored{}, every invariant {what} (seed {}, {:.2} ms)",
                self.acknowledged(),
                self.stored,
                self.unanswered(),
                self.config.seed,
                self.elapsed_ms()
            )
        };
        match self.verdict() {
            Verdict::Pass => done("PASS", "holds"),
            Verdict::Interrupted => done("INTERRUPTED", "holds so far"),
            Verdict::Violated => {
                format!("FAIL: {many} violation{}", if many == 1 { "" } else { "s" })
            }
            Verdict::Hang => format!("FAIL: hang, not done after {} s", self.config.timeout_s),
            Verdict::Environment | Verdict::Unknown => {
                "FAIL: the environment stopped the run".to_owned()
            }
        }
    }

    /// The evidence of a failure, the seed and the whole configuration, where the store is, and the
    /// line that repeats the run.
    #[must_use]
    pub fn failure_details(&self) -> String {
        let mut lines = violation_lines(&self.violations);
        lines.extend(
            self.gathered
                .ledger
                .environment_errors
                .iter()
                .take(VIOLATIONS_SHOWN)
                .map(|e| format!("  {e}")),
        );
        if let Some(hang) = &self.gathered.hang {
            lines.push(format!("  waited for {}", hang.waited_for));
            lines.extend(hang.agents.iter().map(|state| {
                format!(
                    "  agent {} (pid {}): {}",
                    state.agent, state.pid, state.doing
                )
            }));
            lines.extend(hang.others.iter().map(|other| format!("  {other}")));
            let holder = hang.lock_holder.as_deref().unwrap_or("an unknown holder");
            lines.push(format!("  lock held by {holder}"));
            lines.push(format!("  {} processes killed and reaped", hang.reaped));
        }
        if !self.agents_stderr.is_empty() {
            lines.push("standard error of the agents".to_owned());
            let said = self.agents_stderr.lines().take(STDERR_LINES_SHOWN);
            lines.extend(said.map(|line| format!("  {line}")));
        }
        lines.push(failure_trailer(&self.config, self.store.as_deref()));
        lines.join("\n") + "\n"
    }
}

/// The violations, the first few of each kind.
fn violation_lines(violations: &[Violation]) -> Vec<String> {
    let mut kinds: Vec<(String, Vec<String>)> = Vec::new();
    for violation in violations {
        let line = violation.to_string();
        let kind = line.split(':').next().unwrap_or_default().to_owned();
        match kinds.iter_mut().find(|(other, _)| *other == kind) {
            Some((_, lines)) => lines.push(line),
            None => kinds.push((kind, vec![line])),
        }
    }
    let mut shown = Vec::new();
    for (kind, lines) in kinds {
        shown.extend(
            lines
                .iter()
                .take(VIOLATIONS_SHOWN)
                .map(|line| format!("  {line}")),
        );
        if let more @ 1.. = lines.len().saturating_sub(VIOLATIONS_SHOWN) {
            shown.push(format!("  {kind}: {more} more, all in the report"));
        }
    }
    shown
}

/// The seed, the configuration, the place of the store and the replay line.
#[must_use]
pub fn failure_trailer(config: &Config, store: Option<&Path>) -> String {
    let store = store.map_or("none".to_owned(), |path| path.display().to_string());
    let json = serde_json::to_string(config).unwrap_or_default();
    let seed = config.seed;
    let replay = config.replay_line();
    format!("seed         {seed}\nconfig       {json}\nstore        {store}\nreplay       {replay}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_person_is_shown_some_of_each_kind() {
        let lost = |write| Violation::Lost {
            agent: 0,
            write,
            seq: 1,
            ack_ns: 2,
        };
        let mut violations: Vec<_> = (1..=9).map(lost).collect();
        violations.push(Violation::TwoHolders {
            agent: 0,
            other: 1,
            at_ns: 3,
        });
        let lines = violation_lines(&violations);
        assert_eq!(lines.len(), 6, "{lines:?}");
        assert_eq!(lines[4], "  lost: 5 more, all in the report");
        assert_eq!(lines[5], "  two holders: agent=0 at_ns=3 other=1");
    }
}
