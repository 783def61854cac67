use std::time::{Duration, Instant};

use strand_core::{Error, Outcome};
use strand_etcd::{EtcdLog, Options, Problem, testing::Nodes};

use crate::address;

fn problem(error: &Error) -> &Problem {
    let source = std::error::Error::source(error).and_then(|source| source.downcast_ref());
    source.unwrap_or_else(|| panic!("{error:?}"))
}

#[test]
fn only_init_creates_a_store_and_one_member_must_be_allowed() {
    let Some(nodes) = Nodes::start(1) else { return };
    let allowed = address(&nodes, "s");
    let missing = EtcdLog::open(&allowed, Options::default()).unwrap_err();
    assert!(matches!(missing, Error::NoStore { .. }), "{missing}");
    let strict = nodes
        .address("s")
        .replace("?allow_single_member", "")
        .parse()
        .unwrap();
    let refused = EtcdLog::open_or_create(&strict, Options::default()).unwrap_err();
    assert!(matches!(refused, Error::Unfit { .. }), "{refused}");
    assert_eq!(problem(&refused), &Problem::TooFewMembers { voting: 1 });
    let (_, created) = EtcdLog::open_or_create(&allowed, Options::default()).unwrap();
    assert!(created);
    let (_, created) = EtcdLog::open_or_create(&allowed, Options::default()).unwrap();
    assert!(!created);
    EtcdLog::open(&allowed, Options::default()).unwrap();
    EtcdLog::open(&strict, Options::default().allow_single_member(true)).unwrap();
}

#[test]
fn a_missing_cluster_is_reported_before_the_deadline() {
    let nobody = "etcd://127.0.0.1:1,127.0.0.1:2/s".parse().unwrap();
    let options = Options::default().timeout(Duration::from_millis(500));
    let started = Instant::now();
    let error = EtcdLog::open(&nobody, options).unwrap_err();
    assert!(started.elapsed() < Duration::from_secs(3));
    assert!(
        matches!(problem(&error), Problem::NoAnswer { .. }),
        "{error:?}"
    );
    assert!(error.is_retryable() && error.outcome() == Outcome::Rejected);
}
