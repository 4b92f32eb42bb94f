//! How the consensus stands, for people and for hints. Nothing safe can be decided by it.

use crate::changes::Published;
use crate::error::StopReason;
use crate::raft_types::{LogId, Types};
use openraft::{AsyncRuntime, RaftMetrics, ServerState};
use std::collections::BTreeMap;
use std::fmt;
use twinsite_model::NodeId;

/// A place in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct LogIndex(pub u64);

impl fmt::Display for LogIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// What part a member has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemberRole {
    /// It votes.
    Voter,
    /// It only receives the log.
    Learner,
}

/// A member as this node sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberStatus {
    /// Where it listens, before translation.
    pub address: String,
    /// Its part.
    pub role: MemberRole,
    /// The last entry that it is known to have on disk. Only a leader knows.
    pub matched: Option<LogIndex>,
}

/// How the consensus stands on this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RaftStatus {
    /// This node.
    pub node: NodeId,
    /// Whether it takes part: not before the voters' lease that may have been granted to its former life is over.
    pub started: bool,
    /// Why it does not take part any more.
    pub stopped: Option<StopReason>,
    /// The term.
    pub term: u64,
    /// Who leads, as far as this node knows.
    pub leader: Option<NodeId>,
    /// Whether this node believes that it leads. A hint: a cut-off leader goes on believing.
    pub is_leader: bool,
    /// The last entry of its log.
    pub last_log: Option<LogIndex>,
    /// The last entry that it knows to be committed.
    pub committed: Option<LogIndex>,
    /// The last entry that it applied.
    pub applied: Option<LogIndex>,
    /// The last entry in its snapshot.
    pub snapshot: Option<LogIndex>,
    /// The last entry that it removed from the log.
    pub purged: Option<LogIndex>,
    /// The members.
    pub members: BTreeMap<NodeId, MemberStatus>,
    /// Whether a change of the membership is half done: two sets of voters count, or this one is not committed yet.
    pub is_changing: bool,
}

impl RaftStatus {
    /// The voters.
    pub fn voters(&self) -> impl Iterator<Item = NodeId> {
        self.members.iter().filter(|(_, member)| member.role == MemberRole::Voter).map(|(node, _)| *node)
    }

    pub(crate) fn read<RT: AsyncRuntime>(
        metrics: &RaftMetrics<Types<RT>>,
        published: &Published,
        started: bool,
    ) -> Self {
        let index = |id: &Option<LogId>| id.as_ref().map(|id| LogIndex(id.index));
        let membership = metrics.membership_config.membership();
        let voters: Vec<_> = membership.voter_ids().collect();
        let member = |node: &u64, address: &str| MemberStatus {
            address: address.to_owned(),
            role: if voters.contains(node) { MemberRole::Voter } else { MemberRole::Learner },
            matched: metrics
                .replication
                .as_ref()
                .and_then(|matched| matched.get(node))
                .and_then(|id| id.as_ref().map(|id| LogIndex(id.index))),
        };
        let stopped = published.stopped();
        Self {
            node: NodeId(metrics.id),
            started,
            is_leader: metrics.state == ServerState::Leader && stopped.is_none(),
            leader: metrics.current_leader.map(NodeId),
            stopped,
            term: metrics.current_term,
            last_log: metrics.last_log_index.map(LogIndex),
            committed: index(&metrics.local_committed),
            applied: published.applied_index(),
            snapshot: index(&metrics.snapshot),
            purged: index(&metrics.purged),
            members: membership
                .nodes()
                .map(|(node, address)| (NodeId(*node), member(node, &address.0)))
                .collect(),
            // One that is not committed yet may be undone by the next leader.
            is_changing: membership.get_joint_config().len() > 1
                || index(metrics.membership_config.log_id()) > index(&metrics.local_committed),
        }
    }
}
