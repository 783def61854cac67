//! An agent that works on any ready issue: it waits, claims, works and closes. Start as many as you
//! like on one machine; each issue goes to one of them.
//!
//! ```sh
//! mkdir -p work
//! run() { cargo run -q -p strand-core --example claiming_agent -- "$@"; }
//! run work agent-1 10 &   # adds 10 issues first
//! run work agent-2 &
//! run work agent-3 &
//! wait
//! ```
//!
//! Expect one line for each issue that an agent claims and one when it closes it, every issue once.
//! After two seconds without a ready issue, each agent prints a summary. An agent that was killed
//! resumes its work when you start it again under the same name, so never run two agents under one
//! name at once.

use std::{
    env, thread,
    time::{Duration, Instant},
};

use strand_core::{
    Batch, CommitError, Conflict, Error, Filter, Issue, IssueEvent, IssueLog, Options, Patch,
    Reader, Receipt, Result, Seq, Version,
};

/// An agent that finds nothing to do for this long ends.
const IDLE_MAX: Duration = Duration::from_secs(2);
/// How often a write is tried if the lock is taken or a sync fails.
const ATTEMPTS: u32 = 5;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let (dir, name, add) = match arguments.as_slice() {
        [dir, name] => (dir, name, 0),
        [dir, name, add] => (dir, name, add.parse()?),
        _ => return Err("usage: claiming_agent DIR NAME [HOW MANY ISSUES TO ADD FIRST]".into()),
    };
    let options = Options::default().lock_timeout(Duration::from_secs(5));
    let agent = Agent {
        log: IssueLog::open(dir, options)?,
        reader: Reader::open(dir)?,
        name,
    };
    for number in 1..=add {
        let title = format!("Mend fence {number}");
        agent
            .log
            .create_new("bd", |id| Ok(Issue::new(id, &title)))?;
    }
    let closed = agent.run()?;
    println!("{name}: closed {closed} issues");
    Ok(())
}

struct Agent<'a> {
    log: IssueLog,
    reader: Reader<IssueEvent>,
    /// No other live process has this name.
    name: &'a str,
}

/// An issue that this agent has claimed.
struct Task {
    issue: Issue,
    /// The version that the agent has read.
    version: Version,
}

impl Agent<'_> {
    /// Works until no issue becomes ready any more, and returns how many it has closed.
    fn run(&self) -> Result<u32, CommitError> {
        let mut closed = 0;
        let mut idle_since = Instant::now();
        while idle_since.elapsed() < IDLE_MAX {
            let (task, seen_seq) = self.next_task()?;
            let Some(task) = task else {
                self.wait_for_news(seen_seq, idle_since + IDLE_MAX)?;
                continue;
            };
            let note = work_on(&task.issue);
            closed += u32::from(self.close(task, &note)?);
            idle_since = Instant::now();
        }
        Ok(closed)
    }

    /// An issue to work on: one that an earlier process of this name has left, or a ready one,
    /// which it claims. If there is none, also the last record that it looked at.
    fn next_task(&self) -> Result<(Option<Task>, u64), CommitError> {
        let mine = Filter::new().assignee(self.name).status("in_progress");
        loop {
            let (found, seen_seq) = self.log.with_issues(|store| {
                let mine = store.list(&mine).into_iter().next();
                let free = |(_, issue): &(&str, &Issue)| issue.assignee().is_none();
                let next = mine.or_else(|| store.ready().into_iter().find(free));
                let found = next.map(|(id, issue)| Task {
                    issue: issue.clone(),
                    version: store.version(id).unwrap_or_default(),
                });
                (found, store.last_seq())
            })?;
            let Some(found) = found else {
                return Ok((None, seen_seq.get()));
            };
            let id = found.issue.id();
            if found.issue.assignee().as_deref() == Some(self.name) {
                println!("{}: goes on with {id}", self.name);
                return Ok((Some(found), seen_seq.get()));
            }
            // The claim has a key, so it can be repeated if its receipt gets lost.
            let key = format!("{}/claim/{id}/{}", self.name, found.version);
            let claim = Batch::new().key(key).claim(&id, self.name);
            match self.commit(&claim) {
                Ok(receipt) => {
                    println!("{}: claimed {id}", self.name);
                    let version = receipt.version();
                    return Ok((Some(Task { version, ..found }), seen_seq.get()));
                }
                // Another agent was faster. Look again: there is one less to choose from.
                Err(error) if error.is_conflict() => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Closes an issue with a note about the work; false if it was taken away meanwhile.
    fn close(&self, mut task: Task, note: &str) -> Result<bool, CommitError> {
        let id = task.issue.id();
        let key = format!("{}/close/{id}/{}", self.name, task.version);
        loop {
            let done = Batch::new()
                .key(&key)
                .patch_if(&id, task.version, Patch::new().set("note", note)?)
                .close(&id);
            match self.commit(&done) {
                Ok(receipt) => {
                    println!("{}: closed {id} (record {})", self.name, receipt.seq);
                    return Ok(true);
                }
                // It has a new label or comment, say. That is no reason not to close it.
                Err(CommitError::Conflict(Conflict {
                    version: Some(version),
                    issue: Some(issue),
                    ..
                })) if issue.assignee().as_deref() == Some(self.name)
                    && issue.status().as_deref() == Some("in_progress") =>
                {
                    task.version = version;
                }
                Err(error) if error.is_conflict() => {
                    println!("{}: {id} is not mine any more: {error}", self.name);
                    return Ok(false);
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Writes a batch that has a key, and repeats it if that can help: because of the key, it is
    /// stored at most once.
    fn commit(&self, batch: &Batch) -> Result<Receipt, CommitError> {
        let mut attempts = 1;
        loop {
            match self.log.commit(batch) {
                // Nothing is stored. The message names the holder of the lock.
                Err(error) if error.is_retryable() && attempts < ATTEMPTS => {
                    eprintln!("{}: {error}; trying again", self.name);
                }
                // It is in the log, but a sync failed. A repetition writes the bytes in doubt again
                // and syncs them; its receipt says that the batch is durable.
                Err(error @ CommitError::Log(Error::DurabilityUnknown { .. }))
                    if attempts < ATTEMPTS =>
                {
                    eprintln!("{}: {error}; asking again", self.name);
                    thread::sleep(Duration::from_millis(200));
                }
                result => return result,
            }
            attempts += 1;
        }
    }

    /// Sleeps until any process has appended a record after this one.
    fn wait_for_news(&self, seen_seq: u64, deadline: Instant) -> Result<()> {
        let mut follower = self.reader.follow(Seq::new(seen_seq + 1))?;
        match follower.next_before(deadline) {
            // It was appended, and is compacted away already.
            Err(Error::Compacted { .. }) => Ok(()),
            record => record.map(drop),
        }
    }
}

/// The agent's actual work.
fn work_on(issue: &Issue) -> String {
    thread::sleep(Duration::from_millis(50));
    format!("done: {}", issue.title())
}
