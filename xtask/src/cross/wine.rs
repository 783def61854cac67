//! Wine: its prefix and its session, and how programs are run under it.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use crate::cross::tools::{PREFIX, Windows, target_dir};
use crate::failure::Failure;

/// A test program or a run of the harness that takes longer hangs.
const LIMIT: Duration = Duration::from_mins(15);
/// How long the first program of a session may take to start. Wine itself waits for its services
/// for up to five minutes.
const SESSION_LIMIT: Duration = Duration::from_mins(6);
/// How long a session may take to end.
const SESSION_END: Duration = Duration::from_secs(10);
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

const RANDOM_C: &str = include_str!("../../wine/bcryptprimitives.c");
const KEEP_C: &str = include_str!("../../wine/keep.c");
const SHARED_PAGE_C: &str = include_str!("../../wine/shared_page.c");
/// How often the program that shows the fault is loaded.
const LOADS: u32 = 500;
/// Beside the loader, where a Wine has one.
const PRELOADER: &str = "wine64-preloader";

/// Wine, with its own prefix.
pub(super) struct Wine<'a> {
    tools: &'a Windows,
    prefix: PathBuf,
}

impl Wine<'_> {
    pub(super) fn prepare(tools: &Windows) -> Result<Wine<'_>, Failure> {
        let prefix =
            std::env::var_os(PREFIX).map_or_else(|| target_dir().join("wine"), PathBuf::from);
        let wine = Wine { tools, prefix };
        let cannot = |what: &str| Failure::environment(format!("cross windows: NOT RUN: {what}"));
        fs::create_dir_all(&wine.prefix)
            .map_err(|error| cannot(&format!("{}: {error}", wine.prefix.display())))?;
        let system = wine.prefix.join("drive_c/windows/system32");
        if !system.is_dir() {
            let mut boot = wine.command(Path::new("wineboot"));
            let said = run_to_end(boot.arg("--init"), "wineboot")?;
            if !system.is_dir() {
                return Err(cannot(&format!(
                    "Wine creates no prefix: {}{}",
                    said.text,
                    said.end()
                )));
            }
        }
        let library = system.join("bcryptprimitives.dll");
        if !library.is_file() {
            let flags = ["-shared", "-ladvapi32"];
            compile(&tools.cc, &flags, "bcryptprimitives.c", RANDOM_C, &library)
                .map_err(|error| cannot(&error))?;
        }
        Ok(wine)
    }

    pub(super) fn command(&self, program: &Path) -> Command {
        let mut command = self.loader();
        command
            .arg(program)
            .env("WINEPREFIX", &self.prefix)
            .env("WINEARCH", "win64")
            .env("WINEDEBUG", "-all")
            .env_remove("DISPLAY");
        command
    }

    /// Wine's loader, at the same place of the memory each time if the system can do that.
    fn loader(&self) -> Command {
        let wine = &self.tools.wine;
        match &self.tools.setarch {
            Some(setarch) => {
                let mut command = Command::new(setarch);
                command.arg("-R").arg(wine);
                command
            }
            None => Command::new(wine),
        }
    }

    /// Looks whether programs may fail to start: see `shared_page.c`.
    ///
    /// # Errors
    /// The program that shows it does not compile or run.
    pub(super) fn look_for_the_fault(&self) -> Result<Fault, String> {
        if self.tools.wine.with_file_name(PRELOADER).is_file() {
            let why = format!("this Wine has a preloader, {PRELOADER}");
            return Ok(Fault::NotLookedFor(why));
        }
        let Some(cc) = &self.tools.own_cc else {
            return Ok(Fault::NotLookedFor(
                "there is no cc to compile it".to_owned(),
            ));
        };
        let program = target_dir().join("shared_page");
        let flags = ["-no-pie", "-Wl,-Ttext-segment=0x7d000000"];
        compile(cc, &flags, "shared_page.c", SHARED_PAGE_C, &program)?;
        let collisions = |mut command: Command| {
            let output = command.arg(LOADS.to_string()).output();
            let output = output.map_err(|error| format!("{}: {error}", program.display()))?;
            let text = String::from_utf8_lossy(&output.stdout);
            let count = text.trim().parse::<u32>();
            count.map_err(|_| format!("{}: {}", program.display(), output.status))
        };
        let shown = collisions(Command::new(&program))?;
        let shown = format!("0x7ffe0000 was taken by the heap in {shown} of {LOADS} loads");
        let Some(setarch) = &self.tools.setarch else {
            return Ok(Fault::Open(format!(
                "{shown}: programs fail to start; setarch, of util-linux, would help"
            )));
        };
        let mut fixed = Command::new(setarch);
        fixed.arg("-R").arg(&program);
        Ok(match collisions(fixed)? {
            0 => Fault::Avoided(format!("{shown}, and in none by setarch -R, as here")),
            left => Fault::Open(format!("{shown}, and in {left} by setarch -R")),
        })
    }

    /// Starts a session, which lasts until what this returns is dropped: see `keep.c`.
    pub(super) fn keep_session(&self) -> Result<Session, Failure> {
        let program = target_dir().join("keep.exe");
        let cannot = |error: String| {
            Failure::environment(format!(
                "cross windows: NOT RUN: Wine starts nothing: {error}"
            ))
        };
        compile(&self.tools.cc, &[], "keep.c", KEEP_C, &program).map_err(cannot)?;
        let mut command = self.command(&program);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut child = command.spawn().map_err(|error| cannot(error.to_string()))?;
        let stdout = child.stdout.take();
        let session = Session(child);
        let (sender, said) = mpsc::channel();
        std::thread::spawn(move || {
            let mut line = String::new();
            let read = stdout.map(|stdout| BufReader::new(stdout).read_line(&mut line));
            sender.send(read.is_some_and(|read| read.is_ok()) && line.trim() == "ready")
        });
        match said.recv_timeout(SESSION_LIMIT) {
            Ok(true) => Ok(session),
            Ok(false) => Err(cannot(format!("{} died", program.display()))),
            Err(_) => Err(cannot(format!(
                "waited {} s for a first program, {}",
                SESSION_LIMIT.as_secs(),
                program.display()
            ))),
        }
    }
}

/// Whether a fault of Wine's concerns the programs here.
pub(super) enum Fault {
    /// It is there, and they are started so that it does not matter.
    Avoided(String),
    /// They may fail to start.
    Open(String),
    NotLookedFor(String),
}

/// Programs of Wine's that run between others.
pub(super) struct Session(Child);

impl Drop for Session {
    fn drop(&mut self) {
        // It ends with its standard input. If it doesn't, nobody needs to wait for it.
        drop(self.0.stdin.take());
        let until = Instant::now() + SESSION_END;
        while Instant::now() < until && matches!(self.0.try_wait(), Ok(None)) {
            std::thread::sleep(LOOK_INTERVAL);
        }
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Compiles a C source that came with this program.
fn compile(cc: &Path, flags: &[&str], name: &str, text: &str, to: &Path) -> Result<(), String> {
    let source = target_dir().join(name);
    fs::write(&source, text).map_err(|error| format!("{}: {error}", source.display()))?;
    let mut command = Command::new(cc);
    command.args(["-O1", "-o"]).arg(to).arg(&source).args(flags);
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!(
            "{} does not compile {name}: {status}",
            cc.display()
        )),
        Err(error) => Err(format!("{}: {error}", cc.display())),
    }
}

/// The output of a program, and how it ended: `None` if it took too long.
pub(super) struct Said {
    pub(super) text: String,
    status: Option<ExitStatus>,
}

impl Said {
    pub(super) fn succeeded(&self) -> bool {
        self.status.is_some_and(|status| status.success())
    }

    pub(super) fn end(&self) -> String {
        self.status.map_or_else(
            || format!("it hangs: killed after {} s", LIMIT.as_secs()),
            |status| status.to_string(),
        )
    }
}

/// Runs a program for [`LIMIT`] at most. Its output goes to a file: a child that outlives it would
/// keep a pipe open.
pub(super) fn run_to_end(command: &mut Command, name: &str) -> Result<Said, Failure> {
    let log = target_dir().join(format!("{}.log", name.replace('/', "-")));
    let cannot = |error: std::io::Error| {
        Failure::environment(format!("cross windows: NOT RUN: {name}: {error}"))
    };
    let out = fs::File::create(&log).map_err(cannot)?;
    let err = out.try_clone().map_err(cannot)?;
    let mut child = command
        .stdin(Stdio::null())
        .stdout(out)
        .stderr(err)
        .spawn()
        .map_err(cannot)?;
    let deadline = Instant::now() + LIMIT;
    let status = loop {
        match child.try_wait().map_err(cannot)? {
            Some(status) => break Some(status),
            None if Instant::now() >= deadline => {
                child.kill().map_err(cannot)?;
                child.wait().map_err(cannot)?;
                break None;
            }
            None => std::thread::sleep(LOOK_INTERVAL),
        }
    };
    let text = fs::read(&log).map_err(cannot)?;
    Ok(Said {
        text: String::from_utf8_lossy(&text).into_owned(),
        status,
    })
}
