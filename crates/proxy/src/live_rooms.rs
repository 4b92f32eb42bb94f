//! The rooms of this node's tunnels. Touched when a tunnel begins or ends, never by a request.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio_util::sync::CancellationToken;
use twinsite_model::{RoomKey, UpstreamName};

/// Every room with its tunnels, so that news of a room looks at its own tunnels only.
#[derive(Debug, Default)]
pub(crate) struct LiveRooms {
    rooms: Mutex<BTreeMap<RoomKey, BTreeMap<u64, InRoom>>>,
    next: AtomicU64,
}

#[derive(Debug)]
struct InRoom {
    upstream: UpstreamName,
    moved: CancellationToken,
}

/// Notes a tunnel's room while it lives.
pub(crate) struct LiveRoom {
    all: Arc<LiveRooms>,
    room: RoomKey,
    number: u64,
    /// Set when the room was given another place.
    pub(crate) moved: CancellationToken,
}

impl LiveRooms {
    pub(crate) fn note(self: &Arc<Self>, room: RoomKey, upstream: &UpstreamName) -> LiveRoom {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let moved = CancellationToken::new();
        let tunnel = InRoom { upstream: upstream.clone(), moved: moved.clone() };
        self.rooms().entry(room).or_default().insert(number, tunnel);
        LiveRoom { all: Arc::clone(self), room, number, moved }
    }

    /// Every tunnel's room and upstream.
    pub(crate) fn all(&self) -> Vec<(RoomKey, UpstreamName)> {
        let rooms = self.rooms();
        let tunnels = rooms.iter().flat_map(|(room, tunnels)| tunnels.values().map(|tunnel| (*room, tunnel)));
        tunnels.map(|(room, tunnel)| (room, tunnel.upstream.clone())).collect()
    }

    /// Ends the room's tunnels to elsewhere.
    pub(crate) fn moved(&self, room: RoomKey, to: &UpstreamName) {
        let rooms = self.rooms();
        let tunnels = rooms.get(&room).into_iter().flat_map(BTreeMap::values);
        for tunnel in tunnels.filter(|tunnel| tunnel.upstream != *to) {
            tunnel.moved.cancel();
        }
    }

    fn rooms(&self) -> MutexGuard<'_, BTreeMap<RoomKey, BTreeMap<u64, InRoom>>> {
        self.rooms.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for LiveRoom {
    fn drop(&mut self) {
        let mut rooms = self.all.rooms();
        if let Some(tunnels) = rooms.get_mut(&self.room) {
            tunnels.remove(&self.number);
            if tunnels.is_empty() {
                rooms.remove(&self.room);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_room_that_moves_ends_its_own_tunnels_to_elsewhere_and_no_others() {
        let name = |name: &str| UpstreamName::new(name).unwrap();
        let (here, there) = (name("here"), name("there"));
        let (room, other) = (RoomKey([1; 16]), RoomKey([2; 16]));
        let rooms = Arc::new(LiveRooms::default());
        let (left, met, apart) =
            (rooms.note(room, &here), rooms.note(room, &there), rooms.note(other, &here));
        rooms.moved(room, &there);
        let moved = [&left, &met, &apart].map(|tunnel| tunnel.moved.is_cancelled());
        assert_eq!(moved, [true, false, false]);
        drop(left);
        assert_eq!(rooms.all(), [(room, there), (other, here)]);
        drop((met, apart));
        assert!(rooms.rooms().is_empty(), "a room without tunnels takes no memory");
    }
}
