//! Whether a quorum is known to exist: this node's own, somebody else's, or nobody can tell (design section 5).

use crate::machine::Machine;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::watch;
use twinsite_consensus::Consensus;
use twinsite_model::{BootTime, State, Timing};
use twinsite_sessions::{ClusterView, Quorum};

/// What is known of a quorum. Clones share it.
#[derive(Clone, Default)]
pub struct QuorumWatch {
    /// When a leader last said that a quorum confirmed it; milliseconds of the boot clock, 0 for never.
    heard: Arc<AtomicU64>,
    view: watch::Sender<ClusterView>,
}

impl QuorumWatch {
    /// For session placement.
    pub fn view(&self) -> watch::Receiver<ClusterView> {
        self.view.subscribe()
    }

    /// A leader said that a quorum confirmed it a moment ago.
    pub fn heard<M: Machine>(&self) {
        self.heard.store(millis(M::boot_now()), Ordering::Relaxed);
    }

    /// How long ago a quorum was last known. `None`: never in this life.
    pub fn age<M: Machine>(&self) -> Option<Duration> {
        let heard = self.heard.load(Ordering::Relaxed);
        (heard > 0).then(|| Duration::from_millis(millis(M::boot_now()).saturating_sub(heard)))
    }

    /// Whether a quorum is known to exist now.
    pub fn is_known<M: Machine>(&self, timing: &Timing) -> bool {
        self.age::<M>().is_some_and(|age| age < patience(timing))
    }

    /// Looks at this node's own leadership, and at the clock.
    pub fn refresh<M: Machine>(&self, raft: &Consensus<M>, timing: &Timing) {
        if raft.status().borrow().is_leader
            && let Some(age) = raft.quorum_ack_age().filter(|age| *age < patience(timing))
        {
            let at = millis(M::boot_now()).saturating_sub(u64::try_from(age.as_millis()).unwrap_or(u64::MAX));
            self.heard.fetch_max(at, Ordering::Relaxed);
        }
        let quorum = if self.is_known::<M>(timing) { Quorum::Known } else { Quorum::Unknown };
        self.view.send_if_modified(|view| {
            let changed = view.quorum != quorum;
            view.quorum = quorum;
            changed
        });
    }

    /// A newer state was applied here.
    pub fn applied(&self, state: &State) {
        let token = state.session_token();
        self.view.send_if_modified(|view| {
            let changed = view.token != token;
            view.token = token;
            changed
        });
    }
}

/// An election in good order is no loss of the quorum.
fn patience(timing: &Timing) -> Duration {
    2 * timing.lease + timing.election_max
}

fn millis(at: BootTime) -> u64 {
    u64::try_from(at.0.as_millis()).unwrap_or(u64::MAX)
}
