//! The calls, one for each of the API.

use super::{Client, MESSAGE_BYTES_MAX, service};
use crate::backend::{Destination, MoveKind};
use crate::error::{ApiError, Reason};
use crate::v1::{
    self, cluster_service_client::ClusterServiceClient, drill_service_client::DrillServiceClient,
    maintenance_service_client::MaintenanceServiceClient, membership_service_client::MembershipServiceClient,
    operation_service_client::OperationServiceClient, session_service_client::SessionServiceClient,
};
use futures_util::future::join_all;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::time::Instant;
use twinsite_model::{DrillId, NodeId, OperationId, Revision, UpstreamName};

/// Asks until a node gives an answer that counts; the request is cloned for each.
macro_rules! call {
    ($client:ident, $service:ident, $method:ident, $request:ident) => {
        $client.ask(|channel| {
            let request = $request.clone();
            async move {
                let answer = service!($service, channel).$method(request).await;
                answer.map(tonic::Response::into_inner)
            }
        })
    };
}

/// A move, as a person asks for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The floating IP; none for the only one.
    pub ip: Option<String>,
    /// In which way.
    pub kind: MoveKind,
    /// Where to.
    pub to: Destination,
    /// Names of rules to override.
    pub overrides: Vec<String>,
    /// Say what would happen, and do nothing.
    pub plan_only: bool,
}

/// What came of a move.
#[derive(Debug, Clone, PartialEq)]
pub struct Begun {
    /// The state's revision.
    pub revision: Revision,
    /// The operation to follow; none when only planned.
    pub operation: Option<OperationId>,
    /// Set when only planned.
    pub plan: Option<v1::Plan>,
}

impl Client {
    /// The state, as new as a quorum can tell.
    pub async fn state(&self) -> Result<v1::GetStateResponse, ApiError> {
        let request = v1::GetStateRequest { consistency: v1::Consistency::Linearizable.into() };
        call!(self, ClusterServiceClient, get_state, request).await
    }

    /// What every node knows by itself, however old, from those that answer.
    pub async fn local_states(&self) -> Vec<(SocketAddr, Result<v1::GetStateResponse, ApiError>)> {
        let request = v1::GetStateRequest { consistency: v1::Consistency::Local.into() };
        let deadline = Instant::now() + self.inner.options.patience;
        let ask = |channel| async move {
            let answer = service!(ClusterServiceClient, channel).get_state(request).await;
            answer.map(tonic::Response::into_inner)
        };
        let asked = self
            .inner
            .nodes
            .iter()
            .map(async |node| (node.address, self.ask_one(node, deadline, &ask).await));
        join_all(asked).await
    }

    /// Why things are as they are.
    pub async fn explain(&self, ip: Option<&str>) -> Result<v1::Explanation, ApiError> {
        let request = v1::ExplainRequest { floating_ip: ip.unwrap_or_default().to_owned() };
        let answer = call!(self, ClusterServiceClient, explain, request);
        let explanation = answer.await?.explanation;
        explanation.ok_or_else(|| ApiError::new(Reason::Unavailable, "the answer holds no explanation"))
    }

    /// Moves a floating IP, or plans it.
    pub async fn move_ip(&self, wanted: &Wanted) -> Result<Begun, ApiError> {
        let to = match &wanted.to {
            Destination::Best => None,
            Destination::Site(site) => Some(v1::r#move::To::Site(site.to_string())),
            Destination::Node(node) => Some(v1::r#move::To::Node(node.to_string())),
        };
        let asked = v1::Move {
            floating_ip: wanted.ip.clone().unwrap_or_default(),
            to,
            overrides: wanted.overrides.clone(),
            plan_only: wanted.plan_only,
        };
        let mutation = new_mutation();
        let (revision, operation, plan) = match wanted.kind {
            MoveKind::Switchover => {
                let request = v1::SwitchoverRequest { mutation: Some(mutation), r#move: Some(asked) };
                let answer = call!(self, OperationServiceClient, switchover, request).await?;
                (answer.revision, answer.operation, answer.plan)
            }
            MoveKind::Failover => {
                let request = v1::FailoverRequest { mutation: Some(mutation), r#move: Some(asked) };
                let answer = call!(self, OperationServiceClient, failover, request).await?;
                (answer.revision, answer.operation, answer.plan)
            }
        };
        let operation = (operation > 0).then_some(OperationId(operation));
        Ok(Begun { revision: Revision(revision), operation, plan })
    }

    /// Calls a move off.
    pub async fn abort(&self, ip: Option<&str>, reason: &str) -> Result<Revision, ApiError> {
        let request = v1::AbortRequest {
            mutation: Some(new_mutation()),
            floating_ip: ip.unwrap_or_default().to_owned(),
            reason: reason.to_owned(),
        };
        let answer = call!(self, OperationServiceClient, abort, request);
        Ok(Revision(answer.await?.revision))
    }

    /// A move, running or finished.
    pub async fn operation(&self, id: OperationId) -> Result<v1::Operation, ApiError> {
        let request = v1::GetOperationRequest { operation: id.0 };
        let answer = call!(self, OperationServiceClient, get_operation, request);
        let operation = answer.await?.operation;
        operation.ok_or_else(|| ApiError::new(Reason::Unavailable, "the answer holds no operation"))
    }

    /// All moves that are remembered, the newest last.
    pub async fn operations(&self) -> Result<Vec<v1::Operation>, ApiError> {
        let request = v1::ListOperationsRequest {};
        let answer = call!(self, OperationServiceClient, list_operations, request);
        Ok(answer.await?.operations)
    }

    /// How long each phase of the remembered moves took, a row for each way in which an address can leave.
    pub async fn ledger(&self) -> Result<Vec<v1::LedgerRow>, ApiError> {
        let request = v1::GetLedgerRequest {};
        let answer = call!(self, OperationServiceClient, get_ledger, request);
        Ok(answer.await?.rows)
    }

    /// Stops automatic moves for a while.
    pub async fn pause(&self, duration: Option<Duration>, reason: &str) -> Result<Revision, ApiError> {
        let request = v1::PauseRequest {
            mutation: Some(new_mutation()),
            duration_ms: duration.map(millis),
            reason: reason.to_owned(),
        };
        let answer = call!(self, MaintenanceServiceClient, pause, request);
        Ok(Revision(answer.await?.revision))
    }

    /// Ends the pause.
    pub async fn resume(&self) -> Result<Revision, ApiError> {
        let request = v1::ResumeRequest { mutation: Some(new_mutation()) };
        let answer = call!(self, MaintenanceServiceClient, resume, request);
        Ok(Revision(answer.await?.revision))
    }

    /// Begins or ends the draining of an upstream.
    pub async fn set_drain(
        &self,
        upstream: &UpstreamName,
        draining: bool,
        within: Option<Duration>,
    ) -> Result<Revision, ApiError> {
        let request = v1::SetDrainRequest {
            mutation: Some(new_mutation()),
            upstream: upstream.to_string(),
            draining,
            within_ms: within.map(millis),
        };
        let answer = call!(self, MaintenanceServiceClient, set_drain, request);
        Ok(Revision(answer.await?.revision))
    }

    /// Closes the breaker.
    pub async fn reset_breaker(&self) -> Result<Revision, ApiError> {
        let request = v1::ResetBreakerRequest { mutation: Some(new_mutation()) };
        let answer = call!(self, MaintenanceServiceClient, reset_breaker, request);
        Ok(Revision(answer.await?.revision))
    }

    /// Replaces the specification.
    ///
    /// # Errors
    ///
    /// [`Reason::RevisionMismatch`](crate::Reason::RevisionMismatch) if one is `expected` and the state is at another.
    pub async fn apply_spec(
        &self,
        spec_json: String,
        expected: Option<Revision>,
    ) -> Result<Revision, ApiError> {
        let expected_revision = expected.map(|revision| revision.0);
        let mutation = Some(v1::Mutation { expected_revision, ..new_mutation() });
        let request = v1::ApplySpecRequest { mutation, spec_json };
        let answer = call!(self, MaintenanceServiceClient, apply_spec, request);
        Ok(Revision(answer.await?.revision))
    }

    /// The specification, and what it was before.
    pub async fn specs(&self) -> Result<v1::ListSpecsResponse, ApiError> {
        let request = v1::ListSpecsRequest {};
        call!(self, MaintenanceServiceClient, list_specs, request).await
    }

    /// Adds or changes a node.
    pub async fn put_node(&self, node_json: String) -> Result<Revision, ApiError> {
        let request = v1::PutNodeRequest { mutation: Some(new_mutation()), node_json };
        let answer = call!(self, MembershipServiceClient, put_node, request);
        Ok(Revision(answer.await?.revision))
    }

    /// Takes a node out for good.
    pub async fn retire_node(&self, node: NodeId) -> Result<Revision, ApiError> {
        let request = v1::RetireNodeRequest { mutation: Some(new_mutation()), node: node.0 };
        let answer = call!(self, MembershipServiceClient, retire_node, request);
        Ok(Revision(answer.await?.revision))
    }

    /// Hands leadership over.
    pub async fn transfer_leadership(&self, node: NodeId) -> Result<(), ApiError> {
        let request = v1::TransferLeadershipRequest { node: node.0 };
        let answer = call!(self, MembershipServiceClient, transfer_leadership, request);
        answer.await.map(drop)
    }

    /// Asks for the end of the drill that runs.
    pub async fn abort_drill(&self, reason: &str) -> Result<Revision, ApiError> {
        let request = v1::AbortDrillRequest { mutation: Some(new_mutation()), reason: reason.to_owned() };
        let answer = call!(self, DrillServiceClient, abort_drill, request);
        Ok(Revision(answer.await?.revision))
    }

    /// The drill that runs, and those that are remembered, the newest last.
    pub async fn drills(&self) -> Result<Vec<v1::Drill>, ApiError> {
        let request = v1::ListDrillsRequest {};
        let answer = call!(self, DrillServiceClient, list_drills, request);
        Ok(answer.await?.drills)
    }

    /// A drill with its report; the newest if none is named.
    pub async fn drill(&self, id: Option<DrillId>) -> Result<v1::Drill, ApiError> {
        let request = v1::GetDrillRequest { drill: id.map_or(0, |id| id.0) };
        let answer = call!(self, DrillServiceClient, get_drill, request);
        let drill = answer.await?.drill;
        drill.ok_or_else(|| ApiError::new(Reason::Unavailable, "the answer holds no drill"))
    }

    /// All rooms that a node knows, page after page.
    pub async fn pins(&self) -> Result<Vec<v1::RoomPin>, ApiError> {
        let mut pins = Vec::new();
        let mut after = Vec::new();
        loop {
            let request = v1::ListPinsRequest { page_size: 0, after: after.clone() };
            let answer = call!(self, SessionServiceClient, list_pins, request);
            let page = answer.await?;
            pins.extend(page.pins);
            if page.next.is_empty() || page.next <= after {
                return Ok(pins);
            }
            after = page.next;
        }
    }

    /// Open connections through each node.
    pub async fn connections(&self) -> Result<Vec<v1::NodeConnections>, ApiError> {
        let request = v1::ListConnectionsRequest {};
        let answer = call!(self, SessionServiceClient, list_connections, request);
        Ok(answer.await?.nodes)
    }
}

/// A change of its own: repetitions within one call are recognised.
pub(super) fn new_mutation() -> v1::Mutation {
    v1::Mutation { request_id: format!("{:032x}", fastrand::u128(..)), expected_revision: None }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
