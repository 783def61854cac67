//! The store that `--store` names.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use clap::ValueEnum as _;

use crate::run::config::Config;
use crate::stores::command::{CommandStore, version};
use crate::stores::locked_file::Fault;
use crate::stores::program::ProgramStore;
use crate::stores::seat::Seat;
use crate::stores::spec::{BUILT_IN, Spec};
use crate::stores::store::Store;

/// The store, and the directory of its spec. `scratch` is made.
///
/// # Errors
/// There is no such store, its spec is wrong, or its program can't be run.
pub(super) fn open(
    config: &Config,
    exe: &Path,
    scratch: &Path,
) -> Result<(Box<dyn Store>, PathBuf), String> {
    std::fs::create_dir_all(scratch).map_err(|error| format!("{}: {error}", scratch.display()))?;
    let over = Arc::new(AtomicBool::new(false));
    let seat = Seat::new(over, None);
    let name = config.store.as_str();
    if let Some(line) = name.strip_prefix("agent:") {
        let argv = line.split_whitespace().map(str::to_owned).collect();
        let store = ProgramStore::new(argv, &seat)
            .map_err(|error| format!("`{line}` does not speak the protocol: {error}"))?;
        return Ok((Box::new(store), scratch.to_owned()));
    }
    if let Some(fault) = name.strip_prefix("locked-file") {
        let mut argv = vec![exe.display().to_string(), "locked-file".to_owned()];
        if let Some(fault) = fault.strip_prefix(':') {
            let known = Fault::from_str(fault, false);
            known.map_err(|_| format!("a locked file has no fault {fault:?}: {}", faults()))?;
            argv.extend(["--fault".to_owned(), fault.to_owned()]);
        }
        let store = ProgramStore::new(argv, &seat)?;
        return Ok((Box::new(store), scratch.to_owned()));
    }
    let (spec, dir) = spec(name, scratch)?;
    version(&spec, exe.parent().unwrap_or(scratch))
        .map_err(|error| format!("{} is not there: {error}", spec.name))?;
    let loses_power = config.power_cuts > 0;
    Ok((Box::new(CommandStore::new(spec, exe, loses_power)), dir))
}

fn spec(name: &str, scratch: &Path) -> Result<(Spec, PathBuf), String> {
    if let Some(path) = name.strip_prefix("cmd:") {
        let path = Path::new(path);
        let spec = Spec::read(path)?;
        let dir = path.canonicalize().ok();
        let dir = dir.and_then(|path| path.parent().map(Path::to_owned));
        return Ok((spec, dir.unwrap_or_default()));
    }
    let found = BUILT_IN.into_iter().find(|(known, _)| *known == name);
    let (name, text) = found.ok_or_else(|| unknown(name))?;
    let spec = Spec::parse(text).map_err(|error| format!("{name}: {error}"))?;
    Ok((spec, scratch.to_owned()))
}

fn faults() -> String {
    let names = Fault::value_variants().iter().filter_map(|fault| {
        let value = fault.to_possible_value()?;
        Some(value.get_name().to_owned())
    });
    names.collect::<Vec<_>>().join(", ")
}

fn unknown(name: &str) -> String {
    let names: Vec<&str> = BUILT_IN.into_iter().map(|(name, _)| name).collect();
    format!(
        "--store knows no {name:?}. There are strand, locked-file, locked-file:FAULT ({}), {}, \
         cmd:SPEC.toml and agent:PROGRAM",
        faults(),
        names.join(", ")
    )
}

/// The version of a store that comes along; why it is not there otherwise.
///
/// # Errors
/// Its program can't be run.
pub fn is_there(name: &str, exe: &Path) -> Result<String, String> {
    let beside = exe.parent().unwrap_or(exe);
    match BUILT_IN.into_iter().find(|(known, _)| *known == name) {
        Some((_, text)) => version(&Spec::parse(text)?, beside),
        None => Ok(name.to_owned()),
    }
}
