//! What a real Redis goes through: restarts, loss of data, a change of role, standing still, loading. Normal events.

use crate::redis_server::{InRedis, RedisServer, config};
use crate::{ROOM_TTL, eventually, name, room, status, up, wish};
use rustix::process::Signal;
use std::time::Duration;
use tokio::time::Instant;
use twinsite_model::Token;
use twinsite_sessions::{
    Pin, PinUpdate, PlaceRequest, Placement, RedisStore, Store, StoreError, StoreStatus, Why,
};

const TOKEN: Token = Token::new(1, 7);

/// The token that the server has seen, as it is stored.
async fn stored_token(server: &RedisServer) -> Option<String> {
    server.ask(&["HGET", "twinsite:{meet}:token", "token"]).await
}

async fn down(store: &dyn Store) -> Why {
    match status(store, |status| !status.is_up()).await {
        StoreStatus::Down { why, .. } => why,
        StoreStatus::Up { .. } => unreachable!("it was waited for"),
    }
}

async fn place(store: &dyn Store, request: PlaceRequest) -> Pin {
    match store.place(request).await {
        Ok(Placement::At { pin, .. }) => pin,
        other => panic!("{other:?}"),
    }
}

fn life(store: &dyn Store) -> u64 {
    *store.lives().unwrap().borrow()
}

#[tokio::test]
async fn after_a_kill_and_a_restart_the_store_comes_back_and_says_that_it_may_have_forgotten() {
    let Some(mut server) = RedisServer::start(&[]).await else { return };
    let store = RedisStore::start(config(&server.url(), None));
    store.assert_token(TOKEN);
    up(&store).await;
    place(&store, wish(1, "one", TOKEN)).await;
    let before = life(&store);

    server.kill();
    assert!(matches!(down(&store).await, Why::Closed | Why::Refused));
    let begun = Instant::now();
    assert!(matches!(store.place(wish(2, "one", TOKEN)).await, Err(StoreError::Away(_))));
    assert!(begun.elapsed() < Duration::from_secs(1), "nobody waits for it: {:?}", begun.elapsed());

    server.start_again(&[]).await;
    up(&store).await;
    assert!(life(&store) > before);
    assert!(stored_token(&server).await.is_some(), "asserted before anyone can write");
    let stale = store.place(wish(3, "one", Token::new(1, 6))).await;
    assert!(matches!(stale, Ok(Placement::Stale { seen, .. }) if seen == TOKEN), "{stale:?}");
    // It lost everything, and does not invent places before the nodes were asked.
    let unasked = PlaceRequest { peers_asked: false, ..wish(1, "two", TOKEN) };
    assert_eq!(store.place(unasked).await, Ok(Placement::AskPeersFirst));
}

#[tokio::test]
async fn an_emptied_store_is_noticed_and_takes_live_pins_back_unchanged() {
    let Some(server) = RedisServer::start(&[]).await else { return };
    let bench = InRedis::start(&server).await;
    let store = &bench.store;
    store.assert_token(TOKEN);
    let live = place(store, wish(1, "one", TOKEN)).await;
    let before = life(store);
    let _: String = server.ask(&["FLUSHALL"]).await;
    eventually("a new life", async || (life(store) > before).then_some(())).await;
    eventually("the token", async || stored_token(&server).await).await;

    let unasked = PlaceRequest { peers_asked: false, ..wish(1, "two", TOKEN) };
    assert_eq!(store.place(unasked).await, Ok(Placement::AskPeersFirst));
    let back = PinUpdate { room: room(1), pin: live.clone() };
    assert_eq!(store.keep(vec![back], TOKEN, ROOM_TTL).await, Ok(vec![live.clone()]));
    assert_eq!(store.get(room(1)).await, Ok(Some(live)));
}

#[tokio::test]
async fn a_store_that_became_a_replica_is_away_until_it_is_the_primary_again() {
    let Some(first) = RedisServer::start(&[]).await else { return };
    let Some(other) = RedisServer::start(&[]).await else { return };
    let bench = InRedis::start(&first).await;
    place(&bench.store, wish(1, "one", TOKEN)).await;

    let _: String = first.ask(&["REPLICAOF", "127.0.0.1", &other.port.to_string()]).await;
    let refused =
        eventually("a refusal", async || bench.store.place(wish(2, "one", TOKEN)).await.err()).await;
    assert!(matches!(refused, StoreError::Away(_)) && refused.retryable(), "{refused}");
    let read_only = |status: &StoreStatus| matches!(status, StoreStatus::Down { why: Why::ReadOnly, .. });
    status(&bench.store, read_only).await;

    let _: String = first.ask(&["REPLICAOF", "NO", "ONE"]).await;
    up(&bench.store).await;
    let placed = eventually("a place", async || match bench.store.place(wish(2, "two", TOKEN)).await {
        Ok(Placement::At { pin, .. }) => Some(pin),
        _ => None,
    });
    assert_eq!(placed.await.upstream, name("two"), "nothing was written while it was a replica");
}

#[tokio::test]
async fn a_store_that_stands_still_costs_a_bounded_time_and_does_nothing_late() {
    let Some(server) = RedisServer::start(&[]).await else { return };
    let config = config(&server.url(), None);
    let limit = config.response_timeout;
    let store = RedisStore::start(config);
    up(&store).await;
    place(&store, wish(1, "one", TOKEN)).await;

    server.signal(Signal::STOP);
    let begun = Instant::now();
    let answer = store.place(wish(2, "one", TOKEN)).await;
    assert!(matches!(answer, Err(StoreError::Away(Why::ResponseTimeout))), "{answer:?}");
    assert!(begun.elapsed() < limit * 4, "{:?}", begun.elapsed());
    assert_eq!(down(&store).await, Why::ResponseTimeout);
    let begun = Instant::now();
    assert!(store.place(wish(3, "one", TOKEN)).await.is_err());
    assert!(begun.elapsed() < limit, "known to be away: {:?}", begun.elapsed());
    // Long past the time that the command may have taken.
    tokio::time::sleep(limit).await;

    server.signal(Signal::CONT);
    up(&store).await;
    assert_eq!(store.get(room(2)).await, Ok(None), "the command that lay in its buffers came too late");
    assert_eq!(store.get(room(1)).await.unwrap().unwrap().upstream, name("one"));
}

#[tokio::test]
async fn a_store_that_is_loading_is_away_until_it_has_loaded() {
    let Some(mut server) = RedisServer::start(&[]).await else { return };
    let store = RedisStore::start(config(&server.url(), None));
    up(&store).await;
    place(&store, wish(1, "one", TOKEN)).await;
    let fill = "for i = 1, 3000 do redis.call('SET', 'filler' .. i, string.rep('x', 100)) end return 'OK'";
    let _: String = server.ask(&["EVAL", fill, "0"]).await;
    let _: String = server.ask(&["SAVE"]).await;

    server.kill();
    // A millisecond for each key, and an ear for clients in between.
    server
        .start_again(&["--key-load-delay", "1000", "--loading-process-events-interval-bytes", "1024"])
        .await;
    let loading = |status: &StoreStatus| matches!(status, StoreStatus::Down { why: Why::Loading, .. });
    status(&store, loading).await;
    up(&store).await;
    assert_eq!(store.get(room(1)).await.unwrap().unwrap().upstream, name("one"));
}

#[tokio::test]
async fn a_store_whose_memory_is_full_refuses_and_takes_writes_again() {
    let Some(server) = RedisServer::start(&[]).await else { return };
    let bench = InRedis::start(&server).await;
    let _: String = server.ask(&["CONFIG", "SET", "maxmemory", "1"]).await;
    let refusing = |status: &StoreStatus| matches!(status, StoreStatus::Down { why: Why::Refusing, .. });
    status(&bench.store, refusing).await;
    let _: String = server.ask(&["CONFIG", "SET", "maxmemory", "0"]).await;
    up(&bench.store).await;
    place(&bench.store, wish(1, "one", TOKEN)).await;
}

#[tokio::test]
async fn a_rooms_life_is_lengthened_and_never_shortened() {
    let Some(server) = RedisServer::start(&[]).await else { return };
    let bench = InRedis::start(&server).await;
    let store = &bench.store;
    let (short, long) = (Duration::from_mins(2), ROOM_TTL / 2);
    let left = async || {
        let key = format!("twinsite:{{meet}}:pin:{}", room(1));
        Duration::from_millis(server.ask(&["PTTL", &key]).await)
    };
    let new = PlaceRequest { ttl: short, ..wish(1, "one", TOKEN) };
    let pin = place(store, new.clone()).await;
    assert!(left().await <= short);
    let update = PinUpdate { room: room(1), pin };
    store.keep(vec![update.clone()], TOKEN, ROOM_TTL).await.unwrap();
    assert!(left().await > long);
    store.keep(vec![update], TOKEN, short).await.unwrap();
    place(store, new.clone()).await;
    assert!(left().await > long, "{:?}", left().await);
    place(store, PlaceRequest { replace: Some(name("one")), proposal: name("two"), ..new }).await;
    assert!(left().await > long, "{:?}", left().await);
}

#[tokio::test]
async fn what_others_wrote_under_our_keys_harms_nobody() {
    let Some(server) = RedisServer::start(&[]).await else { return };
    let bench = InRedis::start(&server).await;
    let key = |number| format!("twinsite:{{meet}}:pin:{}", room(number));
    let _: String = server.ask(&["SET", &key(1), "nonsense"]).await;
    let _: String = server.ask(&["SET", "twinsite:{meet}:pin:no-room", "1 1.1 one"]).await;
    assert_eq!(bench.store.get(room(1)).await, Ok(None));
    assert_eq!(bench.store.load(twinsite_sessions::LoadCursor::default()).await.unwrap().pins, []);
    assert_eq!(place(&bench.store, wish(1, "one", TOKEN)).await.upstream, name("one"));
    let _: i64 = server.ask(&["LPUSH", &key(2), "a list"]).await;
    assert!(bench.store.place(wish(2, "one", TOKEN)).await.is_err());
    assert_eq!(place(&bench.store, wish(3, "one", TOKEN)).await.upstream, name("one"));
}
