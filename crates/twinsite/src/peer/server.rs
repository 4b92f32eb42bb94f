//! The listening side.

use super::pb::{self, node_service_server::NodeService, node_service_server::NodeServiceServer};
use super::wire;
use crate::node::{Brain, Raft};
use tonic::{Request, Response, Status};
use twinsite_consensus::grpc::PeerIdentity;
use twinsite_consensus::{ProposeError, ReadError};
use twinsite_controller::{RenewalAnswer, RenewalRefusal};
use twinsite_model::{ClusterName, Command, NodeId, Profile, Timing, encoding};
use twinsite_sessions::Sessions;

/// The largest message, in bytes. A report with ten thousand upstreams takes about one megabyte.
const MESSAGE_BYTES_MAX: usize = 8 << 20;

/// What a node offers to its peers.
pub struct Local {
    /// The cluster, as every peer's certificate must name it.
    pub cluster: ClusterName,
    /// The controller.
    pub brain: Brain,
    /// The consensus.
    pub raft: Raft,
    /// The places of rooms.
    pub sessions: Sessions,
}

impl Local {
    fn timing(&self) -> Timing {
        let state = self.raft.state();
        state.spec.as_ref().map_or_else(|| Timing::of(Profile::default()), |spec| spec.timing())
    }
}

/// The service to add to the peer server.
pub fn serve(local: Local) -> NodeServiceServer<Service> {
    NodeServiceServer::new(Service(local))
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX)
}

/// What the embedded session store may propose through another node.
fn is_session_command(command: &Command) -> bool {
    matches!(command, Command::PinRoom { .. } | Command::TouchRooms { .. } | Command::ExpireRooms { .. })
}

/// The generated service over [`Local`].
pub struct Service(Local);

impl Service {
    /// The node that calls, by its certificate.
    fn caller<T>(&self, request: &Request<T>) -> Result<NodeId, Status> {
        let certificates = request.peer_certs();
        let certificates = certificates.as_ref().map(|certificates| certificates.as_slice());
        match PeerIdentity::from_peer_certs(certificates) {
            Ok(identity) if identity.cluster == self.0.cluster => Ok(identity.node),
            _ => Err(Status::permission_denied("the certificate names no node of this cluster")),
        }
    }

    /// Nobody speaks for another node. (Its guardian has the node's own certificate.)
    fn check<T>(&self, request: &Request<T>, claimed: u64) -> Result<(), Status> {
        if self.caller(request)? == NodeId(claimed) {
            Ok(())
        } else {
            Err(Status::permission_denied("the certificate is another node's"))
        }
    }

    fn leads(&self) -> bool {
        self.0.raft.status().borrow().is_leader
    }
}

#[tonic::async_trait]
impl NodeService for Service {
    async fn report(
        &self,
        request: Request<pb::ReportRequest>,
    ) -> Result<Response<pb::ReportResponse>, Status> {
        self.check(&request, request.get_ref().node)?;
        let report = wire::report(request.into_inner())?;
        self.0.brain.report(report).map_err(|busy| Status::resource_exhausted(busy.to_string()))?;
        let leads = self.leads();
        let fresh = 2 * self.0.timing().lease;
        let has_quorum = leads && self.0.raft.quorum_ack_age().is_some_and(|age| age < fresh);
        Ok(Response::new(pb::ReportResponse { leads, has_quorum }))
    }

    async fn renew(&self, request: Request<pb::RenewRequest>) -> Result<Response<pb::RenewResponse>, Status> {
        self.check(&request, request.get_ref().node)?;
        let renewal = wire::renewal(request.into_inner())?;
        let seq = renewal.seq;
        let busy = RenewalAnswer::Refused { seq, why: RenewalRefusal::Busy };
        let answer = self.0.brain.renew(renewal).await.unwrap_or(busy);
        Ok(Response::new(wire::answer_to_pb(answer)))
    }

    async fn release(
        &self,
        request: Request<pb::ReleaseRequest>,
    ) -> Result<Response<pb::ReleaseResponse>, Status> {
        self.check(&request, request.get_ref().node)?;
        let release = wire::release(request.into_inner())?;
        let current = self.0.raft.state().owner(&release.ip).map(|owner| wire::token_to_pb(owner.token));
        self.0.brain.released(release).await.map_err(|busy| Status::resource_exhausted(busy.to_string()))?;
        Ok(Response::new(pb::ReleaseResponse { leads: self.leads(), current }))
    }

    async fn read_index(
        &self,
        request: Request<pb::ReadIndexRequest>,
    ) -> Result<Response<pb::ReadIndexResponse>, Status> {
        self.caller(&request)?;
        match self.0.raft.read_index().await {
            Ok(index) => Ok(Response::new(pb::ReadIndexResponse { index: index.0 })),
            Err(error @ ReadError::NotLeader { .. }) => Err(Status::failed_precondition(error.to_string())),
            Err(error) => Err(Status::unavailable(error.to_string())),
        }
    }

    async fn propose_session(
        &self,
        request: Request<pb::ProposeSessionRequest>,
    ) -> Result<Response<pb::ProposeSessionResponse>, Status> {
        self.caller(&request)?;
        let proposal = encoding::decode_proposal(&request.into_inner().proposal)
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        if !is_session_command(&proposal.command) {
            return Err(Status::permission_denied("only session commands may be proposed by peers"));
        }
        match self.0.raft.propose(&proposal).await {
            Ok(applied) => Ok(Response::new(wire::applied_to_pb(applied))),
            Err(error @ ProposeError::NotLeader { .. }) => {
                Err(Status::failed_precondition(error.to_string()))
            }
            Err(error) => Err(Status::unavailable(error.to_string())),
        }
    }

    async fn spread_pins(
        &self,
        request: Request<pb::SpreadPinsRequest>,
    ) -> Result<Response<pb::SpreadPinsResponse>, Status> {
        let from = self.caller(&request)?;
        self.0.sessions.receive(wire::gossip(from, request.into_inner())?);
        Ok(Response::new(pb::SpreadPinsResponse {}))
    }

    async fn ask_pin(
        &self,
        request: Request<pb::AskPinRequest>,
    ) -> Result<Response<pb::AskPinResponse>, Status> {
        self.caller(&request)?;
        let room = wire::room(&request.into_inner().room)?;
        let pin = self.0.sessions.answer(room).map(|pin| wire::pin_to_pb(room, &pin));
        Ok(Response::new(pb::AskPinResponse { pin }))
    }

    async fn ping(&self, request: Request<pb::PingRequest>) -> Result<Response<pb::PingResponse>, Status> {
        self.caller(&request)?;
        Ok(Response::new(pb::PingResponse {}))
    }
}
