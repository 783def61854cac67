//! A store whose agents call its command line, as its spec says.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fs::File;
use std::io::{Seek as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};

use crate::evidence::listing::Entry;
use crate::run::config::shell_word;
use crate::stores::reading::entries;
use crate::stores::seat::{Ended, Printed, Seat, excerpt, nameless};
use crate::stores::spec::{Call, Pattern, Spec};
use crate::stores::store::{Agent, Answer, Can, Deed, Job, Process, Server, Store, Told, job};
use crate::stores::template::{Template, Values, shell_line};

/// A store behind a command line.
pub(super) struct CommandStore {
    spec: Spec,
    can: Can,
    /// Searched for programs before the directories of `PATH`: that of the harness.
    beside: PathBuf,
    /// Whether the store's filesystem may stop answering.
    loses_power: bool,
    /// Where programs were found: a shell looks only once, too.
    found: Mutex<HashMap<String, PathBuf>>,
}

/// One call with its values.
struct Prepared {
    argv: Vec<String>,
    stdin: Option<String>,
    workdir: String,
    env: Vec<(String, String)>,
}

impl CommandStore {
    pub(super) fn new(spec: Spec, exe: &Path, loses_power: bool) -> CommandStore {
        let can = Can {
            name: spec.name.clone(),
            ordered: spec.list.ordered,
            numbers: !spec.list.number.is_empty(),
            receipts: spec.append.receipt.is_some(),
            receipt: spec.append.receipt.as_ref().map(Pattern::to_string),
            whole: spec.list.whole,
            claim: spec.claim.is_some(),
            show: spec.show.is_some(),
            set: spec.set.is_some(),
            serve: spec.serve.is_some(),
            batch: spec.batch.is_some(),
            follow: spec.follow.is_some(),
            resumes: spec.resumes(),
            export: spec.export.is_some(),
            exclusive: spec.exclusive.is_some(),
            idempotent: spec.append.idempotent,
            artifacts: spec.artifact.clone(),
            checks: spec.check.clone(),
            leftovers: spec.leftovers.clone(),
        };
        let beside = exe.parent().map_or_else(PathBuf::new, Path::to_owned);
        CommandStore {
            spec,
            can,
            beside,
            loses_power,
            found: Mutex::default(),
        }
    }

    /// The arguments and the standard input of a call; `None` where the spec has none.
    fn words(&self, deed: Deed) -> Option<(&[Template], Option<&Template>)> {
        let spec = &self.spec;
        match deed {
            Deed::Init => spec.init.as_ref().map(Call::words),
            Deed::Serve => spec.serve.as_ref().map(|serve| (&*serve.argv, None)),
            Deed::Ready => spec.serve.as_ref().map(|serve| (&*serve.ready, None)),
            Deed::Append => Some(spec.append.words()),
            Deed::Batch => spec.batch.as_ref().map(Call::words),
            Deed::Claim => spec.claim.as_ref().map(Call::words),
            Deed::Exclusive => spec.exclusive.as_ref().map(Call::words),
            Deed::List => Some((&spec.list.argv, None)),
            Deed::Show => spec.show.as_ref().map(|show| (&*show.argv, None)),
            Deed::Get => spec.get.as_ref().map(|get| (&*get.argv, None)),
            Deed::Set => spec.set.as_ref().map(Call::words),
            Deed::Export => spec.export.as_ref().map(|export| (&*export.argv, None)),
            Deed::Check(number) => spec.check.get(number).map(|check| (&*check.argv, None)),
        }
    }

    fn prepare(
        &self,
        argv: &[Template],
        stdin: Option<&Template>,
        job: &Job,
    ) -> Result<Prepared, String> {
        let mut writes = Vec::new();
        let batch = self.spec.batch.as_ref();
        for write in &job.batch {
            let each = batch.and_then(|batch| batch.each.as_ref());
            writes.push(match each {
                Some(each) => each.fill(write)?,
                None => write.get("payload").cloned().unwrap_or_default(),
            });
        }
        let mut values = Cow::Borrowed(&job.values);
        if let Some(batch) = batch.filter(|_| !writes.is_empty()) {
            values.to_mut().insert("writes", writes.join(&batch.join));
        }
        let mut words = Vec::new();
        for word in argv {
            // On their own, these are several words.
            match word.to_string().as_str() {
                "{witness}" => words.extend_from_slice(&job.witness),
                "{writes}" => words.extend_from_slice(&writes),
                _ => words.push(word.fill(&values)?),
            }
        }
        let mut env = Vec::new();
        for (name, value) in &self.spec.env {
            env.push((name.clone(), value.fill(&values)?));
        }
        Ok(Prepared {
            argv: words,
            stdin: stdin.map(|stdin| stdin.fill(&values)).transpose()?,
            workdir: self.spec.workdir.fill(&values)?,
            env,
        })
    }

    /// The file of a program; its name, where the spec has a `PATH` of its own.
    fn find(&self, program: &str) -> PathBuf {
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(path) = found.get(program) {
            return path.clone();
        }
        let path = std::env::var_os("PATH").filter(|_| !self.spec.env.contains_key("PATH"));
        let dirs = path.iter().flat_map(std::env::split_paths);
        let mut places = std::iter::once(self.beside.clone())
            .chain(dirs)
            .map(|dir| dir.join(program));
        let is_program = |path: &PathBuf| {
            use std::os::unix::fs::PermissionsExt as _;
            let found = path.metadata();
            found.is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
        };
        let place = if program.contains('/') {
            None
        } else {
            places.find(is_program)
        };
        let place = place.unwrap_or_else(|| program.into());
        found.insert(program.to_owned(), place.clone());
        place
    }

    fn run(&self, seat: &Seat, job: &Job, prepared: &Prepared) -> Result<Ended, String> {
        let writes = [Deed::Append, Deed::Batch, Deed::Claim, Deed::Set];
        let argv = if writes.contains(&job.deed) {
            seat.with_fault(&prepared.argv)
        } else {
            prepared.argv.clone()
        };
        seat.run(&mut self.command(&argv, prepared)?)
    }

    fn command(&self, argv: &[String], prepared: &Prepared) -> Result<Command, String> {
        let (program, arguments) = argv.split_first().ok_or("there is no program")?;
        let program = self.find(program);
        let mut command;
        if self.loses_power {
            // It goes there when it is a program of its own: until then it has this process's
            // descriptors, and would keep the filesystem alive that it waits for.
            command = Command::new("sh");
            command.args(["-c", "cd -- \"$1\" && shift && exec \"$@\"", "sh"]);
            command.arg(&prepared.workdir).arg(program);
        } else {
            command = Command::new(program);
            command.current_dir(&prepared.workdir);
        }
        command.args(arguments);
        command.envs(prepared.env.iter().map(|(name, value)| (name, value)));
        match &prepared.stdin {
            None => command.stdin(Stdio::null()),
            Some(text) => command.stdin(input(text).map_err(|error| error.to_string())?),
        };
        Ok(command)
    }
}

/// A file with this text, to be read from its beginning.
fn input(text: &str) -> std::io::Result<File> {
    let mut file = nameless()?;
    file.write_all(text.as_bytes())?;
    file.rewind()?;
    Ok(file)
}

impl Call {
    fn words(&self) -> (&[Template], Option<&Template>) {
        (&self.argv, self.stdin.as_ref())
    }

    /// The meaning of the end of a call, and its receipt.
    fn judge(&self, ended: &Ended) -> (Told, Option<String>) {
        let printed = ended.stdout.trim();
        let said = format!("{}: {} {}", ended.status, printed, ended.stderr.trim());
        let said = excerpt(said.trim());
        let code = ended.status.code();
        let is = |codes: &[i32]| code.is_some_and(|code| codes.contains(&code));
        // What a success says beside its output is a warning.
        let is_ok = is(&self.ok);
        let says = |pattern: &Option<Pattern>| {
            pattern.as_ref().is_some_and(|pattern| {
                pattern.is_in(&ended.stdout) || (!is_ok && pattern.is_in(&ended.stderr))
            })
        };
        if ended.killed {
            (Told::Info(String::new()), None)
        } else if is(&self.refused) || (code.is_some() && says(&self.refused_says)) {
            (Told::Refused(said), None)
        } else if is_ok {
            match &self.receipt {
                None => (Told::Ok, None),
                Some(pattern) => match pattern.find(&ended.stdout) {
                    Some(receipt) => (Told::Ok, Some(receipt)),
                    None => (
                        Told::Info(format!("success without a receipt: {said}")),
                        None,
                    ),
                },
            }
        } else if is(&self.rejected) {
            (Told::Fail(said), None)
        } else {
            (Told::Info(said), None)
        }
    }
}

impl Prepared {
    /// A line for a shell.
    fn line(&self, with_env: bool) -> String {
        let mut line = shell_line(&self.argv);
        if with_env {
            for (name, value) in self.env.iter().rev() {
                line = format!("{name}={} {line}", shell_word(value));
            }
        }
        match &self.stdin {
            None => line,
            Some(text) => format!("printf %s {} | {line}", shell_word(text)),
        }
    }
}

struct CommandAgent<'a> {
    store: &'a CommandStore,
    seat: &'a Seat,
}

impl CommandAgent<'_> {
    fn try_perform(&self, job: &Job) -> Result<Answer, String> {
        let spec = &self.store.spec;
        let Some((argv, stdin)) = self.store.words(job.deed) else {
            return match job.deed {
                // An empty directory is a store.
                Deed::Init => Ok(Answer::ok()),
                deed => Err(format!("the spec has nothing for {deed:?}")),
            };
        };
        let prepared = self.store.prepare(argv, stdin, job)?;
        let ended = self.store.run(self.seat, job, &prepared)?;
        let call = match job.deed {
            Deed::Init => spec.init.as_ref(),
            Deed::Append => Some(&spec.append),
            Deed::Batch => spec.batch.as_ref(),
            Deed::Claim => spec.claim.as_ref(),
            Deed::Set => spec.set.as_ref(),
            Deed::Exclusive => spec.exclusive.as_ref(),
            _ => None,
        };
        let (mut told, mut receipt) = match call {
            Some(call) => call.judge(&ended),
            None if ended.status.success() => (Told::Ok, None),
            None if ended.killed => (Told::Info(String::new()), None),
            None => {
                let (status, said) = (ended.status, ended.stderr.trim());
                (Told::Info(format!("{status}: {said}")), None)
            }
        };
        if let (Deed::Check(number), Told::Ok) = (job.deed, &told) {
            let says = spec.check.get(number).and_then(|check| check.says.as_ref());
            if says.is_some_and(|says| !says.is_in(&ended.stdout)) {
                told = Told::Fail("it did not print what it should".to_owned());
            }
        }
        if let (Deed::Show, Some(show)) = (job.deed, &spec.show) {
            receipt = show.owner.find(&ended.stdout);
        }
        if let (Deed::Get, Some(get), Told::Ok) = (job.deed, &spec.get, &told) {
            receipt = Some(get.value.find(&ended.stdout).unwrap_or_default());
        }
        let mut listed = Vec::new();
        if job.deed == Deed::List && told == Told::Ok {
            match entries(&spec.list, &ended.stdout) {
                Ok(entries) => listed = entries,
                Err(error) => told = Told::Info(error),
            }
        }
        Ok(Answer {
            told,
            receipt,
            entries: listed,
            output: excerpt(&ended.stdout),
            line: excerpt(&prepared.line(false)),
            begin_ns: ended.begin_ns,
            end_ns: ended.end_ns,
        })
    }
}

impl Agent for CommandAgent<'_> {
    fn perform(&mut self, job: &Job) -> Answer {
        self.try_perform(job).unwrap_or_else(|error| {
            if self.seat.is_over() {
                Answer::killed()
            } else {
                Answer::not_begun(error)
            }
        })
    }
}

impl Store for CommandStore {
    fn can(&self) -> &Can {
        &self.can
    }

    fn agent<'a>(&'a self, seat: &'a Seat, _: bool) -> Box<dyn Agent + 'a> {
        Box::new(CommandAgent { store: self, seat })
    }

    fn serve(&self, seat: &Seat, values: &Values) -> Result<Server, String> {
        let serve = self.spec.serve.as_ref().ok_or("the spec has no [serve]")?;
        let prepared = self.prepare(&serve.argv, None, &job(Deed::Serve, values.clone()))?;
        let stdout = Printed::new()?;
        let mut command = self.command(&prepared.argv, &prepared)?;
        let (child, stderr) = seat.start(&mut command, stdout.end()?)?;
        Ok(Server {
            child,
            printed: [stdout, stderr],
            line: excerpt(prepared.line(false).trim()),
        })
    }

    fn follow(&self, seat: &Seat, values: &Values) -> Result<Process, String> {
        let follow = self
            .spec
            .follow
            .as_ref()
            .ok_or("the spec has no [follow]")?;
        let job = job(Deed::List, values.clone());
        let prepared = self.prepare(&follow.argv, None, &job)?;
        Process::start(seat, &mut self.command(&prepared.argv, &prepared)?)
    }

    fn followed(&self, line: &str) -> Result<Vec<Entry>, String> {
        match &self.spec.follow {
            Some(follow) => entries(follow, line),
            None => Ok(Vec::new()),
        }
    }

    fn line(&self, job: &Job) -> Option<String> {
        let tells = |claim: &Call| claim.refused_says.is_none() && claim.ok == [0];
        if job.deed == Deed::Claim && !self.spec.claim.as_ref().is_some_and(tells) {
            return None;
        }
        let (argv, stdin) = self.words(job.deed)?;
        let prepared = self.prepare(argv, stdin, job).ok()?;
        let workdir = shell_word(&prepared.workdir);
        Some(format!("cd {workdir} && {}", prepared.line(true)))
    }

    fn version(&self) -> String {
        version(&self.spec, &self.beside).unwrap_or_else(|error| error)
    }
}

/// The first line that the store's program prints as its version.
pub(super) fn version(spec: &Spec, beside: &Path) -> Result<String, String> {
    let words: Vec<String> = spec.version.clone();
    let (program, arguments) = words.split_first().ok_or("no program")?;
    let own = beside.join(program);
    let path = if own.is_file() { own } else { program.into() };
    let output = Command::new(path)
        .args(arguments)
        .stdin(Stdio::null())
        .output();
    let output = output.map_err(|error| format!("`{program}` cannot be run: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    match text.lines().find(|line| !line.trim().is_empty()) {
        Some(line) if output.status.success() => Ok(line.trim().to_owned()),
        _ => Err(format!("`{}` prints no version", shell_line(&words))),
    }
}
