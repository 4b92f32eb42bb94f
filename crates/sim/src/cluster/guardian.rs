//! The guardian of one machine's node, reduced to what the others see of it: it ends a node that hangs, takes what was
//! held off the kernel when the node's process has ended, and has the real `tell` say so.

use super::kernel::Kernel;
use super::net::End;
use crate::runtime::{ProcessId, SimRuntime, spawn};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use twinsite_agents::{Guarded, Machine, tell};
use twinsite_consensus::AsyncRuntime;
use twinsite_controller::{Release, ReleasedBy};
use twinsite_floating_ip::guardian::{GuardianError, Holding};
use twinsite_model::{BootTime, FloatingIpName, Incarnation, Token};

#[derive(Debug, Clone, Copy)]
struct Entry {
    token: Token,
    incarnation: Incarnation,
    /// When a node that has not said more by then is ended.
    overdue: BootTime,
}

#[derive(Default)]
struct Watched {
    entries: BTreeMap<FloatingIpName, Entry>,
    /// The node's process is to be ended.
    hangs: bool,
}

/// A guardian, as long as its machine has power.
#[derive(Clone)]
pub(super) struct Guardian {
    process: ProcessId,
    kernel: Kernel,
    end: End,
    speaks_too_soon: bool,
    watched: Arc<Mutex<Watched>>,
    again: Arc<Notify>,
}

impl Guardian {
    /// Watches from now on, in a process of its own.
    pub(super) fn start(process: ProcessId, kernel: Kernel, end: End, speaks_too_soon: bool) -> Self {
        let this =
            Self { process, kernel, end, speaks_too_soon, watched: Arc::default(), again: Arc::default() };
        drop(spawn(process, this.clone().watch()));
        this
    }

    fn watched(&self) -> MutexGuard<'_, Watched> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Finds out that the node hangs.
    async fn watch(self) {
        loop {
            let next = self.watched().entries.values().map(|entry| entry.overdue).min();
            let now = SimRuntime::boot_now();
            if next.is_some_and(|next| next <= now) {
                self.watched().hangs = true;
            }
            let wait =
                next.filter(|next| *next > now).map_or(Duration::from_secs(60), |next| next.since(now));
            tokio::select! {
                biased;
                () = self.again.notified() => {}
                () = SimRuntime::sleep(wait) => {}
            }
        }
    }

    /// Whether the node is to be ended now.
    pub(super) fn takes_it_to_hang(&self) -> bool {
        std::mem::take(&mut self.watched().hangs)
    }

    /// The process of the node has ended, and it notices after a moment.
    pub(super) fn node_ended(&self, incarnation: Incarnation, after: Duration) {
        let this = self.clone();
        drop(spawn(self.process, async move {
            SimRuntime::sleep(after).await;
            this.clear(incarnation);
        }));
    }

    /// Takes everything off the kernel that a life of the node held, and tells the cluster. Before the next life at the
    /// latest.
    pub(super) fn clear(&self, ended: Incarnation) {
        let entries: Vec<_> =
            self.watched().entries.extract_if(.., |_, entry| entry.incarnation <= ended).collect();
        for (ip, entry) in entries {
            if !self.speaks_too_soon {
                self.kernel.silence(&ip, Some(entry.token));
            }
            let release = Release {
                ip,
                node: self.end.node,
                incarnation: entry.incarnation,
                token: entry.token,
                by: ReleasedBy::Guardian,
            };
            drop(spawn(self.process, tell::<SimRuntime, _>(self.end.clone(), release)));
        }
    }

    /// Whether this token is watched over.
    pub(super) fn knows(&self, ip: &FloatingIpName, token: Token) -> bool {
        self.watched().entries.get(ip).is_some_and(|entry| entry.token == token)
    }

    /// The line that one life of the node has to it.
    pub(super) fn line(&self, incarnation: Incarnation) -> Line {
        Line { guardian: self.clone(), incarnation }
    }
}

/// What a life of the node tells its guardian.
pub(super) struct Line {
    guardian: Guardian,
    incarnation: Incarnation,
}

impl Guarded for Line {
    fn holding(&self, holding: Holding, until: BootTime, slack: Duration) -> Result<(), GuardianError> {
        let (token, incarnation) = (holding.token, self.incarnation);
        let entry = Entry { token, incarnation, overdue: until - slack };
        self.guardian.watched().entries.insert(holding.ip, entry);
        self.guardian.again.notify_one();
        Ok(())
    }

    fn released(&self, ip: &FloatingIpName, token: Token) -> Result<(), GuardianError> {
        self.guardian.watched().entries.retain(|name, entry| name != ip || entry.token > token);
        Ok(())
    }
}
