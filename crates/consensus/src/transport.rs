//! How messages reach a peer. [`crate::grpc`] is the real transport; tests and the simulation bring their own.

use crate::local::Refused;
use crate::pb;
use bytes::Bytes;
use std::future::Future;
use std::time::Duration;
use twinsite_model::{Generation, NodeId};

/// A peer and where it listens.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Destination {
    /// The peer.
    pub node: NodeId,
    /// `host:port`, before any translation by the dialling node.
    pub address: String,
}

/// Messages of different lanes never wait for each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lane {
    /// Heartbeats, votes and other small urgent messages.
    Urgent,
    /// Log entries.
    Append,
    /// Snapshots.
    Snapshot,
}

/// A snapshot on its way to a peer.
#[derive(Debug, Clone)]
pub struct SnapshotTransfer {
    /// Who sends it to whom, and what it stands for.
    pub opening: pb::SnapshotOpening,
    /// The content.
    pub content: Bytes,
}

/// Why no answer came.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TransportError {
    /// The peer cannot be reached.
    #[error("unreachable: {0}")]
    Unreachable(String),
    /// Time ran out. The message may have arrived.
    #[error("timed out")]
    TimedOut,
    /// A forced recovery divides this node and the peer.
    #[error("the peer is of generation {0}")]
    OtherGeneration(Generation),
    /// The peer does not want to speak with this node.
    #[error("refused: {0}")]
    Refused(String),
}

impl From<Refused> for TransportError {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::OtherGeneration { ours, .. } => Self::OtherGeneration(ours),
            other => Self::Refused(other.to_string()),
        }
    }
}

/// Carries messages to peers. An answer must come from the peer named, whatever listens at its address.
///
/// The caller bounds every call in time; dropping the future gives it up.
pub trait Transport: Clone + Send + Sync + 'static {
    /// Carries a message and brings the answer.
    fn exchange(
        &self,
        to: &Destination,
        lane: Lane,
        message: pb::ExchangeRequest,
        ttl: Duration,
    ) -> impl Future<Output = Result<pb::ExchangeResponse, TransportError>> + Send;

    /// Carries a snapshot and brings the answer, which comes after it was installed.
    fn install_snapshot(
        &self,
        to: &Destination,
        snapshot: SnapshotTransfer,
        ttl: Duration,
    ) -> impl Future<Output = Result<pb::InstallSnapshotResponse, TransportError>> + Send;
}
