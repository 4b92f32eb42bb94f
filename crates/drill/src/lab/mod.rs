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

mod disk;
mod echo;
mod filter;
pub mod holding;
pub mod leftovers;
pub mod life;
mod links;
mod ports;
mod prober;
#[cfg(test)]
mod tests;

pub use leftovers::remove_leftovers;
pub use prober::{PROBE_EVERY, Prober};

use crate::layout::{Family, Layout, alone};
use crate::wan::{Direction, Shape};
pub(crate) use disk::Disk;
use links::Links;
use ports::{isolated, port};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use twinsite_model::{ClusterName, SiteName};

/// Where `ip netns` keeps its names.
const NAMES: &str = "/run/netns";
/// Where TAPs come from.
const TUN: &str = "/dev/net/tun";
const PREFIX: &str = "twinsite-lab-";
/// The namespace from which clients come, and in which the bridge is.
pub const CLIENTS: &str = "clients";
/// The hardware address of the clients' bridge: one that somebody has chosen.
const GATEWAY_HARDWARE: &str = "02:88:00:00:00:01";
/// The interface of every host.
pub const INTERFACE: &str = "eth0";

/// Why there is no lab.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// Not root.
    #[error(
        "a lab makes network namespaces, which needs root: run it with sudo, or without a lab, on loopback addresses \
         (`twinsite demo`, `twinsite drill run --no-lab`)"
    )]
    NotRoot,
    /// A program is missing.
    #[error(
        "a lab needs `{program}`: install the package `{package}`, or do without a lab, on loopback addresses \
         (`twinsite demo`, `twinsite drill run --no-lab`)"
    )]
    Missing {
        /// The program.
        program: &'static str,
        /// Debian's package.
        package: &'static str,
    },
    /// There are no TAPs.
    #[error(
        "a lab carries packets over TAPs, and {TUN}: {0}; load the module `tun`, or do without a lab, on loopback addresses \
         (`twinsite demo`, `twinsite drill run --no-lab`)"
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
    /// What the kernel of a host says cannot be asked for.
    #[error("the kernel of host {host} cannot be asked: {source}")]
    Ask {
        /// The host.
        host: String,
        /// Why.
        source: io::Error,
    },
    /// The links between the sites cannot be made, or are gone.
    #[error("the links between the sites of the lab do not work: {0}")]
    Link(String),
    /// There is no such host.
    #[error("there is no host {0} in this lab")]
    NoHost(String),
    /// The hosts cannot be probed.
    #[error("the hosts of the lab cannot be asked for the floating address: {0}")]
    Prober(String),
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
    /// What the cluster in it is called.
    cluster: ClusterName,
    hosts: Vec<HostPlace>,
    /// Those of them, by their place, to and from which nothing passes.
    cut: Mutex<BTreeSet<usize>>,
    /// Between the making of the namespaces and their removal.
    links: Option<Links>,
}

impl Lab {
    /// Makes the network for a layout whose ground is [`crate::layout::Ground::Lab`].
    pub fn up(layout: &Layout) -> Result<Arc<Self>, LabError> {
        require()?;
        remove_leftovers();
        let mut lab = Self {
            cluster: layout.cluster.clone(),
            hosts: places(layout),
            cut: Mutex::default(),
            links: None,
        };
        lab.make(layout)?;
        Ok(Arc::new(lab))
    }

    fn make(&mut self, layout: &Layout) -> Result<(), LabError> {
        let clients = namespace(CLIENTS);
        run("ip", &["netns", "add", &clients])?;
        let mut bridge = vec![
            "link set lo up".to_owned(),
            bridge_called("br0"),
            format!("link set br0 address {GATEWAY_HARDWARE} up"),
            address(layout.gateway(), layout, "br0"),
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
        for (number, host) in self.hosts.iter().enumerate() {
            let Some(site) = &host.site else { continue };
            run("ip", &["netns", "add", &host.namespace])?;
            let port = port(number);
            let commands = [
                "link set lo up".to_owned(),
                format!("link add {INTERFACE} type veth peer name {port} netns {clients}"),
                format!("link set {INTERFACE} up"),
                address(host.address, layout, INTERFACE),
            ];
            batch(&host.namespace, &commands)?;
            if layout.family == Family::Ipv6 {
                let (clients, gateway) = (layout.client_network(), layout.gateway());
                let known = format!("lladdr {GATEWAY_HARDWARE} dev {INTERFACE} nud permanent");
                let commands = [
                    format!("route add {clients} via {gateway}"),
                    // A host that has just become the owner answers at once: it knows its router, as hosts do that serve.
                    format!("neigh add {gateway} {known}"),
                ];
                batch(&host.namespace, &commands)?;
            }
            let place = layout.sites.iter().position(|known| known == site).unwrap_or_default();
            bridge.push(format!("link set {port} master {} up", site_bridge(place)));
        }
        batch(&clients, &bridge)?;
        if layout.family == Family::Ipv6 {
            // Else only an interface's own addresses can be a connection's source; with IPv4 the route is enough.
            switch_on(&clients, "/proc/sys/net/ipv6/ip_nonlocal_bind")?;
        }
        let links = Links::start(&clients, &layout.sites)?;
        let attach = |place| isolated(&links::tap(place), &site_bridge(place));
        batch(&clients, &(0..layout.sites.len()).flat_map(attach).collect::<Vec<_>>())?;
        self.links = Some(links);
        Ok(())
    }

    /// Goes where the clients are: this thread, and all threads and processes that it starts from now on.
    pub fn enter(&self) -> Result<(), LabError> {
        enter(&self.clients())
    }

    /// The namespace in which the clients are.
    pub fn clients(&self) -> String {
        namespace(CLIENTS)
    }

    /// Begins to ask every host that serves, all the time, whether it answers for the floating address.
    pub fn prober(&self, layout: &Layout) -> Result<Prober, LabError> {
        Prober::start(layout, PROBE_EVERY)
    }

    /// How a person runs a command where the clients are.
    pub fn as_client(&self) -> String {
        format!("ip netns exec {}", self.clients())
    }

    /// What the cluster in it is called.
    pub fn cluster(&self) -> &ClusterName {
        &self.cluster
    }

    /// Every host, the clients' last.
    pub fn hosts(&self) -> &[HostPlace] {
        &self.hosts
    }

    /// Takes from every host what a holder of the address has left there that was killed: the address, and the rules
    /// that keep it dark.
    pub(crate) fn clear_hosts(&self, floating: IpAddr) -> Result<(), LabError> {
        let floating = alone(floating);
        for host in self.hosts.iter().filter(|host| host.site.is_some()) {
            let address = ["-netns", &host.namespace, "address", "flush", "dev", INTERFACE, "to", &floating];
            run("ip", &address)?;
            flush_firewall(&host.name)?;
        }
        Ok(())
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

    /// Why nothing is carried between the sites any more, if that is so.
    pub(crate) fn links_ended(&self) -> Option<&str> {
        self.links.as_ref().and_then(Links::ended)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.links = None;
        for host in &self.hosts {
            leftovers::remove(&host.namespace);
        }
    }
}

/// A host of the lab.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostPlace {
    /// What it is called: like the node or the meeting instance on it, `redis` or `clients`.
    pub name: String,
    /// Its site; none for the clients.
    pub site: Option<SiteName>,
    /// Its own address.
    pub address: IpAddr,
    /// Its namespace, as `ip netns` knows it.
    pub namespace: String,
}

/// The hosts of the lab that this process makes for a layout, the clients' last.
pub fn places(layout: &Layout) -> Vec<HostPlace> {
    let nodes = layout.nodes.iter().map(|node| (node.name.as_str(), Some(&node.site), node.ip));
    let instances = layout.instances.iter();
    let instances = instances.map(|one| (one.name.as_str(), Some(&one.site), one.address.ip()));
    let redis = (REDIS, layout.sites.last(), layout.redis().ip());
    let all = nodes.chain(instances).chain([redis, (CLIENTS, None, layout.gateway())]);
    let place = |(name, site, address): (&str, Option<&SiteName>, _)| HostPlace {
        name: name.to_owned(),
        site: site.cloned(),
        address,
        namespace: namespace(name),
    };
    all.map(place).collect()
}

/// A host's namespace, in the lab of this process.
fn namespace(host: &str) -> String {
    format!("{PREFIX}{}-{host}", std::process::id())
}

/// The same command, on a host of the lab that this process has made.
pub(crate) fn on_host(host: &str, command: &tokio::process::Command) -> tokio::process::Command {
    let command = command.as_std();
    let mut there = tokio::process::Command::new("ip");
    there.args(["netns", "exec", &namespace(host)]).arg(command.get_program()).args(command.get_args());
    if let Some(folder) = command.get_current_dir() {
        there.current_dir(folder);
    }
    there
}

/// The host of the cluster's own Redis.
pub const REDIS: &str = "redis";

/// Whether a lab can be made here, and if not, what is missing.
pub fn require() -> Result<(), LabError> {
    require_root()?;
    let (program, package) = ("ip", "iproute2");
    if Command::new(program).arg("-V").stdout(Stdio::null()).stderr(Stdio::null()).status().is_err() {
        return Err(LabError::Missing { program, package });
    }
    File::options().read(true).write(true).open(TUN).map_err(LabError::NoTaps)?;
    Ok(())
}

/// Labs are root's.
pub fn require_root() -> Result<(), LabError> {
    if rustix::process::geteuid().is_root() { Ok(()) } else { Err(LabError::NotRoot) }
}

/// This thread, and all threads and processes that it starts from now on, go to a network namespace, by its name.
pub fn enter(namespace: &str) -> Result<(), LabError> {
    let path = Path::new(NAMES).join(namespace);
    let entered = File::open(&path)
        .and_then(|file| Ok(move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))?));
    entered.map_err(|source| LabError::Enter { path, source })
}

/// Switches something on in the kernel of one namespace.
fn switch_on(namespace: &str, setting: &'static str) -> Result<(), LabError> {
    let name = namespace.to_owned();
    let set = move || -> Result<io::Result<()>, LabError> {
        enter(&name)?;
        Ok(std::fs::write(setting, "1"))
    };
    let failed = |source| LabError::Enter { path: PathBuf::from(setting), source };
    let visit = std::thread::Builder::new().name("lab-visit".to_owned()).spawn(set).map_err(failed)?;
    let set = visit.join().map_err(|_| failed(io::Error::other("who visited it panicked")))?;
    set?.map_err(failed)
}

/// Removes every rule of the packet filter on a host, as a firewall that is restarted does.
pub(crate) fn flush_firewall(host: &str) -> Result<(), LabError> {
    let (program, package) = ("nft", "nftables");
    if Command::new(program).arg("-v").stdout(Stdio::null()).stderr(Stdio::null()).status().is_err() {
        return Err(LabError::Missing { program, package });
    }
    run("ip", &["netns", "exec", &namespace(host), program, "flush", "ruleset"])
}

/// Gives an interface an address in the lab's network. It is used at once: nobody else can have it.
fn address(address: IpAddr, layout: &Layout, interface: &str) -> String {
    let nodad = if address.is_ipv6() { " nodad" } else { "" };
    format!("address add {address}/{} dev {interface}{nodad}", layout.network_bits())
}

/// The bridge of a site, by its place among the sites.
fn site_bridge(site: usize) -> String {
    format!("site{site}")
}

/// A bridge that forwards at once, multicast too.
fn bridge_called(name: &str) -> String {
    format!("link add {name} type bridge forward_delay 0 mcast_snooping 0")
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
