//! A room's place, and what nodes tell each other about it.

use crate::runtime::Moment;
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use twinsite_model::{NodeId, RoomKey, Token, UpstreamName};

/// How many pins one message between nodes, and one write to the store, may carry.
pub const PIN_BATCH_MAX: usize = 512;

/// How many rooms the connection counts of one node may name. The busiest are kept.
pub(crate) const CONNECTION_ROOMS_MAX: usize = 4_096;

/// A placement that was decided without the store. Every placement that a store made has a higher version, so what
/// the store knew from the beginning outranks what a cut-off node guessed.
pub(crate) const VERSION_PROVISIONAL: u64 = 1;

/// The recorded placement of a room.
///
/// Pins of one room are ordered by `version`, then by `token`, then by upstream (the smaller name wins), so that
/// nodes that exchange them end with the same one in whatever order they hear of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pin {
    /// The upstream.
    pub upstream: UpstreamName,
    /// Grows with every change of the room's place. Redis: milliseconds of its clock, at least one more than before.
    /// Embedded: the revision of the state. 1: decided without a store.
    pub version: u64,
    /// The session token under which it was written.
    pub token: Token,
}

impl Pin {
    /// Whether this pin is later knowledge of the same room than `other`.
    pub fn outranks(&self, other: &Self) -> bool {
        let ours = (self.version, self.token);
        let theirs = (other.version, other.token);
        ours > theirs || (ours == theirs && self.upstream < other.upstream)
    }
}

/// The form in which a pin is kept in Redis: `VERSION TOKEN UPSTREAM`.
impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.version, sortable(self.token), self.upstream)
    }
}

impl FromStr for Pin {
    type Err = ();
    fn from_str(s: &str) -> Result<Self, ()> {
        let mut parts = s.splitn(3, ' ');
        let mut next = || parts.next().ok_or(());
        let version = next()?.parse().map_err(|_| ())?;
        let token = next()?.parse().map_err(|_| ())?;
        let upstream = UpstreamName::new(next()?).map_err(|_| ())?;
        Ok(Self { upstream, version, token })
    }
}

/// A token as text that sorts as the token does: scripts compare it without losing the digits that a Lua number
/// cannot hold.
pub(crate) fn sortable(token: Token) -> String {
    format!("{:020}.{:020}", token.generation.0, token.epoch.0)
}

/// One room's pin, on its way between nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PinUpdate {
    /// The room.
    pub room: RoomKey,
    /// Its place.
    pub pin: Pin,
}

/// How many connections a node carries. Sent whole and often; a node that falls silent is forgotten after a time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeConnections {
    /// Open tunnels of each room, at most [`CONNECTION_ROOMS_MAX`] rooms.
    pub rooms: BTreeMap<RoomKey, u32>,
    /// Open connections to each upstream.
    pub upstreams: BTreeMap<UpstreamName, u32>,
}

/// What one node tells the others: pins that are new or still in use, and its connection counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gossip {
    /// The sender.
    pub from: NodeId,
    /// At most [`PIN_BATCH_MAX`].
    pub pins: Vec<PinUpdate>,
    /// The sender's connections; absent when the message only spreads pins.
    pub connections: Option<NodeConnections>,
}

/// What the proxy must know of a pin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PinEvent {
    /// The room is now on this upstream. Tunnels of the room to another upstream must be closed, so that their
    /// clients come back to where the room is.
    Changed {
        /// The room.
        room: RoomKey,
        /// Where it is.
        upstream: UpstreamName,
    },
    /// This node no longer keeps the room: nobody used it for its time to live, or there was no space.
    Removed {
        /// The room.
        room: RoomKey,
    },
    /// The reader fell behind and events were lost: take [`crate::Sessions::snapshot`] and go on from there.
    Resync,
}

/// What is known of another node's connections, and for how long.
#[derive(Debug, Clone)]
pub(crate) struct HeardConnections {
    pub counts: NodeConnections,
    pub expires: Moment,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pin(upstream: &str, version: u64, epoch: u64) -> Pin {
        Pin { upstream: UpstreamName::new(upstream).unwrap(), version, token: Token::new(1, epoch) }
    }

    #[test]
    fn of_two_different_pins_exactly_one_outranks_the_other() {
        let all = [pin("a", 1, 1), pin("b", 1, 1), pin("a", 2, 1), pin("a", 1, 2), pin("c", 7, 0)];
        for (i, x) in all.iter().enumerate() {
            assert!(!x.outranks(x));
            for y in &all[i + 1..] {
                assert_ne!(x.outranks(y), y.outranks(x), "{x} against {y}");
            }
        }
    }

    #[test]
    fn reads_back_what_it_writes_and_refuses_the_rest() {
        let one = pin("gra-meet-1", 1_790_000_000_000, 12);
        assert_eq!(one.to_string().parse(), Ok(one));
        for bad in ["", "1", "1 1.1", "x 1.1 a", "1 1.1 A b", "1 11 a"] {
            assert!(bad.parse::<Pin>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn text_of_tokens_sorts_as_tokens_do() {
        let tokens = [
            Token::new(1, 9),
            Token::new(1, 10),
            Token::new(1, u64::MAX),
            Token::new(2, 0),
            Token::new(10, 0),
        ];
        for pair in tokens.windows(2) {
            assert!(sortable(pair[0]) < sortable(pair[1]));
        }
    }
}
