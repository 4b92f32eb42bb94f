//! The guardian: a process that outlives the node.
//!
//! *A crash is released, silence is waited out.* When the node's process ends, for whatever reason, the guardian reads
//! back that nothing holds the floating IP any more and tells the cluster, so that a crash costs no waiting. When the
//! node hangs, the guardian ends it in time, so that a frozen holder cannot go on later.
//!
//! The two talk over a Unix socket in the node's data directory. [`run`] is the guardian's side,
//! [`GuardianClient`] the node's.

mod client;
mod error;
mod exit;
mod process;
mod protocol;
mod record;
#[cfg(test)]
mod tests;
mod watched;

pub use client::{GuardianClient, Held, Line};
pub use error::GuardianError;
pub use process::{GuardianConfig, Releases, run};
pub use protocol::BadFrame;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use twinsite_model::{FloatingIpName, Incarnation, InterfaceName, Token};

/// Where node and guardian meet.
pub fn socket_path(data: &Path) -> PathBuf {
    data.join("guardian.sock")
}

/// A floating IP that a node holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holding {
    /// The address's name.
    pub ip: FloatingIpName,
    /// What must be free when it is let go.
    pub addresses: Vec<SocketAddr>,
    /// The interface that it is on, if it is on one: there it must be cleared away when its holder has ended.
    pub interface: Option<InterfaceName>,
    /// The token.
    pub token: Token,
}

/// A token that has ended because its holder's process has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// The address's name.
    pub ip: FloatingIpName,
    /// The token.
    pub token: Token,
    /// The life of the process that held it.
    pub incarnation: Incarnation,
}
