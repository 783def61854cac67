//! A store whose agents are programs that speak the protocol of [`crate::stores::wire`].

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::json;
use strand_lock::monotonic_ns;

use crate::evidence::listing::Entry;
use crate::stores::seat::{OUTPUT_BYTES_MAX, Printed, Seat, excerpt};
use crate::stores::spec::Artifact;
use crate::stores::store::{Agent, Answer, Can, Deed, Job, Store, Told};
use crate::stores::template::{Template, Values, shell_line};
use crate::stores::wire::{Ability, Done, EXPORT_FORMAT, Reply, Request, VERSION};

/// How often a program may fail to start for one job.
const STARTS_MAX: u32 = 3;

/// A store behind a program.
pub(super) struct ProgramStore {
    argv: Vec<String>,
    can: Can,
    program: String,
}

impl ProgramStore {
    /// Asks the program what its store can do.
    ///
    /// # Errors
    /// It can't be started, or does not speak the protocol.
    pub(super) fn new(argv: Vec<String>, seat: &Seat) -> Result<ProgramStore, String> {
        let mut words = argv.clone();
        if let Some(program) = words.first_mut() {
            let name = program.rsplit('/').next().map(str::to_owned);
            *program = name.unwrap_or_default();
        }
        let store = ProgramStore {
            program: shell_line(&words),
            argv,
            can: Can::default(),
        };
        let mut agent = ProgramAgent::new(&store, seat, true);
        let values = Values::from([("store", String::new()), ("agent", "agent-0".to_owned())]);
        let done = agent.begin(&values)?;
        drop(agent);
        let has = |ability| done.can.contains(&ability);
        let export = Template::try_from("{export}".to_owned())?;
        let artifact = Artifact {
            path: export,
            format: EXPORT_FORMAT,
            complete: true,
        };
        let can = Can {
            name: done.program.unwrap_or_else(|| store.program.clone()),
            ordered: has(Ability::Ordered),
            numbers: has(Ability::Numbers),
            receipts: has(Ability::Receipts),
            whole: true,
            claim: has(Ability::Claim),
            show: has(Ability::Show),
            set: has(Ability::Set),
            idempotent: has(Ability::Idempotent),
            export: has(Ability::Export),
            artifacts: has(Ability::Export)
                .then_some(artifact)
                .into_iter()
                .collect(),
            ..Can::default()
        };
        Ok(ProgramStore { can, ..store })
    }
}

fn hello(values: &Values) -> Request {
    let value = |name| values.get(name).cloned().unwrap_or_default();
    Request::Hello {
        version: VERSION,
        store: value("store"),
        agent: value("agent"),
    }
}

fn request(deed: Deed, values: &Values) -> Option<Request> {
    let value = |name| values.get(name).cloned().unwrap_or_default();
    Some(match deed {
        Deed::Init => Request::Init,
        Deed::Append => Request::Append {
            token: value("token"),
            payload: value("payload"),
        },
        Deed::Claim => Request::Claim {
            item: value("item"),
            agent: value("agent"),
        },
        Deed::List => Request::List,
        Deed::Show => Request::Show {
            item: value("item"),
        },
        Deed::Get => Request::Get {
            item: value("item"),
        },
        Deed::Set => Request::Set {
            item: value("item"),
            old: value("old"),
            new: value("new"),
        },
        Deed::Export => Request::Export {
            path: value("export"),
        },
        Deed::Exclusive | Deed::Check(_) => return None,
    })
}

impl Store for ProgramStore {
    fn can(&self) -> &Can {
        &self.can
    }

    fn agent<'a>(&'a self, seat: &'a Seat, one_shot: bool) -> Box<dyn Agent + 'a> {
        Box::new(ProgramAgent::new(self, seat, one_shot))
    }

    fn line(&self, deed: Deed, values: &Values) -> Option<String> {
        let hello = serde_json::to_string(&hello(values)).ok()?;
        let request = serde_json::to_string(&request(deed, values)?).ok()?;
        let printed = shell_line(&[hello, request]);
        let program = shell_line(&self.argv);
        Some(format!("printf '%s\\n' {printed} | {program}"))
    }

    fn version(&self) -> String {
        self.program.clone()
    }
}

/// A program that runs, and the ends of its pipes.
struct Process {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    stderr: Printed,
}

struct ProgramAgent<'a> {
    store: &'a ProgramStore,
    seat: &'a Seat,
    one_shot: bool,
    process: Option<Process>,
}

impl<'a> ProgramAgent<'a> {
    fn new(store: &'a ProgramStore, seat: &'a Seat, one_shot: bool) -> ProgramAgent<'a> {
        ProgramAgent {
            store,
            seat,
            one_shot,
            process: None,
        }
    }

    /// Starts the program and greets it, unless it runs.
    fn begin(&mut self, values: &Values) -> Result<Done, String> {
        if self.process.is_some() {
            return Ok(Done::default());
        }
        let argv = self.seat.with_fault(&self.store.argv);
        let (program, arguments) = argv.split_first().ok_or("there is no program")?;
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::piped());
        let (mut child, stderr) = self.seat.start(&mut command, Stdio::piped())?;
        let pipes = child.stdin.take().zip(child.stdout.take());
        let (stdin, stdout) = pipes.ok_or("a pipe is missing")?;
        self.process = Some(Process {
            child,
            stdin,
            stdout: BufReader::new(stdout),
            stderr,
        });
        match self.ask(&hello(values)) {
            Ok(Reply::Ok(done)) => Ok(done),
            Ok(reply) => {
                self.seat.kill();
                self.end();
                Err(format!("the answer to hello is {reply:?}"))
            }
            Err(error) => Err(error),
        }
    }

    /// Says something and waits for the answer. After an error the process is gone.
    fn ask(&mut self, request: &Request) -> Result<Reply, String> {
        let line = json!(request).to_string() + "\n";
        let mut answer = String::new();
        let talked = match &mut self.process {
            None => return Err("the program does not run".to_owned()),
            Some(Process { stdin, stdout, .. }) => stdin
                .write_all(line.as_bytes())
                .and_then(|()| stdout.read_line(&mut answer)),
        };
        if talked.is_ok() && answer.ends_with('\n') {
            let reply = serde_json::from_str(&answer);
            return reply.map_err(|error| {
                self.seat.kill();
                self.end();
                format!("{error}: {}", answer.trim())
            });
        }
        let (killed, stderr) = self.end();
        if killed {
            return Err(String::new());
        }
        Err(format!(
            "the program ended without an answer: {}",
            stderr.trim()
        ))
    }

    /// Lets the program end; whether the harness had it killed, and its standard error.
    fn end(&mut self) -> (bool, String) {
        let Some(process) = self.process.take() else {
            return (false, String::new());
        };
        let Process {
            mut child,
            stdin,
            mut stdout,
            stderr,
        } = process;
        drop(stdin);
        let mut rest = String::new();
        while stdout.read_line(&mut rest).is_ok_and(|bytes| bytes > 0) {}
        let reaped = self.seat.reap(&mut child);
        let killed = reaped.is_ok_and(|(_, killed)| killed);
        // What can't be read is not needed for any verdict.
        let stderr = stderr.text(OUTPUT_BYTES_MAX as u64).unwrap_or_default();
        (killed, stderr)
    }

    fn try_perform(&mut self, job: &Job, begin_ns: &mut u64) -> Result<Answer, String> {
        let request = request(job.deed, &job.values)
            .ok_or_else(|| format!("the protocol has no {:?}", job.deed))?;
        // One that is killed before it has heard of the job is started again.
        let mut failures = 0;
        while let Err(error) = self.begin(&job.values) {
            if self.seat.is_over() {
                // An earlier attempt at the same write may have been carried out.
                return Err(String::new());
            }
            failures += u32::from(!error.is_empty());
            if failures >= STARTS_MAX {
                return Ok(Answer::not_begun(format!("it can't be started: {error}")));
            }
        }
        *begin_ns = monotonic_ns();
        let reply = self.ask(&request)?;
        let end_ns = monotonic_ns();
        let mut answer = Answer {
            line: excerpt(&json!(request).to_string()),
            begin_ns: *begin_ns,
            end_ns,
            ..Answer::ok()
        };
        match reply {
            Reply::Ok(done) => {
                answer.receipt = done.receipt.or(done.owner).or(done.value);
                let entries = done.items.into_iter().map(|item| Entry {
                    text: item.text,
                    number: item.number,
                });
                answer.entries = entries.collect();
            }
            Reply::Refused { error } => answer.told = Told::Refused(excerpt(&error)),
            Reply::Fail { error } => answer.told = Told::Fail(excerpt(&error)),
            Reply::Info { error } => answer.told = Told::Info(excerpt(&error)),
        }
        if self.one_shot {
            self.end();
        }
        Ok(answer)
    }
}

impl Agent for ProgramAgent<'_> {
    fn perform(&mut self, job: &Job) -> Answer {
        let mut begin_ns = monotonic_ns();
        self.try_perform(job, &mut begin_ns)
            .unwrap_or_else(|error| Answer {
                told: Told::Info(error),
                begin_ns,
                ..Answer::ok()
            })
    }
}

impl Drop for ProgramAgent<'_> {
    fn drop(&mut self) {
        self.end();
    }
}
