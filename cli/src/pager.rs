//! The program in which a person reads long output.

use std::{
    env,
    ffi::OsString,
    path::Path,
    process::{Child, ChildStdin, Command, Stdio},
};

/// Starts the pager: `STRAND_PAGER`, else `PAGER`, else `less`. `None` where there is none, or it
/// is `cat` or empty.
pub(crate) fn start() -> Option<(Child, ChildStdin)> {
    let set = ["STRAND_PAGER", "PAGER"].into_iter().find_map(env::var_os);
    let pager = set.unwrap_or_else(|| "less".into());
    let text = pager.to_string_lossy();
    let program = text.split_whitespace().next()?;
    if program == "cat" || !is_here(program) {
        return None;
    }
    let mut command = shell(&pager);
    if env::var_os("LESS").is_none() {
        // Ends at once if all fits the screen, shows colours, and leaves the text there.
        command.env("LESS", "FRX");
    }
    let mut child = command.stdin(Stdio::piped()).spawn().ok()?;
    let input = child.stdin.take()?;
    leave_interrupts_to_it();
    Some((child, input))
}

/// A pager is a line of shell, so that it can have options.
fn shell(line: &OsString) -> Command {
    let (shell, option) = if cfg!(windows) {
        ("cmd", "/C")
    } else {
        ("sh", "-c")
    };
    let mut command = Command::new(shell);
    command.arg(option).arg(line);
    command
}

fn is_here(program: &str) -> bool {
    if program.contains(std::path::MAIN_SEPARATOR) {
        return Path::new(program).exists();
    }
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).any(|dir| {
        let file = dir.join(program);
        file.is_file() || file.with_extension("exe").is_file()
    })
}

/// Otherwise Ctrl-C, which pagers take for a command, would end this process and leave the pager
/// behind.
fn leave_interrupts_to_it() {
    #[cfg(unix)]
    signal_hook::flag::register(signal_hook::consts::SIGINT, std::sync::Arc::default()).ok();
}
