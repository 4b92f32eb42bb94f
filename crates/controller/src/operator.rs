//! What people may ask of the controller, and what it answers.

use crate::rules::RuleResult;
use std::sync::Arc;
use std::time::Duration;
use twinsite_model::spec::NodeSpec;
use twinsite_model::{
    ClusterSpec, DrillId, DrillOutcome, FloatingIpName, Incarnation, NodeId, OperationId, Refusal, RequestId,
    Revision, SafetyRule, SiteName, UpstreamName,
};

/// A person's request, with what surrounds it.
#[derive(Debug, Clone, PartialEq)]
pub struct OperatorRequest {
    /// The person's certificate name.
    pub by: String,
    /// The caller's id of the request, so that a repetition is recognised.
    pub request: Option<RequestId>,
    /// Refuse unless the state is at this revision.
    pub expected_revision: Option<Revision>,
    /// What is wanted.
    pub action: OperatorAction,
}

/// What a person may want.
#[derive(Debug, Clone, PartialEq)]
pub enum OperatorAction {
    /// Move a floating IP.
    Move(MoveRequest),
    /// Call the running move of an address off.
    Abort {
        /// The address.
        ip: FloatingIpName,
        /// Why.
        detail: String,
    },
    /// Stop automatic moves for a while.
    Pause {
        /// For how long; the policy's default if not said.
        duration: Option<Duration>,
        /// Why.
        reason: String,
    },
    /// End the pause.
    Resume,
    /// Begin or end the draining of an upstream.
    SetDrain {
        /// The upstream.
        upstream: UpstreamName,
        /// Whether it shall drain.
        draining: bool,
        /// By when it should be empty.
        within: Option<Duration>,
    },
    /// Close the breaker by hand.
    ResetBreaker,
    /// Replace the specification, which was validated.
    ApplySpec(Arc<ClusterSpec>),
    /// Add or change a node of the specification.
    PutNode(NodeSpec),
    /// Take a node out of the specification for good.
    RetireNode(NodeId),
    /// Begin a drill, which a node runs for a person.
    BeginDrill {
        /// The scenario's name.
        name: String,
        /// The person.
        person: String,
        /// The node that runs it.
        runner: NodeId,
        /// The life of it.
        incarnation: Incarnation,
        /// How long it may last.
        within: Duration,
    },
    /// Ask for the end of the drill that runs.
    StopDrill {
        /// Why.
        reason: String,
    },
    /// Note how a drill ended.
    EndDrill {
        /// The drill.
        drill: DrillId,
        /// How.
        outcome: DrillOutcome,
        /// Its report as JSON.
        summary: String,
    },
}

/// A move wanted by a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MoveRequest {
    /// The address.
    pub ip: FloatingIpName,
    /// In which way.
    pub kind: MoveKind,
    /// Where to.
    pub to: MoveTarget,
    /// Safety rules to override, by name.
    pub overrides: Vec<SafetyRule>,
}

/// In which way an address is moved by hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MoveKind {
    /// Planned: the owner drains, then lets go.
    Switchover,
    /// The owner loses the right to renew at once.
    Failover,
    /// After a forced recovery: the owner of the lost generation is replaced.
    Forced {
        /// The person attested that the lost machines are off, so `W` is not waited for.
        attested: bool,
    },
}

/// Where an address shall go.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum MoveTarget {
    /// To the best candidate that is not the owner.
    Best,
    /// To this node.
    Node(NodeId),
    /// To the best candidate at this site.
    Site(SiteName),
}

/// What came of a request that was carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OperatorAnswer {
    /// It changed the state, which is now at this revision.
    Done {
        /// The revision.
        revision: Revision,
    },
    /// Things were already so.
    Unchanged {
        /// The revision of the state.
        revision: Revision,
    },
    /// The same request was carried out before.
    Repeated {
        /// At this revision.
        revision: Revision,
    },
    /// A move began; follow the operation.
    Began {
        /// The operation.
        operation: OperationId,
        /// The revision of the state.
        revision: Revision,
    },
}

/// Why a request was not carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OperatorRefusal {
    /// Another node leads.
    #[error("this node does not lead")]
    NotLeader,
    /// There is no specification yet.
    #[error("the cluster has no specification yet")]
    NoSpec,
    /// No such address.
    #[error("there is no floating IP `{0}`")]
    UnknownFloatingIp(FloatingIpName),
    /// No such node in the specification.
    #[error("there is no node {0}")]
    UnknownNode(NodeId),
    /// No such site, or it may not own the address.
    #[error("site `{0}` may not own this address")]
    UnknownSite(SiteName),
    /// The address is being moved already.
    #[error("operation {0} is moving this address already; follow it, or abort it")]
    OperationRunning(OperationId),
    /// A decision about the address is on its way to the log.
    #[error("a decision about `{0}` is on its way to the log; look again in a moment")]
    Deciding(FloatingIpName),
    /// Nothing is moving the address.
    #[error("nothing is moving `{0}`")]
    NoOperation(FloatingIpName),
    /// The target holds the address already.
    #[error("node {0} owns this address already")]
    AlreadyOwner(NodeId),
    /// No node can take the address.
    #[error("no node can take this address: {}", .0.join("; "))]
    NoCandidate(
        /// One line for each node that cannot.
        Vec<String>,
    ),
    /// The owner is not heard: a planned move would wait for nobody.
    #[error("the owner, node {0}, is not heard, so it cannot drain: use failover")]
    OwnerNotHeard(NodeId),
    /// Safety rules forbid it.
    #[error("forbidden by {}; name a rule to override it", failing(.0))]
    RulesFailed(
        /// All rules that were asked, the failing ones among them.
        Vec<RuleResult>,
    ),
    /// Forced moves only follow a forced recovery: the owner's token must be of an older generation.
    #[error("the owner's token is of the present generation: use failover, which needs no force")]
    NotRecovered,
    /// A node whose power-off was attested is heard.
    #[error("node {0} is heard, so it is not switched off")]
    AttestedNodeHeard(NodeId),
    /// No drill runs.
    #[error("no drill runs")]
    NoDrill,
    /// A drill is for a cluster that is well.
    #[error("no drill may begin: the cluster has alarms ({}); `twinsite status` shows them", .0.join(", "))]
    Unwell(
        /// Their names.
        Vec<&'static str>,
    ),
    /// The leader has not heard everybody yet.
    #[error("the leader is new, and has not heard everybody yet; try again in a moment")]
    LeaderYoung,
    /// The model refused the command.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// It certainly was not carried out; try again.
    #[error("the command was not carried out; try again")]
    NotDone,
    /// It may or may not have been carried out: look, or repeat it with the same request id.
    #[error("it is unknown whether the command was carried out: look, or repeat it with the same request id")]
    OutcomeUnknown,
}

impl OperatorRefusal {
    /// Whether the same request may succeed later, or at the leader, without anything being changed in it.
    pub fn retryable(&self) -> bool {
        match self {
            Self::NotLeader
            | Self::NoSpec
            | Self::OperationRunning(_)
            | Self::Deciding(_)
            | Self::NoCandidate(_)
            | Self::OwnerNotHeard(_)
            | Self::RulesFailed(_)
            | Self::Unwell(_)
            | Self::LeaderYoung
            | Self::NotDone
            | Self::OutcomeUnknown => true,
            Self::UnknownFloatingIp(_)
            | Self::UnknownNode(_)
            | Self::UnknownSite(_)
            | Self::NoOperation(_)
            | Self::AlreadyOwner(_)
            | Self::NotRecovered
            | Self::AttestedNodeHeard(_)
            | Self::NoDrill
            | Self::Refused(_) => false,
        }
    }
}

fn failing(results: &[RuleResult]) -> String {
    let failing = results.iter().filter(|result| !result.holds());
    failing
        .map(|result| format!("{} ({})", result.rule.as_str(), result.detail))
        .collect::<Vec<_>>()
        .join(", ")
}
