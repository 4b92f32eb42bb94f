//! `explain`: why things are as they are, with structured reasons.

use crate::rules::RuleResult;
use std::time::Duration;
use twinsite_model::{
    FloatingIpName, NodeId, NodeName, OperationId, OperationKind, Reason, SiteName, Step, Token, WallTime,
};

/// Everything that can be said about one address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// The address.
    pub ip: FloatingIpName,
    /// Whether the node that explains leads. If not, it knows the agreed state and no reports.
    pub by_leader: bool,
    /// The owner, and why it is the owner.
    pub owner: Option<OwnerExplanation>,
    /// The move under way.
    pub moving: Option<MovingExplanation>,
    /// Why nothing is being moved; empty while something is.
    pub quiet: Vec<QuietReason>,
    /// Whether the address could fail over now, if its owner died.
    pub failover: Forecast,
    /// Every node that may own, and whether it could own the address.
    pub candidates: Vec<CandidateExplanation>,
    /// How many more voters may fail with a quorum left. `None` when this node does not lead.
    pub tolerated_failures: Option<u32>,
}

/// The owner, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnerExplanation {
    /// The node.
    pub node: NodeId,
    /// Its name, if it is in the specification.
    pub name: Option<NodeName>,
    /// Its site.
    pub site: Option<SiteName>,
    /// Its token.
    pub token: Token,
    /// Since when.
    pub since: WallTime,
    /// Whether its right to renew was taken away.
    pub revoked: bool,
    /// The operation that made it the owner, if it is remembered, with its kind and reason.
    pub made_by: Option<(OperationId, OperationKind, Reason)>,
    /// How long ago this leader last granted it time. `None`: not in this leader's term.
    pub last_grant_age: Option<Duration>,
    /// Whether its reports are fresh.
    pub heard: bool,
}

/// The move under way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MovingExplanation {
    /// The operation.
    pub operation: OperationId,
    /// What kind.
    pub kind: OperationKind,
    /// Why.
    pub reason: Reason,
    /// Who shall own the address.
    pub target: NodeId,
    /// The step under way.
    pub step: Option<Step>,
    /// What is being waited for.
    pub waiting_for: String,
}

/// Why nothing is being moved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum QuietReason {
    /// This node does not lead: it decides nothing.
    NotLeader,
    /// The owner renews its lease, and its site has healthy upstreams.
    OwnerWell,
    /// The owner has been silent, and its lease may still hold for so long.
    LeaseMayHold {
        /// The longest that it may.
        remaining: Duration,
    },
    /// This leader is so young that it has not heard everybody.
    LeaderYoung {
        /// For how long it still waits.
        remaining: Duration,
    },
    /// The owner's site has no healthy upstream, and no other site is demonstrably better.
    NoSiteBetter,
    /// There is a reason to move, and a rule forbids it.
    RulesForbid {
        /// The reason to move.
        reason: Reason,
        /// The rules.
        rules: Vec<RuleResult>,
    },
    /// There is a reason to move, and nobody to move to.
    NoCandidate {
        /// The reason to move.
        reason: Reason,
    },
    /// Moves are only logged.
    ObserveOnly,
    /// A person called the last move off a short while ago.
    AbortedByHand,
    /// A proposal is under way.
    Proposing,
}

/// Whether, to whom and how fast an address could fail over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Forecast {
    /// Yes.
    Possible {
        /// To whom.
        target: NodeId,
        /// If the owner's process crashed and its guardian said so.
        within_after_crash: Duration,
        /// If the owner's whole machine fell silent.
        within_after_silence: Duration,
    },
    /// No.
    Impossible {
        /// The rules that forbid it, asked of the best candidate; empty when there is none.
        rules: Vec<RuleResult>,
        /// Why, a line each.
        why: Vec<String>,
    },
    /// Only the leader can tell.
    Unknown,
}

/// One node as a possible owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CandidateExplanation {
    /// The node.
    pub node: NodeId,
    /// Its rank among the candidates, 0 the best; `None` when it is none.
    pub rank: Option<u32>,
    /// Why it is none.
    pub unfit: Option<String>,
}
