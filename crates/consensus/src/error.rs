//! What can go wrong, by what was asked. `retryable()` says whether the same call may succeed later.

use crate::disk::DiskError;
use std::time::Duration;
use twinsite_model::{Generation, NodeId};

/// Why the node no longer takes part in the consensus. It never comes back by itself: the process must end.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StopReason {
    /// Somebody called `shutdown`.
    #[error("the node was shut down")]
    Shutdown,
    /// The disk failed or is full. Nothing was acknowledged that is not on it.
    #[error("the consensus stopped because of its disk: {0}")]
    Disk(#[source] DiskError),
    /// A committed entry cannot be read by this version.
    #[error(
        "committed log entry {index} cannot be decoded ({why}): this program is older than the one that wrote it, \
         or faulty; install the newer version and start again"
    )]
    Undecodable {
        /// Its place in the log.
        index: u64,
        /// What the decoder said.
        why: String,
    },
    /// A forced recovery went on without this node. Its log may hold what the cluster has given up, and its owners may
    /// own what is owned elsewhere by now.
    #[error(
        "this node is of generation {ours}, and a forced recovery went on without it as generation {theirs}: move \
         its data directory away and let this machine join again under a new node id"
    )]
    Superseded {
        /// This node's.
        ours: Generation,
        /// The cluster's.
        theirs: Generation,
    },
    /// Something inside failed that should not.
    #[error("the consensus stopped: {0}")]
    Internal(String),
}

impl StopReason {
    /// Whether starting again can never help. A supervisor must not restart into it.
    pub const fn is_lasting(&self) -> bool {
        match self {
            Self::Disk(error) => error.is_lasting(),
            Self::Superseded { .. } => true,
            Self::Shutdown | Self::Undecodable { .. } | Self::Internal(_) => false,
        }
    }
}

/// Why the node cannot start.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StartError {
    /// The disk cannot be used.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The options contradict each other.
    #[error("the consensus cannot start: {0}")]
    Options(String),
    /// The log cannot be applied.
    #[error(transparent)]
    Stopped(#[from] StopReason),
}

impl StartError {
    /// Whether starting again can never help. A supervisor must not restart into it.
    pub const fn is_lasting(&self) -> bool {
        match self {
            Self::Disk(error) => error.is_lasting(),
            Self::Stopped(reason) => reason.is_lasting(),
            Self::Options(_) => false,
        }
    }
}

/// Why a proposal was not (or perhaps not) carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// This node does not lead; it was certainly not carried out.
    #[error("this node is not the leader{}", hint(*.leader))]
    NotLeader {
        /// Who does, if known.
        leader: Option<NodeId>,
    },
    /// This node leads but no quorum has confirmed it lately; certainly not carried out. Try again *here*, soon.
    #[error("no quorum has confirmed this leader lately")]
    LeaseNotYetHeld,
    /// Too many proposals wait already; certainly not carried out.
    #[error("too many proposals are waiting")]
    Busy,
    /// Certainly not carried out: it is larger than the protocol carries.
    #[error("the command is {bytes} bytes; the most is {max}")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The most.
        max: usize,
    },
    /// It may or may not be carried out, now or later. Repeat it with the same request id, or look at the state.
    #[error("it is unknown whether the command was carried out")]
    OutcomeUnknown,
    /// The node stopped.
    #[error(transparent)]
    Stopped(#[from] StopReason),
}

impl ProposeError {
    /// Whether the same call, on this or another node, may succeed. [`Self::OutcomeUnknown`] counts, because
    /// commands carry a request id or are idempotent.
    pub fn retryable(&self) -> bool {
        !matches!(self, Self::TooLarge { .. } | Self::Stopped(_))
    }

    /// Whether it is certain that nothing happened and nothing will.
    pub fn certainly_not_done(&self) -> bool {
        !matches!(self, Self::OutcomeUnknown | Self::Stopped(_))
    }
}

/// Why a read cannot be answered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// This node does not lead.
    #[error("this node is not the leader{}", hint(*.leader))]
    NotLeader {
        /// Who does, if known.
        leader: Option<NodeId>,
    },
    /// No quorum answered in time.
    #[error("no quorum answered in time")]
    NoQuorum,
    /// The node stopped.
    #[error(transparent)]
    Stopped(#[from] StopReason),
}

impl ReadError {
    /// Whether the same call, on this or another node, may succeed.
    pub fn retryable(&self) -> bool {
        !matches!(self, Self::Stopped(_))
    }
}

/// Why waiting ended before what was waited for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WaitError {
    /// Time ran out.
    #[error("it did not happen in time")]
    TimedOut,
    /// The node stopped.
    #[error(transparent)]
    Stopped(#[from] StopReason),
}

/// Why the membership was not (or perhaps not) changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MembershipError {
    /// This node does not lead.
    #[error("this node is not the leader{}", hint(*.leader))]
    NotLeader {
        /// Who does, if known.
        leader: Option<NodeId>,
    },
    /// The cluster has members already.
    #[error("the cluster has been initialised already")]
    AlreadyInitialised,
    /// The initial members do not include this node.
    #[error("this node is not among the initial members")]
    NotAmongMembers,
    /// Another change is running.
    #[error("another change of the membership is running")]
    InProgress,
    /// The id belonged to a node that was removed.
    #[error("node id {0} belonged to a node that was removed: take a new one")]
    Retired(NodeId),
    /// There is such a member already.
    #[error("node {0} is a member already")]
    AlreadyMember(NodeId),
    /// There is no such member.
    #[error("node {0} is not a member")]
    NotMember(NodeId),
    /// The learner has not caught up.
    #[error("node {node} is {behind} log entries behind: wait until it has caught up")]
    NotCaughtUp {
        /// The node.
        node: NodeId,
        /// How far.
        behind: u64,
    },
    /// The last voter cannot be removed.
    #[error("the last voter cannot be removed")]
    LastVoter,
    /// It may or may not have happened: look at the status.
    #[error("it is unknown whether the membership changed: look at the members")]
    OutcomeUnknown,
    /// openraft declined for a reason that the checks above should have caught.
    #[error("the membership cannot be changed: {0}")]
    Declined(String),
    /// The node stopped.
    #[error(transparent)]
    Stopped(#[from] StopReason),
}

impl MembershipError {
    /// Whether the same call, on this or another node, may succeed later.
    pub fn retryable(&self) -> bool {
        matches!(
            self,
            Self::NotLeader { .. } | Self::InProgress | Self::NotCaughtUp { .. } | Self::OutcomeUnknown
        )
    }
}

/// Why leadership was not handed over.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TransferError {
    /// This node does not lead.
    #[error("this node is not the leader{}", hint(*.leader))]
    NotLeader {
        /// Who does, if known.
        leader: Option<NodeId>,
    },
    /// The target has no vote.
    #[error("node {0} is not a voter")]
    NotVoter(NodeId),
    /// The target did not answer just now. Nothing was tried.
    #[error("node {0} does not answer")]
    Unreachable(NodeId),
    /// The target answers, but so late that others would stand for election before it has taken over. Nothing was tried.
    #[error("node {node} does not answer within {} ms, and would take over too late", .within.as_millis())]
    TooSlow {
        /// The node.
        node: NodeId,
        /// In what time it would have had to.
        within: Duration,
    },
    /// The target lacks entries. Nothing was tried.
    #[error("node {node} is {behind} log entries behind")]
    NotCaughtUp {
        /// The node.
        node: NodeId,
        /// How far.
        behind: u64,
    },
    /// It was tried, and the target did not take over; an election is under way.
    #[error("node {0} did not take over")]
    Failed(NodeId),
    /// The node stopped.
    #[error(transparent)]
    Stopped(#[from] StopReason),
}

impl TransferError {
    /// Whether the same call, on this or another node, may succeed later.
    pub fn retryable(&self) -> bool {
        !matches!(self, Self::NotVoter(_) | Self::Stopped(_))
    }
}

fn hint(leader: Option<NodeId>) -> String {
    leader.map(|leader| format!("; node {leader} is")).unwrap_or_default()
}
