//! What both stores promise.

use crate::embedded::Embedded;
use crate::redis_server::{InRedis, RedisServer};
use crate::{ROOM_TTL, eventually, name, room, wish};
use std::collections::BTreeSet;
use twinsite_model::Token;
use twinsite_sessions::{LoadCursor, Pin, PinUpdate, PlaceRequest, Placement, Store, StoreError};

/// A store, and a way to do to it what happens to it in the world.
pub(crate) trait StoreUnderTest {
    fn store(&self) -> &dyn Store;

    /// A newer token, which writers have from now on. The store need not have seen it yet.
    fn raise(&mut self) -> Token;

    /// Makes the store forget everything; says whether it can.
    async fn forget(&mut self) -> bool;
}

/// Runs one check against both stores, as two tests.
macro_rules! both {
    ($($check:ident),* $(,)?) => {
        mod in_the_replicated_state {
            use super::*;
            $(#[tokio::test]
            async fn $check() {
                super::$check(&mut Embedded::start()).await;
            })*
        }
        mod in_redis {
            use super::*;
            $(#[tokio::test]
            async fn $check() {
                let Some(server) = RedisServer::start(&[]).await else { return };
                super::$check(&mut InRedis::start(&server).await).await;
            })*
        }
    };
}

both!(
    the_first_place_stands_until_it_is_replaced,
    of_many_at_once_one_chooses,
    a_stale_writer_writes_nothing,
    the_highest_token_is_kept,
    the_token_is_raised_again_in_a_store_that_forgot,
    what_is_kept_is_there_and_what_is_there_stays,
    a_place_given_up_without_the_store_is_written_when_it_answers,
    a_walk_finds_every_room,
);

async fn place(store: &dyn Store, request: PlaceRequest) -> (Pin, bool) {
    match store.place(request).await {
        Ok(Placement::At { pin, new }) => (pin, new),
        other => panic!("{other:?}"),
    }
}

async fn the_first_place_stands_until_it_is_replaced(bench: &mut impl StoreUnderTest) {
    let token = bench.raise();
    let store = bench.store();
    assert_eq!(store.get(room(1)).await, Ok(None));
    let (first, new) = place(store, wish(1, "one", token)).await;
    assert_eq!((&first.upstream, first.token, new), (&name("one"), token, true));
    let (again, new) = place(store, wish(1, "two", token)).await;
    assert_eq!((again.upstream, new), (name("one"), false), "set if absent");
    assert_eq!(store.get(room(1)).await.unwrap().unwrap().upstream, name("one"));

    let elsewhere = PlaceRequest { replace: Some(name("two")), ..wish(1, "three", token) };
    assert_eq!(place(store, elsewhere).await.0.upstream, name("one"), "it is not where it may be moved from");
    let moved = PlaceRequest { replace: Some(name("one")), ..wish(1, "two", token) };
    let (second, new) = place(store, moved).await;
    assert_eq!((&second.upstream, new), (&name("two"), true));
    assert!(second.outranks(&first), "{second} after {first}");
}

async fn of_many_at_once_one_chooses(bench: &mut impl StoreUnderTest) {
    let token = bench.raise();
    let store = bench.store();
    let proposals = ["one", "two", "three"].into_iter().cycle().take(48);
    let all: Vec<_> = proposals.map(|proposal| store.place(wish(1, proposal, token))).collect();
    let all = futures_util::future::join_all(all).await;
    let mut places = BTreeSet::new();
    let mut chosen = 0;
    for answer in all {
        let Ok(Placement::At { pin, new }) = answer else { panic!("{answer:?}") };
        places.insert(pin.upstream);
        chosen += usize::from(new);
    }
    assert_eq!((places.len(), chosen), (1, 1), "{places:?}");
}

async fn a_stale_writer_writes_nothing(bench: &mut impl StoreUnderTest) {
    let old = bench.raise();
    place(bench.store(), wish(1, "one", old)).await;
    let newer = bench.raise();
    let store = bench.store();
    place(store, wish(2, "one", newer)).await;

    match store.place(wish(3, "one", old)).await {
        Ok(Placement::Stale { seen, known: None }) => assert_eq!(seen, newer),
        other => panic!("{other:?}"),
    }
    let replace = PlaceRequest { replace: Some(name("one")), ..wish(1, "two", old) };
    match store.place(replace).await {
        Ok(Placement::Stale { seen, known: Some(pin) }) => {
            assert_eq!((seen, pin.upstream), (newer, name("one")), "reading needs no token");
        }
        other => panic!("{other:?}"),
    }
    let pin = Pin { upstream: name("two"), version: 1, token: old };
    let kept = store.keep(vec![PinUpdate { room: room(3), pin }], old, ROOM_TTL).await;
    assert_eq!(kept, Err(StoreError::Stale { seen: newer }));
    assert_eq!(store.get(room(3)).await, Ok(None));
    assert_eq!(store.get(room(1)).await.unwrap().unwrap().upstream, name("one"));
}

async fn the_highest_token_is_kept(bench: &mut impl StoreUnderTest) {
    let tokens = [bench.raise(), bench.raise(), bench.raise()];
    let store = bench.store();
    place(store, wish(1, "one", tokens[2])).await;
    for (older, number) in tokens.iter().zip(2..).take(2) {
        match store.place(wish(number, "one", *older)).await {
            Ok(Placement::Stale { seen, .. }) => assert_eq!(seen, tokens[2], "never lowered"),
            other => panic!("{other:?}"),
        }
    }
    place(store, wish(4, "one", tokens[2])).await;
}

async fn the_token_is_raised_again_in_a_store_that_forgot(bench: &mut impl StoreUnderTest) {
    let old = bench.raise();
    let newest = bench.raise();
    bench.store().assert_token(newest);
    place(bench.store(), wish(1, "one", newest)).await;
    let forgot = bench.forget().await;
    assert_eq!(forgot, bench.store().lives().is_some(), "it says that it never forgets");
    let store = bench.store();
    // Nobody writes under the newest token meanwhile: it is raised all the same.
    let mut number = 10;
    let seen = eventually("a stale writer is refused", async || {
        number += 1;
        match store.place(wish(number, "one", old)).await {
            Ok(Placement::Stale { seen, .. }) => Some(seen),
            _ => None,
        }
    })
    .await;
    assert_eq!(seen, newest);
    place(store, wish(2, "two", newest)).await;
}

async fn what_is_kept_is_there_and_what_is_there_stays(bench: &mut impl StoreUnderTest) {
    let token = bench.raise();
    let store = bench.store();
    let (placed, _) = place(store, wish(1, "one", token)).await;
    // Decided without the store: it ranks below whatever the store has.
    let guessed =
        |number| PinUpdate { room: room(number), pin: Pin { upstream: name("two"), version: 1, token } };
    let kept = store.keep(vec![guessed(1), guessed(2)], token, ROOM_TTL).await.unwrap();
    let places: Vec<_> = kept.iter().map(|pin| pin.upstream.clone()).collect();
    assert_eq!(places, [name("one"), name("two")]);
    assert!(!placed.outranks(&kept[0]), "{placed} before {}", kept[0]);
    assert_eq!(store.get(room(1)).await.unwrap().unwrap().upstream, name("one"));
    assert_eq!(store.get(room(2)).await.unwrap().unwrap().upstream, name("two"));
}

/// The store was too slow to be asked when the room's instance had died. When it answers again the room must not go back to
/// where it was, however much else has happened there since.
async fn a_place_given_up_without_the_store_is_written_when_it_answers(bench: &mut impl StoreUnderTest) {
    let token = bench.raise();
    let store = bench.store();
    let (first, _) = place(store, wish(1, "one", token)).await;
    let given_up = Pin { upstream: name("two"), version: first.version + 1, token };
    let elsewhere = PinUpdate { room: room(1), pin: given_up.clone() };
    for number in 2..10 {
        place(store, wish(number, "one", token)).await;
    }
    assert!(!store.get(room(1)).await.unwrap().unwrap().outranks(&given_up), "older knowledge seen later");

    let kept = store.keep(vec![elsewhere.clone()], token, ROOM_TTL).await.unwrap();
    assert_eq!(kept[0].upstream, name("two"));
    assert!(!given_up.outranks(&kept[0]));
    assert_eq!(store.get(room(1)).await.unwrap().unwrap().upstream, name("two"));

    let moved = PlaceRequest { replace: Some(name("two")), ..wish(1, "three", token) };
    place(store, moved).await;
    let kept = store.keep(vec![elsewhere], token, ROOM_TTL).await.unwrap();
    assert_eq!(kept[0].upstream, name("three"), "what was agreed since stays");
}

async fn a_walk_finds_every_room(bench: &mut impl StoreUnderTest) {
    let token = bench.raise();
    let store = bench.store();
    for number in 1..=100 {
        place(store, wish(number, "one", token)).await;
    }
    let mut found = BTreeSet::new();
    let mut from = LoadCursor::default();
    loop {
        let loaded = store.load(from).await.unwrap();
        for PinUpdate { room, pin } in loaded.pins {
            assert_eq!(pin.upstream, name("one"));
            found.insert(room);
        }
        let Some(next) = loaded.next else { break };
        assert_ne!(next, from, "it goes on");
        from = next;
    }
    assert_eq!(found, (1..=100).map(room).collect());
}
