//! What can be seen from here: how upstreams are, what floating IPs answer from outside, and what meeting instances
//! announce.
//!
//! Everything is a probe: a request at a steady pace with a deadline, whose result is published when it changes. What
//! is published is this node's opinion; the verdict is the cluster's (`controller`).
//!
//! See `OVERVIEW.md`.

mod announced;
mod exchange;
mod judge;
mod outside;
mod upstream;

pub use announced::ReadBack;
pub use outside::{OutsideAnswer, OutsideAnswers, OutsideProbes};
pub use upstream::{Opinion, Opinions, UpstreamProbes, UpstreamTarget};
