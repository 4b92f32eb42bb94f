//! What a drill asks of the cluster, and what it is told. The program implements it with its API client.

use futures_util::future::BoxFuture;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::sync::mpsc;
use twinsite_model::{
    ClusterSpec, Event, Generation, NodeName, Revision, SiteName, Token, UpstreamName, Verdict, WallTime,
};

/// The cluster at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterStatus {
    /// The revision of the state.
    pub revision: Revision,
    /// How many forced recoveries there have been, plus one.
    pub generation: Generation,
    /// Who leads.
    pub leader: Option<NodeName>,
    /// Who owns the floating address, under which token.
    pub owner: Option<(NodeName, Token)>,
    /// Whether a move is under way.
    pub moving: bool,
    /// The verdict on every upstream.
    pub verdicts: BTreeMap<UpstreamName, Verdict>,
    /// The nodes that the leader hears, itself included.
    pub heard: BTreeSet<NodeName>,
}

/// One change of the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WatchItem {
    /// The revision that brought it.
    pub revision: Revision,
    /// The leader's wall clock.
    pub at: WallTime,
    /// What changed.
    pub event: Event,
}

/// Why the cluster did not do or say what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// What it said.
    pub message: String,
    /// Whether the same may work a little later.
    pub retryable: bool,
    /// Whether a safety rule forbids it.
    pub forbidden: bool,
}

/// The cluster, as a drill uses it. Calls follow the leader and survive the loss of single nodes; each of them is
/// bounded in time by its implementation.
pub trait ClusterApi: Send + Sync {
    /// A linearizable look at the cluster; an error while there is no quorum.
    fn status(&self) -> BoxFuture<'_, Result<ClusterStatus, ApiError>>;

    /// All changes from now on, none missed and none repeated while nodes die. The stream ends only when nobody
    /// can be asked any more.
    fn watch(&self) -> BoxFuture<'_, Result<mpsc::Receiver<WatchItem>, ApiError>>;

    /// Begins a planned move to the best node of a site.
    fn switchover<'a>(&'a self, to: &'a SiteName) -> BoxFuture<'a, Result<(), ApiError>>;

    /// Begins a move although the owner may not be well.
    fn failover<'a>(&'a self, to: &'a SiteName) -> BoxFuture<'a, Result<(), ApiError>>;

    /// Stops automatic moves.
    fn pause(&self, duration: Duration) -> BoxFuture<'_, Result<(), ApiError>>;

    /// Allows automatic moves.
    fn resume(&self) -> BoxFuture<'_, Result<(), ApiError>>;

    /// Closes the breaker: what moved by itself so far does not count any more.
    fn reset_breaker(&self) -> BoxFuture<'_, Result<(), ApiError>>;

    /// The agreed specification.
    fn spec(&self) -> BoxFuture<'_, Result<ClusterSpec, ApiError>>;

    /// Replaces the specification.
    fn apply<'a>(&'a self, spec: &'a ClusterSpec) -> BoxFuture<'a, Result<(), ApiError>>;

    /// Hands the leadership to a node.
    fn lead<'a>(&'a self, node: &'a NodeName) -> BoxFuture<'a, Result<(), ApiError>>;
}
