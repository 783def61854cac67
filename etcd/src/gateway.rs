//! Calls to the JSON gateway of a cluster: several members, deadlines, and what a failure leaves.

use std::{
    io::{self, Read},
    path::Path,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use serde::Serialize;
use ureq::{
    Agent,
    tls::{Certificate, ClientCert, PemItem, PrivateKey, RootCerts, TlsConfig, parse_pem},
};

use crate::{
    address::Address,
    api::{Answer, Authenticate, Authenticated, Refusal, WatchRequest},
    checks,
    error::{Failed, Problem},
    memory::Memory,
    options::Options,
};

const PAUSE_MIN: Duration = Duration::from_millis(5);
const PAUSE_MAX: Duration = Duration::from_millis(200);
/// More than any answer to a call of this crate has.
const ANSWER_BYTES_MAX: u64 = 256 << 20;
/// A watch that says nothing for so long is begun again, on the next member: its member may be
/// stopped, or cut off from the others.
const WATCH_PATIENCE: Duration = Duration::from_secs(5);

/// A cluster.
pub(crate) struct Gateway {
    agent: Agent,
    endpoints: Vec<String>,
    /// The member to ask; counts on when one does not answer.
    current: AtomicUsize,
    login: Option<(String, String)>,
    token: Mutex<Option<String>>,
    attempt_timeout: Duration,
    /// The cluster's id; 0 until the first answer.
    cluster: AtomicU64,
    /// The highest revision of any answer.
    seen: AtomicU64,
    /// Where that is kept for other processes.
    memory: OnceLock<Memory>,
    round_trips: AtomicU64,
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Answered<A> {
    pub(crate) answer: A,
    /// An earlier attempt of the same call may have been carried out, too, before or after.
    pub(crate) maybe_done_before: bool,
}

impl Gateway {
    pub(crate) fn new(address: &Address, options: &Options) -> Result<Self, Problem> {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .proxy(None)
            .max_idle_connections(256)
            .max_idle_connections_per_host(64)
            .tls_config(tls(address)?)
            .build();
        let password = || options.password.clone().unwrap_or_default();
        Ok(Self {
            agent: config.new_agent(),
            endpoints: address.endpoints(),
            current: AtomicUsize::new(0),
            login: address.user.clone().map(|user| (user, password())),
            token: Mutex::default(),
            attempt_timeout: options.attempt_timeout,
            cluster: AtomicU64::new(0),
            seen: AtomicU64::new(0),
            memory: OnceLock::new(),
            round_trips: AtomicU64::new(0),
        })
    }

    pub(crate) fn endpoints(&self) -> &[String] {
        &self.endpoints
    }

    /// How many answers there were.
    pub(crate) fn round_trips(&self) -> u64 {
        self.round_trips.load(Ordering::Relaxed)
    }

    /// The id of the cluster; 0 before the first answer.
    pub(crate) fn cluster(&self) -> u64 {
        self.cluster.load(Ordering::Acquire)
    }

    /// The highest revision of any answer.
    pub(crate) fn seen(&self) -> u64 {
        self.seen.load(Ordering::Acquire)
    }

    /// Requires the cluster to be this one, and at this revision at least.
    pub(crate) fn expect(&self, cluster: u64, revision: u64) {
        self.seen.fetch_max(revision, Ordering::AcqRel);
        self.cluster.store(cluster, Ordering::Release);
        if let Some(memory) = self.memory.get() {
            memory.see(revision, false);
        }
    }

    /// Requires what other processes have seen, and keeps what this one sees. Reads through a
    /// majority have to follow: one member alone may be behind.
    pub(crate) fn remember_in(&self, dir: &Path) {
        let memory = Memory::of(dir, self.cluster());
        let revision = memory.revision();
        if self.memory.set(memory).is_ok() {
            self.expect(self.cluster(), revision);
        }
    }

    /// Calls until a member answers, or the deadline. A call may be carried out more than once.
    pub(crate) fn call<A: Answer>(
        &self,
        path: &str,
        request: &impl Serialize,
        deadline: Instant,
    ) -> Result<Answered<A>, Failed> {
        let body = encode(request)?;
        let mut maybe_done = false;
        let mut pause = Pause::new(self.endpoints.len());
        let mut last = None;
        loop {
            let (number, endpoint) = self.endpoint();
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let problem = last.unwrap_or_else(|| Problem::NoAnswer {
                    endpoint: endpoint.to_owned(),
                    reason: "the time was over".to_owned(),
                });
                return Err(Failed {
                    problem,
                    maybe_done,
                });
            }
            let trouble = match self.attempt(endpoint, path, &body, left, deadline) {
                Ok(answer) => {
                    return Ok(Answered {
                        answer,
                        maybe_done_before: maybe_done,
                    });
                }
                Err(trouble) => trouble,
            };
            maybe_done |= trouble.maybe_done;
            if trouble.is_final {
                let problem = trouble.problem;
                return Err(Failed {
                    problem,
                    maybe_done,
                });
            }
            last = Some(trouble.problem);
            self.leave(number);
            pause.before_next(deadline);
        }
    }

    /// One call to one member.
    pub(crate) fn call_member<A: Answer>(
        &self,
        endpoint: &str,
        path: &str,
        request: &impl Serialize,
        deadline: Instant,
    ) -> Result<A, Problem> {
        let left = deadline.saturating_duration_since(Instant::now());
        let answer = self.attempt(endpoint, path, &encode(request)?, left, deadline);
        answer.map_err(|trouble| trouble.problem)
    }

    fn endpoint(&self) -> (usize, &str) {
        let number = self.current.load(Ordering::Relaxed);
        let endpoint = self.endpoints.get(number % self.endpoints.len());
        (number, endpoint.map_or("", String::as_str))
    }

    /// Turns to the next member, unless another thread did.
    fn leave(&self, number: usize) {
        let next = number.wrapping_add(1);
        let turn = (Ordering::Relaxed, Ordering::Relaxed);
        self.current
            .compare_exchange(number, next, turn.0, turn.1)
            .ok();
    }

    fn attempt<A: Answer>(
        &self,
        endpoint: &str,
        path: &str,
        body: &[u8],
        left: Duration,
        deadline: Instant,
    ) -> Result<A, Trouble> {
        let mut has_logged_in = false;
        loop {
            if self.login.is_some() && self.token().is_none() && !path.ends_with("/authenticate") {
                self.log_in(endpoint, deadline)?;
                has_logged_in = true;
            }
            // Answers to calls that began later may come first.
            let seen = self.seen();
            let no_answer = |reason: String| Problem::NoAnswer {
                endpoint: endpoint.to_owned(),
                reason,
            };
            let answered = self.post(endpoint, path, body, left.min(self.attempt_timeout));
            let (status, text) = answered.map_err(|error| Trouble {
                maybe_done: !is_unsent(&error),
                problem: no_answer(error.to_string()),
                is_final: false,
            })?;
            self.round_trips.fetch_add(1, Ordering::Relaxed);
            if status == 200 {
                return self.accept(&text, endpoint, seen);
            }
            let refusal = serde_json::from_slice::<Refusal>(&text).unwrap_or_else(|_| Refusal {
                message: format!("status {status}: {}", String::from_utf8_lossy(&text).trim()),
                ..Refusal::default()
            });
            // etcd's HTTP server says this before it looks at the call, and not as gRPC does.
            if status == 400 && refusal.message.contains("CommonName of client") {
                let endpoint = endpoint.to_owned();
                return Err(Problem::CommonName { endpoint }.into());
            }
            match verdict(&refusal) {
                Verdict::LogIn if self.login.is_some() && !has_logged_in => {
                    *self.token() = None;
                }
                Verdict::LogIn | Verdict::Refused => {
                    return Err(Trouble {
                        problem: refusal.into_problem(),
                        maybe_done: false,
                        is_final: true,
                    });
                }
                Verdict::Again { maybe_done } => {
                    return Err(Trouble {
                        problem: no_answer(refusal.into_problem().to_string()),
                        maybe_done,
                        is_final: false,
                    });
                }
            }
        }
    }

    /// Takes an answer of the right cluster.
    fn accept<A: Answer>(&self, text: &[u8], endpoint: &str, seen: u64) -> Result<A, Trouble> {
        let broken = |problem| Trouble {
            problem,
            maybe_done: true,
            is_final: true,
        };
        let answer: A = serde_json::from_slice(text).map_err(|error| {
            broken(Problem::Damaged {
                what: format!("an answer of {endpoint}"),
                reason: error.to_string(),
            })
        })?;
        let header = answer.header();
        // Some answers leave out the header, and those about members have no revision.
        if header.cluster_id != 0 {
            let cluster = self.cluster();
            let expected = (cluster != 0).then_some(cluster);
            let revision = if header.revision == 0 {
                seen
            } else {
                header.revision
            };
            checks::continuity(expected, header.cluster_id, seen, revision).map_err(broken)?;
            self.expect(header.cluster_id, revision);
        }
        Ok(answer)
    }

    fn post(
        &self,
        endpoint: &str,
        path: &str,
        body: &[u8],
        timeout: Duration,
    ) -> Result<(u16, Vec<u8>), ureq::Error> {
        let request = self.agent.post(format!("{endpoint}{path}"));
        let (config, timeout) = (request.config(), Some(timeout));
        let config = if is_ip(endpoint) {
            // A timeout of the whole call would start a thread, to look up the name.
            config
                .timeout_connect(timeout)
                .timeout_send_body(timeout)
                .timeout_recv_response(timeout)
                .timeout_recv_body(timeout)
        } else {
            config.timeout_global(timeout)
        };
        let request = config.build();
        let mut answer = self.with_token(request).send(body)?;
        let text = answer
            .body_mut()
            .with_config()
            .limit(ANSWER_BYTES_MAX)
            .read_to_vec()?;
        Ok((answer.status().as_u16(), text))
    }

    fn with_token(
        &self,
        request: ureq::RequestBuilder<ureq::typestate::WithBody>,
    ) -> ureq::RequestBuilder<ureq::typestate::WithBody> {
        let request = request.header("Content-Type", "application/json");
        // A member that is cut off from the others says so, and does not wait for a leader.
        let request = request.header("Grpc-Metadata-hasleader", "true");
        match &*self.token() {
            Some(token) => request.header("Authorization", token),
            None => request,
        }
    }

    fn token(&self) -> std::sync::MutexGuard<'_, Option<String>> {
        self.token.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn log_in(&self, endpoint: &str, deadline: Instant) -> Result<(), Trouble> {
        let Some((name, password)) = &self.login else {
            return Ok(());
        };
        let left = deadline.saturating_duration_since(Instant::now());
        let body = encode(&Authenticate { name, password })?;
        let answer: Authenticated = self
            .attempt(endpoint, "/v3/auth/authenticate", &body, left, deadline)
            // The call itself was not sent.
            .map_err(|trouble| Trouble {
                maybe_done: false,
                ..trouble
            })?;
        *self.token() = Some(answer.token);
        Ok(())
    }

    /// Begins a watch. Its lines come as they happen; reading fails after a silence.
    pub(crate) fn watch(&self, request: &WatchRequest) -> Result<impl Read + use<>, Problem> {
        let (number, endpoint) = self.endpoint();
        let begun = encode(request).and_then(|body| {
            let request = self.agent.post(format!("{endpoint}/v3/watch"));
            let timeout = Some(self.attempt_timeout);
            let config = request
                .config()
                .timeout_connect(timeout)
                .timeout_recv_response(timeout);
            let request = config.timeout_per_read(Some(WATCH_PATIENCE)).build();
            let no_answer = |reason: String| Problem::NoAnswer {
                endpoint: endpoint.to_owned(),
                reason,
            };
            let answer = self.with_token(request).send(&body[..]);
            let mut answer = answer.map_err(|error| no_answer(error.to_string()))?;
            if answer.status() == 200 {
                return Ok(answer
                    .into_body()
                    .into_with_config()
                    .limit(u64::MAX)
                    .reader());
            }
            *self.token() = None;
            let text = answer.body_mut().read_to_vec().unwrap_or_default();
            Err(no_answer(String::from_utf8_lossy(&text).into_owned()))
        });
        begun.inspect_err(|_| self.leave(number))
    }

    /// Turns to another member, since a watch on this one has ended.
    pub(crate) fn turn(&self) {
        self.leave(self.endpoint().0);
    }

    /// A token for watches, which do not ask for one themselves.
    pub(crate) fn prepare(&self, deadline: Instant) -> Result<(), Problem> {
        if self.login.is_some() && self.token().is_none() {
            let logged_in = self.log_in(self.endpoint().1, deadline);
            logged_in.map_err(|trouble| trouble.problem)?;
        }
        Ok(())
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if let Some(memory) = self.memory.get() {
            memory.see(self.seen(), true);
        }
    }
}

/// Whether the host of a URL is an IP address.
fn is_ip(endpoint: &str) -> bool {
    let host = endpoint
        .split_once("://")
        .map_or(endpoint, |(_, host)| host);
    host.parse::<std::net::SocketAddr>().is_ok()
}

fn encode(request: &impl Serialize) -> Result<Vec<u8>, Problem> {
    serde_json::to_vec(request).map_err(|error| Problem::Damaged {
        what: "a request".to_owned(),
        reason: error.to_string(),
    })
}

/// Why an attempt failed.
struct Trouble {
    problem: Problem,
    maybe_done: bool,
    /// Another attempt would fail in the same way.
    is_final: bool,
}

impl From<Problem> for Trouble {
    fn from(problem: Problem) -> Self {
        Self {
            problem,
            maybe_done: false,
            is_final: true,
        }
    }
}

/// Whether a call has certainly not reached the member.
fn is_unsent(error: &ureq::Error) -> bool {
    match error {
        ureq::Error::Io(error) => error.kind() == io::ErrorKind::ConnectionRefused,
        ureq::Error::Timeout(at) => matches!(at, ureq::Timeout::Resolve | ureq::Timeout::Connect),
        ureq::Error::HostNotFound | ureq::Error::ConnectionFailed | ureq::Error::BadUri(_) => true,
        _ => false,
    }
}

/// The next step after a refusal.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// Nothing was done, and another attempt would be refused, too.
    Refused,
    /// The token is missing, or too old.
    LogIn,
    Again {
        maybe_done: bool,
    },
}

/// Decides by the codes of gRPC. Only those that etcd gives before it proposes a change, or when
/// it refuses to apply one, say that nothing was done.
fn verdict(refusal: &Refusal) -> Verdict {
    const INVALID_ARGUMENT: u32 = 3;
    const NOT_FOUND: u32 = 5;
    const PERMISSION_DENIED: u32 = 7;
    const RESOURCE_EXHAUSTED: u32 = 8;
    const FAILED_PRECONDITION: u32 = 9;
    const OUT_OF_RANGE: u32 = 11;
    const UNIMPLEMENTED: u32 = 12;
    const UNAUTHENTICATED: u32 = 16;
    let maybe_done = true;
    match refusal.code {
        RESOURCE_EXHAUSTED if refusal.message.contains("too many requests") => {
            Verdict::Again { maybe_done: false }
        }
        INVALID_ARGUMENT | NOT_FOUND | PERMISSION_DENIED | RESOURCE_EXHAUSTED
        | FAILED_PRECONDITION | OUT_OF_RANGE | UNIMPLEMENTED => Verdict::Refused,
        UNAUTHENTICATED => Verdict::LogIn,
        _ => Verdict::Again { maybe_done },
    }
}

impl Refusal {
    fn into_problem(self) -> Problem {
        Problem::Refused {
            code: self.code,
            message: if self.message.is_empty() {
                self.error
            } else {
                self.message
            },
        }
    }
}

/// The pauses between attempts: none before each member was asked once, then growing ones.
pub(crate) struct Pause {
    without: usize,
    next: Duration,
}

impl Pause {
    pub(crate) fn new(members: usize) -> Self {
        Self {
            without: members.saturating_sub(1),
            next: PAUSE_MIN,
        }
    }

    pub(crate) fn before_next(&mut self, deadline: Instant) {
        if self.without > 0 {
            self.without -= 1;
            return;
        }
        let left = deadline.saturating_duration_since(Instant::now());
        thread::sleep(self.next.min(left));
        self.next = (self.next * 2).min(PAUSE_MAX);
    }
}

fn tls(address: &Address) -> Result<TlsConfig, Problem> {
    let mut config = TlsConfig::builder();
    if let Some(file) = &address.cacert {
        let certificates = certificates(file)?;
        config = config.root_certs(RootCerts::Specific(Arc::new(certificates)));
    }
    if let (Some(cert), Some(key)) = (&address.cert, &address.key) {
        let unusable = |error: ureq::Error| certificate_problem(key, &error);
        let private = PrivateKey::from_pem(&read(key)?).map_err(unusable)?;
        let client = ClientCert::new_with_certs(&certificates(cert)?, private);
        config = config.client_cert(Some(client));
    }
    Ok(config.build())
}

fn certificates(file: &Path) -> Result<Vec<Certificate<'static>>, Problem> {
    let pem = read(file)?;
    let mut found = Vec::new();
    for item in parse_pem(&pem) {
        match item {
            Ok(PemItem::Certificate(certificate)) => found.push(certificate),
            Ok(_) => {}
            Err(error) => return Err(certificate_problem(file, &error)),
        }
    }
    if found.is_empty() {
        return Err(certificate_problem(file, &"it has no certificate"));
    }
    Ok(found)
}

fn read(file: &Path) -> Result<Vec<u8>, Problem> {
    std::fs::read(file).map_err(|error| certificate_problem(file, &error))
}

fn certificate_problem(file: &Path, reason: &dyn std::fmt::Display) -> Problem {
    Problem::Certificate {
        file: file.display().to_string(),
        reason: reason.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_refusals_that_are_certain_count_as_such() {
        let of = |code, message: &str| {
            verdict(&Refusal {
                code,
                message: message.to_owned(),
                ..Refusal::default()
            })
        };
        let maybe = Verdict::Again { maybe_done: true };
        assert_eq!(of(14, "etcdserver: request timed out"), maybe);
        assert_eq!(of(14, "etcdserver: leader changed"), maybe);
        assert_eq!(of(4, "context deadline exceeded"), maybe);
        assert_eq!(of(2, "?"), maybe);
        assert_eq!(of(0, "status 502"), maybe);
        assert_eq!(
            of(8, "etcdserver: too many requests"),
            Verdict::Again { maybe_done: false }
        );
        assert_eq!(
            of(8, "etcdserver: mvcc: database space exceeded"),
            Verdict::Refused
        );
        assert_eq!(
            of(11, "etcdserver: mvcc: required revision has been compacted"),
            Verdict::Refused
        );
        assert_eq!(of(16, "etcdserver: invalid auth token"), Verdict::LogIn);
    }

    #[test]
    fn only_addresses_need_no_lookup() {
        assert!(is_ip("http://10.0.0.1:2379") && is_ip("https://[::1]:2379"));
        assert!(!is_ip("http://h1:2379"));
    }

    #[test]
    fn a_call_that_may_have_arrived_is_not_called_unsent() {
        let io = |kind: io::ErrorKind| ureq::Error::Io(kind.into());
        assert!(is_unsent(&io(io::ErrorKind::ConnectionRefused)));
        assert!(is_unsent(&ureq::Error::Timeout(ureq::Timeout::Connect)));
        for error in [
            io(io::ErrorKind::ConnectionReset),
            io(io::ErrorKind::UnexpectedEof),
            io(io::ErrorKind::HostUnreachable),
            ureq::Error::Timeout(ureq::Timeout::Global),
            ureq::Error::Timeout(ureq::Timeout::SendBody),
            ureq::Error::Timeout(ureq::Timeout::RecvResponse),
        ] {
            assert!(!is_unsent(&error), "{error}");
        }
    }
}
