//! Whole clusters of the real consensus, with openraft in it, through seeded disasters.

#![allow(clippy::expect_used, reason = "a simulation that contradicts itself ends, and its seed is told")]

mod disk;
mod life;
mod net;
mod node;
mod oracle;
mod plan;
mod replacement;

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
}
