//! Checks that the workflow files parse, and that every step calls an existing task with flags that
//! the task takes.

use std::path::Path;
use std::process::Command;

use clap::Parser as _;
use yaml_rust2::{Yaml, YamlLoader};

use crate::args::{Arguments, Flags, Task};
use crate::failure::Failure;
use crate::{cargo, process};

const DIR: &str = ".github/workflows";

pub(crate) fn check() -> Result<(), Failure> {
    let dir = cargo::workspace().join(DIR);
    let unreadable = |error| Failure::environment(format!("{DIR}: {error}"));
    let mut files: Vec<_> = std::fs::read_dir(&dir)
        .and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect())
        .map_err(unreadable)?;
    files.sort();
    let mut calls = Vec::new();
    for file in files {
        let name = file
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let text = std::fs::read_to_string(&file).map_err(unreadable)?;
        let found = commands(&text).map_err(|what| wrong(&name, &what))?;
        calls.extend(found.into_iter().map(|call| (name.clone(), call)));
    }
    if calls.is_empty() {
        return Err(wrong(DIR, "no workflow calls a task"));
    }
    let harness = cargo::build_harness()?;
    for (name, call) in &calls {
        accepts(&harness, call)
            .map_err(|what| wrong(name, &format!("{}: {what}", call.join(" "))))?;
    }
    Ok(())
}

fn wrong(name: &str, what: &str) -> Failure {
    Failure::violation(format!("ci: FAILED: workflows: {name}: {what}"))
}

/// The arguments of every `cargo xtask` in a workflow. Anything else in it is an error.
fn commands(text: &str) -> Result<Vec<Vec<String>>, String> {
    let documents = YamlLoader::load_from_str(text).map_err(|error| error.to_string())?;
    let [workflow] = documents.as_slice() else {
        return Err(format!("{} documents", documents.len()));
    };
    if workflow["on"].is_badvalue() {
        return Err("it has no `on`".to_owned());
    }
    let jobs = workflow["jobs"].as_hash().ok_or("it has no `jobs`")?;
    let mut calls = Vec::new();
    for (name, job) in jobs {
        let name = name.as_str().unwrap_or_default();
        let steps = job["steps"]
            .as_vec()
            .filter(|_| !job["runs-on"].is_badvalue());
        for step in steps.ok_or(format!("job {name} has no `steps` or no `runs-on`"))? {
            calls.extend(call(step).map_err(|what| format!("job {name}: {what}"))?);
        }
    }
    Ok(calls)
}

/// The arguments of a step's `cargo xtask`; `None` for an action.
fn call(step: &Yaml) -> Result<Option<Vec<String>>, String> {
    match (step["uses"].as_str(), step["run"].as_str()) {
        (Some(action), None) if action.contains('@') => Ok(None),
        (Some(action), None) => Err(format!("{action} has no version")),
        (None, Some(line)) => {
            // The runner replaces an expression by a word.
            let mut words = Vec::new();
            let mut rest = line.trim();
            while let Some((before, behind)) = rest.split_once("${{") {
                words.push(before);
                words.push("1");
                rest = behind
                    .split_once("}}")
                    .ok_or("an expression does not end")?
                    .1;
            }
            words.push(rest);
            let line = words.concat();
            let mut words = line.split_whitespace().map(ToOwned::to_owned);
            if (words.next().as_deref(), words.next().as_deref()) != (Some("cargo"), Some("xtask"))
            {
                return Err(format!("not a task: {line}"));
            }
            Ok(Some(words.collect()))
        }
        _ => Err("a step needs either `uses` or `run`".to_owned()),
    }
}

/// Whether the task exists and takes the arguments.
fn accepts(harness: &Path, call: &[String]) -> Result<(), String> {
    let words = std::iter::once("xtask").chain(call.iter().map(String::as_str));
    let arguments = Arguments::try_parse_from(words).map_err(|error| error.to_string())?;
    let (mut command, flags) = match arguments.task {
        Task::Torture(Flags { flags }) | Task::Soak(Flags { flags }) => {
            let mut command = Command::new(harness);
            command.args(call.first());
            (command, flags)
        }
        Task::Bench(Flags { flags }) => (
            cargo::command(&["run", "--quiet", "--package", "strand-bench", "--"]),
            flags,
        ),
        _ => return Ok(()),
    };
    // The program checks the flags before `--help`, and then does nothing.
    let output = process::output(command.args(flags).arg("--help"));
    let output = output.map_err(|failure| failure.message)?;
    if output.status.success() {
        return Ok(());
    }
    Err(String::from_utf8_lossy(&output.stderr).trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workflow(step: &str) -> String {
        format!("on: push\njobs:\n  one:\n    runs-on: here\n    steps:\n      - {step}\n")
    }

    #[test]
    fn only_calls_of_tasks_are_accepted() {
        let calls = |step| commands(&workflow(step));
        assert_eq!(
            calls("run: cargo xtask soak --seed ${{ github.run_id }} --quiet").unwrap(),
            [["soak", "--seed", "1", "--quiet"]]
        );
        assert_eq!(calls("uses: a/b@v4").unwrap(), Vec::<Vec<String>>::new());
        for refused in [
            "run: make test",
            "run: cargo test",
            "uses: a/b",
            "name: nothing",
            "run: cargo xtask soak --seed ${{ x",
            "run: [1, 2",
        ] {
            assert!(calls(refused).is_err(), "{refused}");
        }
        assert!(commands("on: push\njobs:\n  one:\n    steps: []\n").is_err());
        assert!(commands("jobs: {}\n").is_err());
    }

    #[test]
    fn unknown_tasks_and_parts_are_refused() {
        let accepts = |call: &[&str]| {
            let call: Vec<String> = call.iter().map(ToString::to_string).collect();
            super::accepts(Path::new("harness"), &call)
        };
        assert_eq!(accepts(&["ci", "format"]), Ok(()));
        assert!(accepts(&["ci", "lint"]).is_err());
        assert!(accepts(&["deploy"]).is_err() && accepts(&[]).is_err());
    }
}
