//! `strand`: a crash-safe log of issues, on the command line.
#![forbid(unsafe_code)]

mod archive;
mod args;
mod commands;
mod complete;
mod exit;
mod filter;
mod input;
mod output;
mod pager;
mod place;
mod remote;
mod table;

use std::{ffi::OsString, process::ExitCode};

use clap::{Args as _, FromArgMatches as _, Parser as _};

use crate::{
    args::{Append, Cli, Command, Global, OnStore},
    exit::{Exit, Failure},
    output::{Output, tell},
};

fn main() -> ExitCode {
    commands::answer_completion();
    let arguments: Vec<OsString> = std::env::args_os().collect();
    fail_at_file_size_limit();
    if let Some(cli) = append_alone(&arguments) {
        return run(cli).into();
    }
    match Cli::try_parse_from(&arguments) {
        Ok(cli) => run(cli).into(),
        Err(error) => misused(&error, &arguments).into(),
    }
}

/// Has a write beyond the limit of a file's size (`ulimit -f`) fail, instead of ending the process.
fn fail_at_file_size_limit() {
    #[cfg(unix)]
    {
        use signal_hook::{consts::SIGXFSZ, flag::register};
        // Where this is refused, all is as it was.
        register(SIGXFSZ, std::sync::Arc::default()).ok();
    }
}

/// Parses `strand append …`, which scripts call for every event, without building the definitions
/// of all commands: that takes longer than the parsing. Returns `None` for everything else,
/// including wrong arguments.
fn append_alone(arguments: &[OsString]) -> Option<Cli> {
    arguments.iter().find(|word| *word == "append")?;
    let append = Append::augment_args(clap::Command::new("append"));
    let definition = Global::augment_args(clap::Command::new("strand")).subcommand(append);
    let matches = definition.try_get_matches_from(arguments).ok()?;
    let (_, append) = matches.subcommand()?;
    let append = OnStore::Append(Append::from_arg_matches(append).ok()?);
    Some(Cli {
        global: Global::from_arg_matches(&matches).ok()?,
        command: Command::OnStore(Box::new(append)),
    })
}

fn run(cli: Cli) -> Exit {
    let json = cli.global.json;
    let mut out = Output::new(json);
    let done = commands::run(cli, &mut out);
    // The results from before a failure are printed, too.
    let flushed = out.finish();
    match done.and_then(|exit| flushed.map(|()| exit)) {
        Ok(exit) => exit,
        Err(failure) => {
            tell(&failure.describe(json));
            failure.exit
        }
    }
}

/// Prints the requested help, or what is wrong with the arguments.
fn misused(error: &clap::Error, arguments: &[OsString]) -> Exit {
    let words = || arguments.iter().skip(1);
    if error.use_stderr() && words().any(|word| word == "--json") {
        let text = error.to_string();
        let first = text.lines().next().unwrap_or_default();
        let first = first.strip_prefix("error: ").unwrap_or(first);
        tell(&Failure::usage(first).describe(true));
    } else {
        // A closed pipe is not a failure.
        error.print().ok();
    }
    if !error.use_stderr() {
        Exit::Done
    } else if command_of(words()).is_some_and(|command| command == "merge") {
        Exit::NotMerged
    } else {
        Exit::Usage
    }
}

/// The command's name among arguments that may be wrong.
fn command_of<'a>(mut words: impl Iterator<Item = &'a OsString>) -> Option<&'a OsString> {
    loop {
        let word = words.next()?;
        if word == "-C" || word == "--store" {
            words.next();
        } else if !word.to_string_lossy().starts_with('-') {
            return Some(word);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alone(line: &str) -> Option<String> {
        let arguments: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        append_alone(&arguments).map(|cli| format!("{cli:?}"))
    }

    #[test]
    fn append_alone_parses_like_the_full_definition() {
        for line in [
            "strand append",
            "strand append {} {}",
            "strand -C dir append {}",
            "strand --json append --store=dir",
            "strand append -C dir --json --key k {}",
            "strand append --timeout-ms 5 --buffered --allow-unsafe-filesystem -- -x",
        ] {
            let whole = Cli::try_parse_from(line.split(' ')).unwrap();
            assert_eq!(alone(line), Some(format!("{whole:?}")), "{line}");
        }
    }

    #[test]
    fn everything_else_is_left_to_the_full_definition() {
        for line in [
            "strand",
            "strand batch",
            "strand create append",
            "strand -C append",
            "strand append --nonsense",
            "strand append --help",
            "strand append -h",
            "strand --help append",
        ] {
            assert_eq!(alone(line), None, "{line}");
        }
    }
}
