//! Who is in which room. Everything is bounded, and nobody waits for a slow reader.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::Utf8Bytes;
use twinsite_model::{ClusterName, RoomKey};

/// Rooms that one instance holds at most.
pub const ROOMS_MAX: usize = 10_000;
/// Participants that one room holds at most.
pub const PEERS_PER_ROOM_MAX: usize = 500;
/// Messages that wait for one participant; with more, it is too slow and is cut off.
pub(super) const QUEUE_MAX: usize = 256;

/// One connection of one participant: a participant that reconnects gets a new one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Seat(u64);

#[derive(Debug)]
struct Peer {
    id: String,
    outbox: mpsc::Sender<Utf8Bytes>,
}

#[derive(Debug, Default)]
struct Inner {
    next_seat: u64,
    rooms: BTreeMap<String, BTreeMap<Seat, Peer>>,
}

/// All rooms of an instance.
#[derive(Debug, Default)]
pub(super) struct Rooms(Mutex<Inner>);

/// Why somebody cannot enter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Full {
    /// No further room fits.
    Rooms,
    /// Nobody else fits into this room.
    Peers,
}

/// Somebody's presence in a room.
#[derive(Debug)]
pub(super) struct Presence {
    pub(super) seat: Seat,
    pub(super) inbox: mpsc::Receiver<Utf8Bytes>,
    /// Who was there before.
    pub(super) others: Vec<String>,
}

impl Rooms {
    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        // Every change below is a single insertion or removal, so a poisoned map is still a whole one.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Brings a participant into a room, which begins to exist with the first one.
    pub(super) fn enter(&self, room: &str, peer: &str) -> Result<Presence, Full> {
        let mut inner = self.lock();
        if inner.rooms.len() >= ROOMS_MAX && !inner.rooms.contains_key(room) {
            return Err(Full::Rooms);
        }
        let seat = Seat(inner.next_seat);
        inner.next_seat += 1;
        let peers = inner.rooms.entry(room.to_owned()).or_default();
        if peers.len() >= PEERS_PER_ROOM_MAX {
            return Err(Full::Peers);
        }
        let others = peers.values().map(|other| other.id.clone()).collect();
        let (outbox, inbox) = mpsc::channel(QUEUE_MAX);
        peers.insert(seat, Peer { id: peer.to_owned(), outbox });
        Ok(Presence { seat, inbox, others })
    }

    /// Gives a message to everybody in the room. Those whose queue is full lose their seat, which closes their
    /// connection: they come back, while a room that waits for its slowest reader is lost to all.
    pub(super) fn tell(&self, room: &str, message: &Utf8Bytes) {
        if let Some(peers) = self.lock().rooms.get_mut(room) {
            peers.retain(|_, peer| peer.outbox.try_send(message.clone()).is_ok());
        }
    }

    /// Ends a presence; the room ends with its last one.
    pub(super) fn leave(&self, room: &str, seat: Seat) {
        let mut inner = self.lock();
        if let Some(peers) = inner.rooms.get_mut(room) {
            peers.remove(&seat);
            if peers.is_empty() {
                inner.rooms.remove(room);
            }
        }
    }

    /// How many rooms and participants there are.
    pub(super) fn counts(&self) -> (usize, usize) {
        let inner = self.lock();
        (inner.rooms.len(), inner.rooms.values().map(BTreeMap::len).sum())
    }

    /// Each room's key with the number of its participants.
    pub(super) fn by_key(&self, domain: &ClusterName) -> Vec<(RoomKey, usize)> {
        let inner = self.lock();
        inner.rooms.iter().map(|(room, peers)| (RoomKey::of(domain, room), peers.len())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_room_lives_as_long_as_somebody_is_in_it() {
        let rooms = Rooms::default();
        let anna = rooms.enter("board", "anna").unwrap();
        let bert = rooms.enter("board", "bert").unwrap();
        assert_eq!(bert.others, ["anna"]);
        assert_eq!(rooms.counts(), (1, 2));
        rooms.leave("board", anna.seat);
        rooms.leave("board", bert.seat);
        assert_eq!(rooms.counts(), (0, 0));
    }

    #[test]
    fn a_reader_that_does_not_read_loses_its_seat_and_nobody_else_does() {
        let rooms = Rooms::default();
        let mut quick = rooms.enter("board", "quick").unwrap();
        let _slow = rooms.enter("board", "slow").unwrap();
        for n in 0..=QUEUE_MAX {
            rooms.tell("board", &Utf8Bytes::from(n.to_string()));
            assert_eq!(quick.inbox.try_recv().unwrap().as_str(), n.to_string());
        }
        assert_eq!(rooms.counts(), (1, 1));
    }

    #[test]
    fn a_room_has_a_bound() {
        let rooms = Rooms::default();
        let seats: Vec<_> =
            (0..PEERS_PER_ROOM_MAX).map(|n| rooms.enter("board", &n.to_string()).unwrap()).collect();
        assert_eq!(rooms.enter("board", "one-more").unwrap_err(), Full::Peers);
        rooms.leave("board", seats[0].seat);
        assert!(rooms.enter("board", "one-more").is_ok());
    }
}
