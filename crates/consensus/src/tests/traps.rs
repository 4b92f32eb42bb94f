//! The traps of openraft 0.10.0-alpha.37 that are known, one test each. `OVERVIEW.md` lists the answers.

use super::harness::{Cluster, DEADLINE, End, Kind, Net, Node, has, options, proposal, timing, wait_for};
use super::storage::{found, single};
use crate::disk::{self, Disk, MemoryDisk, Write};
use crate::pb;
use crate::raft_types::{Command as RaftCommand, Entry, Payload, log_id};
use crate::{
    Consensus, Destination, ElectionBias, Lane, Options, Refused, SnapshotTransfer, StartError, StopReason,
    TokioRuntime, TransferError, Transport, TransportError, recover_disk, wire,
};
use std::sync::Arc;
use std::time::{Duration, Instant};
use twinsite_model::{Generation, NodeId};

/// Trap 1: a restarted voter has forgotten whom it granted its lease, so it keeps silent for one `election_max`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trap_1_a_restarted_node_neither_votes_nor_stands_before_the_old_lease_is_over() {
    let net = Net::new();
    let mut late = options(1);
    late.start_delay = Options::new(late.cluster.clone(), NodeId(1), timing()).start_delay;
    assert_eq!(late.start_delay, timing().election_max);
    let began = Instant::now();
    let node = Node::start(late, Arc::new(MemoryDisk::new(1)), net.end(1)).await.unwrap();
    let inbound = node.inbound();
    let ask = || pb::ExchangeRequest {
        header: Some(pb::Header {
            cluster: "test".into(),
            protocol: 1,
            generation: 1,
            from: 2,
            to: 1,
            disk: 2,
        }),
        body: Some(pb::exchange_request::Body::Vote(pb::Ballot {
            vote: Some(pb::Vote { term: 5, node: 2, committed: false }),
            last: None,
            transfer: false,
        })),
    };
    assert_eq!(inbound.exchange(ask()).await.unwrap_err(), Refused::NotTakingPart);
    wait_for(&node, "taking part", |status| status.started).await;
    assert!(began.elapsed() >= timing().election_max);
    assert!(inbound.exchange(ask()).await.is_ok());
}

/// Trap 2: nothing commits without a quorum, whatever the leader's own disk says.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trap_2_nothing_commits_without_a_quorum() {
    let cluster = Cluster::start(5).await;
    let leader = cluster.leader().await;
    let away = cluster.others(leader.node().0);
    let before = leader.state().revision;
    cluster.net.cut(leader.node().0, &away[1..], true);
    let kept = away[0];
    let outcome = leader.propose(&proposal("minority")).await;
    assert!(outcome.is_err(), "{outcome:?}");
    assert_eq!(leader.state().revision, before);
    assert_eq!(cluster.nodes[&kept].state().revision, before);
}

/// Trap 3: a transfer to a node that is away or behind is not tried at all, and one that fails half-way ends.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trap_3_a_failed_transfer_leaves_a_bounded_hole() {
    let cluster = Cluster::start(3).await;
    cluster.propose("ready").await;
    let leader = cluster.leader().await;
    let to = NodeId(leader.node().0 % 3 + 1);

    cluster.net.cut(to.0, &cluster.others(to.0), true);
    assert_eq!(leader.transfer_leadership(to).await, Err(TransferError::Unreachable(to)));
    assert!(leader.status().borrow().is_leader);
    cluster.net.cut(to.0, &cluster.others(to.0), false);
    has(&cluster.nodes[&to.0], "ready").await;

    // The target answers, but the request to take over never reaches it.
    cluster.net.block(Kind::Transfer, true);
    let leader = cluster.leader().await;
    let to = NodeId(leader.node().0 % 3 + 1);
    let began = Instant::now();
    assert_eq!(leader.transfer_leadership(to).await, Err(TransferError::Failed(to)));
    cluster.propose("after the hole").await;
    let bound = 6 * timing().election_max;
    assert!(began.elapsed() < bound, "{:?}", began.elapsed());
    assert_eq!(leader.transfer_leadership(NodeId(9)).await.unwrap_err().retryable(), leader_moved(&leader));
}

/// Trap 3, over a slow network: with a third of a second for a round trip, a transfer left a hole of two seconds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trap_3_who_would_take_over_too_late_is_not_asked_to() {
    // Above a third of `election_min`, and below a heartbeat's time.
    const LATE: Duration = Duration::from_millis(100);
    const HEARTBEAT: Duration = Duration::from_millis(150);
    let within = timing().election_min / 3;
    assert!(within < LATE && LATE < HEARTBEAT);
    let cluster = Cluster::start_with(3, |options| options.timing.heartbeat = HEARTBEAT).await;
    cluster.propose("ready").await;
    let leader = cluster.leader().await;
    let to = NodeId(leader.node().0 % 3 + 1);
    has(&cluster.nodes[&to.0], "ready").await;
    cluster.net.delay_answers(LATE);
    cluster.net.sent();
    let began = Instant::now();
    let mut refused = leader.transfer_leadership(to).await;
    // A machine that is late itself makes more of LATE than `election_min`: then the target counts as away.
    while refused == Err(TransferError::Unreachable(to)) && began.elapsed() < DEADLINE {
        refused = leader.transfer_leadership(to).await;
    }
    assert_eq!(refused, Err(TransferError::TooSlow { node: to, within }));
    assert!(cluster.net.sent().iter().all(|(_, _, kind)| *kind != Kind::Transfer), "nothing was tried");
    assert!(leader.status().borrow().is_leader);
    cluster.net.delay_answers(Duration::ZERO);
    // Answers that were under way are still late.
    let began = Instant::now();
    while let Err(refused) = leader.transfer_leadership(to).await {
        assert!(refused.retryable() && began.elapsed() < DEADLINE, "{refused}");
    }
}

fn leader_moved(node: &Node) -> bool {
    !node.status().borrow().is_leader
}

/// Trap 4: a peer that takes messages and never answers delays nobody.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trap_4_a_peer_that_never_answers_blocks_nobody() {
    #[derive(Clone)]
    struct Hanging(End);
    impl Transport for Hanging {
        async fn exchange(
            &self,
            to: &Destination,
            lane: Lane,
            message: pb::ExchangeRequest,
            ttl: Duration,
        ) -> Result<pb::ExchangeResponse, TransportError> {
            if to.node == NodeId(3) {
                return std::future::pending().await;
            }
            self.0.exchange(to, lane, message, ttl).await
        }
        async fn install_snapshot(
            &self,
            _: &Destination,
            _: SnapshotTransfer,
            _: Duration,
        ) -> Result<pb::InstallSnapshotResponse, TransportError> {
            std::future::pending().await
        }
    }
    let net = Net::new();
    let mut nodes = Vec::new();
    for id in 1..=2 {
        let disk = Arc::new(MemoryDisk::new(id));
        let node = Node::start(options(id), disk, Hanging(net.end(id))).await.unwrap();
        net.attach(&node);
        nodes.push(node);
    }
    for node in &nodes {
        wait_for(node, "taking part", |status| status.started).await;
    }
    let members = (1..=3).map(|id| (NodeId(id), format!("node-{id}"))).collect();
    nodes[0].initialize(&members).await.unwrap();
    let committed = async {
        loop {
            for node in &nodes {
                if node.propose(&proposal("past the hanging peer")).await.is_ok() {
                    return node.read_index().await.unwrap();
                }
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(DEADLINE, committed).await.unwrap();
}

/// Trap 4, the rest: every proposal is answered, those caught in a shutdown too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trap_4_every_proposal_is_answered() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let proposals: Vec<_> = (0..50)
        .map(|n| {
            let leader = leader.clone();
            tokio::spawn(async move { leader.propose(&proposal(&format!("p{n}"))).await.map(drop) })
        })
        .collect();
    leader.shutdown().await;
    for proposal in proposals {
        let answer = tokio::time::timeout(DEADLINE, proposal).await.expect("an answer").unwrap();
        if let Err(error) = answer {
            assert!(!matches!(error, crate::ProposeError::TooLarge { .. }), "{error}");
        }
    }
}

/// Trap 5: a voter that lost its disk has lost its promises. Its peers know the disk they met it with.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trap_5_a_wiped_node_is_refused_under_its_old_id() {
    let mut cluster = Cluster::start(3).await;
    cluster.propose("before").await;
    cluster.everywhere("before").await;
    let leader = cluster.leader().await;
    let wiped = (1..=3).find(|node| *node != leader.node().0).unwrap();
    cluster.stop(wiped).await;
    cluster.disks.insert(wiped, MemoryDisk::new(9_999));
    let node = cluster.boot(wiped).await;
    let rest = cluster.others(wiped);
    cluster.propose_among("after", &rest).await;

    // Neither does the cluster speak to it, nor does its vote count.
    let inbound = cluster.nodes[&rest[0]].inbound();
    let refused = inbound.exchange(pb::ExchangeRequest {
        header: Some(pb::Header {
            cluster: "test".into(),
            protocol: 1,
            generation: 1,
            from: wiped,
            to: rest[0],
            disk: 9_999,
        }),
        body: None,
    });
    assert_eq!(refused.await.unwrap_err(), Refused::OtherDisk(NodeId(wiped)));
    cluster.net.cut(rest[0], &[rest[1]], true);
    let alone = cluster.nodes[&rest[0]].clone();
    tokio::time::sleep(3 * timing().election_max).await;
    assert!(alone.propose(&proposal("with the wiped one")).await.is_err());
    assert!(cluster.nodes[&rest[1]].propose(&proposal("with the wiped one")).await.is_err());
    assert_eq!(node.state().revision.0, 0);
}

/// Trap 6: a restarted leader must be elected again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trap_6_a_restarted_leader_does_not_resume() {
    let mut cluster = Cluster::start(3).await;
    cluster.propose("before").await;
    let leader = cluster.leader().await.node().0;
    let term = cluster.nodes[&leader].status().borrow().term;
    for node in 1..=3 {
        cluster.stop(node).await;
    }
    let alone = cluster.boot(leader).await;
    tokio::time::sleep(2 * timing().election_max).await;
    assert!(!alone.status().borrow().is_leader, "it leads without anybody");
    for node in cluster.others(leader).into_iter().chain((1..=3).filter(|node| *node != leader)) {
        cluster.boot(node).await;
    }
    cluster.propose("after").await;
    assert!(cluster.leader().await.status().borrow().term > term);
}

/// Trap 6, the other half: the state machine is in memory, so how far entries were committed must be on disk.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trap_6_a_restarted_node_shows_no_older_state_than_it_showed() {
    let mut cluster = Cluster::start(3).await;
    for request in 0..10 {
        cluster.propose(&format!("r{request}")).await;
    }
    cluster.everywhere("r9").await;
    for node in 1..=3 {
        cluster.stop(node).await;
    }
    let alone = cluster.boot(2).await;
    assert!(super::harness::remembers(&alone, "r9"), "before it heard from anybody");
}

/// Trap 7: one leader per term, so that a term can stand for a leader.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trap_7_two_nodes_never_lead_in_one_term() {
    let cluster = Cluster::start(3).await;
    let mut leaders = std::collections::BTreeMap::new();
    for round in 0..6 {
        let leader = cluster.leader().await;
        let status = leader.status().borrow().clone();
        if status.is_leader {
            let before = leaders.insert(status.term, leader.node());
            assert!(before.is_none_or(|before| before == leader.node()), "term {}", status.term);
        }
        let rest = cluster.others(leader.node().0);
        cluster.net.cut(leader.node().0, &rest, true);
        cluster.propose_among(&format!("round-{round}"), &rest).await;
        cluster.net.cut(leader.node().0, &rest, false);
    }
    assert!(leaders.len() > 3);
    assert!(
        crate::raft_types::vote(3, 2, true).partial_cmp(&crate::raft_types::vote(3, 1, true)).is_none(),
        "votes for different nodes in one term cannot both win"
    );
}

/// Trap 8: slow disks must not start elections: heartbeats wait for no disk.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trap_8_a_slow_disk_starts_no_election() {
    struct Slow(MemoryDisk);
    impl Disk for Slow {
        fn load(&self) -> Result<disk::Contents, disk::DiskError> {
            self.0.load()
        }
        fn submit(&self, batch: Vec<Write>, urgency: disk::Urgency, done: disk::Done) {
            let disk = self.0.clone();
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(100)).await;
                disk.submit(batch, urgency, done);
            });
        }
        fn close(&self) {}
    }
    let net = Net::new();
    let mut nodes = Vec::new();
    for id in 1..=3 {
        let node = Node::start(options(id), Arc::new(Slow(MemoryDisk::new(id))), net.end(id)).await.unwrap();
        net.attach(&node);
        wait_for(&node, "taking part", |status| status.started).await;
        nodes.push(node);
    }
    let members = (1..=3).map(|id| (NodeId(id), format!("node-{id}"))).collect();
    nodes[0].initialize(&members).await.unwrap();
    wait_for(&nodes[2], "a leader", |status| status.leader.is_some()).await;
    let leader = nodes[2].status().borrow().leader.unwrap();
    let leader = nodes.iter().find(|node| node.node() == leader).unwrap().clone();
    let mut done = 0;
    while done < 10 {
        if leader.propose(&proposal(&format!("slow-{done}"))).await.is_ok() {
            done += 1;
        }
    }
    let term = leader.status().borrow().term;
    for n in 0..10 {
        leader.propose(&proposal(&format!("slower-{n}"))).await.unwrap();
    }
    assert_eq!(leader.status().borrow().term, term);
}

/// Traps 9 and 10 need no code of ours: the random part comes on top of the lease, and nothing here hangs on
/// openraft's callbacks. What is shown: whoever follows the status is never waited for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn traps_9_and_10_an_idle_watcher_delays_no_change_of_leader() {
    let cluster = Cluster::start(3).await;
    let _never_read: Vec<_> = cluster.nodes.values().map(|node| (node.status(), node.subscribe())).collect();
    for _ in 0..2 {
        let leader = cluster.leader().await;
        let to = NodeId(leader.node().0 % 3 + 1);
        leader.transfer_leadership(to).await.unwrap();
        cluster.leader().await;
    }
}

/// Trap 11 (and 1): openraft's lease reads are nowhere used.
#[test]
fn trap_11_lease_reads_are_not_used() {
    let sources = [
        include_str!("../consensus.rs"),
        include_str!("../members.rs"),
        include_str!("../transfer.rs"),
        include_str!("../inbound.rs"),
        include_str!("../network.rs"),
    ];
    for source in sources {
        assert!(!source.contains("LeaseRead") && !source.contains("ensure_linearizable"));
    }
    assert!(include_str!("../consensus.rs").contains("LinearizerOption::new(Some(Duration::ZERO), true)"));
}

/// A pre-vote that cannot reach anybody is no grant, and a node that returns unseats nobody.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_off_node_does_not_raise_its_term() {
    let cluster = Cluster::start(3).await;
    cluster.propose("ready").await;
    let leader = cluster.leader().await;
    let away = cluster.others(leader.node().0)[0];
    let term = cluster.nodes[&away].status().borrow().term;
    cluster.net.cut(away, &cluster.others(away), true);
    cluster.net.sent();
    let asked = async {
        let mut asked = 0;
        while asked < 6 {
            tokio::time::sleep(Duration::from_millis(20)).await;
            let sent = cluster.net.sent();
            assert!(!sent.iter().any(|(from, _, kind)| *from == away && *kind == Kind::Vote));
            asked += sent.iter().filter(|(from, _, kind)| *from == away && *kind == Kind::PreVote).count();
        }
    };
    tokio::time::timeout(DEADLINE, asked).await.unwrap();
    assert_eq!(cluster.nodes[&away].status().borrow().term, term);
    cluster.net.cut(away, &cluster.others(away), false);
    cluster.propose("after").await;
    has(&cluster.nodes[&away], "after").await;
    let now = cluster.leader().await;
    assert_eq!((now.node(), now.status().borrow().term), (leader.node(), term));
}

/// A witness's own timer is the last; the voters' lease is the same everywhere.
#[test]
fn the_bias_changes_only_the_lower_end() {
    let config = |bias| Options { bias, ..options(1) }.config().unwrap();
    let [normal, reluctant] = [ElectionBias::Normal, ElectionBias::Reluctant].map(config);
    assert!(normal.election_timeout_min < reluctant.election_timeout_min);
    assert_eq!(reluctant.election_timeout_min, reluctant.election_timeout_max - 1);
    for config in [normal, reluctant] {
        assert_eq!(config.election_timeout_max, 400);
        assert_eq!(config.enable_pre_vote, Some(true));
        assert_eq!(config.enable_leader_restore, Some(false));
        assert_eq!(config.allow_log_reversion, Some(false));
        assert!(config.enable_elect);
    }
    let mut wrong = options(1);
    wrong.timing.election_min = wrong.timing.election_max;
    assert!(wrong.config().is_err());
}

/// A committed entry that cannot be read stops the node, now and after every restart; it is never skipped.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_undecodable_committed_entry_stops_the_node() {
    let disk = MemoryDisk::new(1);
    let node = single(Arc::new(disk.clone())).await;
    found(&node).await;
    while node.propose(&proposal("fine")).await.is_err() {}
    let write = node.raft.client_write(RaftCommand(b"\xffnot a proposal".to_vec().into()));
    let _ = tokio::time::timeout(DEADLINE, write).await.unwrap();
    let reason = node.stopped().await;
    assert!(matches!(reason, StopReason::Undecodable { .. }), "{reason}");
    assert!(matches!(node.propose(&proposal("after")).await, Err(crate::ProposeError::Stopped(_))));
    let state = node.state();
    node.shutdown().await;

    // Its place is known to be committed only after the restart; make sure it is.
    let index = disk.load().unwrap().log.last().unwrap().0;
    let entry: Entry =
        wire::to_entry(wire::decode(&disk.load().unwrap().log.last().unwrap().1).unwrap()).unwrap();
    assert!(matches!(entry.payload, Payload::Normal(_)));
    let committed = wire::encode(&wire::from_log_id(&log_id(wire::from_log_id(&entry.log_id).term, index)));
    disk::write(&disk, vec![Write::Committed(committed)]).await.unwrap();
    let net = Net::new();
    let again = Node::start(options(1), Arc::new(disk), net.end(1)).await.err().unwrap();
    assert!(
        matches!(&again, StartError::Stopped(StopReason::Undecodable { index: at, .. }) if *at == index),
        "{again}"
    );
    assert!(super::harness::RequestKnown::in_state(&state, "fine"));
}

/// Forced recovery: the survivor goes on alone; the others are of an older generation and are refused, both ways.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_forced_recovery_the_old_generation_is_refused_in_both_directions() {
    let mut cluster = Cluster::start(3).await;
    cluster.propose("before").await;
    cluster.everywhere("before").await;
    for node in 1..=3 {
        cluster.stop(node).await;
    }
    let disk = cluster.disks[&2].clone();
    let refused = recover_disk(&disk, NodeId(2), Generation(1)).await.unwrap_err();
    assert!(refused.to_string().contains("later"), "{refused}");
    let recovered = recover_disk(&disk, NodeId(2), Generation(2)).await.unwrap();
    assert_eq!(recovered.lost, [NodeId(1), NodeId(3)]);

    let survivor = cluster.boot(2).await;
    cluster.propose("alone").await;
    assert_eq!(survivor.generation(), Generation(2));
    assert!(super::harness::remembers(&survivor, "before"));
    assert_eq!(survivor.status().borrow().members.len(), 1);

    // One of the old majority returns while the survivor cannot be reached: nobody can tell it.
    cluster.net.cut(2, &[1, 3], true);
    let old = cluster.boot(1).await;
    cluster.net.cut(2, &[1, 3], false);
    let header = |from: &Node, to: u64, generation: u64| pb::ExchangeRequest {
        header: Some(pb::Header {
            cluster: "test".into(),
            protocol: 1,
            generation,
            from: from.node().0,
            to,
            disk: 1000 + from.node().0,
        }),
        body: None,
    };
    let refused = survivor.inbound().exchange(header(&old, 2, 1)).await.unwrap_err();
    assert_eq!(refused, Refused::OtherGeneration { theirs: Generation(1), ours: Generation(2) });
    let refused = old.inbound().exchange(header(&survivor, 1, 2)).await.unwrap_err();
    assert_eq!(refused, Refused::OtherGeneration { theirs: Generation(2), ours: Generation(1) });
    // It has heard now that its time is over, and does not forget it.
    let superseded = StopReason::Superseded { ours: Generation(1), theirs: Generation(2) };
    assert_eq!(old.stopped().await, superseded);
    cluster.stop(1).await;
    let again: Arc<dyn Disk> = Arc::new(cluster.disks[&1].clone());
    let again = Node::start(options(1), again, cluster.net.end(1)).await.err().unwrap();
    assert_eq!(again, StartError::Stopped(superseded.clone()));
    assert!(again.is_lasting());

    // Another asks before it takes part: it never does.
    let disk: Arc<dyn Disk> = Arc::new(cluster.disks[&3].clone());
    let slow = Options { start_delay: DEADLINE, ..options(3) };
    let old = Node::start(slow, disk, cluster.net.end(3)).await.unwrap();
    assert_eq!(old.stopped().await, superseded);
    assert!(!old.status().borrow().started);
    for lost in [1, 3] {
        let refused = survivor.add_learner(NodeId(lost), "back").await.unwrap_err();
        assert_eq!(refused, crate::MembershipError::Retired(NodeId(lost)));
    }

    // A new node with a new id takes the generation over with the first message.
    cluster.boot(4).await;
    survivor.add_learner(NodeId(4), "node-4").await.unwrap();
    has(&cluster.nodes[&4], "alone").await;
    assert_eq!(cluster.nodes[&4].generation(), Generation(2));
    let again: Consensus<TokioRuntime> = cluster.nodes[&4].clone();
    wait_for(&again, "the leader", |status| status.leader == Some(NodeId(2))).await;
}

/// Messages of other clusters, protocols, to other nodes, and from removed nodes are refused.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_that_are_not_for_this_node_are_refused() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let gone = cluster.others(leader.node().0)[0];
    let kept = leader.inbound();
    let good = pb::Header {
        cluster: "test".into(),
        protocol: 1,
        generation: 1,
        from: gone,
        to: leader.node().0,
        disk: 1000 + gone,
    };
    assert_eq!(kept.admit(Some(&good)), Ok(NodeId(gone)));
    assert_eq!(kept.admit(None), Err(Refused::Malformed));
    let refused = |change: fn(&mut pb::Header)| {
        let mut header = good.clone();
        change(&mut header);
        kept.admit(Some(&header)).unwrap_err()
    };
    assert_eq!(refused(|header| header.cluster = "other".into()), Refused::OtherCluster);
    assert_eq!(refused(|header| header.protocol = 2), Refused::OtherProtocol { theirs: 2 });
    assert_eq!(refused(|header| header.to = 9), Refused::OtherNode { meant: NodeId(9) });
    assert!(matches!(refused(|header| header.generation = 0), Refused::OtherGeneration { .. }));
    assert!(matches!(refused(|header| header.disk = 7), Refused::OtherDisk(_)));

    while leader.remove(NodeId(gone)).await.is_err() {}
    wait_for(&leader, "two members", |status| status.members.len() == 2).await;
    assert_eq!(kept.admit(Some(&good)), Err(Refused::Retired(NodeId(gone))));
}
