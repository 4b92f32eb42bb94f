//! Joining, voting, leaving, moving.

use super::harness::{Cluster, DEADLINE, Node, has, wait_for};
use crate::{MemberRole, MembershipError};
use std::collections::BTreeMap;
use twinsite_model::NodeId;

async fn retry<F, Fut>(mut change: F) -> Result<(), MembershipError>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<(), MembershipError>>,
{
    let trying = async {
        loop {
            match change().await {
                Err(error) if error.retryable() => {
                    tokio::time::sleep(std::time::Duration::from_millis(10)).await;
                }
                other => return other,
            }
        }
    };
    tokio::time::timeout(DEADLINE, trying).await.expect("no change in time")
}

/// Three voters, and a fourth node that learns from them; with whoever leads.
async fn with_a_learner() -> (Cluster, Node) {
    let mut cluster = Cluster::start(3).await;
    cluster.propose("before").await;
    cluster.boot(4).await;
    let leader = cluster.leader_among(&[1, 2, 3]).await;
    retry(|| leader.add_learner(NodeId(4), "node-4")).await.unwrap();
    has(&cluster.nodes[&4], "before").await;
    (cluster, leader)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_joins_learns_votes_and_leaves_for_good() {
    let (cluster, leader) = with_a_learner().await;
    let role = |status: &crate::RaftStatus| status.members.get(&NodeId(4)).map(|member| member.role);
    assert_eq!(role(&leader.status().borrow()), Some(MemberRole::Learner));
    assert_eq!(leader.add_learner(NodeId(4), "node-4").await, Err(MembershipError::AlreadyMember(NodeId(4))));

    retry(|| leader.promote(NodeId(4))).await.unwrap();
    wait_for(&leader, "four voters", |status| status.voters().count() == 4 && !status.is_changing).await;
    retry(|| leader.remove(NodeId(4))).await.unwrap();
    wait_for(&leader, "three members", |status| status.members.len() == 3).await;
    assert_eq!(leader.add_learner(NodeId(4), "node-4").await, Err(MembershipError::Retired(NodeId(4))));
    assert_eq!(leader.promote(NodeId(9)).await, Err(MembershipError::NotMember(NodeId(9))));
    cluster.propose_among("after", &[1, 2, 3]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_id_stays_removed_through_snapshot_and_restart() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let gone = (1..=3).find(|node| *node != leader.node().0).unwrap();
    retry(|| leader.remove(NodeId(gone))).await.unwrap();
    cluster.stop(gone).await;
    cluster.propose("after").await;
    leader.trigger_snapshot().await.unwrap();
    wait_for(&leader, "a snapshot", |status| status.snapshot.is_some()).await;
    let id = leader.node().0;
    cluster.stop(id).await;
    cluster.boot(id).await;
    cluster.propose("again").await;
    let leader = cluster.leader().await;
    let refused = leader.add_learner(NodeId(gone), "anywhere").await;
    assert_eq!(refused, Err(MembershipError::Retired(NodeId(gone))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_is_founded_once_and_only_by_a_member() {
    let cluster = Cluster::start(1).await;
    let node = &cluster.nodes[&1];
    let others = BTreeMap::from([(NodeId(2), "node-2".to_owned())]);
    assert_eq!(node.initialize(&others).await, Err(MembershipError::NotAmongMembers));
    let again = BTreeMap::from([(NodeId(1), "node-1".to_owned())]);
    assert_eq!(node.initialize(&again).await, Err(MembershipError::AlreadyInitialised));
    assert_eq!(node.remove(NodeId(1)).await, Err(MembershipError::LastVoter));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_can_change() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    retry(|| leader.change_address(NodeId(2), "elsewhere-2")).await.unwrap();
    wait_for(&cluster.nodes[&3], "the address", |status| {
        status.members.get(&NodeId(2)).is_some_and(|member| member.address == "elsewhere-2")
    })
    .await;
    cluster.propose("after").await;
    cluster.everywhere("after").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_missed_too_much_gets_a_snapshot() {
    let mut cluster = Cluster::start_with(3, |options| {
        (options.snapshot_after, options.keep_after_snapshot) = (20, 5);
    })
    .await;
    let leader = cluster.leader().await;
    let behind = (1..=3).find(|node| *node != leader.node().0).unwrap();
    cluster.stop(behind).await;
    for request in 0..100 {
        cluster.propose(&format!("r{request}")).await;
    }
    let leader = cluster.leader().await;
    wait_for(&leader, "a purged log", |status| status.purged.is_some_and(|purged| purged.0 > 50)).await;
    cluster.net.sent();
    let node = cluster.boot(behind).await;
    let (_, mut changes) = node.subscribe();
    has(&node, "r99").await;
    let change = tokio::time::timeout(DEADLINE, changes.next()).await.unwrap().unwrap();
    assert!(change.skipped && change.events.is_empty(), "a snapshot skips revisions and says so");
    let snapshots =
        cluster.net.sent().iter().filter(|(_, _, kind)| *kind == super::harness::Kind::Snapshot).count();
    assert!(snapshots > 0);
    assert_eq!(node.state(), leader.state());
}

/// openraft takes the two steps of a change in the task that asked for it: when that ends in between, with its node or
/// its patience, both sets of voters count until somebody takes the second.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_that_was_left_half_done_can_be_finished() {
    let (cluster, leader) = with_a_learner().await;

    // The first step reaches nobody, and whoever asked is gone before it does.
    let me = leader.node().0;
    let others: Vec<_> = (1..=4).filter(|node| *node != me).collect();
    cluster.net.cut(me, &others, true);
    let asks = leader.clone();
    let asked = tokio::spawn(async move { asks.promote(NodeId(4)).await });
    wait_for(&leader, "the first step", |status| status.voters().count() == 4).await;
    asked.abort();
    cluster.net.cut(me, &others, false);
    let leader = cluster.leader_among(&[1, 2, 3]).await;
    cluster.propose("between").await;
    if leader.status().borrow().voters().count() == 4 {
        assert!(leader.status().borrow().is_changing, "nobody takes the second step by himself");
        retry(|| leader.finish_change()).await.unwrap();
    } else {
        // An election has undone the first step as well.
        retry(|| leader.promote(NodeId(4))).await.unwrap();
    }
    wait_for(&leader, "four voters", |status| status.voters().count() == 4 && !status.is_changing).await;
    cluster.propose("after").await;
}
