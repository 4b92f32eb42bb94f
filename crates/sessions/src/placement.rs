//! How a room gets its place, within the time that a request may wait.

use crate::new_rooms::Admitted;
use crate::pin::{Pin, PinUpdate};
use crate::runtime::Moment;
use crate::sessions::{Inner, Quorum};
use crate::spread::PeersAnswer;
use crate::store::{PlaceRequest, Placement};
use std::sync::Arc;
use std::time::Duration;
use twinsite_model::{Fault, Faults, RoomKey, Token, UpstreamName};

/// How much longer than for the store a caller may wait, so that the peers can be asked when the store does not answer: a
/// room that they know and that is given another place is split until the nodes hear of each other.
const WHOLE_TIMES: u32 = 3;
/// The share of the whole time in which a decision must be ready: the rest covers its way back to the caller.
const DECISION_SHARE: u32 = 90;
/// What peers may take when they are asked before the store.
const ASK_FIRST_MAX: Duration = Duration::from_millis(20);
/// So much earlier the peers' time ends than the wait for it: timers tick in milliseconds, and an answer that one peer
/// gave must not be lost because another's time ends in the same tick as the wait.
const ASK_MARGIN: Duration = Duration::from_millis(4);

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
    /// The room is new, and this node created too many lately; rooms that exist are still found.
    #[error("too many new rooms were placed lately")]
    TooManyNewRooms,
}

/// What came of asking the peers.
enum Asked {
    /// One of them knows the room.
    Found(Placed),
    /// None that answered does.
    Unknown {
        /// Whether all answered.
        complete: bool,
    },
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
        let limit = self.options.store_timeout * WHOLE_TIMES;
        if let Some(mut decision) = self.join(&wish, &proposal)
            && let Some(Ok(decision)) = self.timeout(limit, decision.wait_for(Option::is_some)).await
            && let Some(decision) = decision.clone()
        {
            return decision;
        }
        self.decide_alone(&wish, proposal)
    }

    /// The whole way: a local replica, the store, the peers, the proposal.
    pub(crate) async fn decide(&self, wish: &Wish, proposal: UpstreamName) -> Result<Placed, Refused> {
        let begun = self.now();
        let deadline = begun + share(self.options.store_timeout * WHOLE_TIMES, DECISION_SHARE);
        let store_deadline = begun + self.options.store_timeout;
        if let Some(pin) = self.store.replica(wish.room) {
            let pin = self.table.adopt_placement(wish.room, pin, wish.replace.as_ref());
            if wish.is_met_by(&pin) {
                return Ok(placed(pin, PlacedBy::Store));
            }
        }
        if self.knows_no_quorum() {
            return self.find_existing(wish, store_deadline, deadline, Refused::QuorumUnknown).await;
        }
        let mut asked = None;
        if self.store_may_have_forgotten() {
            match self.ask_peers(wish, deadline.min(begun + ASK_FIRST_MAX)).await {
                Asked::Found(found) => return Ok(found),
                Asked::Unknown { complete } => asked = Some(complete),
            }
        }
        let Ok(admitted) = self.admit(wish) else {
            return self.find_existing(wish, store_deadline, deadline, Refused::TooManyNewRooms).await;
        };
        // A process that stood still goes on where it was: what its peers said then is no news any more.
        while self.store_answers() && self.now() < store_deadline {
            let request = PlaceRequest {
                room: wish.room,
                proposal: proposal.clone(),
                replace: wish.replace.clone(),
                token: self.token(),
                ttl: self.ttl_of(wish),
                peers_asked: asked == Some(true),
            };
            let Some(answer) = self.timeout_at(store_deadline, self.store.place(request)).await else {
                self.slowness.note_timeout(self.now());
                break;
            };
            self.slowness.note_answer();
            match answer {
                Ok(Placement::At { pin, new }) => {
                    let pin = self.table.adopt_placement(wish.room, pin, wish.replace.as_ref());
                    if new {
                        admitted.spend();
                        self.spread_soon(PinUpdate { room: wish.room, pin: pin.clone() });
                    }
                    return Ok(placed(pin, PlacedBy::Store));
                }
                Ok(Placement::AskPeersFirst) if asked.is_none() => {
                    let until = store_deadline.min(self.now() + ASK_FIRST_MAX);
                    match self.ask_peers(wish, until).await {
                        Asked::Found(found) => return Ok(found),
                        Asked::Unknown { complete } => asked = Some(complete),
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
                // Also when a peer was silent: it may know the room, and a place that the store gave would outrank
                // what it knows. One decided without the store does not.
                Ok(Placement::AskPeersFirst) | Err(_) => break,
            }
        }
        // Who was silent in the short time before the store may answer in the time that is left.
        if asked != Some(true)
            && let Asked::Found(found) = self.ask_peers(wish, deadline).await
        {
            return Ok(found);
        }
        self.decide_admitted(wish, proposal, admitted)
    }

    fn knows_no_quorum(&self) -> bool {
        self.view.borrow().quorum == Quorum::Unknown && !Faults::here().has(Fault::RoomsWithoutQuorum)
    }

    /// Only what is new everywhere, as far as this node knows, is counted.
    fn admit(&self, wish: &Wish) -> Result<Admitted<'_>, Refused> {
        if wish.replace.is_some() || self.table.peek(wish.room).is_some() {
            return Ok(Admitted::uncounted());
        }
        self.new_rooms.admit(self.now()).ok_or(Refused::TooManyNewRooms)
    }

    /// A room that is being moved has been used; a new one must prove itself.
    fn ttl_of(&self, wish: &Wish) -> Duration {
        let known = wish.replace.is_some() || self.table.is_proven(wish.room);
        if known { self.options.room_ttl } else { self.options.unproven_ttl() }
    }

    /// Nothing new is decided, but a room that lives somewhere is found.
    async fn find_existing(
        &self,
        wish: &Wish,
        store_deadline: Moment,
        deadline: Moment,
        otherwise: Refused,
    ) -> Result<Placed, Refused> {
        let mut certainly_new = false;
        if self.store_answers()
            && let Some(Ok(known)) = self.timeout_at(store_deadline, self.store.get(wish.room)).await
        {
            certainly_new = known.is_none() && !self.store_may_have_forgotten();
            if let Some(pin) = known.filter(|pin| wish.is_met_by(pin)) {
                let pin = self.table.adopt_placement(wish.room, pin, wish.replace.as_ref());
                return Ok(placed(pin, PlacedBy::Store));
            }
        }
        // A flood of new names shall not become a flood of questions to every node.
        if !(certainly_new && otherwise == Refused::TooManyNewRooms)
            && let Asked::Found(found) = self.ask_peers(wish, deadline).await
        {
            return Ok(found);
        }
        // What this node remembers and no longer trusts is better than an end to the room.
        let known = self.table.peek(wish.room).filter(|pin| wish.is_met_by(pin));
        known.map(|pin| placed(pin, PlacedBy::Memory)).ok_or(otherwise)
    }

    async fn ask_peers(&self, wish: &Wish, until: Moment) -> Asked {
        let within = until.since(self.now()).saturating_sub(ASK_MARGIN);
        if within.is_zero() {
            return Asked::Unknown { complete: false };
        }
        let asked = self.timeout_at(until, self.spread.ask_peers(wish.room, within)).await;
        let PeersAnswer { pin, complete } = asked.unwrap_or_default();
        let Some(heard) = pin else { return Asked::Unknown { complete } };
        // Also when it is the very place to be replaced: then its version is what the replacement must exceed.
        let pin = self.table.adopt_heard(wish.room, heard, true);
        if wish.is_met_by(&pin) {
            Asked::Found(placed(pin, PlacedBy::Peer))
        } else {
            Asked::Unknown { complete }
        }
    }

    /// What this node decides by itself: what it remembers, else the proposal. All nodes hash alike, so they propose
    /// the same.
    pub(crate) fn decide_alone(&self, wish: &Wish, proposal: UpstreamName) -> Result<Placed, Refused> {
        let admitted = self.admit(wish)?;
        self.decide_admitted(wish, proposal, admitted)
    }

    fn decide_admitted(
        &self,
        wish: &Wish,
        proposal: UpstreamName,
        admitted: Admitted<'_>,
    ) -> Result<Placed, Refused> {
        if self.knows_no_quorum() {
            let known = self.table.peek(wish.room).filter(|pin| wish.is_met_by(pin));
            return known.map(|pin| placed(pin, PlacedBy::Memory)).ok_or(Refused::QuorumUnknown);
        }
        let (pin, new) = self.table.decide(wish.room, proposal, wish.replace.as_ref(), self.token());
        if !new {
            return Ok(placed(pin, PlacedBy::Memory));
        }
        admitted.spend();
        self.spread_soon(PinUpdate { room: wish.room, pin: pin.clone() });
        self.keep_soon.notify_one();
        Ok(placed(pin, PlacedBy::Proposal))
    }

    async fn token_reaches(&self, seen: Token, until: Moment) -> bool {
        let mut view = self.view.clone();
        matches!(self.timeout_at(until, view.wait_for(|view| view.token >= seen)).await, Some(Ok(_)))
    }
}

fn placed(pin: Pin, by: PlacedBy) -> Placed {
    metrics::counter!("twinsite_sessions_placements_total", "by" => by.as_str()).increment(1);
    Placed { upstream: pin.upstream, by }
}
