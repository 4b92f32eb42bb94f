//! Deliberate mistakes, each the removal of one rule, so that tests and the simulation can show that they would
//! notice. Without the feature `seeded-faults` there are none, and asking costs nothing.

#[cfg(feature = "seeded-faults")]
use std::{cell::RefCell, collections::BTreeSet};

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
    /// Session store: a writer's token is not compared with the newest.
    ForgetTokenCheck,
    /// Hands: an address counts as let go before its worker has done so.
    StopNotWaitedFor,
    /// Hands: holds an address before the guardian has heard of it.
    HoldBeforeGuardian,
    /// Keeper: a change of the membership that an earlier leader left half done stays so.
    HalfDoneChangeStays,
    /// Reporter: what one leader has heard is not told to the next.
    OpinionsToldOnce,
    /// Controller: an errand that was recalled counts as over at once.
    ErrandNotWaitedFor,
    /// Errands: a call is made without asking whether the errand still stands.
    ErrandWithoutRecheck,
    /// Errands: a call goes on however long it takes.
    ErrandWithoutEnd,
    /// Apply: the encoding is raised before every member reads the newer one.
    FormatRaisedTooEarly,
    /// Announcing: by the agreed owner, before anybody was seen to hold the address.
    AnnounceFromIntention,
    /// Announcing: an answer under an older token than the agreed one counts.
    OldAnswerCounts,
    /// Announcing: an announcement under an older token replaces a newer one.
    OlderAnnouncementReplaces,
    /// Sessions: a store that has forgotten is not filled again.
    StoreNotRefilled,
    /// Sessions: new rooms are placed though no quorum is known.
    RoomsWithoutQuorum,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 27] = [
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
        Self::ForgetTokenCheck,
        Self::StopNotWaitedFor,
        Self::HoldBeforeGuardian,
        Self::HalfDoneChangeStays,
        Self::OpinionsToldOnce,
        Self::ErrandNotWaitedFor,
        Self::ErrandWithoutRecheck,
        Self::ErrandWithoutEnd,
        Self::FormatRaisedTooEarly,
        Self::AnnounceFromIntention,
        Self::OldAnswerCounts,
        Self::OlderAnnouncementReplaces,
        Self::StoreNotRefilled,
        Self::RoomsWithoutQuorum,
    ];

    /// Those of the controller and the holder, which the simulation without consensus can notice.
    pub const OF_CONTROLLER: usize = 13;
}

#[cfg(feature = "seeded-faults")]
thread_local! {
    static HERE: RefCell<Faults> = const { RefCell::new(Faults { seeded: BTreeSet::new() }) };
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

    /// Everything on this thread makes these mistakes from now on.
    #[cfg(feature = "seeded-faults")]
    pub fn make_here(self) {
        HERE.set(self);
    }

    /// The mistakes to make on this thread.
    #[cfg(feature = "seeded-faults")]
    pub fn here() -> Self {
        HERE.with_borrow(Self::clone)
    }

    /// The mistakes to make on this thread: none, in this build.
    #[cfg(not(feature = "seeded-faults"))]
    pub const fn here() -> Self {
        Self {}
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
