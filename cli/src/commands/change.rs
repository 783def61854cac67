//! `create`, `update`, `close`, `reopen` and `delete`.

use std::path::Path;

use serde::Serialize;
use strand_core::{Batch, Issue, Patch, Receipt, Seq, Version};

use super::open;
use crate::{
    args::{Change, Changes, Create, Update},
    exit::Failure,
    input::new_batch,
    output::Output,
};

impl Changes {
    fn patch(self) -> Result<Patch, Failure> {
        let refused = |error| Failure::from(strand_core::Error::InvalidEvent(error));
        let mut patch = Patch::new();
        for set in self.set.into_iter().chain(self.set_text) {
            patch = patch.set(set.field, &set.value).map_err(refused)?;
        }
        for field in self.unset {
            patch = patch.unset(field);
        }
        for removed in self.remove {
            patch = patch
                .remove(removed.field, &removed.value)
                .map_err(refused)?;
        }
        for added in self.add {
            patch = patch.add(added.field, &added.value).map_err(refused)?;
        }
        for appended in self.append {
            patch = patch
                .append(appended.field, &appended.value)
                .map_err(refused)?;
        }
        for label in &self.remove_labels {
            patch = patch.remove_label(label);
        }
        for label in &self.add_labels {
            patch = patch.add_label(label);
        }
        Ok(patch)
    }
}

pub(crate) fn create(dir: &Path, args: Create, out: &mut Output) -> Result<(), Failure> {
    #[derive(Serialize)]
    struct Created<'a> {
        id: &'a str,
        seq: Seq,
        repeated: bool,
    }
    let issue = Issue::new(args.id.as_deref().unwrap_or("new"), &args.title);
    let issue = args.changes.patch()?.apply(&issue);
    let issue = issue.map_err(strand_core::Error::InvalidEvent)?;
    let log = open::store(dir, &args.writing, out)?;
    let (id, receipt) = if let Some(id) = args.id {
        let receipt = log.commit(&new_batch(args.key).create(issue))?;
        (id, receipt)
    } else {
        log.create_new(&args.prefix, &mut |id| issue.with("id", id))?
    };
    let Receipt { seq, repeated, .. } = receipt;
    let created = Created {
        id: &id,
        seq,
        repeated,
    };
    out.answer(&created, || id.clone())
}

pub(crate) fn update(dir: &Path, args: Update, out: &mut Output) -> Result<(), Failure> {
    let patch = args.changes.patch()?;
    if patch.is_empty() {
        return Err(Failure::usage(
            "nothing to change; see `strand update --help`",
        ));
    }
    let log = open::store(dir, &args.writing, out)?;
    let batch = new_batch(args.key);
    let batch = match args.if_version {
        Some(version) => batch.patch_if(args.id, Version::new(version), patch),
        None => batch.patch(args.id, patch),
    };
    out.receipt(log.commit(&batch)?)
}

/// Adds one step for each issue, all in one record.
pub(crate) fn change(
    dir: &Path,
    args: Change,
    out: &mut Output,
    step: fn(Batch, String) -> Batch,
) -> Result<(), Failure> {
    let mut batch = new_batch(args.key);
    if let Some(version) = args.if_version {
        let [id] = args.ids.as_slice() else {
            return Err(Failure::usage("--if-version goes with exactly one ID"));
        };
        batch = batch.require(id, Version::new(version));
    }
    let log = open::store(dir, &args.writing, out)?;
    let batch = args.ids.into_iter().fold(batch, step);
    out.receipt(log.commit(&batch)?)
}
