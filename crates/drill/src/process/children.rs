//! Processes in one group, and the reaper that ends the group with the runner.

use super::ProcessError;
use crate::lab;
use rustix::process::{Pid, Signal, kill_process, kill_process_group, setpriority_process};
use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::process::{Child, ChildStdin, Command};
use tokio::time::timeout;
use twinsite_model::{NodeName, UpstreamName};

/// How long a killed process may take to be gone.
const DEATH_TIMEOUT: Duration = Duration::from_secs(10);
/// How much of a log is shown when its process has failed, in bytes.
const TAIL_BYTES: usize = 2_000;

/// One process of a cluster.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum ProcessName {
    /// A node.
    Node(NodeName),
    /// The guardian of a node.
    Guardian(NodeName),
    /// A meeting instance.
    Instance(UpstreamName),
    /// The cluster's own Redis.
    Redis,
}

impl ProcessName {
    /// The host that it runs on, in a lab.
    pub fn host(&self) -> &str {
        match self {
            Self::Node(name) | Self::Guardian(name) => name.as_str(),
            Self::Instance(name) => name.as_str(),
            Self::Redis => lab::REDIS,
        }
    }
}

impl fmt::Display for ProcessName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(name) => write!(f, "node {name}"),
            Self::Guardian(name) => write!(f, "guardian of {name}"),
            Self::Instance(name) => write!(f, "meeting instance {name}"),
            Self::Redis => f.write_str("redis"),
        }
    }
}

/// The numbers of the running processes, for those who look at the kernel's tables.
#[derive(Debug, Clone, Default)]
pub struct PidTable(Arc<Mutex<BTreeMap<ProcessName, u32>>>);

impl PidTable {
    fn change(&self, change: impl FnOnce(&mut BTreeMap<ProcessName, u32>)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// All running processes.
    pub fn all(&self) -> Vec<(ProcessName, u32)> {
        let table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        table.iter().map(|(name, pid)| (name.clone(), *pid)).collect()
    }

    /// A running process's number.
    pub fn of(&self, process: &ProcessName) -> Option<u32> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(process).copied()
    }

    /// Notes a process. For backends that start processes in other ways.
    pub fn insert(&self, name: ProcessName, pid: u32) {
        self.change(|table| {
            table.insert(name, pid);
        });
    }
}

#[derive(Debug)]
struct Running {
    child: Child,
    log: PathBuf,
    /// Held, because closing it tells the process to end.
    #[cfg_attr(not(test), allow(dead_code))]
    stdin: Option<ChildStdin>,
}

impl Running {
    fn pid(&self) -> Option<Pid> {
        self.child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?))
    }
}

/// The processes of a cluster.
#[derive(Debug)]
pub(super) struct Children {
    reaper: Running,
    group: Pid,
    running: BTreeMap<ProcessName, Running>,
    pids: PidTable,
}

impl Children {
    /// Starts the reaper, and with it the group.
    pub(super) fn new() -> io::Result<Self> {
        let mut command = Command::new("/bin/sh");
        // `kill 0` means the whole group, the shell included; frozen members too.
        command.args(["-c", "cat >/dev/null 2>&1; kill -KILL 0"]);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
        let mut child = command.spawn()?;
        let stdin = child.stdin.take();
        let reaper = Running { child, log: PathBuf::new(), stdin };
        let group = reaper.pid().ok_or_else(|| io::Error::other("the reaper ended at once"))?;
        Ok(Self { reaper, group, running: BTreeMap::new(), pids: PidTable::default() })
    }

    pub(super) fn pids(&self) -> &PidTable {
        &self.pids
    }

    /// Starts a process whose output is appended to `log`. It ends when `with_stdin` and the runner ends.
    pub(super) fn spawn(
        &mut self,
        name: &ProcessName,
        mut command: Command,
        log: &Path,
        with_stdin: bool,
    ) -> Result<(), ProcessError> {
        let program = command.as_std().get_program().to_string_lossy().into_owned();
        let failed = |source| ProcessError::Spawn { process: name.clone(), program, source };
        let output = fs::OpenOptions::new().create(true).append(true).open(log);
        let spawned = output.and_then(|output| {
            command.stdin(if with_stdin { Stdio::piped() } else { Stdio::null() });
            command.stdout(output.try_clone()?).stderr(output);
            command.process_group(self.group.as_raw_nonzero().get()).kill_on_drop(true);
            command.spawn()
        });
        let mut child = spawned.map_err(failed)?;
        let stdin = child.stdin.take();
        if let Some(pid) = child.id() {
            self.pids.insert(name.clone(), pid);
        }
        self.running.insert(name.clone(), Running { child, log: log.to_owned(), stdin });
        Ok(())
    }

    /// Whether the process runs (or is frozen).
    pub(super) fn runs(&mut self, name: &ProcessName) -> bool {
        self.running.get_mut(name).is_some_and(|running| matches!(running.child.try_wait(), Ok(None)))
    }

    /// The first process that has ended by itself, if any.
    pub(super) fn ended(&mut self) -> Option<ProcessError> {
        self.running.iter_mut().find_map(|(name, running)| {
            let status = running.child.try_wait().ok()??;
            Some(ProcessError::Ended {
                process: name.clone(),
                status: status.to_string(),
                log: running.log.clone(),
                tail: tail(&running.log),
            })
        })
    }

    /// All that have ended by themselves, and how.
    pub(super) fn ended_by_themselves(&mut self) -> Vec<(ProcessName, ExitStatus)> {
        let ended = |(name, running): (&ProcessName, &mut Running)| {
            let status = running.child.try_wait().ok()??;
            Some((name.clone(), status))
        };
        self.running.iter_mut().filter_map(ended).collect()
    }

    /// Changes how a process that has just been started, and the threads that it starts from now on, are preferred by the
    /// scheduler. Who may not do that leaves it as it is.
    pub(super) fn set_nice(&self, name: &ProcessName, nice: i32) {
        if let Some(pid) = self.running.get(name).and_then(Running::pid) {
            setpriority_process(Some(pid), nice).ok();
        }
    }

    /// Sends a signal; to a process that has ended, nothing.
    pub(super) fn signal(&mut self, name: &ProcessName, signal: Signal) -> Result<(), ProcessError> {
        let running = self.running.get(name).ok_or_else(|| ProcessError::Unknown(name.clone()))?;
        let Some(pid) = running.pid() else { return Ok(()) };
        // Not reaped yet, so the number still means this process.
        kill_process(pid, signal).map_err(|error| failed(name, error.into()))
    }

    /// Ends a process at once and waits until it is gone.
    pub(super) async fn kill(&mut self, name: &ProcessName) -> Result<(), ProcessError> {
        self.end(name, Signal::KILL, DEATH_TIMEOUT).await.map(drop)
    }

    /// Asks a process to end, and ends it when it has not done so `within` the time. Says how it ended.
    pub(super) async fn end(
        &mut self,
        name: &ProcessName,
        signal: Signal,
        within: Duration,
    ) -> Result<Option<ExitStatus>, ProcessError> {
        if !self.running.contains_key(name) {
            return Ok(None);
        }
        self.signal(name, signal)?;
        let Some(mut running) = self.running.remove(name) else { return Ok(None) };
        let waited = timeout(within, running.child.wait()).await;
        self.pids.change(|table| {
            table.remove(name);
        });
        if let Ok(status) = waited {
            status.map(Some).map_err(|source| failed(name, source))
        } else {
            running.child.start_kill().map_err(|source| failed(name, source))?;
            running.child.wait().await.map(Some).map_err(|source| failed(name, source))
        }
    }

    /// Ends everything, the reaper included.
    pub(super) async fn end_all(&mut self) {
        // An error means that the group is gone already.
        kill_process_group(self.group, Signal::KILL).ok();
        for running in self.running.values_mut().chain([&mut self.reaper]) {
            timeout(DEATH_TIMEOUT, running.child.wait()).await.ok();
        }
        self.running.clear();
        self.pids.change(BTreeMap::clear);
    }

    /// Does to the reaper what the runner's death does.
    #[cfg(test)]
    pub(super) fn close_reaper_input(&mut self) {
        self.reaper.stdin = None;
    }
}

impl Drop for Children {
    fn drop(&mut self) {
        kill_process_group(self.group, Signal::KILL).ok();
    }
}

fn failed(name: &ProcessName, source: io::Error) -> ProcessError {
    ProcessError::Signal { process: name.clone(), source }
}

fn tail(log: &Path) -> String {
    let text = fs::read(log).unwrap_or_default();
    let start = text.len().saturating_sub(TAIL_BYTES);
    String::from_utf8_lossy(&text[start..]).trim_end().to_owned()
}
