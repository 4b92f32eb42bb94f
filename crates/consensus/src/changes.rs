//! What subscribers see: one item for each applied revision.

use crate::error::StopReason;
use crate::status::LogIndex;
use arc_swap::ArcSwap;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{broadcast, watch};
use twinsite_model::{Event, NodeId, Revision, State};

/// One applied revision.
#[derive(Debug, Clone)]
pub struct Change {
    /// The revision.
    pub revision: Revision,
    /// What changed. Empty after a snapshot, which skips over revisions.
    pub events: Vec<Event>,
    /// The state at this revision.
    pub state: Arc<State>,
    /// Whether revisions before this one were skipped because a snapshot replaced the state.
    pub skipped: bool,
}

/// Changes from a point on. Bounded: a slow reader is told and never waited for.
#[derive(Debug)]
pub struct Subscription {
    changes: broadcast::Receiver<Arc<Change>>,
    after: Revision,
}

/// The reader was too slow and missed changes: take [`crate::Consensus::subscribe`]'s state and begin again there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{missed} changes were missed: subscribe again")]
pub struct Lagged {
    /// How many.
    pub missed: u64,
}

/// Why a subscription has nothing more to give.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SubscriptionEnd {
    /// The reader was too slow.
    #[error(transparent)]
    Lagged(#[from] Lagged),
    /// The consensus is gone.
    #[error("the consensus is gone")]
    Closed,
}

impl Subscription {
    /// The next change. After an error this subscription is useless.
    pub async fn next(&mut self) -> Result<Arc<Change>, SubscriptionEnd> {
        loop {
            match self.changes.recv().await {
                // Published between the subscription and the reading of the state that came with it.
                Ok(change) if change.revision <= self.after => {}
                Ok(change) => return Ok(change),
                Err(broadcast::error::RecvError::Lagged(missed)) => return Err(Lagged { missed }.into()),
                Err(broadcast::error::RecvError::Closed) => return Err(SubscriptionEnd::Closed),
            }
        }
    }
}

/// What the state machine makes known to the rest of the node.
pub(crate) struct Published {
    state: ArcSwap<State>,
    changes: broadcast::Sender<Arc<Change>>,
    /// One more than the index of the last applied entry; zero before the first.
    applied: watch::Sender<u64>,
    retired: Mutex<BTreeSet<u64>>,
    stopped: watch::Sender<Option<StopReason>>,
}

impl Published {
    pub(crate) fn new(capacity: usize) -> Self {
        Self {
            state: ArcSwap::from_pointee(State::default()),
            changes: broadcast::Sender::new(capacity),
            applied: watch::Sender::new(0),
            retired: Mutex::default(),
            stopped: watch::Sender::new(None),
        }
    }

    pub(crate) fn state(&self) -> Arc<State> {
        self.state.load_full()
    }

    /// The state now and everything that follows it.
    pub(crate) fn subscribe(&self) -> (Arc<State>, Subscription) {
        let changes = self.changes.subscribe();
        let state = self.state();
        let after = state.revision;
        (state, Subscription { changes, after })
    }

    pub(crate) fn publish(&self, change: Change) {
        self.state.store(Arc::clone(&change.state));
        let _nobody_listens = self.changes.send(Arc::new(change));
    }

    pub(crate) fn set_applied(&self, index: u64) {
        self.applied.send_replace(index + 1);
    }

    pub(crate) fn applied(&self) -> watch::Receiver<u64> {
        self.applied.subscribe()
    }

    pub(crate) fn applied_index(&self) -> Option<LogIndex> {
        self.applied.borrow().checked_sub(1).map(LogIndex)
    }

    pub(crate) fn set_retired(&self, retired: &BTreeSet<u64>) {
        self.retired.lock().unwrap_or_else(PoisonError::into_inner).clone_from(retired);
    }

    /// Whether the id belonged to a node that was removed, by the membership or by the specification.
    pub(crate) fn is_retired(&self, node: NodeId) -> bool {
        self.retired.lock().unwrap_or_else(PoisonError::into_inner).contains(&node.0)
            || self.state.load().retired_nodes.contains(&node)
    }

    /// Notes why the node stops; the first reason is the one that counts.
    pub(crate) fn stop(&self, reason: StopReason) {
        let is_first = self.stopped.send_if_modified(|stopped| {
            let is_first = stopped.is_none();
            stopped.get_or_insert_with(|| reason.clone());
            is_first
        });
        if is_first && reason != StopReason::Shutdown {
            tracing::error!(%reason, "the consensus stops");
        }
    }

    pub(crate) fn stopped(&self) -> Option<StopReason> {
        self.stopped.borrow().clone()
    }

    /// Resolves when there is a reason.
    pub(crate) async fn until_stopped(&self) -> StopReason {
        let mut stopped = self.stopped.subscribe();
        let reason = stopped.wait_for(Option::is_some).await;
        reason.ok().and_then(|reason| reason.clone()).unwrap_or(StopReason::Shutdown)
    }
}
