use super::*;
use crate::measure::hosts::Share;
use crate::measure::{Answer, Identity, Kind};
use std::time::Instant;
use twinsite_model::{Incarnation, NodeId, Owner, Revision, WallTime};

fn answer(at: Instant, node: &str, epoch: u64) -> Answer {
    Answer {
        kind: Kind::NewConnection,
        sent: Some(at),
        received: at,
        identity: Some(Identity { node: node.parse().unwrap(), token: Some(Token::new(1, epoch)) }),
        floating: true,
    }
}

fn owner_changed(epoch: u64) -> WatchItem {
    let owner = Owner {
        node: NodeId(1),
        incarnation: Incarnation(1),
        token: Token::new(1, epoch),
        since: WallTime(0),
        revoked: false,
    };
    let event = Event::OwnerChanged { ip: "public".parse().unwrap(), owner };
    WatchItem { revision: Revision(epoch), at: WallTime(0), event }
}

#[test]
fn a_clean_run_is_clean() {
    let start = Instant::now();
    let recording = Recording { answers: vec![answer(start, "gra-1", 1)], ..Recording::default() };
    let writes = [Token::new(1, 1), Token::new(1, 1), Token::new(1, 2), Token::new(2, 1)];
    let found = audit(&recording, &[owner_changed(1), owner_changed(2)], &writes, &[], start);
    assert_eq!(found, Audit::clean());
    assert_eq!(found.broken(), Vec::<String>::new());
}

#[test]
fn stale_writes_and_shrinking_tokens_are_found() {
    let start = Instant::now();
    let recording = Recording { answers: vec![answer(start, "gra-1", 1)], ..Recording::default() };
    let writes = [Token::new(1, 2), Token::new(1, 1), Token::new(1, 2)];
    let found = audit(&recording, &[owner_changed(2), owner_changed(2)], &writes, &[], start);
    assert_eq!((found.stale_epoch_writes, found.epochs_monotonic), (1, false));
    assert_eq!(found.broken().len(), 2);
}

#[test]
fn a_broken_fence_is_found() {
    let start = Instant::now();
    let later = |ms| start + Duration::from_millis(ms);
    let answers =
        vec![answer(start, "gra-1", 1), answer(later(300), "sbg-1", 2), answer(later(340), "gra-1", 1)];
    let found = audit(&Recording { answers, ..Recording::default() }, &[], &[], &[], start);
    assert_eq!(found.dual_answer_ms, 40);
    assert!(found.evidence[0].starts_with("+340 ms: gra-1 answered under 1.1"), "{:?}", found.evidence);
}

#[test]
fn what_cannot_be_proven_is_not_passed_over() {
    let found = audit(&Recording::default(), &[], &[], &[], Instant::now());
    assert_eq!(found.dual_answer_ms, 1);
    let start = Instant::now();
    let answers = vec![answer(start, "gra-1", 1)];
    let found = audit(&Recording { answers, overflow: true, ..Recording::default() }, &[], &[], &[], start);
    assert_eq!(found.dual_answer_ms, 1);
}

#[test]
fn audits_of_several_runs_add_up() {
    let mut total = Audit::clean();
    total.merge(Audit { split_rooms: 1, dual_answer_ms: 3, ..Audit::clean() });
    total.merge(Audit { split_rooms: 2, dual_answer_ms: 2, epochs_monotonic: false, ..Audit::clean() });
    assert_eq!((total.split_rooms, total.dual_answer_ms, total.epochs_monotonic), (3, 3, false));
}

#[test]
fn two_hosts_at_once_and_words_of_dark_ones_are_broken_and_so_is_what_is_not_proven() {
    let two = Share { longest: Duration::from_micros(300), total: Duration::from_micros(300) };
    let good = Answering::default();
    let seen = |answering: Answering| {
        let mut found = Audit::clean();
        found.take_hosts(&answering, Instant::now());
        (found.two_hosts_ms, found.dark_frames, found.broken().len())
    };
    assert_eq!(seen(good.clone()), (Some(0), Some(0), 0));
    assert_eq!(seen(Answering { two_hosts: two, ..good.clone() }), (Some(1), Some(0), 1));
    assert_eq!(seen(Answering { dark_frames: 2, ..good.clone() }), (Some(0), Some(2), 1));
    assert_eq!(seen(Answering { unproven: true, ..good }), (Some(1), Some(0), 1));
    let mut total = Audit::clean();
    total.merge(Audit { two_hosts_ms: Some(2), ..Audit::clean() });
    total.merge(Audit { two_hosts_ms: Some(0), dark_frames: Some(1), ..Audit::clean() });
    assert_eq!((total.two_hosts_ms, total.dark_frames), (Some(2), Some(1)));
}
