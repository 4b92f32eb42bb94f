//! The journal of a move, step by step, and everything that is out of order.

use super::specification::changed;
use super::{
    Cluster, Command, Effect, Event, Fence, Incarnation, NodeId, OperationId, OperationKind, Outcome,
    Proposal, Refusal, Step, StepResult, Token, WallTime, abort, assign, begin, close, fence, finish, ip,
    life, samples, start,
};
use crate::state::{HISTORY_MAX, State};
use std::sync::Arc;

fn wrong_step(operation: OperationId, step: Step) -> Refusal {
    Refusal::WrongStep { operation, step }
}

fn retarget(operation: OperationId, target: u64) -> Command {
    Command::Retarget {
        ip: ip(),
        operation,
        target: NodeId(target),
        target_incarnation: Incarnation(target * 10),
        detail: "the first choice died".to_owned(),
    }
}

#[test]
fn a_first_owner_gets_the_first_token() {
    let mut cluster = Cluster::new();
    let operation = cluster.begin(OperationKind::Placement, 1);
    assert_eq!(operation.0, cluster.index, "an operation's id is the revision at which it began");
    let fence = Command::CompleteFence { ip: ip(), operation, fence: Fence::NoOwner, detail: String::new() };
    let events = cluster.done(fence);
    assert!(matches!(events[1], Event::Fenced { token: None, fence: Fence::NoOwner, .. }));
    let events = cluster.done(assign(operation));
    let owner = cluster.owner().unwrap();
    assert_eq!((owner.node, owner.incarnation, owner.token), (NodeId(1), Incarnation(10), Token::new(1, 1)));
    assert!(!owner.revoked);
    assert_eq!(events[0], Event::OwnerChanged { ip: ip(), owner });
}

#[test]
fn a_failover_goes_through_its_steps_in_order() {
    let mut cluster = Cluster::new();
    cluster.move_to(OperationKind::Placement, 1);
    let id = cluster.move_to(OperationKind::Failover, 3);
    let operation = cluster.state.operation(id).unwrap();
    let steps: Vec<_> = operation.steps.iter().map(|record| record.step).collect();
    assert_eq!(steps, [Step::Decide, Step::Fence, Step::Move, Step::Observe, Step::Announce, Step::Verify]);
    assert!(operation.steps.iter().all(|record| record.finished.is_some()));
    assert!(operation.steps.windows(2).all(|pair| pair[0].started <= pair[1].started));
    assert_eq!(operation.from.as_ref().map(|owner| owner.token), Some(Token::new(1, 1)));
    assert_eq!((operation.token, operation.fence), (Some(Token::new(1, 2)), Some(Fence::Released)));
    assert!(matches!(operation.ended, Some((_, Outcome::Verified))));
    assert_eq!(cluster.owner().unwrap().node, NodeId(3));
    assert!(cluster.running().is_none());
    assert_eq!(cluster.state.session_token(), Token::new(1, 2));
}

#[test]
fn a_switchover_drains_before_the_right_to_renew_ends() {
    let mut cluster = Cluster::new();
    cluster.move_to(OperationKind::Placement, 1);
    let operation = cluster.begin(OperationKind::Switchover, 3);
    assert!(!cluster.owner().unwrap().revoked, "the old owner renews while it drains");
    cluster.refused(fence(operation), &wrong_step(operation, Step::Fence));
    cluster.refused(start(operation, Step::Fence), &wrong_step(operation, Step::Fence));
    cluster.done(finish(operation, Step::Drain));
    assert!(!cluster.owner().unwrap().revoked);
    cluster.done(start(operation, Step::Fence));
    assert!(cluster.owner().unwrap().revoked);
    cluster.done(fence(operation));
    cluster.done(assign(operation));
    assert_eq!(cluster.owner().unwrap().token, Token::new(1, 2));
}

#[test]
fn a_failover_revokes_at_once() {
    let mut cluster = Cluster::new();
    cluster.move_to(OperationKind::Placement, 1);
    cluster.begin(OperationKind::Failover, 3);
    assert!(cluster.owner().unwrap().revoked);
}

#[test]
fn beginning_is_refused_for_good_reasons() {
    let mut cluster = Cluster::new();
    cluster.move_to(OperationKind::Placement, 1);
    let from = Some(Token::new(1, 1));
    let failover = |from, target| begin(OperationKind::Failover, from, target);
    cluster.refused(failover(None, 3), &Refusal::OwnerChanged { given: None, current: from });
    let stale = Some(Token::new(1, 0));
    cluster.refused(failover(stale, 3), &Refusal::OwnerChanged { given: stale, current: from });
    cluster.refused(failover(from, 9), &Refusal::UnknownNode(NodeId(9)));
    cluster.refused(failover(from, 5), &Refusal::UnknownNode(NodeId(5))); // a witness never owns
    cluster.done(life(3, 31)); // restarted: the caller knew an earlier life
    cluster.refused(failover(from, 3), &Refusal::UnknownNode(NodeId(3)));
    let mut unknown = failover(from, 4);
    if let Command::BeginOperation { ip, .. } = &mut unknown {
        *ip = "nowhere".parse().unwrap();
    }
    cluster.refused(unknown, &Refusal::UnknownFloatingIp("nowhere".parse().unwrap()));
    let running = cluster.begin(OperationKind::Failover, 4);
    cluster.refused(failover(from, 2), &Refusal::OperationRunning(running));
}

#[test]
fn each_address_has_an_operation_of_its_own() {
    let mut cluster = Cluster::new();
    let first = cluster.begin(OperationKind::Placement, 1);
    let mut other = begin(OperationKind::Placement, None, 3);
    if let Command::BeginOperation { ip, .. } = &mut other {
        *ip = "second".parse().unwrap();
    }
    cluster.done(other);
    assert_eq!(cluster.running().unwrap().id, first);
    // The id of one address's operation does not work on the other.
    let wrong = Command::Assign { ip: "second".parse().unwrap(), operation: first };
    cluster.refused(wrong, &Refusal::NoSuchOperation(first));
}

#[test]
fn nothing_is_assigned_before_the_fence() {
    let mut cluster = Cluster::new();
    cluster.move_to(OperationKind::Placement, 1);
    let operation = cluster.begin(OperationKind::Failover, 3);
    cluster.refused(assign(operation), &Refusal::NotFenced(operation));
    cluster.refused(close(operation), &wrong_step(operation, Step::Verify));
    cluster.done(fence(operation));
    cluster.refused(fence(operation), &wrong_step(operation, Step::Fence));
    cluster.done(assign(operation));
    cluster.refused(assign(operation), &wrong_step(operation, Step::Move));
}

#[test]
fn nothing_is_assigned_to_a_life_that_has_ended() {
    let mut cluster = Cluster::new();
    let operation = cluster.begin(OperationKind::Placement, 1);
    cluster.done(fence(operation));
    cluster.done(life(1, 11));
    cluster.refused(assign(operation), &Refusal::UnknownNode(NodeId(1)));
    cluster.refused(retarget(operation, 1), &Refusal::UnknownNode(NodeId(1)));
    cluster.done(retarget(operation, 2));
    cluster.done(assign(operation));
    assert_eq!(cluster.owner().unwrap().node, NodeId(2));
}

#[test]
fn steps_out_of_order_are_refused() {
    let mut cluster = Cluster::new();
    cluster.move_to(OperationKind::Placement, 1);
    let operation = cluster.begin(OperationKind::Failover, 3);
    for step in Step::ALL {
        cluster.refused(start(operation, step), &wrong_step(operation, step));
        cluster.refused(finish(operation, step), &wrong_step(operation, step));
    }
    cluster.done(fence(operation));
    for step in Step::ALL {
        cluster.refused(start(operation, step), &wrong_step(operation, step));
        cluster.refused(finish(operation, step), &wrong_step(operation, step));
    }
    cluster.done(assign(operation));
    cluster.refused(start(operation, Step::Announce), &wrong_step(operation, Step::Announce));
    cluster.done(finish(operation, Step::Observe));
    cluster.refused(finish(operation, Step::Observe), &wrong_step(operation, Step::Observe));
    cluster.done(start(operation, Step::Announce));
    cluster.refused(start(operation, Step::Announce), &wrong_step(operation, Step::Announce));
    cluster.refused(finish(operation, Step::Verify), &wrong_step(operation, Step::Verify));
}

#[test]
fn every_command_of_the_journal_needs_its_running_operation() {
    let mut cluster = Cluster::new();
    let gone = cluster.move_to(OperationKind::Placement, 1);
    let refusal = Refusal::NoSuchOperation(gone);
    for command in [
        start(gone, Step::Verify),
        finish(gone, Step::Verify),
        fence(gone),
        assign(gone),
        retarget(gone, 2),
        close(gone),
        abort(gone),
    ] {
        cluster.refused(command, &refusal);
    }
    let nowhere = Command::Assign { ip: "nowhere".parse().unwrap(), operation: gone };
    cluster.refused(nowhere, &Refusal::UnknownFloatingIp("nowhere".parse().unwrap()));
}

#[test]
fn a_late_step_is_recorded_and_the_move_goes_on() {
    let mut cluster = Cluster::new();
    let operation = cluster.begin(OperationKind::Placement, 1);
    cluster.done(fence(operation));
    cluster.done(assign(operation));
    let result = StepResult::TimedOut;
    let detail = "not seen".to_owned();
    cluster.done(Command::FinishStep { ip: ip(), operation, step: Step::Observe, result, detail });
    let outcome = Outcome::Unverified;
    cluster.done(Command::CloseOperation { ip: ip(), operation, outcome });
    let ended = cluster.state.operation(operation).unwrap();
    assert!(matches!(ended.step(Step::Observe).unwrap().finished, Some((_, StepResult::TimedOut))));
    assert!(matches!(ended.ended, Some((_, Outcome::Unverified))));
}

#[test]
fn closing_is_never_an_abort() {
    let mut cluster = Cluster::new();
    let operation = cluster.begin(OperationKind::Placement, 1);
    cluster.done(fence(operation));
    cluster.done(assign(operation));
    let command = Command::CloseOperation { ip: ip(), operation, outcome: Outcome::Aborted };
    cluster.refused(command, &wrong_step(operation, Step::Verify));
}

#[test]
fn an_abort_before_the_fence_gives_the_owner_its_right_back() {
    for kind in [OperationKind::Failover, OperationKind::Switchover] {
        let mut cluster = Cluster::new();
        cluster.move_to(OperationKind::Placement, 1);
        let operation = cluster.begin(kind, 3);
        let events = cluster.done(abort(operation));
        assert_eq!(events, [Event::OperationEnded { ip: ip(), operation, outcome: Outcome::Aborted }]);
        let owner = cluster.owner().unwrap();
        assert_eq!((owner.token, owner.revoked), (Token::new(1, 1), false));
        let ended = cluster.state.operation(operation).unwrap();
        assert!(matches!(ended.steps.last().unwrap().finished, Some((_, StepResult::Skipped))));
    }
}

#[test]
fn an_abort_after_the_fence_leaves_no_owner() {
    let mut cluster = Cluster::new();
    cluster.move_to(OperationKind::Placement, 1);
    let operation = cluster.begin(OperationKind::Failover, 3);
    cluster.done(fence(operation));
    cluster.done(abort(operation));
    assert_eq!(cluster.owner(), None, "the fenced token never comes back");
    cluster.move_to(OperationKind::Placement, 1);
    assert_eq!(cluster.owner().unwrap().token, Token::new(1, 2), "and the next one is larger");
}

#[test]
fn there_is_no_way_back_once_the_target_has_the_token() {
    let mut cluster = Cluster::new();
    let operation = cluster.begin(OperationKind::Placement, 1);
    cluster.done(fence(operation));
    cluster.done(assign(operation));
    cluster.refused(abort(operation), &Refusal::TooLateToAbort(operation));
    cluster.refused(retarget(operation, 2), &Refusal::TooLateToAbort(operation));
}

#[test]
fn a_retarget_is_recorded_once() {
    let mut cluster = Cluster::new();
    let operation = cluster.begin(OperationKind::Placement, 1);
    cluster.unchanged(retarget(operation, 1));
    let events = cluster.done(retarget(operation, 2));
    assert_eq!(events, [Event::Retargeted { ip: ip(), operation, target: NodeId(2) }]);
    let running = cluster.running().unwrap();
    assert_eq!((running.target, running.target_incarnation), (NodeId(2), Incarnation(20)));
    assert!(running.evidence.last().unwrap().contains("the first choice died"));
    for round in 0..40 {
        cluster.done(retarget(operation, 1 + round % 2));
    }
    assert_eq!(cluster.running().unwrap().evidence.len(), crate::state::EVIDENCE_MAX);
}

#[test]
fn the_breaker_counts_the_controllers_failovers_only() {
    let mut cluster = Cluster::new();
    cluster.move_to(OperationKind::Placement, 1);
    cluster.move_to(OperationKind::Switchover, 3);
    assert!(cluster.state.automatic_failovers.is_empty());
    let from = cluster.owner().map(|owner| owner.token);
    let by_hand = Proposal {
        by: "anna".to_owned(),
        ..Proposal::by_controller(WallTime(cluster.wall), begin(OperationKind::Failover, from, 1))
    };
    let Ok(Effect::Began(operation)) = cluster.apply(&by_hand).result else { panic!("refused") };
    assert!(cluster.state.automatic_failovers.is_empty());
    cluster.done(abort(operation));
    let operation = cluster.begin(OperationKind::Failover, 1);
    assert_eq!(cluster.state.automatic_failovers, [WallTime(cluster.wall)]);
    cluster.done(abort(operation));
    let events = cluster.done(Command::ResetBreaker);
    assert_eq!(events, [Event::BreakerReset { by: "controller".to_owned() }]);
    assert!(cluster.state.automatic_failovers.is_empty());
    cluster.unchanged(Command::ResetBreaker);
    cluster.done(changed(&cluster, |spec| spec.policy.failovers_max = 1_000));
    for _ in 0..100 {
        let operation = cluster.begin(OperationKind::Failover, 1);
        cluster.done(abort(operation));
    }
    assert_eq!(cluster.state.automatic_failovers.len(), 64);
}

/// Two decisions of the controller may meet here that it took without knowing of each other.
#[test]
fn no_more_automatic_failovers_begin_than_the_policy_allows() {
    let mut cluster = Cluster::new();
    cluster.move_to(OperationKind::Placement, 1);
    for _ in 0..2 {
        let operation = cluster.begin(OperationKind::Failover, 3);
        cluster.done(abort(operation));
    }
    let from = cluster.owner().map(|owner| owner.token);
    let third = Proposal::by_controller(WallTime(cluster.wall), begin(OperationKind::Failover, from, 3));
    let before = cluster.state.clone();
    let refused = cluster.apply(&third).result;
    assert!(matches!(refused, Err(Refusal::BreakerOpen { counted: 2, .. })), "{refused:?}");
    assert_eq!(cluster.state.floating_ips, before.floating_ips, "the owner keeps its lease");
    let by_hand = Proposal { by: "anna".to_owned(), ..third.clone() };
    let Ok(Effect::Began(operation)) = cluster.apply(&by_hand).result else { panic!("refused") };
    cluster.done(abort(operation));
    cluster.done(Command::ResetBreaker);
    assert!(matches!(cluster.apply(&third).result, Ok(Effect::Began(_))));
}

#[test]
fn history_keeps_the_newest() {
    let mut cluster = Cluster::new();
    let ids: Vec<_> = (0..HISTORY_MAX + 3)
        .map(|_| {
            let operation = cluster.begin(OperationKind::Placement, 1);
            cluster.done(abort(operation));
            operation
        })
        .collect();
    assert_eq!(cluster.state.history.len(), HISTORY_MAX);
    assert!(cluster.state.operation(ids[2]).is_none());
    assert!(cluster.state.operation(ids[3]).is_some());
}

#[test]
fn tokens_grow_through_a_forced_recovery_and_through_removal_of_the_address() {
    let mut cluster = Cluster::new();
    cluster.move_to(OperationKind::Placement, 1);
    let generation = crate::ids::Generation(2);
    let raise = |generation| Command::RaiseGeneration { generation, statement: "gra is off".to_owned() };
    cluster.done(raise(generation));
    cluster.refused(raise(generation), &Refusal::GenerationNotNewer);
    cluster.move_to(OperationKind::Forced, 3);
    assert_eq!(cluster.owner().unwrap().token, Token::new(2, 2));
    assert_eq!(cluster.state.session_token(), Token::new(2, 2));
    let mut without = samples::spec();
    let kept = without.floating_ips.remove(0);
    cluster.done(Command::ApplySpec { spec: Arc::new(without.clone()) });
    let withdrawal = cluster.begin(OperationKind::Placement, 1);
    cluster.done(fence(withdrawal));
    cluster.refused(assign(withdrawal), &Refusal::UnknownFloatingIp(ip()));
    cluster.done(abort(withdrawal));
    assert_eq!(cluster.owner(), None);
    cluster.refused(begin(OperationKind::Placement, None, 1), &Refusal::UnknownFloatingIp(ip()));
    without.floating_ips.insert(0, kept);
    cluster.done(Command::ApplySpec { spec: Arc::new(without) });
    cluster.move_to(OperationKind::Failover, 1);
    assert_eq!(cluster.owner().unwrap().token, Token::new(2, 3));
}

#[test]
fn without_a_specification_nothing_moves() {
    let mut cluster = Cluster { state: State::default(), index: 0, wall: 0 };
    cluster.refused(begin(OperationKind::Placement, None, 1), &Refusal::UnknownFloatingIp(ip()));
}
