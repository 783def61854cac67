//! The commands.

mod append;
mod care;
mod change;
mod claim;
mod follow;
mod generate;
mod look;
mod merge;
mod open;
mod stat;
mod transfer;

use crate::{
    args::Command,
    exit::{Exit, Failure},
    output::Output,
};

/// Runs a command.
pub(crate) fn run(command: Command, out: &mut Output) -> Result<Exit, Failure> {
    let done = match command {
        Command::Init(args) => open::init(&args, out),
        Command::Create(args) => change::create(args, out),
        Command::Append(args) => append::append(args, out),
        Command::Batch(args) => append::batch(args, out),
        Command::Show(args) => look::show(&args, out),
        Command::List(args) => look::list(&args, out),
        Command::Ready(args) => look::ready(&args, out),
        Command::Claim(args) => claim::claim(args, out),
        Command::Update(args) => change::update(args, out),
        Command::Close(args) => change::change(args, out, strand_core::Batch::close),
        Command::Reopen(args) => change::change(args, out, strand_core::Batch::reopen),
        Command::Delete(args) => change::change(args, out, strand_core::Batch::delete),
        Command::Follow(args) => follow::follow(&args, out),
        Command::Compact(args) => care::compact(&args, out),
        Command::Doctor(args) => return care::doctor(&args, out),
        Command::Repair(args) => care::repair(&args, out),
        Command::Stat(args) => stat::stat(&args, out),
        Command::Import(args) => transfer::import(&args, out),
        Command::Export(args) => transfer::export(&args, out),
        Command::Merge(args) => return merge::merge(&args, out),
        Command::Completions(args) => generate::completions(&args, out),
        Command::Man(args) => generate::man(&args, out),
    };
    done.map(|()| Exit::Done)
}
