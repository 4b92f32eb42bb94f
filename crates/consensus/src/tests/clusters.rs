//! What a cluster does: elect, commit, tell, survive.

use super::harness::{Cluster, DEADLINE, Net, Node, has, options, proposal, timing, try_propose, wait_for};
use crate::disk::{Disk, MemoryDisk};
use crate::{ProposeError, ReadError, SubscriptionEnd, WaitError};
use std::sync::Arc;
use std::time::Duration;
use twinsite_model::{Effect, NodeId};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_nodes_agree_and_tell_their_subscribers_in_order() {
    let cluster = Cluster::start(3).await;
    let (state, mut changes) = cluster.nodes[&2].subscribe();
    let first = cluster.propose("one").await;
    let second = cluster.propose("two").await;
    assert_eq!(first.result, Ok(Effect::Done));
    assert!(second.revision > first.revision);
    for expected in [&first, &second] {
        let change = tokio::time::timeout(DEADLINE, changes.next()).await.unwrap().unwrap();
        assert!(change.revision > state.revision);
        assert_eq!((change.revision, &change.events), (expected.revision, &expected.events));
        assert_eq!(change.state.revision, expected.revision);
    }
    cluster.everywhere("two").await;
    assert_eq!(cluster.nodes[&1].state(), cluster.nodes[&3].state());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeated_request_is_recognised() {
    let cluster = Cluster::start(3).await;
    let first = cluster.propose("same").await;
    let second = cluster.propose("same").await;
    assert_eq!(second.result, Ok(Effect::Repeated(first.revision)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_names_the_leader() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.leader().await.node();
    let follower = cluster.nodes.values().find(|node| node.node() != leader).unwrap();
    wait_for(follower, "a known leader", |status| status.leader == Some(leader)).await;
    let refused = try_propose(follower, "x").await.unwrap_err();
    assert_eq!(refused, ProposeError::NotLeader { leader: Some(leader) });
    assert!(refused.certainly_not_done());
    assert_eq!(follower.read_index().await, Err(ReadError::NotLeader { leader: Some(leader) }));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_death_of_the_leader_loses_nothing_acknowledged() {
    let mut cluster = Cluster::start(3).await;
    for round in 0..3 {
        let request = format!("before-{round}");
        cluster.propose(&request).await;
        let leader = cluster.leader().await.node().0;
        cluster.stop(leader).await;
        cluster.propose(&format!("after-{round}")).await;
        cluster.boot(leader).await;
        cluster.everywhere(&request).await;
        cluster.everywhere(&format!("after-{round}")).await;
    }
}

/// A node that is not ready to lead leads nothing, however long that takes, not even alone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_prepared_node_takes_part_only_when_it_is_told_to() {
    let (net, disk) = (Net::new(), Arc::new(MemoryDisk::new(1)));
    let first = Node::start(options(1), Arc::clone(&disk) as Arc<dyn Disk>, net.end(1)).await.unwrap();
    wait_for(&first, "taking part", |status| status.started).await;
    first.initialize(&[(NodeId(1), "node-1".to_owned())].into()).await.unwrap();
    wait_for(&first, "leading", |status| status.is_leader).await;
    first.shutdown().await;

    let second = Node::prepare(options(1), disk, net.end(1)).await.unwrap();
    tokio::time::sleep(4 * timing().election_max).await;
    assert!(!second.status().borrow().started);
    assert_eq!(second.read_index().await, Err(ReadError::NotLeader { leader: None }));
    second.take_part();
    wait_for(&second, "leading", |status| status.is_leader).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_of_all_nodes_keeps_acknowledged_commands() {
    let mut cluster = Cluster::start(3).await;
    for request in 0..20 {
        cluster.propose(&format!("r{request}")).await;
    }
    let before = cluster.leader().await.state();
    for node in 1..=3 {
        cluster.stop(node).await;
    }
    for node in 1..=3 {
        cluster.boot(node).await;
    }
    cluster.propose("after").await;
    for request in 0..20 {
        cluster.everywhere(&format!("r{request}")).await;
    }
    assert!(cluster.leader().await.state().revision > before.revision);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_isolated_leader_answers_no_read_and_commits_nothing() {
    let cluster = Cluster::start(3).await;
    let old = cluster.leader().await;
    let others: Vec<u64> = (1..=3).filter(|node| *node != old.node().0).collect();
    cluster.net.cut(old.node().0, &others, true);
    assert_eq!(old.read_index().await, Err(ReadError::NoQuorum));
    cluster.propose_among("new", &others).await;
    // Long after its successor was elected it still believes; that is why nothing may be keyed on the flag.
    let refused = old.read_index().await.unwrap_err();
    assert_eq!(refused, ReadError::NoQuorum, "is_leader: {}", old.status().borrow().is_leader);
    let refused = try_propose(&old, "lost").await.unwrap_err();
    assert_eq!(refused, ProposeError::LeaseNotYetHeld);
    cluster.net.cut(old.node().0, &others, false);
    has(&old, "new").await;
    assert!(!super::harness::remembers(&old, "lost"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_caught_in_a_change_of_leader_has_an_unknown_outcome() {
    let cluster = Cluster::start(3).await;
    cluster.propose("ready").await;
    let old = cluster.leader().await;
    let others: Vec<u64> = (1..=3).filter(|node| *node != old.node().0).collect();
    cluster.net.cut(old.node().0, &others, true);
    // The lease is still valid, so the command enters the old leader's log, and goes nowhere.
    let caught = tokio::spawn({
        let old = old.clone();
        async move { try_propose(&old, "caught").await }
    });
    cluster.propose_among("winner", &others).await;
    cluster.net.cut(old.node().0, &others, false);
    let outcome = tokio::time::timeout(DEADLINE, caught).await.unwrap().unwrap();
    assert_eq!(outcome.unwrap_err(), ProposeError::OutcomeUnknown);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_index_waits_for_what_was_acknowledged_before() {
    let cluster = Cluster::start(3).await;
    let applied = cluster.propose("written").await;
    let leader = cluster.leader().await;
    let index = leader.read_index().await.unwrap();
    assert!(index.0 >= applied.revision.0);
    for node in cluster.nodes.values() {
        node.wait_applied(index, DEADLINE).await.unwrap();
        assert!(node.state().revision >= applied.revision);
    }
    let never = crate::LogIndex(index.0 + 1_000);
    let waited = leader.wait_applied(never, Duration::from_millis(20)).await;
    assert_eq!(waited, Err(WaitError::TimedOut));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_subscriber_is_told_and_can_begin_again() {
    let cluster = Cluster::start_with(1, |options| options.subscription_capacity = 4).await;
    let (_, mut changes) = cluster.nodes[&1].subscribe();
    for request in 0..10 {
        cluster.propose(&format!("r{request}")).await;
    }
    let SubscriptionEnd::Lagged(lagged) = changes.next().await.unwrap_err() else { panic!("not lagged") };
    assert_eq!(lagged.missed, 6);
    let (state, mut changes) = cluster.nodes[&1].subscribe();
    assert!(super::harness::remembers(&cluster.nodes[&1], "r9"));
    let applied = cluster.propose("next").await;
    let change = changes.next().await.unwrap();
    assert_eq!(change.revision, applied.revision);
    assert!(change.revision > state.revision);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leadership_goes_to_whom_it_is_given() {
    let cluster = Cluster::start(3).await;
    for _ in 0..3 {
        let leader = cluster.leader().await;
        let to = NodeId(leader.node().0 % 3 + 1);
        leader.transfer_leadership(to).await.unwrap();
        let now = cluster.leader().await;
        assert_eq!(now.node(), to);
        cluster.propose(&format!("under-{to}")).await;
    }
}

// One thread: the first proposal cannot be done before the second is made.
#[tokio::test]
async fn too_many_or_too_large_proposals_are_refused_and_harm_nobody() {
    let cluster = Cluster::start_with(1, |options| options.proposals_max = 1).await;
    let node = &cluster.nodes[&1];
    let (first, second) = tokio::join!(async { node.propose(&proposal("first")).await }, async {
        node.propose(&proposal("second")).await
    },);
    assert!(first.is_ok());
    assert_eq!(second, Err(ProposeError::Busy));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_decision_of_an_earlier_term_is_refused_even_by_the_same_leader() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let term = leader.status().borrow().term;
    leader.propose_in_term(term, &proposal("in-its-term")).await.unwrap();
    let other = NodeId(leader.node().0 % 3 + 1);
    leader.transfer_leadership(other).await.unwrap();
    let between = cluster.leader().await;
    assert_eq!(between.node(), other);
    between.transfer_leadership(leader.node()).await.unwrap();
    assert_eq!(cluster.leader().await.node(), leader.node());
    let late = leader.propose_in_term(term, &proposal("late")).await;
    assert!(matches!(late, Err(ProposeError::NotLeader { .. })), "{late:?}");
    assert!(!super::harness::remembers(&leader, "late"));
}
