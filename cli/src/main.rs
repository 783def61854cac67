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

use clap::{Args, FromArgMatches as _, Parser as _};

use crate::{
    args::{Cli, Command, Global, OnStore},
    exit::{Exit, Failure},
    output::{Output, tell},
};

fn main() -> ExitCode {
    commands::answer_completion();
    let arguments: Vec<OsString> = std::env::args_os().collect();
    fail_at_file_size_limit();
    if let Some(cli) = parse_alone(&arguments) {
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

/// Parses the commands that agents call all the time without building the definitions of all the
/// others: that takes longer than the parsing. Returns `None` for everything else, including wrong
/// arguments.
fn parse_alone(arguments: &[OsString]) -> Option<Cli> {
    let name = command_of(arguments.iter().skip(1))?;
    match name.to_str()? {
        "append" => one_of("append", arguments, OnStore::Append),
        "claim" => one_of("claim", arguments, OnStore::Claim),
        "close" => one_of("close", arguments, OnStore::Close),
        "comment" => one_of("comment", arguments, OnStore::Comment),
        "create" => one_of("create", arguments, OnStore::Create),
        "list" => one_of("list", arguments, OnStore::List),
        "ready" => one_of("ready", arguments, OnStore::Ready),
        "show" => one_of("show", arguments, OnStore::Show),
        "update" => one_of("update", arguments, OnStore::Update),
        _ => None,
    }
}

fn one_of<A: Args>(
    name: &'static str,
    arguments: &[OsString],
    command: impl FnOnce(A) -> OnStore,
) -> Option<Cli> {
    let only = A::augment_args(clap::Command::new(name));
    let definition = Global::augment_args(clap::Command::new("strand")).subcommand(only);
    let matches = definition.try_get_matches_from(arguments).ok()?;
    let (_, of_command) = matches.subcommand()?;
    let command = command(A::from_arg_matches(of_command).ok()?);
    Some(Cli {
        global: Global::from_arg_matches(&matches).ok()?,
        command: Command::OnStore(Box::new(command)),
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
        parse_alone(&arguments).map(|cli| format!("{cli:?}"))
    }

    #[test]
    fn a_command_alone_parses_like_the_full_definition() {
        for line in [
            "strand append",
            "strand append {} {}",
            "strand -C dir append {}",
            "strand --json append --store=dir",
            "strand append -C dir --json --key k {}",
            "strand append --timeout-ms 5 --buffered --allow-unsafe-filesystem -- -x",
            "strand claim --agent me --label x -C dir",
            "strand claim bd-1 --actor me --key k",
            "strand close bd-1 bd-2 --json",
            "strand -C show comment bd-1 text --author me",
            "strand create append --id bd-1 -p 1 -l x --set a=1",
            "strand --store dir list --status open --columns id,title -n 3",
            "strand ready --free --json",
            "strand show show",
            "strand update bd-1 --set-text note=show --if-version 3",
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
            "strand batch append",
            "strand -C append",
            "strand append --nonsense",
            "strand append --help",
            "strand append -h",
            "strand --help append",
            "strand show",
            "strand claim --agent me --free",
            "strand create title --key k",
        ] {
            assert_eq!(alone(line), None, "{line}");
        }
    }
}
