//! Moves by hand.

use super::{Context, floating_ip, invalid, mutation, parsed};
use crate::backend::{Destination, MoveAnswer, MoveCall, MoveKind};
use crate::convert::{ledger_to_pb, operation_to_pb};
use crate::error::{ApiError, Reason};
use crate::v1::{self, r#move::To, operation_service_server::OperationService};
use tonic::{Request, Response, Status};
use twinsite_model::{Ledger, OperationId, SafetyRule};

pub(super) struct Service(pub(super) Context);

impl Service {
    async fn move_ip(
        &self,
        caller: &str,
        kind: MoveKind,
        given: Option<v1::Mutation>,
        wanted: Option<v1::Move>,
    ) -> Result<MoveAnswer, Status> {
        let wanted = wanted.unwrap_or_default();
        let call = MoveCall {
            mutation: mutation(given)?,
            ip: floating_ip(&self.0.backend.local_state(), &wanted.floating_ip)?,
            kind,
            to: match wanted.to {
                None => Destination::Best,
                Some(To::Site(site)) => Destination::Site(parsed("move.site", &site)?),
                Some(To::Node(node)) => Destination::Node(parsed("move.node", &node)?),
            },
            overrides: wanted.overrides.iter().map(|name| rule(name)).collect::<Result<_, _>>()?,
            plan_only: wanted.plan_only,
        };
        Ok(self.0.backend.move_ip(caller, call).await?)
    }
}

fn rule(name: &str) -> Result<SafetyRule, Status> {
    SafetyRule::named(name).ok_or_else(|| {
        let known: Vec<_> = SafetyRule::ALL.iter().map(|rule| rule.as_str()).collect();
        invalid(format!("move.overrides: there is no rule `{name}`; there are: {}", known.join(", ")))
    })
}

#[tonic::async_trait]
impl OperationService for Service {
    async fn switchover(
        &self,
        request: Request<v1::SwitchoverRequest>,
    ) -> Result<Response<v1::SwitchoverResponse>, Status> {
        let caller = self.0.caller(&request)?;
        let request = request.into_inner();
        let answer = self.move_ip(&caller, MoveKind::Switchover, request.mutation, request.r#move).await?;
        Ok(Response::new(v1::SwitchoverResponse {
            revision: answer.revision.0,
            operation: answer.operation.map_or(0, |operation| operation.0),
            plan: answer.plan,
        }))
    }

    async fn failover(
        &self,
        request: Request<v1::FailoverRequest>,
    ) -> Result<Response<v1::FailoverResponse>, Status> {
        let caller = self.0.caller(&request)?;
        let request = request.into_inner();
        let answer = self.move_ip(&caller, MoveKind::Failover, request.mutation, request.r#move).await?;
        Ok(Response::new(v1::FailoverResponse {
            revision: answer.revision.0,
            operation: answer.operation.map_or(0, |operation| operation.0),
            plan: answer.plan,
        }))
    }

    async fn abort(&self, request: Request<v1::AbortRequest>) -> Result<Response<v1::AbortResponse>, Status> {
        let caller = self.0.caller(&request)?;
        let request = request.into_inner();
        let ip = floating_ip(&self.0.backend.local_state(), &request.floating_ip)?;
        let given = mutation(request.mutation)?;
        let revision = self.0.backend.abort(&caller, given, ip, request.reason).await?;
        Ok(Response::new(v1::AbortResponse { revision: revision.0 }))
    }

    async fn get_operation(
        &self,
        request: Request<v1::GetOperationRequest>,
    ) -> Result<Response<v1::GetOperationResponse>, Status> {
        self.0.caller(&request)?;
        let id = OperationId(request.get_ref().operation);
        let state = self.0.backend.linearizable().await?;
        let operation = state.operation(id).ok_or_else(|| {
            ApiError::new(Reason::UnknownOperation, format!("operation {id} is not remembered"))
        })?;
        Ok(Response::new(v1::GetOperationResponse {
            operation: Some(operation_to_pb(&state, operation)),
            revision: state.revision.0,
        }))
    }

    async fn list_operations(
        &self,
        request: Request<v1::ListOperationsRequest>,
    ) -> Result<Response<v1::ListOperationsResponse>, Status> {
        self.0.caller(&request)?;
        let state = self.0.backend.linearizable().await?;
        let running = state.floating_ips.values().filter_map(|ip| ip.operation.as_ref());
        let operations = state.history.iter().chain(running);
        Ok(Response::new(v1::ListOperationsResponse {
            operations: operations.map(|operation| operation_to_pb(&state, operation)).collect(),
            revision: state.revision.0,
        }))
    }

    async fn get_ledger(
        &self,
        request: Request<v1::GetLedgerRequest>,
    ) -> Result<Response<v1::GetLedgerResponse>, Status> {
        self.0.caller(&request)?;
        let state = self.0.backend.linearizable().await?;
        let rows = ledger_to_pb(&Ledger::of(&state));
        Ok(Response::new(v1::GetLedgerResponse { rows, revision: state.revision.0 }))
    }
}
