//! Where rooms are: asked of whoever keeps their places.

use std::pin::Pin;
use twinsite_model::{RoomKey, UpstreamName};

/// No place can be given to a new room now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RoomRefused {
    /// It is unknown whether a quorum exists.
    #[error("no new rooms while it is unknown whether a quorum exists")]
    QuorumUnknown,
    /// Too many were created lately.
    #[error("too many new rooms lately")]
    TooManyNew,
}

/// The keeper of places.
pub trait Rooms: Send + Sync + 'static {
    /// The place of a room, if it is known at once.
    fn remembered(&self, room: RoomKey) -> Option<UpstreamName>;

    /// Gives a room a place: `proposal`, unless it has one already. `replace` is a place that is no use any more. May
    /// wait for a store, for a bounded time.
    fn place<'a>(
        &'a self,
        room: RoomKey,
        proposal: UpstreamName,
        replace: Option<UpstreamName>,
    ) -> Pin<Box<dyn Future<Output = Result<UpstreamName, RoomRefused>> + Send + 'a>>;
}
