//! A client of etcd's JSON gateway that shares no code with the one under test.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use strand_etcd::Address;

use crate::run::etcd::PATIENCE;

/// How long a member may say nothing.
const SILENCE: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(100);

pub(super) struct Gateway {
    hosts: Vec<String>,
}

impl Gateway {
    pub(super) fn new(address: &Address) -> Gateway {
        let endpoints = address.endpoints().into_iter();
        let hosts = endpoints.map(|url| url.trim_start_matches("http://").to_owned());
        Gateway {
            hosts: hosts.collect(),
        }
    }

    /// Posts until a member answers.
    ///
    /// # Errors
    /// None does in time.
    pub(super) fn call(&self, path: &str, body: &Value) -> Result<Value, String> {
        let mut answer = None;
        self.lines(path, body, &mut |value| {
            answer = Some(value);
            Ok(true)
        })?;
        answer.ok_or_else(|| format!("{path}: no answer"))
    }

    /// Posts, and reads the lines of the answer until `take` has enough. Begins again with another
    /// member when one fails: `take` may see lines twice.
    ///
    /// # Errors
    /// `take` fails, or no member answers in time.
    pub(super) fn lines(
        &self,
        path: &str,
        body: &Value,
        take: &mut dyn FnMut(Value) -> Result<bool, String>,
    ) -> Result<(), String> {
        let deadline = Instant::now() + PATIENCE;
        for host in self.hosts.iter().cycle() {
            let failed = match post(host, path, &body.to_string(), take) {
                Ok(()) => return Ok(()),
                Err(Failed::Final(reason)) => return Err(reason),
                Err(Failed::Passing(reason)) => reason,
            };
            if Instant::now() > deadline {
                return Err(format!("{host}{path}: {failed}"));
            }
            thread::sleep(PAUSE);
        }
        Err("there are no members".to_owned())
    }
}

enum Failed {
    /// Another member may answer.
    Passing(String),
    Final(String),
}

fn post(
    host: &str,
    path: &str,
    body: &str,
    take: &mut dyn FnMut(Value) -> Result<bool, String>,
) -> Result<(), Failed> {
    let passing = |error: std::io::Error| Failed::Passing(error.to_string());
    let place = host.to_socket_addrs().map_err(passing)?.next();
    let place = place.ok_or_else(|| Failed::Passing("it has no address".to_owned()))?;
    let mut stream = TcpStream::connect_timeout(&place, SILENCE).map_err(passing)?;
    stream.set_read_timeout(Some(SILENCE)).map_err(passing)?;
    // Answers to HTTP/1.0 come without chunks.
    let request = format!(
        "POST {path} HTTP/1.0\r\nHost: {host}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).map_err(passing)?;
    let mut answer = BufReader::new(stream);
    let mut line = String::new();
    answer.read_line(&mut line).map_err(passing)?;
    let is_ok = line.contains(" 200 ");
    while !line.trim_end().is_empty() {
        line.clear();
        answer.read_line(&mut line).map_err(passing)?;
    }
    loop {
        line.clear();
        let length = answer.read_line(&mut line).map_err(passing)?;
        let value = serde_json::from_str(&line).ok().filter(|_| is_ok);
        let Some(value) = value.filter(|_| length > 0) else {
            return Err(Failed::Passing(format!("it says {:?}", line.trim_end())));
        };
        if take(value).map_err(Failed::Final)? {
            return Ok(());
        }
    }
}
