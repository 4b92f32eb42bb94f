//! What keeps the controller from acting by itself: breaker, pause, observing only.

use crate::cluster::{Cluster, GRA_1, ip};
use std::time::Duration;
use twinsite_controller::{Alarm, Notice, OperatorAction, QuietReason, ReleasedBy, RuleResult};
use twinsite_model::{Command, HardwareAddress, Incarnation, Reason, SafetyRule};

const SECOND: Duration = Duration::from_secs(1);

fn failing(rules: &[RuleResult]) -> Vec<SafetyRule> {
    rules.iter().filter(|rule| !rule.holds()).map(|rule| rule.rule).collect()
}

/// The owner's process ends, says so in the given way, and lives again.
fn owner_ends(cluster: &mut Cluster, by: ReleasedBy) {
    let owner = cluster.owner().unwrap();
    cluster.release(&ip(), &owner, by);
    let Incarnation(life) = owner.incarnation;
    cluster.lives(owner.node, life + 1);
    cluster.run(SECOND);
}

/// The rules that forbid the move that there is reason for.
fn forbidden(cluster: &Cluster) -> Option<(Reason, Vec<SafetyRule>)> {
    match &cluster.explain().quiet[..] {
        [QuietReason::RulesForbid { reason, rules }] => Some((*reason, failing(rules))),
        _ => None,
    }
}

#[test]
fn the_breaker_opens_after_as_many_failovers_as_are_allowed_and_says_so() {
    let mut cluster = Cluster::new(|spec| spec.policy.failovers_max = 2);
    for _ in 0..2 {
        let before = cluster.owner_node();
        owner_ends(&mut cluster, ReleasedBy::Guardian);
        assert_ne!(cluster.owner_node(), before);
    }
    let before = cluster.owner();
    // The machine is lost, so that nothing but a failover can help.
    cluster.silent.insert(before.as_ref().unwrap().node);
    cluster.run(3 * SECOND);
    assert_eq!(cluster.owner(), before);
    assert_eq!(forbidden(&cluster), Some((Reason::OwnerSilent, vec![SafetyRule::BreakerClosed])));
    let said = |notice: &&Notice| matches!(notice, Notice::Blocked { rules, .. } if failing(rules) == [SafetyRule::BreakerClosed]);
    assert_eq!(cluster.notices.iter().filter(said).count(), 1);
    assert!(cluster.notices.iter().any(|n| matches!(n, Notice::AlarmRaised(Alarm::BreakerOpen { .. }))));
    cluster.ask(OperatorAction::ResetBreaker).unwrap();
    cluster.run_until("the move", |cluster| cluster.owner() != before);
}

/// People must know; but nothing moves, for the stranger would be there at the next owner too.
#[test]
fn a_stranger_at_the_address_is_an_alarm_and_no_reason_to_move() {
    let mut cluster = Cluster::new(|_| {});
    let (owner, hardware) = (cluster.owner(), HardwareAddress([2, 0, 0, 0, 0, 7]));
    let alarm = Alarm::AddressConflict { ip: ip(), hardware };
    let said = |cluster: &Cluster, notice: &Notice| cluster.notices.contains(notice);
    cluster.stranger = Some(hardware);
    let raised = Notice::AlarmRaised(alarm.clone());
    cluster.run_until("the alarm", |cluster| said(cluster, &raised));
    cluster.stranger = None;
    cluster.run_until("its end", |cluster| said(cluster, &Notice::AlarmCleared(alarm.clone())));
    assert_eq!(cluster.owner(), owner);
}

#[test]
fn a_rolling_upgrade_does_not_open_the_breaker() {
    let mut cluster = Cluster::new(|spec| spec.policy.failovers_max = 1);
    for _ in 0..4 {
        let before = cluster.owner_node();
        owner_ends(&mut cluster, ReleasedBy::Holder);
        assert_ne!(cluster.owner_node(), before);
    }
    assert!(cluster.state.history.iter().skip(1).all(|operation| operation.reason == Reason::OwnerStopped));
    assert!(cluster.state.automatic_failovers.is_empty());
    // The guardian sees the same process end a moment later; that makes no crash of it.
    let owner = cluster.owner().unwrap();
    cluster.silent.insert(owner.node);
    cluster.release(&ip(), &owner, ReleasedBy::Holder);
    cluster.release(&ip(), &owner, ReleasedBy::Guardian);
    cluster.run(SECOND);
    assert!(cluster.state.automatic_failovers.is_empty());
}

#[test]
fn a_pause_holds_automatic_moves_back_and_ends_by_itself() {
    let mut cluster = Cluster::new(|_| {});
    let pause = |duration| OperatorAction::Pause { duration: Some(duration), reason: "update".to_owned() };
    let refused = cluster.ask(pause(Duration::MAX)).unwrap_err();
    assert!(refused.to_string().contains("more than 30days from now"), "{refused}");
    cluster.ask(pause(3 * SECOND)).unwrap();
    let began = cluster.now;
    cluster.silent.insert(GRA_1);
    cluster.run(2 * SECOND);
    assert_eq!(cluster.owner_node(), Some(GRA_1));
    assert_eq!(forbidden(&cluster), Some((Reason::OwnerSilent, vec![SafetyRule::NotPaused])));
    cluster.run_until("the move", |cluster| cluster.owner_node() != Some(GRA_1));
    let after = cluster.since(began);
    assert!(after >= 3 * SECOND && after < 4 * SECOND, "{after:?}");
    assert_eq!(cluster.state.pause, None);
}

#[test]
fn a_pause_ends_even_where_the_states_clock_is_ahead() {
    let mut cluster = Cluster::new(|_| {});
    cluster.wall_ahead = 10 * 365 * 24 * 3_600_000; // a leader whose clock is wrong by ten years
    cluster.ask(OperatorAction::ResetBreaker).unwrap();
    cluster.wall_ahead = 0;
    cluster.elect();
    cluster.ask(OperatorAction::Pause { duration: Some(2 * SECOND), reason: "update".to_owned() }).unwrap();
    let took = cluster.run_until("the end of the pause", |cluster| cluster.state.pause.is_none());
    assert!(took >= 2 * SECOND && took < 3 * SECOND, "{took:?}");
}

#[test]
fn who_only_observes_says_what_would_be_done_and_does_nothing() {
    let mut cluster = Cluster::new(|_| {});
    let mut spec = twinsite_model::ClusterSpec::clone(cluster.state.spec.as_ref().unwrap());
    spec.policy.observe_only = true;
    cluster.agree(Command::ApplySpec { spec: spec.into() });
    let wanted = cluster.moves_wanted();
    cluster.silent.insert(GRA_1);
    cluster.run(2 * SECOND);
    let would: Vec<_> = cluster
        .notices
        .iter()
        .filter_map(
            |notice| if let Notice::WouldHave(decision) = notice { Some(decision.reason) } else { None },
        )
        .collect();
    assert_eq!(would, [Reason::OwnerSilent], "said once");
    assert_eq!((cluster.moves_wanted(), cluster.owner_node()), (wanted, Some(GRA_1)));
    assert_eq!(cluster.explain().quiet, [QuietReason::ObserveOnly]);
}
