//! Nodes, a network in memory whose links can be cut and held, and waiting with deadlines.

use crate::disk::{Disk, MemoryDisk};
use crate::pb::{self, exchange_request::Body};
use crate::{
    Consensus, Destination, Inbound, Lane, Options, ProposeError, SnapshotTransfer, TokioRuntime, Transport,
    TransportError,
};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::watch;
use twinsite_model::{Applied, ClusterName, Command, NodeId, Profile, Proposal, RequestId, Timing, WallTime};

pub(crate) type Node = Consensus<TokioRuntime>;

/// Patient enough for a machine that compiles meanwhile.
pub(crate) fn timing() -> Timing {
    let ms = Duration::from_millis;
    Timing { heartbeat: ms(40), election_min: ms(200), election_max: ms(400), ..Timing::of(Profile::Wan) }
}

/// A bound on everything that must happen; generous, because a failure is a hang.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

pub(crate) fn cluster_name() -> ClusterName {
    ClusterName::new("test").unwrap()
}

pub(crate) fn options(node: u64) -> Options {
    let start_delay = Duration::from_millis(1);
    Options { start_delay, ..Options::new(cluster_name(), NodeId(node), timing()) }
}

/// What a message is, for tests that let only some pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Heartbeat,
    Append,
    Vote,
    PreVote,
    Transfer,
    Greeting,
    Snapshot,
}

#[derive(Default)]
struct Links {
    cut: BTreeSet<(u64, u64)>,
    blocked: BTreeSet<Kind>,
    sent: Vec<(u64, u64, Kind)>,
    answers_take: Duration,
}

/// The network.
#[derive(Clone)]
pub(crate) struct Net {
    nodes: Arc<Mutex<BTreeMap<u64, Inbound<TokioRuntime>>>>,
    links: Arc<Mutex<Links>>,
    /// While true, answers that are ready wait until it is false again.
    pub(crate) hold_answers: Arc<watch::Sender<bool>>,
    pub(crate) held: Arc<watch::Sender<usize>>,
}

impl Net {
    pub(crate) fn new() -> Self {
        Self {
            nodes: Arc::default(),
            links: Arc::default(),
            hold_answers: Arc::new(watch::Sender::new(false)),
            held: Arc::new(watch::Sender::new(0)),
        }
    }

    pub(crate) fn end(&self, from: u64) -> End {
        End { net: self.clone(), from }
    }

    pub(crate) fn attach(&self, node: &Node) {
        self.nodes.lock().unwrap().insert(node.node().0, node.inbound());
    }

    pub(crate) fn detach(&self, node: u64) {
        self.nodes.lock().unwrap().remove(&node);
    }

    /// Cuts or restores both directions between a node and the given others.
    pub(crate) fn cut(&self, node: u64, others: &[u64], cut: bool) {
        let mut links = self.links.lock().unwrap();
        for other in others {
            for link in [(node, *other), (*other, node)] {
                if cut {
                    links.cut.insert(link)
                } else {
                    links.cut.remove(&link)
                };
            }
        }
    }

    pub(crate) fn block(&self, kind: Kind, blocked: bool) {
        let kinds = &mut self.links.lock().unwrap().blocked;
        if blocked {
            kinds.insert(kind)
        } else {
            kinds.remove(&kind)
        };
    }

    /// Every answer is so late from now on.
    pub(crate) fn delay_answers(&self, by: Duration) {
        self.links.lock().unwrap().answers_take = by;
    }

    pub(crate) fn sent(&self) -> Vec<(u64, u64, Kind)> {
        std::mem::take(&mut self.links.lock().unwrap().sent)
    }

    fn reach(&self, from: u64, to: u64, kind: Kind) -> Result<Inbound<TokioRuntime>, TransportError> {
        let mut links = self.links.lock().unwrap();
        links.sent.push((from, to, kind));
        if links.cut.contains(&(from, to)) || links.blocked.contains(&kind) {
            return Err(TransportError::Unreachable("cut".into()));
        }
        let node = self.nodes.lock().unwrap().get(&to).cloned();
        node.ok_or_else(|| TransportError::Unreachable("down".into()))
    }

    fn answer(&self, from: u64, to: u64) -> Result<(), TransportError> {
        if self.links.lock().unwrap().cut.contains(&(to, from)) {
            return Err(TransportError::Unreachable("cut on the way back".into()));
        }
        Ok(())
    }

    async fn release(&self) {
        let late = self.links.lock().unwrap().answers_take;
        if !late.is_zero() {
            tokio::time::sleep(late).await;
        }
        let mut hold = self.hold_answers.subscribe();
        if *hold.borrow() {
            self.held.send_modify(|held| *held += 1);
            let _ = hold.wait_for(|hold| !hold).await;
        }
    }
}

/// One node's end of the network.
#[derive(Clone)]
pub(crate) struct End {
    net: Net,
    from: u64,
}

impl Transport for End {
    async fn exchange(
        &self,
        to: &Destination,
        _: Lane,
        message: pb::ExchangeRequest,
        _: Duration,
    ) -> Result<pb::ExchangeResponse, TransportError> {
        let kind = match message.body.as_ref().unwrap() {
            Body::Append(append) if append.entries.is_empty() => Kind::Heartbeat,
            Body::Append(_) => Kind::Append,
            Body::Vote(_) => Kind::Vote,
            Body::PreVote(_) => Kind::PreVote,
            Body::Transfer(_) => Kind::Transfer,
            Body::Greeting(_) => Kind::Greeting,
        };
        let inbound = self.net.reach(self.from, to.node.0, kind)?;
        let answer = inbound.exchange(message).await?;
        self.net.release().await;
        self.net.answer(self.from, to.node.0)?;
        Ok(answer)
    }

    async fn install_snapshot(
        &self,
        to: &Destination,
        snapshot: SnapshotTransfer,
        _: Duration,
    ) -> Result<pb::InstallSnapshotResponse, TransportError> {
        let inbound = self.net.reach(self.from, to.node.0, Kind::Snapshot)?;
        let answer = inbound.install_snapshot(snapshot).await?;
        self.net.answer(self.from, to.node.0)?;
        Ok(answer)
    }
}

/// Nodes on disks in memory.
pub(crate) struct Cluster {
    pub(crate) net: Net,
    pub(crate) nodes: BTreeMap<u64, Node>,
    pub(crate) disks: BTreeMap<u64, MemoryDisk>,
    adjust: fn(&mut Options),
}

impl Cluster {
    pub(crate) async fn start(size: u64) -> Self {
        Self::start_with(size, |_| ()).await
    }

    /// Starts nodes 1 to `size` as voters and waits for a leader.
    pub(crate) async fn start_with(size: u64, adjust: fn(&mut Options)) -> Self {
        let mut cluster = Self { net: Net::new(), nodes: BTreeMap::new(), disks: BTreeMap::new(), adjust };
        for node in 1..=size {
            cluster.boot(node).await;
        }
        let members = (1..=size).map(|node| (NodeId(node), format!("node-{node}"))).collect();
        cluster.nodes[&1].initialize(&members).await.unwrap();
        cluster.leader().await;
        cluster
    }

    /// Starts a node on its disk, a new one if it has none.
    pub(crate) async fn boot(&mut self, node: u64) -> Node {
        let disk = self.disks.entry(node).or_insert_with(|| MemoryDisk::new(1000 + node)).clone();
        let mut options = options(node);
        (self.adjust)(&mut options);
        let disk: Arc<dyn Disk> = Arc::new(disk);
        let started = Node::start(options, disk, self.net.end(node)).await.unwrap();
        self.net.attach(&started);
        self.nodes.insert(node, started.clone());
        wait_for(&started, "taking part", |status| status.started).await;
        started
    }

    /// Ends a node as a crash would, as far as its peers can see.
    pub(crate) async fn stop(&mut self, node: u64) {
        self.net.detach(node);
        if let Some(stopped) = self.nodes.remove(&node) {
            stopped.shutdown().await;
        }
    }

    /// All nodes but one.
    pub(crate) fn others(&self, node: u64) -> Vec<u64> {
        self.nodes.keys().copied().filter(|other| *other != node).collect()
    }

    /// Waits for a leader that can commit, and gives it.
    pub(crate) async fn leader(&self) -> Node {
        self.leader_among(&self.nodes.keys().copied().collect::<Vec<_>>()).await
    }

    pub(crate) async fn leader_among(&self, nodes: &[u64]) -> Node {
        let looking = async {
            loop {
                for node in nodes {
                    let node = &self.nodes[node];
                    if node.status().borrow().is_leader && node.read_index().await.is_ok() {
                        return node.clone();
                    }
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(DEADLINE, looking).await.expect("no leader in time")
    }

    /// Proposes on whoever leads, until it is done.
    pub(crate) async fn propose(&self, request: &str) -> Applied {
        self.propose_among(request, &self.nodes.keys().copied().collect::<Vec<_>>()).await
    }

    pub(crate) async fn propose_among(&self, request: &str, nodes: &[u64]) -> Applied {
        let trying = async {
            loop {
                let leader = self.leader_among(nodes).await;
                match leader.propose(&proposal(request)).await {
                    Ok(applied) => return applied,
                    Err(error) => assert!(error.retryable(), "{error}"),
                }
            }
        };
        tokio::time::timeout(DEADLINE, trying).await.expect("no commit in time")
    }

    /// Waits until every node remembers the request.
    pub(crate) async fn everywhere(&self, request: &str) {
        for node in self.nodes.values() {
            has(node, request).await;
        }
    }
}

/// A command that changes the state every time, with a request id that the state remembers.
pub(crate) fn proposal(request: &str) -> Proposal {
    Proposal {
        at: WallTime(1_700_000_000_000),
        by: "test".into(),
        request: RequestId::new(request),
        expected_revision: None,
        command: Command::Pause { until: WallTime(1_700_000_100_000), reason: request.into() },
    }
}

pub(crate) fn remembers(node: &Node, request: &str) -> bool {
    node.state().request(&RequestId::new(request).unwrap()).is_some()
}

pub(crate) async fn has(node: &Node, request: &str) {
    let until = async {
        while !remembers(node, request) {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(DEADLINE, until)
        .await
        .unwrap_or_else(|_| panic!("node {} never got {request}", node.node()));
}

/// Waits until the status is as wanted.
pub(crate) async fn wait_for(node: &Node, what: &str, wanted: impl Fn(&crate::RaftStatus) -> bool) {
    let mut status = node.status();
    let waiting = status.wait_for(|status| wanted(status));
    let came = tokio::time::timeout(DEADLINE, waiting).await.is_ok();
    assert!(came, "node {}: {what} never came; it is {:?}", node.node(), *node.status().borrow());
}

/// Proposes once, wherever that is.
pub(crate) async fn try_propose(node: &Node, request: &str) -> Result<Applied, ProposeError> {
    node.propose(&proposal(request)).await
}

/// Whether a state remembers a request.
pub(crate) struct RequestKnown;

impl RequestKnown {
    pub(crate) fn in_state(state: &twinsite_model::State, request: &str) -> bool {
        state.request(&RequestId::new(request).unwrap()).is_some()
    }
}
