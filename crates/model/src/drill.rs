//! Drills on the live cluster: which one runs, and which ones there were.
//!
//! A drill is run by one node, its runner, which asks for moves as a person does. What is recorded here keeps a second
//! one from beginning and tells everybody what is going on. It decides nothing: whoever fails over for real looks at
//! none of it. A runner that dies leaves a drill that ends by itself.

use crate::ids::{DrillId, Incarnation, NodeId};
use crate::time::WallTime;
use std::time::Duration;

/// Finished drills that the state keeps, the newest last.
pub const DRILLS_MAX: usize = 32;
/// How long a drill may last.
pub const DRILL_LENGTH_MAX: Duration = Duration::from_hours(2);
/// The longest summary of a drill, in bytes.
pub const SUMMARY_BYTES_MAX: usize = 16 * 1024;
/// The longest name of a drill, of whoever wants it, and the longest reason to end it, in bytes.
pub const DRILL_TEXT_BYTES_MAX: usize = 256;

/// The drill that runs now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunningDrill {
    /// Its id: the revision at which it began.
    pub id: DrillId,
    /// The scenario's name.
    pub name: String,
    /// Who wants it.
    pub by: String,
    /// The node that runs it.
    pub runner: NodeId,
    /// The life of it: another one knows nothing of the drill.
    pub incarnation: Incarnation,
    /// Since when.
    pub since: WallTime,
    /// When it ends at the latest; its runner ends it before, if it lives.
    pub until: WallTime,
    /// Who wants it to end now, and why.
    pub stop: Option<DrillStop>,
}

/// A person wants a drill to end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DrillStop {
    /// Who.
    pub by: String,
    /// Why.
    pub reason: String,
}

/// How a drill ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DrillOutcome {
    /// Every limit and expectation held.
    Passed,
    /// It went to its end, and something did not hold.
    Failed,
    /// It was broken off: a limit was exceeded, the cluster was unwell, or a person wanted it.
    Aborted,
    /// Nobody said how it ended: its runner is gone, or its time was over.
    Abandoned,
}

impl DrillOutcome {
    /// All outcomes.
    pub const ALL: [Self; 4] = [Self::Passed, Self::Failed, Self::Aborted, Self::Abandoned];

    /// The word for people and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Failed => "failed",
            Self::Aborted => "aborted",
            Self::Abandoned => "abandoned",
        }
    }
}

/// A drill that is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DrillRecord {
    /// Its id: the revision at which it began.
    pub id: DrillId,
    /// The scenario's name.
    pub name: String,
    /// Who wanted it.
    pub by: String,
    /// The node that ran it.
    pub runner: NodeId,
    /// When it began.
    pub since: WallTime,
    /// When it ended.
    pub ended: WallTime,
    /// How it ended.
    pub outcome: DrillOutcome,
    /// The report as JSON, at most [`SUMMARY_BYTES_MAX`]; empty if there is none.
    pub summary: String,
}
