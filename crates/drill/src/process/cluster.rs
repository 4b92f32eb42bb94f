//! The running cluster: start, break, repair, end.

use super::children::{Children, PidTable};
use super::files::Files;
use super::{Block, FilesError, Launcher, ProcessError, ProcessName, Progress, readiness};
use crate::lab::holding::{self, HostKernel};
use crate::lab::{self, Disk, Lab, LabError, Prober};
use crate::layout::{Ground, Layout, Shape, Store};
use crate::measure::kernel;
use crate::meeting::Answers;
use crate::wan::{self, Holder, Wan};
use rustix::process::Signal;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::process::Command;
use twinsite_model::{NodeName, Profile, SiteName, UpstreamName};

/// How long a new cluster may take until it is healthy.
const READY_PATIENCE: Duration = Duration::from_mins(1);
/// `RestartSec` of a node's unit.
const RESTART_AFTER: Duration = Duration::from_secs(1);
/// `RestartPreventExitStatus` of the same: damaged or foreign data.
const NOT_AGAIN: i32 = 78;
/// A node has a host of its own in reality; here it shares the processors with all others, and above all with hundreds of
/// clients, which must not keep it from renewing its lease.
const OWN_HOST_NICE: i32 = -10;
/// How long a process may take to end when it is asked to.
const END_PATIENCE: Duration = Duration::from_secs(15);

/// So much of what a process has written is kept when a drill fails, in bytes.
const LOG_KEPT: u64 = 256 * 1024;

/// What kind of cluster to start.
#[derive(Debug, Clone)]
pub struct ClusterOptions {
    /// The programs.
    pub launcher: Launcher,
    /// Where its files go; none for a new folder that is removed at the end.
    pub directory: Option<PathBuf>,
    /// The timings.
    pub profile: Profile,
    /// How many of what.
    pub shape: Shape,
    /// Where session placement is kept.
    pub store: Store,
    /// The network on which it runs; none for loopback addresses.
    pub lab: Option<Arc<Lab>>,
}

/// A process that had ended by itself and was started again.
#[derive(Debug, Clone)]
pub struct Restarted {
    /// Which.
    pub process: ProcessName,
    /// How it had ended.
    pub ended: ExitStatus,
}

impl fmt::Display for Restarted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.process, self.ended)
    }
}

/// The end of what a process wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// Whose, fit to be the name of a file.
    pub name: String,
    /// Its bytes.
    pub end: Vec<u8>,
}

/// A running cluster. [`Cluster::stop`] ends it in order; dropping it ends it at once.
#[derive(Debug)]
pub struct Cluster {
    layout: Layout,
    files: Files,
    launcher: Launcher,
    children: Children,
    /// When it was noticed of a process that it had ended by itself, until it is started.
    ended: BTreeMap<ProcessName, Instant>,
    wan: Wan,
    lab: Option<Arc<Lab>>,
    /// Of each node, if they have some of their own. Before the folder that they are in.
    disks: BTreeMap<NodeName, Disk>,
    _block: Arc<Block>,
    _temporary: Option<tempfile::TempDir>,
}

impl Cluster {
    /// Claims addresses, writes files, starts everything and waits until all is healthy.
    pub async fn start(
        options: ClusterOptions,
        progress: &mut (dyn FnMut(Progress) + Send),
    ) -> Result<Self, ProcessError> {
        let block = Arc::new(Block::claim()?);
        let ground = if options.lab.is_some() { Ground::Lab } else { Ground::Loopback };
        let mut layout = Layout::on(ground, block.number(), options.profile, &options.shape, options.store);
        if let Some(lab) = &options.lab {
            layout.cluster = lab.cluster().clone();
        }
        let (root, temporary) = if let Some(root) = options.directory {
            (root, None)
        } else {
            let made = tempfile::Builder::new()
                .prefix("twinsite-")
                .tempdir()
                .map_err(|source| FilesError::Write { path: std::env::temp_dir(), source })?;
            (made.path().to_owned(), Some(made))
        };
        // Absolute, because each process may look at it from elsewhere.
        let root = std::path::absolute(&root).map_err(|source| FilesError::Write { path: root, source })?;
        let files = Files::new(root);
        if options.shape.https {
            // Where the working directory cannot be told, the nodes say what is wrong with the path.
            let root = std::path::absolute(files.root());
            layout.https = Some(root.unwrap_or_else(|_| files.root().to_owned()));
        }
        files.write(&layout)?;
        let disks = match (&options.lab, options.shape.disk_mib) {
            (Some(_), Some(mib)) => disks(&layout, &files, mib)?,
            _ => BTreeMap::new(),
        };
        let children = Children::new().map_err(ProcessError::Reaper)?;
        let holder = holder(&layout, children.pids().clone());
        let wan = Wan::start(&layout.passages(), &layout.floating_passages(), &holder, &block)?;
        let mut cluster = Self {
            layout,
            files,
            launcher: options.launcher,
            children,
            ended: BTreeMap::new(),
            wan,
            lab: options.lab,
            disks,
            _block: block,
            _temporary: temporary,
        };
        cluster.bring_up(progress).await?;
        Ok(cluster)
    }

    async fn bring_up(&mut self, progress: &mut (dyn FnMut(Progress) + Send)) -> Result<(), ProcessError> {
        for process in self.processes() {
            self.start_process(&process)?;
        }
        let logs = self.files.root().to_owned();
        // What ends in its first minute has a reason, which is in its log.
        let mut none_has_ended = || self.children.ended().map_or(Ok(()), Err);
        readiness::wait(&self.layout, &logs, READY_PATIENCE, &mut none_has_ended, progress).await
    }

    /// Everything that belongs to the cluster, in the order of starting: what others need comes first.
    pub fn processes(&self) -> Vec<ProcessName> {
        let redis = (self.layout.store == Store::OwnRedis).then_some(ProcessName::Redis);
        let instances = self.layout.instances.iter().map(|one| ProcessName::Instance(one.name.clone()));
        let nodes = self.layout.nodes.iter().map(|node| &node.name);
        let nodes =
            nodes.flat_map(|name| [ProcessName::Guardian(name.clone()), ProcessName::Node(name.clone())]);
        redis.into_iter().chain(instances).chain(nodes).collect()
    }

    /// Who lives where.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The folder with all files: `cluster.toml`, `ca.pem`, `operator.pem`, `operator.key`, and one folder for
    /// each process with its log.
    pub fn directory(&self) -> &Path {
        self.files.root()
    }

    /// The file to which a process's output goes.
    pub fn log(&self, process: &ProcessName) -> PathBuf {
        let home = self.files.of(process.host());
        match process {
            ProcessName::Node(_) => home.join("node.log"),
            ProcessName::Guardian(_) => home.join("guardian.log"),
            ProcessName::Instance(_) => home.join("instance.log"),
            // Beside its folder, which is emptied with its data.
            ProcessName::Redis => home.with_extension("log"),
        }
    }

    /// The links between the sites.
    pub fn wan(&self) -> &Wan {
        &self.wan
    }

    /// The numbers of the running processes.
    pub fn pids(&self) -> &PidTable {
        self.children.pids()
    }

    /// The kernels of the hosts that may hold the floating address, in a lab.
    pub fn kernels(&self) -> Result<Vec<(NodeName, HostKernel)>, LabError> {
        self.lab.as_ref().map_or(Ok(Vec::new()), |lab| holding::of_owners(&self.layout, lab.hosts()))
    }

    /// Whether a process runs (or is frozen).
    pub fn runs(&mut self, process: &ProcessName) -> bool {
        self.children.runs(process)
    }

    /// Begins to ask every host whether it answers for the floating address; none outside of a lab.
    pub fn prober(&self) -> Result<Option<Prober>, ProcessError> {
        Ok(self.lab.as_ref().map(|lab| lab.prober(&self.layout)).transpose()?)
    }

    /// Waits until everything that is visible from outside is healthy, and starts what has ended by itself.
    pub async fn wait_healthy(&mut self, patience: Duration) -> Result<(), ProcessError> {
        let (layout, logs) = (self.layout.clone(), self.files.root().to_owned());
        readiness::wait(&layout, &logs, patience, &mut || self.tend().map(drop), &mut |_| ()).await
    }

    /// Starts what has ended by itself, like the node that its guardian had to end, as the units in `deploy/systemd` do:
    /// a second later, and never what must not be restarted. What was ended on purpose stays so, and what ended for its full
    /// disk, which would end it again each second; and full disks stay full. Says what was started.
    pub fn tend(&mut self) -> Result<Vec<Restarted>, ProcessError> {
        for node in self.disks.iter().filter(|(_, disk)| disk.is_full()).map(|(node, _)| node) {
            self.set_disk_full(node, true)?;
        }
        let mut started = Vec::new();
        for (process, status) in self.children.ended_by_themselves() {
            if status.code() == Some(NOT_AGAIN) || self.has_full_disk(&process) {
                continue;
            }
            let noticed = *self.ended.entry(process.clone()).or_insert_with(Instant::now);
            if noticed.elapsed() >= RESTART_AFTER {
                self.start_process(&process)?;
                started.push(Restarted { process, ended: status });
            }
        }
        Ok(started)
    }

    fn has_full_disk(&self, process: &ProcessName) -> bool {
        let ProcessName::Node(name) = process else { return false };
        self.disks.get(name).is_some_and(Disk::is_full)
    }

    /// The ends of what the nodes and guardians have written. What cannot be read is left out.
    pub fn logs(&self) -> Vec<Log> {
        let own = |process: &ProcessName| matches!(process, ProcessName::Node(_) | ProcessName::Guardian(_));
        let log = |process: ProcessName| {
            let end = end_of(&self.log(&process)).ok()?;
            Some(Log { name: process.to_string().replace(' ', "-"), end })
        };
        self.processes().into_iter().filter(own).filter_map(log).collect()
    }

    /// Starts a process that does not run.
    pub fn start_process(&mut self, process: &ProcessName) -> Result<(), ProcessError> {
        if self.children.runs(process) {
            return Ok(());
        }
        // Whoever starts it: it ends anew, if ever.
        self.ended.remove(process);
        let (command, with_stdin) = match process {
            ProcessName::Node(name) => {
                (self.launcher.node(&self.files.node_config(self.known_node(process, name)?)), true)
            }
            ProcessName::Guardian(name) => {
                (self.launcher.guardian(&self.files.node_config(self.known_node(process, name)?)), true)
            }
            ProcessName::Instance(name) => {
                let place = self.layout.instances.iter().find(|place| place.name == *name);
                let place = place.ok_or_else(|| ProcessError::Unknown(process.clone()))?;
                let (announced, answers) = (self.files.announced(name), self.files.answers(name));
                (self.launcher.meeting(place, &announced, &answers), true)
            }
            ProcessName::Redis => {
                self.own_redis()?;
                (self.launcher.redis(self.layout.redis(), &self.files.redis()), false)
            }
        };
        let log = self.log(process);
        let command = self.on_its_host(process, command);
        self.children.spawn(process, command, &log, with_stdin)?;
        if let ProcessName::Node(_) | ProcessName::Guardian(_) = process {
            self.children.set_nice(process, OWN_HOST_NICE);
        }
        Ok(())
    }

    fn on_its_host(&self, process: &ProcessName, command: Command) -> Command {
        if self.lab.is_none() {
            return command;
        }
        lab::on_host(process.host(), &command)
    }

    /// What a direction between two sites does to bytes.
    pub fn link(&self, from: &SiteName, to: &SiteName) -> wan::Shape {
        match &self.lab {
            None => self.wan.shape_of(from, to),
            Some(lab) => lab.link(from, to),
        }
    }

    /// Changes what a direction between two sites does to bytes.
    pub fn set_link(&self, from: &SiteName, to: &SiteName, shape: wan::Shape) -> Result<(), ProcessError> {
        match &self.lab {
            None => Ok(self.wan.shape(from, to, shape)?),
            Some(lab) => Ok(lab.set_link(from, to, shape)?),
        }
    }

    /// Makes all links whole, those of hosts too.
    pub fn heal_links(&self) -> Result<(), ProcessError> {
        self.wan.heal()?;
        let pairs =
            self.layout.sites.iter().flat_map(|from| self.layout.sites.iter().map(move |to| (from, to)));
        for (from, to) in pairs.filter(|(from, to)| self.link(from, to) != wan::Shape::default()) {
            self.set_link(from, to, wan::Shape::default())?;
        }
        if let Some(lab) = &self.lab {
            lab.heal_hosts()?;
        }
        Ok(())
    }

    /// Mends all that is no process: links, disks, and what instances were told.
    pub fn mend(&self) -> Result<(), ProcessError> {
        self.heal_links()?;
        for node in self.disks.keys() {
            self.set_disk_full(node, false)?;
        }
        for instance in &self.layout.instances {
            self.set_answers(&instance.name, Answers::Well)?;
        }
        Ok(())
    }

    /// Lets nothing pass to and from a node's host any more; nobody there is told.
    pub fn cut_host(&self, node: &NodeName) -> Result<(), ProcessError> {
        Ok(self.in_lab("cut-host")?.cut_host(node.as_str())?)
    }

    /// Removes every rule of the packet filter on a node's host.
    pub fn flush_firewall(&self, node: &NodeName) -> Result<(), ProcessError> {
        self.in_lab("flush-firewall")?;
        Ok(lab::flush_firewall(node.as_str())?)
    }

    fn in_lab(&self, fault: &'static str) -> Result<&Lab, ProcessError> {
        self.lab.as_deref().ok_or(ProcessError::NoLab(fault))
    }

    /// Leaves no room for a node's data, or makes room again.
    pub fn set_disk_full(&self, node: &NodeName, full: bool) -> Result<(), ProcessError> {
        let disk = self.disks.get(node).ok_or_else(|| ProcessError::NoDisk(node.clone()))?;
        let done = if full { disk.fill() } else { disk.free() };
        done.map_err(|source| ProcessError::Disk { node: node.clone(), source })
    }

    /// How an instance answers from now on.
    pub fn set_answers(&self, instance: &UpstreamName, answers: Answers) -> Result<(), ProcessError> {
        Ok(self.files.tell_answers(instance, answers)?)
    }

    fn known_node<'a>(
        &self,
        process: &ProcessName,
        name: &'a NodeName,
    ) -> Result<&'a NodeName, ProcessError> {
        self.layout.node(name).map(|_| name).ok_or_else(|| ProcessError::Unknown(process.clone()))
    }

    fn own_redis(&self) -> Result<(), ProcessError> {
        if self.layout.store == Store::OwnRedis { Ok(()) } else { Err(ProcessError::NotOurRedis) }
    }

    /// kill -9, and waits until the process is gone.
    pub async fn kill(&mut self, process: &ProcessName) -> Result<(), ProcessError> {
        self.children.kill(process).await
    }

    /// kill -9 of several at once: all signals are sent before the first wait, in this order.
    pub async fn kill_all(&mut self, processes: &[ProcessName]) -> Result<(), ProcessError> {
        for process in processes {
            if self.children.runs(process) {
                self.children.signal(process, Signal::KILL)?;
            }
        }
        for process in processes {
            self.children.kill(process).await?;
        }
        Ok(())
    }

    /// Asks a process to end, as an orderly stop does, and waits for it.
    pub async fn terminate(&mut self, process: &ProcessName) -> Result<(), ProcessError> {
        self.children.end(process, Signal::TERM, END_PATIENCE).await.map(drop)
    }

    /// Stops a process in its tracks; it does not notice.
    pub fn freeze(&mut self, process: &ProcessName) -> Result<(), ProcessError> {
        self.children.signal(process, Signal::STOP)
    }

    /// Lets a frozen process go on, if it still lives.
    pub fn thaw(&mut self, process: &ProcessName) -> Result<(), ProcessError> {
        if self.children.runs(process) { self.children.signal(process, Signal::CONT) } else { Ok(()) }
    }

    /// Empties the cluster's own Redis.
    pub async fn flush_redis(&self) -> Result<(), ProcessError> {
        self.tell_redis(&redis::cmd("FLUSHALL")).await
    }

    /// Makes the cluster's own Redis the replica of nobody, which answers what it knows and refuses to write; or lets it
    /// write again.
    pub async fn set_redis_replica(&self, replica: bool) -> Result<(), ProcessError> {
        let mut command = redis::cmd("REPLICAOF");
        if replica {
            // Of its own host's first port, where nobody listens.
            command.arg(self.layout.redis().ip().to_string()).arg(1);
        } else {
            command.arg("NO").arg("ONE");
        }
        self.tell_redis(&command).await
    }

    async fn tell_redis(&self, command: &redis::Cmd) -> Result<(), ProcessError> {
        self.own_redis()?;
        let client = redis::Client::open(format!("redis://{}/0", self.layout.redis()))?;
        let mut connection = client.get_multiplexed_async_connection().await?;
        command.exec_async(&mut connection).await?;
        Ok(())
    }

    /// Runs the offline recovery on a stopped survivor and returns what it said.
    pub async fn recover(
        &mut self,
        survivor: &NodeName,
        lost: &[NodeName],
        attest: bool,
    ) -> Result<String, ProcessError> {
        let process = ProcessName::Node(survivor.clone());
        let config = self.files.node_config(self.known_node(&process, survivor)?);
        let mut command = self.launcher.recover(&config, lost, attest);
        command.stdin(std::process::Stdio::null()).kill_on_drop(true);
        let program = self.launcher.twinsite.display().to_string();
        let output =
            command.output().await.map_err(|source| ProcessError::Spawn { process, program, source })?;
        let said =
            [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).join("");
        if output.status.success() {
            Ok(said)
        } else {
            let status = output.status.to_string();
            Err(ProcessError::Recover { node: survivor.clone(), status, output: said })
        }
    }

    /// Ends everything, forgets all data, and starts anew at the same addresses.
    pub async fn rebuild(&mut self, progress: &mut (dyn FnMut(Progress) + Send)) -> Result<(), ProcessError> {
        let all = self.processes();
        self.kill_all(&all).await?;
        self.mend()?;
        self.files.wipe(&self.layout)?;
        self.bring_up(progress).await
    }

    /// Ends everything and removes the temporary folder.
    pub async fn stop(mut self) {
        self.children.end_all().await;
    }
}

/// A small disk for the data of each node.
fn disks(layout: &Layout, files: &Files, mib: u32) -> Result<BTreeMap<NodeName, Disk>, ProcessError> {
    let mount =
        |node: &crate::layout::NodePlace| Ok((node.name.clone(), Disk::mount(&files.data(&node.name), mib)?));
    layout.nodes.iter().map(mount).collect()
}

/// Finds the site that holds the floating address, in the kernel's table of sockets.
fn holder(layout: &Layout, pids: PidTable) -> Holder {
    let layout = layout.clone();
    // The same sockets have the same holder, and finding it walks every descriptor of every process.
    let known: Mutex<(BTreeSet<u64>, Option<SiteName>)> = Mutex::default();
    Arc::new(move || {
        let sockets = kernel::listening(layout.floating).ok().filter(|sockets| !sockets.is_empty())?;
        {
            let known = known.lock().unwrap_or_else(PoisonError::into_inner);
            if known.0 == sockets {
                return known.1.clone();
            }
        }
        let all = pids.all();
        let holder = all.into_iter().find_map(|(name, pid)| {
            let ProcessName::Node(node) = name else { return None };
            let site = layout.node(&node)?.site.clone();
            kernel::holds(pid, &sockets).then_some(site)
        })?;
        *known.lock().unwrap_or_else(PoisonError::into_inner) = (sockets, Some(holder.clone()));
        Some(holder)
    })
}

/// The end of a log, from the beginning of a line if it is long.
fn end_of(log: &Path) -> io::Result<Vec<u8>> {
    let mut file = File::open(log)?;
    let length = file.metadata()?.len();
    let skipped = length.saturating_sub(LOG_KEPT);
    file.seek(SeekFrom::Start(skipped))?;
    let mut end = Vec::new();
    file.take(LOG_KEPT).read_to_end(&mut end)?;
    if skipped > 0 {
        let line = end.iter().position(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        end.drain(..line);
    }
    Ok(end)
}
