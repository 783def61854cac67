//! `strand-stress torture`: runs the tiers one after the other, each with its share of the time and
//! under a watchdog.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use crate::commands::{EXIT_USAGE, can_write, own_binary, say, write};
use crate::evidence::verdict::Verdict;
use crate::interrupt::Interrupt;
use crate::panics::catch_panic;
use crate::report::machine::{Machine, cores};
use crate::report::page;
use crate::report::progress::{Goal, Progress, State};
use crate::report::text::grouped;
use crate::report::tiers::{Report, SCHEMA, TierHang, TierReport};
use crate::run::config::{MINUTES_MAX, UsageError, fresh_seed};
use crate::tiers::tally::{Budget, Finding, Tally};
use crate::tiers::{TIERS, Tier, cluster};

/// A tier hangs when no case of it ends for longer than this many times its share and
/// [`PATIENCE_BEYOND`]. It may take longer in all: some tiers try a fixed number of cases.
const PATIENCE_FACTOR: u32 = 3;
const PATIENCE_BEYOND: Duration = Duration::from_mins(1);
/// How often the progress is drawn.
const TICK: Duration = Duration::from_millis(200);
/// How long a tier that was interrupted may take to end by itself.
const GRACE: Duration = Duration::from_secs(10);

/// The flags of `torture`.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Arguments {
    /// Leave out what takes long: some 2.5 minutes in all, on 2 cores
    #[arg(long, conflicts_with = "minutes")]
    pub quick: bool,
    /// How long all tiers that are run may take together [default: 12]
    #[arg(long, value_name = "M")]
    pub minutes: Option<f64>,
    /// Run only this tier; may be given several times [default: all]
    #[arg(long = "tier", value_name = "Tn")]
    pub tiers: Vec<String>,
    /// Decides all random choices [default: a new one, printed]
    #[arg(long, value_name = "S")]
    pub seed: Option<u64>,
    /// Write a JSON report to this file
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Write an HTML report to this file
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    /// Print only the verdict
    #[arg(long)]
    pub quiet: bool,
    /// Replay one case of one tier, as a violation named it
    #[arg(long, value_name = "CASE", conflicts_with_all = ["quick", "minutes"])]
    pub replay: Option<String>,
}

/// The tiers to run, and the time of each.
#[derive(Debug, Clone)]
struct Plan {
    seed: u64,
    quick: bool,
    replay: Option<String>,
    tiers: Vec<(Tier, Duration)>,
}

/// Runs the tiers that the flags choose. The exit status is that of the harness.
#[must_use]
pub fn main(arguments: &Arguments) -> ExitCode {
    let plan = match Plan::new(arguments, TIERS) {
        Ok(plan) => plan,
        Err(error) => {
            eprintln!("strand-stress: {error}");
            return ExitCode::from(EXIT_USAGE);
        }
    };
    if !can_write([arguments.json.as_deref(), arguments.html.as_deref()]) {
        return ExitCode::from(EXIT_USAGE);
    }
    let Some(exe) = own_binary() else {
        return ExitCode::from(Verdict::Environment.exit_status());
    };
    let progress = Progress::new(arguments.quiet, Goal::Time(plan.time()));
    if !arguments.quiet {
        say(&plan.headline());
    }
    let interrupt = Interrupt::listen();
    let report = run(&plan, &exe, patience, &progress, &interrupt);
    if !arguments.quiet {
        say(report.table().trim_end());
    }
    say(&report.verdict_line());
    if let Some(hang) = &report.hang {
        say(&format!("replay       {}", hang.replay));
    }
    let written = [
        write(arguments.json.as_deref(), || report.to_json()),
        write(arguments.html.as_deref(), || page::tiers::page(&report)),
    ] == [true; 2];
    if plan
        .tiers
        .iter()
        .any(|(tier, _)| tier.name == cluster::TIER)
    {
        cluster::clean_up();
    }
    // Ends the threads of a tier that hangs, too.
    ExitCode::from(report.verdict.exit_status_when(written))
}

impl Plan {
    /// Chooses the tiers and divides the time.
    ///
    /// A tier that runs alone takes as long as among all, unless the time is given: then the tiers
    /// that run share it.
    fn new(arguments: &Arguments, all: &[Tier]) -> Result<Plan, UsageError> {
        let refuse = |message: String| Err(UsageError(message));
        for name in &arguments.tiers {
            if !all.iter().any(|tier| tier.name == name) {
                let names: Vec<&str> = all.iter().map(|tier| tier.name).collect();
                let names = names.join(", ");
                return refuse(format!("--tier takes one of {names}, not {name:?}"));
            }
        }
        let is_chosen = |tier: &&Tier| {
            arguments.tiers.is_empty() || arguments.tiers.iter().any(|name| name == tier.name)
        };
        let chosen: Vec<Tier> = all.iter().filter(is_chosen).copied().collect();
        if let Some(case) = &arguments.replay {
            match chosen.as_slice() {
                [tier] if tier.replay.is_some() => {}
                [tier] => {
                    let name = tier.name;
                    return refuse(format!(
                        "{name} replays no single case: use the command that it has printed, \
                         not --replay {case}"
                    ));
                }
                _ => return refuse("--replay needs --tier, once".to_owned()),
            }
        }
        let share = |tier: &Tier| {
            let seconds = if arguments.quick {
                tier.quick_seconds
            } else {
                tier.seconds
            };
            Duration::from_secs(seconds.into())
        };
        let mut scale = 1.0;
        if let Some(minutes) = arguments.minutes {
            if !minutes.is_finite() || minutes <= 0.0 || minutes > MINUTES_MAX {
                return refuse(format!(
                    "--minutes takes a number above 0, up to {MINUTES_MAX}"
                ));
            }
            let all: Duration = chosen.iter().map(share).sum();
            scale = minutes * 60.0 / all.as_secs_f64();
        }
        let tiers = chosen
            .iter()
            .map(|tier| (*tier, share(tier).mul_f64(scale)));
        Ok(Plan {
            seed: arguments.seed.unwrap_or_else(fresh_seed),
            quick: arguments.quick,
            replay: arguments.replay.clone(),
            tiers: tiers.collect(),
        })
    }

    fn time(&self) -> Duration {
        self.tiers.iter().map(|(_, time)| *time).sum()
    }

    fn headline(&self) -> String {
        let names: Vec<&str> = self.tiers.iter().map(|(tier, _)| tier.name).collect();
        let quick = if self.quick { "quick, " } else { "" };
        format!(
            "strand-stress: torture, {quick}seed {}, {}, about {:.0} s",
            self.seed,
            names.join(" "),
            self.time().as_secs_f64()
        )
    }

    /// One command that does all of this run again.
    fn replay_all(&self) -> String {
        match self.tiers.as_slice() {
            [(tier, time)] => self.replay_line(tier, *time),
            tiers => {
                let names = tiers
                    .iter()
                    .map(|(tier, _)| format!(" --tier {}", tier.name));
                let names: String = names.collect();
                let time = if self.quick {
                    "--quick".to_owned()
                } else {
                    format!("--minutes {:.2}", self.time().as_secs_f64() / 60.0)
                };
                format!("cargo xtask torture{names} --seed {} {time}", self.seed)
            }
        }
    }

    /// One command that runs a tier of this run again.
    fn replay_line(&self, tier: &Tier, time: Duration) -> String {
        let (seed, name) = (self.seed, tier.name);
        match &self.replay {
            Some(case) => {
                format!("cargo xtask torture --tier {name} --seed {seed} --replay {case}")
            }
            None if self.quick => {
                format!("cargo xtask torture --tier {name} --seed {seed} --quick")
            }
            None => {
                let minutes = time.as_secs_f64() / 60.0;
                format!("cargo xtask torture --tier {name} --seed {seed} --minutes {minutes:.2}")
            }
        }
    }
}

/// How long a case may take of a tier that is to take `time`.
fn patience(time: Duration) -> Duration {
    time * PATIENCE_FACTOR + PATIENCE_BEYOND
}

/// Runs the tiers to the end, or to the first that hangs.
fn run(
    plan: &Plan,
    exe: &Path,
    patience: fn(Duration) -> Duration,
    progress: &Progress,
    interrupt: &Interrupt,
) -> Report {
    let started = Instant::now();
    let mut tiers: Vec<TierReport> = Vec::new();
    let mut hang = None;
    for (tier, time) in &plan.tiers {
        if interrupt.is_asked() {
            break;
        }
        let budget = Budget {
            seed: plan.seed,
            time: *time,
            quick: plan.quick,
            threads: cores(),
            exe: exe.to_owned(),
            tried: Arc::default(),
            interrupt: interrupt.clone(),
        };
        let ran = run_tier(plan, *tier, budget, patience(*time), (progress, &tiers));
        match ran {
            Ok(tally) => {
                progress.say(&describe(&tally));
                tiers.push(TierReport {
                    attacks: tier.attacks,
                    planned_seconds: time.as_secs_f64(),
                    tally,
                });
            }
            Err(found) => {
                hang = Some(found);
                break;
            }
        }
    }
    progress.finish();
    Report {
        schema: SCHEMA,
        verdict: Report::judge(&tiers, hang.as_ref(), interrupt.is_asked()),
        seed: plan.seed,
        quick: plan.quick,
        planned_seconds: plan.time().as_secs_f64(),
        seconds: started.elapsed().as_secs_f64(),
        machine: Machine::of(&std::env::temp_dir()),
        tiers,
        hang,
        replay: plan.replay_all(),
    }
}

/// Runs one tier in a thread of its own, after those `before` it. A panic of it is a finding.
fn run_tier(
    plan: &Plan,
    tier: Tier,
    budget: Budget,
    patience: Duration,
    (progress, before): (&Progress, &[TierReport]),
) -> Result<Tally, TierHang> {
    let started = Instant::now();
    let replay = plan.replay_line(&tier, budget.time);
    let case = plan.replay.clone();
    let (tried, interrupt) = (Arc::clone(&budget.tried), budget.interrupt.clone());
    let (done, tally) = mpsc::channel();
    let work = move || {
        let ran = catch_panic(|| match (tier.replay, &case) {
            (Some(replay), Some(case)) => replay(&budget, case),
            _ => (tier.run)(&budget),
        });
        // No receiver is left when this has taken too long.
        drop(done.send(ran));
    };
    let failed = |error: std::io::Error| Tally {
        tier: tier.name,
        environment: Some(format!("cannot start a thread: {error}")),
        ..Tally::default()
    };
    let builder = std::thread::Builder::new().name(tier.name.to_owned());
    if let Err(error) = builder.spawn(work) {
        return Ok(failed(error));
    }
    let mut interrupted_at = None;
    let (mut seen, mut seen_at) = (0, started);
    let ran = loop {
        let now = tried.load(Ordering::Relaxed);
        if seen != now {
            (seen, seen_at) = (now, Instant::now());
        }
        if interrupt.is_asked() {
            interrupted_at.get_or_insert_with(Instant::now);
        }
        match tally.recv_timeout(TICK) {
            Ok(ran) => break ran,
            Err(RecvTimeoutError::Disconnected) => break Err("ended without a result".to_owned()),
            Err(RecvTimeoutError::Timeout)
                if interrupted_at.is_some_and(|at| at.elapsed() > GRACE) =>
            {
                break Ok(Tally {
                    unit: "cases",
                    cases: tried.load(Ordering::Relaxed),
                    ..Tally::default()
                });
            }
            Err(RecvTimeoutError::Timeout) if seen_at.elapsed() > patience => {
                return Err(TierHang {
                    tier: tier.name,
                    after_seconds: seen_at.elapsed().as_secs_f64(),
                    replay,
                });
            }
            Err(RecvTimeoutError::Timeout) => {
                progress.show(&state(&tier, before, tried.load(Ordering::Relaxed)));
            }
        }
    };
    let mut tally = ran.unwrap_or_else(|panic| Tally {
        violations: vec![Finding {
            what: format!("the tier {panic} (seed {})", plan.seed),
            replay,
            kept: None,
        }],
        ..Tally::default()
    });
    tally.tier = tier.name;
    tally.interrupted = interrupt.is_asked();
    tally.seconds = started.elapsed().as_secs_f64();
    Ok(tally)
}

/// How far a run has come, with `tried` cases of the tier that is run now.
fn state<'a>(tier: &Tier, before: &[TierReport], tried: u64) -> State<'a> {
    let sum = |of: fn(&Tally) -> u64| before.iter().map(|tier| of(&tier.tally)).sum::<u64>();
    State {
        phase: tier.name,
        done: sum(|tally| tally.cases) + tried,
        unit: "cases",
        events: vec![
            ("tiers done", before.len() as u64),
            ("violations", sum(|tally| tally.violations.len() as u64)),
        ],
    }
}

/// A tier that is done, in one line.
fn describe(tally: &Tally) -> String {
    let found = match (&tally.skipped, tally.violations.len()) {
        (Some(reason), _) => format!("SKIPPED: {reason}"),
        (None, violations) => format!(
            "{} {}, {violations} violations",
            grouped(tally.cases),
            tally.unit
        ),
    };
    format!("{}: {found} in {:.1} s", tally.tier, tally.seconds)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::tiers::{FULL_SECONDS, QUICK_SECONDS};

    #[derive(Parser)]
    struct Flags {
        #[command(flatten)]
        arguments: Arguments,
    }

    fn parse(line: &str) -> Result<Arguments, clap::Error> {
        let words = std::iter::once("torture").chain(line.split_whitespace());
        Flags::try_parse_from(words).map(|flags| flags.arguments)
    }

    fn plan(line: &str) -> Result<Plan, UsageError> {
        Plan::new(&parse(line).unwrap(), &EXAMPLES)
    }

    fn silent() -> Progress {
        Progress::new(true, Goal::Count(1))
    }

    fn passes(budget: &Budget) -> Tally {
        Tally {
            unit: "cases",
            cases: budget.seed,
            ..Tally::default()
        }
    }

    fn panics(_: &Budget) -> Tally {
        panic!("the sky falls")
    }

    fn hangs(_: &Budget) -> Tally {
        loop {
            std::thread::park();
        }
    }

    fn replays(_: &Budget, case: &str) -> Tally {
        Tally {
            cases: case.len() as u64,
            ..Tally::default()
        }
    }

    const fn example(name: &'static str, run: fn(&Budget) -> Tally) -> Tier {
        Tier {
            name,
            attacks: "nothing",
            run,
            replay: None,
            seconds: 300,
            quick_seconds: 30,
        }
    }

    const EXAMPLES: [Tier; 3] = [
        Tier {
            replay: Some(replays),
            ..example("T1", passes)
        },
        example("T2", panics),
        Tier {
            seconds: 100,
            ..example("T3", passes)
        },
    ];

    fn seconds(plan: &Plan) -> Vec<u64> {
        plan.tiers.iter().map(|(_, time)| time.as_secs()).collect()
    }

    fn no_patience(time: Duration) -> Duration {
        time
    }

    #[test]
    fn the_registered_tiers_have_one_name_each_and_fit_into_their_time() {
        let mut names: Vec<&str> = TIERS.iter().map(|tier| tier.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), TIERS.len());
        let full: u32 = TIERS.iter().map(|tier| tier.seconds).sum();
        let quick: u32 = TIERS.iter().map(|tier| tier.quick_seconds).sum();
        assert!(
            full <= FULL_SECONDS && quick <= QUICK_SECONDS,
            "{full} {quick}"
        );
        assert!(
            TIERS
                .iter()
                .all(|tier| tier.seconds.min(tier.quick_seconds) > 0)
        );
    }

    #[test]
    fn the_time_is_divided_by_shares() {
        assert_eq!(seconds(&plan("").unwrap()), [300, 300, 100]);
        assert_eq!(seconds(&plan("--quick").unwrap()), [30, 30, 30]);
        assert_eq!(seconds(&plan("--minutes 7").unwrap()), [180, 180, 60]);
        // Alone, a tier takes as long as among all, or all the time there is.
        assert_eq!(seconds(&plan("--tier T3").unwrap()), [100]);
        assert_eq!(
            seconds(&plan("--tier T3 --tier T1 --minutes 4").unwrap()),
            [180, 60]
        );
    }

    #[test]
    fn nonsense_is_refused() {
        for line in [
            "--tier T9",
            "--minutes 0",
            "--minutes -1",
            "--minutes NaN",
            "--replay x",
            "--tier T2 --replay x",
            "--tier T1 --tier T2 --replay x",
        ] {
            let line = line.replace("--minutes -1", "--minutes=-1");
            assert!(plan(&line).is_err(), "{line}");
        }
        for line in [
            "--quick --minutes 3",
            "--replay x --quick",
            "--minutes",
            "--seed x",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }

    #[test]
    fn a_panic_is_a_violation_and_the_next_tier_runs() {
        let plan = plan("--seed 5 --quick").unwrap();
        let report = run_all(&plan, patience);
        assert_eq!(report.verdict, Verdict::Violated);
        let cases: Vec<u64> = report.tiers.iter().map(|tier| tier.tally.cases).collect();
        assert_eq!(cases, [5, 0, 5]);
        let finding = &report.tiers[1].tally.violations[0];
        assert_eq!(finding.what, "the tier panicked: the sky falls (seed 5)");
        assert_eq!(
            finding.replay,
            "cargo xtask torture --tier T2 --seed 5 --quick"
        );
    }

    fn run_all(plan: &Plan, patience: fn(Duration) -> Duration) -> Report {
        let interrupt = Interrupt::default();
        run(plan, Path::new(""), patience, &silent(), &interrupt)
    }

    fn is_interrupted(budget: &Budget) -> Tally {
        budget.interrupt.ask();
        Tally {
            environment: Some("a helper was interrupted, too".to_owned()),
            ..passes(budget)
        }
    }

    #[test]
    fn an_interrupt_leaves_a_report_of_what_was_done() {
        let tiers = [
            ("T1", passes as fn(&Budget) -> Tally),
            ("T2", is_interrupted),
            ("T3", panics),
        ];
        let time = Duration::from_millis(1);
        let plan = Plan {
            tiers: tiers.map(|(name, run)| (example(name, run), time)).into(),
            ..plan("--seed 5 --quick").unwrap()
        };
        let interrupt = Interrupt::default();
        let report = run(&plan, Path::new(""), patience, &silent(), &interrupt);
        let cases: Vec<u64> = report.tiers.iter().map(|tier| tier.tally.cases).collect();
        assert_eq!((report.verdict, cases), (Verdict::Interrupted, vec![5, 5]));
        assert_eq!(report.verdict.exit_status(), 130);
        assert!(
            report.table().ends_with("T2: interrupted\n"),
            "{}",
            report.table()
        );
        let line = report.verdict_line();
        assert!(
            line.starts_with("INTERRUPTED: 10 cases in 2 tiers, 0 violations"),
            "{line}"
        );
    }

    #[test]
    fn a_tier_that_hangs_ends_the_run_with_its_name() {
        let tiers = [("T4", hangs as fn(&Budget) -> Tally), ("T5", passes)];
        let time = Duration::from_millis(1);
        let plan = Plan {
            seed: 3,
            quick: false,
            replay: None,
            tiers: tiers.map(|(name, run)| (example(name, run), time)).into(),
        };
        let report = run_all(&plan, no_patience);
        assert_eq!(report.verdict.exit_status(), 3);
        assert!(report.tiers.is_empty());
        assert_eq!(report.hang.map(|hang| hang.tier), Some("T4"));
    }

    #[test]
    fn a_case_is_replayed_by_its_tier() {
        let plan = plan("--tier T1 --replay a/case --seed 9").unwrap();
        let report = run_all(&plan, patience);
        assert_eq!(report.tiers[0].tally.cases, 6);
        let (tier, time) = plan.tiers[0];
        assert_eq!(
            plan.replay_line(&tier, time),
            "cargo xtask torture --tier T1 --seed 9 --replay a/case"
        );
    }

    fn tries_for_long(budget: &Budget) -> Tally {
        for _ in 0..20 {
            std::thread::sleep(Duration::from_millis(100));
            budget.count(1);
        }
        passes(budget)
    }

    #[test]
    fn a_tier_whose_cases_end_does_not_hang() {
        let time = Duration::from_secs(1);
        let tier = example("T1", tries_for_long as fn(&Budget) -> Tally);
        let plan = Plan {
            tiers: vec![(tier, time)],
            ..plan("--seed 5").unwrap()
        };
        let report = run_all(&plan, no_patience);
        assert!(report.hang.is_none());
        assert_eq!(report.tiers[0].tally.cases, 5);
    }

    #[test]
    fn patience_grows_with_the_share() {
        assert_eq!(patience(Duration::from_secs(100)).as_secs(), 360);
    }
}
