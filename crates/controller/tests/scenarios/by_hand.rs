//! What people ask for: planned moves, their refusal, and calling them off.

use crate::cluster::{Cluster, GRA_1, SBG_1, ip, wanted};
use std::time::Duration;
use twinsite_controller::{
    Forecast, MoveKind, MoveTarget, OperatorAction, OperatorAnswer, OperatorRefusal, QuietReason,
};
use twinsite_model::{OperationKind, Outcome, Refusal, SafetyRule, Step};

fn abort() -> OperatorAction {
    OperatorAction::Abort { ip: ip(), detail: "changed my mind".to_owned() }
}

#[test]
fn a_plan_says_what_a_switchover_then_does() {
    let mut cluster = Cluster::new(|_| {});
    let request = wanted(MoveKind::Switchover, MoveTarget::Best, &[]);
    let before = cluster.state.clone();
    let plan = cluster.plan(&request);
    assert_eq!(cluster.state, before, "a plan changes nothing");
    assert_eq!((plan.kind, plan.from, plan.target), (OperationKind::Switchover, Some(GRA_1), Some(SBG_1)));
    assert_eq!(plan.refusal, None);
    let rules: Vec<_> = plan.rules.iter().map(|rule| (rule.rule, rule.holds())).collect();
    assert_eq!(rules, SafetyRule::ALL.map(|rule| (rule, true)));
    let outage = plan.predicted_outage;
    assert!(outage.about < cluster.wait() && outage.moves == 0, "the owner lets go: {outage:?}");
    let planned: Vec<_> = plan.steps.iter().map(|step| step.step).collect();
    assert_eq!(planned, Step::ALL);

    let Ok(OperatorAnswer::Began { operation, .. }) = cluster.ask(OperatorAction::Move(request)) else {
        panic!("not begun")
    };
    cluster.run_until("the end", Cluster::is_settled);
    assert_eq!(cluster.owner_node(), Some(SBG_1));
    let done = cluster.state.operation(operation).unwrap();
    assert_eq!(done.steps.iter().map(|record| record.step).collect::<Vec<_>>(), planned);
    assert_eq!(done.ended.unwrap().1, Outcome::Verified);
    assert_eq!(done.by, "anna");
}

#[test]
fn a_rule_refuses_by_name_and_a_person_overrides_it_by_name() {
    let mut cluster = Cluster::new(|_| {});
    cluster.fall_sick("sbg");
    cluster.run(Duration::from_secs(1));
    let sbg = || MoveTarget::Site("sbg".parse().unwrap());
    let refusal = cluster.ask(OperatorAction::Move(wanted(MoveKind::Switchover, sbg(), &[]))).unwrap_err();
    let OperatorRefusal::RulesFailed(rules) = &refusal else { panic!("{refusal}") };
    let failing: Vec<_> = rules.iter().filter(|rule| !rule.holds()).map(|rule| rule.rule).collect();
    assert_eq!(failing, [SafetyRule::TargetHealthy]);
    assert!(refusal.to_string().contains(SafetyRule::TargetHealthy.as_str()), "{refusal}");
    let other = wanted(MoveKind::Switchover, sbg(), &[SafetyRule::BreakerClosed]);
    assert!(cluster.ask(OperatorAction::Move(other)).is_err(), "another rule's name does not help");
    let request = wanted(MoveKind::Switchover, sbg(), &[SafetyRule::TargetHealthy]);
    let plan = cluster.plan(&request);
    assert!(plan.rules.iter().any(|rule| rule.rule == SafetyRule::TargetHealthy && rule.overridden));
    cluster.ask(OperatorAction::Move(request)).unwrap();
    assert_eq!(cluster.running().unwrap().overrides, [SafetyRule::TargetHealthy]);
    cluster.run_until("the move", |cluster| cluster.owner_node() == Some(SBG_1));
}

#[test]
fn a_move_is_called_off_until_the_target_has_the_address() {
    let mut cluster = Cluster::new(|_| {});
    let owner = cluster.owner();
    let request = || OperatorAction::Move(wanted(MoveKind::Switchover, MoveTarget::Node(SBG_1), &[]));
    cluster.drains = false;
    cluster.ask(request()).unwrap();
    cluster.run(Duration::from_millis(200));
    assert_eq!(cluster.step(), Some(Step::Drain));
    cluster.ask(abort()).unwrap();
    assert_eq!((cluster.owner(), cluster.running()), (owner.clone(), None), "the owner goes on as before");
    assert!(matches!(cluster.ask(abort()), Err(OperatorRefusal::NoOperation(_))));

    (cluster.drains, cluster.lets_go) = (true, false);
    cluster.ask(request()).unwrap();
    cluster.run_until("the fence", |cluster| cluster.step() == Some(Step::Fence));
    assert!(cluster.owner().unwrap().revoked);
    cluster.ask(abort()).unwrap();
    assert_eq!(cluster.owner(), owner, "the right to renew is back");

    (cluster.lets_go, cluster.outside) = (true, false);
    cluster.ask(request()).unwrap();
    cluster.run_until("the proof", |cluster| cluster.step() == Some(Step::Verify));
    let operation = cluster.running().unwrap().id;
    assert_eq!(cluster.ask(abort()), Err(OperatorRefusal::Refused(Refusal::TooLateToAbort(operation))));
    assert_eq!(cluster.owner_node(), Some(SBG_1));
}

#[test]
fn what_does_not_press_is_left_alone_after_a_person_called_it_off() {
    let mut cluster = Cluster::new(|_| {});
    cluster.lets_go = false;
    cluster.fall_sick("gra");
    cluster.run_until("the move", |cluster| cluster.step() == Some(Step::Fence));
    cluster.ask(abort()).unwrap();
    cluster.run(Duration::from_secs(2));
    assert_eq!((cluster.owner_node(), cluster.running()), (Some(GRA_1), None));
    assert_eq!(cluster.explain().quiet, [QuietReason::AbortedByHand]);
    assert!(matches!(cluster.explain().failover, Forecast::Possible { .. }));
}
