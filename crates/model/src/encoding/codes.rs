//! The numbers of enumerations on disk. A number is never given to another meaning; zero is never used, so that a
//! forgotten field is seen.

use super::DecodeError;
use crate::operation::{Fence, OperationKind, Outcome, Reason, SafetyRule, Step, StepResult};
use crate::state::Verdict;

/// An enumeration with numbers for the disk.
pub(super) trait Coded: Copy + PartialEq + Sized + 'static {
    /// What it is, for errors.
    const WHAT: &'static str;
    /// Every value with its number.
    const CODES: &'static [(u32, Self)];

    /// The number.
    fn code(self) -> u32 {
        Self::CODES.iter().find(|(_, value)| *value == self).map_or(0, |(code, _)| *code)
    }

    /// The value with this number.
    fn from_code(code: u32) -> Result<Self, DecodeError> {
        let found = Self::CODES.iter().find(|(known, _)| *known == code);
        found.map(|(_, value)| *value).ok_or(DecodeError::Unknown(Self::WHAT))
    }
}

macro_rules! codes {
    ($name:ident, $what:literal, $($code:literal => $value:ident),+ $(,)?) => {
        impl Coded for $name {
            const WHAT: &'static str = $what;
            const CODES: &'static [(u32, Self)] = &[$(($code, Self::$value)),+];
        }

        // Fails to compile when a value is added to the enumeration and forgotten here.
        const _: fn($name) = |value| match value {
            $($name::$value)|+ => {}
        };
    };
}

codes!(Verdict, "a verdict", 1 => Unknown, 2 => Healthy, 3 => Unhealthy, 4 => Draining);
codes!(
    OperationKind, "a kind of operation",
    1 => Placement, 2 => Failover, 3 => Switchover, 4 => Failback, 5 => Forced,
);
codes!(
    Reason, "a reason",
    1 => NoOwner, 2 => OwnerReleased, 3 => OwnerSilent, 4 => OwnerRestarted, 5 => SiteUnhealthy,
    6 => OwnerIneligible, 7 => Operator, 8 => Preference, 9 => Recovery,
);
codes!(
    Step, "a step",
    1 => Decide, 2 => Drain, 3 => Fence, 4 => Move, 5 => Observe, 6 => Announce, 7 => Verify,
);
codes!(StepResult, "a step's result", 1 => Done, 2 => Skipped, 3 => TimedOut);
codes!(Fence, "a kind of fence", 1 => NoOwner, 2 => Released, 3 => LeaseEnded, 4 => Attested);
codes!(
    SafetyRule, "a safety rule",
    1 => TargetHealthy, 2 => TargetReachesStore, 3 => TargetReady, 4 => NotPaused, 5 => BreakerClosed,
);
codes!(Outcome, "an outcome", 1 => Verified, 2 => Unverified, 3 => Aborted);
