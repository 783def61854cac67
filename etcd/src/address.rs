//! The address of a store. Pure.

use std::{fmt, path::PathBuf, str::FromStr};

use crate::error::Problem;

const DEFAULT_PORT: u16 = 2379;

/// The address of a store on etcd: `etcd://h1:2379,h2:2379/team`.
///
/// With `etcds://`, the connections are encrypted. A user's name may stand before the hosts
/// (`etcd://agent@h1/team`). After a question mark, joined by `&`, may follow:
///
/// | | |
/// | --- | --- |
/// | `cacert=FILE` | trust these certificates (PEM) instead of the well-known ones |
/// | `cert=FILE`, `key=FILE` | the client's certificate and its key (PEM) |
/// | `allow_single_member` | take a cluster that loses everything with one disk |
///
/// ```
/// use strand_etcd::Address;
///
/// let address: Address = "etcds://agent@h1,h2:2380/team?cacert=ca.pem".parse()?;
/// assert_eq!(address.store(), "team");
/// assert_eq!(address.endpoints(), ["https://h1:2379", "https://h2:2380"]);
/// assert_eq!(address.to_string(), "etcds://agent@h1:2379,h2:2380/team");
/// assert!("etcd://h1".parse::<Address>().is_err());
/// # Ok::<(), strand_etcd::Problem>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    pub(crate) secure: bool,
    pub(crate) user: Option<String>,
    hosts: Vec<String>,
    store: String,
    pub(crate) cacert: Option<PathBuf>,
    pub(crate) cert: Option<PathBuf>,
    pub(crate) key: Option<PathBuf>,
    pub(crate) allow_single_member: bool,
}

impl Address {
    /// Whether a text is meant as an address, right or wrong, and not as a path.
    #[must_use]
    pub fn is_meant(text: &str) -> bool {
        text.starts_with("etcd://") || text.starts_with("etcds://")
    }

    /// The store's name.
    #[must_use]
    pub fn store(&self) -> &str {
        &self.store
    }

    /// The URLs of the cluster's members.
    #[must_use]
    pub fn endpoints(&self) -> Vec<String> {
        let scheme = if self.secure { "https" } else { "http" };
        let url = |host: &String| format!("{scheme}://{host}");
        self.hosts.iter().map(url).collect()
    }
}

impl FromStr for Address {
    type Err = Problem;

    fn from_str(text: &str) -> Result<Self, Problem> {
        let wrong = |reason: &str| Problem::Address {
            address: text.to_owned(),
            reason: reason.to_owned(),
        };
        let (secure, rest) = match (text.strip_prefix("etcds://"), text.strip_prefix("etcd://")) {
            (Some(rest), _) => (true, rest),
            (None, Some(rest)) => (false, rest),
            (None, None) => return Err(wrong("it does not begin with etcd:// or etcds://")),
        };
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (hosts, store) = rest
            .split_once('/')
            .ok_or_else(|| wrong("it names no store: etcd://HOST:PORT,…/STORE"))?;
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        if store.is_empty() || store.len() > 100 || !store.chars().all(is_plain) {
            return Err(wrong(
                "a store's name has 1 to 100 of letters, digits, `.`, `_` and `-`",
            ));
        }
        let (user, hosts) = match hosts.rsplit_once('@') {
            Some((user, hosts)) => (Some(user), hosts),
            None => (None, hosts),
        };
        if user.is_some_and(|user| user.is_empty() || user.contains(':')) {
            return Err(wrong(
                "only a user's name may stand before the hosts; a password does not belong there",
            ));
        }
        let hosts = hosts.split(',').map(|host| with_port(host).ok_or(host));
        let hosts: Result<Vec<String>, &str> = hosts.collect();
        let hosts = hosts.map_err(|host| wrong(&format!("{host:?} is not HOST:PORT")))?;
        let mut address = Self {
            secure,
            user: user.map(str::to_owned),
            hosts,
            store: store.to_owned(),
            cacert: None,
            cert: None,
            key: None,
            allow_single_member: false,
        };
        for setting in query.split('&').filter(|setting| !setting.is_empty()) {
            match setting.split_once('=').unwrap_or((setting, "")) {
                ("allow_single_member", "") => address.allow_single_member = true,
                ("cacert", file) if secure => address.cacert = Some(file.into()),
                ("cert", file) if secure => address.cert = Some(file.into()),
                ("key", file) if secure => address.key = Some(file.into()),
                ("cacert" | "cert" | "key", _) => {
                    return Err(wrong("certificates go with etcds://"));
                }
                _ => return Err(wrong(&format!("there is no setting {setting:?}"))),
            }
        }
        if address.cert.is_some() != address.key.is_some() {
            return Err(wrong("cert and key go together"));
        }
        Ok(address)
    }
}

/// `HOST:PORT`, with the port that etcd uses by default.
fn with_port(host: &str) -> Option<String> {
    let (name, port) = match host.strip_prefix('[') {
        Some(rest) => {
            let (name, port) = rest.split_once(']')?;
            let is_ip = name
                .bytes()
                .all(|byte| byte.is_ascii_hexdigit() || byte == b':');
            (is_ip.then(|| format!("[{name}]"))?, port.strip_prefix(':'))
        }
        None => match host.split_once(':') {
            Some((name, port)) => (name.to_owned(), Some(port)),
            None => (host.to_owned(), None),
        },
    };
    let is_name = |c: char| c.is_ascii_alphanumeric() || ".-[]:_".contains(c);
    if name.is_empty() || !name.chars().all(is_name) {
        return None;
    }
    let port = port.map_or(Some(DEFAULT_PORT), |port| port.parse().ok())?;
    Some(format!("{name}:{port}"))
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.secure { "etcds" } else { "etcd" };
        write!(f, "{scheme}://")?;
        if let Some(user) = &self.user {
            write!(f, "{user}@")?;
        }
        write!(f, "{}/{}", self.hosts.join(","), self.store)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_are_right() {
        for (text, shown) in [
            ("etcd://h/s", "etcd://h:2379/s"),
            (
                "etcd://h1:1,h2:2,10.0.0.1:3/a.b_c-d",
                "etcd://h1:1,h2:2,10.0.0.1:3/a.b_c-d",
            ),
            (
                "etcds://u@[::1]:2380,[fe80::1]/s",
                "etcds://u@[::1]:2380,[fe80::1]:2379/s",
            ),
            ("etcd://h/s?allow_single_member", "etcd://h:2379/s"),
        ] {
            let address: Address = text.parse().unwrap();
            assert_eq!(address.to_string(), shown);
        }
        let full = "etcds://h/s?cacert=a/ca.pem&cert=c.pem&key=k.pem&allow_single_member";
        let address: Address = full.parse().unwrap();
        assert_eq!(address.cacert, Some("a/ca.pem".into()));
        assert!(address.key.is_some() && address.allow_single_member);
    }

    #[test]
    fn addresses_that_are_wrong_say_why() {
        for (text, reason) in [
            ("http://h/s", "etcd://"),
            ("etcd://h", "names no store"),
            ("etcd://h/", "store's name"),
            ("etcd://h/a/b", "store's name"),
            ("etcd:///s", "HOST:PORT"),
            ("etcd://h1,,h2/s", "HOST:PORT"),
            ("etcd://h:x/s", "HOST:PORT"),
            ("etcd://h:1:2/s", "HOST:PORT"),
            ("etcd://[::1/s", "HOST:PORT"),
            ("etcd://u:secret@h/s", "password"),
            ("etcd://h/s?cacert=x", "etcds"),
            ("etcds://h/s?cert=x", "go together"),
            ("etcds://h/s?colour=red", "no setting"),
        ] {
            let problem = text.parse::<Address>().unwrap_err().to_string();
            assert!(problem.contains(reason), "{text}: {problem}");
        }
    }
}
