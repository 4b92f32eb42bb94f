//! Rooms in the embedded store.

use super::{Cluster, Command, Effect, Event, OperationKind, Refusal, Token, WallTime};
use crate::ids::RoomKey;
use crate::samples::upstream;
use crate::state::{EMBEDDED_PINS_MAX, Format, Pin};

const ROOM: RoomKey = RoomKey([1; 16]);

fn pin(room: RoomKey, to: &str, replace: Option<&str>, token: Token) -> Command {
    Command::PinRoom { room, upstream: upstream(to), replace: replace.map(upstream), token }
}

#[track_caller]
fn place(cluster: &mut Cluster, command: Command) -> Pin {
    match cluster.propose(command).result {
        Ok(Effect::Placed(pin)) => pin,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_first_place_of_a_room_wins() {
    let mut cluster = Cluster::new();
    let token = cluster.state.session_token();
    let events = cluster.done(pin(ROOM, "gra-meet-1", None, token));
    assert_eq!(events, [Event::RoomPinned { room: ROOM, upstream: upstream("gra-meet-1"), token }]);
    let before = cluster.state.clone();
    let second = place(&mut cluster, pin(ROOM, "sbg-meet-1", None, token));
    assert_eq!(second.upstream, upstream("gra-meet-1"));
    assert_eq!(cluster.state.revision, before.revision, "asking changes nothing");
    assert_eq!(cluster.state.sessions, before.sessions);
}

#[test]
fn a_place_is_replaced_only_by_who_knows_it() {
    let mut cluster = Cluster::new();
    let token = cluster.state.session_token();
    place(&mut cluster, pin(ROOM, "gra-meet-1", None, token));
    let wrong = place(&mut cluster, pin(ROOM, "sbg-meet-1", Some("gra-meet-2"), token));
    assert_eq!(wrong.upstream, upstream("gra-meet-1"));
    let right = place(&mut cluster, pin(ROOM, "sbg-meet-1", Some("gra-meet-1"), token));
    assert_eq!(right.upstream, upstream("sbg-meet-1"));
    let unknown = upstream("nope");
    cluster.refused(pin(ROOM, "nope", None, token), &Refusal::UnknownUpstream(unknown));
}

/// By it a node tells what was agreed from what it decided by itself meanwhile.
#[test]
fn a_room_remembers_the_revision_that_placed_it_there() {
    let mut cluster = Cluster::new();
    let token = cluster.state.session_token();
    let early = place(&mut cluster, pin(ROOM, "gra-meet-1", None, token));
    assert_eq!(early.placed, None, "an older program could not say so");
    cluster.state.format = Format::PLACES;
    let same = place(&mut cluster, pin(ROOM, "gra-meet-2", None, token));
    assert_eq!(same.placed, None);
    let moved = place(&mut cluster, pin(ROOM, "gra-meet-2", Some("gra-meet-1"), token));
    assert_eq!(moved.placed, Some(cluster.state.revision));
    cluster.done(Command::TouchRooms { rooms: vec![ROOM], token });
    assert_eq!(cluster.state.sessions.pins[&ROOM].placed, moved.placed, "confirmed where it is");
}

#[test]
fn a_writer_that_missed_a_change_of_owner_is_refused() {
    let mut cluster = Cluster::new();
    let given = cluster.state.session_token();
    place(&mut cluster, pin(ROOM, "gra-meet-1", None, given));
    cluster.move_to(OperationKind::Placement, 1);
    let seen = cluster.state.session_token();
    let stale = Refusal::StaleToken { given, seen };
    cluster.refused(pin(ROOM, "sbg-meet-1", Some("gra-meet-1"), given), &stale);
    cluster.refused(pin(RoomKey([2; 16]), "sbg-meet-1", None, given), &stale);
    cluster.refused(Command::TouchRooms { rooms: vec![ROOM], token: given }, &stale);
    cluster.done(Command::TouchRooms { rooms: vec![ROOM], token: seen });
    assert_eq!(cluster.state.sessions.token, seen);
}

/// A token that nobody has given out yet must not lock out those who hold the newest real one.
#[test]
fn a_token_from_the_future_is_not_kept() {
    let mut cluster = Cluster::new();
    let real = cluster.state.session_token();
    place(&mut cluster, pin(ROOM, "gra-meet-1", None, Token::new(9, 9)));
    assert_eq!(cluster.state.sessions.token, real);
    place(&mut cluster, pin(RoomKey([2; 16]), "gra-meet-1", None, real));
}

#[test]
fn rooms_that_nobody_uses_expire() {
    let mut cluster = Cluster::new();
    let token = cluster.state.session_token();
    let other = RoomKey([2; 16]);
    place(&mut cluster, pin(ROOM, "gra-meet-1", None, token));
    place(&mut cluster, pin(other, "gra-meet-2", None, token));
    cluster.done(Command::TouchRooms { rooms: vec![other, RoomKey([3; 16])], token });
    let touched = cluster.state.sessions.pins[&other].touched;
    assert_eq!(touched, WallTime(cluster.wall));
    cluster.unchanged(Command::TouchRooms { rooms: vec![RoomKey([3; 16])], token });
    let events = cluster.done(Command::ExpireRooms { before: touched });
    assert_eq!(events, [Event::RoomsExpired { count: 1 }]);
    assert!(cluster.state.sessions.pins.keys().eq([&other]));
    cluster.unchanged(Command::ExpireRooms { before: touched });
}

#[test]
fn the_store_is_bounded() {
    let mut cluster = Cluster::new();
    let token = cluster.state.session_token();
    let room = |n: usize| {
        let mut key = [0; 16];
        key[..8].copy_from_slice(&(n as u64).to_be_bytes());
        RoomKey(key)
    };
    for n in 0..EMBEDDED_PINS_MAX {
        place(&mut cluster, pin(room(n), "gra-meet-1", None, token));
    }
    let full = pin(room(EMBEDDED_PINS_MAX), "gra-meet-1", None, token);
    assert_eq!(cluster.propose(full).result, Err(Refusal::SessionsFull));
    let replaced = place(&mut cluster, pin(room(0), "gra-meet-2", Some("gra-meet-1"), token));
    assert_eq!(replaced.upstream, upstream("gra-meet-2"), "a room that has a place may still change it");
}
