//! Which connections each floating IP has, known on every node that may hold it next.
//!
//! An owner that dies without a word leaves clients that wait for it. Whoever takes the address over resets their
//! connections, and for that must know them: so the holder keeps a roll of its connections for each address and token, and
//! tells the changes to the other nodes as they come, node to node, whatever becomes of Redis or a quorum. Each of them is
//! told at its own pace, one message at a time, and answers how far it has the roll (`connections/roll.rs`).
//!
//! All connections to a floating IP are kept, not only tunnels: an idle keep-alive connection would find out by itself
//! with its next request, but a request that waits for its answer (a long poll, a download) would not, and which of them
//! waits is known only to the request path, which is to do nothing for this. Those that last less than a look at the proxy
//! are never told.

mod roll;
#[cfg(test)]
mod tests;

use crate::machine::Machine;
use roll::{Copy, Roll, Told, TooMany};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use twinsite_floating_ip::Connection;
use twinsite_model::{BootTime, FloatingIpName, NodeId, Token};

pub use roll::{PIECE_MAX, Piece};

/// How often the proxy is asked what has changed: so far may the others be behind.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How often a roll that does not change is told, so that what was lost is found.
const SAY_AGAIN: Duration = Duration::from_secs(5);
/// How soon a node that did not answer is told again.
const TRY_AGAIN: Duration = Duration::from_millis(500);
/// How long one message to one node may take.
const TELL_WITHIN: Duration = Duration::from_millis(500);
/// How long a roll is kept of which nothing is heard any more. Clients of a silent owner have found out by themselves
/// long before (Socket.IO: within 45 s).
const KEPT: Duration = Duration::from_secs(120);
/// Rolls of one address that are kept of other nodes: the newest ones. More moves than that within the time that rolls
/// are kept leave the oldest connections to themselves.
const TOKENS_MAX: usize = 4;

/// One message about one roll.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RollCall {
    /// The address.
    pub ip: FloatingIpName,
    /// The token under which its holder has these connections.
    pub token: Token,
    /// What is said.
    pub piece: Piece,
}

/// Why a message about a roll was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RollRefused {
    /// The token is an older one than those that are kept.
    #[error("newer tokens are known for this address")]
    Old,
    /// Another node has spoken of connections under this token.
    #[error("the token is another node's")]
    NotTheHolder,
    /// It is too long.
    #[error(transparent)]
    TooMany(#[from] TooMany),
}

/// The way to the other nodes for this.
pub trait TellRolls: Clone + Send + Sync + 'static {
    /// Why a call came to nothing.
    type Error: fmt::Display + Send;

    /// Tells a node, and hears up to which change it has the roll now.
    fn tell(
        &self,
        to: NodeId,
        call: RollCall,
        within: Duration,
    ) -> impl Future<Output = Result<u64, Self::Error>> + Send;
}

/// What became of connections to one address under one token since the last look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangedConnections {
    /// The address.
    pub ip: FloatingIpName,
    /// The token.
    pub token: Token,
    /// Each connection, and whether it is open now.
    pub connections: Vec<(Connection, bool)>,
}

/// Where the connections are.
pub trait OpenConnections: Send + 'static {
    /// What became of them since the last look.
    fn changed(&self) -> Vec<ChangedConnections>;

    /// The addresses that have some, and the token under which they are served now.
    fn served(&self) -> Vec<(FloatingIpName, Token)>;
}

/// Who is to be told of the connections of an address.
pub trait Listeners: Send + 'static {
    /// The other nodes that may hold it next.
    fn of(&self, ip: &FloatingIpName) -> Vec<NodeId>;
}

type Key = (FloatingIpName, Token);

/// What is known of connections, on this node and on others. Clones share it.
#[derive(Clone, Default)]
pub struct Connections(Arc<Mutex<Known>>);

#[derive(Default)]
struct Known {
    /// Of this node.
    rolls: BTreeMap<Key, Own>,
    /// Of other nodes.
    copies: BTreeMap<Key, Theirs>,
}

#[derive(Default)]
struct Own {
    roll: Roll,
    listeners: BTreeMap<NodeId, Listener>,
    served_at: BootTime,
}

/// Another node that is told of a roll.
#[derive(Default)]
struct Listener {
    told: Told,
    said_at: BootTime,
    /// It did not answer, or not what it should.
    silent: bool,
}

impl Listener {
    fn is_due(&self, roll: &Roll, now: BootTime) -> bool {
        let every = match (self.silent, self.told.is_up_to_date(roll)) {
            (true, _) => TRY_AGAIN,
            (false, true) => SAY_AGAIN,
            (false, false) => Duration::ZERO,
        };
        now.since(self.said_at) >= every
    }
}

struct Theirs {
    holder: NodeId,
    copy: Copy,
    heard_at: BootTime,
}

impl Connections {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connections that were open at an address under older tokens than this one, on any node, as far as is known here.
    pub fn before(&self, ip: &FloatingIpName, token: Token) -> Vec<Connection> {
        let known = self.known();
        let older = (ip.clone(), Token::default())..(ip.clone(), token);
        let own = known.rolls.range(older.clone()).flat_map(|(_, own)| own.roll.connections());
        let theirs = known.copies.range(older).flat_map(|(_, theirs)| theirs.copy.connections());
        let mut all: Vec<_> = own.chain(theirs).collect();
        drop(known);
        all.sort_unstable();
        all.dedup();
        all
    }

    /// Another node tells of its connections. Answers up to which change this node has the roll.
    pub fn receive(&self, from: NodeId, call: RollCall, now: BootTime) -> Result<u64, RollRefused> {
        let mut known = self.known();
        let key = (call.ip, call.token);
        if !known.copies.contains_key(&key) {
            known.make_room(&key)?;
        }
        let copy = Copy::default();
        let theirs = known.copies.entry(key).or_insert(Theirs { holder: from, copy, heard_at: now });
        if theirs.holder != from {
            return Err(RollRefused::NotTheHolder);
        }
        theirs.heard_at = now;
        Ok(theirs.copy.take(call.piece)?)
    }

    /// Notes what became of connections here.
    fn note(&self, changed: ChangedConnections, now: BootTime) {
        let mut known = self.known();
        let own = known.rolls.entry((changed.ip, changed.token)).or_default();
        own.served_at = now;
        for (connection, is_open) in changed.connections {
            if !own.roll.note(connection, is_open) {
                metrics::counter!("twinsite_connections_left_out_total").increment(1);
            }
        }
    }

    fn note_served(&self, served: Vec<Key>, now: BootTime) {
        let mut known = self.known();
        for key in served {
            if let Some(own) = known.rolls.get_mut(&key) {
                own.served_at = now;
            }
        }
    }

    /// Forgets what nobody has spoken of for a long time.
    fn forget(&self, now: BootTime) {
        let mut known = self.known();
        known.rolls.retain(|_, own| now.since(own.served_at) < KEPT);
        known.copies.retain(|_, theirs| now.since(theirs.heard_at) < KEPT);
        let own: usize = known.rolls.values().map(|own| own.roll.len()).sum();
        let theirs: usize = known.copies.values().map(|theirs| theirs.copy.len()).sum();
        drop(known);
        metrics::gauge!("twinsite_connections_noted", "of" => "this_node").set(own as f64);
        metrics::gauge!("twinsite_connections_noted", "of" => "other_nodes").set(theirs as f64);
    }

    /// The addresses of which this node has rolls.
    fn addresses(&self) -> Vec<FloatingIpName> {
        let known = self.known();
        let mut all: Vec<_> = known.rolls.keys().map(|(ip, _)| ip.clone()).collect();
        all.dedup();
        all
    }

    /// What is to be said next to a node, of the addresses that it may hold: of the roll that was told least lately, so
    /// that one that never rests takes nothing from the others.
    fn next(&self, to: NodeId, of: &[FloatingIpName], now: BootTime) -> Option<RollCall> {
        let mut known = self.known();
        let rolls = known.rolls.iter_mut().filter(|((ip, _), _)| of.contains(ip));
        let due = rolls.filter_map(|(key, Own { roll, listeners, .. })| {
            let listener = listeners.entry(to).or_default();
            listener.is_due(roll, now).then_some((key, roll, listener))
        });
        let ((ip, token), roll, listener) = due.min_by_key(|(.., listener)| listener.said_at)?;
        listener.said_at = now;
        Some(RollCall { ip: ip.clone(), token: *token, piece: listener.told.next(roll) })
    }

    /// What a node answered; none: nothing.
    fn answered(&self, by: NodeId, call: &RollCall, has: Option<u64>) {
        let mut known = self.known();
        let own = known.rolls.get_mut(&(call.ip.clone(), call.token));
        let Some(listener) = own.and_then(|own| own.listeners.get_mut(&by)) else { return };
        listener.silent = match has {
            Some(has) => !listener.told.answered(&call.piece, has),
            None => {
                listener.told.unanswered();
                true
            }
        };
    }
}

impl Known {
    /// Makes room for a copy of a roll that was not known, unless it is older than all that there is room for.
    fn make_room(&mut self, key: &Key) -> Result<(), RollRefused> {
        let of_ip = |(ip, _): &&Key| *ip == key.0;
        let tokens: Vec<_> = self.copies.keys().filter(of_ip).cloned().collect();
        let Some(oldest) = tokens.first().filter(|_| tokens.len() >= TOKENS_MAX) else { return Ok(()) };
        if key < oldest {
            return Err(RollRefused::Old);
        }
        self.copies.remove(oldest);
        Ok(())
    }
}

/// Tells the other nodes of the connections here.
pub struct Spreading<S: OpenConnections, L: Listeners, W: TellRolls> {
    /// What is known.
    pub connections: Connections,
    /// Where they are.
    pub source: S,
    /// Who is to be told.
    pub listeners: L,
    /// The way to them.
    pub way: W,
}

impl<S: OpenConnections, L: Listeners, W: TellRolls> Spreading<S, L, W> {
    /// Looks and tells until cancelled.
    pub async fn run<M: Machine>(self, stop: CancellationToken) {
        // The nodes that are being told: each slowly or fast, and one message at a time.
        let busy = Arc::new(Mutex::new(BTreeSet::new()));
        loop {
            let now = M::boot_now();
            for changed in self.source.changed() {
                self.connections.note(changed, now);
            }
            self.connections.note_served(self.source.served(), now);
            self.connections.forget(now);
            self.tell_all::<M>(&busy);
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = M::sleep(LOOK_EVERY) => {}
            }
        }
    }

    fn tell_all<M: Machine>(&self, busy: &Arc<Mutex<BTreeSet<NodeId>>>) {
        let mut of: BTreeMap<NodeId, Vec<FloatingIpName>> = BTreeMap::new();
        for ip in self.connections.addresses() {
            for node in self.listeners.of(&ip) {
                of.entry(node).or_default().push(ip.clone());
            }
        }
        for (node, ips) in of {
            let is_idle = busy.lock().unwrap_or_else(PoisonError::into_inner).insert(node);
            if is_idle {
                let (connections, way, busy) = (self.connections.clone(), self.way.clone(), Arc::clone(busy));
                drop(M::spawn(async move {
                    tell::<M, W>(&connections, &way, node, &ips).await;
                    busy.lock().unwrap_or_else(PoisonError::into_inner).remove(&node);
                }));
            }
        }
    }
}

/// Tells a node all that there is to tell now.
async fn tell<M: Machine, W: TellRolls>(
    connections: &Connections,
    way: &W,
    node: NodeId,
    ips: &[FloatingIpName],
) {
    while let Some(call) = connections.next(node, ips, M::boot_now()) {
        let has = way.tell(node, call.clone(), TELL_WITHIN).await;
        if let Err(error) = &has {
            tracing::debug!(%node, %error, "a node was not told of connections");
        }
        connections.answered(node, &call, has.ok());
    }
}
