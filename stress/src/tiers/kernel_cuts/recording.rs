//! A recording: agents append to a store on a logged device, and note each acknowledgement behind
//! the filesystem.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::{Rng as _, rngs::StdRng};
use serde::{Deserialize, Serialize};
use strand_core::{Issue, IssueEvent, IssueLog, Options, Timestamp};

use super::rig::{BEHIND_BYTES, Filesystem, Images, Mounted};
use super::write_log::{Entry, WriteLog};
use crate::run::local_disk::LocalDisk;

/// Bytes of an acknowledgement's block: what direct I/O takes everywhere.
const BLOCK_BYTES: usize = 4096;
const MAGIC: [u8; 8] = *b"acked-by";
/// Agents of one recording, those in the place of killed ones included. The first block is the
/// start.
const AGENTS_MAX: u32 = 255;
const _: () = assert!(BLOCK_BYTES as u64 * (AGENTS_MAX as u64 + 1) <= BEHIND_BYTES);
/// Agents that write at a time.
const AGENTS: usize = 3;
/// How long a recording takes.
const RECORDING: Duration = Duration::from_millis(1_500);
/// An agent compacts after so many appends.
const COMPACT_EVERY: u32 = 150;
/// The store's name within the filesystem.
pub(super) const STORE: &str = "store";

/// Small segments and little free space, so that rotations and new lengths are frequent.
pub(super) fn options(boot: &str) -> Options {
    Options::default()
        .storage(Arc::new(LocalDisk::new(boot)))
        .segment_bytes_max(8_000)
        .preallocate_bytes(4_096)
}

/// The id of an agent's nth issue.
pub(super) fn id(agent: u32, number: u32) -> String {
    format!("a{agent}-{number}")
}

/// The title that belongs to an id, so that an issue can't pass for another one.
pub(super) fn title(id: &str) -> String {
    format!("written as {id}")
}

/// An agent's task; an argument of its command line.
#[derive(Debug, Serialize, Deserialize)]
struct AgentSpec {
    store: PathBuf,
    device: PathBuf,
    filesystem_bytes: u64,
    agent: u32,
    boot: String,
}

/// One block behind the filesystem: an agent's last acknowledgement.
#[repr(align(4096))]
struct Block([u8; BLOCK_BYTES]);

impl Block {
    fn new(agent: u32, acknowledged: u32) -> Block {
        let mut block = Block([0; BLOCK_BYTES]);
        let words = [agent.to_le_bytes(), acknowledged.to_le_bytes()].concat();
        for (to, from) in block.0.iter_mut().zip(MAGIC.iter().chain(&words)) {
            *to = *from;
        }
        block
    }

    fn parse(bytes: &[u8]) -> Option<(u32, u32)> {
        let rest = bytes.strip_prefix(&MAGIC)?;
        let (agent, rest) = rest.split_first_chunk()?;
        let (acknowledged, _) = rest.split_first_chunk()?;
        let word = |bytes: &[u8; 4]| u32::from_le_bytes(*bytes);
        Some((word(agent), word(acknowledged)))
    }

    /// Returns when the device has it.
    fn write(&self, device: &File, filesystem_bytes: u64, agent: u32) -> io::Result<()> {
        device.write_all_at(
            &self.0,
            filesystem_bytes + BLOCK_BYTES as u64 * u64::from(agent),
        )
    }
}

fn open_device(path: &Path) -> io::Result<File> {
    let direct = i32::try_from(rustix::fs::OFlags::DIRECT.bits()).map_err(io::Error::other)?;
    File::options().write(true).custom_flags(direct).open(path)
}

/// The life of an agent: appends, and notes each acknowledgement, until it is killed.
#[must_use]
pub fn agent_main(spec: &str) -> ExitCode {
    let work = || -> Result<(), Box<dyn std::error::Error>> {
        let spec: AgentSpec = serde_json::from_str(spec)?;
        let device = open_device(&spec.device)?;
        let log = IssueLog::open(&spec.store, options(&spec.boot))?;
        for number in 1.. {
            let id = id(spec.agent, number);
            let issue = Issue::new_at(&id, &title(&id), Timestamp::from_ms(0));
            log.append(&IssueEvent::add(issue, Timestamp::from_ms(0)))?;
            Block::new(spec.agent, number).write(&device, spec.filesystem_bytes, spec.agent)?;
            if number % COMPACT_EVERY == 0 {
                log.compact()?;
            }
        }
        Ok(())
    };
    match work() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("strand-stress: {error}");
            ExitCode::FAILURE
        }
    }
}

/// A recording that is over.
#[derive(Debug)]
pub(super) struct Recording {
    pub(super) filesystem: Filesystem,
    pub(super) log: WriteLog,
    /// Where the store was complete: a cut before that proves nothing.
    pub(super) start: usize,
}

/// Agents that are killed when this is dropped.
struct Agents(Vec<Child>);

impl Drop for Agents {
    fn drop(&mut self) {
        for child in &mut self.0 {
            child.kill().ok();
            child.wait().ok();
        }
    }
}

impl Recording {
    /// Records one store from its creation on.
    pub(super) fn make(
        images: &Images,
        filesystem: Filesystem,
        dir: &Path,
        exe: &Path,
        random: &mut StdRng,
    ) -> io::Result<Recording> {
        images.make(filesystem)?;
        let mounted = Mounted::logged(images, filesystem, dir)?;
        let store = mounted.dir.join(STORE);
        let boot = format!("recording-{:016x}", random.random::<u64>());
        std::fs::create_dir(&store)?;
        let created = IssueLog::open(&store, options(&boot));
        created
            .and_then(IssueLog::close)
            .map_err(io::Error::other)?;
        // The store's own name in the filesystem's root is its user's to sync.
        File::open(&mounted.dir)?.sync_all()?;
        let device = open_device(&mounted.device)?;
        Block::new(0, 0).write(&device, filesystem.bytes, 0)?;
        let mut agents = Agents(Vec::new());
        let mut next = 1;
        let began = Instant::now();
        while began.elapsed() < RECORDING && next < AGENTS_MAX {
            while agents.0.len() < AGENTS {
                let spec = AgentSpec {
                    store: store.clone(),
                    device: mounted.device.clone(),
                    filesystem_bytes: filesystem.bytes,
                    agent: next,
                    boot: boot.clone(),
                };
                next += 1;
                let spec = serde_json::to_string(&spec)?;
                let command = &mut Command::new(exe);
                let command = command.args(["kernel-agent", &spec]).stdin(Stdio::null());
                agents.0.push(command.spawn()?);
            }
            std::thread::sleep(Duration::from_millis(random.random_range(20..200)));
            let victim = random.random_range(0..agents.0.len());
            let mut victim = agents.0.swap_remove(victim);
            if let Some(status) = victim.try_wait()? {
                return Err(io::Error::other(format!(
                    "an agent ended by itself: {status}"
                )));
            }
            victim.kill()?;
            victim.wait()?;
        }
        drop((agents, device));
        mounted.close()?;
        let log = WriteLog::open(File::open(images.log())?)?;
        let is_start = |entry: &Entry| entry.target.start == filesystem.bytes;
        let start = log.entries.iter().position(is_start);
        let start = start.ok_or_else(|| io::Error::other("the log does not have the start"))?;
        Ok(Recording {
            filesystem,
            log,
            start: start + 1,
        })
    }

    /// How many appends of each agent were acknowledged before the power failed.
    pub(super) fn acknowledged(&self, cut: usize) -> io::Result<BTreeMap<u32, u32>> {
        let mut acknowledged = BTreeMap::new();
        let before = self.log.entries.get(..cut).unwrap_or_default();
        for entry in before {
            if entry.target.start > self.filesystem.bytes {
                let block = Block::parse(&self.log.data(entry)?);
                let (agent, count) = block
                    .ok_or_else(|| io::Error::other("a block behind the filesystem is bad"))?;
                acknowledged.insert(agent, count);
            }
        }
        Ok(acknowledged)
    }
}
