//! Deliberate mistakes, each the removal of one rule, so that tests and the simulation can show that they would
//! notice. Without the feature `seeded-faults` there are none, and asking costs nothing.

#[cfg(feature = "seeded-faults")]
use std::collections::BTreeSet;

/// One rule that is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fault {
    /// Grantor: a renewal is granted without any quorum round.
    GrantWithoutRound,
    /// Grantor: a renewal joins a round that began before it arrived.
    GrantFromOlderRound,
    /// Grantor: a proposed, not yet committed, revoke does not stop grants.
    GrantAfterProposedRevoke,
    /// Grantor: not even a committed revoke does.
    GrantAfterRevoke,
    /// Grantor: a later life may renew the token of an earlier one (and holders try).
    OldIncarnationRenews,
    /// Grantor: a released token is granted again.
    ReleasedGrantedAgain,
    /// Fence: complete as soon as it begins.
    SkipWait,
    /// Fence: only `L` is waited for, without the allowance for drift and slack.
    WaitWithoutDrift,
    /// Fence: a leader of a new term counts from zero, not from its election.
    NewTermDoesNotWait,
    /// Holder: the lease counts from the arrival of the grant.
    LeaseFromReceipt,
    /// Holder: goes on after a stand-still as if nothing had happened, until the next tick.
    IgnoreSuspend,
    /// Holder: says `Released` before everything is gone.
    ReleasedBeforeStopped,
    /// Holder: takes the end of an earlier stop for that of the newest.
    AnyStopCounts,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::GrantWithoutRound,
        Self::GrantFromOlderRound,
        Self::GrantAfterProposedRevoke,
        Self::GrantAfterRevoke,
        Self::OldIncarnationRenews,
        Self::ReleasedGrantedAgain,
        Self::SkipWait,
        Self::WaitWithoutDrift,
        Self::NewTermDoesNotWait,
        Self::LeaseFromReceipt,
        Self::IgnoreSuspend,
        Self::ReleasedBeforeStopped,
        Self::AnyStopCounts,
    ];
}

/// The mistakes to make.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Faults {
    #[cfg(feature = "seeded-faults")]
    seeded: BTreeSet<Fault>,
}

impl Faults {
    /// No mistakes but this one.
    #[cfg(feature = "seeded-faults")]
    pub fn only(fault: Fault) -> Self {
        Self { seeded: BTreeSet::from([fault]) }
    }

    /// Whether this mistake is to be made.
    #[cfg(feature = "seeded-faults")]
    pub fn has(&self, fault: Fault) -> bool {
        self.seeded.contains(&fault)
    }

    /// Whether this mistake is to be made: never, in this build.
    #[cfg(not(feature = "seeded-faults"))]
    #[allow(clippy::unused_self)] // the same signature with and without the feature
    pub const fn has(&self, _: Fault) -> bool {
        false
    }
}
