//! The roll of an address under one token: the connections that its holder has, as a set that changes step by step. And
//! the copy of it that another node has. Pure: what is sent and what is lost is decided elsewhere.
//!
//! Every change has a number. Another node says up to which number it has the roll, and is told the changes since then, or
//! all of it where they are not kept any more. So whatever is lost, doubled or late on its way is told again or passed
//! over. A sum over all connections goes along, and a copy that has another one begins anew.

use std::collections::{BTreeSet, VecDeque};
use std::hash::Hasher;
use std::ops::Bound;
use twinsite_floating_ip::Connection;
use xxhash_rust::xxh64::Xxh64;

/// Connections on one roll at most. Above it new ones are left out: those that have been open for longer are the tunnels.
pub(super) const ROLL_MAX: usize = 100_000;
/// Changes that are kept. Whoever is farther behind is told everything.
const CHANGES_KEPT: usize = 32_768;
/// Connections that one message carries at most, in which each takes some twenty bytes.
pub const PIECE_MAX: usize = 2_048;

/// What one message says of a roll.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// What became of connections, in this order.
    Changes {
        /// The number of the last change before these; zero: of none.
        from: u64,
        /// Each connection, and whether it is open since.
        changes: Vec<(Connection, bool)>,
        /// The sum over all connections after these changes.
        sum: u64,
    },
    /// A part of all of it.
    Part {
        /// The number of the change from which on more has to be told when all parts have come.
        at: u64,
        /// Counted from zero.
        number: u32,
        /// Open connections.
        connections: Vec<Connection>,
        /// Up to which change this part is of.
        until: u64,
        /// Whether it is the last one.
        last: bool,
    },
}

/// A set of connections with the sum over them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Open {
    connections: BTreeSet<Connection>,
    sum: u64,
}

impl Open {
    /// Notes what became of a connection; whether that changed anything.
    fn set(&mut self, connection: Connection, is_open: bool) -> bool {
        let changed =
            if is_open { self.connections.insert(connection) } else { self.connections.remove(&connection) };
        if changed {
            let one = digest(&connection);
            self.sum = if is_open { self.sum.wrapping_add(one) } else { self.sum.wrapping_sub(one) };
        }
        changed
    }
}

/// The same number on every node and in every version.
fn digest(connection: &Connection) -> u64 {
    let mut hasher = Xxh64::new(0);
    match connection.client {
        std::net::IpAddr::V4(client) => hasher.write(&client.octets()),
        std::net::IpAddr::V6(client) => hasher.write(&client.octets()),
    }
    hasher.write(&connection.client_port.to_be_bytes());
    hasher.write(&connection.port.to_be_bytes());
    hasher.finish()
}

/// How much is kept, and told at a time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) changes: usize,
    pub(super) piece: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { changes: CHANGES_KEPT, piece: PIECE_MAX }
    }
}

/// The holder's own.
#[derive(Debug, Default)]
pub(super) struct Roll {
    pub(super) limits: Limits,
    open: Open,
    /// The number of the last change.
    number: u64,
    /// The last changes, and the sum after each.
    changes: VecDeque<(Connection, bool, u64)>,
}

impl Roll {
    /// Notes what became of a connection; false when there is no room for it.
    pub(super) fn note(&mut self, connection: Connection, is_open: bool) -> bool {
        if is_open && self.open.connections.len() >= ROLL_MAX && !self.open.connections.contains(&connection)
        {
            return false;
        }
        if self.open.set(connection, is_open) {
            self.number += 1;
            self.changes.push_back((connection, is_open, self.open.sum));
            if self.changes.len() > self.limits.changes {
                self.changes.pop_front();
            }
        }
        true
    }

    pub(super) fn connections(&self) -> impl Iterator<Item = Connection> {
        self.open.connections.iter().copied()
    }

    pub(super) fn len(&self) -> usize {
        self.open.connections.len()
    }

    /// The first changes after this one; none when they are not kept any more.
    fn changes_after(&self, from: u64) -> Option<Piece> {
        let behind = usize::try_from(self.number.checked_sub(from)?).ok()?;
        let skipped = self.changes.len().checked_sub(behind)?;
        let next: Vec<_> = self.changes.range(skipped..).take(self.limits.piece).collect();
        let sum = next.last().map_or(self.open.sum, |(.., sum)| *sum);
        let changes = next.into_iter().map(|(connection, is_open, _)| (*connection, *is_open)).collect();
        Some(Piece::Changes { from, changes, sum })
    }

    fn part(&self, parts: &Parts) -> Piece {
        let after = parts.after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut rest = self.open.connections.range((after, Bound::Unbounded));
        let connections: Vec<_> = rest.by_ref().take(self.limits.piece).copied().collect();
        let last = rest.next().is_none();
        Piece::Part { at: parts.at, number: parts.number, connections, until: self.number, last }
    }
}

/// How far another node has been told of a roll.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// The last change that it is known to have.
    has: u64,
    /// Under way to it: everything, in parts.
    parts: Option<Parts>,
}

#[derive(Debug)]
struct Parts {
    at: u64,
    number: u32,
    /// The last connection that went.
    after: Option<Connection>,
}

impl Told {
    /// Whether it has all that there is to tell.
    pub(super) fn is_up_to_date(&self, roll: &Roll) -> bool {
        self.parts.is_none() && self.has == roll.number
    }

    /// What to say next. To who is up to date: that nothing has changed, so that it can tell whether it is.
    pub(super) fn next(&mut self, roll: &Roll) -> Piece {
        // What changed meanwhile must be there to tell when all parts have gone.
        self.parts.take_if(|parts| roll.changes_after(parts.at).is_none());
        if self.parts.is_none()
            && let Some(changes) = roll.changes_after(self.has)
        {
            return changes;
        }
        let parts = self.parts.get_or_insert(Parts { at: roll.number, number: 0, after: None });
        roll.part(parts)
    }

    /// It has taken this piece and says up to which change it has the roll now. Whether that leads any further.
    pub(super) fn answered(&mut self, piece: &Piece, has: u64) -> bool {
        match piece {
            Piece::Part { connections, last: false, .. } => {
                if let Some(parts) = &mut self.parts {
                    parts.number += 1;
                    parts.after = connections.last().copied();
                }
                true
            }
            Piece::Part { at, .. } => {
                (self.parts, self.has) = (None, has);
                has == *at
            }
            Piece::Changes { from, changes, .. } => {
                self.has = has;
                has == from + changes.len() as u64
            }
        }
    }

    /// Nobody knows what became of it: what went in parts goes again from the beginning.
    pub(super) fn unanswered(&mut self) {
        self.parts = None;
    }
}

/// Another node's roll, as far as it was told here.
#[derive(Debug, Default)]
pub(super) struct Copy {
    open: Open,
    /// The last change that it has.
    number: u64,
    /// Up to which change some of it may be ahead of that number: parts are of different moments.
    mixed_until: u64,
    filling: Option<Filling>,
}

#[derive(Debug)]
struct Filling {
    at: u64,
    next: u32,
    open: Open,
}

/// There is more on a roll than may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("more than {ROLL_MAX} connections")]
pub struct TooMany;

impl Copy {
    /// Takes a piece, and says up to which change the copy has the roll now.
    pub(super) fn take(&mut self, piece: Piece) -> Result<u64, TooMany> {
        match piece {
            Piece::Changes { from, changes, sum } if from == self.number => self.change(changes, sum)?,
            Piece::Changes { .. } => {} // of another time: what follows from the answer fits
            // It has that already: a part that was late, or told again because the last answer was lost.
            Piece::Part { at, .. } if at <= self.number => {}
            Piece::Part { at, number, connections, until, last } => {
                if number == 0 {
                    self.filling = Some(Filling { at, next: 0, open: Open::default() });
                }
                let fits = |filling: &&mut Filling| (filling.at, filling.next) == (at, number);
                if let Some(filling) = self.filling.as_mut().filter(fits) {
                    filling.next += 1;
                    for connection in connections {
                        filling.open.set(connection, true);
                    }
                    if filling.open.connections.len() > ROLL_MAX {
                        self.filling = None;
                        return Err(TooMany);
                    }
                    if last && let Some(filled) = self.filling.take() {
                        (self.open, self.number, self.mixed_until) = (filled.open, at, until);
                    }
                }
            }
        }
        Ok(self.number)
    }

    fn change(&mut self, changes: Vec<(Connection, bool)>, sum: u64) -> Result<(), TooMany> {
        self.number += changes.len() as u64;
        let number = self.number;
        // Begun by a part that was late: nobody would go on with it.
        self.filling.take_if(|filling| filling.at <= number);
        for (connection, is_open) in changes {
            self.open.set(connection, is_open);
        }
        if self.open.connections.len() > ROLL_MAX {
            *self = Self::default();
            return Err(TooMany);
        }
        if self.number >= self.mixed_until && self.open.sum != sum {
            // It cannot be, and is repaired all the same.
            metrics::counter!("twinsite_connection_copies_wrong_total").increment(1);
            *self = Self::default();
        }
        Ok(())
    }

    /// How many those are, counted twice where they are told anew.
    pub(super) fn len(&self) -> usize {
        self.open.connections.len()
            + self.filling.as_ref().map_or(0, |filling| filling.open.connections.len())
    }

    /// All that may be open; while it is told anew, by what was told before too.
    pub(super) fn connections(&self) -> impl Iterator<Item = Connection> {
        let filling = self.filling.iter().flat_map(|filling| filling.open.connections.iter());
        self.open.connections.iter().chain(filling).copied()
    }
}
