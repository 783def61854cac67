//! `create`, `update`, `close`, `reopen` and `delete`.

use std::{io, path::Path};

use serde::Serialize;
use strand_core::{Batch, Issue, Patch, Receipt, Seq, Timestamp, Version};

use super::{fields, open};
use crate::{
    args::{Change, Changes, Comment, Create, Update},
    exit::Failure,
    input::new_batch,
    output::Output,
};

impl Changes {
    fn patch(self) -> Result<Patch, Failure> {
        let refused = |error| Failure::from(strand_core::Error::InvalidEvent(error));
        for set in self.set.iter().chain(&self.set_text) {
            fields::check(&set.field, &set.value)?;
        }
        for element in self.add.iter().chain(&self.append) {
            fields::check_element(&element.field, &element.value)?;
        }
        let mut patch = Patch::new();
        if let Some(priority) = self.priority {
            patch = patch.set("priority", &priority).map_err(refused)?;
        }
        for (field, text) in [
            ("issue_type", self.kind),
            ("assignee", self.assignee),
            ("status", self.status),
            ("description", self.description),
        ] {
            if let Some(text) = text {
                patch = set_text(patch, field, &text)?;
            }
        }
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

fn set_text(patch: Patch, field: &str, text: &str) -> Result<Patch, Failure> {
    let refused = |error| Failure::from(strand_core::Error::InvalidEvent(error));
    let value = serde_json::value::to_raw_value(text);
    let value = value.unwrap_or_else(|error| unreachable!("a string can be written: {error}"));
    fields::check(field, &value)?;
    patch.set(field, &value).map_err(refused)
}

/// Adds a comment.
pub(crate) fn comment(dir: &Path, args: Comment, out: &mut Output) -> Result<(), Failure> {
    #[derive(Serialize)]
    struct Said {
        #[serde(skip_serializing_if = "Option::is_none")]
        author: Option<String>,
        text: String,
        created_at: String,
    }
    let text = match args.text.as_str() {
        "-" => io::read_to_string(io::stdin())
            .map_err(|error| Failure::io("cannot read the input", &error))?,
        _ => args.text,
    };
    if text.trim().is_empty() {
        return Err(Failure::usage("the comment is empty"));
    }
    let said = Said {
        author: args.author,
        text: text.trim_end().to_owned(),
        created_at: Timestamp::now().to_string(),
    };
    let patch = Patch::new().append_comment(&said);
    let patch = patch.map_err(strand_core::Error::InvalidEvent)?;
    let log = open::store(dir, &args.writing, out)?;
    out.receipt(log.commit(&Batch::new().patch(args.id, patch))?, None)
}

pub(crate) fn create(dir: &Path, args: Create, out: &mut Output) -> Result<(), Failure> {
    #[derive(Serialize)]
    struct Created<'a> {
        id: &'a str,
        seq: Seq,
        repeated: bool,
    }
    let issue = Issue::new(args.id.as_deref().unwrap_or("new"), &args.title);
    let patch = set_text(args.changes.patch()?, "title", &args.title)?;
    let issue = patch.apply(&issue);
    let issue = issue.map_err(strand_core::Error::InvalidEvent)?;
    let log = open::store(dir, &args.writing, out)?;
    let (id, receipt) = if let Some(id) = args.id {
        let receipt = log.commit(&new_batch(args.key).create(issue))?;
        (id, receipt)
    } else {
        log.create_new(&args.prefix, &mut |id| Ok(issue.with("id", id)?))?
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
    let mut patch = args.changes.patch()?;
    if let Some(title) = &args.title {
        patch = set_text(patch, "title", title)?;
    }
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
    out.receipt(log.commit(&batch)?, None)
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
    out.receipt(log.commit(&batch)?, None)
}
