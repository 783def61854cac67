//! Mirrors a store to a web hook: posts each record, in order, so that the receiver can apply each
//! exactly once, whatever crashes in between.
//!
//! ```sh
//! run() { cargo run -q -p strand-core --example follower_mirror -- "$@"; }
//! run work http://127.0.0.1:8080/events mirror.position
//! ```
//!
//! Expect one request for each existing record, then one for each new record, microseconds after it
//! is durable. A request is a `POST` with two headers:
//!
//! - `Strand-Kind: record`, and the record's number as `Strand-Seq`. The body is the record's line
//!   as it is stored. The receiver applies it if the number is one more than the last one that it
//!   has applied.
//! - `Strand-Kind: snapshot`, and the last record that it reflects as `Strand-Seq`. The body is all
//!   issues, one line of JSON each. The receiver replaces all that it has if the number is higher
//!   than its last one. A snapshot is sent if the next record was compacted away before it was
//!   mirrored.
//!
//! The position is a file, replaced after the receiver has answered 2xx. So a record is sent at
//! least once, and the number tells a repetition. (A mirror in a database needs no such check: it
//! keeps the position in the same transaction.) Kill the mirror at any time and start it again. It
//! retries for ever while the receiver is unreachable or answers 408, 429 or 5xx, and ends at any
//! other answer. It speaks only plain `http`; for TLS, put a proxy in front of the receiver.

use std::{
    env,
    fs::{self, File},
    io::{self, BufRead as _, BufReader, Write as _},
    net::{TcpStream, ToSocketAddrs as _},
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use strand_core::{Error, IssueEvent, LiveIssues, Reader, Seq, write_jsonl};

/// How long the follower sleeps at a time. New records wake it.
const WAIT: Duration = Duration::from_mins(1);
/// How long the receiver may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_LAST: Duration = Duration::from_secs(5);

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() -> Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [dir, url, position] = arguments.as_slice() else {
        return Err("usage: follower_mirror STORE http://HOST[:PORT]/PATH POSITION-FILE".into());
    };
    let hook = Hook::new(url)?;
    let position = Position(position.into());
    let reader = Reader::<IssueEvent>::open(dir)?;
    let mut done_seq = position.read()?;
    if let Ok(Some(last_seq)) = reader.durable_seq()
        && last_seq < Seq::new(done_seq)
    {
        // This is an older copy, or another store. A person must decide what to do with the mirror.
        return Err(format!(
            "{dir} ends at record {last_seq}, and {done_seq} is mirrored already; is it the right store?"
        )
        .into());
    }
    let mut follower = reader.follow(Seq::new(done_seq + 1))?;
    loop {
        match follower.next_before(Instant::now() + WAIT) {
            Ok(None) => {}
            Ok(Some(record)) => {
                hook.post("record", record.seq.get(), &record.line)?;
                done_seq = record.seq.get();
                position.write(done_seq)?;
            }
            Err(Error::Compacted { .. }) => {
                let state = LiveIssues::open(dir)?;
                let mut lines = Vec::new();
                write_jsonl(state.state(), &mut lines)?;
                hook.post("snapshot", state.state().last_seq().get(), &lines)?;
                done_seq = state.state().last_seq().get();
                position.write(done_seq)?;
                follower = reader.follow(Seq::new(done_seq + 1))?;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// The file with the number of the last record that the receiver has.
struct Position(PathBuf);

impl Position {
    /// 0 if there is none yet.
    fn read(&self) -> Result<u64> {
        match fs::read_to_string(&self.0) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
            text => {
                let text = text?;
                let seq = text.trim().parse();
                Ok(seq.map_err(|_| format!("{}: {text:?} is no position", self.0.display()))?)
            }
        }
    }

    /// Replaces the file as a whole.
    fn write(&self, seq: u64) -> io::Result<()> {
        let new = self.0.with_extension("new");
        let mut file = File::create(&new)?;
        writeln!(file, "{seq}")?;
        file.sync_all()?;
        fs::rename(&new, &self.0)
    }
}

/// The receiver.
struct Hook {
    /// Host and port.
    authority: String,
    path: String,
}

impl Hook {
    fn new(url: &str) -> Result<Self> {
        let Some(rest) = url.strip_prefix("http://") else {
            return Err(format!("{url} does not begin with http://").into());
        };
        let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let has_port = host
            .rsplit_once(':')
            .is_some_and(|(_, port)| !port.ends_with(']'));
        Ok(Self {
            authority: if has_port {
                host.to_owned()
            } else {
                format!("{host}:80")
            },
            path: if path.is_empty() { "/" } else { path }.to_owned(),
        })
    }

    /// Posts until the receiver has accepted it.
    fn post(&self, kind: &str, seq: u64, body: &[u8]) -> Result<()> {
        let mut pause = RETRY_FIRST;
        loop {
            let problem = match self.post_once(kind, seq, body) {
                Ok(200..=299) => return Ok(()),
                Ok(status @ (408 | 429 | 500..=599)) => format!("it answers {status}"),
                Ok(status) => {
                    return Err(format!("the hook answers {status} to {kind} {seq}").into());
                }
                Err(error) => error.to_string(),
            };
            eprintln!("{kind} {seq} is not mirrored yet: {problem}");
            thread::sleep(pause);
            pause = (pause * 2).min(RETRY_LAST);
        }
    }

    /// The status of one request.
    fn post_once(&self, kind: &str, seq: u64, body: &[u8]) -> io::Result<u16> {
        let mut stream = connect(&self.authority)?;
        stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
        stream.set_write_timeout(Some(ANSWER_TIMEOUT))?;
        let mut request = format!(
            "POST {} HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
             Strand-Kind: {kind}\r\nStrand-Seq: {seq}\r\nConnection: close\r\n\r\n",
            self.path,
            self.authority,
            body.len(),
        )
        .into_bytes();
        request.extend_from_slice(body);
        stream.write_all(&request)?;
        let mut status = String::new();
        BufReader::new(stream).read_line(&mut status)?;
        let code = status.split(' ').nth(1).and_then(|code| code.parse().ok());
        code.ok_or_else(|| io::Error::other(format!("{status:?} is no answer")))
    }
}

fn connect(authority: &str) -> io::Result<TcpStream> {
    let mut failed = io::Error::other("the host has no address");
    for address in authority.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, ANSWER_TIMEOUT) {
            Ok(stream) => return Ok(stream),
            Err(error) => failed = error,
        }
    }
    Err(failed)
}
