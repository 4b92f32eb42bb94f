//! Handing leadership over, with the hole that a failure leaves bounded.
//!
//! From the moment a transfer is tried, the old leader takes no commands and sends no heartbeats, and openraft gives it
//! no way back (a leader ignores `trigger().elect`). If the target never stands, the timers end the hole: after one
//! `election_max` without a heartbeat the voters' lease is over, and whoever's turn it is stands (`turns.rs`). Hence:
//! ask the target first, and require that it answers quickly and has everything, so that a hole is rare.

use crate::consensus::Consensus;
use crate::error::TransferError;
use crate::raft_types::{LogId, Types};
use openraft::async_runtime::watch::WatchReceiver;
use openraft::{AsyncRuntime, Instant, RaftMetrics, ServerState};
use std::time::Duration;
use twinsite_model::NodeId;

/// The request to take over, the votes and the first word of the new leader are two round trips, and the voters' timers
/// run meanwhile: if one of them ends first, two stand at once. A third round trip is for what varies.
const ROUND_TRIPS: u32 = 3;

impl<RT: AsyncRuntime> Consensus<RT> {
    /// Hands leadership to a voter that has caught up and answers quickly just now.
    pub async fn transfer_leadership(&self, to: NodeId) -> Result<(), TransferError> {
        let timing = self.shared.options.timing;
        let term = self.check_transfer(to)?;
        if to == self.node() {
            return Ok(());
        }

        let asked_at = RT::Instant::now();
        self.raft.trigger().heartbeat().await.map_err(|fatal| self.stop_reason(&fatal))?;
        let answers = |metrics: &RaftMetrics<Types<RT>>| {
            let acked = metrics.heartbeat.as_ref().and_then(|all| all.get(&to.0).copied().flatten());
            acked.is_some_and(|acked| *acked >= asked_at)
        };
        if !self.metrics_become(timing.election_min, answers).await {
            return Err(TransferError::Unreachable(to));
        }
        let within = timing.election_min / ROUND_TRIPS;
        if RT::Instant::now() - asked_at > within {
            return Err(TransferError::TooSlow { node: to, within });
        }
        let complete = |metrics: &RaftMetrics<Types<RT>>| {
            let matched: Option<LogId> =
                metrics.replication.as_ref().and_then(|all| all.get(&to.0).copied().flatten());
            matched.map(|id| id.index) >= metrics.last_log_index
        };
        if !self.metrics_become(timing.election_min, complete).await {
            return Err(TransferError::NotCaughtUp { node: to, behind: self.behind(to) });
        }
        self.check_transfer(to)?;

        self.raft.trigger().transfer_leader(to.0).await.map_err(|fatal| self.stop_reason(&fatal))?;
        let done = |metrics: &RaftMetrics<Types<RT>>| {
            metrics.current_term > term && metrics.current_leader.is_some()
        };
        if self.metrics_become(timing.election_max, done).await {
            let leader = self.raft.metrics().borrow_watched().current_leader;
            return if leader == Some(to.0) { Ok(()) } else { Err(TransferError::Failed(to)) };
        }
        // The old leader can do nothing about it any more; another voter's turn comes now.
        Err(TransferError::Failed(to))
    }

    /// The term in which this node leads, if `to` may take over.
    fn check_transfer(&self, to: NodeId) -> Result<u64, TransferError> {
        if let Some(reason) = self.shared.published.stopped() {
            return Err(reason.into());
        }
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        if metrics.state != ServerState::Leader {
            let leader = metrics.current_leader.map(NodeId).filter(|leader| *leader != self.node());
            return Err(TransferError::NotLeader { leader });
        }
        if !metrics.membership_config.membership().voter_ids().any(|voter| voter == to.0) {
            return Err(TransferError::NotVoter(to));
        }
        Ok(metrics.current_term)
    }

    async fn metrics_become(
        &self,
        timeout: Duration,
        wanted: impl Fn(&RaftMetrics<Types<RT>>) -> bool + Send + Sync,
    ) -> bool {
        let mut metrics = self.raft.metrics();
        let becoming = async {
            loop {
                if wanted(&metrics.borrow_watched()) {
                    return true;
                }
                if metrics.changed().await.is_err() {
                    return false;
                }
            }
        };
        RT::timeout(timeout, becoming).await.unwrap_or(false)
    }
}
