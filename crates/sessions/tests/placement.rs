//! How rooms get their places, with a store and peers whose behaviour the test decides.
#![allow(clippy::disallowed_methods, reason = "tests live by the real clock")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test's helpers end the test")]

mod scripted;

use scripted::{Peers, Script, ScriptedStore, eventually, name, pin, room};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;
use twinsite_model::{NodeId, RoomKey, Token, WallTime};
use twinsite_sessions::{
    BoxFuture, ClusterView, Gossip, Moment, PeersAnswer, PinEvent, PinUpdate, PlacedBy, Quorum, Refused,
    Runtime, Sessions, SessionsOptions, Spread,
};

const TOKEN: Token = Token::new(1, 1);

struct Bench {
    store: Arc<ScriptedStore>,
    peers: Arc<Peers>,
    view: watch::Sender<ClusterView>,
    sessions: Sessions,
}

fn options() -> SessionsOptions {
    let mut options = SessionsOptions::new(NodeId(1));
    // Generous: this is not about speed, and machines that run tests are slow.
    options.store_timeout = Duration::from_secs(2);
    options
}

fn bench(options: SessionsOptions, script: Script) -> Bench {
    let store = Arc::new(ScriptedStore::new(script));
    let peers = Arc::new(Peers::default());
    let view = watch::Sender::new(ClusterView { token: TOKEN, quorum: Quorum::Known });
    let sessions =
        Sessions::start(options, Arc::clone(&store) as _, Arc::clone(&peers) as _, view.subscribe());
    Bench { store, peers, view, sessions }
}

impl Bench {
    async fn place(&self, room: RoomKey, proposal: &str) -> Result<(String, PlacedBy), Refused> {
        let placed = self.sessions.place(room, name(proposal), None).await?;
        Ok((placed.upstream.to_string(), placed.by))
    }
}

#[tokio::test]
async fn one_peers_answer_counts_though_another_is_silent_until_the_end() {
    let bench = bench(options(), Script { young: true, ..Script::default() });
    bench.peers.say(PeersAnswer { pin: Some(pin("two", 9)), complete: false }, true);
    // The silent one's time and the wait for it end close together: it must not be a matter of luck.
    for number in 0..20 {
        let placed = bench.place(room(number), "one").await;
        assert_eq!(placed, Ok(("two".to_owned(), PlacedBy::Peer)), "room {number}");
    }
}

#[tokio::test]
async fn a_young_store_gives_no_place_while_a_peer_is_silent() {
    let bench = bench(options(), Script { young: true, ..Script::default() });
    bench.peers.say(PeersAnswer { pin: None, complete: false }, false);
    let placed = bench.place(room(1), "one").await;
    assert_eq!(placed, Ok(("one".to_owned(), PlacedBy::Proposal)));
    assert!(bench.store.requests().iter().all(|request| !request.peers_asked), "not all have answered");
    let decided = bench.sessions.answer(room(1)).unwrap();
    assert!(pin("two", 2).outranks(&decided), "whatever the store had outranks the guess: {decided}");

    bench.peers.say(PeersAnswer { pin: None, complete: true }, false);
    assert_eq!(bench.place(room(2), "one").await, Ok(("one".to_owned(), PlacedBy::Store)));
    assert!(bench.store.requests().last().unwrap().peers_asked);
}

#[tokio::test]
async fn use_without_a_pause_does_not_keep_the_keeper_from_its_other_work() {
    let mut options = options();
    options.keep_interval = Duration::from_millis(40);
    let bench = bench(options, Script { keep_takes: Duration::from_millis(5), ..Script::default() });
    bench.place(room(1), "one").await.unwrap();
    let (store, sessions) = (Arc::clone(&bench.store), bench.sessions.clone());
    let busy = tokio::spawn(async move {
        loop {
            assert!(sessions.remembered(room(1)).is_some());
            tokio::task::yield_now().await;
        }
    });
    eventually("the registry is written", || store.registry_writes.load(Ordering::Relaxed) >= 5).await;
    let gossip = bench.peers.broadcasts();
    eventually("the peers are told", || bench.peers.broadcasts() >= gossip + 5).await;
    assert!(!busy.is_finished());
    busy.abort();
}

#[tokio::test]
async fn a_rooms_use_is_kept_once_in_a_while_and_not_with_every_request() {
    let mut options = options();
    options.keep_interval = Duration::from_mins(1);
    let bench = bench(options, Script::default());
    bench.place(room(1), "one").await.unwrap();
    for number in 0..200 {
        for _ in 0..50 {
            assert!(bench.sessions.remembered(room(1)).is_some());
        }
        // Each makes the keeper write what is dirty.
        bench.sessions.put_drains(BTreeMap::from([(name(&format!("u{number}")), WallTime(number))]));
        tokio::task::yield_now().await;
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(bench.store.kept().len(), 0, "the store has just confirmed it");
}

#[tokio::test]
async fn new_rooms_come_at_a_bounded_rate_and_rooms_that_exist_are_never_held_up() {
    let mut options = options();
    (options.new_rooms_burst, options.new_rooms_per_second) = (5, 1);
    let begun = Instant::now();
    let bench = bench(options, Script::default());
    bench.store.has(room(100), pin("two", 9));
    for number in 0..5 {
        assert_eq!(bench.place(room(number), "one").await, Ok(("one".to_owned(), PlacedBy::Store)));
        // What exists uses nothing up.
        let found = bench.sessions.place(room(100), name("one"), None).await.unwrap();
        assert_eq!(found.upstream, name("two"));
    }
    let sixth = bench.place(room(5), "one").await;
    assert!(
        sixth == Err(Refused::TooManyNewRooms) || begun.elapsed() > Duration::from_millis(900),
        "{sixth:?}"
    );
    assert!(bench.store.requests().iter().all(|request| request.room != room(5)) || sixth.is_ok());

    bench.store.has(room(101), pin("two", 9));
    assert_eq!(bench.place(room(101), "one").await.unwrap().0, "two", "another node created it");
    let moved = bench.sessions.place(room(1), name("two"), Some(name("one"))).await.unwrap();
    assert_eq!(moved.upstream, name("two"), "a room that moves is not new");
}

#[tokio::test]
async fn a_thousand_rooms_at_once_pass() {
    let bench = bench(options(), Script::default());
    let all = (0..1_000_u32).map(|number| {
        let mut key = [0; 16];
        key[..4].copy_from_slice(&number.to_le_bytes());
        bench.sessions.place(RoomKey(key), name("one"), None)
    });
    for placed in futures_util::future::join_all(all).await {
        placed.unwrap();
    }
}

#[tokio::test]
async fn a_room_that_nobody_was_seen_in_is_soon_forgotten_and_a_tunnel_proves_it() {
    let mut options = options();
    options.unproven_ttl = Duration::from_millis(300);
    options.keep_interval = Duration::from_millis(50);
    let (long, short) = (options.room_ttl, options.unproven_ttl);
    let bench = bench(options, Script::default());
    bench.place(room(1), "one").await.unwrap();
    bench.place(room(2), "one").await.unwrap();
    assert!(bench.store.requests().iter().all(|request| request.ttl == short));
    assert_eq!(bench.sessions.observe_live([(room(1), name("one"))]), 0);
    eventually("the proof is in the store", || {
        bench.store.kept().iter().any(|(update, ttl)| update.room == room(1) && *ttl == long)
    })
    .await;
    eventually("the other is forgotten", || bench.sessions.answer(room(2)).is_none()).await;
    assert!(bench.sessions.answer(room(1)).is_some(), "nobody is in it now, but somebody was");
    assert!(bench.store.kept().iter().all(|(update, _)| update.room != room(2)));
}

#[tokio::test]
async fn only_a_change_of_place_is_told() {
    let bench = bench(options(), Script::default());
    let mut events = bench.sessions.subscribe();
    for number in 0..10 {
        bench.place(room(number), "one").await.unwrap();
    }
    bench.sessions.place(room(3), name("two"), Some(name("one"))).await.unwrap();
    let first = tokio::time::timeout(Duration::from_secs(10), events.next()).await.unwrap();
    assert_eq!(first, Some(PinEvent::Changed { room: room(3), upstream: name("two") }));
    // A tunnel that is elsewhere is told where its room is.
    assert_eq!(bench.sessions.observe_live([(room(4), name("two"))]), 1);
    let next = tokio::time::timeout(Duration::from_secs(10), events.next()).await.unwrap();
    assert_eq!(next, Some(PinEvent::Changed { room: room(4), upstream: name("one") }));
}

#[tokio::test]
async fn who_knows_better_than_the_others_says_so_though_nobody_comes() {
    let mut options = options();
    options.keep_interval = Duration::from_millis(40);
    let bench = bench(options, Script::default());
    // Decided by a node that lost its power before the store heard of it; the others have what the store has.
    let tell =
        |pin| Gossip { from: NodeId(2), pins: vec![PinUpdate { room: room(1), pin }], connections: None };
    bench.sessions.receive(tell(pin("two", 9)));
    let told = bench.peers.broadcasts();
    eventually("two turns of the keeper", || bench.peers.broadcasts() >= told + 2).await;
    assert_eq!(bench.store.kept().len(), 0, "what is heard is written by who decided it");
    bench.sessions.receive(tell(pin("one", 8)));
    eventually("the store hears of it", || !bench.store.kept().is_empty()).await;
    let ours = PinUpdate { room: room(1), pin: pin("two", 9) };
    assert_eq!(bench.store.kept()[0].0, ours);
    eventually("the others hear of it", || bench.peers.told().contains(&ours)).await;
}

#[tokio::test]
async fn the_walk_through_a_large_store_goes_on_where_it_stopped() {
    let step = |number| vec![PinUpdate { room: room(number), pin: pin("two", 9) }];
    let pages = vec![Ok(step(1)), Ok(Vec::new()), Err(()), Ok(step(2)), Err(()), Err(()), Ok(step(3))];
    let bench = bench(options(), Script { pages, ..Script::default() });
    eventually("what came before a failure is not lost", || bench.sessions.answer(room(1)).is_some()).await;
    eventually("all is there", || bench.sessions.len() == 3).await;
    assert_eq!(bench.store.cursors(), [0, 1, 2, 2, 3, 3, 3], "no step that succeeded is repeated");
}

#[tokio::test]
async fn without_a_quorum_what_is_remembered_and_doubted_is_better_than_nothing() {
    let bench = bench(options(), Script { away: true, ..Script::default() });
    bench.peers.say(PeersAnswer { pin: None, complete: true }, false);
    bench.place(room(1), "one").await.unwrap();
    bench.sessions.upstream_lost(&name("one"));
    assert_eq!(bench.sessions.remembered(room(1)), None, "it may have been moved");
    bench.view.send_modify(|view| view.quorum = Quorum::Unknown);
    assert_eq!(bench.place(room(1), "two").await, Ok(("one".to_owned(), PlacedBy::Memory)));
    assert_eq!(bench.place(room(2), "two").await, Err(Refused::QuorumUnknown));
    bench.peers.say(PeersAnswer { pin: Some(pin("two", 9)), complete: false }, false);
    assert_eq!(
        bench.place(room(1), "one").await,
        Ok(("two".to_owned(), PlacedBy::Peer)),
        "peers know better"
    );
}

#[tokio::test]
async fn a_room_with_a_live_tunnel_is_never_given_up_for_others() {
    let mut options = options();
    options.pins_max = 16 * 4; // four in each shard
    let bench = bench(options, Script::default());
    // All of one shard: the first byte decides.
    let key = |number: u8| RoomKey([0, number, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    let live: Vec<_> = (0..3).map(|number| (key(number), name("one"))).collect();
    bench.sessions.observe_live(live.clone());
    let pins = (10..110).map(|number| PinUpdate { room: key(number), pin: pin("two", 9) }).collect();
    bench.sessions.receive(Gossip { from: NodeId(2), pins, connections: None });
    for (room, at) in &live {
        assert_eq!(bench.sessions.remembered(*room).as_ref(), Some(at));
    }
    assert_eq!(bench.sessions.len(), 4, "bounded");
    // More live rooms than there is space for: their tunnels bound them.
    bench.sessions.observe_live((0..9).map(|number| (key(number), name("one"))));
    assert!((0..9).all(|number| bench.sessions.answer(key(number)).is_some()));
}

/// A clock that can be put on, as if the process had stood still meanwhile.
struct Standing {
    begun: Instant,
    stood: Arc<AtomicU64>,
}

impl Runtime for Standing {
    fn now(&self) -> Moment {
        Moment(self.begun.elapsed() + Duration::from_millis(self.stood.load(Ordering::Relaxed)))
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep(duration))
    }

    fn spawn(&self, work: BoxFuture<'static, ()>) {
        drop(tokio::spawn(work));
    }
}

/// A peer that knows the room, and needs so long to say so.
struct Slow(Duration);

impl Spread for Slow {
    fn broadcast(&self, _gossip: Gossip) {}

    fn ask_peers(&self, _room: RoomKey, within: Duration) -> BoxFuture<'_, PeersAnswer> {
        Box::pin(async move {
            tokio::time::sleep(self.0.min(within)).await;
            let pin = (self.0 <= within).then(|| pin("two", 9));
            PeersAnswer { complete: pin.is_some(), pin }
        })
    }
}

#[tokio::test]
async fn who_was_silent_before_the_store_is_asked_again_after_it() {
    let store = Arc::new(ScriptedStore::new(Script { young: true, ..Script::default() }));
    let view = watch::Sender::new(ClusterView { token: TOKEN, quorum: Quorum::Known });
    let peers = Arc::new(Slow(Duration::from_millis(100)));
    let sessions = Sessions::start(options(), store, peers, view.subscribe());
    let placed = sessions.place(room(1), name("one"), None).await.unwrap();
    assert_eq!((placed.upstream, placed.by), (name("two"), PlacedBy::Peer));
}

/// Peers that know nothing, and after whose answer the asking process stands still.
struct StandsStill(Arc<AtomicU64>);

impl Spread for StandsStill {
    fn broadcast(&self, _gossip: Gossip) {}

    fn ask_peers(&self, _room: RoomKey, _within: Duration) -> BoxFuture<'_, PeersAnswer> {
        Box::pin(async move {
            self.0.fetch_add(10_000, Ordering::Relaxed);
            PeersAnswer { pin: None, complete: true }
        })
    }
}

#[tokio::test]
async fn what_the_peers_said_before_a_stand_still_is_not_told_to_a_young_store() {
    let store = Arc::new(ScriptedStore::new(Script { young: true, ..Script::default() }));
    let view = watch::Sender::new(ClusterView { token: TOKEN, quorum: Quorum::Known });
    let stood = Arc::new(AtomicU64::new(0));
    let runtime = Arc::new(Standing { begun: Instant::now(), stood: Arc::clone(&stood) });
    let peers = Arc::new(StandsStill(stood));
    let sessions = Sessions::start_on(runtime, options(), Arc::clone(&store) as _, peers, view.subscribe());
    let placed = sessions.place(room(1), name("one"), None).await.unwrap();
    assert_eq!((placed.upstream, placed.by), (name("one"), PlacedBy::Proposal));
    let requests = store.requests();
    assert!(!requests.is_empty(), "it was asked before");
    assert!(requests.iter().all(|request| !request.peers_asked), "{requests:?}");
}
