//! The store in Redis. Keys begin with `twinsite:{CLUSTER}:`; the braces keep them on one node of a Redis Cluster.
#![allow(clippy::disallowed_methods, reason = "a real connection has real time")]

mod config;
mod connection;
mod scripts;

pub use config::{Credentials, RedisConfig, RedisConfigError, SecretSource};

use crate::pin::{NodeConnections, PIN_BATCH_MAX, Pin, PinUpdate, sortable};
use crate::store::{
    BoxFuture, LoadCursor, Loaded, PlaceRequest, Placement, Store, StoreError, StoreStatus, Why,
};
use connection::{Link, Live};
use redis::{FromRedisValue, ScriptInvocation, Value};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;
use twinsite_model::{ClusterName, NodeId, RoomKey, Token, UpstreamName, WallTime};

/// About how many accepted writes the audit stream keeps.
const AUDIT_ENTRIES: u64 = 100_000;
/// How many keys one step of a scan looks at.
const SCAN_STEP: usize = 1_000;

/// The names of the keys.
struct Keys {
    token: String,
    audit: String,
    refused: String,
    presence: String,
    connections: String,
    drains: String,
    pins: String,
}

impl Keys {
    fn new(cluster: &ClusterName, node: NodeId) -> Self {
        let key = |rest: &str| format!("twinsite:{{{cluster}}}:{rest}");
        Self {
            token: key("token"),
            audit: key("audit"),
            refused: key("audit-refused"),
            presence: key(&format!("node:{node}")),
            connections: key(&format!("connections:{node}")),
            drains: key("drains"),
            pins: key("pin:"),
        }
    }

    fn pin(&self, room: RoomKey) -> String {
        format!("{}{room}", self.pins)
    }

    /// The keys with which every script begins.
    fn begin(&self, call: &mut ScriptInvocation<'_>) {
        call.key(&self.token).key(&self.audit).key(&self.refused);
    }
}

/// Pins in a shared Redis.
pub struct RedisStore {
    link: Arc<Link>,
    _task: AbortOnDropHandle<()>,
}

impl RedisStore {
    /// Begins to connect, in the background of the current tokio runtime. The store is away until that succeeds; it
    /// is made again whenever it is lost.
    pub fn start(config: RedisConfig) -> Self {
        let link = Arc::new(Link::new(config));
        let task = AbortOnDropHandle::new(tokio::spawn(Arc::clone(&link).run()));
        Self { link, _task: task }
    }

    fn live(&self) -> Result<Arc<Live>, StoreError> {
        self.link.live.load_full().ok_or_else(|| match *self.link.status.borrow() {
            StoreStatus::Down { why, .. } => StoreError::Away(why),
            StoreStatus::Up { .. } => StoreError::Away(Why::Closed),
        })
    }

    /// Begins the arguments of a writing script.
    fn begin(&self, call: &mut ScriptInvocation<'_>, token: Token) {
        let node = self.link.config.node.0;
        call.arg(sortable(token)).arg(self.link.not_after()).arg(node).arg(self.link.audit_entries());
    }

    async fn run(&self, call: &ScriptInvocation<'_>) -> Result<Vec<String>, StoreError> {
        let live = self.live()?;
        let answer: Result<Vec<String>, _> = call.invoke_async(&mut live.connection.clone()).await;
        let answer = answer.map_err(|error| {
            metrics::counter!("twinsite_sessions_store_errors_total").increment(1);
            StoreError::Away(self.link.note(&error))
        })?;
        match answer.first().map(String::as_str) {
            Some("LATE") => Err(StoreError::Late),
            Some(_) => Ok(answer),
            None => Err(StoreError::Away(Why::Protocol)),
        }
    }

    /// Runs a script whose refusal of a stale token is an error.
    async fn write(&self, call: &ScriptInvocation<'_>) -> Result<Vec<String>, StoreError> {
        let answer = self.run(call).await?;
        match answer.as_slice() {
            [word, rest @ ..] if word == "OK" => Ok(rest.to_vec()),
            [word, seen, ..] if word == "STALE" => Err(StoreError::Stale { seen: parse(seen)? }),
            _ => Err(StoreError::Away(Why::Protocol)),
        }
    }

    async fn ask<T: FromRedisValue>(&self, command: &redis::Cmd) -> Result<T, StoreError> {
        let live = self.live()?;
        let answer = command.query_async(&mut live.connection.clone()).await;
        answer.map_err(|error| StoreError::Away(self.link.note(&error)))
    }

    async fn replace_hash(
        &self,
        key: &str,
        kind: &str,
        entries: Vec<(String, String)>,
        token: Token,
        ttl: Duration,
    ) -> Result<(), StoreError> {
        let mut call = self.link.scripts.replace.prepare_invoke();
        self.link.keys.begin(&mut call);
        call.key(key);
        self.begin(&mut call, token);
        call.arg(millis(ttl)).arg(kind);
        for (field, value) in entries {
            call.arg(field).arg(value);
        }
        self.write(&call).await.map(drop)
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX).max(1)
}

/// What is kept in Redis can have been written by anyone: anything may be wrong with it.
fn parse<T: std::str::FromStr>(text: &str) -> Result<T, StoreError> {
    text.parse().map_err(|_| StoreError::Away(Why::Protocol))
}

impl Store for RedisStore {
    fn place(&self, request: PlaceRequest) -> BoxFuture<'_, Result<Placement, StoreError>> {
        Box::pin(async move {
            let mut call = self.link.scripts.place.prepare_invoke();
            self.link.keys.begin(&mut call);
            call.key(self.link.keys.pin(request.room));
            self.begin(&mut call, request.token);
            call.arg(request.proposal.as_str());
            call.arg(request.replace.as_ref().map_or("", UpstreamName::as_str));
            call.arg(millis(request.ttl)).arg(u8::from(request.peers_asked));
            call.arg(millis(self.link.config.settle)).arg(request.room.to_string());
            let answer = self.run(&call).await?;
            let words: Vec<&str> = answer.iter().map(String::as_str).collect();
            match words.as_slice() {
                ["NEW", pin] => Ok(Placement::At { pin: parse(pin)?, new: true }),
                ["KEPT", pin] => Ok(Placement::At { pin: parse(pin)?, new: false }),
                ["ASK"] => Ok(Placement::AskPeersFirst),
                ["STALE", seen, known] => {
                    Ok(Placement::Stale { seen: parse(seen)?, known: known.parse().ok() })
                }
                _ => Err(StoreError::Away(Why::Protocol)),
            }
        })
    }

    fn get(&self, room: RoomKey) -> BoxFuture<'_, Result<Option<Pin>, StoreError>> {
        Box::pin(async move {
            let pin: Option<String> = self.ask(redis::cmd("GET").arg(self.link.keys.pin(room))).await?;
            Ok(pin.and_then(|pin| pin.parse().ok()))
        })
    }

    fn keep(
        &self,
        pins: Vec<PinUpdate>,
        token: Token,
        ttl: Duration,
    ) -> BoxFuture<'_, Result<Vec<Pin>, StoreError>> {
        Box::pin(async move {
            let pins = &pins[..pins.len().min(PIN_BATCH_MAX)];
            let mut call = self.link.scripts.keep.prepare_invoke();
            self.link.keys.begin(&mut call);
            for update in pins {
                call.key(self.link.keys.pin(update.room));
            }
            self.begin(&mut call, token);
            call.arg(millis(ttl));
            for PinUpdate { pin, .. } in pins {
                call.arg(pin.version).arg(sortable(pin.token)).arg(pin.upstream.as_str());
            }
            let answer = self.write(&call).await?;
            let Some((blank, stored)) = answer.split_first() else {
                return Err(StoreError::Away(Why::Protocol));
            };
            if blank == "1" {
                // Emptied since the last beat: this batch is in, the rest of this node's pins must follow.
                self.link.lives.send_modify(|life| *life += 1);
            }
            stored.iter().map(|pin| parse(pin)).collect()
        })
    }

    /// One step of a scan. The keyspace is shared: most steps may find nothing of ours.
    fn load(&self, from: LoadCursor) -> BoxFuture<'_, Result<Loaded, StoreError>> {
        Box::pin(async move {
            let prefix = &self.link.keys.pins;
            let mut scan = redis::cmd("SCAN");
            scan.arg(from.0).arg("MATCH").arg(format!("{prefix}*")).arg("COUNT").arg(SCAN_STEP);
            let (next, keys): (u64, Vec<String>) = self.ask(&scan).await?;
            let mut loaded = Loaded { pins: Vec::new(), next: (next != 0).then_some(LoadCursor(next)) };
            if !keys.is_empty() {
                let pins: Vec<Value> = self.ask(redis::cmd("MGET").arg(&keys)).await?;
                let pins = pins.into_iter().map(redis::from_redis_value::<Option<String>>);
                loaded.pins.extend(keys.iter().zip(pins).filter_map(|(key, pin)| {
                    let room = key.strip_prefix(prefix.as_str())?.parse().ok()?;
                    Some(PinUpdate { room, pin: pin.ok()??.parse().ok()? })
                }));
            }
            Ok(loaded)
        })
    }

    fn assert_token(&self, token: Token) {
        self.link.assert_token(token);
    }

    fn put_connections(
        &self,
        counts: NodeConnections,
        token: Token,
        ttl: Duration,
    ) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move {
            let upstreams =
                counts.upstreams.iter().map(|(name, n)| (format!("upstream:{name}"), n.to_string()));
            let rooms = counts.rooms.iter().map(|(room, n)| (format!("room:{room}"), n.to_string()));
            let entries = upstreams.chain(rooms).collect();
            self.replace_hash(&self.link.keys.connections, "connections", entries, token, ttl).await
        })
    }

    fn put_drains(
        &self,
        drains: BTreeMap<UpstreamName, WallTime>,
        token: Token,
        ttl: Duration,
    ) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move {
            let entries =
                drains.iter().map(|(name, since)| (name.to_string(), since.0.to_string())).collect();
            self.replace_hash(&self.link.keys.drains, "drains", entries, token, ttl).await
        })
    }

    fn status(&self) -> watch::Receiver<StoreStatus> {
        self.link.status.subscribe()
    }

    fn lives(&self) -> Option<watch::Receiver<u64>> {
        Some(self.link.lives.subscribe())
    }
}
