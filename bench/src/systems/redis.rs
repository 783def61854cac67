//! Redis. An event is one `RPUSH`, and its answer comes after the sync of the append-only file.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;

use rustix::process::Signal;

use super::appender::Appender;
use super::servers::{Server, find};
use crate::error::Result;
use crate::events::Event;

const SERVER: &str = "redis-server";
const SOCKET: &str = "redis.sock";
/// More than an answer has, which is a number or an error.
const ANSWER_BYTES: usize = 1 << 10;

pub(super) fn missing() -> Option<String> {
    find(SERVER).err()
}

/// Starts a server. Besides the durable settings, it writes no snapshots and does not rewrite its
/// file, as no other system does while it is measured.
pub(super) fn prepare(dir: &Path) -> Result<Server> {
    let mut command = Command::new(find(SERVER)?);
    command.current_dir(dir).args(["--port", "0"]);
    command.args(["--unixsocket", SOCKET]);
    command.args(["--appendonly", "yes", "--appendfsync", "always"]);
    command.args(["--auto-aof-rewrite-percentage", "0", "--save", ""]);
    Ok(Server::start(dir, command, Signal::KILL, Redis::open)?.0)
}

/// A connection.
pub(crate) struct Redis {
    stream: UnixStream,
    request: Vec<u8>,
    answer: Vec<u8>,
}

impl Redis {
    pub(crate) fn open(dir: &Path) -> Result<Self> {
        Ok(Self {
            stream: UnixStream::connect(dir.join(SOCKET))?,
            request: Vec::new(),
            answer: Vec::new(),
        })
    }

    pub(crate) fn stream(&self) -> &UnixStream {
        &self.stream
    }

    pub(crate) fn send(&mut self, event: &Event) -> Result<()> {
        self.request.clear();
        let text = &event.text;
        write!(
            self.request,
            "*3\r\n$5\r\nRPUSH\r\n$6\r\nevents\r\n${}\r\n{text}\r\n",
            text.len()
        )?;
        Ok(self.stream.write_all(&self.request)?)
    }

    /// Reads once; tells whether the answer is complete.
    pub(crate) fn receive(&mut self) -> Result<bool> {
        let mut bytes = [0; ANSWER_BYTES];
        let len = self.stream.read(&mut bytes)?;
        let bytes = bytes.get(..len).unwrap_or_default();
        if bytes.is_empty() {
            return Err("redis-server has closed the connection".into());
        }
        self.answer.extend_from_slice(bytes);
        if !self.answer.ends_with(b"\r\n") {
            return Ok(false);
        }
        if !self.answer.starts_with(b":") {
            return Err(String::from_utf8_lossy(&self.answer).trim_end().into());
        }
        self.answer.clear();
        Ok(true)
    }
}

impl Appender for Redis {
    fn append(&mut self, event: &Event) -> Result<()> {
        self.send(event)?;
        while !self.receive()? {}
        Ok(())
    }
}
