//! `strand`: a store's log and issues from the command line.
#![forbid(unsafe_code)]

mod args;
mod commands;
mod exit;
mod filter;
mod input;
mod output;
mod table;
mod waiting;

use std::{ffi::OsString, process::ExitCode};

use clap::Parser as _;

use crate::{
    args::Cli,
    exit::{Exit, Failure},
    output::{Output, tell},
};

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    match Cli::try_parse_from(&arguments) {
        Ok(cli) => run(cli).into(),
        Err(error) => misused(&error, &arguments).into(),
    }
}

fn run(cli: Cli) -> Exit {
    let json = cli.json;
    let mut out = Output::new(json);
    let done = commands::run(cli.command, &mut out);
    // What was done before a failure is told, too.
    let flushed = out.flush();
    match done.and_then(|exit| flushed.map(|()| exit)) {
        Ok(exit) => exit,
        Err(failure) => {
            tell(&failure.describe(json));
            failure.exit
        }
    }
}

/// Prints the help that was asked for, or what is wrong with the arguments.
fn misused(error: &clap::Error, arguments: &[OsString]) -> Exit {
    let words = || arguments.iter().skip(1);
    if error.use_stderr() && words().any(|word| word == "--json") {
        let text = error.to_string();
        let first = text.lines().next().unwrap_or_default();
        let first = first.strip_prefix("error: ").unwrap_or(first);
        tell(&Failure::usage(first).describe(true));
    } else {
        // That nobody listens is no failure.
        error.print().ok();
    }
    let command = words().find(|word| !word.to_string_lossy().starts_with('-'));
    if !error.use_stderr() {
        Exit::Done
    } else if command.is_some_and(|command| command == "merge") {
        Exit::NotMerged
    } else {
        Exit::Usage
    }
}
