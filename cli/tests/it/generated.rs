//! Help, manual pages and completions.

use crate::support::{Store, plain, run, strand};

const COMMANDS: [&str; 27] = [
    "init",
    "create",
    "append",
    "batch",
    "show",
    "list",
    "ready",
    "claim",
    "update",
    "close",
    "reopen",
    "delete",
    "dep",
    "comment",
    "edit",
    "log",
    "follow",
    "compact",
    "doctor",
    "repair",
    "stat",
    "import",
    "export",
    "sync",
    "merge",
    "completions",
    "man",
];

#[test]
fn the_help_names_each_command_and_each_exit_status() {
    let done = plain(&["--help"]);
    assert_eq!((done.code, done.err.as_str()), (0, ""));
    for command in COMMANDS {
        assert!(done.out.contains(&format!("\n  {command} ")), "{command}");
        let help = plain(&[command, "--help"]);
        assert_eq!(help.code, 0, "{command}");
        let program = format!("strand{}", std::env::consts::EXE_SUFFIX);
        assert!(
            help.out.contains(&format!("Usage: {program} {command}")),
            "{}",
            help.out
        );
    }
    for code in 0..=12 {
        assert!(done.out.contains(&format!("\n  {code:>2}  ")), "{code}");
    }
    assert!(!done.out.contains('\u{1b}'));
    let version = format!("strand {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(plain(&["--version"]).out, version);
}

#[test]
fn the_help_of_each_command_has_an_example_and_fits_80_columns() {
    let help = |arguments: &[&str], columns: &str| {
        let done = run(strand()
            .args(arguments)
            .arg("--help")
            .env("COLUMNS", columns));
        assert_eq!(done.code, 0, "{arguments:?}: {}", done.err);
        done.out
    };
    for command in COMMANDS {
        let text = help(&[command], "80");
        assert!(text.contains("Examples:\n  "), "{command}: {text}");
        let (described, _) = text.split_once("Examples:").unwrap();
        let long = described.lines().find(|line| line.chars().count() > 80);
        assert_eq!(long, None, "{command}");
        let words = |text: &str| {
            text.split_whitespace()
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        assert_eq!(words(&text), words(&help(&[command], "10000")), "{command}");
    }
    let long = help(&[], "80");
    let long = long.lines().find(|line| line.chars().count() > 80);
    assert_eq!(long, None);
    assert_eq!(
        plain(&["help", "create"]).out,
        plain(&["create", "--help"]).out
    );
    assert_eq!(plain(&["help"]).code, 0);
}

#[test]
fn only_a_terminal_gets_colours() {
    let help = |colour: &str| run(strand().arg("--help").env(colour, "1")).out;
    assert!(
        help("CLICOLOR_FORCE").contains('\u{1b}'),
        "forced colours should be found"
    );
    assert!(
        !run(strand()
            .arg("--help")
            .env("CLICOLOR_FORCE", "0")
            .env("NO_COLOR", "1"))
        .out
        .contains('\u{1b}')
    );
    assert!(!help("NO_COLOR").contains('\u{1b}'));
}

#[test]
fn each_command_has_a_manual_page() {
    let page = plain(&["man"]);
    assert_eq!(page.code, 0, "{}", page.err);
    assert!(page.out.contains(".TH strand 1"), "{}", page.out);
    assert!(page.out.contains("Exit status:"));

    let dir = tempfile::tempdir().unwrap();
    let pages = dir.path().join("man/man1");
    let done = run(strand().arg("man").arg(&pages));
    assert_eq!((done.code, done.out.as_str()), (0, ""), "{}", done.err);
    for command in COMMANDS {
        let text = std::fs::read_to_string(pages.join(format!("strand-{command}.1"))).unwrap();
        assert!(text.contains(&format!("strand\\-{command}")), "{text}");
    }
    assert!(pages.join("strand.1").is_file());
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    assert_eq!(run(strand().arg("man").arg(&file)).code, 1);
}

#[test]
fn each_shell_gets_completions() {
    for (shell, sign) in [
        ("bash", "complete -o nospace"),
        ("zsh", "#compdef strand"),
        ("fish", "complete --keep-order"),
        ("powershell", "Register-ArgumentCompleter"),
        ("elvish", "edit:completion"),
    ] {
        let done = plain(&["completions", shell]);
        assert_eq!(done.code, 0, "{}", done.err);
        assert!(done.out.contains(sign), "{shell}: {}", done.out);
        assert!(done.out.contains("STRAND_COMPLETE"), "{shell}");
    }
    assert_eq!(plain(&["completions", "nix"]).code, 2);
}

#[test]
#[cfg(unix)]
fn bash_completes_commands_options_ids_and_values() {
    let store = Store::of(&[
        ("bd-1", r#","labels":["garden"],"assignee":"ann""#),
        ("bd-2", r#","issue_type":"odd""#),
        ("x-3", ""),
    ]);
    store.ok("close", &["x-3"]);
    let dir = tempfile::tempdir().unwrap();
    let script = dir.path().join("strand.bash");
    std::fs::write(&script, plain(&["completions", "bash"]).out).unwrap();
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_strand"), dir.path().join("strand")).unwrap();
    let path = std::env::var("PATH").unwrap();
    // The function that the script registers, called as bash calls it.
    let complete = "source \"$1\"; shift; f=$(complete -p strand | sed 's/.* -F \\([^ ]*\\).*/\\1/'); \
                    COMP_WORDS=(\"$@\"); COMP_CWORD=$(($# - 1)); COMP_TYPE=9; \
                    $f strand \"${COMP_WORDS[COMP_CWORD]}\" x; printf '%s\\n' \"${COMPREPLY[@]}\"";
    for (words, expected) in [
        (&["do"][..], "doctor"),
        (&["follow", "--until"], "--until-idle-ms"),
        (&["close", "bd"], "bd-1 bd-2 x-3"),
        (&["update", ""], "bd-1 bd-2"),
        (&["update", "bd-1", "-s", "in"], "in_progress"),
        (&["list", "--label", ""], "garden"),
        (&["list", "--assignee", ""], "ann"),
        (&["ready", "--type", "o"], "odd"),
    ] {
        let mut bash = std::process::Command::new("bash");
        bash.args(["-c", complete, "bash"])
            .arg(&script)
            .arg("strand")
            .args(words);
        bash.env("PATH", format!("{}:{path}", dir.path().display()));
        let Ok(output) = bash.env("STRAND_DIR", store.dir()).output() else {
            eprintln!("SKIPPED: this test needs bash");
            return;
        };
        let reply = String::from_utf8_lossy(&output.stdout);
        let mut reply: Vec<&str> = reply.split_whitespace().collect();
        // Options are offered where nothing is typed, too.
        reply.retain(|word| !word.starts_with("--") || expected.starts_with("--"));
        let last = words.last().unwrap();
        let expected: Vec<&str> = expected
            .split(' ')
            .filter(|word| word.starts_with(last))
            .collect();
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(reply, expected, "{words:?}: {error}");
    }
}
