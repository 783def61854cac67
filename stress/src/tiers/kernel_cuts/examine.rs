//! The requirements of a crash state: the kernel recovers its filesystem, and then the store has
//! every acknowledged record.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use strand_core::{
    Issue, IssueEvent, IssueLog, Issues, LiveIssues, Timestamp,
    check::Advice,
    testing::{Storage, check_in},
};

use super::recording::{id, options, title};
use crate::run::local_disk::LocalDisk;

/// The issue that is appended after recovery.
const AFTER: &str = "after";

/// Everything that is wrong with a store after the power failed. `boot` names the machine's new
/// start.
pub(super) fn examine(store: &Path, acknowledged: &BTreeMap<u32, u32>, boot: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut look = |when: &str| match read(store, boot) {
        Ok(issues) => {
            let found = compare(&issues, acknowledged);
            wrong.extend(found.into_iter().map(|what| format!("{when}: {what}")));
        }
        Err(error) => wrong.push(format!("{when}: {error}")),
    };
    look("a reader before recovery");
    // A second one, on the page that the first one may have left.
    look("another reader before recovery");
    let storage: Arc<dyn Storage> = Arc::new(LocalDisk::new(boot));
    match check_in(&storage, store) {
        Ok(report) if matches!(report.advice, Advice::Nothing | Advice::Open) => {}
        Ok(report) => wrong.push(format!("check before recovery: {report}")),
        Err(error) => wrong.push(format!("check before recovery: {error}")),
    }
    let after = Issue::new_at(AFTER, &title(AFTER), Timestamp::from_ms(0));
    let append = || {
        let log = IssueLog::open(store, options(boot))?;
        log.append(&IssueEvent::add(after, Timestamp::from_ms(0)))?;
        log.close()
    };
    if let Err(error) = append() {
        wrong.push(format!("an append after recovery: {error}"));
        return wrong;
    }
    match read(store, boot) {
        Ok(issues) => {
            let found = compare(&issues, acknowledged);
            wrong.extend(
                found
                    .into_iter()
                    .map(|what| format!("after recovery: {what}")),
            );
            if issues.get(AFTER).is_none() {
                wrong.push("the record appended after recovery is missing".to_owned());
            }
        }
        Err(error) => wrong.push(format!("a reader after recovery: {error}")),
    }
    wrong
}

fn read(store: &Path, boot: &str) -> Result<Issues, strand_core::Error> {
    let storage: Arc<dyn Storage> = Arc::new(LocalDisk::new(boot));
    LiveIssues::open_in(&storage, store).map(LiveIssues::into_state)
}

/// Pure: acknowledged issues that are missing, and issues that nobody can have written.
fn compare(issues: &Issues, acknowledged: &BTreeMap<u32, u32>) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut found: BTreeMap<u32, BTreeSet<u32>> = BTreeMap::new();
    for (id, issue) in issues.iter() {
        if issue.title() != title(id) {
            wrong.push(format!("{id} has the title {:?}", issue.title()));
        }
        let number = |text: &str| text.parse::<u32>().ok();
        let parsed = id.strip_prefix('a').and_then(|rest| rest.split_once('-'));
        match parsed.and_then(|(agent, of)| Some((number(agent)?, number(of)?))) {
            Some((agent, of)) => {
                found.entry(agent).or_default().insert(of);
            }
            None if id == AFTER => {}
            None => wrong.push(format!("nobody has written {id}")),
        }
    }
    for (agent, count) in acknowledged {
        let of = found.get(agent);
        let missing: Vec<String> = (1..=*count)
            .filter(|number| of.is_none_or(|of| !of.contains(number)))
            .map(|number| id(*agent, number))
            .collect();
        if let (Some(first), Some(last)) = (missing.first(), missing.last()) {
            let n = missing.len();
            wrong.push(format!(
                "{n} of {count} acknowledged records are missing: {first} to {last}"
            ));
        }
    }
    for (agent, of) in &found {
        let last = of.last().copied().unwrap_or(0);
        if of.len() != last as usize {
            wrong.push(format!(
                "agent {agent}: {} of {last} records in a gapless order",
                of.len()
            ));
        }
    }
    wrong
}
