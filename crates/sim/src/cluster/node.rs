//! A machine with a node on it: real consensus, simulated everything below.

use super::disk::SimDisk;
use super::net::{End, Net};
use crate::runtime::{Executor, MachineId, ProcessId, SimRuntime, spawn};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use twinsite_consensus::{Consensus, Disk, Options, StartError};
use twinsite_model::NodeId;

/// The consensus as it runs here.
pub(super) type Raft = Consensus<SimRuntime>;

/// What a process has come to.
#[derive(Clone)]
pub(super) enum Life {
    /// It reads its disk.
    Starting,
    /// It takes part, or is about to.
    Running(Raft),
    /// It refused to start.
    Refused(StartError),
}

/// A machine, its disk, and the process of its node.
pub(super) struct Node {
    pub(super) id: NodeId,
    pub(super) machine: MachineId,
    pub(super) disk: SimDisk,
    pub(super) process: Option<ProcessId>,
    /// How often it was started.
    pub(super) lives: u64,
    life: Arc<Mutex<Life>>,
    net: Net,
}

impl Node {
    pub(super) fn new(id: NodeId, machine: MachineId, disk: SimDisk, net: Net) -> Self {
        Self { id, machine, disk, process: None, lives: 0, life: Arc::new(Mutex::new(Life::Starting)), net }
    }

    /// Starts a process on what the disk holds.
    pub(super) fn start(&mut self, options: Options) {
        let process = Executor::add_process(self.machine);
        self.process = Some(process);
        self.lives += 1;
        let life = Arc::new(Mutex::new(Life::Starting));
        self.life = Arc::clone(&life);
        let (net, id) = (self.net.clone(), self.id);
        let disk: Arc<dyn Disk> = Arc::new(self.disk.clone());
        drop(spawn(process, async move {
            let end = End { net: net.clone(), node: id };
            let begun = match Raft::start(options, disk, end).await {
                Ok(raft) => {
                    net.attach(id, process, raft.inbound());
                    Life::Running(raft)
                }
                Err(error) => Life::Refused(error),
            };
            *life.lock().unwrap_or_else(PoisonError::into_inner) = begun;
        }));
    }

    /// Kills the process. Says how many batches the disk lost.
    pub(super) fn kill(&mut self) -> usize {
        let Some(process) = self.process.take() else { return 0 };
        self.net.detach(self.id);
        Executor::kill(process);
        *self.life() = Life::Starting;
        self.disk.crash()
    }

    pub(super) fn freeze(&self, frozen: bool) {
        if let Some(process) = self.process {
            Executor::freeze(process, frozen);
        }
    }

    fn life(&self) -> MutexGuard<'_, Life> {
        self.life.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The consensus, if the process has one.
    pub(super) fn raft(&self) -> Option<Raft> {
        match &*self.life() {
            Life::Running(raft) => Some(raft.clone()),
            Life::Starting | Life::Refused(_) => None,
        }
    }

    /// Why it would not start.
    pub(super) fn refusal(&self) -> Option<String> {
        match &*self.life() {
            Life::Refused(error) => Some(error.to_string()),
            Life::Starting | Life::Running(_) => None,
        }
    }
}
