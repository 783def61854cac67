//! A process that appends through many connections to a server, with one event at a time on each.
//! One thread serves them all, as a program with an event loop does.

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use strand_lock::monotonic_ns;

use crate::appending::Report;
use crate::barrier::Barrier;
use crate::error::Result;
use crate::events::{self, Event};
use crate::process::{Appending, Member};
use crate::systems::Redis;

/// One of the connections of a process that has many.
struct Agent {
    redis: Redis,
    events: Vec<Event>,
    report: Report,
    /// When the last answer came.
    last_ns: u64,
    is_done: bool,
}

impl Agent {
    /// Sends the next event, unless all are written.
    fn send_next(&mut self, writes_max: usize) -> Result<()> {
        let sent = self.report.latencies_ns.len();
        self.is_done = sent >= writes_max;
        match self.events.get(sent % self.events.len().max(1)) {
            Some(event) if !self.is_done => self.redis.send(event),
            _ => Ok(()),
        }
    }
}

/// The process. Reports what each connection did.
pub(crate) fn work(member: &Member, order: &Appending, connections: usize) -> Result<Vec<Report>> {
    let writes_max = order.writes_max;
    let agent = |number| -> Result<Agent> {
        Ok(Agent {
            redis: Redis::open(&member.store)?,
            events: events::load(&order.events_file, number, writes_max)?,
            report: Report::default(),
            last_ns: 0,
            is_done: false,
        })
    };
    let mut agents: Vec<Agent> = (0..connections).map(agent).collect::<Result<_>>()?;
    let barrier = Barrier::open(&member.barrier)?;
    let time_max_ns = u64::try_from(order.time_max.as_nanos())?;

    let released_ns = barrier.wait_for_release(member.team);
    let began_ns = monotonic_ns();
    for agent in &mut agents {
        (agent.report.released_ns, agent.report.began_ns) = (released_ns, began_ns);
        agent.last_ns = began_ns;
        agent.send_next(writes_max)?;
    }
    while agents.iter().any(|agent| !agent.is_done) {
        let streams = agents.iter().map(|agent| agent.redis.stream());
        let mut fds: Vec<_> = streams
            .map(|stream| PollFd::new(stream, PollFlags::IN))
            .collect();
        match poll(&mut fds, None) {
            Err(Errno::INTR) => continue,
            ready => ready?,
        };
        let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        for (agent, _) in agents.iter_mut().zip(ready).filter(|(_, ready)| *ready) {
            if !agent.redis.receive()? {
                continue;
            }
            let now_ns = monotonic_ns();
            agent.report.latencies_ns.push(now_ns - agent.last_ns);
            agent.last_ns = now_ns;
            if now_ns - released_ns > time_max_ns {
                agent.is_done = true;
            } else {
                agent.send_next(writes_max)?;
            }
        }
    }
    barrier.wait_for_others(member.team);
    Ok(agents.into_iter().map(|agent| agent.report).collect())
}
