//! Output on a terminal: colours and the pager.

use std::process::Command;

use crate::support::{Store, run};

/// Runs the command on a terminal of its own; `None` where that is not possible.
fn on_terminal(store: &Store, arguments: &str, environment: &[(&str, &str)]) -> Option<String> {
    let line = format!(
        "{} -C {} {arguments}",
        env!("CARGO_BIN_EXE_strand"),
        store.dir().display()
    );
    let mut script = Command::new("script");
    script
        .args(["-qec", &line, "/dev/null"])
        .stdin(std::process::Stdio::null());
    for name in [
        "STRAND_PAGER",
        "PAGER",
        "LESS",
        "NO_COLOR",
        "CLICOLOR",
        "CLICOLOR_FORCE",
    ] {
        script.env_remove(name);
    }
    script
        .env("TERM", "xterm")
        .envs(environment.iter().copied());
    match script.output() {
        Ok(output) if output.status.success() => Some(
            String::from_utf8(output.stdout)
                .unwrap()
                .replace("\r\n", "\n"),
        ),
        _ => {
            eprintln!("SKIPPED: this test needs script, of util-linux");
            None
        }
    }
}

#[test]
fn a_terminal_gets_colours_and_a_pager_and_a_pipe_neither() {
    let store = Store::of(&[("a", ""), ("b", r#","description":"B  b""#)]);
    store.ok("update", &["a", "-s", "in_progress"]);
    let plain = store.ok("list", &[]) + "\n";
    assert!(!plain.contains('\u{1b}'));
    let no_pager = ("STRAND_PAGER", "");
    let Some(coloured) = on_terminal(&store, "list", &[no_pager]) else {
        return;
    };
    let lines: Vec<&str> = coloured.lines().collect();
    assert!(lines[0].starts_with("\u{1b}[1mID"), "{coloured:?}");
    assert!(lines[1].starts_with("\u{1b}[33ma ") && lines[1].ends_with("\u{1b}[0m"));
    assert_eq!(Some(lines[2]), plain.lines().last());
    let shown = on_terminal(&store, "show b", &[no_pager]).unwrap();
    assert!(
        shown.contains("\u{1b}[1mdescription\u{1b}[0m  B  b\n"),
        "{shown:?}"
    );
    let columns = on_terminal(&store, "list --columns id", &[no_pager]).unwrap();
    assert!(columns.starts_with("\u{1b}[1mID\u{1b}[0m\n"), "{columns:?}");

    let no_colour = [no_pager, ("NO_COLOR", "1")];
    assert_eq!(on_terminal(&store, "list", &no_colour).unwrap(), plain);
    let json = on_terminal(&store, "list --json", &[("STRAND_PAGER", "false")]).unwrap();
    assert_eq!(json.trim_end(), store.ok("list", &["--json"]));

    let marked = format!("> {}", plain.trim_end().replace('\n', "\n> "));
    let pager = ("PAGER", "sed 's/^/> /'");
    let read = on_terminal(&store, "list", &[pager, ("NO_COLOR", "1")]).unwrap();
    assert_eq!(read.trim_end(), marked);
    // A reader who leaves early, and a pager that is not there.
    let store_of_many = Store::new();
    let line = |number: u32| crate::support::issue(&format!("id-{number}"), "") + "\n";
    let many: String = (0..9_000).map(line).collect();
    assert_eq!(store_of_many.fed("import", &[], &many).code, 0);
    let left = on_terminal(&store_of_many, "list", &[("PAGER", "head -n 1")]).unwrap();
    assert_eq!(left.lines().count(), 1);
    let missing = [("STRAND_PAGER", "no-such-pager"), ("NO_COLOR", "1")];
    assert_eq!(on_terminal(&store, "list", &missing).unwrap(), plain);
    let mut piped = store.command("list", &[]);
    assert_eq!(run(piped.env("PAGER", "false")).out, plain);
}
