//! What `explain` answers.

use crate::cluster::{Cluster, GRA_1, GRA_2, SBG_1, SBG_2, WITNESS};
use std::time::Duration;
use twinsite_controller::{Forecast, MoveKind, MoveTarget, NodeReport, OperatorAction, QuietReason};
use twinsite_model::{Format, OperationKind, Reason, Step};

#[test]
fn a_quiet_cluster_explains_itself() {
    let mut cluster = Cluster::new(|_| {});
    cluster.run(Duration::from_secs(1));
    let explanation = cluster.explain();
    assert!(explanation.by_leader);
    let owner = explanation.owner.unwrap();
    assert_eq!((owner.node, owner.site.unwrap().as_str(), owner.heard), (GRA_1, "gra", true));
    let (_, kind, reason) = owner.made_by.unwrap();
    assert_eq!((kind, reason), (OperationKind::Placement, Reason::NoOwner));
    assert!(owner.last_grant_age.unwrap() < Duration::from_millis(50));
    assert_eq!((explanation.moving, explanation.quiet), (None, vec![QuietReason::OwnerWell]));
    assert_eq!(explanation.tolerated_failures, Some(2));
    let ranks: Vec<_> =
        explanation.candidates.iter().map(|candidate| (candidate.node, candidate.rank)).collect();
    assert_eq!(ranks, [(GRA_1, Some(0)), (GRA_2, Some(1)), (SBG_1, Some(2)), (SBG_2, Some(3))]);
    let Forecast::Possible { target, after_crash, after_silence } = explanation.failover else {
        panic!("{:?}", explanation.failover)
    };
    assert_eq!(target, GRA_2);
    assert!(after_crash.about < after_silence.about && after_silence.about > cluster.wait());
    assert_eq!((after_crash.moves, after_silence.moves), (0, 0), "nothing has moved yet");
}

#[test]
fn what_is_foretold_rests_on_past_moves_once_there_are_enough() {
    let mut cluster = Cluster::new(|_| {});
    let there_and_back = [SBG_1, GRA_1, SBG_1];
    for (moves, to) in there_and_back.into_iter().enumerate() {
        let request = crate::cluster::wanted(MoveKind::Switchover, MoveTarget::Node(to), &[]);
        assert_eq!(cluster.plan(&request).predicted_outage.moves, 0, "after {moves} moves");
        cluster.ask(OperatorAction::Move(request)).unwrap();
        cluster.run_until("the end", Cluster::is_settled);
        cluster.run(Duration::from_secs(1));
    }
    let request = crate::cluster::wanted(MoveKind::Switchover, MoveTarget::Node(GRA_1), &[]);
    let outage = cluster.plan(&request).predicted_outage;
    assert_eq!(outage.moves, 3);
    assert!(outage.about < Duration::from_millis(100), "{outage:?}");
    let Forecast::Possible { after_crash, after_silence, .. } = cluster.explain().failover else {
        panic!("impossible")
    };
    assert_eq!(after_crash.moves, 0, "no process has ended yet");
    assert_eq!(after_silence.moves, 3, "an address arrives in the same way however it left");
    assert!(after_silence.about > cluster.wait(), "{after_silence:?}");
}

#[test]
fn a_silent_owner_is_explained_before_it_is_replaced() {
    let mut cluster = Cluster::new(|_| {});
    cluster.run(Duration::from_secs(1));
    cluster.silent.insert(GRA_1);
    cluster.run(Duration::from_millis(270));
    let [QuietReason::LeaseMayHold { remaining }] = cluster.explain().quiet[..] else {
        panic!("{:?}", cluster.explain().quiet)
    };
    assert!(remaining < Duration::from_millis(60), "{remaining:?}");
    assert!(!cluster.explain().owner.unwrap().heard);
}

#[test]
fn a_move_under_way_says_what_it_waits_for() {
    let mut cluster = Cluster::new(|_| {});
    cluster.drains = false;
    let request = crate::cluster::wanted(MoveKind::Switchover, MoveTarget::Node(SBG_1), &[]);
    cluster.ask(OperatorAction::Move(request)).unwrap();
    let explanation = cluster.explain();
    let moving = explanation.moving.unwrap();
    assert_eq!((moving.target, moving.step), (SBG_1, Some(Step::Drain)));
    assert_eq!(moving.waiting_for, "gra-1 to finish what runs");
    assert_eq!(explanation.quiet, []);
}

#[test]
fn a_cluster_without_a_standby_says_why_it_could_not_fail_over() {
    let mut cluster = Cluster::new(|_| {});
    cluster.silent.extend([GRA_2, SBG_1, SBG_2]);
    cluster.run(Duration::from_secs(1));
    let Forecast::Impossible { rules, why } = cluster.explain().failover else { panic!("possible") };
    assert_eq!(rules, []);
    assert_eq!(why, ["gra-2 is not heard", "sbg-1 is not heard", "sbg-2 is not heard"]);
}

#[test]
fn a_node_that_does_not_read_the_agreed_format_is_no_candidate_and_says_so() {
    let mut cluster = Cluster::new(|_| {});
    cluster.state.format = Format(2);
    let life = cluster.state.nodes[&GRA_2].incarnation;
    let report = NodeReport { format_max: Format(1), ..NodeReport::empty(GRA_2, life, 1_000_000) };
    cluster.tell(twinsite_controller::Input::Report(report));
    let explanation = cluster.explain();
    let unfit =
        explanation.candidates.iter().find(|candidate| candidate.node == GRA_2).unwrap().unfit.clone();
    assert_eq!(unfit.unwrap(), "gra-2 reads format 1 at most, and the cluster uses 2: upgrade it");
    assert!(explanation.candidates.iter().all(|candidate| candidate.node != WITNESS));
}
