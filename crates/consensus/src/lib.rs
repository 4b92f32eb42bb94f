//! Agreement: a replicated log of [`model`](twinsite_model) commands, over openraft.
//!
//! This is the only crate that names openraft. It is generic over the runtime (openraft's [`AsyncRuntime`]), the
//! [`Disk`] and the [`Transport`], so that the same code runs in the simulation. See `OVERVIEW.md`.
//!
//! Rules for everything outside `grpc` and `disk::redb`, which only production uses: no clock, randomness or task
//! except through the runtime parameter; no unordered maps; no `select!` that draws lots; channels only from
//! `tokio::sync`, which neither read a clock nor draw lots.

mod changes;
mod consensus;
mod disk;
mod error;
pub mod grpc;
mod inbound;
mod local;
mod log_store;
mod members;
mod network;
mod options;
mod raft_types;
mod recovery;
mod state_machine;
mod status;
mod transfer;
mod transport;
mod turns;
mod wire;

/// The wire types, generated from `proto/twinsite/internal/v1/raft.proto`.
pub mod pb {
    #![allow(missing_docs, unreachable_pub, unused_qualifications, clippy::all, clippy::pedantic)]
    tonic::include_proto!("twinsite.internal.v1");
}

/// What another runtime is made of: the traits, and tokio's parts as examples and building blocks.
pub mod runtime {
    pub use openraft_rt as traits;
    pub use openraft_rt_tokio as tokio;
}

pub use changes::{Change, Lagged, Subscription, SubscriptionEnd};
pub use consensus::Consensus;
pub use disk::{Contents, Disk, DiskError, Done, Identity, MemoryDisk, RedbDisk, Urgency, Write};
pub use error::{MembershipError, ProposeError, ReadError, StartError, StopReason, TransferError, WaitError};
pub use inbound::Inbound;
pub use local::Refused;
pub use openraft_rt::AsyncRuntime;
pub use openraft_rt_tokio::TokioRuntime;
pub use options::{ElectionBias, Options};
pub use recovery::{Recovered, RecoveryError, recover, recover_disk};
pub use status::{LogIndex, MemberRole, MemberStatus, RaftStatus};
pub use transport::{Destination, Lane, SnapshotTransfer, Transport, TransportError};

#[cfg(test)]
mod tests;
