//! Ctrl-C, SIGTERM and SIGHUP: what runs for minutes ends early, with a report of what was done.

use std::io::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use crate::evidence::verdict::Verdict;
use crate::held;

/// A signal that comes so soon after the first one is the same: `timeout` sends two of them, one to
/// the process and one to its group.
const SAME: Duration = Duration::from_millis(300);

/// Whether the user has asked for the end.
#[derive(Debug, Clone, Default)]
pub struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Listens for Ctrl-C from now on, once in a process. A second one ends the process at once.
    #[must_use]
    pub fn listen() -> Interrupt {
        let interrupt = Interrupt::default();
        let asked = interrupt.clone();
        let first = OnceLock::new();
        listen(move || {
            if asked.0.swap(true, Ordering::SeqCst) {
                let first: &Instant = first.get_or_init(Instant::now);
                if first.elapsed() > SAME {
                    end_at_once();
                }
                return;
            }
            first.get_or_init(Instant::now);
            say("\nstrand-stress: interrupted; the report follows, Ctrl-C again ends at once");
        });
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

/// Has the first Ctrl-C end the process: for what has no report.
pub(crate) fn end_when_asked() {
    listen(end_at_once);
}

fn listen(handler: impl FnMut() + Send + 'static) {
    if let Err(error) = ctrlc::set_handler(handler) {
        say(&format!(
            "strand-stress: Ctrl-C will end this without a report: {error}"
        ));
    }
}

fn end_at_once() {
    held::end();
    std::process::exit(Verdict::Interrupted.exit_status().into());
}

/// The terminal may be gone.
fn say(text: &str) {
    drop(writeln!(std::io::stderr(), "{text}"));
}
