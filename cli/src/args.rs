//! The command-line arguments.

use std::path::{Path, PathBuf};

use clap::{Args, Parser, Subcommand, ValueEnum, ValueHint};
use clap_complete::{ArgValueCandidates, Shell};

use crate::{
    complete,
    exit::Exit,
    input::{Assignment, Required, assignment, name, required, text_assignment},
};

/// A crash-safe log of issue events that many processes append to at once
///
/// A store is a directory. Every write is on disk when the command ends, and if several agents
/// compete for an issue, one of them wins. Commands that read take no lock.
#[derive(Debug, Parser)]
#[command(name = "strand", version, after_help = Exit::table())]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The options of every command.
#[derive(Debug, Args)]
pub(crate) struct Global {
    /// The store's directory, or `etcd://HOST,…/NAME`; by default `$STRAND_DIR`, else `.strand` in this directory or in the
    /// nearest one above that has it
    #[arg(short = 'C', long, value_name = "STORE", global = true, value_hint = ValueHint::DirPath)]
    pub(crate) store: Option<PathBuf>,
    /// Print JSON, one object per line, on standard error too
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Create the store `.strand`, or the one that `-C` names; an existing store is left as it is
    #[command(after_help = "Examples:\n  strand init\n  strand -C /var/lib/tasks init")]
    Init(Init),
    #[command(flatten)]
    OnStore(Box<OnStore>),
    /// Make in another store the changes that a directory has had since the last exchange
    #[command(after_help = "Examples:\n  strand push .strand etcd://h1,h2,h3/team")]
    Push(Push),
    /// Make in a directory the changes that another store has had since the last exchange
    #[command(
        after_help = "Examples:\n  strand pull etcd://h1,h2,h3/team .strand\n  strand pull --follow etcd://h1,h2,h3/team /var/lib/mirror"
    )]
    Pull(Pull),
    /// Merge the exports of two branches, as a git merge driver: `strand merge %O %A %B`
    #[command(
        after_help = "Examples:\n  git config merge.issues.driver 'strand merge %O %A %B; s=$?; [ $s -le 1 ] || s=129; exit $s'"
    )]
    Merge(Merge),
    /// Print a shell's completion script
    #[command(
        after_help = "Examples:\n  strand completions bash >~/.local/share/bash-completion/completions/strand"
    )]
    Completions(Completions),
    /// Print the manual page, or write the pages of all commands to a directory
    #[command(
        after_help = "Examples:\n  strand man | man -l -\n  strand man ~/.local/share/man/man1"
    )]
    Man(Man),
}

/// The commands that need a store.
#[derive(Debug, Subcommand)]
pub(crate) enum OnStore {
    /// Create an issue and print its id
    #[command(
        after_help = "Examples:\n  strand create \"Mend the fence\" -p 1 -l garden\n  strand create \"Buy wire\" --id bd-7 --key agent-7/create/bd-7"
    )]
    Create(Create),
    /// Append events, each as its own record, and print the sequence numbers
    #[command(
        after_help = "Examples:\n  strand append '{\"op\":\"close\",\"id\":\"bd-1\"}'\n  strand append - <events.jsonl"
    )]
    Append(Append),
    /// Append events as one record: all or none
    #[command(after_help = "Examples:\n  strand batch --require bd-1=7 - <events.jsonl")]
    Batch(Batch),
    /// Show an issue and its version
    #[command(after_help = "Examples:\n  strand show bd-1\n  strand show bd-1 bd-2 --json")]
    Show(Show),
    /// List issues, ordered by id
    #[command(
        after_help = "Examples:\n  strand list --status open --sort priority -n 10\n  strand ls --columns id,title,updated_at",
        visible_alias = "ls"
    )]
    List(List),
    /// List the issues that are ready to be worked on, most urgent first
    #[command(after_help = "Examples:\n  strand ready --free -n 5")]
    Ready(Ready),
    /// Assign an open, unassigned issue to an agent and print its id
    #[command(
        after_help = "Examples:\n  strand claim --agent agent-7\n  strand claim bd-1 --agent agent-7 --key claim/agent-7/bd-1"
    )]
    Claim(Claim),
    /// Change some fields of an issue and leave the rest alone
    #[command(
        after_help = "Examples:\n  strand update bd-1 -s in_progress --add-label garden\n  strand update bd-1 --set estimate=1.5 --if-version 7"
    )]
    Update(Update),
    /// Close issues: all or none
    #[command(after_help = "Examples:\n  strand close bd-1 bd-2")]
    Close(Change),
    /// Reopen closed issues: all or none
    #[command(after_help = "Examples:\n  strand reopen bd-1")]
    Reopen(Change),
    /// Delete issues: all or none
    #[command(
        after_help = "Examples:\n  strand rm bd-1 --if-version 7",
        visible_alias = "rm"
    )]
    Delete(Change),
    /// Add, remove or show dependencies
    #[command(after_help = "Examples:\n  strand dep add bd-2 bd-1\n  strand dep tree bd-2")]
    Dep(Dep),
    /// Add a comment to an issue
    #[command(after_help = "Examples:\n  strand comment bd-1 'The wire is short' --author ann")]
    Comment(Comment),
    /// Edit an issue as JSON in $VISUAL or $EDITOR
    #[command(after_help = "Examples:\n  EDITOR=nano strand edit bd-1")]
    Edit(Edit),
    /// Print the events of an issue, as far as they are not compacted
    #[command(after_help = "Examples:\n  strand log bd-1\n  strand log bd-1 --json")]
    Log(History),
    /// Print the log's records as they become durable
    #[command(
        after_help = "Examples:\n  strand follow --from 1 --until-idle-ms 0 | jq -c '[.seq,.op,.id]'"
    )]
    Follow(Follow),
    /// Fold the log into a snapshot while others go on writing
    #[command(
        after_help = "Examples:\n  strand compact --if-due\n  strand compact --archive ~/history"
    )]
    Compact(Compact),
    /// Check every file of a store and say what to do; changes nothing
    #[command(after_help = "Examples:\n  strand doctor\n  strand -C COPY doctor --json")]
    Doctor,
    /// Repair a damaged store and report what is lost; replaced files are kept in `quarantine`
    #[command(after_help = "Examples:\n  strand doctor; strand repair")]
    Repair(Repair),
    /// Count records, issues and bytes
    #[command(after_help = "Examples:\n  strand stat --json | jq .issues")]
    Stat,
    /// Import issues from JSON Lines
    #[command(
        after_help = "Examples:\n  strand import issues.jsonl\n  strand import --existing keep - <issues.jsonl"
    )]
    Import(Import),
    /// Export all issues as JSON Lines, ordered by id
    #[command(
        after_help = "Examples:\n  strand export issues.jsonl\n  strand export | jq -r .title"
    )]
    Export(Export),
    /// Make the store and a file of JSON Lines equal, with the changes of both
    #[command(
        after_help = "Examples:\n  strand sync issues.jsonl && git add issues.jsonl\n  strand sync issues.jsonl --prefer newer"
    )]
    Sync(Sync),
}

impl OnStore {
    /// The arguments of a command that appends to the log.
    pub(crate) fn appends(&self) -> Option<&Writing> {
        match self {
            Self::Create(args) => Some(&args.writing),
            Self::Append(args) => Some(&args.writing),
            Self::Batch(args) => Some(&args.writing),
            Self::Claim(args) => Some(&args.writing),
            Self::Update(args) => Some(&args.writing),
            Self::Close(args) | Self::Reopen(args) | Self::Delete(args) => Some(&args.writing),
            Self::Import(args) => Some(&args.writing),
            _ => None,
        }
    }
}

const WRITING: &str = "Writing";

/// The arguments of every command that writes.
#[derive(Debug, Args)]
pub(crate) struct Writing {
    /// Wait for the lock up to this many milliseconds; after 1 s, the lock holder is printed
    #[arg(long, value_name = "MS", default_value_t = 30_000, help_heading = WRITING)]
    pub(crate) timeout_ms: u64,
    /// Return before the record is on disk: it survives the death of any process, but not a power
    /// failure. Readers see it once it is on disk, with the next write that is not buffered
    #[arg(long, help_heading = WRITING)]
    pub(crate) buffered: bool,
    /// Do not compact a long log in the background afterwards; with `init`, for all commands on
    /// this store. `STRAND_NO_AUTO_COMPACT=1` does it for all stores
    #[arg(long, help_heading = WRITING)]
    pub(crate) no_auto_compact: bool,
    /// Use a store on a network filesystem, where locks may not exclude other machines
    #[arg(long, help_heading = WRITING)]
    pub(crate) allow_unsafe_filesystem: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Init {
    #[command(flatten)]
    pub(crate) writing: Writing,
}

/// Changes to an issue's fields.
#[derive(Debug, Args)]
pub(crate) struct Changes {
    /// Set the priority; 0 is the most urgent
    #[arg(short, long, value_name = "NUMBER", allow_negative_numbers = true)]
    pub(crate) priority: Option<i64>,
    /// Set the type: `bug`, `task`, …
    #[arg(short = 't', long = "type", value_name = "TYPE", value_parser = name, add = ArgValueCandidates::new(complete::types))]
    pub(crate) kind: Option<String>,
    /// Set the assignee; an empty one is nobody
    #[arg(short, long, value_name = "AGENT", add = ArgValueCandidates::new(complete::assignees))]
    pub(crate) assignee: Option<String>,
    /// Set the status: `open`, `in_progress`, `blocked`, `closed`
    #[arg(short, long, value_parser = name, add = ArgValueCandidates::new(complete::statuses))]
    pub(crate) status: Option<String>,
    /// Set the description
    #[arg(short, long, value_name = "TEXT")]
    pub(crate) description: Option<String>,
    /// Set a field to a JSON value: `--set priority=1`
    #[arg(long = "set", value_name = "FIELD=JSON", value_parser = assignment)]
    pub(crate) set: Vec<Assignment>,
    /// Set a field to a string: `--set-text status=in_progress`
    #[arg(long = "set-text", value_name = "FIELD=TEXT", value_parser = text_assignment)]
    pub(crate) set_text: Vec<Assignment>,
    /// Remove a field
    #[arg(long = "unset", value_name = "FIELD")]
    pub(crate) unset: Vec<String>,
    /// Add a label, unless the issue already has it
    #[arg(
        short = 'l',
        long = "add-label",
        visible_alias = "label",
        value_name = "LABEL",
        add = ArgValueCandidates::new(complete::labels)
    )]
    pub(crate) add_labels: Vec<String>,
    /// Remove a label
    #[arg(long = "remove-label", value_name = "LABEL", add = ArgValueCandidates::new(complete::labels))]
    pub(crate) remove_labels: Vec<String>,
    /// Add a value to an array, unless it is already there
    #[arg(long = "add", value_name = "FIELD=JSON", value_parser = assignment)]
    pub(crate) add: Vec<Assignment>,
    /// Remove a value from an array
    #[arg(long = "remove", value_name = "FIELD=JSON", value_parser = assignment)]
    pub(crate) remove: Vec<Assignment>,
    /// Append a value to an array
    #[arg(long = "append", value_name = "FIELD=JSON", value_parser = assignment)]
    pub(crate) append: Vec<Assignment>,
}

#[derive(Debug, Args)]
pub(crate) struct Create {
    #[command(flatten)]
    pub(crate) writing: Writing,
    /// The title, on one line
    pub(crate) title: String,
    /// The id; by default a new short one is generated
    #[arg(long)]
    pub(crate) id: Option<String>,
    /// The prefix of a generated id
    #[arg(long, default_value = "bd", conflicts_with = "id", value_parser = name)]
    pub(crate) prefix: String,
    #[command(flatten)]
    pub(crate) changes: Changes,
    /// Idempotency key: a write that is repeated with the same key is stored once
    #[arg(long, requires = "id")]
    pub(crate) key: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Append {
    #[command(flatten)]
    pub(crate) writing: Writing,
    /// Refuse an event that changes nothing, and an `add` that replaces an issue
    #[arg(long, conflicts_with_all = ["unchecked", "key"])]
    pub(crate) strict: bool,
    /// Do not look whether an event changes nothing or replaces an issue, as for events from
    /// standard input
    #[arg(long)]
    pub(crate) unchecked: bool,
    /// The events as JSON: `{"op":"close","id":"bd-1"}`; by default, or with `-`, they are read
    /// from standard input, one per line. An event without `ts` gets the current time
    #[arg(value_name = "EVENT")]
    pub(crate) events: Vec<String>,
    /// Idempotency key: a write that is repeated with the same key is stored once. Only with one
    /// EVENT
    #[arg(long)]
    pub(crate) key: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Batch {
    #[command(flatten)]
    pub(crate) writing: Writing,
    /// The events as JSON; by default, or with `-`, they are read from standard input, one per line
    #[arg(value_name = "EVENT")]
    pub(crate) events: Vec<String>,
    /// Write only if the issue is still at this version
    #[arg(long, value_name = "ID=VERSION", value_parser = required)]
    pub(crate) require: Vec<Required>,
    /// Write only if the issue does not exist
    #[arg(long, value_name = "ID")]
    pub(crate) require_absent: Vec<String>,
    /// Idempotency key: a write that is repeated with the same key is stored once
    #[arg(long)]
    pub(crate) key: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Show {
    /// The issues' ids
    #[arg(value_name = "ID", required = true, add = ArgValueCandidates::new(complete::all_ids))]
    pub(crate) ids: Vec<String>,
}

/// Which issues: those that match every given option.
#[derive(Debug, Default, Args)]
pub(crate) struct Wanted {
    /// Only issues of this assignee
    #[arg(long, add = ArgValueCandidates::new(complete::assignees))]
    pub(crate) assignee: Option<String>,
    /// Only issues with this label; repeat it to require several
    #[arg(long = "label", value_name = "LABEL", add = ArgValueCandidates::new(complete::labels))]
    pub(crate) labels: Vec<String>,
    /// Only issues with this priority
    #[arg(long, allow_negative_numbers = true)]
    pub(crate) priority: Option<i64>,
    /// Only issues of this type: `bug`, `task`, …
    #[arg(long = "type", value_name = "TYPE", add = ArgValueCandidates::new(complete::types))]
    pub(crate) kind: Option<String>,
    /// Only issues with this text in the id, title or description, in upper or lower case
    #[arg(long)]
    pub(crate) text: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct List {
    /// Only issues with this status: `open`, `closed`, …
    #[arg(long, add = ArgValueCandidates::new(complete::statuses))]
    pub(crate) status: Option<String>,
    #[command(flatten)]
    pub(crate) wanted: Wanted,
    /// At most this many
    #[arg(short = 'n', long, value_name = "COUNT")]
    pub(crate) limit: Option<usize>,
    /// Order by this field instead of the id
    #[arg(long, value_name = "FIELD")]
    pub(crate) sort: Option<String>,
    /// In reverse order
    #[arg(long)]
    pub(crate) reverse: bool,
    /// Print these fields instead of the usual ones
    #[arg(long, value_name = "FIELDS", value_delimiter = ',')]
    pub(crate) columns: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Ready {
    /// Only unassigned issues
    #[arg(long, conflicts_with = "assignee")]
    pub(crate) free: bool,
    #[command(flatten)]
    pub(crate) wanted: Wanted,
    /// At most this many
    #[arg(short = 'n', long, value_name = "COUNT")]
    pub(crate) limit: Option<usize>,
}

#[derive(Debug, Args)]
pub(crate) struct Claim {
    #[command(flatten)]
    pub(crate) writing: Writing,
    /// The id; by default the most urgent issue that is ready
    #[arg(add = ArgValueCandidates::new(complete::ids))]
    pub(crate) id: Option<String>,
    /// The agent that claims it
    #[arg(
        long,
        visible_alias = "actor",
        env = "STRAND_AGENT",
        hide_env_values = true,
        value_parser = name
    )]
    pub(crate) agent: String,
    /// Only an issue with this label; repeat it to require several
    #[arg(long = "label", value_name = "LABEL", conflicts_with = "id", add = ArgValueCandidates::new(complete::labels))]
    pub(crate) labels: Vec<String>,
    /// Only an issue with this priority
    #[arg(long, allow_negative_numbers = true, conflicts_with = "id")]
    pub(crate) priority: Option<i64>,
    /// Only an issue of this type
    #[arg(long = "type", value_name = "TYPE", conflicts_with = "id", add = ArgValueCandidates::new(complete::types))]
    pub(crate) kind: Option<String>,
    /// Idempotency key: a claim that is repeated with the same key is stored once
    #[arg(long, requires = "id")]
    pub(crate) key: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Update {
    #[command(flatten)]
    pub(crate) writing: Writing,
    /// The id
    #[arg(add = ArgValueCandidates::new(complete::ids))]
    pub(crate) id: String,
    /// Set the title, on one line
    #[arg(long)]
    pub(crate) title: Option<String>,
    #[command(flatten)]
    pub(crate) changes: Changes,
    /// Only if the issue is still at this version
    #[arg(long, value_name = "VERSION")]
    pub(crate) if_version: Option<u64>,
    /// Idempotency key: a write that is repeated with the same key is stored once
    #[arg(long)]
    pub(crate) key: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Change {
    #[command(flatten)]
    pub(crate) writing: Writing,
    /// The issues' ids
    #[arg(value_name = "ID", required = true, add = ArgValueCandidates::new(complete::all_ids))]
    pub(crate) ids: Vec<String>,
    /// Only if the issue is still at this version; only with one ID
    #[arg(long, value_name = "VERSION")]
    pub(crate) if_version: Option<u64>,
    /// Idempotency key: a write that is repeated with the same key is stored once
    #[arg(long)]
    pub(crate) key: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Dep {
    #[command(subcommand)]
    pub(crate) action: DepAction,
}

#[derive(Debug, Subcommand)]
pub(crate) enum DepAction {
    /// Make an issue wait until another one is closed
    #[command(
        after_help = "Examples:\n  strand dep add bd-2 bd-1\n  strand dep add bd-2 bd-1 --type parent-child"
    )]
    Add(Edge),
    /// Remove all dependencies of an issue on another one
    #[command(
        after_help = "Examples:\n  strand dep rm bd-2 bd-1",
        visible_alias = "remove"
    )]
    Rm(Edge),
    /// Print what an issue depends on, directly or not
    #[command(after_help = "Examples:\n  strand dep tree bd-2")]
    Tree {
        /// The id
        #[arg(add = ArgValueCandidates::new(complete::ids))]
        id: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Edge {
    #[command(flatten)]
    pub(crate) writing: Writing,
    /// The id
    #[arg(add = ArgValueCandidates::new(complete::ids))]
    pub(crate) id: String,
    /// The id of the issue that it depends on
    #[arg(value_name = "ON", add = ArgValueCandidates::new(complete::ids))]
    pub(crate) on: String,
    /// The kind of dependency: `blocks`, `parent-child`, …
    #[arg(long = "type", value_name = "TYPE", default_value = "blocks", value_parser = name)]
    pub(crate) kind: String,
}

#[derive(Debug, Args)]
pub(crate) struct Comment {
    #[command(flatten)]
    pub(crate) writing: Writing,
    /// The id
    #[arg(add = ArgValueCandidates::new(complete::ids))]
    pub(crate) id: String,
    /// The text; `-` reads it from standard input
    pub(crate) text: String,
    /// Who says it
    #[arg(long, env = "STRAND_AGENT", hide_env_values = true, value_parser = name)]
    pub(crate) author: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Edit {
    #[command(flatten)]
    pub(crate) writing: Writing,
    /// The id
    #[arg(add = ArgValueCandidates::new(complete::ids))]
    pub(crate) id: String,
}

#[derive(Debug, Args)]
pub(crate) struct History {
    /// The id
    #[arg(add = ArgValueCandidates::new(complete::ids))]
    pub(crate) id: String,
}

#[derive(Debug, Args)]
pub(crate) struct Follow {
    /// Start with this record; by default with the next one that is written, or with `--archive`
    /// with the first one
    #[arg(long, value_name = "SEQ", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) from: Option<u64>,
    /// Read the records that compactions have removed from this directory; without DIR, from the
    /// one that `strand compact --archive` was given
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    #[expect(clippy::option_option, reason = "an option whose value is optional")]
    pub(crate) archive: Option<Option<PathBuf>>,
    /// Stop after this many milliseconds without a new record; by default only when interrupted
    #[arg(long, value_name = "MS")]
    pub(crate) until_idle_ms: Option<u64>,
    /// Stop after this many records
    #[arg(long, value_name = "COUNT")]
    pub(crate) limit: Option<u64>,
}

#[derive(Debug, Args)]
pub(crate) struct Compact {
    #[command(flatten)]
    pub(crate) writing: Writing,
    /// Only if the log is long enough to be worth it
    #[arg(long)]
    pub(crate) if_due: bool,
    /// Keep the records that are removed in this directory, in files that `zcat` prints and `strand
    /// follow --archive` reads; from now on, all compactions of this store do, also those in the
    /// background
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) archive: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Repair {
    #[command(flatten)]
    pub(crate) writing: Writing,
}

/// The choices of an import for a line whose issue already exists.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Existing {
    /// The line replaces the issue
    Replace,
    /// The issue is kept
    Keep,
    /// The later `updated_at` counts; what was deleted later stays deleted
    Newer,
    /// Nothing is imported
    Refuse,
}

/// What an import does with issues that the input lacks.
#[derive(Debug, Args)]
pub(crate) struct Missing {
    /// Delete all issues that the input lacks. By default, those that FILE had when it was last
    /// exported, imported or synced, unless they have changed since
    #[arg(long, conflicts_with = "keep_missing")]
    pub(crate) delete_missing: bool,
    /// Delete nothing
    #[arg(long)]
    pub(crate) keep_missing: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Import {
    #[command(flatten)]
    pub(crate) writing: Writing,
    /// The file; by default, or as `-`, standard input
    pub(crate) file: Option<PathBuf>,
    /// How to treat issues that already exist
    #[arg(long, value_enum, default_value = "replace")]
    pub(crate) existing: Existing,
    #[command(flatten)]
    pub(crate) missing: Missing,
    /// Import the valid lines even if others are invalid
    #[arg(long)]
    pub(crate) skip_bad_lines: bool,
    /// Write U+FFFD for each half of a surrogate pair (`\ud800`), rather than refuse the line
    #[arg(long)]
    pub(crate) replace_surrogates: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Export {
    /// The file, which is replaced as a whole; by default, or as `-`, standard output. A device or
    /// a pipe is written into
    pub(crate) file: Option<PathBuf>,
    /// Replace the file although it has changed since it was last exported, imported or synced
    #[arg(long)]
    pub(crate) force: bool,
}

impl Export {
    /// The file; `None` for standard output, which may be open to append.
    pub(crate) fn file(&self) -> Option<&Path> {
        let stdout = ["-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"];
        let file = self.file.as_deref();
        file.filter(|file| !stdout.iter().any(|name| *file == Path::new(name)))
    }
}

/// What counts where the store and the file changed the same in different ways.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Prefer {
    /// The file
    File,
    /// The store
    Store,
    /// The later `updated_at`
    Newer,
}

/// Imports what FILE changed since the last sync, and exports what the store changed; deletions
/// count, too.
#[derive(Debug, Args)]
pub(crate) struct Sync {
    #[command(flatten)]
    pub(crate) writing: Writing,
    /// The file, such as `issues.jsonl` in a git repository; written if it does not exist
    pub(crate) file: PathBuf,
    /// What counts where both changed the same in different ways; by default that is an error, and
    /// nothing is changed
    #[arg(long, value_enum)]
    pub(crate) prefer: Option<Prefer>,
    /// Write U+FFFD for each half of a surrogate pair (`\ud800`), rather than refuse the line
    #[arg(long)]
    pub(crate) replace_surrogates: bool,
}

/// What counts where two stores changed the same in different ways.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum PreferStore {
    /// The directory
    Dir,
    /// The other store
    Other,
    /// The later `updated_at`
    Newer,
}

/// What both have changed is merged; the other store's changes stay there, for a pull.
#[derive(Debug, Args)]
pub(crate) struct Push {
    #[command(flatten)]
    pub(crate) writing: Writing,
    /// The directory
    pub(crate) dir: PathBuf,
    /// The other store: `etcd://HOST,…/NAME`, or a directory
    pub(crate) to: PathBuf,
    /// What counts where both changed the same in different ways; by default that is an error, and
    /// nothing is changed
    #[arg(long, value_enum)]
    pub(crate) prefer: Option<PreferStore>,
}

/// What both have changed is merged; the directory's own changes stay there, for a push.
#[derive(Debug, Args)]
pub(crate) struct Pull {
    #[command(flatten)]
    pub(crate) writing: Writing,
    /// The other store: `etcd://HOST,…/NAME`, or a directory
    pub(crate) from: PathBuf,
    /// The directory
    pub(crate) dir: PathBuf,
    /// What counts where both changed the same in different ways; by default that is an error, and
    /// nothing is changed
    #[arg(long, value_enum)]
    pub(crate) prefer: Option<PreferStore>,
    /// Go on with each change of the other store
    #[arg(long)]
    pub(crate) follow: bool,
}

/// Exit status: 0 merged, 1 merged except for the listed conflicts, 129 not merged.
#[derive(Debug, Args)]
pub(crate) struct Merge {
    /// The common ancestor
    #[arg(required_unless_present = "install")]
    pub(crate) base: Option<PathBuf>,
    /// Our version; replaced by the result
    #[arg(required_unless_present = "install")]
    pub(crate) ours: Option<PathBuf>,
    /// Their version
    #[arg(required_unless_present = "install")]
    pub(crate) theirs: Option<PathBuf>,
    /// Make this the merge driver of the git repository for files of this pattern: sets
    /// `merge.issues.driver` and more in its configuration, and adds a line to `.gitattributes`
    #[arg(
        long,
        value_name = "PATTERN",
        num_args = 0..=1,
        default_missing_value = "issues.jsonl",
        conflicts_with_all = ["base", "ours", "theirs"],
    )]
    pub(crate) install: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Completions {
    /// The shell
    pub(crate) shell: Shell,
}

#[derive(Debug, Args)]
pub(crate) struct Man {
    /// The directory for `strand.1`, `strand-append.1`, …; created if missing
    #[arg(value_hint = ValueHint::DirPath)]
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
