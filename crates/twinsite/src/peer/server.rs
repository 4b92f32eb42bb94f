//! The listening side.

use super::pb::{self, node_service_server::NodeService, node_service_server::NodeServiceServer};
use super::{Peers, drill_wire, wire};
use crate::node::{DrillDesk, Raft};
use tonic::{Request, Response, Status};
use twinsite_agents::{Connections, Desk, Machine, RollRefused};
use twinsite_consensus::grpc::KnownCertificates;
use twinsite_consensus::{ProposeError, ReadError, TokioRuntime};
use twinsite_model::{ClusterName, Command, NodeId, encoding};
use twinsite_sessions::Sessions;

/// The largest message, in bytes. A report with ten thousand upstreams takes about one megabyte.
const MESSAGE_BYTES_MAX: usize = 8 << 20;

/// What a node offers to its peers.
pub struct Local {
    /// The cluster, as every peer's certificate must name it.
    pub cluster: ClusterName,
    /// What is answered.
    pub desk: Desk<TokioRuntime, Peers>,
    /// The places of rooms.
    pub sessions: Sessions,
    /// The connections of floating IPs.
    pub connections: Connections,
    /// Whether drills may begin, and how they ended, while this node leads.
    pub drills: DrillDesk,
}

/// The service to add to the peer server.
pub fn serve(local: Local) -> NodeServiceServer<Service> {
    NodeServiceServer::new(Service { local, known: KnownCertificates::new() })
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX)
}

/// What the embedded session store may propose through another node.
fn is_session_command(command: &Command) -> bool {
    matches!(command, Command::PinRoom { .. } | Command::TouchRooms { .. } | Command::ExpireRooms { .. })
}

/// The generated service over [`Local`].
pub struct Service {
    local: Local,
    known: KnownCertificates,
}

impl Service {
    /// The node that the caller's certificate names; it must be of this cluster.
    fn certified<T>(&self, request: &Request<T>) -> Result<NodeId, Status> {
        let certificates = request.peer_certs();
        match self.known.identify(certificates.as_deref().map(Vec::as_slice)) {
            Ok(identity) if identity.cluster == self.local.cluster => Ok(identity.node),
            _ => Err(Status::permission_denied("the certificate names no node of this cluster")),
        }
    }

    /// The node that calls, by its certificate; it must be one of the cluster as it is now.
    fn caller<T>(&self, request: &Request<T>) -> Result<NodeId, Status> {
        let caller = self.certified(request)?;
        check_member(caller, self.raft().is_retired(caller), self.local.desk.peers.knows(caller))?;
        Ok(caller)
    }

    /// Nobody speaks for another node. (Its guardian has the node's own certificate.)
    fn check<T>(&self, request: &Request<T>, claimed: u64) -> Result<(), Status> {
        check_claim(self.caller(request)?, claimed)
    }

    fn raft(&self) -> &Raft {
        &self.local.desk.raft
    }
}

/// A certificate outlives the membership of its node.
fn check_member(node: NodeId, is_retired: bool, is_known: bool) -> Result<(), Status> {
    if is_retired {
        return Err(Status::permission_denied(format!("node {node} was removed for good")));
    }
    if !is_known {
        return Err(Status::permission_denied(format!("node {node} is not in the specification")));
    }
    Ok(())
}

fn check_claim(caller: NodeId, claimed: u64) -> Result<(), Status> {
    if caller == NodeId(claimed) {
        Ok(())
    } else {
        Err(Status::permission_denied("the certificate is another node's"))
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
        let heard =
            self.local.desk.report(report).map_err(|busy| Status::resource_exhausted(busy.to_string()))?;
        Ok(Response::new(pb::ReportResponse { leads: heard.leads, has_quorum: heard.has_quorum }))
    }

    async fn renew(&self, request: Request<pb::RenewRequest>) -> Result<Response<pb::RenewResponse>, Status> {
        self.check(&request, request.get_ref().node)?;
        let renewal = wire::renewal(request.into_inner())?;
        Ok(Response::new(wire::answer_to_pb(self.local.desk.renew(renewal).await)))
    }

    async fn release(
        &self,
        request: Request<pb::ReleaseRequest>,
    ) -> Result<Response<pb::ReleaseResponse>, Status> {
        // Also of a node that is no member any more: what it lets go may be the last that others wait for.
        let caller = self.certified(&request)?;
        check_claim(caller, request.get_ref().node)?;
        let release = wire::release(request.into_inner())?;
        let noted = self.local.desk.release(release).await;
        let noted = noted.map_err(|busy| Status::resource_exhausted(busy.to_string()))?;
        let current = noted.current.map(wire::token_to_pb);
        Ok(Response::new(pb::ReleaseResponse { leads: noted.leads, current }))
    }

    async fn read_index(
        &self,
        request: Request<pb::ReadIndexRequest>,
    ) -> Result<Response<pb::ReadIndexResponse>, Status> {
        self.caller(&request)?;
        match self.raft().read_index().await {
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
        match self.raft().propose(&proposal).await {
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
        self.local.sessions.receive(wire::gossip(from, request.into_inner())?);
        Ok(Response::new(pb::SpreadPinsResponse {}))
    }

    async fn ask_pin(
        &self,
        request: Request<pb::AskPinRequest>,
    ) -> Result<Response<pb::AskPinResponse>, Status> {
        self.caller(&request)?;
        let room = wire::room(&request.into_inner().room)?;
        let pin = self.local.sessions.answer(room).map(|pin| wire::pin_to_pb(room, &pin));
        Ok(Response::new(pb::AskPinResponse { pin }))
    }

    async fn call_roll(
        &self,
        request: Request<pb::CallRollRequest>,
    ) -> Result<Response<pb::CallRollResponse>, Status> {
        let from = self.caller(&request)?;
        let call = wire::roll_call(request.into_inner())?;
        if self.raft().state().spec.as_ref().is_none_or(|spec| spec.floating_ip(&call.ip).is_none()) {
            return Err(Status::not_found("there is no such floating IP"));
        }
        let taken = self.local.connections.receive(from, call, TokioRuntime::boot_now());
        let has = taken.map_err(|refused| match refused {
            RollRefused::TooMany(_) => Status::resource_exhausted(refused.to_string()),
            RollRefused::Old | RollRefused::NotTheHolder => Status::failed_precondition(refused.to_string()),
        })?;
        Ok(Response::new(pb::CallRollResponse { has }))
    }

    async fn begin_drill(
        &self,
        request: Request<pb::BeginDrillRequest>,
    ) -> Result<Response<pb::BeginDrillResponse>, Status> {
        self.check(&request, request.get_ref().runner)?;
        let request = request.into_inner();
        let dry_run = request.dry_run;
        let wish = drill_wire::drill_wish(request)?;
        let begun = if dry_run {
            self.local.drills.may_begin(&wish).await.map(|()| 0)
        } else {
            self.local.drills.begin(wish).await
        };
        Ok(Response::new(drill_wire::drill_begun_to_pb(begun)?))
    }

    async fn end_drill(
        &self,
        request: Request<pb::EndDrillRequest>,
    ) -> Result<Response<pb::EndDrillResponse>, Status> {
        self.check(&request, request.get_ref().runner)?;
        let ended = self.local.drills.end(drill_wire::drill_ended(request.into_inner())?).await;
        Ok(Response::new(pb::EndDrillResponse { refused: drill_wire::refused_to_pb(ended)? }))
    }

    async fn ping(&self, request: Request<pb::PingRequest>) -> Result<Response<pb::PingResponse>, Status> {
        self.caller(&request)?;
        Ok(Response::new(pb::PingResponse {}))
    }
}
