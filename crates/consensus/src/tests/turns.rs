//! Who stands for election, and when.

use super::harness::{Cluster, DEADLINE, Kind, wait_for};
use std::time::Duration;
use twinsite_model::NodeId;

/// These nodes come one after the other.
fn take_turns(cluster: &Cluster, order: &[u64]) {
    let nodes: Vec<_> = order.iter().copied().map(NodeId).collect();
    for node in order {
        cluster.nodes[node].set_election_order(&nodes);
    }
}

/// The leader of a cluster in which nobody is behind, and the others in their order: a voter grants nothing to a node with a
/// shorter log than its own.
async fn led(cluster: &Cluster) -> (u64, Vec<u64>) {
    cluster.propose("before").await;
    cluster.everywhere("before").await;
    let leader = cluster.leader().await.node().0;
    let others = cluster.others(leader);
    take_turns(cluster, &others);
    (leader, others)
}

/// When a leader dies, the node whose turn is first leads next, long before openraft's own timer would have run out.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_stand_for_election_in_turn() {
    let mut cluster = Cluster::start(5).await;
    for round in 0..6 {
        // Nobody is behind: a voter grants nothing to a node with a shorter log than its own.
        let request = format!("round {round}");
        cluster.propose(&request).await;
        cluster.everywhere(&request).await;
        let leader = cluster.leader().await.node().0;
        let mut others = cluster.others(leader);
        // Another order each time, so that no other preference can be mistaken for it.
        others.rotate_left(round % 4);
        take_turns(&cluster, &others);
        cluster.stop(leader).await;
        let next = cluster.leader().await.node().0;
        assert_eq!(next, others[0], "round {round}: {others:?}");
        cluster.boot(leader).await;
    }
}

/// A leader whose first heartbeats are slow is not unseated by the next in the order, whose vote it has.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_has_voted_gives_the_elected_the_time_to_be_heard() {
    // So long that a machine which is busy for a quarter of a second is not taken for a node that stood too soon.
    const HEARTBEAT: Duration = Duration::from_millis(300);
    const ELECTION_MAX: Duration = Duration::from_millis(1_200);
    let cluster = Cluster::start_with(5, |options| {
        options.timing.heartbeat = HEARTBEAT;
        options.timing.election_min = Duration::from_millis(800);
        options.timing.election_max = ELECTION_MAX;
    })
    .await;
    let (leader, others) = led(&cluster).await;
    let slow = |slow| [Kind::Heartbeat, Kind::Append].map(|kind| cluster.net.block(kind, slow));
    slow(true);
    cluster.net.detach(leader);
    let elected = &cluster.nodes[&others[0]];
    wait_for(elected, "leading", |status| status.is_leader).await;
    let term = elected.status().borrow().term;
    // Nothing is heard of it for as long as three places in the order lie apart, and it hears of no candidate.
    cluster.net.cut(others[0], &others[1..], true);
    tokio::time::sleep(HEARTBEAT * 3 / 2).await;
    slow(false);
    cluster.net.cut(others[0], &others[1..], false);
    tokio::time::sleep(2 * ELECTION_MAX).await;
    let status = elected.status().borrow().clone();
    assert!(status.is_leader && status.term == term, "elected in term {term}, and now: {status:?}");
}

/// Who is refused, because others heard the leader later than it did, asks them again long before openraft's own timer
/// would have run out.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_refused_stands_again() {
    const ELECTION_MIN: Duration = Duration::from_millis(1_900);
    let cluster = Cluster::start_with(3, |options| {
        options.timing.heartbeat = Duration::from_millis(100);
        options.timing.election_min = ELECTION_MIN;
        options.timing.election_max = Duration::from_millis(2_000);
    })
    .await;
    let (leader, others) = led(&cluster).await;
    cluster.net.sent();
    cluster.net.block(Kind::PreVote, true);
    // Both ways, for a leader that hears nobody would still be heard.
    cluster.net.cut(leader, &others, true);
    let asked = async || {
        let deadline = tokio::time::Instant::now() + DEADLINE;
        while !cluster.net.sent().contains(&(others[0], others[1], Kind::PreVote)) {
            assert!(tokio::time::Instant::now() < deadline, "it never asked");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        tokio::time::Instant::now()
    };
    let first = asked().await;
    let second = asked().await;
    assert!(second - first < ELECTION_MIN / 2, "again after {:?}", second - first);
    cluster.net.block(Kind::PreVote, false);
    cluster.leader_among(&others).await;
}
