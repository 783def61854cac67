//! Runs on etcd: the same workloads and the same oracle, but for numbers without gaps.
//!
//! Each run makes a store of its own on the cluster, and nothing else touches that. The store's
//! whole history is read afterwards ([`history`]): runs do not trim it.

pub(crate) mod bystanders;
pub(crate) mod examine;
mod gateway;
mod history;

use std::thread;
use std::time::{Duration, Instant};

use strand_core::Error;
use strand_etcd::{Address, EtcdLog, Options};

use crate::run::config::{Config, UsageError};

/// How long one call of the log may take: shorter than most faults, so that some outcomes are
/// unknown.
const TIMEOUT: Duration = Duration::from_secs(4);
/// How long one member may take.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a call that is no write is tried again while the cluster does not answer.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);
/// The pause between two tries.
const PAUSE: Duration = Duration::from_millis(50);
/// With one of two seeds, epochs are so short that runs see many.
const SHORT_EPOCH: u64 = 100;

/// The address of a store that no other run has.
///
/// # Errors
/// The address is wrong, or needs what the harness's own client does not have.
pub(crate) fn address_of_run(config: &Config) -> Result<String, UsageError> {
    let wrong = |error: &dyn std::fmt::Display| UsageError(format!("--store: {error}"));
    let address: Address = config.store.parse().map_err(|error| wrong(&error))?;
    if config.store.starts_with("etcds:") || config.store.contains('@') {
        let reason = "the harness reads histories without TLS and without a user";
        return Err(UsageError(format!("--store {address}: {reason}")));
    }
    let (base, settings) = match config.store.split_once('?') {
        Some((base, settings)) => (base, format!("?{settings}")),
        None => (config.store.as_str(), String::new()),
    };
    let address = format!(
        "{base}-{}-{:08x}{settings}",
        config.seed,
        rand::random::<u32>()
    );
    match address.parse::<Address>() {
        Ok(_) => Ok(address),
        Err(error) => Err(wrong(&error)),
    }
}

/// Opens the store of a run, and creates it if it is not there.
///
/// # Errors
/// The cluster must not be used, or does not answer for [`PATIENCE`].
pub(crate) fn open(address: &str, seed: u64) -> Result<EtcdLog, Error> {
    let parsed = address.parse::<Address>();
    let parsed = parsed.unwrap_or_else(|error| unreachable!("it was parsed before: {error}"));
    patiently(|| {
        let options = Options::default()
            .timeout(TIMEOUT)
            .attempt_timeout(ATTEMPT_TIMEOUT)
            .tombstone_ms(if seed.is_multiple_of(2) { 0 } else { u64::MAX })
            .trim_history(false);
        let options = if seed.is_multiple_of(2) {
            options.epoch_revisions(SHORT_EPOCH)
        } else {
            options
        };
        EtcdLog::open_or_create(&parsed, options).map(|(log, _)| log)
    })
}

/// Tries again while the cluster does not answer, for [`PATIENCE`].
pub(crate) fn patiently<T>(mut call: impl FnMut() -> Result<T, Error>) -> Result<T, Error> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match call() {
            Err(Error::Unavailable { .. }) if Instant::now() < deadline => thread::sleep(PAUSE),
            done => return done,
        }
    }
}
