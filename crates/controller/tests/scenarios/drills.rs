//! Drills: when the leader lets one begin, how one ends that nobody ends, and that no decision looks at one.

use crate::cluster::{Cluster, GRA_1, SBG_1, SBG_2, WITNESS};
use std::time::Duration;
use twinsite_controller::{OperatorAction, OperatorAnswer, OperatorRefusal};
use twinsite_model::{Command, DrillOutcome, Incarnation, NodeId, Refusal};

const LENGTH: Duration = Duration::from_secs(20);

fn begin(cluster: &Cluster, runner: NodeId, within: Duration) -> OperatorAction {
    OperatorAction::BeginDrill {
        name: "switchover-and-back".to_owned(),
        person: "operator anna".to_owned(),
        runner,
        incarnation: cluster.state.nodes[&runner].incarnation,
        within,
    }
}

/// A cluster in which a drill runs on a node of the other site.
fn drilling() -> Cluster {
    let mut cluster = Cluster::new(|_| {});
    cluster.run(Duration::from_secs(2));
    let begun = cluster.ask(begin(&cluster, SBG_2, LENGTH));
    assert!(matches!(begun, Ok(OperatorAnswer::Done { .. })), "{begun:?}");
    cluster
}

fn last(cluster: &Cluster) -> (DrillOutcome, &str) {
    let record = cluster.state.drills.back().unwrap();
    (record.outcome, &record.summary)
}

#[test]
fn a_drill_is_begun_for_a_person_and_ended_by_its_runner() {
    let mut cluster = drilling();
    let running = cluster.state.drill.clone().unwrap();
    assert_eq!((running.by.as_str(), running.runner), ("operator anna", SBG_2));
    assert_eq!(running.until.since(running.since), LENGTH);
    let refused = cluster.ask(begin(&cluster, SBG_1, LENGTH)).unwrap_err();
    assert_eq!(refused, OperatorRefusal::Refused(Refusal::DrillRunning(running.id)));
    let summary = "{}".to_owned();
    let end = OperatorAction::EndDrill { drill: running.id, outcome: DrillOutcome::Passed, summary };
    assert!(cluster.ask(end).is_ok());
    assert_eq!(last(&cluster), (DrillOutcome::Passed, "{}"));
    assert_eq!(
        cluster.ask(OperatorAction::StopDrill { reason: String::new() }),
        Err(OperatorRefusal::NoDrill)
    );
}

#[test]
fn a_drill_that_nobody_ends_is_abandoned_when_its_time_is_over() {
    let mut cluster = drilling();
    cluster.run(Duration::from_secs(19));
    assert!(cluster.state.drill.is_some());
    cluster.run(Duration::from_secs(2));
    assert_eq!(last(&cluster), (DrillOutcome::Abandoned, ""));
    // The time of one that a former leader knew of is over too.
    let mut cluster = drilling();
    cluster.run(Duration::from_secs(5));
    cluster.elect();
    cluster.run(LENGTH);
    assert_eq!(last(&cluster).0, DrillOutcome::Abandoned);
}

#[test]
fn a_runner_that_lives_anew_knows_nothing_of_its_drill() {
    let mut cluster = drilling();
    cluster.lives(SBG_2, 4_001);
    cluster.run_until("it is abandoned", |cluster| cluster.state.drill.is_none());
    assert_eq!(last(&cluster).0, DrillOutcome::Abandoned);
}

#[test]
fn who_stops_a_drill_tells_its_runner_or_does_without_it() {
    let mut cluster = drilling();
    let stop = || OperatorAction::StopDrill { reason: "a big meeting".to_owned() };
    assert!(cluster.ask(stop()).is_ok());
    let running = cluster.state.drill.clone().unwrap();
    assert_eq!(
        running.stop.map(|stop| (stop.by, stop.reason)),
        Some(("anna".into(), "a big meeting".into()))
    );
    assert!(matches!(cluster.ask(stop()), Ok(OperatorAnswer::Unchanged { .. })));

    let mut cluster = drilling();
    cluster.silent.insert(SBG_2);
    cluster.run(Duration::from_secs(2));
    assert!(cluster.state.drill.is_some(), "silence alone ends no drill");
    assert!(cluster.ask(stop()).is_ok());
    assert_eq!(last(&cluster).0, DrillOutcome::Abandoned);
}

#[test]
fn no_drill_begins_in_a_cluster_that_is_not_well() {
    let mut cluster = Cluster::new(|_| {});
    cluster.run(Duration::from_secs(2));
    cluster.silent.insert(SBG_1);
    cluster.run(Duration::from_secs(2));
    let refused = cluster.ask(begin(&cluster, SBG_2, LENGTH)).unwrap_err();
    assert_eq!(refused, OperatorRefusal::Unwell(vec!["redundancy-lost"]));
    cluster.silent.clear();
    cluster.run(Duration::from_secs(1));
    cluster.elect();
    let refused = cluster.ask(begin(&cluster, SBG_2, LENGTH)).unwrap_err();
    assert_eq!(refused, OperatorRefusal::LeaderYoung);
    cluster.run(Duration::from_secs(2));
    assert!(cluster.ask(begin(&cluster, SBG_2, LENGTH)).is_ok());
}

#[test]
fn a_runner_must_live() {
    let mut cluster = Cluster::new(|_| {});
    cluster.run(Duration::from_secs(2));
    let OperatorAction::BeginDrill { name, person, runner, within, .. } = begin(&cluster, WITNESS, LENGTH)
    else {
        unreachable!()
    };
    let of_an_earlier_life =
        OperatorAction::BeginDrill { name, person, runner, incarnation: Incarnation(1), within };
    let refused = cluster.ask(of_an_earlier_life).unwrap_err();
    assert_eq!(refused, OperatorRefusal::Refused(Refusal::UnknownNode(WITNESS)));
    assert!(cluster.ask(begin(&cluster, WITNESS, LENGTH)).is_ok());
}

/// What is proposed from a failure on, drills left out.
fn after_a_failure(mut cluster: Cluster) -> (Vec<Command>, Option<NodeId>, Duration) {
    let before = cluster.proposed.len();
    cluster.silent.insert(GRA_1);
    let took = cluster.run_until("the address moves", |cluster| cluster.owner_node() != Some(GRA_1));
    cluster.run(Duration::from_secs(3));
    let mut proposed = cluster.proposed.split_off(before);
    proposed.retain(|command| !matches!(command, Command::EndDrill { .. }));
    for command in &mut proposed {
        // Numbers of entries differ by those that the drill itself took.
        let (Command::StartStep { operation, .. }
        | Command::FinishStep { operation, .. }
        | Command::CompleteFence { operation, .. }
        | Command::Assign { operation, .. }
        | Command::CloseOperation { operation, .. }) = command
        else {
            continue;
        };
        operation.0 = 0;
    }
    (proposed, cluster.owner_node(), took)
}

#[test]
fn a_failure_in_the_middle_of_a_drill_is_handled_as_always() {
    let mut quiet = Cluster::new(|_| {});
    quiet.run(Duration::from_secs(2));
    let (drilled, quiet) = (after_a_failure(drilling()), after_a_failure(quiet));
    assert_eq!(drilled, quiet);
    assert!(quiet.0.iter().any(|command| matches!(command, Command::BeginOperation { .. })));
}
