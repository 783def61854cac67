//! `completions` and `man`, generated from the definition of the arguments.

use std::env;

use clap::CommandFactory as _;
use clap_complete::{CompleteEnv, env::Shells};

use crate::{
    args::{Cli, Completions, Man},
    exit::Failure,
    output::Output,
};

/// The variable by which a completion script calls this program.
const VARIABLE: &str = "STRAND_COMPLETE";

/// Answers a completion script, if that is the caller, and ends the process.
pub(crate) fn answer() {
    if env::var_os(VARIABLE).is_some() {
        CompleteEnv::with_factory(Cli::command)
            .var(VARIABLE)
            .complete();
    }
}

/// The script that has a shell ask this program.
fn script(shell: &str) -> Option<Vec<u8>> {
    let mut script = Vec::new();
    let shells = Shells::builtins();
    let shell = shells.completer(shell)?;
    let written = shell.write_registration(VARIABLE, "strand", "strand", "strand", &mut script);
    written.is_ok().then_some(script)
}

pub(crate) fn completions(args: &Completions, out: &mut Output) -> Result<(), Failure> {
    let script = script(&args.shell.to_string()).unwrap_or_default();
    out.line(script)
}

pub(crate) fn man(args: &Man, out: &mut Output) -> Result<(), Failure> {
    let command = Cli::command();
    let Some(dir) = &args.dir else {
        return out.with(|mut out| clap_mangen::Man::new(command).render(&mut out));
    };
    let written =
        std::fs::create_dir_all(dir).and_then(|()| clap_mangen::generate_to(command, dir));
    written.map_err(|error| Failure::io(&format!("cannot write in {}", dir.display()), &error))
}
