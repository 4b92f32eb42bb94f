//! What an operator or the binary can choose, and what it means to openraft.

use crate::error::StartError;
use openraft::{Config, SnapshotPolicy};
use std::time::Duration;
use twinsite_model::{ClusterName, Format, NodeId, Timing};

/// How openraft's own election timer is set, which counts when standing in turn has led to no leader. Only the lower
/// end of its random part differs; the upper end is the voters' lease and must be the same everywhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ElectionBias {
    /// The agreed range.
    #[default]
    Normal,
    /// As late as it gets. For a witness: never barred, because it may hold the only newest log.
    Reluctant,
}

/// How the consensus of one node runs.
#[derive(Debug, Clone)]
pub struct Options {
    /// The cluster.
    pub cluster: ClusterName,
    /// This node.
    pub node: NodeId,
    /// The newest encoding that this program reads. What is written in a newer one ends it.
    pub format_max: Format,
    /// Heartbeat and election timeouts.
    pub timing: Timing,
    /// How late its election timer is.
    pub bias: ElectionBias,
    /// How long it keeps silent first. At least `election_max` less the age of the process: a voter that restarts
    /// has forgotten to whom it granted its lease, and must not vote until that is over.
    pub start_delay: Duration,
    /// How long a proposal may take before its outcome counts as unknown.
    pub propose_timeout: Duration,
    /// How long a read may wait for its quorum.
    pub read_timeout: Duration,
    /// Proposals that may wait at once.
    pub proposals_max: usize,
    /// Entries after which a snapshot is taken.
    pub snapshot_after: u64,
    /// Entries that are kept in the log after a snapshot, so that a peer that missed a little needs none.
    pub keep_after_snapshot: u64,
    /// Changes that a slow subscriber may be behind. Each may hold a copy of the state.
    pub subscription_capacity: usize,
}

impl Options {
    /// What a node uses unless told otherwise.
    pub fn new(cluster: ClusterName, node: NodeId, timing: Timing) -> Self {
        Self {
            cluster,
            node,
            format_max: Format::NEWEST,
            timing,
            bias: ElectionBias::default(),
            start_delay: timing.election_max,
            propose_timeout: 4 * timing.election_max,
            read_timeout: timing.election_max,
            proposals_max: 1_024,
            snapshot_after: 1_000,
            keep_after_snapshot: 200,
            subscription_capacity: 64,
        }
    }

    pub(crate) fn config(&self) -> Result<Config, StartError> {
        let ms = |duration: Duration| duration.as_millis() as u64;
        let (min, max) = (ms(self.timing.election_min), ms(self.timing.election_max));
        if min + 2 > max {
            return Err(StartError::Options(format!(
                "election_min ({min} ms) must be at least 2 ms below election_max ({max} ms)"
            )));
        }
        let election_timeout_min = match self.bias {
            ElectionBias::Normal => min,
            ElectionBias::Reluctant => max - 1,
        };
        let config = Config {
            cluster_name: self.cluster.to_string(),
            heartbeat_interval: ms(self.timing.heartbeat),
            election_timeout_min,
            election_timeout_max: max,
            // A node that was cut off must not unseat a healthy leader when it returns.
            enable_pre_vote: Some(true),
            // A restarted leader must be elected again: its former leadership proves nothing.
            enable_leader_restore: Some(false),
            // A peer that lost its log is another peer and needs another id.
            allow_log_reversion: Some(false),
            // An unreachable peer is tried again soon: it may be the one that completes a quorum.
            backoff: "20ms 40ms ...200ms".to_owned(),
            snapshot_policy: SnapshotPolicy::LogsSinceLast(self.snapshot_after),
            max_in_snapshot_log_to_keep: self.keep_after_snapshot,
            // Removing entries costs a commit on disk, so it is not done one by one.
            purge_batch_size: (self.snapshot_after / 10).max(1),
            install_snapshot_timeout: 10_000,
            max_payload_entries: 300,
            api_channel_size: Some(4_096),
            notification_channel_size: Some(16_384),
            ..Config::default()
        };
        config.validate().map_err(|error| StartError::Options(error.to_string()))
    }
}
