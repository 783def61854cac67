//! The work pool of the tiers.

use std::ops::ControlFlow;

use crate::tiers::tally::Budget;

/// Works on the jobs with the threads of the budget, each with a state of its own that `start`
/// makes.
///
/// A thread whose `work` breaks takes no further jobs. Returns when the jobs are done, all threads
/// have stopped, or the user has interrupted the tier. The calling thread iterates over `jobs`,
/// which may be endless.
pub(crate) fn run<J: Send, S>(
    budget: &Budget,
    jobs: impl IntoIterator<Item = J>,
    start: impl Fn() -> S + Sync,
    work: impl Fn(&mut S, J) -> ControlFlow<()> + Sync,
) {
    let threads = budget.threads.max(1);
    let mut jobs = jobs
        .into_iter()
        .take_while(|_| !budget.interrupt.is_asked());
    let (sender, receiver) = crossbeam_channel::bounded(threads);
    let worker = |jobs: crossbeam_channel::Receiver<J>| {
        let mut state = start();
        jobs.into_iter().try_for_each(|job| work(&mut state, job))
    };
    std::thread::scope(|scope| {
        for _ in 0..threads {
            let (worker, receiver) = (&worker, receiver.clone());
            scope.spawn(move || worker(receiver));
        }
        drop(receiver);
        // Sending fails when all threads have stopped.
        drop(jobs.try_for_each(|job| sender.send(job)));
        drop(sender);
    });
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[test]
    fn each_job_is_done_once_and_endless_jobs_end_when_all_threads_break() {
        let budget = Budget {
            threads: 3,
            ..Budget::quick(0, 0.0)
        };
        let sum = AtomicU64::new(0);
        let add = |job| sum.fetch_add(job, Ordering::Relaxed);
        run(
            &budget,
            1..=1000,
            || (),
            |(), job| {
                add(job);
                ControlFlow::Continue(())
            },
        );
        assert_eq!(sum.load(Ordering::Relaxed), 500_500);

        let done = AtomicU64::new(0);
        run(
            &budget,
            0_u64..,
            || 0,
            |own, _| {
                *own += 1;
                done.fetch_add(1, Ordering::Relaxed);
                if *own < 5 {
                    ControlFlow::Continue(())
                } else {
                    ControlFlow::Break(())
                }
            },
        );
        assert_eq!(done.load(Ordering::Relaxed), 15);
    }

    #[test]
    fn an_interrupt_ends_endless_jobs() {
        let budget = Budget::quick(0, 0.0);
        let work = |(): &mut (), job: u64| {
            if job == 7 {
                budget.interrupt.ask();
            }
            ControlFlow::Continue(())
        };
        run(&budget, 0.., || (), work);
    }
}
