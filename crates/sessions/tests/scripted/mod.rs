//! A store and peers that do what a test tells them.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use twinsite_model::{RoomKey, Token, UpstreamName, WallTime};
use twinsite_sessions::{
    BoxFuture, Gossip, LoadCursor, Loaded, NodeConnections, PeersAnswer, Pin, PinUpdate, PlaceRequest,
    Placement, Role, Spread, Store, StoreError, StoreStatus, Why,
};

pub(crate) fn room(number: u8) -> RoomKey {
    RoomKey([number; 16])
}

pub(crate) fn name(upstream: &str) -> UpstreamName {
    UpstreamName::new(upstream).unwrap()
}

pub(crate) fn pin(upstream: &str, version: u64) -> Pin {
    Pin { upstream: name(upstream), version, token: Token::new(1, 1) }
}

/// Waits for something that must come.
pub(crate) async fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < Duration::from_secs(20), "never: {what}");
        sleep(Duration::from_millis(5)).await;
    }
}

/// How the store behaves.
#[derive(Default)]
pub(crate) struct Script {
    /// It creates places only after the peers were asked.
    pub(crate) young: bool,
    /// It cannot be used.
    pub(crate) away: bool,
    /// How long a confirmation takes.
    pub(crate) keep_takes: Duration,
    /// What a walk through it brings, step by step; an error is repeated by nobody but the walker.
    pub(crate) pages: Vec<Result<Vec<PinUpdate>, ()>>,
}

#[derive(Default)]
struct Noted {
    pins: BTreeMap<RoomKey, Pin>,
    requests: Vec<PlaceRequest>,
    kept: Vec<(PinUpdate, Duration)>,
    cursors: Vec<u64>,
}

/// The store.
pub(crate) struct ScriptedStore {
    script: Script,
    noted: Mutex<Noted>,
    status: watch::Sender<StoreStatus>,
    pub(crate) registry_writes: AtomicUsize,
}

impl ScriptedStore {
    pub(crate) fn new(script: Script) -> Self {
        let status = if script.away {
            StoreStatus::Down { why: Why::Refused }
        } else {
            StoreStatus::Up { role: Role::Primary }
        };
        Self {
            script,
            noted: Mutex::default(),
            status: watch::Sender::new(status),
            registry_writes: AtomicUsize::new(0),
        }
    }

    fn noted(&self) -> MutexGuard<'_, Noted> {
        self.noted.lock().unwrap()
    }

    /// Another node placed this room.
    pub(crate) fn has(&self, room: RoomKey, pin: Pin) {
        self.noted().pins.insert(room, pin);
    }

    pub(crate) fn requests(&self) -> Vec<PlaceRequest> {
        self.noted().requests.clone()
    }

    pub(crate) fn kept(&self) -> Vec<(PinUpdate, Duration)> {
        self.noted().kept.clone()
    }

    pub(crate) fn cursors(&self) -> Vec<u64> {
        self.noted().cursors.clone()
    }
}

impl Store for ScriptedStore {
    fn place(&self, request: PlaceRequest) -> BoxFuture<'_, Result<Placement, StoreError>> {
        let mut noted = self.noted();
        noted.requests.push(request.clone());
        let known = noted.pins.get(&request.room).cloned();
        let answer = match known {
            Some(pin) if Some(&pin.upstream) != request.replace.as_ref() => Placement::At { pin, new: false },
            None if self.script.young && !request.peers_asked => Placement::AskPeersFirst,
            known => {
                let version = known.map_or(100, |known| known.version) + 1;
                let pin = Pin { upstream: request.proposal, version, token: request.token };
                noted.pins.insert(request.room, pin.clone());
                Placement::At { pin, new: true }
            }
        };
        Box::pin(async move { Ok(answer) })
    }

    fn get(&self, room: RoomKey) -> BoxFuture<'_, Result<Option<Pin>, StoreError>> {
        let pin = self.noted().pins.get(&room).cloned();
        Box::pin(async move { Ok(pin) })
    }

    fn keep(
        &self,
        pins: Vec<PinUpdate>,
        _token: Token,
        ttl: Duration,
    ) -> BoxFuture<'_, Result<Vec<Pin>, StoreError>> {
        self.noted().kept.extend(pins.iter().map(|update| (update.clone(), ttl)));
        Box::pin(async move {
            sleep(self.script.keep_takes).await;
            Ok(pins.into_iter().map(|update| update.pin).collect())
        })
    }

    fn load(&self, from: LoadCursor) -> BoxFuture<'_, Result<Loaded, StoreError>> {
        let mut noted = self.noted();
        let step = noted.cursors.len();
        noted.cursors.push(from.0);
        let last = step + 1 >= self.script.pages.len();
        let next = (!last).then_some(LoadCursor(from.0 + 1));
        let answer = match self.script.pages.get(step) {
            None => Ok(Loaded::default()),
            Some(Ok(pins)) => Ok(Loaded { pins: pins.clone(), next }),
            Some(Err(())) => Err(StoreError::Away(Why::Closed)),
        };
        Box::pin(async move { answer })
    }

    fn assert_token(&self, _token: Token) {}

    fn put_connections(
        &self,
        _counts: NodeConnections,
        _token: Token,
        _ttl: Duration,
    ) -> BoxFuture<'_, Result<(), StoreError>> {
        self.registry_writes.fetch_add(1, Ordering::Relaxed);
        Box::pin(async { Ok(()) })
    }

    fn put_drains(
        &self,
        _drains: BTreeMap<UpstreamName, WallTime>,
        _token: Token,
        _ttl: Duration,
    ) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async { Ok(()) })
    }

    fn status(&self) -> watch::Receiver<StoreStatus> {
        self.status.subscribe()
    }

    fn lives(&self) -> Option<watch::Receiver<u64>> {
        None
    }
}

/// The other nodes.
#[derive(Default)]
pub(crate) struct Peers {
    answer: Mutex<(PeersAnswer, bool)>,
    broadcasts: Mutex<Vec<Gossip>>,
}

impl Peers {
    /// What they answer from now on. `late`: at the very end of the time that they have.
    pub(crate) fn say(&self, answer: PeersAnswer, late: bool) {
        *self.answer.lock().unwrap() = (answer, late);
    }

    pub(crate) fn broadcasts(&self) -> usize {
        self.broadcasts.lock().unwrap().len()
    }

    /// All pins that they were told.
    pub(crate) fn told(&self) -> Vec<PinUpdate> {
        self.broadcasts.lock().unwrap().iter().flat_map(|gossip| gossip.pins.clone()).collect()
    }
}

impl Spread for Peers {
    fn broadcast(&self, gossip: Gossip) {
        self.broadcasts.lock().unwrap().push(gossip);
    }

    fn ask_peers(&self, _room: RoomKey, within: Duration) -> BoxFuture<'_, PeersAnswer> {
        let (answer, late) = self.answer.lock().unwrap().clone();
        Box::pin(async move {
            if late {
                // Timers end in the tick after their time.
                sleep(within + Duration::from_millis(2)).await;
            }
            answer
        })
    }
}
