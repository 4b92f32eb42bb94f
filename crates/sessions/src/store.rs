//! The durable copy of the pins, behind one trait: Redis, or a table in the replicated state.

use crate::pin::{NodeConnections, Pin, PinUpdate};
use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;
use tokio::sync::watch;
use twinsite_model::{RoomKey, Token, UpstreamName, WallTime};

/// A boxed future, so that the traits of this crate work behind `dyn`.
pub type BoxFuture<'a, T> = std::pin::Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A wish to place a room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlaceRequest {
    /// The room.
    pub room: RoomKey,
    /// Where it shall be, if it has no place.
    pub proposal: UpstreamName,
    /// The place that may be overwritten: the upstream that died. Any other place is kept.
    pub replace: Option<UpstreamName>,
    /// The writer's session token.
    pub token: Token,
    /// How long the room keeps its place from now, at least; what a place has already is never shortened.
    pub ttl: Duration,
    /// Whether all other nodes were asked and did not know the room. A store that is young (it was emptied a moment
    /// ago) creates a place only then.
    pub peers_asked: bool,
}

/// What came of a [`PlaceRequest`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Placement {
    /// The room's place now, whoever chose it.
    At {
        /// The place.
        pin: Pin,
        /// Whether this request chose it.
        new: bool,
    },
    /// The store is young and does not know the room: ask the other nodes, then repeat.
    AskPeersFirst,
    /// The writer missed a change of owner; nothing was written.
    Stale {
        /// The newest token that the store has seen.
        seen: Token,
        /// Where the store has the room: reading needs no token.
        known: Option<Pin>,
    },
}

/// How far a walk over all pins has come. The default is its beginning.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LoadCursor(pub u64);

/// One step of a walk over all pins.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Loaded {
    /// What the step found; often nothing, where the store is shared with others.
    pub pins: Vec<PinUpdate>,
    /// Where to go on; `None`: that was all.
    pub next: Option<LoadCursor>,
}

/// Why a store did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// It cannot be used now.
    #[error("the session store is away: {0}")]
    Away(Why),
    /// The writer missed a change of owner; nothing was written.
    #[error("the writer's token is older than {seen}, which the session store has seen")]
    Stale {
        /// The newest token that the store has seen.
        seen: Token,
    },
    /// The command arrived after its time (the store or the network had stood still); nothing was written.
    #[error("the command reached the session store too late")]
    Late,
}

impl StoreError {
    /// Whether the same call can succeed later. A stale writer must learn the newer token first.
    pub fn retryable(&self) -> bool {
        !matches!(self, Self::Stale { .. })
    }
}

/// Why the store is away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Why {
    /// No attempt has ended yet.
    #[error("not connected yet")]
    Starting,
    /// Its host name has no address.
    #[error("its host name does not resolve")]
    Resolve,
    /// The address answers, and nobody listens there.
    #[error("connection refused")]
    Refused,
    /// No answer to the connection attempt.
    #[error("no answer to the connection attempt")]
    ConnectTimeout,
    /// The TLS handshake failed: certificate, name or protocol.
    #[error("TLS handshake failed; check the certificate authority and the host name")]
    Tls,
    /// User name or password are wrong, missing, or cannot be read.
    #[error("user name or password are missing, unreadable or wrong")]
    Authentication,
    /// Connected, and it does not answer (hung, or cut off).
    #[error("it does not answer")]
    ResponseTimeout,
    /// The connection broke.
    #[error("the connection broke")]
    Closed,
    /// It is reading its data from disk.
    #[error("it is loading its data")]
    Loading,
    /// It is a replica, or was made one.
    #[error("it is read-only (a replica?)")]
    ReadOnly,
    /// It belongs to a Redis Cluster that keeps these keys elsewhere.
    #[error("it is a Redis Cluster node that does not hold these keys")]
    Misrouted,
    /// It refuses writes (memory full, disk error, permission).
    #[error("it refuses writes (memory, disk or permission)")]
    Refusing,
    /// It answered something that is no answer to the question.
    #[error("it answers in a way that is not understood")]
    Protocol,
    /// Embedded store: no leader took the proposal in time.
    #[error("no leader took the proposal in time")]
    NoLeader,
    /// Embedded store: it holds as many rooms as it may.
    #[error("the embedded store is full")]
    Full,
}

/// What a usable store is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// A Redis that accepted a write.
    Primary,
    /// The replicated state.
    Embedded,
}

/// Whether the store can be used; a report for the controller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreStatus {
    /// It accepts writes.
    Up {
        /// As what.
        role: Role,
    },
    /// It does not.
    Down {
        /// Why.
        why: Why,
    },
}

impl StoreStatus {
    /// Whether it can be used.
    pub fn is_up(&self) -> bool {
        matches!(self, Self::Up { .. })
    }
}

/// The durable copy. Every write is refused if its token is older than the newest that the store has seen, and
/// raises that otherwise.
pub trait Store: Send + Sync + 'static {
    /// Places a room, if it has no place or has exactly the place to be replaced.
    fn place(&self, request: PlaceRequest) -> BoxFuture<'_, Result<Placement, StoreError>>;

    /// Where the room is. Needs no token.
    fn get(&self, room: RoomKey) -> BoxFuture<'_, Result<Option<Pin>, StoreError>>;

    /// What a local replica of the store knows, without waiting. Stores without one know nothing.
    fn replica(&self, _room: RoomKey) -> Option<Pin> {
        None
    }

    /// Confirms pins in use: writes those that are missing, lengthens the life of those that agree to `ttl` (and
    /// never shortens it), and where the store has another upstream, keeps the pin with the higher version; on a tie, the store's, with a new version.
    /// Returns the store's pin for each, in the same order. At most [`crate::PIN_BATCH_MAX`].
    fn keep(
        &self,
        pins: Vec<PinUpdate>,
        token: Token,
        ttl: Duration,
    ) -> BoxFuture<'_, Result<Vec<Pin>, StoreError>>;

    /// One step of a walk over all pins, to fill the memory of a node that has just started.
    fn load(&self, from: LoadCursor) -> BoxFuture<'_, Result<Loaded, StoreError>>;

    /// Raises the token that the store has seen, as soon as it can be reached. Never waits.
    fn assert_token(&self, token: Token);

    /// Replaces this node's connection counts.
    fn put_connections(
        &self,
        counts: NodeConnections,
        token: Token,
        ttl: Duration,
    ) -> BoxFuture<'_, Result<(), StoreError>>;

    /// Replaces the mirror of the upstreams that a person is draining, with the time since when.
    fn put_drains(
        &self,
        drains: BTreeMap<UpstreamName, WallTime>,
        token: Token,
        ttl: Duration,
    ) -> BoxFuture<'_, Result<(), StoreError>>;

    /// Whether it can be used.
    fn status(&self) -> watch::Receiver<StoreStatus>;

    /// Changes whenever the store may have forgotten: a new connection, or one found empty. All live pins are then
    /// written again. `None`: this store never forgets what it acknowledged.
    fn lives(&self) -> Option<watch::Receiver<u64>>;
}
