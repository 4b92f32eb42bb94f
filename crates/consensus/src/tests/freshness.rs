//! A read is answered by messages that were sent after it was asked, and by nothing else.

use super::harness::{Cluster, DEADLINE, Kind, Node};
use crate::ReadError;
use std::time::Duration;

/// Heartbeats rare enough that a held answer is not given up meanwhile.
fn rare_heartbeats(options: &mut crate::Options) {
    options.timing.heartbeat = Duration::from_secs(1);
    options.timing.election_min = Duration::from_millis(2_500);
    options.timing.election_max = Duration::from_secs(3);
    options.read_timeout = Duration::from_millis(500);
}

/// openraft stamps a heartbeat when it is sent and compares with `>` (`SendStamp`, `handle_get_linearizer`,
/// `PendingReadQueue::drain_satisfied` in 0.10.0-alpha.37). So the answer to a heartbeat that was sent before the
/// read, but arrives after it, must not answer the read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_to_an_earlier_heartbeat_does_not_answer_a_later_read() {
    let cluster = Cluster::start_with(3, rare_heartbeats).await;
    cluster.propose("ready").await;
    let leader = cluster.leader().await;

    // A periodic heartbeat may slip in just before the early read, and then its answers are the held ones, which
    // rightly answer neither read. Once must suffice; the late read is never answered.
    for _ in 0..20 {
        if early_is_answered_and_late_is_not(&cluster, &leader).await {
            assert!(leader.read_index().await.is_ok());
            return;
        }
    }
    panic!("held answers never answered the read that was asked before their heartbeats");
}

/// Asks one read, holds the answers to its heartbeats, asks another, and lets the answers go.
async fn early_is_answered_and_late_is_not(cluster: &Cluster, leader: &Node) -> bool {
    // Heartbeats go out and are answered, but the answers do not arrive.
    cluster.net.hold_answers.send_replace(true);
    let before = *cluster.net.held.borrow();
    let early = tokio::spawn({
        let leader = leader.clone();
        async move { leader.read_index().await }
    });
    let mut held = cluster.net.held.subscribe();
    tokio::time::timeout(DEADLINE, held.wait_for(|held| *held >= before + 2)).await.unwrap().unwrap();

    // From here on every *new* heartbeat is lost: only the held answers can still arrive.
    cluster.net.block(Kind::Heartbeat, true);
    let mut late = std::pin::pin!(leader.read_index());
    assert!(futures_util::poll!(late.as_mut()).is_pending());
    // The core takes requests in order: when it has answered this one, it has taken the late read.
    leader.raft.with_raft_state(|_| ()).await.unwrap();
    cluster.net.hold_answers.send_replace(false);

    let early = tokio::time::timeout(DEADLINE, early).await.unwrap().unwrap();
    let late = tokio::time::timeout(DEADLINE, late).await.unwrap();
    assert_eq!(late, Err(ReadError::NoQuorum), "no heartbeat that followed the read was answered");
    cluster.net.block(Kind::Heartbeat, false);
    early.is_ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_read_sends_heartbeats_of_its_own() {
    let cluster = Cluster::start_with(3, rare_heartbeats).await;
    cluster.propose("ready").await;
    let leader = cluster.leader().await;
    for _ in 0..5 {
        cluster.net.sent();
        leader.read_index().await.unwrap();
        let sent = cluster.net.sent();
        let beats =
            sent.iter().filter(|(from, _, kind)| *from == leader.node().0 && *kind == Kind::Heartbeat);
        assert!(beats.count() >= 1, "{sent:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_reads_share_heartbeats() {
    let cluster = Cluster::start_with(3, rare_heartbeats).await;
    cluster.propose("ready").await;
    let leader = cluster.leader().await;
    cluster.net.sent();
    let reads: Vec<_> = (0..200)
        .map(|_| {
            let leader = leader.clone();
            tokio::spawn(async move { leader.read_index().await })
        })
        .collect();
    for read in reads {
        read.await.unwrap().unwrap();
    }
    let beats = cluster.net.sent().iter().filter(|(_, _, kind)| *kind == Kind::Heartbeat).count();
    assert!(beats < 400, "{beats} heartbeats for 200 reads by 2 peers");
}
