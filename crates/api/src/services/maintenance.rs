//! Pauses, drains, the breaker and the specification.

use super::{Context, invalid, mutation, parsed};
use crate::convert::specs_to_pb;
use crate::v1::{self, maintenance_service_server::MaintenanceService};
use std::time::Duration;
use tonic::{Request, Response, Status};
use twinsite_model::spec;

pub(super) struct Service(pub(super) Context);

#[tonic::async_trait]
impl MaintenanceService for Service {
    async fn pause(&self, request: Request<v1::PauseRequest>) -> Result<Response<v1::PauseResponse>, Status> {
        let caller = self.0.caller(&request)?;
        let request = request.into_inner();
        let (given, duration) = (mutation(request.mutation)?, request.duration_ms.map(Duration::from_millis));
        let revision = self.0.backend.pause(&caller, given, duration, request.reason).await?;
        Ok(Response::new(v1::PauseResponse { revision: revision.0 }))
    }

    async fn resume(
        &self,
        request: Request<v1::ResumeRequest>,
    ) -> Result<Response<v1::ResumeResponse>, Status> {
        let caller = self.0.caller(&request)?;
        let given = mutation(request.into_inner().mutation)?;
        let revision = self.0.backend.resume(&caller, given).await?;
        Ok(Response::new(v1::ResumeResponse { revision: revision.0 }))
    }

    async fn set_drain(
        &self,
        request: Request<v1::SetDrainRequest>,
    ) -> Result<Response<v1::SetDrainResponse>, Status> {
        let caller = self.0.caller(&request)?;
        let request = request.into_inner();
        let (given, upstream) = (mutation(request.mutation)?, parsed("upstream", &request.upstream)?);
        let within = request.within_ms.map(Duration::from_millis);
        let revision = self.0.backend.set_drain(&caller, given, upstream, request.draining, within).await?;
        Ok(Response::new(v1::SetDrainResponse { revision: revision.0 }))
    }

    async fn reset_breaker(
        &self,
        request: Request<v1::ResetBreakerRequest>,
    ) -> Result<Response<v1::ResetBreakerResponse>, Status> {
        let caller = self.0.caller(&request)?;
        let given = mutation(request.into_inner().mutation)?;
        let revision = self.0.backend.reset_breaker(&caller, given).await?;
        Ok(Response::new(v1::ResetBreakerResponse { revision: revision.0 }))
    }

    async fn apply_spec(
        &self,
        request: Request<v1::ApplySpecRequest>,
    ) -> Result<Response<v1::ApplySpecResponse>, Status> {
        let caller = self.0.caller(&request)?;
        let request = request.into_inner();
        let given = mutation(request.mutation)?;
        let wanted = spec::from_json(request.spec_json.as_bytes())
            .map_err(|error| invalid(format!("spec_json: {error}")))?;
        let revision = self.0.backend.apply_spec(&caller, given, wanted).await?;
        Ok(Response::new(v1::ApplySpecResponse { revision: revision.0 }))
    }

    async fn list_specs(
        &self,
        request: Request<v1::ListSpecsRequest>,
    ) -> Result<Response<v1::ListSpecsResponse>, Status> {
        self.0.caller(&request)?;
        let state = self.0.backend.linearizable().await?;
        Ok(Response::new(specs_to_pb(&state)))
    }
}
