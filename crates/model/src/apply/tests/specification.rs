//! How the specification may change while nodes act by it.

use super::{
    Cluster, Command, Effect, Format, NodeId, OperationKind, Proposal, Refusal, WallTime, abort, begin,
    fence, ip, life, samples,
};
use crate::encoding::{decode_state, encode_state};
use crate::spec::{ClusterSpec, HumanDuration, NodeKind};
use crate::state::{AHEAD_MAX, EARLIER_SPECS_BYTES_MAX, EARLIER_SPECS_MAX};
use crate::ticket_keys::{ROTATE_EVERY, TicketSecret};
use crate::timing::LeaseBound;
use std::sync::Arc;
use std::time::Duration;

/// The specification in force, changed.
pub(super) fn changed(cluster: &Cluster, change: impl FnOnce(&mut ClusterSpec)) -> Command {
    let mut spec = ClusterSpec::clone(cluster.state.spec.as_ref().unwrap());
    change(&mut spec);
    Command::ApplySpec { spec: Arc::new(spec) }
}

fn rename(spec: &mut ClusterSpec) {
    spec.floating_ips[0].name = "renamed".parse().unwrap();
}

#[test]
fn a_held_address_is_neither_renamed_nor_changed_nor_given_away() {
    let mut cluster = Cluster::new();
    cluster.move_to(OperationKind::Placement, 1);
    let held = Refusal::FloatingIpHeld(ip());
    assert!(held.to_string().contains("apply a specification without it first"));
    cluster.refused(changed(&cluster, rename), &held);
    let other = "127.0.0.99".parse().unwrap();
    cluster.refused(changed(&cluster, |spec| spec.floating_ips[0].address = other), &held);
    cluster.refused(changed(&cluster, |spec| spec.floating_ips[0].ports = vec![9_090]), &held);
    // The other one has no owner, and yet the address is not free.
    let give_away = |spec: &mut ClusterSpec| {
        let gone = spec.floating_ips.remove(0);
        spec.floating_ips[0].address = gone.address;
    };
    cluster.refused(changed(&cluster, give_away), &held);
    cluster.done(changed(&cluster, |spec| spec.floating_ips[0].failback = crate::spec::Failback::Never));
}

#[test]
fn an_address_comes_back_under_another_name_when_nobody_holds_it_any_more() {
    let mut cluster = Cluster::new();
    cluster.move_to(OperationKind::Placement, 1);
    let removed = cluster.state.spec.as_ref().unwrap().floating_ips[0].clone();
    cluster.done(changed(&cluster, |spec| drop(spec.floating_ips.remove(0))));
    let mut renamed = removed.clone();
    renamed.name = "renamed".parse().unwrap();
    let with_renamed = |cluster: &Cluster| changed(cluster, |spec| spec.floating_ips.push(renamed.clone()));
    cluster.refused(with_renamed(&cluster), &Refusal::FloatingIpHeld(ip()));
    cluster.done(changed(&cluster, |spec| spec.policy.failovers_max = 7));
    let operation = cluster.begin(OperationKind::Placement, 1);
    assert!(cluster.owner().unwrap().revoked);
    cluster.refused(with_renamed(&cluster), &Refusal::FloatingIpHeld(ip()));
    let back = changed(&cluster, |spec| spec.floating_ips.push(removed));
    cluster.refused(back, &Refusal::FloatingIpMoving { ip: ip(), operation });
    cluster.done(fence(operation));
    cluster.done(abort(operation));
    cluster.done(with_renamed(&cluster));
}

#[test]
fn an_address_that_is_being_moved_stays_in_the_specification() {
    let mut cluster = Cluster::new();
    let operation = cluster.begin(OperationKind::Placement, 1);
    let moving = Refusal::FloatingIpMoving { ip: ip(), operation };
    cluster.refused(changed(&cluster, |spec| drop(spec.floating_ips.remove(0))), &moving);
    cluster.refused(changed(&cluster, rename), &moving);
    cluster.done(abort(operation));
    cluster.done(changed(&cluster, rename));
}

#[test]
fn a_file_that_leaves_a_node_out_does_not_take_it_out() {
    let mut cluster = Cluster::new();
    let without = changed(&cluster, |spec| drop(spec.nodes.remove(1)));
    let missing = Refusal::NodeMissing(NodeId(2));
    assert!(missing.to_string().contains("members remove"));
    cluster.refused(without.clone(), &missing);
    cluster.done(Command::RetireNode { node: NodeId(2) });
    cluster.unchanged(without);
}

#[test]
fn members_change_only_to_what_can_be_used() {
    let mut cluster = Cluster::new();
    let node = |change: &dyn Fn(&mut crate::spec::NodeSpec)| {
        let mut node = samples::spec().nodes[1].clone();
        change(&mut node);
        Command::PutNode { node }
    };
    let wrong: [(&str, Command); 4] = [
        ("no site `nowhere`", node(&|node| node.site = "nowhere".parse().unwrap())),
        ("already used", node(&|node| node.peer = samples::spec().nodes[0].peer)),
        ("stands for every address", node(&|node| node.http = vec!["0.0.0.0:8080".parse().unwrap()])),
        ("already used", node(&|node| node.id = NodeId(9))),
    ];
    for (problem, command) in wrong {
        let before = cluster.state.revision;
        let result = cluster.propose(command).result;
        let Err(refusal @ Refusal::SpecInvalid(_)) = &result else { panic!("{problem}: {result:?}") };
        assert!(refusal.to_string().contains(problem), "{refusal}");
        assert_eq!(cluster.state.revision, before);
    }
    let edge = node(&|node| node.kind = NodeKind::Edge);
    cluster.refused(edge, &Refusal::VoteKept(NodeId(2)));
    let edge = changed(&cluster, |spec| spec.nodes[1].kind = NodeKind::Edge);
    cluster.refused(edge, &Refusal::VoteKept(NodeId(2)));
}

#[test]
fn the_last_possible_owner_is_taken_out_by_a_recovery_only() {
    let mut cluster = Cluster::new();
    for node in [1, 2, 3] {
        cluster.done(Command::RetireNode { node: NodeId(node) });
    }
    let last = Command::RetireNode { node: NodeId(4) };
    let result = cluster.propose(last.clone()).result;
    assert!(matches!(&result, Err(Refusal::SpecInvalid(_))), "{result:?}");
    let lost = Proposal { by: "node wit-1".to_owned(), ..Proposal::by_controller(WallTime(9_000), last) };
    assert_eq!(cluster.apply(&lost).result, Ok(Effect::Done));
}

#[test]
fn the_longest_lease_outlives_the_specification_that_had_it() {
    let mut cluster = Cluster::new();
    let lease =
        |ms| move |spec: &mut ClusterSpec| spec.timing.lease = Some(HumanDuration(Duration::from_millis(ms)));
    cluster.done(changed(&cluster, lease(5_000)));
    let long = LeaseBound::of(&cluster.state.spec.as_ref().unwrap().timing());
    cluster.done(changed(&cluster, lease(400)));
    assert_eq!(cluster.state.lease_bound(), long);
    let restored = decode_state(&encode_state(&cluster.state)).unwrap();
    assert_eq!(restored.lease_bound(), long);
    // A state of a time when this was not kept still knows its own specification.
    cluster.state.longest = LeaseBound::default();
    let own = LeaseBound::of(&cluster.state.spec.as_ref().unwrap().timing());
    assert_eq!(cluster.state.lease_bound(), own);
    cluster.done(changed(&cluster, lease(350)));
    assert_eq!(cluster.state.lease_bound(), own);
}

#[test]
fn a_node_that_does_not_read_the_clusters_format_is_told_so() {
    let mut cluster = Cluster::new();
    cluster.state.format = Format(2);
    let refusal = Refusal::FormatTooOld { node: NodeId(1), reads: Format(1), used: Format(2) };
    assert_eq!(refusal.to_string(), "node 1 reads format 1 at most, and the cluster uses 2: upgrade it");
    cluster.refused(life(1, 11), &refusal);
}

#[test]
fn pauses_and_drains_end_within_reach() {
    let mut cluster = Cluster::new();
    let pause = |until| Command::Pause { until, reason: "update".to_owned() };
    let drain = |deadline| Command::SetDrain {
        upstream: samples::upstream("gra-meet-1"),
        draining: true,
        deadline: Some(deadline),
    };
    // The next command is proposed at `wall + 10`.
    let last = |cluster: &Cluster| WallTime(cluster.wall + 10).plus(AHEAD_MAX);
    let late = |cluster: &Cluster| last(cluster).plus(Duration::from_millis(1));
    cluster.refused(pause(WallTime(u64::MAX)), &Refusal::TooFarAhead);
    cluster.refused(pause(late(&cluster)), &Refusal::TooFarAhead);
    cluster.refused(drain(late(&cluster)), &Refusal::TooFarAhead);
    cluster.done(pause(last(&cluster)));
    cluster.done(drain(last(&cluster)));
}

#[test]
fn the_clock_of_whoever_places_a_room_moves_nobody_elses() {
    let mut cluster = Cluster::new();
    let (at, wrong) = (cluster.state.wall, WallTime(2_000_000_000_000));
    let (room, token) = (crate::ids::RoomKey([1; 16]), cluster.state.session_token());
    let upstream = samples::upstream("gra-meet-1");
    let commands = [
        Command::PinRoom { room, upstream, replace: None, token },
        Command::TouchRooms { rooms: vec![room], token },
        Command::ExpireRooms { before: WallTime(0) },
    ];
    for command in commands {
        let proposal =
            Proposal { by: "node gra-2".to_owned(), ..Proposal::by_controller(wrong, command.clone()) };
        assert!(cluster.apply(&proposal).result.is_ok());
        assert_eq!(cluster.state.wall, at, "{command:?}");
    }
    assert_eq!(cluster.state.sessions.pins[&room].touched, at);
    let by_leader = Proposal::by_controller(at.plus(AHEAD_MAX), Command::ExpireRooms { before: WallTime(0) });
    cluster.apply(&by_leader);
    assert_eq!(cluster.state.wall, at.plus(AHEAD_MAX));
}

#[test]
fn an_owner_that_was_stopped_in_good_order_does_not_count_as_failed() {
    let mut cluster = Cluster::new();
    cluster.move_to(OperationKind::Placement, 1);
    let from = cluster.owner().map(|owner| owner.token);
    let Command::BeginOperation { ip, kind, evidence, target, target_incarnation, overrides, .. } =
        begin(OperationKind::Failover, from, 2)
    else {
        unreachable!()
    };
    let by = |reason| Command::BeginOperation {
        ip: ip.clone(),
        kind,
        reason,
        evidence: evidence.clone(),
        from,
        target,
        target_incarnation,
        overrides: overrides.clone(),
    };
    for (reason, counted) in [(crate::Reason::OwnerStopped, 0), (crate::Reason::OwnerReleased, 1)] {
        cluster.done(by(reason));
        assert_eq!(cluster.state.automatic_failovers.len(), counted, "{reason:?}");
        let operation = cluster.running().unwrap().id;
        cluster.done(abort(operation));
    }
}

fn with_newest_format() -> Cluster {
    let mut cluster = Cluster::new();
    cluster.state.format = Format::NEWEST;
    cluster
}

#[test]
fn what_the_specification_was_before_is_kept_and_not_for_ever() {
    let mut cluster = with_newest_format();
    let first = Arc::clone(cluster.state.spec.as_ref().unwrap());
    let applied_at = cluster.state.spec_revision;
    cluster.done(changed(&cluster, |spec| spec.policy.failovers_max = 7));
    let kept = cluster.state.earlier_specs.back().unwrap();
    assert_eq!((&kept.spec, kept.revision, &*kept.replaced_by), (&first, applied_at, "controller"));
    for number in 0..2 * u32::try_from(EARLIER_SPECS_MAX).unwrap() {
        cluster.done(changed(&cluster, |spec| spec.policy.failovers_max = 100 + number));
    }
    assert_eq!(cluster.state.earlier_specs.len(), EARLIER_SPECS_MAX);
    assert!(cluster.state.earlier_specs.iter().is_sorted_by_key(|earlier| earlier.revision));
    assert_eq!(decode_state(&encode_state(&cluster.state)).unwrap(), cluster.state);
    // Going back is a change like any other.
    let oldest = Arc::clone(&cluster.state.earlier_specs.front().unwrap().spec);
    cluster.done(Command::ApplySpec { spec: Arc::clone(&oldest) });
    assert_eq!(cluster.state.spec.as_ref(), Some(&oldest));
}

#[test]
fn long_earlier_specifications_are_fewer() {
    let mut cluster = with_newest_format();
    for number in 0..20_u32 {
        cluster.done(changed(&cluster, |spec| {
            spec.routes[0].hosts =
                (0..4_000_u32).map(|host| format!("host-{number}-{host}.example.org")).collect();
        }));
    }
    let bytes: usize =
        cluster.state.earlier_specs.iter().map(|earlier| crate::spec::to_json(&*earlier.spec).len()).sum();
    assert!(bytes <= EARLIER_SPECS_BYTES_MAX, "{bytes}");
    assert!((2..20).contains(&cluster.state.earlier_specs.len()));
}

#[test]
fn an_older_format_keeps_no_earlier_ones() {
    let mut cluster = Cluster::new();
    cluster.done(changed(&cluster, |spec| spec.policy.failovers_max = 7));
    assert!(cluster.state.earlier_specs.is_empty());
}

#[test]
fn session_tickets_get_a_new_key_when_it_is_due_and_not_before() {
    let mut cluster = with_newest_format();
    let secret = |byte: u8| TicketSecret::new([byte; 32]);
    let rotate = |byte: u8| Command::RotateTicketKey { secret: secret(byte) };
    cluster.done(rotate(1));
    cluster.unchanged(rotate(2));
    for byte in 3..8 {
        cluster.wall += u64::try_from(ROTATE_EVERY.as_millis()).unwrap();
        cluster.done(rotate(byte));
        cluster.unchanged(rotate(byte));
    }
    let kept: Vec<_> = cluster.state.ticket_keys.iter().map(|key| key.secret.clone()).collect();
    assert_eq!(kept, [secret(5), secret(6), secret(7)]);
    assert_eq!(decode_state(&encode_state(&cluster.state)).unwrap(), cluster.state);
}
