//! The real transport: gRPC over mutual TLS. Only here, in the whole crate, are there sockets and wall-clock timers.
//!
//! * Heartbeats and votes, log entries, and snapshots travel on connections of their own, so that none waits for
//!   another.
//! * The certificate on either side must carry the cluster and the node that it claims to speak for.
//! * Every message is bounded in size and every call in time.

mod client;
mod identity;
mod server;
mod tls;

pub use client::GrpcTransport;
pub use identity::{IdentityError, KnownCertificates, PeerIdentity};
pub use server::{PeerCheck, PeerService, service};
pub use tls::{PeerTls, TlsError};

/// Where a refusal says of which generation the refusing node is.
const GENERATION: &str = "twinsite-generation";
/// The most bytes of one message: a single entry of the largest size, and room for the rest.
const MESSAGE_BYTES_MAX: usize = 4 << 20;
/// The most bytes of one piece of a snapshot.
const PIECE_BYTES_MAX: usize = 256 << 10;
/// The most bytes of a snapshot. A state of ten thousand upstreams takes a few megabytes.
const SNAPSHOT_BYTES_MAX: usize = 256 << 20;
