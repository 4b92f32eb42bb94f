//! Whole clusters of the real consensus, with openraft in it, through seeded disasters.

#![allow(clippy::expect_used, reason = "a simulation that contradicts itself ends, and its seed is told")]

mod addresses;
mod disk;
mod guardian;
mod holding;
mod kernel;
mod life;
mod misfortunes;
mod net;
mod node;
mod oracle;
mod people;
mod plan;
mod process;
mod sight;

pub use life::{Report, live};

/// A mistake that is built in to see that it is noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mistake {
    /// The disk says that it has synced before it has.
    AcknowledgeBeforeSync,
    /// A read does not wait until its node has applied what the quorum round stood for.
    ReadBeforeApplied,
    /// A read is answered by the node that believes to lead, without a quorum round.
    TrustTheFlag,
    /// A node takes part as soon as it has started: it has forgotten to whom it granted its lease.
    StartAtOnce,
    /// The kernel does not end what a holder answers when its lease ends.
    NoKernelDeadline,
    /// A grant that was under way when the holder had to stop counts all the same.
    LateGrantOvertakesStop,
    /// An address is said to be let go, and is still there.
    ReleasedAndStillThere,
}
