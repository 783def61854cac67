//! The arguments.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

use crate::{
    exit::Exit,
    input::{Assignment, Required, assignment, required, text_assignment},
};

/// A crash-safe log of issue events that many processes append to at once
///
/// A store is a directory. Every write is on the disk when the command ends, and of several agents that compete one
/// wins. Reading commands take no lock.
#[derive(Debug, Parser)]
#[command(name = "strand", version, after_help = Exit::table(), disable_help_subcommand = true)]
pub(crate) struct Cli {
    /// Print JSON, one object a line; what goes to standard error, too
    #[arg(long, global = true)]
    pub(crate) json: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make a directory a store; one that is a store already stays as it is
    Init(Init),
    /// Create an issue and print its id
    Create(Create),
    /// Append events, each as a record of its own, and print the records' numbers
    Append(Append),
    /// Append events as one record: all of them or none
    Batch(Batch),
    /// Show an issue with its version
    Show(Show),
    /// List issues in the order of their ids
    List(List),
    /// List the issues that can be worked on, the most urgent ones first
    Ready(Ready),
    /// Give an open issue that is nobody's to an agent, and print its id
    Claim(Claim),
    /// Change some fields of an issue, and leave the others to others
    Update(Update),
    /// Close issues: all of them or none
    Close(Change),
    /// Open closed issues again: all of them or none
    Reopen(Change),
    /// Delete issues: all of them or none
    Delete(Change),
    /// Print records as they come: the lines of the log, each when it is durable
    Follow(Follow),
    /// Fold the log into a snapshot, beside those who write
    Compact(Compact),
    /// Look at everything in a store, and say how it is and what to do; changes nothing
    Doctor(Reading),
    /// Make a damaged store usable again, and say what is lost; what is replaced is kept in `quarantine`
    Repair(Repair),
    /// Count records, issues and bytes
    Stat(Reading),
    /// Import issues from JSON lines
    Import(Import),
    /// Write all issues as JSON lines, in the order of their ids
    Export(Export),
    /// Merge exports of two branches, as git's merge driver: `strand merge %O %A %B`
    Merge(Merge),
    /// Print what has a shell complete the arguments of this command
    Completions(Completions),
    /// Print the manual, or write all its pages to a directory
    Man(Man),
}

/// What all commands have that write.
#[derive(Debug, Args)]
pub(crate) struct Writing {
    /// Wait for the lock at most so many milliseconds; whoever holds it is named after a second
    #[arg(long, value_name = "MS", default_value_t = 30_000)]
    pub(crate) timeout_ms: u64,
    /// End before the record is on the disk: it survives the death of any process, but not the loss of power.
    /// Others see it when it is on the disk, with the next write that is not buffered
    #[arg(long)]
    pub(crate) buffered: bool,
    /// Use a store on a network filesystem all the same; locks may not exclude other machines there
    #[arg(long)]
    pub(crate) allow_unsafe_filesystem: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Reading {
    /// The store's directory
    pub(crate) dir: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct Init {
    /// The directory; created when missing
    pub(crate) dir: PathBuf,
    #[command(flatten)]
    pub(crate) writing: Writing,
}

/// Changes of an issue's fields.
#[derive(Debug, Args)]
pub(crate) struct Changes {
    /// Set a field to a JSON value: `--set priority=1`
    #[arg(long = "set", value_name = "FIELD=JSON", value_parser = assignment)]
    pub(crate) set: Vec<Assignment>,
    /// Set a field to a text: `--set-text status=in_progress`
    #[arg(long = "set-text", value_name = "FIELD=TEXT", value_parser = text_assignment)]
    pub(crate) set_text: Vec<Assignment>,
    /// Take a field away
    #[arg(long = "unset", value_name = "FIELD")]
    pub(crate) unset: Vec<String>,
    /// Add a label, unless the issue has it
    #[arg(long = "add-label", value_name = "LABEL")]
    pub(crate) add_labels: Vec<String>,
    /// Take a label away
    #[arg(long = "remove-label", value_name = "LABEL")]
    pub(crate) remove_labels: Vec<String>,
    /// Add a value to an array, unless it is in it
    #[arg(long = "add", value_name = "FIELD=JSON", value_parser = assignment)]
    pub(crate) add: Vec<Assignment>,
    /// Take a value out of an array
    #[arg(long = "remove", value_name = "FIELD=JSON", value_parser = assignment)]
    pub(crate) remove: Vec<Assignment>,
    /// Add a value at the end of an array
    #[arg(long = "append", value_name = "FIELD=JSON", value_parser = assignment)]
    pub(crate) append: Vec<Assignment>,
}

#[derive(Debug, Args)]
pub(crate) struct Create {
    /// The store's directory
    pub(crate) dir: PathBuf,
    /// What it is about, on one line
    pub(crate) title: String,
    /// Its id; without, a new short one is drawn
    #[arg(long)]
    pub(crate) id: Option<String>,
    /// What a drawn id begins with
    #[arg(long, default_value = "bd", conflicts_with = "id")]
    pub(crate) prefix: String,
    #[command(flatten)]
    pub(crate) changes: Changes,
    /// Store it once however often this is repeated with the same key
    #[arg(long, requires = "id")]
    pub(crate) key: Option<String>,
    #[command(flatten)]
    pub(crate) writing: Writing,
}

#[derive(Debug, Args)]
pub(crate) struct Append {
    /// The store's directory
    pub(crate) dir: PathBuf,
    /// The events as JSON: `{"op":"close","id":"bd-1"}`; without, they are read from standard input, one a line. One
    /// without `ts` gets the present time
    #[arg(value_name = "EVENT")]
    pub(crate) events: Vec<String>,
    /// Store it once however often this is repeated with the same key; only with one EVENT
    #[arg(long)]
    pub(crate) key: Option<String>,
    #[command(flatten)]
    pub(crate) writing: Writing,
}

#[derive(Debug, Args)]
pub(crate) struct Batch {
    /// The store's directory
    pub(crate) dir: PathBuf,
    /// The events as JSON; without, they are read from standard input, one a line
    #[arg(value_name = "EVENT")]
    pub(crate) events: Vec<String>,
    /// Write only if this issue is still at this version
    #[arg(long, value_name = "ID=VERSION", value_parser = required)]
    pub(crate) require: Vec<Required>,
    /// Write only if there is no such issue
    #[arg(long, value_name = "ID")]
    pub(crate) require_absent: Vec<String>,
    /// Store it once however often this is repeated with the same key
    #[arg(long)]
    pub(crate) key: Option<String>,
    #[command(flatten)]
    pub(crate) writing: Writing,
}

#[derive(Debug, Args)]
pub(crate) struct Show {
    /// The store's directory
    pub(crate) dir: PathBuf,
    /// The issue
    pub(crate) id: String,
}

/// Which issues: those that match all that is given.
#[derive(Debug, Default, Args)]
pub(crate) struct Wanted {
    /// Only those of this assignee
    #[arg(long)]
    pub(crate) assignee: Option<String>,
    /// Only those with this label; with all of them where it is given several times
    #[arg(long = "label", value_name = "LABEL")]
    pub(crate) labels: Vec<String>,
    /// Only those with this priority
    #[arg(long, allow_negative_numbers = true)]
    pub(crate) priority: Option<i64>,
    /// Only those of this type: `bug`, `task`, …
    #[arg(long = "type", value_name = "TYPE")]
    pub(crate) kind: Option<String>,
    /// Only those with this text in id, title or description, in capitals or not
    #[arg(long)]
    pub(crate) text: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct List {
    /// The store's directory
    pub(crate) dir: PathBuf,
    /// Only those with this status: `open`, `closed`, …
    #[arg(long)]
    pub(crate) status: Option<String>,
    #[command(flatten)]
    pub(crate) wanted: Wanted,
    /// No more than so many
    #[arg(long, value_name = "COUNT")]
    pub(crate) limit: Option<usize>,
}

#[derive(Debug, Args)]
pub(crate) struct Ready {
    /// The store's directory
    pub(crate) dir: PathBuf,
    /// Only those that nobody has
    #[arg(long, conflicts_with = "assignee")]
    pub(crate) free: bool,
    #[command(flatten)]
    pub(crate) wanted: Wanted,
    /// No more than so many
    #[arg(long, value_name = "COUNT")]
    pub(crate) limit: Option<usize>,
}

#[derive(Debug, Args)]
pub(crate) struct Claim {
    /// The store's directory
    pub(crate) dir: PathBuf,
    /// The issue; without, the most urgent one that is ready
    pub(crate) id: Option<String>,
    /// Who claims it
    #[arg(long, visible_alias = "actor", env = "STRAND_AGENT")]
    pub(crate) agent: String,
    /// Only one with this label; with all of them where it is given several times
    #[arg(long = "label", value_name = "LABEL", conflicts_with = "id")]
    pub(crate) labels: Vec<String>,
    /// Only one with this priority
    #[arg(long, allow_negative_numbers = true, conflicts_with = "id")]
    pub(crate) priority: Option<i64>,
    /// Only one of this type
    #[arg(long = "type", value_name = "TYPE", conflicts_with = "id")]
    pub(crate) kind: Option<String>,
    /// Claim it once however often this is repeated with the same key
    #[arg(long, requires = "id")]
    pub(crate) key: Option<String>,
    #[command(flatten)]
    pub(crate) writing: Writing,
}

#[derive(Debug, Args)]
pub(crate) struct Update {
    /// The store's directory
    pub(crate) dir: PathBuf,
    /// The issue
    pub(crate) id: String,
    #[command(flatten)]
    pub(crate) changes: Changes,
    /// Only if it is still at this version
    #[arg(long, value_name = "VERSION")]
    pub(crate) if_version: Option<u64>,
    /// Store it once however often this is repeated with the same key
    #[arg(long)]
    pub(crate) key: Option<String>,
    #[command(flatten)]
    pub(crate) writing: Writing,
}

#[derive(Debug, Args)]
pub(crate) struct Change {
    /// The store's directory
    pub(crate) dir: PathBuf,
    /// The issues
    #[arg(value_name = "ID", required = true)]
    pub(crate) ids: Vec<String>,
    /// Only if it is still at this version; only with one ID
    #[arg(long, value_name = "VERSION")]
    pub(crate) if_version: Option<u64>,
    /// Store it once however often this is repeated with the same key
    #[arg(long)]
    pub(crate) key: Option<String>,
    #[command(flatten)]
    pub(crate) writing: Writing,
}

#[derive(Debug, Args)]
pub(crate) struct Follow {
    /// The store's directory
    pub(crate) dir: PathBuf,
    /// Begin with this record; without, with the next one that is written
    #[arg(long, value_name = "SEQ", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) from: Option<u64>,
    /// End when no record has come for so many milliseconds; without, go on until interrupted
    #[arg(long, value_name = "MS")]
    pub(crate) until_idle_ms: Option<u64>,
    /// End after so many records
    #[arg(long, value_name = "COUNT")]
    pub(crate) limit: Option<u64>,
}

#[derive(Debug, Args)]
pub(crate) struct Compact {
    /// The store's directory
    pub(crate) dir: PathBuf,
    /// Only if the log has become long
    #[arg(long)]
    pub(crate) if_due: bool,
    #[command(flatten)]
    pub(crate) writing: Writing,
}

#[derive(Debug, Args)]
pub(crate) struct Repair {
    /// The store's directory
    pub(crate) dir: PathBuf,
    #[command(flatten)]
    pub(crate) writing: Writing,
}

/// What an import does with an issue whose id is there already.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Existing {
    /// The line takes its place
    Replace,
    /// It stays as it is
    Keep,
    /// Nothing is imported
    Refuse,
}

#[derive(Debug, Args)]
pub(crate) struct Import {
    /// The store's directory
    pub(crate) dir: PathBuf,
    /// The file; without, standard input, which is held in memory
    pub(crate) file: Option<PathBuf>,
    /// What becomes of issues that exist
    #[arg(long, value_enum, default_value = "replace")]
    pub(crate) existing: Existing,
    /// Import the good lines although there are bad ones
    #[arg(long)]
    pub(crate) skip_bad_lines: bool,
    #[command(flatten)]
    pub(crate) writing: Writing,
}

#[derive(Debug, Args)]
pub(crate) struct Export {
    /// The store's directory
    pub(crate) dir: PathBuf,
    /// The file, which is replaced as a whole; without, standard output
    pub(crate) file: Option<PathBuf>,
}

/// Exit status: 0 merged, 1 merged but for the conflicts that are listed, 129 not merged.
#[derive(Debug, Args)]
pub(crate) struct Merge {
    /// The common ancestor
    pub(crate) base: PathBuf,
    /// The one that is merged into; it is replaced by the result
    pub(crate) ours: PathBuf,
    /// The one that is merged
    pub(crate) theirs: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct Completions {
    /// The shell
    pub(crate) shell: Shell,
}

#[derive(Debug, Args)]
pub(crate) struct Man {
    /// Where to write `strand.1`, `strand-append.1`, …; created when missing
    pub(crate) dir: Option<PathBuf>,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_arguments_are_consistent() {
        Cli::command().debug_assert();
    }
}
