//! The way to the other nodes. The program implements it over its node-to-node channel.

use crate::pin::{Gossip, Pin};
use crate::store::BoxFuture;
use std::time::Duration;
use twinsite_model::RoomKey;

/// Carries pins from node to node. The receiving side calls [`crate::Sessions::receive`] and
/// [`crate::Sessions::answer`].
pub trait Spread: Send + Sync + 'static {
    /// Sends to every peer, without waiting. Bounded for each peer, so that a silent one takes nothing from the others;
    /// what does not fit is dropped. What is lost is repeated while it matters: rooms in use are spread again at every
    /// keeping interval.
    fn broadcast(&self, gossip: Gossip);

    /// Asks every peer where the room is, and returns the highest-ranking answer ([`Pin::outranks`]) that came within
    /// the time, also when others are silent; at once when all have answered.
    fn ask_peers(&self, room: RoomKey, within: Duration) -> BoxFuture<'_, PeersAnswer>;
}

/// What the peers know of a room.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PeersAnswer {
    /// The highest-ranking answer.
    pub pin: Option<Pin>,
    /// Whether every peer answered. If not, one of those that are silent may know better.
    pub complete: bool,
}
