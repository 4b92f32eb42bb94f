//! A node's session store over the simulated Redis: connected, examined and given up as `sessions/src/redis/` does it.

use super::redis::{Redis, Reply, Request, Sent, ask};
use super::redis_data::{Answer, Call, What};
use super::rooms::{QuorumGone, Told};
use crate::runtime::{Executor, SimInstant, SimRuntime};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, mpsc, watch};
use twinsite_consensus::AsyncRuntime;
use twinsite_model::{NodeId, RoomKey, Token, UpstreamName, WallTime};
use twinsite_sessions::{
    BoxFuture, LoadCursor, Loaded, NodeConnections, Pin, PinUpdate, PlaceRequest, Placement, Role, Store,
    StoreError, StoreStatus, Why,
};

const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);
const RESPONSE_TIMEOUT: Duration = Duration::from_millis(500);
const BEAT_INTERVAL: Duration = Duration::from_millis(500);
const BACKOFF_MIN: Duration = Duration::from_millis(20);
const BACKOFF_MAX: Duration = Duration::from_secs(2);
const STEADY: Duration = Duration::from_secs(2);

type Line = mpsc::UnboundedSender<Sent>;

struct Link {
    node: NodeId,
    redis: Redis,
    settle: Duration,
    quorum: QuorumGone,
    told: Told,
    status: watch::Sender<StoreStatus>,
    lives: watch::Sender<u64>,
    examine: Notify,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    line: Option<Line>,
    verdict: Option<Why>,
    asserted: Token,
    /// The server's clock minus ours, in ms, as of the last beat.
    clock_offset: Option<i64>,
}

/// The store of one life of a node.
pub(super) struct SimStore(Arc<Link>);

impl SimStore {
    /// Begins to connect, in the current process.
    pub(super) fn start(
        node: NodeId,
        redis: Redis,
        settle: Duration,
        quorum: QuorumGone,
        told: Told,
    ) -> Self {
        let link = Arc::new(Link {
            node,
            redis,
            settle,
            quorum,
            told,
            status: watch::Sender::new(StoreStatus::Down { why: Why::Starting }),
            lives: watch::Sender::new(0),
            examine: Notify::new(),
            kept: Mutex::default(),
        });
        drop(SimRuntime::spawn(Arc::clone(&link).run(Executor::random())));
        Self(link)
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// What the machine's clock shows, in milliseconds.
fn uptime() -> i64 {
    let now = <SimInstant as twinsite_consensus::runtime::traits::Instant>::now();
    i64::try_from(now.0.0.as_millis()).unwrap_or(i64::MAX)
}

impl Link {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn run(self: Arc<Self>, mut random: fastrand::Rng) {
        let mut pause = BACKOFF_MIN;
        loop {
            let begun = uptime();
            let connecting = SimRuntime::timeout(CONNECT_TIMEOUT, self.redis.connect(self.node)).await;
            let why = match connecting {
                Ok(Ok(line)) => self.hold(line).await,
                Ok(Err(why)) => why,
                Err(_) => Why::ConnectTimeout,
            };
            self.status.send_replace(StoreStatus::Down { why });
            if uptime() - begun > i64::try_from(STEADY.as_millis()).unwrap_or(i64::MAX) {
                pause = BACKOFF_MIN;
            }
            SimRuntime::sleep(pause.mul_f64(0.5 + random.f64())).await;
            pause = (pause * 2).min(BACKOFF_MAX);
        }
    }

    /// The token is asserted before anyone else can write over the connection.
    async fn hold(&self, line: Line) -> Why {
        self.kept().verdict = None;
        if let Err(why) = self.beat(&line).await {
            return why;
        }
        self.kept().line = Some(line.clone());
        self.lives.send_modify(|life| *life += 1);
        self.status.send_replace(StoreStatus::Up { role: Role::Primary });
        let why = loop {
            let _ = SimRuntime::timeout(BEAT_INTERVAL, self.examine.notified()).await;
            if let Some(why) = self.kept().verdict {
                break why;
            }
            match self.beat(&line).await {
                Ok(false) => {}
                Ok(true) => self.lives.send_modify(|life| *life += 1),
                Err(why) => break why,
            }
        };
        self.kept().line = None;
        why
    }

    /// Whether the server was found empty.
    async fn beat(&self, line: &Line) -> Result<bool, Why> {
        let key = format!("node:{}", self.node);
        let what = What::Beat { key, ttl: millis(BEAT_INTERVAL * 10) };
        let before = uptime();
        let token = self.kept().asserted;
        match answer(line, Request::Write(Call { token, not_after: 0, what })).await? {
            Reply::Wrote(Answer::Beaten { blank, now }) => {
                self.kept().clock_offset = Some(now.cast_signed() - before);
                Ok(blank)
            }
            Reply::Wrote(Answer::StaleBeat { now, .. }) => {
                self.kept().clock_offset = Some(now.cast_signed() - before);
                Ok(false)
            }
            _ => Err(Why::Protocol),
        }
    }

    fn not_after(&self) -> u64 {
        let offset = self.kept().clock_offset;
        offset.map_or(0, |offset| {
            uptime().saturating_add_unsigned(millis(RESPONSE_TIMEOUT)).saturating_add(offset).unsigned_abs()
        })
    }

    async fn ask(&self, request: Request) -> Result<Reply, StoreError> {
        let line = self.kept().line.clone();
        let Some(line) = line else {
            return Err(StoreError::Away(match *self.status.borrow() {
                StoreStatus::Down { why } => why,
                StoreStatus::Up { .. } => Why::Closed,
            }));
        };
        answer(&line, request).await.map_err(|why| {
            if why != Why::ResponseTimeout {
                self.kept().verdict = Some(why);
            }
            self.examine.notify_one();
            StoreError::Away(why)
        })
    }

    async fn write(&self, token: Token, what: What) -> Result<Answer, StoreError> {
        let call = Call { token, not_after: self.not_after(), what };
        match self.ask(Request::Write(call)).await? {
            Reply::Wrote(Answer::Late) => Err(StoreError::Late),
            Reply::Wrote(answer) => Ok(answer),
            _ => Err(StoreError::Away(Why::Protocol)),
        }
    }

    async fn replace(&self, key: &str, token: Token, ttl: Duration) -> Result<(), StoreError> {
        // What is in it nobody reads here.
        let what = What::Replace { key: key.to_owned(), entries: Vec::new(), ttl: millis(ttl) };
        match self.write(token, what).await? {
            Answer::Replaced => Ok(()),
            Answer::Stale { seen, .. } => Err(StoreError::Stale { seen }),
            _ => Err(StoreError::Away(Why::Protocol)),
        }
    }
}

async fn answer(line: &Line, request: Request) -> Result<Reply, Why> {
    SimRuntime::timeout(RESPONSE_TIMEOUT, ask(line, request)).await.unwrap_or(Err(Why::ResponseTimeout))
}

impl Store for SimStore {
    fn place(&self, request: PlaceRequest) -> BoxFuture<'_, Result<Placement, StoreError>> {
        Box::pin(async move {
            if self.0.quorum.since().is_some() {
                self.0.told.broken(format!("{} has a room placed, and knows of no quorum", self.0.node));
            }
            let PlaceRequest { room, proposal, replace, token, ttl, peers_asked } = request;
            let (ttl, settle) = (millis(ttl), millis(self.0.settle));
            let what = What::Place { room, proposal, replace, ttl, peers_asked, settle };
            match self.0.write(token, what).await? {
                Answer::New(pin) => Ok(Placement::At { pin, new: true }),
                Answer::Kept(pin) => Ok(Placement::At { pin, new: false }),
                Answer::Ask => Ok(Placement::AskPeersFirst),
                Answer::Stale { seen, known } => Ok(Placement::Stale { seen, known }),
                _ => Err(StoreError::Away(Why::Protocol)),
            }
        })
    }

    fn get(&self, room: RoomKey) -> BoxFuture<'_, Result<Option<Pin>, StoreError>> {
        Box::pin(async move {
            match self.0.ask(Request::Get(room)).await? {
                Reply::Found(pin) => Ok(pin),
                _ => Err(StoreError::Away(Why::Protocol)),
            }
        })
    }

    fn keep(
        &self,
        pins: Vec<PinUpdate>,
        token: Token,
        ttl: Duration,
    ) -> BoxFuture<'_, Result<Vec<Pin>, StoreError>> {
        Box::pin(async move {
            match self.0.write(token, What::Keep { pins, ttl: millis(ttl) }).await? {
                Answer::Confirmed { blank, pins } => {
                    if blank {
                        self.0.lives.send_modify(|life| *life += 1);
                    }
                    Ok(pins)
                }
                Answer::Stale { seen, .. } => Err(StoreError::Stale { seen }),
                _ => Err(StoreError::Away(Why::Protocol)),
            }
        })
    }

    fn load(&self, _from: LoadCursor) -> BoxFuture<'_, Result<Loaded, StoreError>> {
        Box::pin(async move {
            match self.0.ask(Request::Load).await? {
                Reply::All(pins) => Ok(Loaded { pins, next: None }),
                _ => Err(StoreError::Away(Why::Protocol)),
            }
        })
    }

    fn assert_token(&self, token: Token) {
        let mut kept = self.0.kept();
        if token > kept.asserted {
            kept.asserted = token;
            self.0.examine.notify_one();
        }
    }

    fn put_connections(
        &self,
        _counts: NodeConnections,
        token: Token,
        ttl: Duration,
    ) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move {
            let key = format!("connections:{}", self.0.node);
            self.0.replace(&key, token, ttl).await
        })
    }

    fn put_drains(
        &self,
        _drains: BTreeMap<UpstreamName, WallTime>,
        token: Token,
        ttl: Duration,
    ) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move { self.0.replace("drains", token, ttl).await })
    }

    fn status(&self) -> watch::Receiver<StoreStatus> {
        self.0.status.subscribe()
    }

    fn lives(&self) -> Option<watch::Receiver<u64>> {
        Some(self.0.lives.subscribe())
    }
}
