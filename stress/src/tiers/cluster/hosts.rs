//! "Hosts" on this machine: network namespaces, joined by a bridge in one more.

use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsFd as _;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// The network of the hosts. It exists in their namespaces only.
const NETWORK: [u8; 3] = [10, 77, 0];

/// The hosts, which end with the value.
pub(super) struct Hosts {
    /// The namespace with the bridge.
    hub: String,
    names: Vec<String>,
}

/// Runs `ip`.
fn ip(words: &[&str]) -> io::Result<()> {
    let mut command = Command::new("ip");
    let output = command.args(words).stdin(Stdio::null()).output()?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(format!(
        "ip {}: {}",
        words.join(" "),
        said.trim()
    )))
}

/// Why there can be no hosts here; `None` if there can.
pub(super) fn obstacle() -> Option<String> {
    let made = Hosts::make(1, "try");
    made.err()
        .map(|error| format!("network namespaces can't be made: {error}"))
}

/// Removes the hosts of this process, and those that processes which are gone have left, with all
/// that runs there. A process that is killed, or that the user ends at once, leaves its hosts.
pub(super) fn sweep() {
    // Without network namespaces, nothing was left.
    for entry in std::fs::read_dir("/run/netns")
        .into_iter()
        .flatten()
        .flatten()
    {
        let name = entry.file_name().to_string_lossy().into_owned();
        let owner = name
            .strip_prefix("strand-")
            .and_then(|rest| rest.split('-').next()?.parse::<u32>().ok());
        let is_left = owner.is_some_and(|owner| {
            owner == std::process::id() || !Path::new(&format!("/proc/{owner}")).exists()
        });
        if !is_left {
            continue;
        }
        let pids = Command::new("ip").args(["netns", "pids", &name]).output();
        let pids = pids.map(|output| output.stdout).unwrap_or_default();
        for pid in String::from_utf8_lossy(&pids).split_whitespace() {
            // It may have ended meanwhile.
            drop(Command::new("kill").args(["-KILL", pid]).status());
        }
        if let Err(error) = ip(&["netns", "del", &name]) {
            eprintln!("strand-stress: {error}");
        }
    }
}

impl Hosts {
    /// Makes some. `of` is a part of their names.
    pub(super) fn make(count: usize, of: &str) -> io::Result<Hosts> {
        let name = |number: usize| format!("strand-{}-{of}-{number}", std::process::id());
        let mut hosts = Hosts {
            hub: name(0),
            names: Vec::new(),
        };
        ip(&["netns", "add", &hosts.hub])?;
        let hub = ["-n", &hosts.hub];
        let in_hub = |words: &[&str]| ip(&[&hub, words].concat());
        in_hub(&["link", "set", "lo", "up"])?;
        in_hub(&["link", "add", "br0", "type", "bridge"])?;
        in_hub(&["addr", "add", &on_link(hub_address()), "dev", "br0"])?;
        in_hub(&["link", "set", "br0", "up"])?;
        for number in 0..count {
            let host = name(number + 1);
            ip(&["netns", "add", &host])?;
            hosts.names.push(host.clone());
            let port = port(number);
            in_hub(&[
                "link", "add", &port, "type", "veth", "peer", "name", "eth0", "netns", &host,
            ])?;
            in_hub(&["link", "set", &port, "master", "br0", "up"])?;
            let in_host = |words: &[&str]| ip(&[&["-n", &host], words].concat());
            in_host(&["link", "set", "lo", "up"])?;
            in_host(&["addr", "add", &on_link(address(number)), "dev", "eth0"])?;
            in_host(&["link", "set", "eth0", "up"])?;
        }
        Ok(hosts)
    }

    /// Moves this thread to the namespace with the bridge, and so all that it starts from now on.
    pub(super) fn enter(&self) -> io::Result<()> {
        let namespace = File::open(format!("/run/netns/{}", self.hub))?;
        let network = Some(LinkNameSpaceType::Network);
        Ok(move_into_link_name_space(namespace.as_fd(), network)?)
    }

    pub(super) fn name(&self, host: usize) -> &str {
        self.names.get(host).map_or("", String::as_str)
    }

    /// Unplugs a host, or plugs it in again.
    pub(super) fn plug(&self, host: usize, is_in: bool) -> io::Result<()> {
        let state = if is_in { "up" } else { "down" };
        ip(&["-n", &self.hub, "link", "set", &port(host), state])
    }

    /// Has a host lose all that it sends to another one, or stops that.
    pub(super) fn lose(&self, from: usize, to: usize, loses: bool) -> io::Result<()> {
        let what = if loses { "replace" } else { "del" };
        let route = format!("{}/32", address(to));
        ip(&["-n", self.name(from), "route", what, "blackhole", &route])
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        for name in self.names.iter().chain([&self.hub]) {
            if let Err(error) = ip(&["netns", "del", name]) {
                eprintln!("strand-stress: {error}");
            }
        }
    }
}

/// The address of a host.
pub(super) fn address(host: usize) -> IpAddr {
    with_last(u8::try_from(host + 1).unwrap_or(u8::MAX))
}

fn hub_address() -> IpAddr {
    with_last(254)
}

fn with_last(last: u8) -> IpAddr {
    let [a, b, c] = NETWORK;
    Ipv4Addr::new(a, b, c, last).into()
}

fn on_link(address: IpAddr) -> String {
    format!("{address}/24")
}

/// The plug of a host at the bridge.
fn port(host: usize) -> String {
    format!("port{host}")
}
