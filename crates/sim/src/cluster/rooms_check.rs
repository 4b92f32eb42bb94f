//! What must be true of rooms: fenced writes, nobody sent elsewhere by a store that has forgotten, and everybody of a
//! room together when all is well.

use super::life::{Life, MS};
use super::node::Node;
use super::redis::{Created, Noted, Redis};
use super::rooms::Rooms;
use crate::clock::TrueTime;
use crate::violation::Rule;
use std::collections::BTreeSet;
use twinsite_agents::Peers;
use twinsite_model::{NodeId, RoomKey, Token, UpstreamName};

/// Versions from here on were given by a Redis.
const FIRST_STORE_VERSION: u64 = 1_000_000_000_000;

/// Longer than any decision, and the way of its command to the store.
const KNOWN_FOR: TrueTime = 1_500 * MS;

/// What the present data set of the Redis has seen, by what it answered and by nothing that it keeps.
#[derive(Debug, Default)]
pub(super) struct Fence {
    newest: Option<Token>,
    kept: Option<Token>,
}

impl Life {
    /// Looks at what the Redis and the nodes did since the last time.
    pub(super) fn look_at_rooms(&mut self, now: TrueTime) {
        let (broken, counts) = self.meetings.told.take();
        for (what, times) in counts {
            self.count(what, times);
        }
        for detail in broken {
            self.oracle.report(Rule::QuorumFirst, now, detail);
        }
        let noted = self.meetings.redis.as_ref().map(Redis::take_noted);
        for (at, noted) in noted.into_iter().flatten() {
            match noted {
                Noted::Began { newest } => self.fence = Fence { newest, kept: newest },
                Noted::Stale => self.count("stale writers that the Redis refused", 1),
                Noted::Late => self.count("commands that came too late to the Redis", 1),
                Noted::Accepted { by, token, kept, created } => {
                    self.trace.mix(&[at, by.0, token.epoch.0]);
                    if self.fence.newest.is_some_and(|newest| token < newest) {
                        let newest = self.fence.newest;
                        let detail = format!("the Redis took a write under {token} after {newest:?}");
                        self.oracle.report(Rule::SessionTokens, at, detail);
                    }
                    if kept < self.fence.kept {
                        let before = self.fence.kept;
                        let detail = format!("the Redis kept {before:?}, and then {kept:?}");
                        self.oracle.report(Rule::SessionTokens, at, detail);
                    }
                    self.fence.newest = self.fence.newest.max(Some(token));
                    self.fence.kept = kept;
                    if let Some(detail) = created.and_then(|created| self.created_too_soon(by, &created, at))
                    {
                        self.oracle.report(Rule::PeersFirst, at, detail);
                    }
                }
            }
        }
    }

    /// What is wrong with a place that a store gave which had been emptied a moment before.
    fn created_too_soon(&self, by: NodeId, created: &Created, at: TrueTime) -> Option<String> {
        let Created { room, upstream, age, asked, replaces } = created;
        if age.is_some_and(|age| u128::from(age) >= self.meetings.settle.as_millis()) {
            return None;
        }
        if !asked {
            return Some(format!(
                "{by} had {room} created in a store emptied {age:?} ms ago, and asked nobody"
            ));
        }
        // Who has known it for longer than a decision and its way can take was asked, and did not say so; unless it
        // is a machine that has joined since.
        let first = |node: NodeId| self.plan.spec.node(node).is_some();
        let asked = self.nodes.iter().find(|node| node.id == by)?.end.others();
        let others = self.nodes.iter().filter(|node| asked.contains(&node.id) && first(node.id));
        let mut known =
            others.filter_map(|node| node.running()?.rooms.known_since(*room, at.checked_sub(KNOWN_FOR)?));
        let there = known.find(|_| !replaces)?;
        Some(format!(
            "{by} had {room} created at {upstream}, was told that nobody knows it, and it was known to be at {there}"
        ))
    }

    fn rooms_of_kept(&self) -> Vec<Rooms> {
        self.kept().filter_map(Node::running).map(|running| running.rooms).collect()
    }

    /// The first thing that is not as it should be in the end: everybody of a room is together, every node says so as
    /// soon as it can have heard of it, and the store has what nodes know.
    pub(super) fn what_is_wrong_with_rooms(&self) -> Option<String> {
        let nodes = self.rooms_of_kept();
        let live = || nodes.iter().flat_map(Rooms::live);
        let in_use: BTreeSet<RoomKey> = live().map(|(room, _)| room).collect();
        let long: BTreeSet<RoomKey> = nodes.iter().flat_map(Rooms::long_live).collect();
        for room in &in_use {
            let stored = self.stored(*room);
            let known = nodes.iter().map(|rooms| rooms.sessions.answer(*room).map(|pin| pin.upstream));
            let known: Vec<_> = known.collect();
            let agrees =
                |place: &Option<UpstreamName>| *place == stored || (place.is_none() && !long.contains(room));
            if stored.is_none() || !known.iter().all(agrees) {
                return Some(format!("{room} is at {known:?}, and in the store at {stored:?}"));
            }
            let elsewhere = live().find(|(live, at)| live == room && Some(at) != stored.as_ref());
            if let Some((_, at)) = elsewhere {
                return Some(format!("{room} is at {known:?}, and somebody of it at {at}"));
            }
        }
        let redis = self.meetings.redis.as_ref()?;
        let known = nodes.iter().flat_map(|rooms| rooms.sessions.snapshot());
        let mut stored = known.filter(|update| update.pin.version >= FIRST_STORE_VERSION);
        let missing = stored.find(|update| redis.place_of(update.room).is_none())?;
        Some(format!("{} is remembered at {}, and the store has forgotten it", missing.room, missing.pin))
    }

    fn stored(&self, room: RoomKey) -> Option<UpstreamName> {
        match &self.meetings.redis {
            Some(redis) => redis.place_of(room).map(|pin| pin.upstream),
            None => {
                let raft = self.kept().find_map(Node::raft)?;
                raft.state().sessions.pins.get(&room).map(|pin| pin.upstream.clone())
            }
        }
    }
}
