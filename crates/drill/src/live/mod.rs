//! Drills on a cluster that serves people: planned moves, watched from outside, with limits that end the drill and a way
//! back that is always gone.
//!
//! Nothing is broken on purpose here. [`admissible`] says what of a scenario cannot be done; [`prepare`] asks the guards
//! and says what would happen; [`run`] does it. The node that runs a drill asks the cluster as a person does, so every
//! safety rule guards it, and a real failure in the middle is handled as always: then the drill only lifts what it set,
//! and leaves the address where the cluster has put it.

mod admissible;
mod cluster;
mod limits;
mod places;
mod preview;
mod probes;
mod report;
mod run;
mod steps;
mod watchman;

pub use admissible::{admissible, not_measured};
pub use cluster::{LiveCluster, LiveStatus, PlannedMove, Probes, RuleSeen, Seen};
pub use limits::lasts_at_most;
pub use preview::{Guard, NotReady, PlannedStep, Preview, prepare};
pub use probes::HttpProbes;
pub use report::summary;
pub use run::{Finished, Mandate, Phase, Progress, run};

#[cfg(test)]
mod tests;
