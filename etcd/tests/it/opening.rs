use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use strand_core::{Batch, Error, Issue, Outcome};
use strand_etcd::{EtcdLog, Options, Problem, testing::Nodes};

use crate::{NOW, address};

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
fn a_place_is_an_address_or_a_directory() {
    let Some(nodes) = Nodes::start(1) else { return };
    let dir = tempfile::tempdir().unwrap();
    let directory = dir.path().to_str().unwrap().to_owned();
    EtcdLog::open_or_create(&address(&nodes, "s"), Options::default()).unwrap();
    for place in [directory, nodes.address("s")] {
        let open = || {
            strand_etcd::open(&place, strand_core::Options::default(), Options::default()).unwrap()
        };
        let issue = Issue::new_at("bd-1", "Mend the fence", NOW);
        open()
            .commit(&Batch::at(NOW).create(issue.clone()))
            .unwrap();
        let found = open().get("bd-1").unwrap().unwrap();
        assert_eq!(found.issue, issue);
    }
    let wrong = strand_etcd::open(
        "etcd://h1",
        strand_core::Options::default(),
        Options::default(),
    );
    let error = wrong.err().unwrap();
    assert!(
        matches!(problem(&error), Problem::Address { .. }),
        "{error}"
    );
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

/// What etcd 3.4 and 3.5 answer to a user's call with a certificate that has a common name.
#[test]
fn a_common_name_beside_a_user_is_named_at_once() {
    let member = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("etcd://{}/s", member.local_addr().unwrap());
    std::thread::spawn(move || member.incoming().for_each(|stream| refuse(stream.unwrap())));
    let error = EtcdLog::open(&address.parse().unwrap(), Options::default()).unwrap_err();
    assert!(matches!(error, Error::Unfit { .. }), "{error:?}");
    let named = problem(&error).to_string();
    assert!(named.contains("without a CN"), "{named}");
}

fn refuse(mut stream: TcpStream) {
    let mut request = BufReader::new(stream.try_clone().unwrap());
    let mut length = 0;
    loop {
        let mut line = String::new();
        if request.read_line(&mut line).unwrap() == 0 {
            return;
        }
        let line = line.trim().to_ascii_lowercase();
        if let Some(bytes) = line.strip_prefix("content-length: ") {
            length = bytes.parse().unwrap();
        }
        if line.is_empty() {
            break;
        }
    }
    request.read_exact(&mut vec![0; length]).unwrap();
    let text = "CommonName of client sending a request against gateway will be ignored and not used \
                as expected\n";
    let answer = format!(
        "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n{text}",
        text.len()
    );
    stream.write_all(answer.as_bytes()).unwrap();
}

/// A cluster that was restored from a backup keeps its id, and has forgotten later writes.
#[test]
fn a_cluster_that_has_forgotten_what_another_process_saw_is_refused() {
    let Some(mut nodes) = Nodes::start(1) else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let options = || Options::default().remember_in(dir.path().join("memory"));
    let store = address(&nodes, "s");
    let create = |id: &str| {
        let (log, _) = EtcdLog::open_or_create(&store, options()).unwrap();
        log.create(Issue::new(id, "Mend")).unwrap();
    };
    create("bd-1");
    let data = nodes.data_dir(0);
    let backup = dir.path().join("backup");
    let copy = |from: &Path, to: &Path| {
        let copied = Command::new("cp").arg("-a").arg(from).arg(to).status();
        assert!(copied.unwrap().success());
    };
    nodes.kill(0);
    copy(&data, &backup);
    nodes.restart(0);
    nodes.await_leader();
    create("bd-2");
    nodes.kill(0);
    std::fs::remove_dir_all(&data).unwrap();
    copy(&backup, &data);
    nodes.restart(0);
    nodes.await_leader();
    let refused = EtcdLog::open(&store, options()).unwrap_err();
    assert!(matches!(refused, Error::Unfit { .. }), "{refused}");
    assert!(
        matches!(problem(&refused), Problem::WentBack { seen, found } if seen > found),
        "{refused:?}"
    );
    // Without a memory, nobody can know.
    let log = EtcdLog::open(&store, Options::default()).unwrap();
    assert!(
        log.with_issues(|issues| issues.get("bd-2").is_none())
            .unwrap()
    );
}
