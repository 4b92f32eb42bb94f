//! The dialling side.
#![allow(clippy::disallowed_methods, reason = "the real transport: real sockets have real time")]

use super::identity::PeerIdentity;
use super::tls::PeerTls;
use super::{GENERATION, MESSAGE_BYTES_MAX, PIECE_BYTES_MAX};
use crate::pb::{self, install_snapshot_request::Part, raft_service_client::RaftServiceClient};
use crate::transport::{Destination, Lane, SnapshotTransfer, Transport, TransportError};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};
use twinsite_model::dial::DialMap;
use twinsite_model::{ClusterName, Generation};

/// A connection on which nothing came back for so long is made anew: TCP may wait far longer after a partition.
const STALE_AFTER: Duration = Duration::from_secs(1);
/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// The first wait after a failed connection; doubled up to the last.
const BACK_OFF_FIRST: Duration = Duration::from_millis(10);
const BACK_OFF_LAST: Duration = Duration::from_millis(200);
/// How soon a silent connection is probed, and how long the answer may take.
const KEEP_ALIVE: Duration = Duration::from_secs(1);

/// Dials peers over gRPC.
#[derive(Clone)]
pub struct GrpcTransport {
    cluster: ClusterName,
    dial: Arc<DialMap>,
    tls: Option<PeerTls>,
    connections: Arc<Mutex<BTreeMap<(Destination, Lane), Connection>>>,
}

/// One lane to one peer.
#[derive(Default)]
struct Connection {
    channel: Option<Channel>,
    /// Since when calls have gone unanswered.
    unanswered_since: Option<Instant>,
    not_before: Option<Instant>,
    back_off: Duration,
}

impl GrpcTransport {
    /// Dials through `dial`. Without `tls` everything is in the clear and nobody proves anything: for tests only.
    pub fn new(cluster: ClusterName, dial: DialMap, tls: Option<PeerTls>) -> Self {
        Self { cluster, dial: Arc::new(dial), tls, connections: Arc::default() }
    }

    async fn client(
        &self,
        to: &Destination,
        lane: Lane,
    ) -> Result<RaftServiceClient<Channel>, TransportError> {
        let known = self.connection(to, lane, Connection::take_turn)?;
        let channel = if let Some(channel) = known {
            channel
        } else {
            let channel = self.dial(to).await?;
            self.connection(to, lane, |connection| connection.channel = Some(channel.clone()));
            channel
        };
        Ok(RaftServiceClient::new(channel)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX))
    }

    fn connection<R>(&self, to: &Destination, lane: Lane, work: impl FnOnce(&mut Connection) -> R) -> R {
        let mut connections = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
        work(connections.entry((to.clone(), lane)).or_default())
    }

    async fn dial(&self, to: &Destination) -> Result<Channel, TransportError> {
        let unreachable = |why: String| TransportError::Unreachable(format!("{}: {why}", to.address));
        let mut addresses =
            tokio::net::lookup_host(&to.address).await.map_err(|error| unreachable(error.to_string()))?;
        let address = addresses.next().ok_or_else(|| unreachable("no such host".to_owned()))?;
        let address = self.dial.resolve(address);
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        let mut endpoint = Endpoint::from_shared(format!("{scheme}://{address}"))
            .map_err(|error| unreachable(error.to_string()))?
            .tcp_nodelay(true)
            .connect_timeout(CONNECT_TIMEOUT)
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE);
        if let Some(tls) = &self.tls {
            let expected = PeerIdentity { cluster: self.cluster.clone(), node: to.node };
            endpoint = tls.secure(endpoint, expected).map_err(|error| unreachable(error.to_string()))?;
        }
        Ok(endpoint.connect_lazy())
    }

    /// Notes how a call went, for the next one.
    fn note<R>(
        &self,
        to: &Destination,
        lane: Lane,
        result: Result<tonic::Response<R>, Status>,
    ) -> Result<R, TransportError> {
        let result = result.map(tonic::Response::into_inner).map_err(|status| error_of(&status));
        self.connection(to, lane, |connection| match &result {
            Ok(_) | Err(TransportError::Refused(_) | TransportError::OtherGeneration(_)) => {
                *connection = connection.answered();
            }
            Err(TransportError::Unreachable(_)) => connection.failed(),
            Err(TransportError::TimedOut) => {}
        });
        result
    }
}

impl Connection {
    /// The channel to use, if there is one to go on with. A caller that gives up in the middle leaves
    /// `unanswered_since` behind, which is the point of it.
    fn take_turn(&mut self) -> Result<Option<Channel>, TransportError> {
        let now = Instant::now();
        if self.not_before.is_some_and(|not_before| now < not_before) {
            return Err(TransportError::Unreachable("waiting to dial again".to_owned()));
        }
        let since = *self.unanswered_since.get_or_insert(now);
        if now - since > STALE_AFTER {
            self.channel = None;
            self.unanswered_since = Some(now);
        }
        Ok(self.channel.clone())
    }

    fn answered(&mut self) -> Self {
        Self { channel: self.channel.take(), ..Self::default() }
    }

    fn failed(&mut self) {
        self.back_off = (2 * self.back_off).clamp(BACK_OFF_FIRST, BACK_OFF_LAST);
        self.not_before = Some(Instant::now() + self.back_off);
    }
}

impl Transport for GrpcTransport {
    async fn exchange(
        &self,
        to: &Destination,
        lane: Lane,
        message: pb::ExchangeRequest,
        ttl: Duration,
    ) -> Result<pb::ExchangeResponse, TransportError> {
        let mut client = self.client(to, lane).await?;
        let mut request = Request::new(message);
        // The peer need not finish what nobody waits for.
        request.set_timeout(ttl);
        self.note(to, lane, client.exchange(request).await)
    }

    async fn install_snapshot(
        &self,
        to: &Destination,
        snapshot: SnapshotTransfer,
        ttl: Duration,
    ) -> Result<pb::InstallSnapshotResponse, TransportError> {
        let mut client = self.client(to, Lane::Snapshot).await?;
        let opening = Part::Opening(snapshot.opening);
        let content = snapshot.content;
        let pieces = (0..content.len()).step_by(PIECE_BYTES_MAX).map(move |offset| {
            let data = content.slice(offset..content.len().min(offset + PIECE_BYTES_MAX));
            Part::Piece(pb::SnapshotPiece { offset: offset as u64, crc: crc32c::crc32c(&data), data })
        });
        let parts = std::iter::once(opening)
            .chain(pieces)
            .map(|part| pb::InstallSnapshotRequest { part: Some(part) });
        let mut request = Request::new(tokio_stream::iter(parts));
        request.set_timeout(ttl);
        self.note(to, Lane::Snapshot, client.install_snapshot(request).await)
    }
}

fn error_of(status: &Status) -> TransportError {
    let generation = status.metadata().get(GENERATION).and_then(|number| number.to_str().ok()?.parse().ok());
    if let Some(generation) = generation {
        return TransportError::OtherGeneration(Generation(generation));
    }
    match status.code() {
        Code::DeadlineExceeded => TransportError::TimedOut,
        // What tonic makes of its own timer; `Cancelled` otherwise means a connection that broke.
        Code::Cancelled if status.message() == "Timeout expired" => TransportError::TimedOut,
        Code::FailedPrecondition
        | Code::PermissionDenied
        | Code::InvalidArgument
        | Code::ResourceExhausted => TransportError::Refused(status.message().to_owned()),
        _ => {
            // tonic's own message is only "transport error"; the cause says whether it was the certificate.
            let mut why = status.message().to_owned();
            let mut cause = std::error::Error::source(status);
            while let Some(error) = cause {
                why = format!("{why}: {error}");
                cause = error.source();
            }
            TransportError::Unreachable(why)
        }
    }
}
