//! The open connections of floating IPs, for whoever tells other nodes of them. Touched when a connection begins or ends,
//! never by a request.
//!
//! Only what changed is kept, by connection: one that begins and ends between two looks leaves nothing behind, so short
//! ones cost nobody anything beyond this table.

use crate::group::{Group, Phase};
use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use twinsite_model::{FloatingIpName, Token};

/// A client, and the port of the floating IP that it came to.
pub type Ends = (SocketAddr, u16);

/// What became of connections at one floating IP under one token since the last look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changed {
    /// The address.
    pub ip: FloatingIpName,
    /// The token.
    pub token: Token,
    /// Each connection, and whether it is open now.
    pub connections: BTreeMap<Ends, bool>,
}

type Changes = BTreeMap<FloatingIpName, BTreeMap<Token, BTreeMap<Ends, bool>>>;

/// What has changed since the last look.
#[derive(Debug, Default)]
pub(crate) struct OpenConnections(Mutex<Changes>);

/// Notes a connection while it lives: dropped only after its socket.
pub(crate) struct OpenConnection {
    all: Arc<OpenConnections>,
    group: Arc<Group>,
    ends: Ends,
}

impl OpenConnections {
    /// Notes a connection of a group; none that is not a floating IP's.
    pub(crate) fn note(self: &Arc<Self>, stream: &TcpStream, group: &Arc<Group>) -> Option<OpenConnection> {
        // One that has gone away again is nobody's.
        let (client, local) = (stream.peer_addr().ok()?, stream.local_addr().ok()?);
        let noted =
            OpenConnection { all: Arc::clone(self), group: Arc::clone(group), ends: (client, local.port()) };
        noted.say(true).then_some(noted)
    }

    /// What has changed since the last look.
    pub(crate) fn take(&self) -> Vec<Changed> {
        let changes = std::mem::take(&mut *self.changes());
        let of_ip = |(ip, tokens): (FloatingIpName, BTreeMap<Token, _>)| {
            tokens.into_iter().map(move |(token, connections)| Changed { ip: ip.clone(), token, connections })
        };
        changes.into_iter().flat_map(of_ip).collect()
    }

    fn changes(&self) -> MutexGuard<'_, Changes> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl OpenConnection {
    fn say(&self, is_open: bool) -> bool {
        let Some(authority) = &self.group.authority else { return false };
        let (ip, token) = (authority.ip(), authority.token());
        let mut changes = self.all.changes();
        let connections = changes.entry(ip.clone()).or_default().entry(token).or_default();
        // What changes back before anybody looked has not changed.
        if connections.get(&self.ends) == Some(&!is_open) {
            connections.remove(&self.ends);
        } else {
            connections.insert(self.ends, is_open);
        }
        true
    }
}

impl Drop for OpenConnection {
    /// A client counts as told only where this node could still tell it. When all of them are closed for a move, the last
    /// words may be lost with nobody left to repeat them, and without the right to answer nothing is said: such a
    /// connection stays noted, for the next owner.
    fn drop(&mut self) {
        if self.group.holds() && !matches!(self.group.phase(), Phase::Closed(_)) {
            self.say(false);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authority::Authority;
    use crate::group::Closing;
    use std::net::TcpListener;
    use std::sync::atomic::{AtomicBool, Ordering};

    struct Held(FloatingIpName, AtomicBool);

    impl Authority for Held {
        fn ip(&self) -> &FloatingIpName {
            &self.0
        }
        fn token(&self) -> Token {
            Token::new(1, 7)
        }
        fn holds(&self) -> bool {
            self.1.load(Ordering::Relaxed)
        }
    }

    struct Door {
        listener: TcpListener,
        all: Arc<OpenConnections>,
        authority: Arc<Held>,
        group: Arc<Group>,
    }

    impl Door {
        fn new() -> Self {
            let ip = FloatingIpName::new("public").unwrap();
            let authority = Arc::new(Held(ip, true.into()));
            let group = Group::new(Some(Arc::clone(&authority) as Arc<dyn Authority>));
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            Self { listener, all: Arc::default(), authority, group }
        }

        /// A connection that has come in, and its ends.
        fn come(&self) -> (OpenConnection, Ends) {
            let client = TcpStream::connect(self.listener.local_addr().unwrap()).unwrap();
            let (stream, from) = self.listener.accept().unwrap();
            assert_eq!(client.local_addr().unwrap(), from);
            let noted = self.all.note(&stream, &self.group).unwrap();
            (noted, (from, self.listener.local_addr().unwrap().port()))
        }

        fn changed(&self) -> BTreeMap<Ends, bool> {
            let changed = self.all.take();
            assert!(changed.iter().all(|one| (one.ip.as_str(), one.token) == ("public", Token::new(1, 7))));
            changed.into_iter().flat_map(|one| one.connections).collect()
        }
    }

    #[test]
    fn what_begins_and_ends_between_two_looks_leaves_nothing() {
        let door = Door::new();
        let (short, _) = door.come();
        let (lasting, ends) = door.come();
        drop(short);
        assert_eq!(door.changed(), BTreeMap::from([(ends, true)]));
        assert_eq!(door.changed(), BTreeMap::new());
        drop(lasting);
        assert_eq!(door.changed(), BTreeMap::from([(ends, false)]));
    }

    #[test]
    fn who_may_not_have_been_told_stays_noted() {
        for closing in [Closing::Planned, Closing::Involuntary] {
            let door = Door::new();
            let (moved, _) = door.come();
            door.changed();
            door.group.set_phase(Phase::Closed(closing));
            drop(moved);
            assert_eq!(door.changed(), BTreeMap::new(), "{closing:?}");
        }
        let door = Door::new();
        let (lost, _) = door.come();
        door.changed();
        door.authority.1.store(false, Ordering::Relaxed);
        drop(lost);
        assert_eq!(door.changed(), BTreeMap::new(), "the right to answer is gone");
    }

    #[test]
    fn a_nodes_own_addresses_are_nobody_elses() {
        let door = Door { group: Group::new(None), ..Door::new() };
        let _client = TcpStream::connect(door.listener.local_addr().unwrap()).unwrap();
        let (stream, _) = door.listener.accept().unwrap();
        assert!(door.all.note(&stream, &door.group).is_none());
        assert_eq!(door.changed(), BTreeMap::new());
    }
}
