//! Tries a store with one agent before any verdict: a wrong spec must not look like a store that
//! loses writes.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crate::evidence::listing::{Entry, token, tokens};
use crate::evidence::violation::Violation;
use crate::run::config::Config;
use crate::stores::examine::leftovers;
use crate::stores::follow::{Follower, number};
use crate::stores::runner::{History, Site, append, batch, look, payload};
use crate::stores::seat::with_limit;
use crate::stores::serving::Serving;
use crate::stores::store::{Agent, Can, Deed, Job, Store, Told, job};

const WRITES: u32 = 3;

/// What works, in words.
///
/// # Errors
/// What does not, with the command and its output, and what to change in the spec.
pub(super) fn preflight(config: &Config, store: &dyn Store, site: &Site) -> Result<String, String> {
    std::fs::create_dir_all(&site.store)
        .map_err(|error| format!("{}: {error}", site.store.display()))?;
    let over = Arc::new(AtomicBool::new(false));
    let seat = site.seat(0, &over, None)?;
    // The second agent works there.
    site.seat(1, &over, None)?;
    let tried = with_limit(&seat, || {
        let mut agent = store.agent(&seat, true);
        Preflight {
            config,
            store,
            can: store.can(),
            site,
            agent: &mut *agent,
        }
        .run()
    });
    let name = &store.can().name;
    tried.map_err(|error| format!("{name}: {error}"))?;
    Ok(summary(store))
}

struct Preflight<'a> {
    config: &'a Config,
    store: &'a dyn Store,
    can: &'a Can,
    site: &'a Site,
    agent: &'a mut dyn Agent,
}

impl Preflight<'_> {
    fn run(&mut self) -> Result<(), String> {
        self.agent
            .perform(&job(Deed::Init, self.site.values(0)))
            .success("[init]")?;
        let server = self.site.seat(0, &Arc::default(), None)?;
        let _serving = Serving::start(self.store, server, self.site.values(0))
            .map_err(|error| format!("[serve] {error}"))?;
        let mut receipts = Vec::new();
        for write in 1..=WRITES {
            let answer = self
                .agent
                .perform(&append(self.config, self.site, 0, write));
            let answer = answer.success(&format!(
                "[append] of write {write} of {WRITES} by one agent (is its exit status among \
                 `ok`, does `receipt` match?)"
            ))?;
            receipts.extend(answer.receipt);
        }
        let different: BTreeSet<&String> = receipts.iter().collect();
        if different.len() != receipts.len() {
            return Err(format!(
                "[append] receipt finds {receipts:?} in three answers, and has to find something \
                 that is different in each"
            ));
        }
        let first = self.list()?;
        self.check_list(&first, &receipts)?;
        let second = self.list()?;
        if first != second {
            return Err(format!(
                "[list] shows one thing now and another later, without a write between:\n  \
                 {first:?}\n  {second:?}"
            ));
        }
        if self.can.batch {
            self.check_batch()?;
        }
        if self.can.follow {
            self.check_follow()?;
        }
        if self.can.claim {
            let item = receipts.first().cloned().unwrap_or_else(|| token(0, 1));
            self.check_claim(&item)?;
        }
        if self.can.set {
            let item = receipts.first().cloned().unwrap_or_else(|| token(0, 1));
            self.check_set(&item)?;
        }
        self.check_rest()
    }

    fn list(&mut self) -> Result<Vec<Entry>, String> {
        let answer = self.agent.perform(&job(Deed::List, self.site.values(0)));
        Ok(answer.success("[list]")?.entries)
    }

    fn check_list(&self, entries: &[Entry], receipts: &[String]) -> Result<(), String> {
        let shown: Vec<&str> = entries.iter().map(|entry| entry.text.as_str()).collect();
        let shown = shown.join("\n  ");
        if let Some(entry) = entries.iter().find(|entry| tokens(&entry.text).is_empty()) {
            return Err(format!(
                "[list] has an entry that is none of the three writes: {:?}. If it is a heading, \
                 have `skip` match it; a write is known by its token, as {}",
                entry.text,
                token(0, 1)
            ));
        }
        let found: Vec<(u32, u32)> = entries
            .iter()
            .flat_map(|entry| tokens(&entry.text))
            .collect();
        for write in 1..=WRITES {
            match found.iter().filter(|own| **own == (0, write)).count() {
                1 => {}
                0 => {
                    return Err(format!(
                        "[list] does not show write {write}, whose token is {}. It shows:\n  {shown}",
                        token(0, write)
                    ));
                }
                many => {
                    return Err(format!(
                        "[list] shows write {write} {many} times; each write has to be in one \
                         entry (`text` names the part of a JSON item to look at):\n  {shown}"
                    ));
                }
            }
        }
        let whole = payload(self.config, 0, 1);
        if self.can.whole && !entries.iter().any(|entry| entry.text.contains(&whole)) {
            return Err(format!(
                "[list] does not show the whole payload {whole:?}. If the store shortens it, say \
                 `whole = false`. It shows:\n  {shown}"
            ));
        }
        if self.can.ordered && !found.is_sorted() {
            return Err(format!(
                "[list] says `ordered = true`, and the three writes are in another order:\n  {shown}"
            ));
        }
        if self.can.numbers {
            let listed: Vec<Option<u64>> = entries.iter().map(|entry| entry.number).collect();
            let told: Vec<Option<u64>> = receipts.iter().map(|told| told.parse().ok()).collect();
            if listed != told || !listed.iter().zip(1..).all(|(number, n)| *number == Some(n)) {
                return Err(format!(
                    "[list] number finds {listed:?} and the receipts are {told:?}: both have to be \
                     1, 2, 3. Without numbers, leave `number` out"
                ));
            }
        }
        Ok(())
    }

    fn check_batch(&mut self) -> Result<(), String> {
        let (first, last) = (WRITES + 1, 2 * WRITES);
        let job = batch(self.config, self.site, 0, first, last);
        let answer = self.agent.perform(&job).success("[batch]")?;
        let listed = self.list()?;
        for write in first..=last {
            if !listed
                .iter()
                .any(|entry| tokens(&entry.text).contains(&(0, write)))
            {
                return Err(format!(
                    "[list] does not show the write {} of a batch (`each` is the form of a write, \
                     `join` is between two): {listed:?}\n  it was: {}",
                    token(0, write),
                    answer.line
                ));
            }
        }
        Ok(())
    }

    fn check_follow(&mut self) -> Result<(), String> {
        let writes: BTreeSet<(u32, u32)> = (1..=WRITES).map(|write| (0, write)).collect();
        let shown = self.followed(0, &writes)?;
        let found = |shown: &[Entry]| -> BTreeSet<(u32, u32)> {
            shown.iter().flat_map(|entry| tokens(&entry.text)).collect()
        };
        if !writes.is_subset(&found(&shown)) {
            return Err(format!(
                "[follow] has to print all writes, also those that were made before it began. It \
                 printed: {shown:?}"
            ));
        }
        if !self.can.resumes {
            return Ok(());
        }
        let first = number(shown.get(..1).unwrap_or_default());
        let known = tokens(shown.first().map_or("", |entry| &entry.text));
        let mut rest = writes;
        rest.retain(|write| !known.contains(write));
        let resumed = self.followed(first, &rest)?;
        let found = found(&resumed);
        if rest.is_subset(&found) && known.iter().all(|write| !found.contains(write)) {
            return Ok(());
        }
        Err(format!(
            "[follow] has to begin with the write {{from}} (`number` finds the numbers, without it \
             they are counted from 1). From {} it printed: {resumed:?}\n  from 1: {shown:?}",
            first + 1
        ))
    }

    /// What a follower is shown that begins behind a write, until it was shown these.
    fn followed(&self, last: u64, writes: &BTreeSet<(u32, u32)>) -> Result<Vec<Entry>, String> {
        let over = Arc::new(AtomicBool::new(false));
        let seat = self.site.seat(0, &over, None)?;
        let values = Follower::behind(&self.site.values(0), last);
        let process = self.store.follow(&seat, &values)?;
        let follower = Follower::default();
        std::thread::scope(|scope| {
            scope.spawn(|| follower.read(self.store, &seat, &values, process, None));
            follower.wait_for(writes);
            seat.close();
            seat.kill();
        });
        follower
            .into_shown()
            .map_err(|error| format!("[follow] has to print writes, and to go on: {error}"))
    }

    fn claim(&self, agent: u32, item: &str) -> Job {
        let values = self.site.item(agent, item, token(0, 1));
        job(Deed::Claim, values)
    }

    fn check_claim(&mut self, item: &str) -> Result<(), String> {
        let first = self.agent.perform(&self.claim(0, item));
        first.success("[claim] of a free item")?;
        let second = self.agent.perform(&self.claim(1, item));
        if !matches!(second.told, Told::Refused(_)) {
            return Err(format!(
                "[claim] of an item that another agent has is not refused, but {:?}: `refused` \
                 lists exit statuses, `refused_says` is a pattern in the output\n  it was: {}\n  \
                 it printed: {}",
                second.told,
                second.line,
                second.output.trim()
            ));
        }
        if self.can.show {
            let job = Job {
                deed: Deed::Show,
                ..self.claim(0, item)
            };
            let shown = self.agent.perform(&job).success("[show]")?;
            if shown.receipt.as_deref() != Some("agent-0") {
                return Err(format!(
                    "[show] owner finds {:?}, and the item is agent-0's. It printed:\n  {}",
                    shown.receipt,
                    shown.output.trim()
                ));
            }
        }
        Ok(())
    }

    fn get(&mut self, item: &str) -> Result<String, String> {
        let values = self.site.item(0, item, token(0, 1));
        let answer = self.agent.perform(&job(Deed::Get, values));
        Ok(answer.success("[get]")?.receipt.unwrap_or_default())
    }

    fn check_set(&mut self, item: &str) -> Result<(), String> {
        let old = self.get(item)?;
        let set = |new: u32| {
            let mut values = self.site.item(0, item, token(0, 1));
            values.insert("old", old.clone());
            values.insert("new", token(0, new));
            job(Deed::Set, values)
        };
        let (first, second) = (set(1), set(2));
        let first = self.agent.perform(&first);
        first.success("[set] of an item that is as [get] read it")?;
        let second = self.agent.perform(&second);
        if !matches!(second.told, Told::Refused(_)) {
            return Err(format!(
                "[set] of an item that is no longer as [get] read it is not refused, but {:?}\n  \
                 it was: {}\n  it printed: {}",
                second.told,
                second.line,
                second.output.trim()
            ));
        }
        if self.get(item)? == old {
            return Err(format!(
                "[get] value finds {old:?} before [set] and after it"
            ));
        }
        Ok(())
    }

    fn check_rest(&mut self) -> Result<(), String> {
        if self.can.export {
            let export = job(Deed::Export, self.site.values(0));
            self.agent.perform(&export).success("[export]")?;
        }
        let mut found = History::default();
        look(&self.can.artifacts, self.site, &mut found);
        if let Some(Violation::ArtifactInvalid { path, error, .. }) = found.violations.first() {
            return Err(format!("[[artifact]] {path} is not valid: {error}"));
        }
        for artifact in self
            .can
            .artifacts
            .iter()
            .filter(|artifact| artifact.complete)
        {
            let path = artifact.path.fill(&self.site.values(0))?;
            let text = std::fs::read_to_string(&path)
                .map_err(|error| format!("[[artifact]] {path}: {error}"))?;
            if !text.contains(&token(0, WRITES)) {
                return Err(format!(
                    "[[artifact]] {path} says `complete` and misses a write"
                ));
            }
        }
        for (number, check) in self.can.checks.iter().enumerate() {
            let answer = self
                .agent
                .perform(&job(Deed::Check(number), self.site.values(0)));
            answer.success(&format!("[[check]] {:?}", check.name))?;
        }
        match leftovers(&self.can.leftovers, &self.site.store).first() {
            None => Ok(()),
            Some(found) => Err(format!("`leftovers` matches after three writes: {found}")),
        }
    }
}

/// What is tested, and what is not.
fn summary(store: &dyn Store) -> String {
    let can = store.can();
    let points = [
        ("stored once, unaltered, nothing else; order of kills", true),
        ("no refused or failed write is stored", true),
        (
            "an agent's writes, and all writes in real time, in order (`ordered`)",
            can.ordered,
        ),
        (
            "numbers without gaps, as in the receipts (`number`)",
            can.numbers,
        ),
        ("no receipt twice (`receipt`)", can.receipts),
        ("of a batch all is stored or nothing ([batch])", can.batch),
        (
            "a follower is shown every write once, in order ([follow])",
            can.follow,
        ),
        (
            "one that is killed goes on where it stopped ([follow] {from})",
            can.resumes,
        ),
        ("an item is won once ([claim])", can.claim),
        ("the winner is the owner ([show])", can.show),
        (
            "an item is changed once from each value ([get], [set])",
            can.set,
        ),
        (
            "an interrupted write is made again and stored once (`idempotent`)",
            can.idempotent,
        ),
        (
            "files are valid at all times ([[artifact]])",
            !can.artifacts.is_empty(),
        ),
        ("checks pass ([[check]])", !can.checks.is_empty()),
        (
            "nothing is left behind (`leftovers`)",
            !can.leftovers.is_empty(),
        ),
        ("a lock has one holder ([exclusive])", can.exclusive),
    ];
    let mut text = format!("{} ({})\n", can.name, store.version());
    for (point, is_tested) in points {
        let mark = if is_tested {
            "tested    "
        } else {
            "not tested"
        };
        text.extend(["  ", mark, "  ", point, "\n"]);
    }
    text
}
