//! What this node sees, told to whoever leads: at regular times, and at once when something changed that a failover
//! waits for.

use crate::brain::Brain;
use crate::machine::Machine;
use crate::peers::Peers;
use crate::quorum::QuorumWatch;
use std::collections::BTreeSet;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use twinsite_consensus::{Consensus, RaftStatus};
use twinsite_controller::NodeReport;
use twinsite_controller::report::report_interval;
use twinsite_model::{Fault, Faults, NodeId, Profile, State, Timing};

/// A full list of opinions goes with every so many reports.
const FULL_EVERY: u64 = 10;

/// Where a node's observations come from.
pub trait Observations: Send + 'static {
    /// What is seen now. `full`: with all opinions of upstreams, not only what changes often.
    fn report(&self, state: &State, seq: u64, full: bool) -> NodeReport;

    /// Ends when something changed that should be reported at once.
    fn changed(&mut self) -> impl Future<Output = Changed> + Send;
}

/// What changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Changed {
    /// An opinion of an upstream: the leader must have them all anew.
    Opinions,
    /// Anything else.
    Rest,
}

/// Whether the leader has this node's opinions.
///
/// Every report carries them all until one was taken by the leader of this very term (a new tenure begins knowing
/// nothing). All of them, because one that was overtaken on its way is answered and not used: then the one that overtook
/// it has brought the same.
#[derive(Clone, Default)]
struct Told(Arc<Mutex<Taken>>);

#[derive(Default)]
struct Taken {
    /// Grows whenever an opinion changes.
    version: u64,
    /// The leader and term that took them, and in which version.
    by: Option<((NodeId, u64), u64)>,
}

/// Opinions on their way.
struct Sent {
    told: Told,
    tenure: Option<(NodeId, u64)>,
    version: u64,
}

impl Told {
    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn changed(&self) {
        self.taken().version += 1;
    }

    fn is_owed(&self, tenure: Option<(NodeId, u64)>) -> bool {
        let taken = self.taken();
        if Faults::here().has(Fault::OpinionsToldOnce) {
            return taken.by.is_none_or(|(_, version)| version != taken.version);
        }
        tenure.is_none_or(|tenure| taken.by != Some((tenure, taken.version)))
    }

    /// What to note of opinions that are gathered and sent now.
    fn sending(&self, tenure: Option<(NodeId, u64)>) -> Sent {
        Sent { told: self.clone(), tenure, version: self.taken().version }
    }
}

impl Sent {
    fn taken(self) {
        if let Some(tenure) = self.tenure {
            let mut taken = self.told.taken();
            // An answer of an earlier term, or to earlier opinions, may come late.
            let rank = |by: ((NodeId, u64), u64)| (by.0.1, by.1);
            let given = (tenure, self.version);
            if taken.by.is_none_or(|by| rank(by) <= rank(given)) {
                taken.by = Some(given);
            }
        }
    }
}

/// Reports until cancelled.
pub struct Reporter<M: Machine, P: Peers, O: Observations> {
    /// This node.
    pub me: NodeId,
    /// The consensus.
    pub raft: Consensus<M>,
    /// This node's own controller, when it leads.
    pub brain: Brain,
    /// The way to whoever else leads.
    pub peers: P,
    /// What is known of a quorum.
    pub quorum: QuorumWatch,
    /// Where observations come from.
    pub observations: O,
}

impl<M: Machine, P: Peers, O: Observations> Reporter<M, P, O> {
    /// Reports until cancelled.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut status = self.raft.status();
        let mut seq = 0;
        let told = Told::default();
        loop {
            let timing = timing(&self.raft);
            seq += 1;
            let (leader, tenure) = {
                let status = status.borrow_and_update();
                (status.leader, status.leader.map(|leader| (leader, status.term)))
            };
            let full = told.is_owed(tenure)
                || (seq % FULL_EVERY == 0 && !Faults::here().has(Fault::OpinionsToldOnce));
            // Noted before they are gathered: what changes in between is owed again.
            let sent = full.then(|| told.sending(tenure));
            self.send(leader, self.observations.report(&self.raft.state(), seq, full), sent, &timing);
            self.quorum.refresh(&self.raft, &timing);
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                changed = self.observations.changed() => if changed == Changed::Opinions { told.changed() },
                () = leader_changes(&mut status, leader) => {}
                () = M::sleep(report_interval(&timing)) => {}
            }
        }
    }

    /// `full`: what to note when a report with all opinions was taken.
    fn send(&self, leader: Option<NodeId>, report: NodeReport, full: Option<Sent>, timing: &Timing) {
        let Some(leader) = leader else { return };
        if leader == self.me {
            if let (Ok(()), Some(full)) = (self.brain.report(report), full) {
                full.taken();
            }
            return;
        }
        let (peers, quorum, within) = (self.peers.clone(), self.quorum.clone(), timing.lease);
        drop(M::spawn(async move {
            let Ok(heard) = peers.report(leader, report, within).await else { return };
            if heard.has_quorum {
                quorum.heard::<M>();
            }
            if let Some(full) = full.filter(|_| heard.leads) {
                full.taken();
            }
        }));
    }
}

async fn leader_changes(status: &mut watch::Receiver<RaftStatus>, from: Option<NodeId>) {
    if status.wait_for(|status| status.leader != from).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// The timing in force, or the default one before there is a specification.
pub fn timing<M: Machine>(raft: &Consensus<M>) -> Timing {
    let state = raft.state();
    state.spec.as_ref().map_or_else(|| Timing::of(Profile::default()), |spec| spec.timing())
}

/// Pings every other node, so that everybody knows whom it could lead.
pub async fn listen_to_peers<M: Machine, P: Peers>(
    raft: Consensus<M>,
    peers: P,
    heard: Arc<Mutex<BTreeSet<NodeId>>>,
    stop: CancellationToken,
) {
    loop {
        let every = (timing(&raft).lease / 2).clamp(Duration::from_millis(100), Duration::from_secs(1));
        let others = peers.others();
        for node in &others {
            let (peers, heard, node) = (peers.clone(), Arc::clone(&heard), *node);
            drop(M::spawn(async move {
                let answered = peers.ping(node, every).await.is_ok();
                let mut heard = heard.lock().unwrap_or_else(PoisonError::into_inner);
                if answered {
                    heard.insert(node);
                } else {
                    heard.remove(&node);
                }
            }));
        }
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = M::sleep(every) => {}
        }
        heard.lock().unwrap_or_else(PoisonError::into_inner).retain(|node| others.contains(node));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opinions_are_owed_until_the_leader_of_this_term_took_the_newest() {
        let told = Told::default();
        let (first, second) = (Some((NodeId(1), 5)), Some((NodeId(1), 6)));
        assert!(told.is_owed(first));
        drop(told.sending(first));
        assert!(told.is_owed(first), "lost on its way");
        told.sending(first).taken();
        assert!(!told.is_owed(first));

        let late = told.sending(first);
        told.changed();
        late.taken();
        assert!(told.is_owed(first), "what was taken is older than the change");
        told.sending(first).taken();
        assert!(!told.is_owed(first));

        assert!(told.is_owed(second), "the same node's new tenure knows nothing");
        let late = told.sending(first);
        told.sending(second).taken();
        late.taken();
        assert!(!told.is_owed(second), "a late answer of the term before changes nothing");
        assert!(told.is_owed(None), "nobody leads");
    }
}
