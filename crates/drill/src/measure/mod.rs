//! What the clients of a drill saw, and what follows from it.
//!
//! [`Recorder`] takes down every answer with the node and token that gave it. The other modules are pure functions
//! over such records: [`gap`] (how long nobody answered), [`answered`] (who did), [`dual`] (two owners answering at once), [`rooms`] (rooms
//! on two instances), [`announced`] (wrong addresses announced), [`hosts`] (which hosts of a lab answer), [`holders`] (two
//! hosts of a lab that let the address through). [`kernel`] looks at the kernel's own tables.

pub mod announced;
pub mod answered;
pub mod dual;
pub mod gap;
pub mod holders;
pub mod hosts;
pub mod kernel;
mod recorder;
pub mod rooms;

pub use recorder::{Counts, Recorder, Recording, SoFar};

use std::net::IpAddr;
use std::time::Instant;
use twinsite_model::{NodeName, Token, UpstreamName};

/// Who gave an answer.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Identity {
    /// The node.
    pub node: NodeName,
    /// The token under which it answers for the floating address.
    pub token: Option<Token>,
}

/// Something that should not have been.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evidence {
    /// When it was seen first.
    pub at: Instant,
    /// One line about it.
    pub line: String,
}

/// On what kind of connection an answer came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// On a connection made for this one request.
    NewConnection,
    /// On a connection that had been used before.
    KeepAlive,
    /// On a WebSocket.
    Tunnel,
}

/// One answer, or one message from a WebSocket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// On what.
    pub kind: Kind,
    /// When that which it answers was sent; none for messages that answer nothing.
    pub sent: Option<Instant>,
    /// When it was complete.
    pub received: Instant,
    /// Who gave it, as it says itself (for a WebSocket: as the upgrade said).
    pub identity: Option<Identity>,
    /// Whether it came through the floating address, not through a node's own.
    pub floating: bool,
}

/// The life of one participant's WebSocket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tunnel {
    /// The participant's number.
    pub participant: usize,
    /// The room's number.
    pub room: usize,
    /// The meeting instance at the other end.
    pub instance: UpstreamName,
    /// When the welcome came.
    pub opened: Instant,
    /// When the last message came.
    pub last: Instant,
    /// When the participant gave it up or saw it end.
    pub lost: Option<Instant>,
}

/// What an instance announced at some moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnnouncedSample {
    /// When it was asked.
    pub at: Instant,
    /// The instance.
    pub instance: UpstreamName,
    /// What it said; `None` for nothing.
    pub address: Option<IpAddr>,
}
