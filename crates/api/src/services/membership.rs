//! Who belongs to the cluster.

use super::{Context, invalid, mutation};
use crate::v1::{self, membership_service_server::MembershipService};
use tonic::{Request, Response, Status};
use twinsite_model::NodeId;
use twinsite_model::spec::NodeSpec;

pub(super) struct Service(pub(super) Context);

#[tonic::async_trait]
impl MembershipService for Service {
    async fn list_members(
        &self,
        request: Request<v1::ListMembersRequest>,
    ) -> Result<Response<v1::ListMembersResponse>, Status> {
        self.0.caller(&request)?;
        let health = self.0.backend.health().await;
        Ok(Response::new(v1::ListMembersResponse { members: health.members, term: health.term }))
    }

    async fn put_node(
        &self,
        request: Request<v1::PutNodeRequest>,
    ) -> Result<Response<v1::PutNodeResponse>, Status> {
        let caller = self.0.caller(&request)?;
        let request = request.into_inner();
        let given = mutation(request.mutation)?;
        let node: NodeSpec = serde_json::from_str(&request.node_json)
            .map_err(|error| invalid(format!("node_json: {error}")))?;
        let revision = self.0.backend.put_node(&caller, given, node).await?;
        Ok(Response::new(v1::PutNodeResponse { revision: revision.0 }))
    }

    async fn retire_node(
        &self,
        request: Request<v1::RetireNodeRequest>,
    ) -> Result<Response<v1::RetireNodeResponse>, Status> {
        let caller = self.0.caller(&request)?;
        let request = request.into_inner();
        let (given, node) = (mutation(request.mutation)?, NodeId(request.node));
        let revision = self.0.backend.retire_node(&caller, given, node).await?;
        Ok(Response::new(v1::RetireNodeResponse { revision: revision.0 }))
    }

    async fn transfer_leadership(
        &self,
        request: Request<v1::TransferLeadershipRequest>,
    ) -> Result<Response<v1::TransferLeadershipResponse>, Status> {
        let caller = self.0.caller(&request)?;
        self.0.backend.transfer_leadership(&caller, NodeId(request.get_ref().node)).await?;
        Ok(Response::new(v1::TransferLeadershipResponse {}))
    }
}
