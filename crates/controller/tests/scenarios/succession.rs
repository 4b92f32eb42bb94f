//! What a new leader takes over: the journal, and the leases that its predecessors granted.

use crate::cluster::{Cluster, GRA_1, GRA_2, SBG_1, ip, wanted};
use std::time::Duration;
use twinsite_controller::{Effect, MoveKind, MoveTarget, OperatorAction, ReleasedBy, election_order};
use twinsite_model::spec::{HumanDuration, NodeKind, NodeSpec};
use twinsite_model::{ClusterSpec, Command, NodeId, Outcome, Step};

fn with_lease(cluster: &Cluster, milliseconds: u64) -> Command {
    let mut spec = ClusterSpec::clone(cluster.state.spec.as_ref().unwrap());
    spec.timing.lease = Some(HumanDuration(Duration::from_millis(milliseconds)));
    Command::ApplySpec { spec: spec.into() }
}

#[test]
fn a_new_leader_resumes_the_journal_at_the_recorded_step() {
    let mut cluster = Cluster::new(|_| {});
    cluster.outside = false;
    cluster.ask(OperatorAction::Move(wanted(MoveKind::Switchover, MoveTarget::Node(SBG_1), &[]))).unwrap();
    cluster.run_until("the proof", |cluster| cluster.step() == Some(Step::Verify));
    let before = cluster.running().unwrap().clone();
    let proposed = cluster.proposed.len();
    cluster.elect();
    cluster.run(Duration::from_secs(1));
    assert_eq!(cluster.running(), Some(&before), "nothing is repeated, nothing given up");
    cluster.outside = true;
    cluster.run_until("the end", Cluster::is_settled);
    let done = cluster.state.operation(before.id).unwrap();
    assert_eq!(done.ended.unwrap().1, Outcome::Verified);
    assert_eq!(done.steps[..6], before.steps[..6]);
    let again =
        |command: &&Command| matches!(command, Command::BeginOperation { .. } | Command::Assign { .. });
    assert_eq!(cluster.proposed[proposed..].iter().filter(again).count(), 0);
}

#[test]
fn a_new_leader_resumes_a_fence_and_outwaits_the_old_owner_anew() {
    let mut cluster = Cluster::new(|_| {});
    cluster.run(Duration::from_secs(1));
    cluster.silent.insert(GRA_1);
    cluster.ask(OperatorAction::Move(wanted(MoveKind::Failover, MoveTarget::Node(GRA_2), &[]))).unwrap();
    cluster.run(Duration::from_millis(200));
    assert_eq!(cluster.step(), Some(Step::Fence));
    cluster.elect();
    let wait = cluster.wait();
    let took = cluster.run_until("the new owner", |cluster| cluster.owner_node() == Some(GRA_2));
    assert!(took >= wait && took < wait + Duration::from_millis(60), "{took:?}, W = {wait:?}");
}

/// A young leader waits until everybody has reported. An owner that was seen to end will not, and is not waited for.
#[test]
fn a_young_leader_that_has_heard_everybody_replaces_an_ended_owner_at_once() {
    let mut cluster = Cluster::new(|_| {});
    cluster.run(Duration::from_secs(1));
    cluster.elect();
    cluster.run(Duration::from_millis(150));
    let owner = cluster.owner().unwrap();
    cluster.silent.insert(GRA_1);
    cluster.release(&ip(), &owner, ReleasedBy::Guardian);
    assert_eq!(cluster.owner_node(), Some(GRA_2), "no time needs to pass");
}

#[test]
fn a_leader_that_never_saw_the_longer_lease_outwaits_it() {
    let mut cluster = Cluster::new(|_| {});
    let longer = with_lease(&cluster, 2_000);
    cluster.agree(longer);
    cluster.run(Duration::from_millis(100));
    let wait = cluster.wait();
    let shorter = with_lease(&cluster, 320);
    cluster.agree(shorter);
    cluster.elect();
    cluster.silent.insert(GRA_1);
    let took = cluster.run_until("another owner", |cluster| cluster.owner_node() != Some(GRA_1));
    assert!(took >= wait, "{took:?}, and the longest W was {wait:?}");
}

#[test]
fn a_leader_that_had_not_applied_the_longer_lease_outwaits_it() {
    let mut cluster = Cluster::new(|_| {});
    let short = cluster.wait();
    // The fence runs when the leader changes: the newcomer would only have to wait.
    cluster.silent.insert(GRA_1);
    cluster.ask(OperatorAction::Move(wanted(MoveKind::Failover, MoveTarget::Node(GRA_2), &[]))).unwrap();
    let behind = cluster.state.clone();
    let longer = with_lease(&cluster, 2_000);
    cluster.agree(longer);
    let elected = cluster.now;
    cluster.elect_behind(behind);
    cluster.run(3 * short);
    let wanted = cluster.catch_up();
    let fence =
        |effect: &&Effect| matches!(effect, Effect::Propose { proposal, .. } if is_fence(&proposal.command));
    assert_eq!(wanted.iter().find(fence), None, "who has not caught up cannot know how long to wait");
    cluster.run_until("the new owner", |cluster| cluster.owner_node() == Some(GRA_2));
    let took = cluster.since(elected);
    assert!(took >= cluster.wait(), "{took:?}, W = {:?}", cluster.wait());
}

fn is_fence(command: &Command) -> bool {
    matches!(command, Command::CompleteFence { .. })
}

#[test]
fn nodes_away_from_the_owner_stand_first_and_the_witness_last() {
    let cluster = Cluster::new(|spec| spec.floating_ips[0].sites.reverse());
    let state = &cluster.state;
    let spec = state.spec.as_ref().unwrap();
    let owner_site = state.owner_site(&ip()).unwrap();
    let order = election_order(state);
    assert_eq!(order.len(), spec.nodes.iter().filter(|node| node.kind.votes()).count());
    let named = |id: &NodeId| spec.nodes.iter().find(|node| node.id == *id).unwrap();
    let rank = |node: &NodeSpec| match node.kind {
        NodeKind::Witness => 2,
        _ if node.site == *owner_site => 1,
        _ => 0,
    };
    let ranks: Vec<_> = order.iter().map(|id| rank(named(id))).collect();
    assert!(ranks.is_sorted(), "{ranks:?}");
    assert_eq!((ranks.first(), ranks.last()), (Some(&0), Some(&2)));
}
