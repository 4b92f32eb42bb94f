//! A network of this machine's own: a namespace for every host of a cluster and one for its clients, a bridge for every
//! site, and between the sites a WAN made in user space ([`links`]).
//!
//! Addresses are real there: a floating IP is put on an interface, answered for by ARP and taken over, as between
//! machines. Everything has its name, `twinsite-lab-PID-HOST`, so that what a lab has left that was killed is found and
//! removed by the next one. Needs root, `ip` (iproute2) and `/dev/net/tun`.
//!
//! ```text
//!            clients ── br0 ──┬─────────────┬─────────────┐
//!                            site0         site1         site2     bridges, in the clients' namespace
//!                           ╱  │  ╲       ╱  │  ╲       ╱  │  ╲
//!                       hosts  │  hosts     wan1          wan2     a namespace each
//!                             wan0 ─────────┴─────────────┘        frames from TAP to TAP
//! ```
//!
//! A site's way to the clients and its WAN are isolated from each other (bridge port isolation), so what one site sends to
//! another has one way only, and clients have theirs whatever becomes of the WAN.

mod echo;
mod links;
mod prober;
#[cfg(test)]
mod tests;

pub use prober::{PROBE_EVERY, Prober};

use crate::layout::{Layout, NETWORK_BITS};
use crate::wan::{Direction, Shape};
use links::Links;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use twinsite_model::SiteName;

/// Where `ip netns` keeps its names.
const NAMES: &str = "/run/netns";
/// Where TAPs come from.
const TUN: &str = "/dev/net/tun";
const PREFIX: &str = "twinsite-lab-";
/// The namespace from which clients come, and in which the bridge is.
const CLIENTS: &str = "clients";
/// The interface of every host.
pub const INTERFACE: &str = "eth0";

/// Why there is no lab.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// Not root.
    #[error(
        "a lab makes network namespaces, which needs root: run it with sudo, or without --lab on loopback addresses"
    )]
    NotRoot,
    /// A program is missing.
    #[error(
        "a lab needs `{program}`: install the package `{package}`, or run without --lab on loopback addresses"
    )]
    Missing {
        /// The program.
        program: &'static str,
        /// Debian's package.
        package: &'static str,
    },
    /// There are no TAPs.
    #[error(
        "a lab carries packets over TAPs, and {TUN}: {0}; load the module `tun`, or run without --lab on loopback addresses"
    )]
    NoTaps(io::Error),
    /// A command failed.
    #[error("`{command}`: {problem}")]
    Command {
        /// What was run.
        command: String,
        /// What it said.
        problem: String,
    },
    /// A namespace cannot be entered.
    #[error("{}: {source}", path.display())]
    Enter {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The links between the sites cannot be made, or are gone.
    #[error("the links between the sites of the lab do not work: {0}")]
    Link(String),
    /// The hosts cannot be probed.
    #[error("the hosts of the lab cannot be asked for the floating address: {0}")]
    Prober(String),
    /// There is no such host.
    #[error("there is no host {0} in the lab")]
    NoHost(String),
    /// There is no such link.
    #[error("there is no link {from} -> {to}")]
    NoLink {
        /// The site that sends.
        from: SiteName,
        /// The site that receives.
        to: SiteName,
    },
}

/// The namespaces of a cluster. They go when this is dropped.
#[derive(Debug)]
pub struct Lab {
    prefix: String,
    hosts: Vec<String>,
    /// The port of each host at the bridge of its site.
    ports: BTreeMap<String, String>,
    /// Between the making of the namespaces and their removal.
    links: Option<Links>,
}

impl Lab {
    /// Makes the network for a layout whose ground is [`crate::layout::Ground::Lab`].
    pub fn up(layout: &Layout) -> Result<Arc<Self>, LabError> {
        require()?;
        remove_leftovers();
        let hosts = hosts(layout);
        let names = hosts.iter().map(|host| host.name.clone()).chain([CLIENTS.to_owned()]).collect();
        let prefix = format!("{PREFIX}{}-", std::process::id());
        let ports = hosts.iter().map(|host| (host.name.clone(), host.port.clone())).collect();
        let mut lab = Self { prefix, hosts: names, ports, links: None };
        lab.make(layout, &hosts)?;
        Ok(Arc::new(lab))
    }

    fn make(&mut self, layout: &Layout, hosts: &[Host]) -> Result<(), LabError> {
        let clients = self.namespace(CLIENTS);
        run("ip", &["netns", "add", &clients])?;
        let mut bridge = vec![
            "link set lo up".to_owned(),
            bridge_called("br0"),
            "link set br0 up".to_owned(),
            format!("address add {}/{NETWORK_BITS} dev br0", layout.gateway()),
            // Clients have thousands of addresses, and the kernel answers for them all.
            format!("route add local {} dev lo", layout.client_network()),
        ];
        for site in 0..layout.sites.len() {
            let of_site = site_bridge(site);
            bridge.extend([
                bridge_called(&of_site),
                // It is in the namespace of the clients' addresses, and would answer for them itself.
                format!("link set {of_site} arp off up"),
                format!("link add in{site} type veth peer name out{site}"),
            ]);
            bridge.extend(isolated(&format!("in{site}"), "br0"));
            bridge.extend(isolated(&format!("out{site}"), &of_site));
        }
        for host in hosts {
            let namespace = self.namespace(&host.name);
            run("ip", &["netns", "add", &namespace])?;
            let commands = [
                "link set lo up".to_owned(),
                format!("link add {INTERFACE} type veth peer name {} netns {clients}", host.port),
                format!("link set {INTERFACE} up"),
                format!("address add {}/{NETWORK_BITS} dev {INTERFACE}", host.ip),
            ];
            batch(&namespace, &commands)?;
            let place = layout.sites.iter().position(|site| *site == host.site).unwrap_or_default();
            bridge.push(format!("link set {} master {} up", host.port, site_bridge(place)));
        }
        batch(&clients, &bridge)?;
        let links = Links::start(&Path::new(NAMES).join(&clients), &layout.sites)?;
        let attach = |place| isolated(&links::tap(place), &site_bridge(place));
        batch(&clients, &(0..layout.sites.len()).flat_map(attach).collect::<Vec<_>>())?;
        self.links = Some(links);
        Ok(())
    }

    fn namespace(&self, host: &str) -> String {
        format!("{}{host}", self.prefix)
    }

    /// Goes where the clients are: this thread, and all threads and processes that it starts from now on.
    pub fn enter(&self) -> Result<(), LabError> {
        enter(&Path::new(NAMES).join(self.namespace(CLIENTS)))
    }

    /// Begins to ask every host that serves, all the time, whether it answers for the floating address.
    pub fn prober(&self, layout: &Layout) -> Result<Prober, LabError> {
        Prober::start(self, layout, PROBE_EVERY)
    }

    /// How a person runs a command where the clients are.
    pub fn as_client(&self) -> String {
        format!("ip netns exec {}", self.namespace(CLIENTS))
    }

    /// The same command, on a host.
    pub(crate) fn on_host(&self, host: &str, command: &tokio::process::Command) -> tokio::process::Command {
        let command = command.as_std();
        let mut there = tokio::process::Command::new("ip");
        there
            .args(["netns", "exec", &self.namespace(host)])
            .arg(command.get_program())
            .args(command.get_args());
        there
    }

    /// Cuts a host off: nothing comes to it or from it any more, and it does not notice, for its interface stays up.
    pub(crate) fn cut_host(&self, host: &str) -> Result<(), LabError> {
        self.set_port(host, "disabled")
    }

    /// Gives all hosts that were cut off the network back.
    pub(crate) fn mend_hosts(&self) -> Result<(), LabError> {
        self.ports.keys().try_for_each(|host| self.set_port(host, "forwarding"))
    }

    /// Takes from every host what a holder of the address has left there that was killed: the address, and the rules
    /// that keep it dark.
    pub(crate) fn clear_hosts(&self, floating: IpAddr) -> Result<(), LabError> {
        let floating = format!("{floating}/32");
        for host in self.ports.keys() {
            let namespace = self.namespace(host);
            run("ip", &["-netns", &namespace, "address", "flush", "dev", INTERFACE, "to", &floating])?;
            run("ip", &["netns", "exec", &namespace, "nft", "flush", "ruleset"])?;
        }
        Ok(())
    }

    fn set_port(&self, host: &str, state: &str) -> Result<(), LabError> {
        let port = self.ports.get(host).ok_or_else(|| LabError::NoHost(host.to_owned()))?;
        let clients = self.namespace(CLIENTS);
        // `ip link set ... type bridge_slave state` says nothing and does nothing.
        run("bridge", &["-netns", &clients, "link", "set", "dev", port, "state", state])
    }

    /// Changes what becomes of what one site sends to another, from now on. Clients reach everybody.
    pub(crate) fn set_link(&self, from: &SiteName, to: &SiteName, shape: Shape) -> Result<(), LabError> {
        let missing = || LabError::NoLink { from: from.clone(), to: to.clone() };
        self.links.as_ref().ok_or_else(missing)?.direction(from, to)?.set(shape);
        Ok(())
    }

    /// What becomes of it.
    pub(crate) fn link(&self, from: &SiteName, to: &SiteName) -> Shape {
        let direction = self.links.as_ref().and_then(|links| links.direction(from, to).ok());
        direction.map(Direction::shape).unwrap_or_default()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.links = None;
        for host in &self.hosts {
            // What is not there any more need not be removed.
            drop(run("ip", &["netns", "delete", &self.namespace(host)]));
        }
    }
}

/// A host of the lab.
#[derive(Debug)]
struct Host {
    name: String,
    site: SiteName,
    ip: IpAddr,
    /// Its end at the bridge; interfaces have short names.
    port: String,
}

fn hosts(layout: &Layout) -> Vec<Host> {
    let nodes = layout.nodes.iter().map(|node| (node.name.to_string(), node.site.clone(), node.ip));
    let instances = layout.instances.iter();
    let instances = instances.map(|one| (one.name.to_string(), one.site.clone(), one.address.ip()));
    let redis = layout.sites.last().map(|site| (REDIS.to_owned(), site.clone(), layout.redis().ip()));
    let all = nodes.chain(instances).chain(redis).enumerate();
    all.map(|(number, (name, site, ip))| Host { name, site, ip, port: format!("port{number}") }).collect()
}

/// The host of the cluster's own Redis.
pub(crate) const REDIS: &str = "redis";

fn require() -> Result<(), LabError> {
    if !rustix::process::geteuid().is_root() {
        return Err(LabError::NotRoot);
    }
    let (program, package) = ("ip", "iproute2");
    if Command::new(program).arg("-V").stdout(Stdio::null()).stderr(Stdio::null()).status().is_err() {
        return Err(LabError::Missing { program, package });
    }
    File::options().read(true).write(true).open(TUN).map_err(LabError::NoTaps)?;
    Ok(())
}

/// This thread goes to a network namespace.
fn enter(namespace: &Path) -> Result<(), LabError> {
    let entered = File::open(namespace)
        .and_then(|file| Ok(move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))?));
    entered.map_err(|source| LabError::Enter { path: namespace.to_owned(), source })
}

/// A port of a bridge that reaches those ports only that are not isolated, before anything goes through it.
fn isolated(port: &str, bridge: &str) -> [String; 3] {
    [
        format!("link set {port} master {bridge}"),
        format!("link set {port} type bridge_slave isolated on"),
        format!("link set {port} up"),
    ]
}

/// The bridge of a site.
fn site_bridge(site: usize) -> String {
    format!("site{site}")
}

/// A bridge that forwards at once, multicast too.
fn bridge_called(name: &str) -> String {
    format!("link add {name} type bridge forward_delay 0 mcast_snooping 0")
}

/// Removes the namespaces of labs whose process is gone.
fn remove_leftovers() {
    let Ok(names) = std::fs::read_dir(NAMES) else { return };
    for name in names.filter_map(|entry| entry.ok()?.file_name().into_string().ok()) {
        let pid = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
        let gone = pid.is_some_and(|pid| !Path::new("/proc").join(pid).exists());
        if gone {
            drop(run("ip", &["netns", "delete", &name]));
        }
    }
}

/// Several commands of `ip` in one namespace, by one process.
fn batch(namespace: &str, commands: &[String]) -> Result<(), LabError> {
    feed("ip", &["-netns", namespace, "-batch", "-"], &commands.join("\n"))
}

fn run(program: &str, arguments: &[&str]) -> Result<(), LabError> {
    feed(program, arguments, "")
}

/// Runs a program to its end, with this on its standard input.
fn feed(program: &str, arguments: &[&str], input: &str) -> Result<(), LabError> {
    let failed = |problem: String| LabError::Command {
        command: std::iter::once(program).chain(arguments.iter().copied()).collect::<Vec<_>>().join(" "),
        problem,
    };
    let ended = || -> io::Result<_> {
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(input.as_bytes())?;
        }
        child.wait_with_output()
    };
    let output = ended().map_err(|error| failed(error.to_string()))?;
    if output.status.success() {
        Ok(())
    } else {
        Err(failed(String::from_utf8_lossy(&output.stderr).trim().replace('\n', "; ")))
    }
}
