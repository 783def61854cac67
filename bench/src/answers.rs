//! Answers of processes that start, ask or change one thing, and end, as a command does: in a
//! tracker of many issues, a few of them open, with a log behind the snapshot.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::ValueEnum as _;
use serde::Serialize;
use strand_core::{
    Batch, CommitError, Compacted, Durability, Issue, IssueEvent, IssueLog, Issues, Options, Patch,
    PointReader, Timestamp, Version,
};
use tempfile::TempDir;

use crate::error::Result;
use crate::events::Event;
use crate::memory::{Resident, print_status};
use crate::one_shot::{quiet, run_us, strand_command};
use crate::process::Work;
use crate::question::Question;
use crate::runner::Runner;
use crate::statistics::{median, median_ratio};

/// The first argument of such a process; the others are those of [`main`].
pub(crate) const COMMAND: &str = "answer";

/// How many issues are ready to be worked on.
const OPEN: usize = 500;
/// How long the log behind the snapshot is.
const LOG_BYTES: u64 = 4 << 20;
/// The number of issues with which a larger tracker is compared.
const FEW: usize = 10_000;
/// Repetitions of each question. Each one needs an issue of its own to claim.
const REPEATS: usize = 40;
/// Changes by a process that lives for long, before its memory is measured.
const CHANGES: usize = 2_000;
/// Compactions of which the written bytes are counted.
const COMPACTIONS: usize = 12;

/// Medians of the time from the start of a process to its end.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Answer {
    pub(crate) question: Question,
    /// A program with the library.
    pub(crate) strand_us: f64,
    /// A program with SQLite's library.
    pub(crate) sqlite_us: Option<f64>,
    /// The median over pairs of processes that ran one after the other.
    pub(crate) over_sqlite: Option<f64>,
    /// The command `strand`, if its binary is beside this one.
    pub(crate) command_us: Option<f64>,
    /// The command `sqlite3`, if it is installed.
    pub(crate) sqlite3_us: Option<f64>,
    pub(crate) command_over_sqlite3: Option<f64>,
    /// The program with the library, over the same with [`FEW`] issues.
    pub(crate) over_few: f64,
}

/// The results.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Answers {
    pub(crate) issues: usize,
    pub(crate) all: Vec<Answer>,
    /// The median of a `create` that also writes the unclosed issues down, as one in some hundred
    /// writes does.
    pub(crate) writing_us: f64,
    /// The highest peak of a process that answers about one issue, over an empty program.
    pub(crate) memory_mib: Option<f64>,
    /// That of a process that changes many, one after the other.
    pub(crate) writer_memory_mib: Option<f64>,
    /// Bytes that compactions write for each one that is appended, where a hundredth of the issues
    /// changes in between.
    pub(crate) written_per_byte: Option<f64>,
}

impl Answers {
    pub(crate) fn lines(&self) -> Vec<String> {
        let us = |name: &str, us: Option<f64>| us.map(|us| format!("{name} {us:.0} µs"));
        let line = |answer: &Answer| {
            let times = [
                us("strand", Some(answer.strand_us)),
                us("SQLite", answer.sqlite_us),
                us("the command `strand`", answer.command_us),
                us("the command `sqlite3`", answer.sqlite3_us),
            ];
            let times: Vec<String> = times.into_iter().flatten().collect();
            let (issues, words) = (self.issues, answer.question.words());
            format!("one-shot {words}, {issues} issues: {}", times.join(", "))
        };
        let writing = format!(
            "one-shot create, {} issues, that also writes the unclosed ones down: strand {:.0} µs",
            self.issues, self.writing_us
        );
        self.all.iter().map(line).chain([writing]).collect()
    }

    /// The highest of the ratios of some answers.
    pub(crate) fn most(
        &self,
        which: impl Fn(Question) -> bool,
        ratio: impl Fn(&Answer) -> Option<f64>,
    ) -> Option<f64> {
        let answers = self.all.iter();
        let answers = answers.filter(|answer| which(answer.question));
        answers.filter_map(ratio).reduce(f64::max)
    }
}

pub(crate) fn measure(runner: &Runner<'_>, events: &[Event], issues: usize) -> Result<Answers> {
    let many = Tracker::fill(runner.scratch, events, issues)?;
    let few = Tracker::fill(runner.scratch, events, FEW)?;
    if let Some(strand) = strand_command()? {
        few.requires_same_layout(&strand)?;
    }
    runner.settle()?;
    let answers = Question::ALL.iter().enumerate();
    let answers = answers.map(|(number, question)| measure_one(&many, &few, number, *question));
    let all = answers.collect::<Result<_>>()?;
    let writing_us = many.writing_us()?;
    let [memory_mib, writer_memory_mib, written_per_byte] = if cfg!(target_os = "linux") {
        [
            Some(many.memory_mib()?),
            Some(many.writer_memory_mib()?),
            Some(many.written_per_byte()?),
        ]
    } else {
        [None; 3]
    };
    Ok(Answers {
        issues,
        all,
        writing_us,
        memory_mib,
        writer_memory_mib,
        written_per_byte,
    })
}

/// Who answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    Strand,
    StrandOfFew,
    Sqlite,
    StrandCommand,
    Sqlite3,
}

fn measure_one(many: &Tracker, few: &Tracker, number: usize, question: Question) -> Result<Answer> {
    let strand = strand_command()?;
    let mut by = vec![By::Strand, By::StrandOfFew];
    #[cfg(feature = "peers")]
    by.push(By::Sqlite);
    by.extend(strand.is_some().then_some(By::StrandCommand));
    let has_sqlite3 = Command::new("sqlite3").arg("-version").output().is_ok();
    by.extend((cfg!(feature = "peers") && has_sqlite3).then_some(By::Sqlite3));
    let mut times = vec![Vec::new(); by.len()];
    for round in 0..REPEATS {
        for (by, times) in by.iter().zip(&mut times) {
            let tracker = if *by == By::StrandOfFew { few } else { many };
            // Programs and commands change the same store, so each has its own issues.
            let is_command = matches!(by, By::StrandCommand | By::Sqlite3);
            let turn = (number * REPEATS + round) * 2 + usize::from(is_command);
            let mut command = match by {
                By::Strand | By::StrandOfFew => tracker.program("strand", question, turn)?,
                By::Sqlite => tracker.program("sqlite", question, turn)?,
                By::StrandCommand => {
                    tracker.strand(strand.as_deref().unwrap_or(Path::new("")), question, turn)?
                }
                By::Sqlite3 => tracker.sqlite3(question, turn)?,
            };
            times.push(run_us(&mut command)?);
        }
    }
    let of = |wanted: By| {
        let at = by.iter().position(|by| *by == wanted)?;
        times.get(at)
    };
    let pair = |over: By, under: By| Some(median_ratio(of(over)?, of(under)?));
    let us = |by: By| of(by).map(|times| median(times));
    let missing = "strand is always measured";
    Ok(Answer {
        question,
        strand_us: us(By::Strand).ok_or(missing)?,
        sqlite_us: us(By::Sqlite),
        over_sqlite: pair(By::Strand, By::Sqlite),
        command_us: us(By::StrandCommand),
        sqlite3_us: us(By::Sqlite3),
        command_over_sqlite3: pair(By::StrandCommand, By::Sqlite3),
        over_few: pair(By::Strand, By::StrandOfFew).ok_or(missing)?,
    })
}

/// A store, and a database of the same issues.
struct Tracker {
    dir: TempDir,
    /// Open issues without an assignee, and issues with their versions: each is used once.
    open: Vec<String>,
    versions: Vec<(String, Version)>,
}

impl Tracker {
    /// A tracker of so many issues. All but [`OPEN`] of them are closed.
    fn fill(scratch: &Path, events: &[Event], issues: usize) -> Result<Self> {
        let dir = tempfile::tempdir_in(scratch)?;
        let store = dir.path().join("store");
        std::fs::create_dir(&store)?;
        let options = Options::default().durability(Durability::Buffered);
        let log = IssueLog::open(&store, options)?;
        let texts: Vec<Issue> = events
            .iter()
            .filter_map(|event| event.decoded.data.as_ref()?.without("assignee").ok())
            .collect();
        let issue = |number: usize, status: &str| -> Result<Issue> {
            let issue = texts.get(number % texts.len().max(1));
            let issue = issue.ok_or("the events have no issues")?;
            let issue = issue.with("id", &format!("bd-{number}"))?;
            Ok(issue.with("status", status)?)
        };
        let (mut open, every) = (VecDeque::new(), issues.div_ceil(OPEN));
        for number in 0..issues {
            let is_open = number % every == 0;
            if is_open {
                open.push_back(format!("bd-{number}"));
            }
            let issue = issue(number, if is_open { "open" } else { "closed" })?;
            log.append(&IssueEvent::add(issue, Timestamp::from_ms(0)))?;
        }
        log.compact()?;
        // What agents do: they add issues, take others, write down what they found, and close them.
        let mut bytes = 0;
        for number in issues.. {
            let id = format!("bd-{number}");
            let (taken, other) = open
                .pop_front()
                .zip(open.front().cloned())
                .ok_or("none is open")?;
            let closed = format!("bd-{}", (number * 7 + 1) % issues);
            let note = format!("Tried again with what {id} is about; it depends on {other}.");
            let new = issue(number, "open")?;
            bytes += new.as_json().len() + 5 * 120 + 3 * note.len();
            for batch in [
                Batch::new().create(new),
                Batch::new().claim(&taken, "agent-7"),
                Batch::new().patch(&other, Patch::new().append_comment(&note)?),
                Batch::new().patch(&taken, Patch::new().set("notes", &note)?),
                Batch::new().patch(closed, Patch::new().set("notes", &note)?),
                Batch::new().close(&taken),
            ] {
                match log.commit(&batch) {
                    // One of a few that is blocked, or closed twice.
                    Ok(_) | Err(CommitError::Conflict(_)) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            open.push_back(id);
            if bytes as u64 >= LOG_BYTES {
                break;
            }
        }
        log.close()?;
        let all = Issues::load(&store)?;
        #[cfg(feature = "peers")]
        sqlite::fill(&dir.path().join("issues.db"), &all)?;
        let ready = all.ready().into_iter();
        let free = ready.filter(|(_, issue)| issue.assignee().is_none());
        // From the end: `ready` and `claim` without an id begin with the others.
        let mut open: Vec<String> = free.map(|(id, _)| id.to_owned()).collect();
        open.reverse();
        let closed = all.iter().step_by((all.len() / 1_000).max(1));
        let closed = closed.filter(|(_, issue)| issue.status().as_deref() == Some("closed"));
        let versions = closed.filter_map(|(id, _)| Some((id.to_owned(), all.version(id)?)));
        let versions = versions.collect();
        Ok(Self {
            dir,
            open,
            versions,
        })
    }

    fn store(&self) -> PathBuf {
        self.dir.path().join("store")
    }

    /// The issue of this turn, and its version.
    fn issue(&self, question: Question, turn: usize) -> Result<(String, Version)> {
        let taken = self.versions.get(turn % self.versions.len().max(1));
        let (id, version) = taken.cloned().ok_or("no issue is closed")?;
        Ok(match question {
            Question::Create => (format!("new-{turn}"), version),
            Question::Claim => {
                let open = self.open.get(turn % (2 * REPEATS));
                (open.cloned().ok_or("too few issues are open")?, version)
            }
            _ => (id, version),
        })
    }

    /// The median time of a `create` that extends the index, and finds that the file of the
    /// unclosed issues, from which `ready` and `claim` without an id go on, is due.
    fn writing_us(&self) -> Result<f64> {
        let mut times = Vec::new();
        for round in 0..REPEATS {
            self.make_due()?;
            let turn = Question::ALL.len() * REPEATS * 2 + round;
            times.push(run_us(&mut self.program(
                "strand",
                Question::Create,
                turn,
            )?)?);
            if self.unclosed()?.is_empty() {
                return Err("the unclosed issues were not written down".into());
            }
        }
        Ok(median(&times))
    }

    /// Removes the files of the unclosed issues, and makes the last block of each index one that is
    /// not whole.
    fn make_due(&self) -> Result<()> {
        for path in self.unclosed()? {
            std::fs::remove_file(path)?;
        }
        for (path, _) in self.index_layouts()? {
            let index = std::fs::OpenOptions::new().write(true).open(path)?;
            index.set_len(index.metadata()?.len() - 1)?;
        }
        Ok(())
    }

    /// The files of the unclosed issues as of a record of the log.
    fn unclosed(&self) -> Result<Vec<PathBuf>> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir(self.store())? {
            let path = entry?.path();
            if path.extension() == Some("unclosed".as_ref()) {
                found.push(path);
            }
        }
        Ok(found)
    }

    /// Refuses a command that has another layout of indexes than this program, as one that was
    /// built before: with every write, each would make the index of the other anew, and that would
    /// be measured.
    fn requires_same_layout(&self, strand: &Path) -> Result<()> {
        let before = self.index_layouts()?;
        if before.is_empty() {
            return Err("the log of the tracker has no index".into());
        }
        let mut command = quiet(strand);
        command.env("STRAND_NO_AUTO_COMPACT", "1");
        command.arg("-C").arg(self.store()).args(["create", TITLE]);
        run_us(&mut command)?;
        if self.index_layouts()? == before {
            return Ok(());
        }
        Err(format!(
            "{} has another layout of indexes than this program: build it from the same sources \
             (cargo build --release --package strand), or run `cargo xtask bench`, which does",
            strand.display()
        )
        .into())
    }

    /// How each index of the store begins, by its name: with the store's and the layout's number.
    fn index_layouts(&self) -> Result<Vec<(OsString, Vec<u8>)>> {
        let mut layouts = Vec::new();
        for entry in std::fs::read_dir(self.store())? {
            let path = entry?.path();
            if path.extension() == Some("index".as_ref()) {
                let mut bytes = std::fs::read(&path)?;
                bytes.truncate(8);
                layouts.push((path.into_os_string(), bytes));
            }
        }
        layouts.sort();
        Ok(layouts)
    }

    fn program(&self, system: &str, question: Question, turn: usize) -> Result<Command> {
        let (id, version) = self.issue(question, turn)?;
        let mut command = quiet(&std::env::current_exe()?);
        command.args([COMMAND, system, &question.name()]);
        command.arg(self.dir.path()).arg(id);
        command.arg(version.to_string());
        Ok(command)
    }

    fn strand(&self, strand: &Path, question: Question, turn: usize) -> Result<Command> {
        let (id, version) = self.issue(question, turn)?;
        let mut command = quiet(strand);
        // Compactions would shorten the log that is measured.
        command.env("STRAND_NO_AUTO_COMPACT", "1");
        command.arg("-C").arg(self.store());
        let version = version.to_string();
        let id = id.as_str();
        command.args(match question {
            Question::Show => vec!["show", id],
            Question::Create => vec!["create", TITLE, "--id", id],
            Question::Claim => vec!["claim", id, "--agent", AGENT],
            Question::Update => {
                let note = "note=needs wire";
                vec!["update", id, "--set-text", note, "--if-version", &version]
            }
            Question::Ready => vec!["ready"],
            Question::ClaimNext => vec!["claim", "--agent", AGENT],
        });
        Ok(command)
    }

    fn sqlite3(&self, question: Question, turn: usize) -> Result<Command> {
        let (id, version) = self.issue(question, turn)?;
        let mut command = quiet(Path::new("sqlite3"));
        command.arg(self.dir.path().join("issues.db"));
        command.arg(sql(question, &format!("'{id}'"), &version.to_string()));
        Ok(command)
    }

    /// Peaks of processes that answer about one issue, over that of an empty one.
    fn memory_mib(&self) -> Result<f64> {
        let about_one = Question::ALL.into_iter().filter(|one| one.is_about_one());
        let mut most = 0.0;
        for (number, question) in about_one.enumerate() {
            let (id, version) = self.issue(question, (10 + number) * 2 * REPEATS)?;
            // One that is not claimed in a turn.
            let free = self.open.get(2 * REPEATS).cloned();
            let id = free.filter(|_| question == Question::Claim).unwrap_or(id);
            let work = Work::Answer {
                question,
                dir: self.dir.path().to_owned(),
                id,
                version: version.get(),
            };
            most = f64::max(most, over_empty_mib(&work)?);
        }
        Ok(most)
    }

    fn writer_memory_mib(&self) -> Result<f64> {
        over_empty_mib(&Work::Change(self.store()))
    }

    /// Has compactions fold changes of a hundredth of the issues again and again.
    #[expect(clippy::cast_precision_loss, reason = "lengths are far below 2^52")]
    fn written_per_byte(&self) -> Result<f64> {
        let store = self.store();
        let all = Issues::load(&store)?;
        let issues: Vec<Issue> = all.iter().map(|(_, issue)| issue.clone()).collect();
        drop(all);
        let options = Options::default().durability(Durability::Buffered);
        let log = IssueLog::open(&store, options)?;
        log.compact()?;
        let (mut appended, mut written) = (0, 0);
        for round in 0..COMPACTIONS {
            let before = written_bytes()?;
            for issue in issues.iter().skip(round).step_by(100) {
                let issue = issue.with("round", &round)?;
                log.append(&IssueEvent::update(issue, Timestamp::from_ms(0)))?;
            }
            let behind = written_bytes()?;
            if !matches!(log.compact()?, Compacted::Done { .. }) {
                return Err("the log could not be compacted".into());
            }
            appended += behind - before;
            written += written_bytes()? - behind;
        }
        Ok(written as f64 / appended as f64)
    }
}

const TITLE: &str = "Buy wire";
const AGENT: &str = "agent-7";

/// The bytes that this process has written so far.
fn written_bytes() -> Result<u64> {
    let text = std::fs::read_to_string("/proc/self/io")?;
    let line = text.lines().find_map(|line| line.strip_prefix("wchar: "));
    Ok(line
        .ok_or("the system does not count written bytes")?
        .parse()?)
}

fn over_empty_mib(work: &Work) -> Result<f64> {
    let empty = Resident::of(&Work::Nothing)?;
    Ok((Resident::of(work)?.peak_kib - empty.peak_kib) / 1024.0)
}

/// A process that answers.
pub(crate) fn main(mut args: impl Iterator<Item = String>) -> Result<()> {
    let mut next = || args.next().ok_or("too few arguments");
    let (system, question) = (next()?, Question::from_str(&next()?, false)?);
    let (dir, id, version) = (next()?, next()?, next()?.parse()?);
    match system.as_str() {
        "strand" => answer(question, Path::new(&dir), &id, version),
        _ => sqlite::answer(question, Path::new(&dir), &id, version),
    }
}

/// A process that answers, and prints the memory used.
pub(crate) fn answer_and_print(
    question: Question,
    dir: &Path,
    id: &str,
    version: u64,
) -> Result<()> {
    answer(question, dir, id, version)?;
    print_status()
}

fn answer(question: Question, dir: &Path, id: &str, version: u64) -> Result<()> {
    let store = dir.join("store");
    if question == Question::Show {
        let mut reader = PointReader::open(&store)?;
        let found = reader.get(id)?.ok_or("there is no such issue")?;
        println!("{} {}", found.version, found.issue.as_json());
        println!("{:?}", reader.blockers(id)?);
        return Ok(());
    }
    if question == Question::Ready {
        let issues = Issues::load_unclosed(&store)?;
        for (id, issue) in issues.ready() {
            println!("{id} {}", issue.as_json());
        }
        return Ok(());
    }
    let log = IssueLog::open(&store, Options::default())?;
    match question {
        Question::Create => drop(log.create(Issue::new(id, TITLE))?),
        Question::Claim => drop(log.claim(id, AGENT)?),
        Question::Update => {
            let note = Patch::new().set("note", "needs wire")?;
            log.commit(&Batch::new().patch_if(id, Version::new(version), note))?;
        }
        _ => loop {
            let first = |issues: &Issues| {
                let ready = issues.ready().into_iter();
                let mut free = ready.filter(|(_, issue)| issue.assignee().is_none());
                free.next().map(|(id, _)| id.to_owned())
            };
            let next = log.with_unclosed(first)?.ok_or("no issue is ready")?;
            match log.claim(&next, AGENT) {
                Err(error) if error.is_conflict() => {}
                claimed => {
                    claimed?;
                    break;
                }
            }
        },
    }
    Ok(())
}

/// A process that changes many issues, one after the other, and prints the memory used.
pub(crate) fn change(store: &Path) -> Result<()> {
    let options = Options::default().durability(Durability::Buffered);
    let log = IssueLog::open(store, options)?;
    for number in 0..CHANGES {
        let patch = Patch::new().set("notes", &number)?;
        match log.patch(&format!("bd-{}", number * 5), patch) {
            Ok(_) | Err(CommitError::Conflict(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    print_status()
}

/// The question in SQL, with these terms for the id and the version.
fn sql(question: Question, id: &str, version: &str) -> String {
    const FREE: &str = "status = 'open' AND NOT EXISTS (SELECT 1 FROM dependencies d \
         JOIN issues b ON b.id = d.depends_on WHERE d.id = i.id AND b.status <> 'closed')";
    let claim = format!(
        "UPDATE issues SET status = 'in_progress', assignee = '{AGENT}', version = version + 1, \
         issue = json_set(issue, '$.status', 'in_progress', '$.assignee', '{AGENT}') \
         WHERE status = 'open' AND assignee IS NULL AND id ="
    );
    match question {
        Question::Show => format!("SELECT version, issue FROM issues WHERE id = {id}"),
        Question::Create => format!(
            "INSERT INTO issues VALUES ({id}, 1, 'open', NULL, 2, json_object('id', {id}, \
             'title', '{TITLE}', 'description', '', 'status', 'open', 'priority', 2, \
             'issue_type', 'task', 'created_at', datetime(), 'updated_at', datetime()))"
        ),
        Question::Claim => format!("{claim} {id} RETURNING id"),
        Question::Update => format!(
            "UPDATE issues SET version = version + 1, \
             issue = json_set(issue, '$.note', 'needs wire', '$.updated_at', datetime()) \
             WHERE id = {id} AND version = {version} RETURNING id"
        ),
        Question::Ready => {
            format!("SELECT id, issue FROM issues i WHERE {FREE} ORDER BY priority, id")
        }
        Question::ClaimNext => format!(
            "{claim} (SELECT id FROM issues i WHERE {FREE} AND assignee IS NULL \
             ORDER BY priority, id LIMIT 1) RETURNING id"
        ),
    }
}

#[cfg(feature = "peers")]
mod sqlite {
    use std::path::Path;
    use std::time::Duration;

    use rusqlite::{Connection, params};
    use serde::Deserialize;
    use strand_core::{Issues, Version};

    use super::{Question, Result, sql};

    #[derive(Deserialize)]
    struct Dependency {
        depends_on_id: String,
        #[serde(rename = "type")]
        kind: String,
    }

    pub(super) fn fill(path: &Path, all: &Issues) -> Result<()> {
        let mut connection = Connection::open(path)?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.execute_batch(
            "CREATE TABLE issues (id TEXT PRIMARY KEY, version INTEGER, status TEXT, \
             assignee TEXT, priority INTEGER, issue TEXT); \
             CREATE TABLE dependencies (id TEXT, depends_on TEXT, PRIMARY KEY (id, depends_on)) \
             WITHOUT ROWID; \
             CREATE INDEX by_status ON issues (status, priority, id);",
        )?;
        let transaction = connection.transaction()?;
        for (id, issue) in all.iter() {
            let version = i64::try_from(all.version(id).map_or(0, Version::get))?;
            transaction.execute(
                "INSERT INTO issues VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                params![
                    id,
                    version,
                    issue.status(),
                    issue.assignee(),
                    issue.priority(),
                    issue.as_json()
                ],
            )?;
            let depends: Vec<Dependency> = issue.field("dependencies").unwrap_or_default();
            for on in depends.iter().filter(|on| on.kind == "blocks") {
                transaction.execute(
                    "INSERT OR IGNORE INTO dependencies VALUES (?1, ?2)",
                    (id, &on.depends_on_id),
                )?;
            }
        }
        Ok(transaction.commit()?)
    }

    pub(super) fn answer(question: Question, dir: &Path, id: &str, version: u64) -> Result<()> {
        let connection = Connection::open(dir.join("issues.db"))?;
        connection.busy_timeout(Duration::from_mins(1))?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        let mut statement = connection.prepare(&sql(question, "?1", "?2"))?;
        let version = i64::try_from(version)?;
        for (number, value) in [(1, &id as &dyn rusqlite::ToSql), (2, &version)] {
            if number <= statement.parameter_count() {
                statement.raw_bind_parameter(number, value)?;
            }
        }
        let mut rows = statement.raw_query();
        let mut found = 0;
        while let Some(row) = rows.next()? {
            found += 1;
            match question {
                Question::Show => {
                    println!("{} {}", row.get::<_, i64>(0)?, row.get::<_, String>(1)?);
                }
                Question::Ready => {
                    println!("{} {}", row.get::<_, String>(0)?, row.get::<_, String>(1)?);
                }
                _ => {}
            }
        }
        if found == 0 && question != Question::Create {
            return Err("SQLite found nothing to do".into());
        }
        Ok(())
    }
}

#[cfg(not(feature = "peers"))]
mod sqlite {
    use std::path::Path;

    use super::{Question, Result};

    pub(super) fn answer(_: Question, _: &Path, _: &str, _: u64) -> Result<()> {
        Err("this program was built without SQLite".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    #[test]
    fn a_command_that_makes_indexes_anew_is_refused() {
        use std::os::unix::fs::PermissionsExt as _;

        let scratch = tempfile::tempdir().unwrap();
        let events = crate::events::sample(None).unwrap();
        let tracker = Tracker::fill(scratch.path(), &events, 1_000).unwrap();
        let index = tracker.index_layouts().unwrap();
        assert_eq!(index.len(), 1);
        let script = |line: &str| {
            let path = scratch.path().join("strand");
            std::fs::write(&path, format!("#!/bin/sh\n{line}\n")).unwrap();
            let mode = std::fs::Permissions::from_mode(0o755);
            std::fs::set_permissions(&path, mode).unwrap();
            tracker.requires_same_layout(&path)
        };
        script("true").unwrap();
        assert!(script("false").is_err());
        let message = script("printf other > \"$2\"/log-*.index").unwrap_err();
        assert!(message.to_string().contains("another layout"), "{message}");
    }

    #[test]
    fn a_filled_tracker_answers_every_question() {
        let scratch = tempfile::tempdir().unwrap();
        let events = crate::events::sample(None).unwrap();
        let tracker = Tracker::fill(scratch.path(), &events, 1_000).unwrap();
        assert!(tracker.open.len() >= 4 * REPEATS, "{}", tracker.open.len());
        for question in Question::ALL {
            let (id, version) = tracker.issue(question, 3).unwrap();
            let dir = tracker.dir.path();
            answer(question, dir, &id, version.get()).unwrap();
            #[cfg(feature = "peers")]
            sqlite::answer(question, dir, &id, version.get()).unwrap();
        }
        tracker.make_due().unwrap();
        answer(Question::Create, tracker.dir.path(), "new-one", 0).unwrap();
        assert_eq!(tracker.unclosed().unwrap().len(), 1);
        let claimed = Issues::load(tracker.store()).unwrap();
        let claimed = claimed.list(&strand_core::Filter::new().status("in_progress"));
        assert_eq!(claimed.len(), 2);
    }
}
