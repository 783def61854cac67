//! The commands.

mod append;
mod auto;
mod care;
mod change;
mod claim;
mod dep;
mod edit;
mod exchange;
mod fields;
mod follow;
mod generate;
mod history;
mod look;
mod merge;
mod open;
mod stat;
mod transfer;

use std::path::Path;

use strand_core::Batch;

use crate::{
    args::{Cli, Command, OnStore},
    exit::{Exit, Failure},
    output::Output,
    place, remote,
};

pub(crate) use generate::answer as answer_completion;

/// Runs a command.
pub(crate) fn run(cli: Cli, out: &mut Output) -> Result<Exit, Failure> {
    let store = cli.global.store;
    let done = match cli.command {
        Command::Init(args) => open::init(&place::new(store), &args, out),
        Command::Push(args) => exchange::push(&args, out),
        Command::Pull(args) => exchange::pull(&args, out),
        Command::Merge(args) => return merge::merge(&args, out),
        Command::Completions(args) => generate::completions(&args, out),
        Command::Man(args) => generate::man(&args, out),
        Command::OnStore(command) => {
            let place = place::find(store)?;
            if remote::address(&place)?.is_some() {
                remote::require_possible(&command)?;
            }
            return on_store(*command, &place, out);
        }
    };
    done.map(|()| Exit::Done)
}

/// Runs a command that needs a store.
fn on_store(command: OnStore, dir: &Path, out: &mut Output) -> Result<Exit, Failure> {
    let compacts = auto::may_follow(&command);
    let done = match command {
        OnStore::Create(args) => change::create(dir, args, out),
        OnStore::Append(args) => append::append(dir, args, out),
        OnStore::Batch(args) => append::batch(dir, args, out),
        OnStore::Show(args) => look::show(dir, &args, out),
        OnStore::List(args) => look::list(dir, &args, out),
        OnStore::Ready(args) => look::ready(dir, &args, out),
        OnStore::Claim(args) => claim::claim(dir, args, out),
        OnStore::Update(args) => change::update(dir, args, out),
        OnStore::Close(args) => change::change(dir, args, out, Batch::close),
        OnStore::Reopen(args) => change::change(dir, args, out, Batch::reopen),
        OnStore::Delete(args) => change::change(dir, args, out, Batch::delete),
        OnStore::Dep(args) => dep::dep(dir, args.action, out),
        OnStore::Comment(args) => change::comment(dir, args, out),
        OnStore::Edit(args) => edit::edit(dir, &args, out),
        OnStore::Log(args) => history::history(dir, &args, out),
        OnStore::Follow(args) => follow::follow(dir, &args, out),
        OnStore::Compact(args) => care::compact(dir, &args, out),
        OnStore::Doctor => return care::doctor(dir, out),
        OnStore::Repair(args) => care::repair(dir, &args, out),
        OnStore::Stat => stat::stat(dir, out),
        OnStore::Import(args) => transfer::import(dir, &args, out),
        OnStore::Export(args) => transfer::export(dir, &args, out),
        OnStore::Sync(args) => transfer::sync(dir, &args, out),
    };
    done?;
    // Elsewhere it would take a call to know whether one is due: a timer asks there.
    if compacts && remote::address(dir)?.is_none() {
        out.flush()?;
        auto::compact_if_due(dir);
    }
    Ok(Exit::Done)
}
