//! Every state that the commit protocol can be in, with three writers.
//!
//! `protocol` is the code of `core/src` as steps between which anything may happen, `state` is what
//! they work on, `search` visits all states, and `power` checks what a power failure leaves.
//!
//! Each state is checked for every [`Property`]. Memory is sequentially consistent here: the words
//! are atomics, and where the order counts, the code asks for it. Writing a record is one step, or
//! half of one if its writer dies. Not modelled: preallocated space, failing writes, timeouts of
//! the lock other than a leader's, damaged or deleted hints, logs without shared memory, several
//! threads in a process.
//!
//! The tests that are slow without optimisation are run by `cargo xtask ci model`.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that can't go on should panic"
)]

mod power;
mod protocol;
mod search;
mod state;

use protocol::{Bug, Model, Property, Told};
use search::search;

/// Three writers, one append each. They poll instead of sleeping.
const BASE: Model = Model {
    records: 0,
    appends: [1, 1, 1],
    deaths: 0,
    failures: 0,
    told: Told::Each,
    timeouts: true,
    sleeps: false,
    coarse: false,
    combine: false,
    withdraws: false,
    ages: false,
    bug: None,
};

/// Followers that sleep until another writer wakes them.
const SLEEPING: Model = Model {
    sleeps: true,
    timeouts: false,
    coarse: true,
    ..BASE
};

/// Writers that leave their appends to whoever writes next.
const COMBINING: Model = Model {
    combine: true,
    ..BASE
};

fn holds(model: Model) {
    match search(&model) {
        Ok(report) => println!(
            "{} states, {} moves, {} disks, {:.1} s: {model:?}",
            report.states,
            report.moves,
            report.disks,
            report.time.as_secs_f64()
        ),
        Err(found) => panic!(
            "{model:?}\n{:?} after {} states:\n{}",
            found.broken, found.states, found.trace
        ),
    }
}

fn is_caught(bug: Bug, property: Property, model: Model) {
    let bug = Some(bug);
    match search(&Model { bug, ..model }) {
        Ok(report) => panic!("{bug:?} was not found in {} states", report.states),
        Err(found) => {
            println!("{bug:?}: {:?} after {} states", found.broken, found.states);
            assert_eq!(found.broken.0, property, "{bug:?}\n{}", found.trace);
        }
    }
}

#[test]
fn killed_writers_lose_nothing_and_delay_no_one() {
    for records in 0..=2 {
        let appends = [1, 1, 1];
        for deaths in 1..=2 {
            holds(Model {
                records,
                appends,
                deaths,
                ..BASE
            });
        }
    }
    holds(Model {
        appends: [2, 2, 0],
        deaths: 2,
        ..BASE
    });
    holds(Model {
        appends: [2, 1, 1],
        deaths: 1,
        ..BASE
    });
}

#[test]
#[ignore = "slow without optimisation"]
fn killed_writers_of_two_appends_each_lose_nothing_and_delay_no_one() {
    holds(Model {
        appends: [2, 2, 2],
        deaths: 1,
        ..BASE
    });
}

#[test]
#[ignore = "slow without optimisation"]
fn no_writer_sleeps_forever() {
    for records in 0..=2 {
        holds(Model {
            records,
            ..SLEEPING
        });
    }
    holds(Model {
        appends: [2, 2, 0],
        ..SLEEPING
    });
}

#[test]
fn sleepers_with_patience_survive_a_killed_writer() {
    let appends = [2, 2, 0];
    holds(Model {
        appends,
        deaths: 1,
        timeouts: true,
        coarse: false,
        ..SLEEPING
    });
}

#[test]
fn no_record_lost_by_a_failed_sync_is_acknowledged() {
    for records in 0..=2 {
        for (deaths, failures) in [(0, 2), (1, 1)] {
            holds(Model {
                records,
                deaths,
                failures,
                ..BASE
            });
        }
    }
    for (deaths, failures) in [(0, 2), (1, 2)] {
        holds(Model {
            appends: [2, 2, 0],
            deaths,
            failures,
            ..BASE
        });
    }
}

#[test]
#[ignore = "slow without optimisation"]
fn combined_appends_of_killed_writers_are_written_once_at_most() {
    for records in 0..=2 {
        holds(Model {
            records,
            deaths: 2,
            ..COMBINING
        });
    }
    for (deaths, failures) in [(2, 0), (0, 2), (1, 2)] {
        holds(Model {
            appends: [2, 2, 0],
            deaths,
            failures,
            ..COMBINING
        });
    }
}

#[test]
#[ignore = "slow without optimisation"]
fn withdrawn_and_reclaimed_slots_are_written_once_at_most() {
    for records in 0..=1 {
        holds(Model {
            records,
            deaths: 1,
            withdraws: true,
            ages: true,
            ..COMBINING
        });
    }
}

#[test]
#[ignore = "slow without optimisation"]
fn no_writer_with_a_slot_sleeps_forever() {
    let appends = [2, 2, 0];
    holds(Model {
        appends,
        combine: true,
        ..SLEEPING
    });
    holds(Model {
        appends,
        deaths: 1,
        timeouts: true,
        coarse: false,
        combine: true,
        ..SLEEPING
    });
}

#[test]
#[ignore = "slow without optimisation"]
fn combined_appends_of_which_one_is_the_writers_second_are_right() {
    holds(Model {
        appends: [2, 1, 1],
        deaths: 1,
        ..COMBINING
    });
}

#[test]
#[ignore = "slow without optimisation"]
fn no_combined_append_lost_by_a_failed_sync_is_acknowledged() {
    for records in 0..=2 {
        for (deaths, failures) in [(0, 2), (1, 1)] {
            holds(Model {
                records,
                deaths,
                failures,
                ..COMBINING
            });
        }
        holds(Model {
            records,
            failures: 1,
            withdraws: true,
            ages: true,
            ..COMBINING
        });
    }
}

#[test]
#[ignore = "slow without optimisation"]
fn no_writer_of_three_with_slots_sleeps_forever() {
    let combining = Model {
        combine: true,
        ..SLEEPING
    };
    for records in 0..=2 {
        holds(Model {
            records,
            ..combining
        });
    }
    holds(Model {
        ages: true,
        ..combining
    });
    holds(Model {
        appends: [2, 1, 1],
        ..combining
    });
}

#[test]
fn mistakes_in_the_order_of_steps_are_caught() {
    let full = Model { records: 1, ..BASE };
    let killed = Model { deaths: 1, ..full };
    is_caught(Bug::TailLoadedAfterSync, Property::Durable, full);
    is_caught(Bug::SegmentLoadedBeforeTail, Property::Durable, full);
    is_caught(Bug::CommitBeforeSync, Property::Durable, full);
    is_caught(Bug::CommitIsAStore, Property::Durable, full);
    is_caught(Bug::GatherWithoutBound, Property::Progress, full);
    is_caught(Bug::AcknowledgedBeforeSync, Property::Acknowledged, full);
    is_caught(Bug::PublishedBeforeWrite, Property::Readable, full);
    is_caught(Bug::AppendWithoutLock, Property::OneHolder, full);
    is_caught(Bug::TornTailStays, Property::Gapless, killed);
    is_caught(Bug::RotationWithoutSync, Property::Durable, full);
    is_caught(Bug::RotationOnlyCreates, Property::Recoverable, full);
    let two_before = Model { deaths: 1, ..BASE };
    is_caught(
        Bug::RotationPublishedBeforeCommit,
        Property::Progress,
        two_before,
    );
    is_caught(Bug::RotationStaysEven, Property::Progress, killed);
    is_caught(Bug::RebuildWithoutDirSync, Property::Durable, killed);
}

#[test]
fn mistakes_with_slots_are_caught() {
    let full = Model {
        records: 1,
        ..COMBINING
    };
    let killed = Model { deaths: 1, ..full };
    let withdrawn = Model {
        withdraws: true,
        ..full
    };
    let aged = Model { ages: true, ..full };
    let twice = Model {
        appends: [2, 2, 0],
        deaths: 1,
        ..COMBINING
    };
    is_caught(Bug::AcknowledgedWhenWritten, Property::Acknowledged, full);
    is_caught(Bug::MarkedBeforePublication, Property::Progress, full);
    is_caught(Bug::MarkedBeforeWrite, Property::Progress, full);
    is_caught(Bug::GroupStaysReady, Property::Once, full);
    is_caught(Bug::ResolvedAsWritten, Property::Progress, killed);
    is_caught(Bug::ResolvedAsUnwritten, Property::Once, killed);
    is_caught(Bug::ResolutionLeftOut, Property::Acknowledged, killed);
    is_caught(Bug::LeaderSkipsAssigned, Property::Progress, killed);
    is_caught(Bug::SlotSeqNotCleared, Property::Acknowledged, twice);
    is_caught(Bug::WithdrawnWhenAssigned, Property::Once, withdrawn);
    is_caught(Bug::ReclaimedSlotBelieved, Property::Acknowledged, aged);
    is_caught(Bug::GatherWithoutBound, Property::Progress, full);
}

#[test]
#[ignore = "slow without optimisation"]
fn lost_wakes_are_caught() {
    let two = Model {
        appends: [2, 2, 0],
        ..SLEEPING
    };
    is_caught(Bug::WakeWordsLoadedLate, Property::Progress, two);
    is_caught(Bug::SleeperNotMarked, Property::Progress, two);
    is_caught(Bug::MarkNotLookedAtAgain, Property::Progress, two);
    is_caught(Bug::NoWake, Property::Progress, two);
    is_caught(Bug::NoneWokenToLead, Property::Progress, two);
    is_caught(Bug::WakeBeforeLeave, Property::Progress, two);
    is_caught(Bug::WakeBeforeMark, Property::Progress, SLEEPING);
    is_caught(Bug::RotationDoesNotWake, Property::Progress, SLEEPING);
    let combining = Model {
        appends: [2, 1, 1],
        combine: true,
        ..SLEEPING
    };
    is_caught(Bug::RoundLoadedLate, Property::Progress, combining);
}

#[test]
fn trust_after_a_failed_sync_is_caught() {
    let fails = Model {
        records: 1,
        failures: 1,
        ..BASE
    };
    let twice = Model {
        appends: [2, 1, 1],
        ..fails
    };
    is_caught(Bug::FailedSyncTriedAgain, Property::Durable, fails);
    is_caught(Bug::RebuildWithoutWriting, Property::Durable, fails);
    is_caught(Bug::OpenTrusts, Property::Durable, fails);
    is_caught(Bug::FailureNotMarked, Property::Durable, twice);
    is_caught(Bug::RotationFailureNotMarked, Property::Durable, twice);
    is_caught(Bug::TakeoverFailureNotMarked, Property::Durable, twice);
}

/// If the system reports a failure to only one of those that have the file open, no order of steps
/// helps.
#[test]
fn a_system_that_hides_a_failure_from_others_is_caught() {
    let hides = Model {
        records: 1,
        failures: 1,
        told: Told::One,
        ..BASE
    };
    let found = search(&hides).unwrap_err();
    assert_eq!(found.broken.0, Property::Durable, "{}", found.trace);
}

#[test]
fn two_leaders_are_harmless() {
    let bug = Some(Bug::LeaveIsAStore);
    holds(Model {
        records: 1,
        deaths: 1,
        bug,
        ..BASE
    });
    holds(Model {
        records: 1,
        failures: 2,
        bug,
        ..BASE
    });
    let bug = Some(Bug::TakeoverOnlySyncs);
    holds(Model {
        records: 1,
        deaths: 1,
        failures: 1,
        bug,
        ..BASE
    });
}
