//! The handle that the proxy and the program use.

use crate::keeper::Keeper;
use crate::memory::{PinTable, TableLimits};
use crate::new_rooms::NewRooms;
use crate::pin::{
    CONNECTION_ROOMS_MAX, Gossip, HeardConnections, NodeConnections, PIN_BATCH_MAX, Pin, PinEvent, PinUpdate,
};
use crate::placement::{Placed, Refused, Wish};
use crate::runtime::{Moment, OnTokio, Runtime, timeout};
use crate::spread::Spread;
use crate::store::{Store, StoreStatus};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, broadcast, mpsc, watch};
use twinsite_model::{NodeId, RoomKey, Token, UpstreamName, WallTime};

/// Whether this node can tell that a quorum exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Quorum {
    /// A quorum exists (this node's, or one that it hears of).
    Known,
    /// It cannot be told: new rooms are refused.
    #[default]
    Unknown,
}

/// What placement must know of the replicated state. The program keeps it current.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ClusterView {
    /// [`twinsite_model::State::session_token`] of the newest state that this node has applied.
    pub token: Token,
    /// Whether a quorum is known.
    pub quorum: Quorum,
}

/// How the service behaves. [`SessionsOptions::new`] has the defaults.
#[derive(Debug, Clone)]
pub struct SessionsOptions {
    /// This node.
    pub node: NodeId,
    /// How long a room that nobody uses keeps its place.
    pub room_ttl: Duration,
    /// The same for a room in which no tunnel was seen yet: anyone can name a room. It counts from the last request.
    pub unproven_ttl: Duration,
    /// Rooms that this node may create at once, and then in each second. Rooms that exist are not counted.
    pub new_rooms_burst: u32,
    /// See `new_rooms_burst`.
    pub new_rooms_per_second: u32,
    /// How long the first placement of a room may wait for the store. When the store does not answer, the other nodes
    /// are asked, and it may take three times as long, all in all.
    pub store_timeout: Duration,
    /// How often rooms in use are confirmed in the store and to the other nodes.
    pub keep_interval: Duration,
    /// How long one write to the store, off the request path, may take.
    pub write_timeout: Duration,
    /// How long a store counts as possibly forgetful after it was reached again.
    pub settle: Duration,
    /// Rooms in memory, at most.
    pub pins_max: usize,
    /// Placements under way, at most; above it, nodes decide by memory and hash alone.
    pub placements_max: usize,
    /// Events that a slow reader of [`Sessions::subscribe`] may be behind.
    pub events_max: usize,
}

impl SessionsOptions {
    /// The defaults: 50 ms for the store to place a room, an hour for an unused one, two minutes for one that nobody
    /// was seen in, 200,000 rooms. A node creates a thousand rooms at once, as when a whole site's clients come back,
    /// and fifty a second after that, so that names made up by a stranger take a small part of the memory before they
    /// are forgotten.
    pub fn new(node: NodeId) -> Self {
        Self {
            node,
            room_ttl: Duration::from_hours(1),
            unproven_ttl: Duration::from_mins(2),
            new_rooms_burst: 1_000,
            new_rooms_per_second: 50,
            store_timeout: Duration::from_millis(50),
            keep_interval: Duration::from_secs(5),
            write_timeout: Duration::from_millis(500),
            settle: Duration::from_secs(5),
            pins_max: 200_000,
            placements_max: 4_096,
            events_max: 16_384,
        }
    }

    /// Never longer than for a proven room.
    pub(crate) fn unproven_ttl(&self) -> Duration {
        self.unproven_ttl.min(self.room_ttl)
    }

    fn table_limits(&self) -> TableLimits {
        TableLimits {
            pins_max: self.pins_max,
            ttl: self.room_ttl,
            unproven_ttl: self.unproven_ttl(),
            // Half of it: use between two turns of the keeper is then noted in time for the second.
            note_interval: self.keep_interval / 2,
            events_max: self.events_max,
        }
    }
}

/// Pins waiting to be spread, at most. What does not fit is spread at the next keeping interval.
const NEWS_MAX: usize = 8_192;

type Decision = Option<Result<Placed, Refused>>;

/// What the handle and the keeper share.
pub(crate) struct Inner {
    pub options: SessionsOptions,
    pub runtime: Arc<dyn Runtime>,
    pub table: PinTable,
    pub store: Arc<dyn Store>,
    pub spread: Arc<dyn Spread>,
    pub view: watch::Receiver<ClusterView>,
    pub slowness: Slowness,
    pub new_rooms: NewRooms,
    pub keep_soon: Notify,
    /// The store's life in which every pin of this node was last written, and when that was.
    pub kept_life: AtomicU64,
    pub kept_since: Mutex<Moment>,
    pub own_connections: Mutex<NodeConnections>,
    pub drains: Mutex<BTreeMap<UpstreamName, WallTime>>,
    asserted: Mutex<Token>,
    heard: Mutex<BTreeMap<NodeId, HeardConnections>>,
    status: watch::Receiver<StoreStatus>,
    lives: Option<watch::Receiver<u64>>,
    news: mpsc::Sender<PinUpdate>,
    deciding: Mutex<BTreeMap<Wish, watch::Receiver<Decision>>>,
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Inner {
    pub(crate) fn token(&self) -> Token {
        self.view.borrow().token.max(*lock(&self.asserted))
    }

    pub(crate) fn now(&self) -> Moment {
        self.runtime.now()
    }

    pub(crate) async fn timeout<T>(&self, within: Duration, work: impl Future<Output = T>) -> Option<T> {
        timeout(&*self.runtime, within, work).await
    }

    pub(crate) async fn timeout_at<T>(&self, until: Moment, work: impl Future<Output = T>) -> Option<T> {
        self.timeout(until.since(self.now()), work).await
    }

    pub(crate) fn store_answers(&self) -> bool {
        self.status.borrow().is_up() && !self.slowness.is_slow(self.now())
    }

    pub(crate) fn store_may_have_forgotten(&self) -> bool {
        let Some(lives) = &self.lives else { return false };
        *lives.borrow() != self.kept_life.load(Ordering::Acquire)
            || self.now().since(*lock(&self.kept_since)) < self.options.settle
    }

    pub(crate) fn spread_soon(&self, update: PinUpdate) {
        if self.news.try_send(update).is_err() {
            metrics::counter!("twinsite_sessions_spread_dropped_total").increment(1);
        }
    }

    /// Joins the decision that is under way for the same wish, or begins one. It runs on the runtime of the service,
    /// so that neither a caller that gives up nor a core that ends takes it from the others. `None`: too many.
    pub(crate) fn join(
        self: &Arc<Self>,
        wish: &Wish,
        proposal: &UpstreamName,
    ) -> Option<watch::Receiver<Decision>> {
        let mut deciding = lock(&self.deciding);
        if let Some(decision) = deciding.get(wish) {
            return Some(decision.clone());
        }
        if deciding.len() >= self.options.placements_max {
            metrics::counter!("twinsite_sessions_placements_crowded_total").increment(1);
            return None;
        }
        let (tell, decision) = watch::channel(None);
        deciding.insert(wish.clone(), decision.clone());
        drop(deciding);
        let (inner, wish, proposal) = (Arc::clone(self), wish.clone(), proposal.clone());
        self.runtime.spawn(Box::pin(async move {
            let result = inner.decide(&wish, proposal).await;
            lock(&inner.deciding).remove(&wish);
            tell.send_replace(Some(result));
        }));
        Some(decision)
    }

    /// How long connection counts are believed: three lost messages are no silence.
    pub(crate) fn connections_ttl(&self) -> Duration {
        self.options.keep_interval * 4
    }
}

/// Session placement on one node. Clones share everything; the background work ends with the last of them.
#[derive(Clone)]
pub struct Sessions {
    inner: Arc<Inner>,
    _keeper: Arc<Keeper>,
}

impl Sessions {
    /// Starts the service on the current tokio runtime.
    pub fn start(
        options: SessionsOptions,
        store: Arc<dyn Store>,
        spread: Arc<dyn Spread>,
        view: watch::Receiver<ClusterView>,
    ) -> Self {
        Self::start_on(Arc::new(OnTokio::current()), options, store, spread, view)
    }

    /// Starts the service on another runtime.
    pub fn start_on(
        runtime: Arc<dyn Runtime>,
        options: SessionsOptions,
        store: Arc<dyn Store>,
        spread: Arc<dyn Spread>,
        view: watch::Receiver<ClusterView>,
    ) -> Self {
        let (news, news_queue) = mpsc::channel(NEWS_MAX);
        let inner = Arc::new(Inner {
            table: PinTable::new(options.table_limits(), Arc::clone(&runtime)),
            status: store.status(),
            lives: store.lives(),
            store,
            spread,
            view,
            slowness: Slowness::default(),
            new_rooms: NewRooms::new(options.new_rooms_burst, options.new_rooms_per_second),
            keep_soon: Notify::new(),
            kept_life: AtomicU64::new(u64::MAX),
            kept_since: Mutex::new(runtime.now()),
            own_connections: Mutex::default(),
            drains: Mutex::default(),
            asserted: Mutex::default(),
            heard: Mutex::default(),
            news,
            deciding: Mutex::default(),
            runtime,
            options,
        });
        let keeper = Arc::new(Keeper::start(&inner, news_queue, inner.lives.clone()));
        Self { inner, _keeper: keeper }
    }

    /// What this node remembers of a room, without waiting; counts as use of the room. `None`: call
    /// [`Sessions::place`].
    pub fn remembered(&self, room: RoomKey) -> Option<UpstreamName> {
        self.inner.table.find(room, None).map(|pin| pin.upstream)
    }

    /// The place of a room. A room without one gets the proposal, the upstream that the hash of the room gives: every
    /// node proposes the same. `replace` names the upstream that may be left behind (because it is unhealthy); a room
    /// that is elsewhere by now stays there.
    ///
    /// Answers within three times [`SessionsOptions::store_timeout`], from any runtime. Concurrent calls for one room
    /// share one decision.
    pub async fn place(
        &self,
        room: RoomKey,
        proposal: UpstreamName,
        replace: Option<UpstreamName>,
    ) -> Result<Placed, Refused> {
        let wish = Wish { room, replace };
        if let Some(placed) = self.inner.remembered(&wish) {
            return Ok(placed);
        }
        self.inner.decide_in_time(wish, proposal).await
    }

    /// Rooms with a live tunnel, and the upstream to which it goes: proof of their place. Call it for every live
    /// tunnel, about once a second; cheap, never waits. Returns how many contradict their pin: the
    /// proxy is told again where those rooms are.
    pub fn observe_live(&self, rooms: impl IntoIterator<Item = (RoomKey, UpstreamName)>) -> usize {
        let token = self.inner.token();
        let strays =
            rooms.into_iter().filter(|(room, at)| self.inner.table.touch_live(*room, at, token)).count();
        metrics::gauge!("twinsite_sessions_stray_tunnels").set(strays as f64);
        strays
    }

    /// An upstream became unhealthy. Rooms remembered on it are asked for again before the next use, because they may
    /// be moved by others without this node hearing of it.
    pub fn upstream_lost(&self, upstream: &UpstreamName) {
        self.inner.table.upstream_lost(upstream);
    }

    /// Raises the token under which this node writes and asserts it in the store, as soon as the store can be
    /// reached. Never waits. Growth of [`ClusterView::token`] does the same by itself.
    pub fn assert_token(&self, token: Token) {
        {
            let mut asserted = lock(&self.inner.asserted);
            *asserted = token.max(*asserted);
        }
        self.inner.store.assert_token(self.inner.token());
    }

    /// Takes what another node tells. Bounded: pins above [`PIN_BATCH_MAX`] are ignored.
    pub fn receive(&self, gossip: Gossip) {
        for update in gossip.pins.into_iter().take(PIN_BATCH_MAX) {
            self.inner.table.adopt_heard(update.room, update.pin, false);
        }
        if let Some(mut counts) = gossip.connections {
            bound_rooms(&mut counts);
            let expires = self.inner.now() + self.inner.connections_ttl();
            let heard = HeardConnections { counts, expires };
            lock(&self.inner.heard).insert(gossip.from, heard);
        }
    }

    /// The answer to another node's question; see [`Spread::ask_peers`].
    pub fn answer(&self, room: RoomKey) -> Option<Pin> {
        self.inner.table.peek(room)
    }

    /// Changes of places from now on.
    pub fn subscribe(&self) -> PinFeed {
        PinFeed { events: self.inner.table.subscribe() }
    }

    /// All live pins in memory.
    pub fn snapshot(&self) -> Vec<PinUpdate> {
        self.inner.table.snapshot()
    }

    /// How many rooms are in memory.
    pub fn len(&self) -> usize {
        self.inner.table.len()
    }

    /// Whether no room is in memory.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// This node's open connections, replaced whole.
    pub fn put_connections(&self, mut counts: NodeConnections) {
        bound_rooms(&mut counts);
        *lock(&self.inner.own_connections) = counts;
    }

    /// The open connections of every node that was heard of lately, this one included.
    pub fn connections(&self) -> BTreeMap<NodeId, NodeConnections> {
        let now = self.inner.now();
        let mut heard = lock(&self.inner.heard);
        heard.retain(|_, heard| heard.expires > now);
        let mut all: BTreeMap<_, _> =
            heard.iter().map(|(node, heard)| (*node, heard.counts.clone())).collect();
        all.insert(self.inner.options.node, lock(&self.inner.own_connections).clone());
        all
    }

    /// The upstreams being drained, for the mirror in the store; replaced whole.
    pub fn put_drains(&self, drains: BTreeMap<UpstreamName, WallTime>) {
        *lock(&self.inner.drains) = drains;
        self.inner.keep_soon.notify_one();
    }

    /// Whether the store can be used: a report for the controller.
    pub fn store_status(&self) -> watch::Receiver<StoreStatus> {
        self.inner.status.clone()
    }
}

fn bound_rooms(counts: &mut NodeConnections) {
    let rooms = &mut counts.rooms;
    if rooms.len() > CONNECTION_ROOMS_MAX {
        let mut busiest: Vec<_> = std::mem::take(rooms).into_iter().collect();
        busiest.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        busiest.truncate(CONNECTION_ROOMS_MAX);
        rooms.extend(busiest);
    }
}

/// Changes of places, in order for each room. Bounded: a reader that falls behind is told to begin anew.
pub struct PinFeed {
    events: broadcast::Receiver<PinEvent>,
}

impl PinFeed {
    /// The next change; `None` when the service has ended.
    pub async fn next(&mut self) -> Option<PinEvent> {
        match self.events.recv().await {
            Ok(event) => Some(event),
            Err(broadcast::error::RecvError::Lagged(_)) => Some(PinEvent::Resync),
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }
}

/// Keeps requests from waiting, one after the other, for a store that hangs and has not been declared away yet.
#[derive(Debug, Default)]
pub(crate) struct Slowness {
    state: Mutex<(u32, Option<Moment>)>,
}

/// So many timeouts in a row make the store slow.
const SLOW_AFTER: u32 = 2;
/// So long it is then left alone.
const SLOW_PAUSE: Duration = Duration::from_millis(250);

impl Slowness {
    pub(crate) fn note_timeout(&self, now: Moment) {
        let mut state = lock(&self.state);
        state.0 += 1;
        if state.0 >= SLOW_AFTER {
            state.1 = Some(now + SLOW_PAUSE);
        }
    }

    pub(crate) fn note_answer(&self) {
        *lock(&self.state) = (0, None);
    }

    fn is_slow(&self, now: Moment) -> bool {
        lock(&self.state).1.is_some_and(|until| now < until)
    }
}
