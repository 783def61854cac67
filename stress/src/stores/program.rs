//! A store whose agents are programs that speak the protocol of [`crate::stores::wire`].

use std::io::BufRead as _;
use std::process::{Command, Stdio};

use serde_json::json;
use strand_lock::monotonic_ns;

use crate::evidence::listing::Entry;
use crate::stores::seat::{Seat, excerpt};
use crate::stores::spec::Artifact;
use crate::stores::store::{Agent, Answer, Can, Deed, Job, Process, Server, Store, Told};
use crate::stores::template::{Template, Values, shell_line};
use crate::stores::wire::{self, Ability, Done, EXPORT_FORMAT, Listed, Reply, Request, VERSION};

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
        let store = ProgramStore::bare(argv);
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
            receipt: has(Ability::Receipts).then(|| r#""receipt": *"([^"]*)""#.to_owned()),
            whole: true,
            claim: has(Ability::Claim),
            show: has(Ability::Show),
            set: has(Ability::Set),
            idempotent: has(Ability::Idempotent),
            batch: has(Ability::Batch),
            follow: has(Ability::Follow),
            resumes: has(Ability::Resume),
            export: has(Ability::Export),
            artifacts: has(Ability::Export)
                .then_some(artifact)
                .into_iter()
                .collect(),
            ..Can::default()
        };
        Ok(ProgramStore { can, ..store })
    }

    /// A store that is not known to be able to do anything.
    pub(super) fn bare(argv: Vec<String>) -> ProgramStore {
        let mut words = argv.clone();
        if let Some(program) = words.first_mut() {
            let name = program.rsplit('/').next().map(str::to_owned);
            *program = name.unwrap_or_default();
        }
        ProgramStore {
            program: shell_line(&words),
            argv,
            can: Can::default(),
        }
    }
}

impl From<Listed> for Entry {
    fn from(item: Listed) -> Entry {
        Entry {
            text: item.text,
            number: item.number,
        }
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

fn request(job: &Job) -> Option<Request> {
    let of = |values: &Values, name| values.get(name).cloned().unwrap_or_default();
    let value = |name| of(&job.values, name);
    Some(match job.deed {
        Deed::Init => Request::Init,
        Deed::Append => Request::Append {
            token: value("token"),
            payload: value("payload"),
        },
        Deed::Batch => {
            let writes = job.batch.iter().map(|write| wire::Write {
                token: of(write, "token"),
                payload: of(write, "payload"),
            });
            Request::Batch {
                writes: writes.collect(),
            }
        }
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
        Deed::Serve | Deed::Ready | Deed::Exclusive | Deed::Check(_) => return None,
    })
}

impl Store for ProgramStore {
    fn can(&self) -> &Can {
        &self.can
    }

    fn agent<'a>(&'a self, seat: &'a Seat, one_shot: bool) -> Box<dyn Agent + 'a> {
        Box::new(ProgramAgent::new(self, seat, one_shot))
    }

    fn serve(&self, _: &Seat, _: &Values) -> Result<Server, String> {
        Err("the protocol has no server".to_owned())
    }

    fn follow(&self, seat: &Seat, values: &Values) -> Result<Process, String> {
        let (program, arguments) = self.argv.split_first().ok_or("there is no program")?;
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::piped());
        let mut process = Process::start(seat, &mut command)?;
        let from = values.get("from").and_then(|from| from.parse().ok());
        let from = from.unwrap_or_default();
        for request in [hello(values), Request::Follow { from }] {
            // One that does not hear it has ended or was killed, which its output shows.
            drop(process.say(&(json!(request).to_string() + "\n")));
        }
        Ok(process)
    }

    fn followed(&self, line: &str) -> Result<Vec<Entry>, String> {
        match serde_json::from_str(line).map_err(|error| format!("{error}: {line}"))? {
            // Items are counted.
            Reply::Ok(done) => Ok(done
                .items
                .into_iter()
                .map(|item| Entry {
                    number: None,
                    text: item.text,
                })
                .collect()),
            reply => Err(format!("{reply:?}")),
        }
    }

    fn line(&self, job: &Job) -> Option<String> {
        if job.deed == Deed::Claim {
            return None;
        }
        let hello = serde_json::to_string(&hello(&job.values)).ok()?;
        let request = serde_json::to_string(&request(job)?).ok()?;
        let printed = shell_line(&[hello, request]);
        let program = shell_line(&self.argv);
        Some(format!("printf '%s\\n' {printed} | {program}"))
    }

    fn version(&self) -> String {
        self.program.clone()
    }
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
        self.process = Some(Process::start(self.seat, &mut command)?);
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
            Some(process) => process
                .say(&line)
                .and_then(|()| process.stdout.read_line(&mut answer)),
        };
        if talked.is_ok() && answer.ends_with('\n') {
            let reply = serde_json::from_str(&answer);
            return reply.map_err(|error| {
                self.seat.kill();
                self.end();
                format!("{error}: {}", answer.trim())
            });
        }
        let (killed, said) = self.end();
        if killed {
            return Err(String::new());
        }
        Err(format!("the program ended without an answer: {said}"))
    }

    /// Lets the program end; whether the harness had it killed, and what there is to say of it.
    fn end(&mut self) -> (bool, String) {
        match self.process.take() {
            Some(process) => process.end(self.seat),
            None => (false, String::new()),
        }
    }

    fn try_perform(&mut self, job: &Job, begin_ns: &mut u64) -> Result<Answer, String> {
        let request = request(job).ok_or_else(|| format!("the protocol has no {:?}", job.deed))?;
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
                answer.entries = done.items.into_iter().map(Entry::from).collect();
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
