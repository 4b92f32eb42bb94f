//! Whole clusters of the real consensus, with openraft in it, through seeded disasters.

#![allow(clippy::expect_used, reason = "a simulation that contradicts itself ends, and its seed is told")]

mod addresses;
mod announced;
mod disaster;
mod disk;
mod guardian;
mod holding;
mod instances;
mod kernel;
mod life;
mod misfortunes;
mod net;
mod node;
mod oracle;
mod outside;
mod people;
mod plan;
mod process;
mod provider;
mod redis;
mod redis_data;
mod redis_store;
mod rooms;
mod rooms_check;
mod run;
mod shrink;
mod sight;
mod spread;
mod sweep;
mod watch;
mod wellness;

pub use run::{Report, Run};
pub use shrink::shrink;
pub use sweep::{Found, sweep};
use twinsite_model::Fault;

/// A mistake that is built in to see that it is noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mistake {
    /// The disk says that it has synced before it has.
    AcknowledgeBeforeSync,
    /// A vote is not on the disk when it is given.
    VoteNotKept,
    /// A read does not wait until its node has applied what the quorum round stood for.
    ReadBeforeApplied,
    /// A read is answered by the node that believes to lead, without a quorum round.
    TrustTheFlag,
    /// A read is answered by a leader that a quorum confirmed a moment ago, by its own clock.
    LeaseRead,
    /// A machine that has lost its disk joins again under its old id.
    ReuseNodeId,
    /// The kernel does not end what a holder answers when its lease ends.
    NoKernelDeadline,
    /// An address is said to be let go, and is still there.
    ReleasedAndStillThere,
    /// The guardian says that a token has ended before it has taken the address off the kernel.
    GuardianSpeaksTooSoon,
    /// A damaged log is cut off where it is damaged, and used.
    DamageIsGuessedAt,
    /// Somebody who watches misses a change, and is not told.
    WatchMisses,
    /// The script of a session store does not compare the writer's token with the newest.
    ScriptForgetsTokenCheck,
    /// The script of a session store keeps the first token that it has seen.
    ScriptForgetsMaximum,
    /// A session store that was emptied a moment ago gives places before anybody was asked.
    YoungStoreAsksNobody,
    /// One rule less in the product's own code; only in builds with the feature `seeded-faults`.
    Rule(Fault),
}

impl Mistake {
    /// All that this build can make.
    pub fn all() -> Vec<Self> {
        let own = [
            Self::AcknowledgeBeforeSync,
            Self::VoteNotKept,
            Self::ReadBeforeApplied,
            Self::TrustTheFlag,
            Self::LeaseRead,
            Self::ReuseNodeId,
            Self::NoKernelDeadline,
            Self::ReleasedAndStillThere,
            Self::GuardianSpeaksTooSoon,
            Self::DamageIsGuessedAt,
            Self::WatchMisses,
            Self::ScriptForgetsTokenCheck,
            Self::ScriptForgetsMaximum,
            Self::YoungStoreAsksNobody,
        ];
        let rules = Fault::ALL.into_iter().filter(|_| cfg!(feature = "seeded-faults")).map(Self::Rule);
        own.into_iter().chain(rules).collect()
    }
}
