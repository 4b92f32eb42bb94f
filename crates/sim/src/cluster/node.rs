//! A machine with a node on it: real consensus, controller and agents, simulated everything below.

use super::Mistake;
use super::disk::SimDisk;
use super::guardian::Guardian;
use super::kernel::Kernel;
use super::net::{End, Net};
use super::process::{Birth, Raft, Running, begin};
use crate::runtime::{Executor, MachineId, ProcessId, spawn};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use twinsite_consensus::{Disk, DiskError, StartError};
use twinsite_model::{Format, Incarnation, NodeId};

/// What a process has come to.
#[derive(Clone)]
pub(super) enum Life {
    /// It reads its disk.
    Starting,
    /// It takes part, or is about to.
    Running(Running),
    /// It refused to start.
    Refused(StartError),
    /// Something of it has ended that must not: a panic, as a rule.
    Broken(String),
    /// It has ended in good order.
    Ended,
}

/// A machine, its disk and kernel, its guardian, and the process of its node.
pub(super) struct Node {
    pub(super) id: NodeId,
    pub(super) machine: MachineId,
    pub(super) disk: SimDisk,
    pub(super) kernel: Kernel,
    pub(super) end: End,
    pub(super) process: Option<ProcessId>,
    /// The newest format that the program reads that is installed.
    pub(super) format: Format,
    /// The same of the program that was started last: an upgrade counts from the next start.
    pub(super) runs_format: Format,
    /// How often it was started.
    pub(super) lives: u64,
    guardian: Option<(ProcessId, Guardian)>,
    life: Arc<Mutex<Life>>,
}

impl Node {
    pub(super) fn new(
        id: NodeId,
        machine: MachineId,
        disk: SimDisk,
        net: &Net,
        known: BTreeSet<NodeId>,
    ) -> Self {
        Self {
            id,
            machine,
            disk,
            kernel: Kernel::new(machine),
            end: End::new(net.clone(), id, known),
            process: None,
            format: Format::NEWEST,
            runs_format: Format::NEWEST,
            lives: 0,
            guardian: None,
            life: Arc::new(Mutex::new(Life::Starting)),
        }
    }

    /// With a program of this age.
    pub(super) fn reading(self, format: Format) -> Self {
        Self { format, ..self }
    }

    /// This life.
    pub(super) fn incarnation(&self) -> Incarnation {
        Incarnation(self.lives)
    }

    /// The guardian; one is started if the machine has none.
    pub(super) fn guardian(&mut self, speaks_too_soon: bool) -> Guardian {
        let (machine, kernel, end) = (self.machine, self.kernel.clone(), self.end.clone());
        let (_, guardian) = self.guardian.get_or_insert_with(|| {
            let process = Executor::add_process(machine);
            (process, Guardian::start(process, kernel, end, speaks_too_soon))
        });
        guardian.clone()
    }

    /// Starts a process on what the disk holds. `birth` is what is said to it.
    pub(super) fn start(
        &mut self,
        mistake: Option<Mistake>,
        birth: impl FnOnce(ProcessId, Incarnation, Guardian) -> Birth,
    ) {
        let process = Executor::add_process(self.machine);
        self.process = Some(process);
        self.runs_format = self.format;
        let guardian = self.guardian(mistake == Some(Mistake::GuardianSpeaksTooSoon));
        guardian.clear(self.incarnation());
        self.lives += 1;
        let birth = birth(process, self.incarnation(), guardian);
        let life = Arc::new(Mutex::new(Life::Starting));
        self.life = Arc::clone(&life);
        let disk: Arc<dyn Disk> = Arc::new(self.disk.clone());
        drop(spawn(process, async move {
            let become_ = |to| *life.lock().unwrap_or_else(PoisonError::into_inner) = to;
            match begin(birth, disk).await {
                Ok(running) => {
                    let supervisor = running.supervisor.clone();
                    become_(Life::Running(running));
                    let failed = supervisor.failed().await;
                    become_(Life::Broken(failed.to_string()));
                }
                Err(error) => become_(Life::Refused(error)),
            }
        }));
    }

    /// Asks the process to end in good order.
    pub(super) fn end(&self) {
        let (Some(process), Life::Running(running)) = (self.process, self.life().clone()) else { return };
        let (life, me) = (Arc::clone(&self.life), self.id);
        drop(spawn(process, async move {
            running.end(me).await;
            *life.lock().unwrap_or_else(PoisonError::into_inner) = Life::Ended;
        }));
    }

    /// The process ends where it stands, and the guardian notices after a moment. Says how many batches the disk lost.
    pub(super) fn kill(&mut self, noticed_after: Duration) -> usize {
        let Some(process) = self.process.take() else { return 0 };
        self.end.net.detach(self.id);
        Executor::kill(process);
        *self.life() = Life::Starting;
        if let Some((_, guardian)) = &self.guardian {
            guardian.node_ended(self.incarnation(), noticed_after);
        }
        self.disk.crash()
    }

    /// The power of the machine is cut. Says how many batches the disk lost.
    pub(super) fn power_off(&mut self) -> usize {
        if let Some((guardian, _)) = self.guardian.take() {
            Executor::kill(guardian);
        }
        self.kernel.power_off();
        self.kill(Duration::ZERO)
    }

    pub(super) fn freeze(&self, frozen: bool) {
        if let Some(process) = self.process {
            Executor::freeze(process, frozen);
        }
    }

    fn life(&self) -> MutexGuard<'_, Life> {
        self.life.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What runs, if the process is that far.
    pub(super) fn running(&self) -> Option<Running> {
        match &*self.life() {
            Life::Running(running) => Some(running.clone()),
            _ => None,
        }
    }

    /// The consensus, if the process has one.
    pub(super) fn raft(&self) -> Option<Raft> {
        self.peek(Raft::clone)
    }

    /// Looks at the consensus, if the process has one, without a handle of its own.
    pub(super) fn peek<T>(&self, look: impl FnOnce(&Raft) -> T) -> Option<T> {
        match &*self.life() {
            Life::Running(running) => Some(look(&running.raft)),
            _ => None,
        }
    }

    /// Why it would not start.
    pub(super) fn refusal(&self) -> Option<String> {
        match &*self.life() {
            Life::Refused(error) => Some(error.to_string()),
            _ => None,
        }
    }

    /// Whether it would not start because its disk is damaged.
    pub(super) fn is_damaged(&self) -> bool {
        matches!(&*self.life(), Life::Refused(StartError::Disk(DiskError::Damaged { .. })))
    }

    /// What has broken in it.
    pub(super) fn broken(&self) -> Option<String> {
        match &*self.life() {
            Life::Broken(why) => Some(why.clone()),
            _ => None,
        }
    }

    /// Whether it has ended in good order.
    pub(super) fn has_ended(&self) -> bool {
        matches!(&*self.life(), Life::Ended)
    }

    /// Whether the guardian takes it to hang.
    pub(super) fn hangs(&self) -> bool {
        self.guardian.as_ref().is_some_and(|(_, guardian)| guardian.takes_it_to_hang())
    }
}
