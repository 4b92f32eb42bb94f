//! What the services need of a node.

use crate::error::ApiError;
use crate::v1;
use std::sync::Arc;
use std::time::Duration;
use twinsite_model::spec::NodeSpec;
use twinsite_model::{
    ClusterSpec, FloatingIpName, NodeId, NodeName, OperationId, RequestId, Revision, RoomKey, SafetyRule,
    SiteName, State, Token, UpstreamName,
};

/// What surrounds every change.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mutation {
    /// The caller's id, so that a repetition is recognised.
    pub request: Option<RequestId>,
    /// Refuse unless the state is at this revision.
    pub expected_revision: Option<Revision>,
}

/// In which way an address is moved by hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MoveKind {
    /// Planned: drained first.
    Switchover,
    /// At once.
    Failover,
}

/// Where an address shall go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// To the best node.
    Best,
    /// To the best node of this site.
    Site(SiteName),
    /// To this node.
    Node(NodeName),
}

/// A move that a person wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MoveCall {
    /// What surrounds it.
    pub mutation: Mutation,
    /// The address.
    pub ip: FloatingIpName,
    /// In which way.
    pub kind: MoveKind,
    /// Where to.
    pub to: Destination,
    /// Rules to override.
    pub overrides: Vec<SafetyRule>,
    /// Say what would happen, and do nothing.
    pub plan_only: bool,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq)]
pub struct MoveAnswer {
    /// The operation to follow; none when only planned.
    pub operation: Option<OperationId>,
    /// The state's revision.
    pub revision: Revision,
    /// Set when only planned.
    pub plan: Option<v1::Plan>,
}

/// Where a room is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoomPlace {
    /// The room's key.
    pub room: RoomKey,
    /// Its upstream.
    pub upstream: UpstreamName,
    /// The token under which it was placed.
    pub token: Token,
}

/// A drill that a person wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DrillCall {
    /// What surrounds it.
    pub mutation: Mutation,
    /// The scenario, as text.
    pub scenario: String,
    /// What messages call the scenario.
    pub file: String,
    /// The address; none for the only one.
    pub ip: Option<FloatingIpName>,
    /// Say what would be done, and do nothing.
    pub dry_run: bool,
}

/// How a drill goes, message by message. The drill goes on when nobody listens any more.
pub type DrillMessages = tokio::sync::mpsc::Receiver<Result<v1::RunDrillResponse, ApiError>>;

/// A node, as the services see it. Changes go through the leader: a node that does not lead says who does.
#[tonic::async_trait]
pub trait Backend: Send + Sync + 'static {
    /// This node.
    fn me(&self) -> (NodeId, NodeName);
    /// The newest state applied here.
    fn local_state(&self) -> Arc<State>;
    /// The state as of now, by a quorum round.
    async fn linearizable(&self) -> Result<Arc<State>, ApiError>;
    /// How the cluster is, as far as this node knows.
    async fn health(&self) -> v1::ClusterHealth;
    /// Whether this node knows that a quorum exists, and how long ago it last knew.
    fn quorum(&self) -> (bool, Option<Duration>);
    /// Why things are as they are.
    async fn explain(&self, ip: FloatingIpName) -> Result<v1::Explanation, ApiError>;
    /// Moves a floating IP, or plans it.
    async fn move_ip(&self, caller: &str, call: MoveCall) -> Result<MoveAnswer, ApiError>;
    /// Calls a move off.
    async fn abort(
        &self,
        caller: &str,
        mutation: Mutation,
        ip: FloatingIpName,
        reason: String,
    ) -> Result<Revision, ApiError>;
    /// Stops automatic moves for a while.
    async fn pause(
        &self,
        caller: &str,
        mutation: Mutation,
        duration: Option<Duration>,
        reason: String,
    ) -> Result<Revision, ApiError>;
    /// Ends the pause.
    async fn resume(&self, caller: &str, mutation: Mutation) -> Result<Revision, ApiError>;
    /// Begins or ends the draining of an upstream.
    async fn set_drain(
        &self,
        caller: &str,
        mutation: Mutation,
        upstream: UpstreamName,
        draining: bool,
        within: Option<Duration>,
    ) -> Result<Revision, ApiError>;
    /// Closes the breaker.
    async fn reset_breaker(&self, caller: &str, mutation: Mutation) -> Result<Revision, ApiError>;
    /// Replaces the specification, which was validated.
    async fn apply_spec(
        &self,
        caller: &str,
        mutation: Mutation,
        spec: ClusterSpec,
    ) -> Result<Revision, ApiError>;
    /// Adds or changes a node.
    async fn put_node(&self, caller: &str, mutation: Mutation, node: NodeSpec) -> Result<Revision, ApiError>;
    /// Takes a node out for good.
    async fn retire_node(&self, caller: &str, mutation: Mutation, node: NodeId)
    -> Result<Revision, ApiError>;
    /// Hands leadership over.
    async fn transfer_leadership(&self, caller: &str, node: NodeId) -> Result<(), ApiError>;
    /// Runs a drill on this node, whoever leads; or says what it would do.
    async fn run_drill(&self, caller: &str, call: DrillCall) -> Result<DrillMessages, ApiError>;
    /// Asks for the end of the drill that runs, wherever it does.
    async fn abort_drill(
        &self,
        caller: &str,
        mutation: Mutation,
        reason: String,
    ) -> Result<Revision, ApiError>;
    /// Rooms in this node's memory, in the order of their keys.
    fn pins(&self) -> Vec<RoomPlace>;
    /// Open connections through each node that was heard of.
    fn connections(&self) -> v1::ListConnectionsResponse;
}
