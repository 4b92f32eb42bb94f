//! keepalived on two hosts of a lab, to compare with: it keeps the floating address by VRRP (RFC 5798) over the network
//! that the sites share, and on each of its hosts the sample meeting server answers whoever comes.
//!
//! Its processes are in one group with a reaper, like those of a cluster, and end with the runner.

use super::children::Children;
use super::{FilesError, Launcher, ProcessError, ProcessName};
use crate::lab::{self, INTERFACE, Lab};
use crate::layout::{HTTP_PORT, InstancePlace, Layout, NodePlace};
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::process::Command;
use twinsite_model::NodeName;

/// Debian's program.
const PROGRAM: &str = "keepalived";
/// The priority of the first host; each further one has one less, so that their timers are nearly the same.
const PRIORITY: usize = 101;
/// Of a host that is to give the address away.
const PRIORITY_LEAVING: usize = 50;
/// Any will do: there is one group in a lab.
const ROUTER_ID: u8 = 51;

/// keepalived, running on the first host of each site that serves.
#[derive(Debug)]
pub struct Keepalived {
    /// The network outlives what runs in it.
    _lab: Arc<Lab>,
    layout: Layout,
    launcher: Launcher,
    /// How often the owner says that it lives.
    advert: Duration,
    /// The hosts, the preferred one first.
    hosts: Vec<NodePlace>,
    /// Who was told to leave the address to another.
    leaving: Option<usize>,
    children: Children,
    folder: tempfile::TempDir,
}

impl Keepalived {
    /// Starts it on its hosts.
    pub fn start(
        lab: Arc<Lab>,
        layout: &Layout,
        launcher: Launcher,
        advert: Duration,
    ) -> Result<Self, ProcessError> {
        let made = tempfile::Builder::new().prefix("twinsite-keepalived-").tempdir();
        let folder = made.map_err(|source| FilesError::Write { path: std::env::temp_dir(), source })?;
        let hosts = layout.serving_sites().filter_map(|site| layout.nodes_at(site).next().cloned()).collect();
        let children = Children::new().map_err(ProcessError::Reaper)?;
        let layout = layout.clone();
        let mut keepalived =
            Self { _lab: lab, layout, launcher, advert, hosts, leaving: None, children, folder };
        for number in 0..keepalived.hosts.len() {
            keepalived.start_server(number)?;
            keepalived.write_config(number, PRIORITY - number)?;
            keepalived.start_daemon(number)?;
        }
        Ok(keepalived)
    }

    fn start_server(&mut self, number: usize) -> Result<(), ProcessError> {
        let host = &self.hosts[number];
        let Some(instance) = self.layout.instances_at(&host.site).next() else { return Ok(()) };
        // At every address of the host, the floating one included when it comes.
        let address = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), HTTP_PORT);
        let place = InstancePlace { address, ..instance.clone() };
        let folder = self.folder.path();
        let command = self.launcher.meeting(&place, &folder.join("announced"), &folder.join("answers"));
        let command = lab::on_host(host.name.as_str(), &command);
        let log = folder.join(format!("{}.log", place.name));
        self.children.spawn(&ProcessName::Instance(place.name), command, &log, true)
    }

    fn start_daemon(&mut self, number: usize) -> Result<(), ProcessError> {
        let process = self.process(number);
        if self.children.runs(&process) {
            return Ok(());
        }
        let mut command = Command::new(PROGRAM);
        command.args(["--dont-fork", "--log-console", "--vrrp", "--use-file"]).arg(self.file(number, "conf"));
        for (option, extension) in [("--pid", "pid"), ("--vrrp_pid", "vrrp.pid")] {
            let path = self.file(number, extension);
            // One that was killed has left it, and the next one would take it for a living one's.
            fs::remove_file(&path).ok();
            command.arg(option).arg(path);
        }
        let command = lab::on_host(self.hosts[number].name.as_str(), &command);
        let log = self.file(number, "log");
        self.children.spawn(&process, command, &log, false)
    }

    fn write_config(&self, number: usize, priority: usize) -> Result<(), ProcessError> {
        let path = self.file(number, "conf");
        let text = config(&self.layout, &self.hosts[number].name, priority, self.advert);
        fs::write(&path, text).map_err(|source| FilesError::Write { path, source }.into())
    }

    fn file(&self, number: usize, extension: &str) -> PathBuf {
        self.folder.path().join(format!("{}.{extension}", self.hosts[number].name))
    }

    fn process(&self, number: usize) -> ProcessName {
        ProcessName::Node(self.hosts[number].name.clone())
    }

    fn number(&self, host: &NodeName) -> Result<usize, ProcessError> {
        let number = self.hosts.iter().position(|known| known.name == *host);
        number.ok_or_else(|| ProcessError::Unknown(ProcessName::Node(host.clone())))
    }

    /// The daemon that was started on a host, and those that it started itself.
    fn daemons(&self, number: usize) -> Vec<Pid> {
        let process = self.process(number);
        let all = self.children.pids().all();
        let Some((_, first)) = all.into_iter().find(|(name, _)| *name == process) else { return Vec::new() };
        let path = Path::new("/proc").join(format!("{first}/task/{first}/children"));
        let started = fs::read_to_string(path).unwrap_or_default();
        let started = started.split_whitespace().filter_map(|pid| pid.parse().ok());
        let pids = std::iter::once(first).chain(started);
        pids.filter_map(|pid| Pid::from_raw(i32::try_from(pid).ok()?)).collect()
    }

    fn signal(&self, number: usize, signal: Signal) -> Result<(), ProcessError> {
        for daemon in self.daemons(number) {
            let sent = kill_process(daemon, signal);
            let failed = |source: rustix::io::Errno| ProcessError::Signal {
                process: self.process(number),
                source: source.into(),
            };
            sent.map_err(failed)?;
        }
        Ok(())
    }

    /// kill -9 of all its processes on a host. They are frozen first, or the one that is left for a moment would do
    /// what it does at an orderly end.
    pub async fn kill(&mut self, host: &NodeName) -> Result<(), ProcessError> {
        let number = self.number(host)?;
        self.signal(number, Signal::STOP)?;
        self.signal(number, Signal::KILL)?;
        self.children.kill(&self.process(number)).await
    }

    /// Stops all its processes on a host in their tracks.
    pub fn freeze(&self, host: &NodeName) -> Result<(), ProcessError> {
        self.signal(self.number(host)?, Signal::STOP)
    }

    /// Makes a host leave the address to the other one: it is told a lower priority.
    pub fn leave(&mut self, host: &NodeName) -> Result<(), ProcessError> {
        let number = self.number(host)?;
        self.write_config(number, PRIORITY_LEAVING)?;
        self.leaving = Some(number);
        self.children.signal(&self.process(number), Signal::HUP)
    }

    /// Makes everything run again as it did in the beginning.
    pub fn repair(&mut self) -> Result<(), ProcessError> {
        for number in 0..self.hosts.len() {
            if self.children.runs(&self.process(number)) {
                self.signal(number, Signal::CONT)?;
            } else {
                self.start_daemon(number)?;
            }
        }
        if let Some(number) = self.leaving.take() {
            self.write_config(number, PRIORITY - number)?;
            self.children.signal(&self.process(number), Signal::HUP)?;
        }
        Ok(())
    }

    /// Ends everything.
    pub async fn stop(mut self) {
        self.children.end_all().await;
    }
}

/// The address is that of one host, without a network, as the other contender has it. Who has the highest priority takes
/// it, which is keepalived's default.
fn config(layout: &Layout, host: &NodeName, priority: usize, advert: Duration) -> String {
    format!(
        "global_defs {{\n    router_id {host}\n    vrrp_version 3\n}}\n\
         vrrp_instance floating {{\n    state BACKUP\n    interface {INTERFACE}\n    \
         virtual_router_id {ROUTER_ID}\n    priority {priority}\n    advert_int {}\n    \
         virtual_ipaddress {{\n        {}/32 dev {INTERFACE}\n    }}\n}}\n",
        advert.as_secs_f64(),
        layout.floating.ip(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::{Ground, Shape, Store};
    use twinsite_model::Profile;

    #[test]
    fn the_configuration_says_priority_and_advert() {
        let layout = Layout::on(Ground::Lab, 0, Profile::Lan, &Shape::default(), Store::Embedded);
        let text = config(&layout, &layout.nodes[0].name, 101, Duration::from_millis(100));
        for line in ["    priority 101", "    advert_int 0.1", "        10.88.0.10/32 dev eth0"] {
            assert!(text.lines().any(|found| found == line), "{line}: {text}");
        }
        let text = config(&layout, &layout.nodes[0].name, 101, Duration::from_secs(1));
        assert!(text.contains("advert_int 1\n"), "{text}");
    }
}
