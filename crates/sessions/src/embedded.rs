//! The store in the replicated state: for demos and tiny set-ups without a Redis.
//!
//! Writes are commands proposed to the leader; reads come from this node's own copy of the state. What the state has
//! acknowledged it never forgets, so there is nothing to refill. The version of a pin is the revision that placed the room
//! there. So what a node decided in the meantime, while the leader was slow to answer, outranks the place that it gave up,
//! and is written when the leader answers again; and what was agreed since outranks both. (Pins from before
//! [`twinsite_model::Format::PLACES`] do not know when they were placed; they count as of the revision in which they are seen.)
//! Connection counts and drains are not written: the nodes tell each other the first, and the
//! state holds the second.

use crate::pin::{NodeConnections, Pin, PinUpdate};
use crate::store::{
    BoxFuture, LoadCursor, Loaded, PlaceRequest, Placement, Role, Store, StoreError, StoreStatus, Why,
};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use twinsite_model::{
    Applied, Command, Effect, Refusal, Revision, RoomKey, State, Token, UpstreamName, WallTime,
};

/// Rooms that one [`Store::keep`] writes anew at most; each is a command. The rest follows at the next interval.
const PINS_WRITTEN_MAX: usize = 64;

/// Why a proposal came to nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProposeFailed {
    /// No leader is known, or it did not answer in time.
    #[error("no leader took the proposal in time")]
    NoLeader,
}

/// The way into the replicated state. The program implements it over the consensus and the node-to-node channel.
pub trait Proposer: Send + Sync + 'static {
    /// Has the leader propose a command, and returns what came of it.
    fn propose(&self, command: Command) -> BoxFuture<'_, Result<Applied, ProposeFailed>>;

    /// This node's copy of the state.
    fn state(&self) -> Arc<State>;
}

/// Pins in the replicated state.
pub struct EmbeddedStore<P> {
    proposer: P,
    status: watch::Sender<StoreStatus>,
}

impl<P: Proposer> EmbeddedStore<P> {
    /// A store that proposes through `proposer`.
    pub fn new(proposer: P) -> Self {
        let status = StoreStatus::Up { role: Role::Embedded };
        Self { proposer, status: watch::Sender::new(status) }
    }

    async fn propose(&self, command: Command) -> Result<Applied, StoreError> {
        match self.proposer.propose(command).await {
            Ok(applied) => Ok(applied),
            // One lost proposal does not make the store useless: it is asked again each time.
            Err(ProposeFailed::NoLeader) => Err(StoreError::Away(Why::NoLeader)),
        }
    }

    fn known(state: &State, room: RoomKey) -> Option<Pin> {
        let pin = state.sessions.pins.get(&room)?;
        Some(Pin { upstream: pin.upstream.clone(), version: version(pin, state.revision), token: pin.token })
    }

    async fn pin(
        &self,
        room: RoomKey,
        upstream: UpstreamName,
        replace: Option<UpstreamName>,
        token: Token,
    ) -> Result<Placement, StoreError> {
        let applied = self.propose(Command::PinRoom { room, upstream, replace, token }).await?;
        match applied.result {
            Ok(Effect::Placed(pin)) => {
                let new = !applied.events.is_empty();
                let version = version(&pin, applied.revision);
                Ok(Placement::At { pin: Pin { upstream: pin.upstream, version, token: pin.token }, new })
            }
            Err(Refusal::StaleToken { seen, .. }) => {
                Ok(Placement::Stale { seen, known: Self::known(&self.proposer.state(), room) })
            }
            Err(Refusal::SessionsFull) => Err(StoreError::Away(Why::Full)),
            Ok(_) | Err(_) => Err(StoreError::Away(Why::Protocol)),
        }
    }

    /// Confirms the rooms whose last confirmation is older than a quarter of their time to live: the log should not
    /// grow with every heartbeat of every room. Those that nobody uses are forgotten by the leader.
    async fn touch(
        &self,
        state: &State,
        rooms: &[RoomKey],
        token: Token,
        ttl: Duration,
    ) -> Result<(), StoreError> {
        let aged = |room: &&RoomKey| {
            let pin = state.sessions.pins.get(*room);
            pin.is_some_and(|pin| state.wall.since(pin.touched) > ttl / 4)
        };
        let rooms: Vec<_> = rooms.iter().filter(aged).copied().collect();
        if !rooms.is_empty() {
            let applied = self.propose(Command::TouchRooms { rooms, token }).await?;
            if let Err(Refusal::StaleToken { seen, .. }) = applied.result {
                return Err(StoreError::Stale { seen });
            }
        }
        Ok(())
    }
}

fn version(pin: &twinsite_model::Pin, seen: Revision) -> u64 {
    pin.placed.unwrap_or(seen).0
}

impl<P: Proposer> Store for EmbeddedStore<P> {
    fn place(&self, request: PlaceRequest) -> BoxFuture<'_, Result<Placement, StoreError>> {
        Box::pin(self.pin(request.room, request.proposal, request.replace, request.token))
    }

    fn get(&self, room: RoomKey) -> BoxFuture<'_, Result<Option<Pin>, StoreError>> {
        Box::pin(async move { Ok(self.replica(room)) })
    }

    fn replica(&self, room: RoomKey) -> Option<Pin> {
        Self::known(&self.proposer.state(), room)
    }

    fn keep(
        &self,
        pins: Vec<PinUpdate>,
        token: Token,
        ttl: Duration,
    ) -> BoxFuture<'_, Result<Vec<Pin>, StoreError>> {
        Box::pin(async move {
            let state = self.proposer.state();
            let mut stored = Vec::with_capacity(pins.len());
            let mut agreed = Vec::new();
            let mut written = 0;
            for PinUpdate { room, pin } in pins {
                let known = Self::known(&state, room);
                let replace = match &known {
                    Some(known) if known.upstream == pin.upstream || !pin.outranks(known) => {
                        agreed.push(room);
                        stored.push(known.clone());
                        continue;
                    }
                    // Decided here in the meantime: the place that the state has was given up.
                    Some(given_up) => Some(given_up.upstream.clone()),
                    None => None,
                };
                if written == PINS_WRITTEN_MAX {
                    stored.push(pin);
                    continue;
                }
                written += 1;
                match self.pin(room, pin.upstream, replace, token).await? {
                    Placement::At { pin, .. } => stored.push(pin),
                    Placement::Stale { seen, .. } => return Err(StoreError::Stale { seen }),
                    Placement::AskPeersFirst => return Err(StoreError::Away(Why::Protocol)),
                }
            }
            self.touch(&state, &agreed, token, ttl).await?;
            Ok(stored)
        })
    }

    /// The state is here and bounded: one step is all.
    fn load(&self, _from: LoadCursor) -> BoxFuture<'_, Result<Loaded, StoreError>> {
        Box::pin(async move {
            let state = self.proposer.state();
            let rooms = state.sessions.pins.keys();
            let pins =
                rooms.filter_map(|room| Some(PinUpdate { room: *room, pin: Self::known(&state, *room)? }));
            Ok(Loaded { pins: pins.collect(), next: None })
        })
    }

    /// Nothing to do: the state itself knows the newest token and refuses older ones.
    fn assert_token(&self, _token: Token) {}

    fn put_connections(
        &self,
        _counts: NodeConnections,
        _token: Token,
        _ttl: Duration,
    ) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async { Ok(()) })
    }

    fn put_drains(
        &self,
        _drains: BTreeMap<UpstreamName, WallTime>,
        _token: Token,
        _ttl: Duration,
    ) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async { Ok(()) })
    }

    fn status(&self) -> watch::Receiver<StoreStatus> {
        self.status.subscribe()
    }

    fn lives(&self) -> Option<watch::Receiver<u64>> {
        None
    }
}
