//! Ctrl-C: what runs for minutes ends early, with a report of what was done.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::evidence::verdict::Verdict;
use crate::held;

/// Whether the user has asked for the end.
#[derive(Debug, Clone, Default)]
pub struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Listens for Ctrl-C from now on, once in a process. A second one ends the process at once.
    #[must_use]
    pub fn listen() -> Interrupt {
        let interrupt = Interrupt::default();
        let asked = interrupt.clone();
        let listening = ctrlc::set_handler(move || {
            if asked.0.swap(true, Ordering::SeqCst) {
                held::end();
                std::process::exit(Verdict::Interrupted.exit_status().into());
            }
            eprintln!(
                "\nstrand-stress: interrupted; the report follows, Ctrl-C again ends at once"
            );
        });
        if let Err(error) = listening {
            eprintln!("strand-stress: Ctrl-C will end this without a report: {error}");
        }
        interrupt
    }

    /// Whether the user has asked for the end.
    #[must_use]
    pub fn is_asked(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }

    #[cfg(test)]
    pub(crate) fn ask(&self) {
        self.0.store(true, Ordering::SeqCst);
    }
}
