//! Words: every enumeration of the model has its counterpart.

use super::Unknown;
use crate::v1;
use twinsite_model::ledger::Way;
use twinsite_model::{
    DrillOutcome, ErrandEnd, Fence, OperationKind, Outcome, Reason, Step, StepResult, Verdict,
};

macro_rules! mirror {
    ($(#[$meta:meta])* $to:ident, $from:ident, $model:ident, $wire:ident, { $($here:ident = $there:ident),+ $(,)? }) => {
        $(#[$meta])*
        pub const fn $to(value: $model) -> v1::$wire {
            match value { $($model::$here => v1::$wire::$there,)+ }
        }

        $(#[$meta])*
        pub const fn $from(value: v1::$wire) -> Result<$model, Unknown> {
            match value {
                $(v1::$wire::$there => Ok($model::$here),)+
                v1::$wire::Unspecified => Err(Unknown(stringify!($wire))),
            }
        }
    };
}

mirror! {
    /// A verdict.
    verdict_to_pb, verdict, Verdict, Verdict,
    { Unknown = Unknown, Healthy = Healthy, Unhealthy = Unhealthy, Draining = Draining }
}
mirror! {
    /// A kind of move.
    kind_to_pb, kind, OperationKind, OperationKind,
    { Placement = Placement, Failover = Failover, Switchover = Switchover, Failback = Failback, Forced = Forced }
}
mirror! {
    /// Why an address moves.
    reason_to_pb, reason, Reason, MoveReason,
    {
        NoOwner = NoOwner, OwnerReleased = OwnerReleased, OwnerSilent = OwnerSilent,
        OwnerRestarted = OwnerRestarted, SiteUnhealthy = SiteUnhealthy, OwnerIneligible = OwnerIneligible,
        Operator = Operator, Preference = Preference, Recovery = Recovery,
        OwnerStopped = OwnerStopped,
    }
}
mirror! {
    /// A step.
    step_to_pb, step, Step, Step,
    {
        Decide = Decide, Drain = Drain, Fence = Fence, Move = Move, Observe = Observe, Announce = Announce,
        Verify = Verify,
    }
}
mirror! {
    /// In which way an address left its owner.
    way_to_pb, way, Way, MoveWay,
    { Planned = Planned, Released = Released, Silent = Silent, Attested = Attested }
}
mirror! {
    /// How a step ended.
    result_to_pb, result, StepResult, StepResult, { Done = Done, Skipped = Skipped, TimedOut = TimedOut }
}
mirror! {
    /// How an errand ended.
    errand_end_to_pb, errand_end, ErrandEnd, ErrandEnd,
    {
        Accepted = Accepted, Refused = Refused, Unanswered = Unanswered, NotMade = NotMade,
        WaitedOut = WaitedOut,
    }
}
mirror! {
    /// How a drill ended.
    drill_outcome_to_pb, drill_outcome, DrillOutcome, DrillOutcome,
    { Passed = Passed, Failed = Failed, Aborted = Aborted, Abandoned = Abandoned }
}
mirror! {
    /// How an owner was fenced.
    fence_to_pb, fence, Fence, Fence,
    { NoOwner = NoOwner, Released = Released, LeaseEnded = Waited, Attested = Attested }
}
mirror! {
    /// How a move ended.
    outcome_to_pb, outcome, Outcome, Outcome,
    { Verified = Verified, Unverified = Unverified, Aborted = Aborted }
}
