//! How a room gets its place, within the time that a request may wait.

use crate::pin::{Pin, PinUpdate};
use crate::sessions::{Inner, Quorum};
use crate::store::{PlaceRequest, Placement};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, timeout, timeout_at};
use twinsite_model::{RoomKey, Token, UpstreamName};

/// The share of the placement time that the store gets before the peers are asked, in hundredths.
const STORE_SHARE: u32 = 60;
/// The share in which a decision must be ready: the rest covers its way back to the caller.
const DECISION_SHARE: u32 = 90;
/// What peers may take when they are asked before the store.
const ASK_FIRST_MAX: Duration = Duration::from_millis(20);

/// A room's place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed {
    /// The upstream.
    pub upstream: UpstreamName,
    /// Who knew it.
    pub by: PlacedBy,
}

/// Who knew, or chose, a room's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PlacedBy {
    /// This node remembered it.
    Memory,
    /// The store had it, or accepted the proposal.
    Store,
    /// Another node remembered it.
    Peer,
    /// Nobody who can be reached knew the room: the proposal, which is the same on all nodes.
    Proposal,
}

impl PlacedBy {
    /// The word for metrics and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Store => "store",
            Self::Peer => "peer",
            Self::Proposal => "proposal",
        }
    }
}

/// Why a room was not placed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The room is new, or must be moved, and this node cannot tell whether a quorum exists (design section 5).
    #[error("a new room cannot be placed while it is unknown whether a quorum exists")]
    QuorumUnknown,
}

/// What is asked for, and what concurrent callers share.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Wish {
    pub room: RoomKey,
    pub replace: Option<UpstreamName>,
}

impl Wish {
    fn is_met_by(&self, pin: &Pin) -> bool {
        self.replace.as_ref() != Some(&pin.upstream)
    }
}

fn share(of: Duration, hundredths: u32) -> Duration {
    of * hundredths / 100
}

impl Inner {
    /// What memory alone can answer.
    pub(crate) fn remembered(&self, wish: &Wish) -> Option<Placed> {
        let pin = self.table.find(wish.room, wish.replace.as_ref())?;
        Some(placed(pin, PlacedBy::Memory))
    }

    /// Waits for the shared decision, and decides alone when it does not come in time.
    pub(crate) async fn decide_in_time(
        self: &Arc<Self>,
        wish: Wish,
        proposal: UpstreamName,
    ) -> Result<Placed, Refused> {
        let limit = self.options.placement_timeout;
        if let Some(mut decision) = self.join(&wish, &proposal)
            && let Ok(Ok(decision)) = timeout(limit, decision.wait_for(Option::is_some)).await
            && let Some(decision) = decision.clone()
        {
            return decision;
        }
        self.decide_alone(&wish, proposal)
    }

    /// The whole way: a local replica, the store, the peers, the proposal.
    pub(crate) async fn decide(&self, wish: &Wish, proposal: UpstreamName) -> Result<Placed, Refused> {
        let begun = Instant::now();
        let deadline = begun + share(self.options.placement_timeout, DECISION_SHARE);
        let store_deadline = begun + share(self.options.placement_timeout, STORE_SHARE);
        if let Some(pin) = self.store.replica(wish.room) {
            let pin = self.table.adopt_placement(wish.room, pin, wish.replace.as_ref());
            if wish.is_met_by(&pin) {
                return Ok(placed(pin, PlacedBy::Store));
            }
        }
        if self.view.borrow().quorum == Quorum::Unknown {
            return self.find_existing(wish, store_deadline, deadline).await;
        }
        let mut peers_asked = false;
        if self.store_may_have_forgotten() {
            peers_asked = true;
            if let Some(found) = self.ask_peers(wish, deadline.min(begun + ASK_FIRST_MAX)).await {
                return Ok(found);
            }
        }
        while self.store_answers() {
            let request = PlaceRequest {
                room: wish.room,
                proposal: proposal.clone(),
                replace: wish.replace.clone(),
                token: self.token(),
                ttl: self.options.room_ttl,
                peers_asked,
            };
            let Ok(answer) = timeout_at(store_deadline, self.store.place(request)).await else {
                self.slowness.note_timeout();
                break;
            };
            self.slowness.note_answer();
            match answer {
                Ok(Placement::At { pin, new }) => {
                    let pin = self.table.adopt_placement(wish.room, pin, wish.replace.as_ref());
                    if new {
                        self.spread_soon(PinUpdate { room: wish.room, pin: pin.clone() });
                    }
                    return Ok(placed(pin, PlacedBy::Store));
                }
                Ok(Placement::AskPeersFirst) if !peers_asked => {
                    peers_asked = true;
                    let until = store_deadline.min(Instant::now() + ASK_FIRST_MAX);
                    if let Some(found) = self.ask_peers(wish, until).await {
                        return Ok(found);
                    }
                }
                Ok(Placement::Stale { known: Some(pin), .. }) if wish.is_met_by(&pin) => {
                    let pin = self.table.adopt_placement(wish.room, pin, wish.replace.as_ref());
                    return Ok(placed(pin, PlacedBy::Store));
                }
                Ok(Placement::Stale { seen, .. }) => {
                    // Others are ahead of this node by moments; its own state catches up.
                    if !self.token_reaches(seen, store_deadline).await {
                        break;
                    }
                }
                Ok(Placement::AskPeersFirst) | Err(_) => break,
            }
        }
        if !peers_asked && let Some(found) = self.ask_peers(wish, deadline).await {
            return Ok(found);
        }
        self.decide_alone(wish, proposal)
    }

    /// Without a quorum nothing new is decided, but a room that lives somewhere is found.
    async fn find_existing(
        &self,
        wish: &Wish,
        store_deadline: Instant,
        deadline: Instant,
    ) -> Result<Placed, Refused> {
        if self.store_answers()
            && let Ok(Ok(Some(pin))) = timeout_at(store_deadline, self.store.get(wish.room)).await
            && wish.is_met_by(&pin)
        {
            let pin = self.table.adopt_placement(wish.room, pin, wish.replace.as_ref());
            return Ok(placed(pin, PlacedBy::Store));
        }
        self.ask_peers(wish, deadline).await.ok_or(Refused::QuorumUnknown)
    }

    async fn ask_peers(&self, wish: &Wish, until: Instant) -> Option<Placed> {
        let within = until.saturating_duration_since(Instant::now());
        if within.is_zero() {
            return None;
        }
        let heard = timeout_at(until, self.spread.ask_peers(wish.room, within)).await.ok().flatten()?;
        // Also when it is the very place to be replaced: then its version is what the replacement must exceed.
        let pin = self.table.adopt_heard(wish.room, heard, true);
        wish.is_met_by(&pin).then(|| placed(pin, PlacedBy::Peer))
    }

    /// What this node decides by itself: what it remembers, else the proposal. All nodes hash alike, so they propose
    /// the same.
    pub(crate) fn decide_alone(&self, wish: &Wish, proposal: UpstreamName) -> Result<Placed, Refused> {
        if self.view.borrow().quorum == Quorum::Unknown {
            let known = self.table.peek(wish.room).filter(|pin| wish.is_met_by(pin));
            return known.map(|pin| placed(pin, PlacedBy::Memory)).ok_or(Refused::QuorumUnknown);
        }
        let (pin, new) = self.table.decide(wish.room, proposal, wish.replace.as_ref(), self.token());
        if !new {
            return Ok(placed(pin, PlacedBy::Memory));
        }
        self.spread_soon(PinUpdate { room: wish.room, pin: pin.clone() });
        self.keep_soon.notify_one();
        Ok(placed(pin, PlacedBy::Proposal))
    }

    async fn token_reaches(&self, seen: Token, until: Instant) -> bool {
        let mut view = self.view.clone();
        matches!(timeout_at(until, view.wait_for(|view| view.token >= seen)).await, Ok(Ok(_)))
    }
}

fn placed(pin: Pin, by: PlacedBy) -> Placed {
    metrics::counter!("twinsite_sessions_placements_total", "by" => by.as_str()).increment(1);
    Placed { upstream: pin.upstream, by }
}
