//! `completions` and `man`, generated from the definition of the arguments.

use clap::CommandFactory as _;

use crate::{
    args::{Cli, Completions, Man},
    exit::Failure,
    output::Output,
};

pub(crate) fn completions(args: &Completions, out: &mut Output) -> Result<(), Failure> {
    let mut command = Cli::command();
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, "strand", &mut script);
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
