//! What a drill on the live cluster asks of it, beside what every drill asks, and what it sees from outside.

use crate::engine::{ApiError, ClusterApi, ClusterStatus};
use crate::measure::{Identity, Recording};
use futures_util::future::BoxFuture;
use std::time::{Duration, Instant};
use twinsite_model::{DrillId, NodeName, SiteName};

/// The cluster at one moment, with what concerns drills.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LiveStatus {
    /// The cluster.
    pub cluster: ClusterStatus,
    /// Who paused automatic moves.
    pub paused_by: Option<String>,
    /// The drill that runs.
    pub drill: Option<DrillId>,
    /// Who wants it to end, and why.
    pub stop: Option<(String, String)>,
}

/// What a planned move would do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedMove {
    /// Who would own the address; nobody when no node can.
    pub target: Option<NodeName>,
    /// Why it would be refused.
    pub refusal: Option<String>,
    /// How long new connections would find nobody.
    pub outage: Duration,
    /// Rooms whose participants would reconnect, if the owner has reported.
    pub rooms: Option<u32>,
    /// Tunnels that would reconnect.
    pub tunnels: Option<u32>,
    /// The safety rules, as asked now.
    pub rules: Vec<RuleSeen>,
}

/// A safety rule that was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleSeen {
    /// Its name.
    pub name: String,
    /// Whether it is satisfied.
    pub holds: bool,
    /// One line: what was found.
    pub detail: String,
}

/// The live cluster. As with [`ClusterApi`], calls follow the leader, and their implementation bounds them in time.
pub trait LiveCluster: ClusterApi {
    /// A linearizable look at all that a drill must know; an error while there is no quorum.
    fn look(&self) -> BoxFuture<'_, Result<LiveStatus, ApiError>>;

    /// What a planned move to a site would do. Changes nothing.
    fn plan<'a>(&'a self, to: &'a SiteName) -> BoxFuture<'a, Result<PlannedMove, ApiError>>;

    /// Calls the move under way off; an error once it can only go forward.
    fn call_off<'a>(&'a self, why: &'a str) -> BoxFuture<'a, Result<(), ApiError>>;
}

/// What the clients of a drill have seen so far.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Seen {
    /// The longest time without an answer since the first step, the present one included.
    pub gap: Duration,
    /// New connections that were answered.
    pub ok: u64,
    /// New connections that were not.
    pub failed: u64,
    /// Attempts that found nobody.
    pub refused: u64,
    /// Attempts that found somebody and got no good answer.
    pub broken: u64,
    /// Requests that found nobody for as long as a patient client waits.
    pub given_up: u64,
    /// The last answer that says who gave it, and when it came.
    pub newest: Option<(Instant, Identity)>,
}

/// The clients of a drill, at the node that runs it.
pub trait Probes: Send + Sync {
    /// From here on gaps count: the first step is about to be taken.
    fn begin(&self);

    /// What was seen so far.
    fn seen(&self) -> Seen;

    /// Everything that was written down.
    fn recording(&self) -> Recording;
}
