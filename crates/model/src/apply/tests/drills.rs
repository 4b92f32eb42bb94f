//! Drills: what keeps one from beginning, what ends one, and that nothing else cares.

use super::super::DrillBlock;
use super::{
    Cluster, Command, Effect, Event, Format, Incarnation, NodeId, OperationKind, Refusal, Step, WallTime,
    finish, ip, life, samples,
};
use crate::drill::{DRILL_LENGTH_MAX, DRILL_TEXT_BYTES_MAX, DRILLS_MAX, DrillOutcome, SUMMARY_BYTES_MAX};
use crate::ids::DrillId;
use crate::spec::{ClusterSpec, HumanDuration};
use std::sync::Arc;
use std::time::Duration;

const MINUTE: Duration = Duration::from_mins(1);

/// A cluster that knows drills.
fn cluster() -> Cluster {
    let mut cluster = Cluster::new();
    cluster.state.format = Format::DRILLS;
    cluster
}

fn begin(cluster: &Cluster, within: Duration) -> Command {
    Command::BeginDrill {
        name: "switchover-and-back".to_owned(),
        by: "operator anna".to_owned(),
        runner: NodeId(3),
        incarnation: Incarnation(30),
        // The next proposal comes 10 ms later.
        until: WallTime(cluster.wall + 10).plus(within),
    }
}

fn begun(cluster: &mut Cluster) -> DrillId {
    let command = begin(cluster, MINUTE);
    cluster.done(command);
    cluster.state.drill.as_ref().unwrap().id
}

fn end(drill: DrillId) -> Command {
    Command::EndDrill { drill, outcome: DrillOutcome::Passed, summary: "{}".to_owned() }
}

fn blocked(cluster: &mut Cluster, within: Duration) -> DrillBlock {
    let command = begin(cluster, within);
    match cluster.propose(command).result {
        Err(Refusal::DrillBlocked(why)) => why,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_drill_begins_is_stopped_and_ends() {
    let mut cluster = cluster();
    let command = begin(&cluster, MINUTE);
    let events = cluster.done(command);
    let drill = DrillId(cluster.index);
    let running = cluster.state.drill.clone().unwrap();
    assert_eq!((running.id, running.by.as_str(), running.runner), (drill, "operator anna", NodeId(3)));
    assert!(matches!(&events[..], [Event::DrillBegan { drill: began, .. }] if *began == drill));

    let stop = Command::StopDrill { drill, reason: "a big meeting".to_owned() };
    let events = cluster.done(stop.clone());
    assert!(matches!(&events[..], [Event::DrillStopped { reason, .. }] if reason == "a big meeting"));
    cluster.unchanged(stop);
    assert_eq!(cluster.state.drill.as_ref().unwrap().stop.as_ref().unwrap().by, "controller");

    let events = cluster.done(end(drill));
    let name = "switchover-and-back".to_owned();
    assert_eq!(events, [Event::DrillEnded { drill, name, outcome: DrillOutcome::Passed }]);
    assert_eq!(cluster.state.drill, None);
    let record = cluster.state.drills.back().unwrap();
    assert_eq!((record.id, record.since, record.ended), (drill, running.since, cluster.state.wall));
    cluster.refused(end(drill), &Refusal::NoSuchDrill(drill));
    cluster.refused(Command::StopDrill { drill, reason: String::new() }, &Refusal::NoSuchDrill(drill));
}

#[test]
fn one_at_a_time_by_a_node_that_lives() {
    let mut cluster = cluster();
    let drill = begun(&mut cluster);
    let second = begin(&cluster, MINUTE);
    cluster.refused(second, &Refusal::DrillRunning(drill));
    cluster.done(end(drill));
    cluster.done(Command::RecordLife {
        node: NodeId(3),
        incarnation: Incarnation(31),
        format_max: Format::DRILLS,
        version: String::new(),
    });
    let late = begin(&cluster, MINUTE);
    cluster.refused(late, &Refusal::UnknownNode(NodeId(3)));
}

#[test]
fn no_drill_begins_while_something_moves_and_a_drill_keeps_nothing_from_moving() {
    let mut cluster = cluster();
    let operation = cluster.begin(OperationKind::Placement, 1);
    assert_eq!(blocked(&mut cluster, MINUTE), DrillBlock::Moving(operation));
    let mut cluster = self::cluster();
    cluster.move_to(OperationKind::Placement, 1);
    let drill = begun(&mut cluster);
    // A real failure in the middle of it.
    cluster.move_to(OperationKind::Failover, 3);
    assert_eq!(cluster.state.drill.as_ref().map(|running| running.id), Some(drill));
    let operation = cluster.begin(OperationKind::Switchover, 1);
    cluster.done(finish(operation, Step::Drain));
    cluster.done(end(drill));
    assert!(cluster.state.floating_ips[&ip()].operation.is_some(), "its end calls nothing off");
}

#[test]
fn no_drill_begins_while_somebody_has_paused() {
    let mut cluster = cluster();
    let until = WallTime(cluster.wall).plus(MINUTE);
    cluster.done(Command::Pause { until, reason: "a kernel update".to_owned() });
    assert_eq!(blocked(&mut cluster, MINUTE), DrillBlock::Paused("controller".to_owned()));
    // One that is over, and whose end nobody has noted yet, is in nobody's way.
    cluster.wall = until.0;
    begun(&mut cluster);
}

#[test]
fn a_drill_lasts_two_hours_at_most() {
    let mut cluster = cluster();
    for length in [Duration::ZERO, DRILL_LENGTH_MAX + Duration::from_millis(1), Duration::from_hours(90)] {
        assert_eq!(blocked(&mut cluster, length), DrillBlock::Length(HumanDuration(length)));
    }
    let longest = begin(&cluster, DRILL_LENGTH_MAX);
    cluster.done(longest);
}

#[test]
fn the_specification_says_when_drills_are_wanted() {
    let mut cluster = cluster();
    let apply = |cluster: &mut Cluster, change: &dyn Fn(&mut ClusterSpec)| {
        let mut spec = samples::spec_with_windows();
        change(&mut spec);
        cluster.done(Command::ApplySpec { spec: Arc::new(spec) });
    };
    apply(&mut cluster, &|spec| spec.drills.allowed = false);
    assert_eq!(blocked(&mut cluster, MINUTE), DrillBlock::NotAllowed);
    apply(&mut cluster, &|_| {});
    // Monday, the fifth of January 1970, 07:30.
    cluster.wall = (4 * 24 * 60 + 7 * 60 + 30) * 60_000;
    let why = blocked(&mut cluster, 31 * MINUTE);
    assert!(matches!(why, DrillBlock::Window(..)), "it would reach into the window: {why}");
    assert!(why.to_string().contains("mon,tue 08:00-18:00 UTC"), "{why}");
    let drill = begun(&mut cluster);
    // A window that begins in the middle of one does not end it.
    cluster.wall += 60 * 60_000;
    cluster.done(end(drill));
}

#[test]
fn long_texts_are_refused() {
    let mut cluster = cluster();
    let long = "x".repeat(DRILL_TEXT_BYTES_MAX + 1);
    let Command::BeginDrill { name, by, runner, incarnation, until } = begin(&cluster, MINUTE) else {
        unreachable!()
    };
    for (name, by) in [(long.clone(), by), (name, long.clone())] {
        let command = Command::BeginDrill { name, by, runner, incarnation, until };
        let refused = cluster.propose(command).result;
        assert!(matches!(refused, Err(Refusal::DrillTextTooLong { .. })), "{refused:?}");
    }
    let drill = begun(&mut cluster);
    let refused = cluster.propose(Command::StopDrill { drill, reason: long }).result;
    assert!(matches!(refused, Err(Refusal::DrillTextTooLong { .. })), "{refused:?}");
    let summary = "x".repeat(SUMMARY_BYTES_MAX + 1);
    let refused = cluster.propose(Command::EndDrill { drill, outcome: DrillOutcome::Failed, summary }).result;
    assert!(matches!(refused, Err(Refusal::DrillTextTooLong { .. })), "{refused:?}");
    assert!(cluster.state.drill.is_some());
}

#[test]
fn the_history_is_bounded() {
    let mut cluster = cluster();
    for _ in 0..DRILLS_MAX + 3 {
        let drill = begun(&mut cluster);
        cluster.done(end(drill));
    }
    assert_eq!(cluster.state.drills.len(), DRILLS_MAX);
    assert!(cluster.state.drills.iter().is_sorted_by_key(|record| record.id));
}

#[test]
fn an_older_format_knows_no_drills() {
    let mut cluster = Cluster::new();
    let command = begin(&cluster, MINUTE);
    cluster.refused(command, &Refusal::FormatTooNew(Format::DRILLS));
    let with_windows = Command::ApplySpec { spec: Arc::new(samples::spec_with_windows()) };
    cluster.refused(with_windows.clone(), &Refusal::FormatTooNew(Format::DRILLS));
    // A new cluster has no format that could be raised before it has a specification.
    let mut new = Cluster { state: crate::State::default(), index: 0, wall: 0 };
    new.done(with_windows);
    assert_eq!(new.propose(life(1, 10)).result, Ok(Effect::Done));
}
