//! `dep`: dependencies between issues.

use std::{collections::HashSet, path::Path};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use strand_core::{Batch, Issue, Patch};

use super::open;
use crate::{
    args::{DepAction, Edge},
    exit::{Exit, Failure},
    output::Output,
    table::printable,
};

#[derive(Serialize)]
struct New<'a> {
    issue_id: &'a str,
    depends_on_id: &'a str,
    r#type: &'a str,
}

#[derive(Deserialize)]
struct On {
    depends_on_id: String,
}

pub(crate) fn dep(dir: &Path, action: DepAction, out: &mut Output) -> Result<(), Failure> {
    match action {
        DepAction::Add(edge) => add(dir, &edge, out),
        DepAction::Rm(edge) => remove(dir, &edge, out),
        DepAction::Tree { id } => tree(dir, &id, out),
    }
}

fn missing(id: &str) -> Failure {
    Failure::new(Exit::NotFound, format!("there is no issue {id:?}"))
}

fn add(dir: &Path, edge: &Edge, out: &mut Output) -> Result<(), Failure> {
    if edge.id == edge.on {
        return Err(Failure::usage("an issue can't depend on itself"));
    }
    let log = open::store(dir, &edge.writing, out)?;
    if log.get(&edge.on)?.is_none() {
        return Err(missing(&edge.on));
    }
    let new = New {
        issue_id: &edge.id,
        depends_on_id: &edge.on,
        r#type: &edge.kind,
    };
    let patch = Patch::new().add("dependencies", &new);
    let patch = patch.map_err(strand_core::Error::InvalidEvent)?;
    out.receipt(log.commit(&Batch::new().patch(&edge.id, patch))?, None)
}

fn remove(dir: &Path, edge: &Edge, out: &mut Output) -> Result<(), Failure> {
    let log = open::store(dir, &edge.writing, out)?;
    let found = log.get(&edge.id)?.ok_or_else(|| missing(&edge.id))?;
    let mut patch = Patch::new();
    for dependency in found
        .issue
        .field::<Vec<Box<RawValue>>>("dependencies")
        .unwrap_or_default()
    {
        let on = serde_json::from_str::<On>(dependency.get());
        if on.is_ok_and(|on| on.depends_on_id == edge.on) {
            patch = patch
                .remove("dependencies", &dependency)
                .map_err(strand_core::Error::InvalidEvent)?;
        }
    }
    if patch.is_empty() {
        let message = format!("{:?} does not depend on {:?}", edge.id, edge.on);
        return Err(Failure::new(Exit::NotFound, message));
    }
    out.receipt(log.commit(&Batch::new().patch(&edge.id, patch))?, None)
}

fn tree(dir: &Path, id: &str, out: &mut Output) -> Result<(), Failure> {
    #[derive(Serialize)]
    struct Node<'a> {
        depth: usize,
        id: &'a str,
        status: Option<String>,
        title: Option<String>,
    }
    let issues = open::issues(dir)?;
    issues.get(id).ok_or_else(|| missing(id))?;
    let mut seen = HashSet::new();
    let mut open = vec![(0, id.to_owned())];
    while let Some((depth, id)) = open.pop() {
        let issue = issues.get(&id);
        let node = Node {
            depth,
            id: &id,
            status: issue.and_then(Issue::status),
            title: issue.map(Issue::title),
        };
        let again = !seen.insert(id.clone());
        out.result(&node, || {
            let text = match (&node.title, again) {
                (None, _) => "(no such issue)".to_owned(),
                (Some(_), true) => "(see above)".to_owned(),
                (Some(title), false) => {
                    format!(
                        "[{}] {title}",
                        node.status.as_deref().unwrap_or("no status")
                    )
                }
            };
            printable(&format!("{}{id} {text}", "  ".repeat(depth)))
        })?;
        if again {
            continue;
        }
        let on: Vec<On> = issue
            .and_then(|issue| issue.field("dependencies"))
            .unwrap_or_default();
        open.extend(on.into_iter().rev().map(|on| (depth + 1, on.depends_on_id)));
    }
    Ok(())
}
