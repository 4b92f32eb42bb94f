//! The process that keeps a lab: it has the cluster, and does what is wished for, one thing after the other.

use super::control::{Answer, Asked, ControlSocket, LinkChange, ProcessAct, Wish};
use super::register::{Claim, Found, Record};
use super::status::{HostStatus, LabStatus, LinkStatus, ProcessStatus};
use crate::lab::holding::HostKernel;
use crate::lab::life::ProcessState;
use crate::lab::{Lab, LabError};
use crate::layout::Layout;
use crate::process::{Cluster, ProcessName};
use crate::wan::Shape;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::time::sleep;
use twinsite_model::{NodeName, SiteName};

/// How long is waited until a process does what it was told by a signal, and how often is looked.
const OBEYS_WITHIN: Duration = Duration::from_secs(2);
const OBEYED_EVERY: Duration = Duration::from_millis(5);

/// A lab with its cluster.
#[derive(Debug)]
pub struct Keeper {
    cluster: Cluster,
    lab: Arc<Lab>,
    found: Found,
    record: Record,
    kernels: BTreeMap<NodeName, HostKernel>,
}

impl Keeper {
    /// Keeps a cluster that is up in a lab, under a name that is noted.
    pub fn new(cluster: Cluster, lab: Arc<Lab>, claim: &Claim) -> Result<Self, LabError> {
        let kernels = cluster.kernels()?.into_iter().collect();
        Ok(Self { cluster, lab, found: claim.found().clone(), record: claim.record().clone(), kernels })
    }

    /// The cluster's.
    pub fn layout(&self) -> &Layout {
        self.cluster.layout()
    }

    /// Does what is wished for, until it is that everything ends.
    pub async fn keep(&mut self, control: &mut ControlSocket) {
        while let Some(Asked { wish, answer }) = control.next().await {
            if wish == Wish::Down {
                // Who does not wait for the answer gets what they wanted all the same.
                answer.send(Answer::Done("going down".to_owned())).ok();
                return;
            }
            let said = self.carry_out(wish).await;
            answer.send(said).ok();
        }
    }

    /// Ends the cluster's processes.
    pub async fn stop(self) {
        self.cluster.stop().await;
    }

    async fn carry_out(&mut self, wish: Wish) -> Answer {
        let done = match wish {
            Wish::Status => return Answer::Status(Box::new(self.status())),
            Wish::Link(change) => self.change(&change),
            Wish::Heal { from, to } => self.set(&from, &to, Shape::default()),
            Wish::HealAll => self.heal_all(),
            Wish::Host { name, cut } => self.set_host(&name, cut),
            Wish::Process { name, act } => self.act(&name, act).await,
            Wish::Down => unreachable!("whoever keeps it has ended before"),
        };
        done.map_or_else(Answer::Refused, Answer::Done)
    }

    fn change(&self, change: &LinkChange) -> Result<String, String> {
        let shape = change.applied(self.cluster.link(&change.from, &change.to))?;
        self.set(&change.from, &change.to, shape)
    }

    fn set(&self, from: &SiteName, to: &SiteName, shape: Shape) -> Result<String, String> {
        self.cluster.set_link(from, to, shape).map_err(|error| {
            let sites: Vec<_> = self.layout().sites.iter().map(SiteName::as_str).collect();
            format!("{error}; the sites are {}", sites.join(", "))
        })?;
        Ok(format!("{from} -> {to}: {shape}"))
    }

    fn heal_all(&self) -> Result<String, String> {
        self.cluster.heal_links().map_err(|error| error.to_string())?;
        Ok("all links are whole".to_owned())
    }

    fn set_host(&self, name: &str, cut: bool) -> Result<String, String> {
        let done = if cut { self.lab.cut_host(name) } else { self.lab.heal_host(name) };
        done.map_err(|error| match error {
            LabError::NoHost(_) => {
                let hosts = self.record.hosts.iter().filter(|host| host.site.is_some());
                let hosts: Vec<_> = hosts.map(|host| host.name.as_str()).collect();
                format!("there is no host `{name}` that can be cut off; there are: {}", hosts.join(", "))
            }
            other => other.to_string(),
        })?;
        Ok(format!("{name}: {}", if cut { "cut off" } else { "on the network" }))
    }

    /// Every direction between two sites.
    fn pairs(&self) -> impl Iterator<Item = (&SiteName, &SiteName)> {
        let sites = &self.layout().sites;
        sites
            .iter()
            .flat_map(move |from| sites.iter().map(move |to| (from, to)))
            .filter(|(from, to)| from != to)
    }

    async fn act(&mut self, name: &str, act: ProcessAct) -> Result<String, String> {
        let all = self.cluster.processes();
        let Some(process) = all.iter().find(|process| called(process) == name) else {
            let names: Vec<_> = all.iter().map(called).collect();
            return Err(format!("there is no process `{name}`; there are: {}", names.join(", ")));
        };
        if !self.cluster.runs(process) && act != ProcessAct::Start {
            return Err(format!("{process} does not run; `twinsite lab start {name}` starts it"));
        }
        let done = match act {
            ProcessAct::Kill => self.cluster.kill(process).await,
            ProcessAct::Freeze => self.cluster.freeze(process),
            ProcessAct::Thaw => self.cluster.thaw(process),
            ProcessAct::Start => self.cluster.start_process(process),
        };
        done.map_err(|error| error.to_string())?;
        let wanted = match act {
            ProcessAct::Kill => ProcessState::Gone,
            ProcessAct::Freeze => ProcessState::Frozen,
            ProcessAct::Thaw | ProcessAct::Start => ProcessState::Running,
        };
        let now = self.becomes(process, wanted).await;
        Ok(format!("{process}: {}", now.as_str()))
    }

    /// What a process does once it does what is wanted, or after [`OBEYS_WITHIN`]: a signal is sent before it is obeyed, by
    /// every thread when the scheduler next comes to it.
    async fn becomes(&mut self, process: &ProcessName, wanted: ProcessState) -> ProcessState {
        let deadline = Instant::now() + OBEYS_WITHIN;
        loop {
            let now = self.process(process).state;
            if now == wanted || Instant::now() > deadline {
                return now;
            }
            sleep(OBEYED_EVERY).await;
        }
    }

    fn status(&mut self) -> LabStatus {
        let places = self.record.hosts.clone();
        let hosts = places.into_iter().map(|place| {
            let processes = self.cluster.processes().into_iter();
            let processes = processes.filter(|process| process.host() == place.name);
            let processes =
                processes.collect::<Vec<_>>().iter().map(|process| self.process(process)).collect();
            let name = NodeName::new(place.name.as_str()).ok();
            let kernel = name.and_then(|name| self.kernels.get_mut(&name));
            // A kernel that does not tell is one that is not known.
            let floating = kernel.and_then(|kernel| kernel.look_closely().ok());
            let is_cut = self.lab.is_cut(&place.name);
            HostStatus { place, processes, is_cut, floating }
        });
        let hosts = hosts.collect();
        let links = self.pairs().map(|(from, to)| LinkStatus::of(from, to, self.cluster.link(from, to)));
        LabStatus {
            name: self.found.name.clone(),
            pid: self.record.keeper.pid,
            began_unix_ms: self.record.began_unix_ms,
            profile: self.record.profile,
            floating: self.record.floating,
            client_file: self.found.client_file(),
            directory: self.found.files(),
            hosts,
            links: links.collect(),
            links_ended: self.lab.links_ended().map(str::to_owned),
        }
    }

    fn process(&mut self, process: &ProcessName) -> ProcessStatus {
        let pid = if self.cluster.runs(process) { self.cluster.pids().of(process) } else { None };
        ProcessStatus {
            name: called(process),
            pid,
            state: pid.map_or(ProcessState::Gone, ProcessState::of),
            log: self.cluster.log(process),
        }
    }
}

/// What a person types for a process.
fn called(process: &ProcessName) -> String {
    match process {
        ProcessName::Guardian(node) => format!("{node}/guardian"),
        ProcessName::Node(_) | ProcessName::Instance(_) | ProcessName::Redis => process.host().to_owned(),
    }
}
