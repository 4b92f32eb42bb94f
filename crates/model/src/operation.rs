//! The journal of a move of a floating IP (design section 7). Each step's start and result is in the replicated
//! state, so that a new leader resumes where the old one stopped.

use crate::ids::{FloatingIpName, Incarnation, NodeId, OperationId, Token};
use crate::state::Owner;
use crate::time::WallTime;
use std::fmt;

/// Why an address moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum OperationKind {
    /// The first owner ever, or a new one after a time without any.
    Placement,
    /// Unplanned, with a quorum, by the controller or by hand.
    Failover,
    /// Planned, both sides up.
    Switchover,
    /// Back to the preferred site, by policy.
    Failback,
    /// After a forced recovery.
    Forced,
}

impl OperationKind {
    /// The word for people and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Placement => "placement",
            Self::Failover => "failover",
            Self::Switchover => "switchover",
            Self::Failback => "failback",
            Self::Forced => "forced-failover",
        }
    }

    /// Whether the old owner is emptied before it lets go.
    pub const fn drains(self) -> bool {
        matches!(self, Self::Switchover | Self::Failback)
    }
}

/// What made the controller, or a person, decide.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// There was no owner.
    NoOwner,
    /// The owner's guardian reported the end of its process.
    OwnerReleased,
    /// The owner has not renewed for the length of a lease.
    OwnerSilent,
    /// The owner's node lives again under a new incarnation.
    OwnerRestarted,
    /// No upstream of the owner's site is healthy, and the other site is better.
    SiteUnhealthy,
    /// The owner's node or site is no longer in the specification, or may no longer own.
    OwnerIneligible,
    /// A person asked.
    Operator,
    /// The preferred site has been well for the agreed time.
    Preference,
    /// The first placement after a forced recovery.
    Recovery,
    /// The owner was stopped in good order, and let go itself.
    OwnerStopped,
}

impl Reason {
    /// The word for people and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NoOwner => "no-owner",
            Self::OwnerReleased => "owner-released",
            Self::OwnerSilent => "owner-silent",
            Self::OwnerRestarted => "owner-restarted",
            Self::SiteUnhealthy => "site-unhealthy",
            Self::OwnerIneligible => "owner-ineligible",
            Self::Operator => "operator",
            Self::Preference => "preference",
            Self::Recovery => "recovery",
            Self::OwnerStopped => "owner-stopped",
        }
    }
}

/// The steps of a move, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Step {
    /// Evidence weighed, target chosen, rules asked.
    Decide,
    /// Planned moves only: the old owner finishes what runs.
    Drain,
    /// The old owner can no longer act: it released, or every lease of it has ended.
    Fence,
    /// The target has the new token.
    Move,
    /// The target is seen to hold the address.
    Observe,
    /// The meeting instances announce the right address.
    Announce,
    /// Seen from outside: the address answers with the new token.
    Verify,
}

impl Step {
    /// All steps in order.
    pub const ALL: [Self; 7] =
        [Self::Decide, Self::Drain, Self::Fence, Self::Move, Self::Observe, Self::Announce, Self::Verify];

    /// The word for people and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Decide => "decide",
            Self::Drain => "drain",
            Self::Fence => "fence",
            Self::Move => "move",
            Self::Observe => "observe",
            Self::Announce => "announce",
            Self::Verify => "verify",
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// How a step ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StepResult {
    /// As wanted.
    Done,
    /// Nothing to do.
    Skipped,
    /// Its time ran out; the operation goes on where that is safe, and says so.
    TimedOut,
}

impl StepResult {
    /// The word for people and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Skipped => "skipped",
            Self::TimedOut => "timed-out",
        }
    }
}

/// How the old owner was kept from acting. A fence is complete for exactly one token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fence {
    /// There was no owner to fence.
    NoOwner,
    /// Its holder (or its guardian, after the process had ended) said so; terminal for its token.
    Released,
    /// `W` has passed since the last grant, or since the leader's election.
    LeaseEnded,
    /// A person attested that the machine is off (forced failover only).
    Attested,
}

impl Fence {
    /// The word for people and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NoOwner => "no-owner",
            Self::Released => "released",
            Self::LeaseEnded => "lease-ended",
            Self::Attested => "attested",
        }
    }
}

/// A rule that guards moves. A person may override one by naming it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SafetyRule {
    /// The target's site has enough healthy upstreams.
    TargetHealthy,
    /// The target reaches the session store.
    TargetReachesStore,
    /// The target is heard, is ready and may own.
    TargetReady,
    /// Automatic moves are not paused.
    NotPaused,
    /// The breaker is closed.
    BreakerClosed,
}

impl SafetyRule {
    /// All rules.
    pub const ALL: [Self; 5] = [
        Self::TargetHealthy,
        Self::TargetReachesStore,
        Self::TargetReady,
        Self::NotPaused,
        Self::BreakerClosed,
    ];

    /// The word for people, logs and `--override`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TargetHealthy => "target-healthy",
            Self::TargetReachesStore => "target-reaches-store",
            Self::TargetReady => "target-ready",
            Self::NotPaused => "not-paused",
            Self::BreakerClosed => "breaker-closed",
        }
    }

    /// The rule with this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|rule| rule.as_str() == name)
    }
}

/// How an operation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Outcome {
    /// The address is at the target, seen from outside.
    Verified,
    /// The address is at the target; the proof from outside is missing.
    Unverified,
    /// Called off before the target had the token.
    Aborted,
}

impl Outcome {
    /// The word for people and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Verified => "verified",
            Self::Unverified => "unverified",
            Self::Aborted => "aborted",
        }
    }
}

/// One entry of the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepRecord {
    /// The step.
    pub step: Step,
    /// When it began (leader's wall clock).
    pub started: WallTime,
    /// When and how it ended.
    pub finished: Option<(WallTime, StepResult)>,
    /// One line about it.
    pub detail: String,
}

/// A move of a floating IP, from decision to proof.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation {
    /// Its id: the revision at which it began.
    pub id: OperationId,
    /// The address.
    pub ip: FloatingIpName,
    /// What kind of move.
    pub kind: OperationKind,
    /// Why.
    pub reason: Reason,
    /// What was seen, a line each.
    pub evidence: Vec<String>,
    /// Who held the address.
    pub from: Option<Owner>,
    /// Who shall hold it.
    pub target: NodeId,
    /// The life of the target that shall hold it.
    pub target_incarnation: Incarnation,
    /// Who asked: `controller`, or a person's certificate name.
    pub by: String,
    /// Safety rules that were overridden by name.
    pub overrides: Vec<SafetyRule>,
    /// How the old owner was fenced, once it was.
    pub fence: Option<Fence>,
    /// The target's token, once it has one.
    pub token: Option<Token>,
    /// The steps so far, in order.
    pub steps: Vec<StepRecord>,
    /// When and how it ended.
    pub ended: Option<(WallTime, Outcome)>,
}

impl Operation {
    /// The record of a step, if it has begun.
    pub fn step(&self, step: Step) -> Option<&StepRecord> {
        self.steps.iter().find(|record| record.step == step)
    }

    /// The step under way: the first that has begun and not ended.
    pub fn current(&self) -> Option<Step> {
        self.steps.iter().find(|record| record.finished.is_none()).map(|record| record.step)
    }
}
