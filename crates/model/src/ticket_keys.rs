//! The secrets from which all nodes make the keys of TLS session tickets, so that a client resumes its session with whichever
//! node has the address now (RFC 8446 section 2.2).

use crate::time::WallTime;
use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

/// How long new tickets are made with one key.
pub const ROTATE_EVERY: Duration = Duration::from_hours(12);
/// Keys that are kept: the one in use, and those whose tickets are still good.
pub const KEYS_MAX: usize = 3;
/// How long a ticket is good: as long as its key is kept, at least.
pub const TICKET_LIFETIME: Duration = Duration::from_hours(24);

/// A secret that all nodes share. It is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct TicketSecret([u8; 32]);

impl TicketSecret {
    /// A secret of these bytes, which must come from a source of randomness.
    pub const fn new(secret: [u8; 32]) -> Self {
        Self(secret)
    }

    /// The bytes, to derive keys from and for nothing else.
    pub const fn expose(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for TicketSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TicketSecret(..)")
    }
}

/// A secret in use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TicketKey {
    /// The secret.
    pub secret: TicketSecret,
    /// Since when.
    pub since: WallTime,
}

/// Whether a new key is due.
pub fn is_due(keys: &VecDeque<TicketKey>, now: WallTime) -> bool {
    keys.back().is_none_or(|newest| now.since(newest.since) >= ROTATE_EVERY)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_is_good_no_longer_than_its_key_is_kept() {
        // A key is the newest for one period, and kept for as many more as there is room for others.
        let kept_after_use = ROTATE_EVERY * (KEYS_MAX as u32 - 1);
        assert!(TICKET_LIFETIME <= kept_after_use);
    }

    #[test]
    fn no_secret_is_shown() {
        assert_eq!(format!("{:?}", TicketSecret::new([7; 32])), "TicketSecret(..)");
    }
}
