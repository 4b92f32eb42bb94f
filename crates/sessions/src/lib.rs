//! Where rooms are: pins in the memory of every node, spread node to node, and durable in a shared store.
//!
//! A meeting room lives in the memory of one upstream, so every participant must be brought to the same one. The
//! handle is [`Sessions`]; what it stands on are two seams: a [`Store`] ([`RedisStore`] or [`EmbeddedStore`]) and a
//! [`Spread`] to the other nodes. The rules that keep a room whole are in `OVERVIEW.md`.

mod embedded;
mod keeper;
mod memory;
mod new_rooms;
mod pin;
mod placement;
mod redis;
mod runtime;
mod sessions;
mod spread;
mod store;

pub use embedded::{EmbeddedStore, ProposeFailed, Proposer};
pub use pin::{Gossip, NodeConnections, PIN_BATCH_MAX, Pin, PinEvent, PinUpdate};
pub use placement::{Placed, PlacedBy, Refused};
pub use redis::{Credentials, RedisConfig, RedisConfigError, RedisStore, SecretSource};
pub use runtime::{Moment, Runtime};
pub use sessions::{ClusterView, PinFeed, Quorum, Sessions, SessionsOptions};
pub use spread::{PeersAnswer, Spread};
pub use store::{
    BoxFuture, LoadCursor, Loaded, PlaceRequest, Placement, Role, Store, StoreError, StoreStatus, Why,
};
