//! What a Redis keeps for the sessions, and what their scripts do to it: `sessions/src/redis/scripts.rs` told a second
//! time. `sessions/tests/stores/retold.rs` shows, against a real server, that it is the same.

use std::collections::BTreeMap;
use twinsite_model::{RoomKey, Token, UpstreamName};
use twinsite_sessions::{Pin, PinUpdate};

/// What a writer sends. Times are in milliseconds.
#[derive(Debug, Clone)]
pub(super) struct Call {
    /// The writer's token.
    pub(super) token: Token,
    /// The time on the server's clock after which nothing is done; 0: none.
    pub(super) not_after: u64,
    pub(super) what: What,
}

/// The four scripts.
#[derive(Debug, Clone)]
pub(super) enum What {
    Place {
        room: RoomKey,
        proposal: UpstreamName,
        replace: Option<UpstreamName>,
        ttl: u64,
        peers_asked: bool,
        /// How long an emptied store counts as young.
        settle: u64,
    },
    Keep {
        pins: Vec<PinUpdate>,
        ttl: u64,
    },
    Beat {
        key: String,
        ttl: u64,
    },
    Replace {
        key: String,
        entries: Vec<(String, String)>,
        ttl: u64,
    },
}

/// What comes back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    Late,
    Stale { seen: Token, known: Option<Pin> },
    StaleBeat { seen: Token, now: u64 },
    New(Pin),
    Kept(Pin),
    Ask,
    Confirmed { blank: bool, pins: Vec<Pin> },
    Beaten { blank: bool, now: u64 },
    Replaced,
}

/// The rules of the scripts that are left out, to see that it is noticed.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Omitted {
    /// A writer's token is not compared with the newest.
    pub(super) token_check: bool,
    /// The first token stays, however much newer the later ones are.
    pub(super) maximum: bool,
    /// An emptied store creates a place for a writer that has asked nobody.
    pub(super) peers_first: bool,
}

/// Something that is forgotten after a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Kept<T> {
    pub(super) value: T,
    /// The last millisecond in which it is there.
    pub(super) until: u64,
}

/// Everything that one server holds.
#[derive(Debug, Clone, Default)]
pub(super) struct Data {
    /// The newest token, and when the first one was written.
    pub(super) token: Option<(Token, u64)>,
    pub(super) pins: BTreeMap<RoomKey, Kept<Pin>>,
    /// Which nodes are there, and under which token.
    pub(super) presence: BTreeMap<String, Kept<Token>>,
    pub(super) hashes: BTreeMap<String, Kept<BTreeMap<String, String>>>,
    pub(super) omitted: Omitted,
}

impl Data {
    /// The whole of a script, at a time on the server's clock.
    pub(super) fn apply(&mut self, call: &Call, now: u64) -> Answer {
        if call.not_after > 0 && now > call.not_after {
            return Answer::Late;
        }
        self.forget(now);
        let seen = self.token.map(|(token, _)| token);
        let stale = seen.filter(|seen| call.token < *seen && !self.omitted.token_check);
        match &call.what {
            What::Place { room, .. } => {
                if let Some(seen) = stale {
                    return Answer::Stale { seen, known: self.pins.get(room).map(|kept| kept.value.clone()) };
                }
                self.place(call, now)
            }
            What::Keep { pins, ttl } => {
                if let Some(seen) = stale {
                    return Answer::Stale { seen, known: None };
                }
                self.accept(call.token, now);
                let pins = pins.iter().map(|update| self.keep(update, *ttl, now)).collect();
                Answer::Confirmed { blank: seen.is_none(), pins }
            }
            What::Beat { key, ttl } => {
                if let Some(seen) = stale {
                    return Answer::StaleBeat { seen, now };
                }
                self.accept(call.token, now);
                self.presence.insert(key.clone(), Kept { value: call.token, until: now + ttl });
                Answer::Beaten { blank: seen.is_none(), now }
            }
            What::Replace { key, entries, ttl } => {
                if let Some(seen) = stale {
                    return Answer::Stale { seen, known: None };
                }
                self.accept(call.token, now);
                let mut value: BTreeMap<_, _> = [("token".to_owned(), sortable(call.token))].into();
                value.extend(entries.iter().cloned());
                self.hashes.insert(key.clone(), Kept { value, until: now + ttl });
                Answer::Replaced
            }
        }
    }

    /// What has had its time is not there any more.
    pub(super) fn forget(&mut self, now: u64) {
        self.pins.retain(|_, kept| now <= kept.until);
        self.presence.retain(|_, kept| now <= kept.until);
        self.hashes.retain(|_, kept| now <= kept.until);
    }

    fn accept(&mut self, token: Token, now: u64) {
        match &mut self.token {
            None => self.token = Some((token, now)),
            Some((newest, _)) if token > *newest && !self.omitted.maximum => *newest = token,
            Some(_) => {}
        }
    }

    fn place(&mut self, call: &Call, now: u64) -> Answer {
        let What::Place { room, proposal, replace, ttl, peers_asked, settle } = &call.what else {
            return Answer::Ask;
        };
        let known = self.pins.get_mut(room);
        let version = known.as_ref().map_or(0, |known| known.value.version);
        if let Some(known) = known
            && Some(&known.value.upstream) != replace.as_ref()
        {
            known.until = known.until.max(now + ttl);
            let pin = known.value.clone();
            self.accept(call.token, now);
            return Answer::Kept(pin);
        }
        let young = self.token.is_none_or(|(_, born)| now < born + settle);
        if !self.pins.contains_key(room) && young && !peers_asked && !self.omitted.peers_first {
            return Answer::Ask;
        }
        self.accept(call.token, now);
        let pin = Pin { upstream: proposal.clone(), version: now.max(version + 1), token: call.token };
        self.write(*room, pin.clone(), *ttl, now);
        Answer::New(pin)
    }

    fn keep(&mut self, PinUpdate { room, pin }: &PinUpdate, ttl: u64, now: u64) -> Pin {
        match self.pins.get_mut(room) {
            Some(known) if pin.version <= known.value.version => {
                if known.value.upstream == pin.upstream {
                    known.until = known.until.max(now + ttl);
                } else if known.value.version == pin.version {
                    // Two that do not agree: the store's, in a new version.
                    known.value.version += 1;
                    known.until = known.until.max(now + ttl);
                }
                known.value.clone()
            }
            _ => {
                self.write(*room, pin.clone(), ttl, now);
                pin.clone()
            }
        }
    }

    fn write(&mut self, room: RoomKey, pin: Pin, ttl: u64, now: u64) {
        let left = self.pins.get(&room).map_or(0, |known| known.until);
        self.pins.insert(room, Kept { value: pin, until: left.max(now + ttl) });
    }
}

/// A token as text that sorts as the token does.
pub(super) fn sortable(token: Token) -> String {
    format!("{:020}.{:020}", token.generation.0, token.epoch.0)
}
