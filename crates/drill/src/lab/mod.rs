//! A network of this machine's own: a namespace for every host of a cluster and one for its clients, joined by a bridge.
//!
//! Addresses are real there: a floating IP is put on an interface, answered for by ARP and taken over, as between
//! machines. Everything has its name, `twinsite-lab-PID-HOST`, so that what a lab has left that was killed is found and
//! removed by the next one. Needs root, and `ip` (iproute2); links are cut by `nft`.

mod links;

use crate::layout::{Layout, NETWORK_BITS};
use links::Links;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
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
    /// This kind of link is not made in a lab yet.
    #[error("a lab cuts links between sites; it does not slow them down")]
    OnlyCuts,
}

/// The namespaces of a cluster. They go when this is dropped.
#[derive(Debug)]
pub struct Lab {
    prefix: String,
    hosts: Vec<String>,
    links: Links,
}

impl Lab {
    /// Makes the network for a layout whose ground is [`crate::layout::Ground::Lab`].
    pub fn up(layout: &Layout) -> Result<Arc<Self>, LabError> {
        require()?;
        remove_leftovers();
        let hosts = hosts(layout);
        let names = hosts.iter().map(|host| host.name.clone()).chain([CLIENTS.to_owned()]).collect();
        let prefix = format!("{PREFIX}{}-", std::process::id());
        let links = Links::new(&hosts);
        let lab = Self { prefix, hosts: names, links };
        lab.make(layout, &hosts)?;
        Ok(Arc::new(lab))
    }

    fn make(&self, layout: &Layout, hosts: &[Host]) -> Result<(), LabError> {
        let clients = self.namespace(CLIENTS);
        run("ip", &["netns", "add", &clients])?;
        let mut bridge = vec![
            "link set lo up".to_owned(),
            "link add br0 type bridge forward_delay 0".to_owned(),
            "link set br0 up".to_owned(),
            format!("address add {}/{NETWORK_BITS} dev br0", layout.gateway()),
            // Clients have thousands of addresses, and the kernel answers for them all.
            format!("route add local {} dev lo", layout.client_network()),
        ];
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
            bridge.push(format!("link set {} master br0 up", host.port));
        }
        batch(&clients, &bridge)?;
        self.links.make(&clients)
    }

    fn namespace(&self, host: &str) -> String {
        format!("{}{host}", self.prefix)
    }

    /// Goes where the clients are: this thread, and all threads and processes that it starts from now on.
    pub fn enter(&self) -> Result<(), LabError> {
        let path = Path::new(NAMES).join(self.namespace(CLIENTS));
        let entered = File::open(&path)
            .and_then(|file| Ok(move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))?));
        entered.map_err(|source| LabError::Enter { path, source })
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

    /// Cuts what goes from one site to another, or mends it. Clients reach everybody.
    pub(crate) fn cut(&self, from: &SiteName, to: &SiteName, cut: bool) -> Result<(), LabError> {
        self.links.cut(&self.namespace(CLIENTS), from, to, cut)
    }

    /// Whether a direction is cut.
    pub(crate) fn is_cut(&self, from: &SiteName, to: &SiteName) -> bool {
        self.links.is_cut(from, to)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
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
    for (program, package) in [("ip", "iproute2"), ("nft", "nftables")] {
        if Command::new(program).arg("-V").stdout(Stdio::null()).stderr(Stdio::null()).status().is_err() {
            return Err(LabError::Missing { program, package });
        }
    }
    Ok(())
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
