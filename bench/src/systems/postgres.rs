//! PostgreSQL. One row per event, by a rising key, and a transaction for each.

use std::fs;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use postgres::{Client, Config, NoTls, Statement};
use rustix::process::{Signal, geteuid};

use super::appender::Appender;
use super::servers::{Server, find};
use crate::error::Result;
use crate::events::Event;

const SERVER: &str = "postgres";
const INITDB: &str = "initdb";
const USER: &str = "strand";
/// Who runs the server where this program is root, which PostgreSQL refuses to be.
const SYSTEM_USER: &str = "postgres";

/// The settings that make a transaction durable are the server's own, and stand here to be seen.
const SETTINGS: [&str; 6] = [
    "fsync=on",
    "synchronous_commit=on",
    "full_page_writes=on",
    "wal_sync_method=fdatasync",
    "listen_addresses=",
    // More than there are agents.
    "max_connections=1024",
];

pub(super) fn missing() -> Option<String> {
    let programs = [INITDB, SERVER].map(find);
    let missing = programs.into_iter().find_map(std::result::Result::err);
    missing.or_else(|| run_as().err())
}

/// The user and group to become, if any.
fn run_as() -> std::result::Result<Option<(u32, u32)>, String> {
    if !geteuid().is_root() {
        return Ok(None);
    }
    let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let mut users = users.lines().map(|line| line.split(':'));
    let ids = users.find_map(|mut fields| {
        let name = fields.next()?;
        let id = fields.nth(1)?.parse().ok()?;
        let group = fields.next()?.parse().ok()?;
        (name == SYSTEM_USER).then_some((id, group))
    });
    let ids = ids.ok_or(format!(
        "root can't run it, and there is no user `{SYSTEM_USER}`"
    ))?;
    Ok(Some(ids))
}

/// A command in `dir`, of a user who may run it.
fn command(program: &str, dir: &Path) -> Result<Command> {
    let mut command = Command::new(find(program)?);
    command.current_dir(dir);
    if let Some((user, group)) = run_as()? {
        chown(dir, Some(user), Some(group))?;
        command.uid(user).gid(group);
    }
    Ok(command)
}

/// Creates a cluster with an empty table, and starts its server.
pub(super) fn prepare(dir: &Path) -> Result<Server> {
    let mut initdb = command(INITDB, dir)?;
    initdb.args(["--pgdata", "data", "--username", USER, "--auth", "trust"]);
    initdb.args(["--encoding", "UTF8", "--locale", "C"]);
    let output = initdb.output()?;
    if !output.status.success() {
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(format!("{INITDB}: {}", error.trim_end()).into());
    }
    let mut command = command(SERVER, dir)?;
    command.args(["-D", "data", "-k"]).arg(dir);
    for setting in SETTINGS {
        command.args(["-c", setting]);
    }
    let (server, mut client) = Server::start(dir, command, Signal::QUIT, connect)?;
    client.batch_execute(
        "CREATE TABLE events (seq bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, event text)",
    )?;
    Ok(server)
}

fn connect(dir: &Path) -> Result<Client> {
    let mut config = Config::new();
    config.host_path(dir).user(USER).dbname("postgres");
    Ok(config.connect(NoTls)?)
}

pub(super) struct Postgres {
    client: Client,
    insert: Statement,
}

impl Postgres {
    pub(super) fn open(dir: &Path) -> Result<Self> {
        let mut client = connect(dir)?;
        let insert = client.prepare("INSERT INTO events (event) VALUES ($1)")?;
        Ok(Self { client, insert })
    }
}

impl Appender for Postgres {
    /// A single statement is a transaction.
    fn append(&mut self, event: &Event) -> Result<()> {
        self.client.execute(&self.insert, &[&event.text])?;
        Ok(())
    }
}
