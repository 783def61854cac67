//! `init`, and how other commands open a store.

use std::{borrow::Cow, path::Path, time::Duration};

use serde::Serialize;
use strand_core::{
    Durability, Error, Holder, IssueEvent, IssueLog, Issues, Options, Reader, backend::Backend,
};

use super::auto;
use crate::{
    args::{Init, Writing},
    exit::{Exit, Failure},
    output::{Output, tell},
    remote,
};

/// The file that makes a directory a store.
const MANIFEST: &str = "MANIFEST";

pub(crate) fn options(writing: &Writing, json: bool) -> Options {
    Options::default()
        .durability(if writing.buffered {
            Durability::Buffered
        } else {
            Durability::Synced
        })
        .lock_timeout(Duration::from_millis(writing.timeout_ms))
        .allow_unsafe_filesystem(writing.allow_unsafe_filesystem)
        .on_lock_wait(move |holder, waited| {
            // After 1 s, and every 5 s after that.
            if waited.as_secs() % 5 == 1 {
                tell(&waiting_for(holder, json));
            }
        })
}

/// Words for a person, or one JSON object.
fn waiting_for(holder: Option<&Holder>, json: bool) -> String {
    #[derive(Serialize)]
    struct Waiting<'a> {
        waiting_for: Option<Of<'a>>,
    }
    #[derive(Serialize)]
    struct Of<'a> {
        pid: u32,
        command: &'a str,
        held_ms: u128,
    }
    if json {
        let waiting_for = holder.map(|holder| Of {
            pid: holder.pid,
            command: &holder.command,
            held_ms: holder.held_for.as_millis(),
        });
        return serde_json::to_string(&Waiting { waiting_for }).unwrap_or_default();
    }
    match holder {
        Some(holder) => format!(
            "strand: waiting for pid {} ({}, {:.1} s)",
            holder.pid,
            holder.command,
            holder.held_for.as_secs_f64()
        ),
        None => "strand: waiting for the lock; its holder is unknown".to_owned(),
    }
}

/// Opens a store to write. Only `init` creates one, so that a mistyped name does not.
pub(crate) fn log(dir: &Path, writing: &Writing, out: &Output) -> Result<IssueLog, Failure> {
    log_with(dir, options(writing, out.json), out)
}

/// As [`log`], with other options.
pub(crate) fn log_with(dir: &Path, options: Options, out: &Output) -> Result<IssueLog, Failure> {
    if !dir.join(MANIFEST).exists() {
        Reader::<IssueEvent>::open(dir)?;
    }
    open(dir, options, out)
}

fn open(dir: &Path, options: Options, out: &Output) -> Result<IssueLog, Failure> {
    let log = IssueLog::open(dir, options)?;
    let recovery = log.log().recovery();
    if recovery.quarantined.is_some() && !out.json {
        tell(&format!("strand: {recovery}"));
    }
    Ok(log)
}

/// Opens a store of any kind to write, as [`log`] does.
pub(crate) fn store(
    place: &Path,
    writing: &Writing,
    out: &Output,
) -> Result<Box<dyn Backend>, Failure> {
    Ok(match remote::address(place)? {
        Some(address) => Box::new(remote::open(&address, Some(writing))?),
        None => Box::new(log(place, writing, out)?),
    })
}

/// The state of a store of any kind.
pub(crate) fn issues(place: &Path) -> Result<Issues, Failure> {
    Ok(match remote::address(place)? {
        Some(address) => remote::open(&address, None)?.issues()?,
        None => Issues::load(place)?,
    })
}

/// As [`issues`], but closed ones may be missing: see [`Issues::load_unclosed`].
pub(crate) fn unclosed(place: &Path) -> Result<Issues, Failure> {
    match remote::address(place)? {
        Some(_) => issues(place),
        None => Ok(Issues::load_unclosed(place)?),
    }
}

pub(crate) fn init(dir: &Path, args: &Init, out: &mut Output) -> Result<(), Failure> {
    #[derive(Serialize)]
    struct Made<'a> {
        dir: Cow<'a, str>,
        created: bool,
    }
    let created = if let Some(address) = remote::address(dir)? {
        remote::create(&address, &args.writing)?
    } else {
        let created = match Reader::<IssueEvent>::open(dir) {
            Ok(_) => false,
            Err(Error::MissingDirectory { .. } | Error::NoStore { .. }) => true,
            Err(error) => return Err(error.into()),
        };
        if created {
            refuse_inside_a_store(dir)?;
        }
        in_directory(dir, || open(dir, options(&args.writing, out.json), out))?;
        if args.writing.no_auto_compact {
            let setting = dir.join(auto::SETTING);
            let made = std::fs::write(&setting, "");
            let failed = format!("cannot write {}", setting.display());
            made.map_err(|error| Failure::io(&failed, &error))?;
        }
        created
    };
    let made = Made {
        dir: dir.to_string_lossy(),
        created,
    };
    out.answer(&made, || {
        let is = if created {
            "is now a store"
        } else {
            "is already a store"
        };
        format!("{} {is}", dir.display())
    })
}

/// Who copies, moves or removes a store does the same to all that is in its directory. A directory
/// in the place of one of its files, such as its next segment, would stop it.
fn refuse_inside_a_store(dir: &Path) -> Result<(), Failure> {
    let named = |error| Failure::io(&format!("cannot examine {}", dir.display()), &error);
    let whole = std::path::absolute(dir).map_err(named)?;
    let is_store = |dir: &&Path| Reader::<IssueEvent>::open(dir).is_ok();
    match whole.ancestors().skip(1).find(is_store) {
        None => Ok(()),
        Some(store) => {
            let (dir, store) = (dir.display(), store.display());
            let message = format!("{dir} is inside the store {store}; put it beside that one");
            Err(Failure::new(Exit::Unusable, message))
        }
    }
}

/// Creates a directory, and those above it, for `work`. Removes them again if that fails and has
/// left nothing in them.
fn in_directory<T>(dir: &Path, work: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    let missing: Vec<_> = dir
        .ancestors()
        .take_while(|dir| !dir.as_os_str().is_empty() && !dir.exists())
        .collect();
    let made = std::fs::create_dir_all(dir)
        .map_err(|error| Failure::io(&format!("cannot create {}", dir.display()), &error));
    made.and_then(|()| work()).inspect_err(|_| {
        for dir in missing {
            std::fs::remove_dir(dir).ok();
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_was_made_in_vain_is_removed() {
        let fail = || Err::<(), _>(Failure::usage("refused"));
        let dir = tempfile::tempdir().unwrap();
        in_directory(dir.path(), fail).unwrap_err();
        in_directory(&dir.path().join("a/b"), fail).unwrap_err();
        assert!(dir.path().exists() && !dir.path().join("a").exists());

        let dir = dir.path().join("c/d");
        let leave_one = || {
            std::fs::write(dir.join("notes"), "mine").unwrap();
            fail()
        };
        in_directory(&dir, leave_one).unwrap_err();
        assert!(dir.join("notes").exists());
        in_directory(&dir.join("e"), || Ok(())).unwrap();
        assert!(dir.join("e").exists());
    }
}
