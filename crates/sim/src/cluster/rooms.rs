//! Who comes to which room through which node: the real session service, and around it what the proxy does with it.

use super::life::MS;
use super::net::End;
use super::process::Raft;
use super::redis::Redis;
use super::redis_store::SimStore;
use super::sight::Sight;
use super::spread::{LogProposer, OnProcess, PeerSpread};
use crate::clock::{TrueTime, nanos};
use crate::runtime::{Executor, ProcessId, SimInstant, SimRuntime};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use twinsite_consensus::AsyncRuntime;
use twinsite_consensus::runtime::traits::Instant;
use twinsite_model::spec::FloatingIpSpec;
use twinsite_model::{Event, NodeId, RoomKey, SiteName, State, UpstreamName, Verdict, rendezvous};
use twinsite_sessions::{
    ClusterView, EmbeddedStore, NodeConnections, PinEvent, PlacedBy, Quorum, Sessions, SessionsOptions, Store,
};

/// Rooms that people come to at a time.
const ROOMS: u8 = 8;
/// After so long one of them is over and another begins; nodes and stores remember the old ones.
const ROOM_LASTS: TrueTime = 1_500 * MS;
/// The first byte of their keys; other rooms are placed straight in the log.
const FIRST_ROOM: u8 = 100;
/// How often live tunnels are told to the session service, as in the program.
const LIVE_EVERY: Duration = Duration::from_secs(1);
/// A decision that began before the quorum went is over after so long.
const DECIDED_WITHIN: Duration = Duration::from_millis(100);

/// How often things came up.
type Counts = BTreeMap<&'static str, u64>;

/// What a node must not do and did, and how often it did what.
#[derive(Clone, Default)]
pub(super) struct Told(Arc<Mutex<(Vec<String>, Counts)>>);

impl Told {
    fn lock(&self) -> MutexGuard<'_, (Vec<String>, Counts)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A room got a place where nobody knew of a quorum.
    pub(super) fn broken(&self, detail: String) {
        self.lock().0.push(detail);
    }

    fn count(&self, what: &'static str) {
        *self.lock().1.entry(what).or_default() += 1;
    }

    pub(super) fn take(&self) -> (Vec<String>, Counts) {
        std::mem::take(&mut *self.lock())
    }
}

/// Since when a node knows of no quorum.
#[derive(Clone)]
pub(super) struct QuorumGone {
    since: Arc<Mutex<Option<SimInstant>>>,
    view: watch::Receiver<ClusterView>,
}

impl QuorumGone {
    fn watch(view: watch::Receiver<ClusterView>) -> Self {
        let gone = Self { since: Arc::default(), view };
        gone.see();
        gone
    }

    fn see(&self) {
        let mut since = self.since.lock().unwrap_or_else(PoisonError::into_inner);
        match self.view.borrow().quorum {
            Quorum::Known => *since = None,
            Quorum::Unknown => *since = Some(since.unwrap_or_else(SimInstant::now)),
        }
    }

    /// Since when, if every decision that began before is over.
    pub(super) fn since(&self) -> Option<SimInstant> {
        // Whoever is told of the view may be told after somebody has gone by it.
        self.see();
        let since = *self.since.lock().unwrap_or_else(PoisonError::into_inner);
        since.filter(|since| SimInstant::now() - *since > DECIDED_WITHIN)
    }
}

/// What all nodes have in common.
#[derive(Clone)]
pub(super) struct Meetings {
    /// None: the rooms are in the replicated state.
    pub(super) redis: Option<Redis>,
    pub(super) settle: Duration,
    pub(super) keep_interval: Duration,
    pub(super) visit_every: Duration,
    pub(super) sight: Sight,
    pub(super) told: Told,
}

/// Rooms with somebody in them.
type Tunnels = BTreeMap<RoomKey, Tunnel>;

/// Somebody is in a room.
#[derive(Debug, Clone)]
pub(super) struct Tunnel {
    /// The upstream to which it goes.
    pub(super) at: UpstreamName,
    since: TrueTime,
}

/// So soon everybody knows where a room is that somebody is in: the tunnel is told, noted, and spread.
fn known_everywhere_after(keep_interval: Duration) -> TrueTime {
    nanos(LIVE_EVERY + 2 * keep_interval)
}

/// The rooms of one life of a node.
#[derive(Clone)]
pub(super) struct Rooms {
    pub(super) me: NodeId,
    pub(super) sessions: Sessions,
    tunnels: Arc<Mutex<Tunnels>>,
    known_everywhere_after: TrueTime,
    /// Rooms that the node has in memory, and when it was first seen to.
    known: Arc<Mutex<BTreeMap<RoomKey, TrueTime>>>,
}

impl Meetings {
    /// Opens them on a node, in its process.
    pub(super) fn open(
        &self,
        process: ProcessId,
        end: &End,
        raft: &Raft,
        view: watch::Receiver<ClusterView>,
    ) -> Rooms {
        let quorum = QuorumGone::watch(view.clone());
        let store: Arc<dyn Store> = match &self.redis {
            Some(redis) => {
                let (quorum, told) = (quorum.clone(), self.told.clone());
                Arc::new(SimStore::start(end.node, redis.clone(), self.settle, quorum, told))
            }
            None => Arc::new(EmbeddedStore::new(LogProposer { end: end.clone(), raft: raft.clone() })),
        };
        let mut options = SessionsOptions::new(end.node);
        (options.settle, options.keep_interval) = (self.settle, self.keep_interval);
        let spread = Arc::new(PeerSpread(end.clone()));
        let sessions = Sessions::start_on(Arc::new(OnProcess(process)), options, store, spread, view.clone());
        let rooms = Rooms {
            me: end.node,
            sessions,
            tunnels: Arc::default(),
            known_everywhere_after: known_everywhere_after(self.keep_interval),
            known: Arc::default(),
        };
        let visitors = Visitors {
            me: end.node,
            meetings: self.clone(),
            raft: raft.clone(),
            rooms: rooms.clone(),
            quorum,
            random: Executor::random(),
        };
        drop(SimRuntime::spawn(visitors.come_and_go(view)));
        rooms
    }
}

impl Rooms {
    fn tunnels(&self) -> MutexGuard<'_, Tunnels> {
        self.tunnels.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The rooms with somebody in them.
    pub(super) fn live(&self) -> BTreeMap<RoomKey, UpstreamName> {
        self.tunnels().iter().map(|(room, tunnel)| (*room, tunnel.at.clone())).collect()
    }

    /// The rooms that somebody has been in for so long that every node should know their place.
    pub(super) fn long_live(&self) -> Vec<RoomKey> {
        let by = Executor::now().saturating_sub(self.known_everywhere_after);
        self.tunnels().iter().filter(|(_, tunnel)| tunnel.since <= by).map(|(room, _)| *room).collect()
    }

    /// Where a room is, if this node has known so since then.
    pub(super) fn known_since(&self, room: RoomKey, since: TrueTime) -> Option<UpstreamName> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let known = known.get(&room).is_some_and(|first| *first <= since);
        self.sessions.answer(room).filter(|_| known).map(|pin| pin.upstream)
    }

    /// What was not known before is known from now on.
    fn note_known(&self) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        for update in self.sessions.snapshot() {
            known.entry(update.room).or_insert_with(Executor::now);
        }
    }

    /// Any upstream may have been away: nothing can be told.
    pub(super) fn hear_of_all(&self, state: &State) {
        for upstream in state.spec.iter().flat_map(|spec| &spec.upstreams) {
            self.sessions.upstream_lost(&upstream.name);
        }
    }

    /// Upstreams that are agreed to be bad: their rooms are asked for again, as the program does it.
    pub(super) fn hear(&self, events: &[Event]) {
        for event in events {
            if let Event::VerdictChanged { upstream, to: Verdict::Unhealthy, .. } = event {
                self.sessions.upstream_lost(upstream);
            }
        }
    }
}

/// Whoever comes to rooms through one node, and the node's proxy.
struct Visitors {
    me: NodeId,
    meetings: Meetings,
    raft: Raft,
    rooms: Rooms,
    quorum: QuorumGone,
    random: fastrand::Rng,
}

impl Visitors {
    async fn come_and_go(mut self, mut view: watch::Receiver<ClusterView>) {
        let mut events = self.rooms.sessions.subscribe();
        let mut next_visit = SimInstant::now();
        let mut next_told = SimInstant::now() + LIVE_EVERY;
        loop {
            tokio::select! {
                biased;
                event = events.next() => match event {
                    Some(event) => self.gather(event),
                    None => return,
                },
                Ok(()) = view.changed() => self.quorum.see(),
                () = SimRuntime::sleep_until(next_told) => {
                    next_told = SimInstant::now() + LIVE_EVERY;
                    self.tell();
                }
                () = SimRuntime::sleep_until(next_visit) => {
                    let most = 2 * self.meetings.visit_every.as_nanos() as u64;
                    next_visit = SimInstant::now() + Duration::from_nanos(self.random.u64(1..=most));
                    self.visit();
                }
            }
        }
    }

    /// Tunnels of a room to somewhere else than where it is are ended; their clients come back.
    fn gather(&self, event: PinEvent) {
        match event {
            PinEvent::Changed { room, upstream } => {
                self.rooms.tunnels().retain(|live, tunnel| *live != room || tunnel.at == upstream);
            }
            PinEvent::Removed { .. } => {}
            PinEvent::Resync => {
                let sessions = &self.rooms.sessions;
                let stays = |room: &RoomKey, tunnel: &mut Tunnel| {
                    sessions.answer(*room).is_none_or(|pin| pin.upstream == tunnel.at)
                };
                self.rooms.tunnels().retain(stays);
            }
        }
    }

    fn tell(&self) {
        self.rooms.note_known();
        let live = self.rooms.live();
        let counts = live.keys().map(|room| (*room, 1)).collect();
        self.rooms.sessions.put_connections(NodeConnections { rooms: counts, upstreams: BTreeMap::new() });
        self.rooms.sessions.observe_live(live);
    }

    /// Somebody comes to a room, and perhaps somebody leaves another.
    fn visit(&mut self) {
        let sight = &self.meetings.sight;
        self.rooms.tunnels().retain(|_, tunnel| sight.is_healthy(&tunnel.at));
        if self.random.bool() {
            let mut tunnels = self.rooms.tunnels();
            let leaves = tunnels.keys().nth(self.random.usize(..tunnels.len().max(1))).copied();
            leaves.map(|room| tunnels.remove(&room));
        }
        let state = self.raft.state();
        let Some(spec) = state.spec.clone() else { return };
        if !spec.node(self.me).is_some_and(|node| node.kind.serves()) {
            return;
        }
        let ip = self.random.usize(..spec.floating_ips.len());
        let room = self.some_room();
        let visit = Visit {
            me: self.me,
            meetings: self.meetings.clone(),
            rooms: self.rooms.clone(),
            quorum: self.quorum.clone(),
        };
        drop(SimRuntime::spawn(async move { visit.come_to(room, &state, &spec.floating_ips[ip]).await }));
    }

    fn some_room(&mut self) -> RoomKey {
        let over = u8::try_from(Executor::now() / ROOM_LASTS).unwrap_or(u8::MAX - FIRST_ROOM - ROOMS);
        // Sometimes somebody comes back to an old one.
        let first = if self.random.u32(..4) == 0 { 0 } else { over };
        RoomKey([FIRST_ROOM + self.random.u8(first..over + ROOMS); 16])
    }
}

/// One client.
struct Visit {
    me: NodeId,
    meetings: Meetings,
    rooms: Rooms,
    quorum: QuorumGone,
}

impl Visit {
    /// As the proxy does it for a request with a room.
    async fn come_to(self, room: RoomKey, state: &State, ip: &FloatingIpSpec) {
        let remembered = self.rooms.sessions.remembered(room);
        let stays = remembered.clone().filter(|upstream| keeps_rooms(state, upstream));
        let upstream = match stays {
            Some(upstream) => upstream,
            None => {
                let Some(proposal) = place_of_room(state, room, ip) else { return };
                let gone = self.quorum.since();
                let placed = self.rooms.sessions.place(room, proposal, remembered).await;
                let told = &self.meetings.told;
                let Ok(placed) = placed else {
                    told.count("rooms that were not placed");
                    return;
                };
                told.count(match placed.by {
                    PlacedBy::Memory => "rooms found in memory",
                    PlacedBy::Store => "rooms placed by the store",
                    PlacedBy::Peer => "rooms found at peers",
                    PlacedBy::Proposal => "rooms placed without the store",
                });
                if placed.by == PlacedBy::Proposal && gone.is_some() && self.quorum.since() == gone {
                    let (me, upstream) = (self.me, &placed.upstream);
                    told.broken(format!("{me} places {room} at {upstream}, and knows of no quorum"));
                }
                placed.upstream
            }
        };
        if self.meetings.sight.is_healthy(&upstream) {
            let mut tunnels = self.rooms.tunnels();
            let tunnel = tunnels
                .entry(room)
                .or_insert_with(|| Tunnel { at: upstream.clone(), since: Executor::now() });
            tunnel.at = upstream;
        }
    }
}

fn all_bad(state: &State) -> bool {
    let upstreams = state.spec.iter().flat_map(|spec| &spec.upstreams);
    upstreams.into_iter().all(|upstream| state.verdict(&upstream.name) == Verdict::Unhealthy)
}

fn keeps_rooms(state: &State, upstream: &UpstreamName) -> bool {
    let known = state.spec.as_ref().is_some_and(|spec| spec.upstream(upstream).is_some());
    known && (state.verdict(upstream) != Verdict::Unhealthy || all_bad(state))
}

/// The best upstream of the best site, the same on every node for who comes to the same address.
fn place_of_room(state: &State, room: RoomKey, ip: &FloatingIpSpec) -> Option<UpstreamName> {
    let spec = state.spec.as_ref()?;
    let all_bad = all_bad(state);
    let verdicts = [Verdict::Healthy, Verdict::Unknown, Verdict::Draining, Verdict::Unhealthy];
    let verdicts = verdicts.into_iter().filter(|verdict| *verdict != Verdict::Unhealthy || all_bad);
    let sites = state.site_preference(Some(ip));
    let tier = |verdict: Verdict, site: &SiteName| {
        let upstreams = spec.upstreams.iter().filter(|upstream| upstream.site == *site);
        let of_tier = upstreams.filter(|upstream| state.verdict(&upstream.name) == verdict);
        rendezvous::choose(of_tier, |upstream| &upstream.address, &room.0)
    };
    let mut tiers = verdicts.flat_map(|verdict| sites.iter().map(move |site| (verdict, site)));
    tiers.find_map(|(verdict, site)| tier(verdict, site)).map(|upstream| upstream.name.clone())
}
