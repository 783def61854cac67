//! Compaction that a command starts when it has done its work.

use std::{
    path::Path,
    process::{Command, Stdio},
};

use strand_core::{Options, compaction_due};

use crate::args::{OnStore, Writing};

/// The file that switches it off for a store.
pub(super) const SETTING: &str = "no-auto-compact";

/// The variable that switches it off for all commands.
const VARIABLE: &str = "STRAND_NO_AUTO_COMPACT";

/// Whether this command, if it succeeds, may have made the log long.
pub(super) fn may_follow(command: &OnStore) -> bool {
    command.appends().is_some_and(is_wanted)
}

fn is_wanted(writing: &Writing) -> bool {
    let off = std::env::var_os(VARIABLE).is_some_and(|value| !value.is_empty() && value != "0");
    // Other machines may compact a store that they share; where the lock is not sure to exclude
    // them, the user decides when.
    !off && !writing.no_auto_compact && !writing.allow_unsafe_filesystem
}

/// Starts `strand compact --if-due` in the background, and does not wait for it, if the log is long
/// and nobody compacts it. Whatever fails is tried again after the next command.
pub(super) fn compact_if_due(dir: &Path) {
    if dir.join(SETTING).exists() || !compaction_due(dir, &Options::default()).unwrap_or(false) {
        return;
    }
    let (Ok(strand), Ok(dir)) = (std::env::current_exe(), dir.canonicalize()) else {
        return;
    };
    let mut command = Command::new(strand);
    command.arg("-C").arg(&dir).args(["compact", "--if-due"]);
    command.current_dir(&dir);
    command.stdin(Stdio::null());
    command.stdout(Stdio::null()).stderr(Stdio::null());
    // An interrupt at the terminal is not meant for it.
    #[cfg(unix)]
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    drop(command.spawn());
}
