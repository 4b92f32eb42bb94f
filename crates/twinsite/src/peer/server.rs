//! The listening side.

use super::pb::{self, node_service_server::NodeService, node_service_server::NodeServiceServer};
use super::{Peers, wire};
use crate::node::{Brain, Raft};
use rustls_pki_types::CertificateDer;
use std::time::Duration;
use tonic::{Request, Response, Status};
use twinsite_consensus::grpc::PeerIdentity;
use twinsite_consensus::{ProposeError, ReadError};
use twinsite_controller::{Release, ReleasedBy, RenewalAnswer, RenewalRefusal};
use twinsite_model::{ClusterName, Command, NodeId, Profile, Timing, encoding};
use twinsite_sessions::Sessions;

/// The largest message, in bytes. A report with ten thousand upstreams takes about one megabyte.
const MESSAGE_BYTES_MAX: usize = 8 << 20;

/// How long the leader may take to hear of a release that is passed on. The guardian repeats it.
const PASS_ON_WITHIN: Duration = Duration::from_millis(500);

/// What a node offers to its peers.
pub struct Local {
    /// The cluster, as every peer's certificate must name it.
    pub cluster: ClusterName,
    /// This node.
    pub me: NodeId,
    /// The other nodes.
    pub peers: Peers,
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
    /// The node that calls, by its certificate; it must be one of the cluster as it is now.
    fn caller<T>(&self, request: &Request<T>) -> Result<NodeId, Status> {
        let caller = certified(request.peer_certs().as_deref().map(Vec::as_slice), &self.0.cluster)?;
        check_member(caller, self.0.raft.is_retired(caller), self.0.peers.knows(caller))?;
        Ok(caller)
    }

    /// Nobody speaks for another node. (Its guardian has the node's own certificate.)
    fn check<T>(&self, request: &Request<T>, claimed: u64) -> Result<(), Status> {
        check_claim(self.caller(request)?, claimed)
    }

    /// A guardian knows only the nodes of its file. Its own node, alive again, knows who leads.
    fn pass_on(&self, release: Release) {
        let leader = self.0.raft.status().borrow().leader.filter(|leader| *leader != self.0.me);
        if let Some(leader) = leader
            && release.by == ReleasedBy::Guardian
            && release.node == self.0.me
        {
            let peers = self.0.peers.clone();
            tokio::spawn(async move { drop(peers.release(leader, &release, PASS_ON_WITHIN).await) });
        }
    }

    fn leads(&self) -> bool {
        self.0.raft.status().borrow().is_leader
    }
}

/// The node that a certificate of this cluster names.
fn certified(certificates: Option<&[CertificateDer<'_>]>, cluster: &ClusterName) -> Result<NodeId, Status> {
    match PeerIdentity::from_peer_certs(certificates) {
        Ok(identity) if identity.cluster == *cluster => Ok(identity.node),
        _ => Err(Status::permission_denied("the certificate names no node of this cluster")),
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
        // Also of a node that is no member any more: what it lets go may be the last that others wait for.
        let caller = certified(request.peer_certs().as_deref().map(Vec::as_slice), &self.0.cluster)?;
        check_claim(caller, request.get_ref().node)?;
        let release = wire::release(request.into_inner())?;
        self.pass_on(release.clone());
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
