//! The listening side: a service for the binary's own server.

use super::identity::KnownCertificates;
use super::{GENERATION, MESSAGE_BYTES_MAX, PIECE_BYTES_MAX, SNAPSHOT_BYTES_MAX};
use crate::inbound::Inbound;
use crate::local::Refused;
use crate::pb::{
    self, install_snapshot_request::Part, raft_service_server::RaftService,
    raft_service_server::RaftServiceServer,
};
use crate::transport::SnapshotTransfer;
use bytes::{Bytes, BytesMut};
use openraft::AsyncRuntime;
use rustls_pki_types::CertificateDer;
use std::sync::Arc;
use tonic::{Request, Response, Status, Streaming};
use twinsite_model::{ClusterName, NodeId};

/// How a peer proves who it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PeerCheck {
    /// By a certificate that names it and this cluster. The server must demand and verify certificates
    /// ([`super::PeerTls::server`]).
    Certificate(ClusterName),
    /// Not at all: for tests only.
    Nothing,
}

/// The peers' service of one node.
pub struct PeerService<RT: AsyncRuntime> {
    inbound: Inbound<RT>,
    check: PeerCheck,
    known: KnownCertificates,
}

/// The service to add to a server. The server should set `tcp_nodelay(true)`, and an HTTP/2 keep-alive.
pub fn service<RT: AsyncRuntime>(
    inbound: Inbound<RT>,
    check: PeerCheck,
) -> RaftServiceServer<PeerService<RT>> {
    RaftServiceServer::new(PeerService { inbound, check, known: KnownCertificates::new() })
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX)
}

type Certificates = Option<Arc<Vec<CertificateDer<'static>>>>;

impl<RT: AsyncRuntime> PeerService<RT> {
    /// Checks the certificate against the header. The header itself is checked by [`Inbound`].
    fn authenticate(&self, certificates: &Certificates, header: Option<&pb::Header>) -> Result<(), Refused> {
        let claimed = NodeId(header.ok_or(Refused::Malformed)?.from);
        match &self.check {
            PeerCheck::Nothing => Ok(()),
            PeerCheck::Certificate(cluster) => {
                let certificates = certificates.as_ref().map(|certificates| certificates.as_slice());
                match self.known.identify(certificates) {
                    Ok(identity) if identity.cluster == *cluster && identity.node == claimed => Ok(()),
                    _ => Err(Refused::OtherCertificate { claimed }),
                }
            }
        }
    }

    async fn receive(
        &self,
        certificates: &Certificates,
        mut parts: Streaming<pb::InstallSnapshotRequest>,
    ) -> Result<SnapshotTransfer, Status> {
        let malformed = || status_of(&Refused::Malformed);
        let first = parts.message().await?.and_then(|request| request.part);
        let Some(Part::Opening(opening)) = first else { return Err(malformed()) };
        // Before anything is received that takes memory.
        self.authenticate(certificates, opening.header.as_ref()).map_err(|refused| status_of(&refused))?;
        self.inbound.admit(opening.header.as_ref()).map_err(|refused| status_of(&refused))?;
        let length = opening.snapshot.as_ref().map_or(0, |snapshot| snapshot.length);
        if length > SNAPSHOT_BYTES_MAX as u64 {
            return Err(Status::resource_exhausted("the snapshot is too large"));
        }
        let mut content = BytesMut::new();
        while let Some(request) = parts.message().await? {
            let Some(Part::Piece(piece)) = request.part else { return Err(malformed()) };
            let fits = piece.data.len() <= PIECE_BYTES_MAX
                && piece.offset == content.len() as u64
                && (content.len() + piece.data.len()) as u64 <= length
                && piece.crc == crc32c::crc32c(&piece.data);
            if !fits {
                return Err(malformed());
            }
            content.extend_from_slice(&piece.data);
        }
        // Whether it is whole, the header's length and checksum say; they are compared where it is decoded.
        Ok(SnapshotTransfer { opening, content: Bytes::from(content) })
    }
}

#[tonic::async_trait]
impl<RT: AsyncRuntime> RaftService for PeerService<RT> {
    async fn exchange(
        &self,
        request: Request<pb::ExchangeRequest>,
    ) -> Result<Response<pb::ExchangeResponse>, Status> {
        let certificates = request.peer_certs();
        let message = request.into_inner();
        self.authenticate(&certificates, message.header.as_ref()).map_err(|refused| status_of(&refused))?;
        let answer = self.inbound.exchange(message).await;
        answer.map(Response::new).map_err(|refused| status_of(&refused))
    }

    async fn install_snapshot(
        &self,
        request: Request<Streaming<pb::InstallSnapshotRequest>>,
    ) -> Result<Response<pb::InstallSnapshotResponse>, Status> {
        let certificates = request.peer_certs();
        let transfer = self.receive(&certificates, request.into_inner()).await?;
        let answer = self.inbound.install_snapshot(transfer).await;
        answer.map(Response::new).map_err(|refused| status_of(&refused))
    }
}

fn status_of(refused: &Refused) -> Status {
    let why = refused.to_string();
    match refused {
        Refused::Malformed => Status::invalid_argument(why),
        Refused::OtherCertificate { .. } => Status::permission_denied(why),
        Refused::NotTakingPart => Status::unavailable(why),
        Refused::OtherGeneration { ours, .. } => {
            let mut status = Status::failed_precondition(why);
            status.metadata_mut().insert(GENERATION, ours.0.into());
            status
        }
        _ => Status::failed_precondition(why),
    }
}
