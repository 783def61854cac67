//! How the command ends: exit statuses, which scripts rely on, and error messages.

use std::{fmt::Write as _, io, iter::successors, process::ExitCode};

use serde::Serialize;
use strand_core::{CommitError, Conflict, Error, ImportError, Issue, LockError, Outcome, Version};

/// How the command ended. The numbers never change their meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    Done,
    Failed,
    Usage,
    NotFound,
    Conflict,
    LockTimeout,
    Corrupt,
    NoStore,
    DurabilityUnknown,
    Refused,
    Unusable,
    Compacted,
    Unprinted,
    /// Only from `merge`, whose statuses git defines.
    MergeConflicts,
    /// Only from `merge`. Git takes a status up to 128 for a conflict that the driver has marked in
    /// the file, and a commit would then silently drop the other branch's changes. With a higher
    /// status git aborts the merge.
    NotMerged,
}

impl Exit {
    /// All but those of `merge`, in numerical order.
    pub(crate) const ALL: [Self; 13] = [
        Self::Done,
        Self::Failed,
        Self::Usage,
        Self::NotFound,
        Self::Conflict,
        Self::LockTimeout,
        Self::Corrupt,
        Self::NoStore,
        Self::DurabilityUnknown,
        Self::Refused,
        Self::Unusable,
        Self::Compacted,
        Self::Unprinted,
    ];

    pub(crate) fn code(self) -> u8 {
        self.describe().0
    }

    /// Its name in JSON.
    pub(crate) fn name(self) -> &'static str {
        self.describe().1
    }

    pub(crate) fn meaning(self) -> &'static str {
        self.describe().2
    }

    /// The status, its name in JSON, and its meaning.
    fn describe(self) -> (u8, &'static str, &'static str) {
        match self {
            Self::Done => (0, "done", "done"),
            Self::Failed => (
                1,
                "failed",
                "any other failure (a file, the output); a write that failed is not stored",
            ),
            Self::Usage => (2, "usage", "wrong arguments; nothing was done"),
            Self::NotFound => (3, "not_found", "no such issue, or none that is ready"),
            Self::Conflict => (
                4,
                "conflict",
                "another agent was faster: the issue has changed, is taken or exists; or the `--key` belongs \
                 to another operation",
            ),
            Self::LockTimeout => (
                5,
                "lock_timeout",
                "another process held the lock until the timeout; the message names it; try again",
            ),
            Self::Corrupt => (
                6,
                "corrupt",
                "stored bytes are damaged; see `strand doctor`",
            ),
            Self::NoStore => (7, "no_store", "no store in the directory, or no directory"),
            Self::DurabilityUnknown => (
                8,
                "durability_unknown",
                "the write may be stored or not, since a sync failed; repeat it with its `--key`, \
                 or look before you repeat it",
            ),
            Self::Refused => (
                9,
                "refused",
                "the input is not a valid event or issue, or is too large; it is not stored",
            ),
            Self::Unusable => (
                10,
                "unusable",
                "the store cannot be used from here: newer format, no permission, unsafe filesystem, \
                 a file of somebody else in its place",
            ),
            Self::Compacted => (
                11,
                "compacted",
                "the requested record has been folded into a snapshot",
            ),
            Self::Unprinted => (
                12,
                "unprinted",
                "the write is stored, but its answer could not be printed; the message has it",
            ),
            Self::MergeConflicts => (1, "merge_conflicts", "merged, except for conflicts"),
            Self::NotMerged => (129, "not_merged", "not merged"),
        }
    }

    /// The table for `--help`.
    pub(crate) fn table() -> String {
        let mut table = String::from("Exit status:\n");
        for exit in Self::ALL {
            let meaning = wrapped(exit.meaning(), 72).join("\n      ");
            writeln!(table, "  {:>2}  {meaning}", exit.code()).ok();
        }
        let merge = "`strand merge` has statuses of its own, for git: 0 merged, 1 conflicts, 129 not \
                     merged.";
        table += &wrapped(merge, 78).join("\n");
        table
    }
}

/// Lines of up to so many characters.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let Some(line) = lines.last_mut() else { break };
        if line.is_empty() {
            line.push_str(word);
        } else if line.len() + 1 + word.len() <= width {
            line.push(' ');
            line.push_str(word);
        } else {
            lines.push(word.to_owned());
        }
    }
    lines
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// Why the command failed.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    pub(crate) message: String,
    pub(crate) conflict: Option<Box<Conflict>>,
}

impl Failure {
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self {
            exit,
            message: message.into(),
            conflict: None,
        }
    }

    /// Wrong arguments that parsing can't detect.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, message)
    }

    /// Prefixes the message with a place in the input.
    pub(crate) fn at(mut self, place: &str) -> Self {
        self.message.insert_str(0, ": ");
        self.message.insert_str(0, place);
        self
    }

    pub(crate) fn io(what: &str, error: &io::Error) -> Self {
        Self::new(Exit::Failed, format!("{what}: {error}"))
    }

    /// The same failure of a command that has written, with its answer.
    pub(crate) fn although_stored(self, answer: &str) -> Self {
        Self {
            exit: Exit::Unprinted,
            message: format!("{}; stored: {answer}", self.message),
            ..self
        }
    }

    /// The text to print: a message, or one JSON object.
    pub(crate) fn describe(&self, json: bool) -> String {
        #[derive(Serialize)]
        struct Described<'a> {
            error: &'static str,
            exit_status: u8,
            message: &'a str,
            #[serde(flatten)]
            now: Option<Now<'a>>,
        }
        #[derive(Serialize)]
        struct Now<'a> {
            id: &'a str,
            version: Option<Version>,
            issue: Option<&'a Issue>,
        }
        if !json {
            return format!("strand: {}", self.message);
        }
        let described = Described {
            error: self.exit.name(),
            exit_status: self.exit.code(),
            message: &self.message,
            now: self.conflict.as_deref().map(|conflict| Now {
                id: &conflict.id,
                version: conflict.version,
                issue: conflict.issue.as_ref(),
            }),
        };
        serde_json::to_string(&described).unwrap_or_else(|_| self.message.clone())
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::new(exit_of(&error), with_sources(&error))
    }
}

impl From<CommitError> for Failure {
    fn from(error: CommitError) -> Self {
        match error {
            CommitError::Conflict(conflict) => {
                let exit = if conflict.is_missing() {
                    Exit::NotFound
                } else {
                    Exit::Conflict
                };
                Self {
                    exit,
                    message: conflict.to_string(),
                    conflict: Some(Box::new(conflict)),
                }
            }
            error @ CommitError::KeyReused { .. } => Self::new(Exit::Conflict, error.to_string()),
            error @ CommitError::Make(_) => Self::new(Exit::Failed, with_sources(&error)),
            CommitError::Log(error) => error.into(),
        }
    }
}

impl From<ImportError> for Failure {
    fn from(error: ImportError) -> Self {
        let exit = match &error {
            ImportError::BadLines { .. } | ImportError::FileEmpty { .. } => Exit::Refused,
            ImportError::Exists { .. }
            | ImportError::Conflicts { .. }
            | ImportError::FileChanged { .. } => Exit::Conflict,
            ImportError::Log { source, .. } | ImportError::File(source) => exit_of(source),
            _ => Exit::Failed,
        };
        Self::new(exit, with_sources(&error))
    }
}

fn exit_of(error: &Error) -> Exit {
    match error {
        Error::Lock(LockError::Timeout { .. } | LockError::Contended { .. }) => Exit::LockTimeout,
        Error::Corrupt { .. } | Error::BeyondRepair { .. } => Exit::Corrupt,
        Error::NoStore { .. }
        | Error::MissingDirectory { .. }
        | Error::NotADirectory { .. }
        | Error::StoreReplaced {
            outcome: Outcome::Rejected,
            ..
        } => Exit::NoStore,
        Error::InvalidEvent(_) | Error::RecordTooLarge { .. } | Error::BadLine { .. } => {
            Exit::Refused
        }
        Error::UnsupportedVersion { .. }
        | Error::NotWritable { .. }
        | Error::UnsafeFilesystem { .. }
        | Error::ForeignFile { .. }
        | Error::Unfit { .. } => Exit::Unusable,
        Error::Compacted { .. } => Exit::Compacted,
        Error::Io { source, .. } | Error::Lock(LockError::Io { source, .. })
            if source.kind() == io::ErrorKind::PermissionDenied
                && error.outcome() == Outcome::Rejected =>
        {
            Exit::Unusable
        }
        error if error.outcome() == Outcome::Unknown => Exit::DurabilityUnknown,
        _ => Exit::Failed,
    }
}

/// The message, followed by those of its sources. It names the flags of the command, not the
/// options of the library.
fn with_sources(error: &dyn std::error::Error) -> String {
    let chain = successors(Some(error), |error| error.source());
    let chain: Vec<_> = chain.map(ToString::to_string).collect();
    let of_command = [
        (
            "set `allow_unsafe_filesystem`",
            "pass `--allow-unsafe-filesystem`",
        ),
        ("create it first", "`strand init` creates a store"),
        (" (no MANIFEST)", "; `strand init` creates one"),
    ];
    let replace = |text: String, (library, command): (&str, &str)| text.replace(library, command);
    of_command.into_iter().fold(chain.join(": "), replace)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use strand_core::{Expected, Filesystem, FilesystemKind, Timestamp};

    use super::*;

    fn io(outcome: Outcome) -> Error {
        Error::Io {
            op: "write",
            path: PathBuf::from("x"),
            outcome,
            source: io::Error::other("no space"),
        }
    }

    #[test]
    fn a_refused_filesystem_names_the_flag() {
        let refused = Error::UnsafeFilesystem {
            path: PathBuf::from("x"),
            filesystem: Filesystem::new(FilesystemKind::Network, "nfs"),
        };
        let failure = Failure::from(refused);
        assert_eq!(failure.exit, Exit::Unusable);
        assert!(
            failure
                .message
                .ends_with("or pass `--allow-unsafe-filesystem`"),
            "{}",
            failure.message
        );
    }

    #[test]
    fn numbers_are_those_of_their_places() {
        for (place, exit) in Exit::ALL.into_iter().enumerate() {
            assert_eq!(usize::from(exit.code()), place, "{exit:?}");
        }
    }

    #[test]
    fn the_documentation_has_the_same_table() {
        let page = include_str!("../../docs/COMMAND.md");
        for exit in Exit::ALL {
            let row = format!(
                "| {} | `{}` | {} |",
                exit.code(),
                exit.name(),
                exit.meaning()
            );
            assert!(page.contains(&row), "missing in docs/COMMAND.md: {row}");
        }
    }

    #[test]
    fn an_uncertain_write_has_its_own_status() {
        assert_eq!(exit_of(&io(Outcome::Rejected)), Exit::Failed);
        assert_eq!(exit_of(&io(Outcome::Unknown)), Exit::DurabilityUnknown);
        let source = "EIO".into();
        let unknown = Error::DurabilityUnknown { seq: 1, source };
        assert_eq!(exit_of(&unknown), Exit::DurabilityUnknown);
    }

    #[test]
    fn a_conflict_shows_the_present_issue() {
        let failure = Failure::from(CommitError::Conflict(Conflict {
            id: "bd-1".to_owned(),
            expected: Expected::Version(Version::new(3)),
            version: Some(Version::new(7)),
            issue: Some(Issue::new_at(
                "bd-1",
                "Paint the fence",
                Timestamp::from_ms(0),
            )),
        }));
        let json: serde_json::Value = serde_json::from_str(&failure.describe(true)).unwrap();
        assert_eq!(json["error"], "conflict");
        assert_eq!(json["exit_status"], 4);
        assert_eq!(json["version"], 7);
        assert_eq!(json["issue"]["title"], "Paint the fence");
        assert!(
            failure
                .describe(false)
                .starts_with("strand: issue \"bd-1\"")
        );
    }

    #[test]
    fn each_cause_is_printed_once() {
        let failure = Failure::from(io(Outcome::Rejected));
        assert_eq!(failure.describe(false), "strand: cannot write x: no space");
        let lock = LockError::Io {
            op: "open",
            path: PathBuf::from("lock"),
            source: io::Error::other("no space"),
        };
        let failure = Failure::from(Error::Lock(lock)).at("line 3");
        assert_eq!(
            failure.describe(false),
            "strand: line 3: cannot open the lock file lock: no space"
        );
    }
}
