//! The leader's side of the lease: who may go on acting (design section 5).

use std::time::Duration;
use twinsite_model::{FloatingIpName, Incarnation, NodeId, Token};

/// An owner asks for more time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Renewal {
    /// The address.
    pub ip: FloatingIpName,
    /// The owner.
    pub node: NodeId,
    /// Its life.
    pub incarnation: Incarnation,
    /// Its token.
    pub token: Token,
    /// Grows with every renewal of this life: the answer names it, and the owner knows when it sent it.
    pub seq: u64,
}

/// The leader's answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RenewalAnswer {
    /// The owner may act for so long *from the moment at which it sent the renewal*.
    Granted {
        /// The renewal's number.
        seq: u64,
        /// `L`.
        lease: Duration,
    },
    /// Not granted.
    Refused {
        /// The renewal's number.
        seq: u64,
        /// Why.
        why: RenewalRefusal,
    },
}

/// Why a renewal was not granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RenewalRefusal {
    /// Another node leads; ask it.
    #[error("this node does not lead")]
    NotLeader,
    /// No quorum confirmed the leader.
    #[error("no quorum confirmed the leader")]
    NoQuorum,
    /// A move of the address has been proposed, and its fate is open.
    #[error("a move of the address is under way")]
    MoveProposed,
    /// The leader has too many renewals waiting.
    #[error("the leader is busy")]
    Busy,
    /// A quorum agrees that the asker does not own the address under this token in this life.
    #[error("the owner is another, or of another life")]
    NotOwner,
    /// A quorum agrees that the right to renew is gone.
    #[error("the token is revoked")]
    Revoked,
    /// The token was released, which is final.
    #[error("the token was released")]
    Released,
}

impl RenewalRefusal {
    /// Whether this token will never be granted again: the asker must stop. Otherwise it may go on to the end of
    /// its lease, and ask again.
    pub const fn is_final(self) -> bool {
        matches!(self, Self::NotOwner | Self::Revoked | Self::Released)
    }

    /// Whether asking again, here or at the leader, may succeed.
    pub const fn retryable(self) -> bool {
        !self.is_final()
    }
}

/// A holder, or the guardian after its process had ended, has let go: no socket, address or element is left. Final
/// for the token. Sent again until the state shows another owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Release {
    /// The address.
    pub ip: FloatingIpName,
    /// The node.
    pub node: NodeId,
    /// The life that held it.
    pub incarnation: Incarnation,
    /// The token.
    pub token: Token,
    /// Who says so.
    pub by: ReleasedBy,
}

/// Who says that an owner has let go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ReleasedBy {
    /// The owner itself.
    Holder,
    /// Its guardian, after the process had ended.
    Guardian,
}
