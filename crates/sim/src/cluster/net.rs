//! The network between the nodes: every message has its own fate.

use crate::clock::TrueTime;
use crate::runtime::{Executor, ProcessId, SimRuntime, spawn};
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::oneshot;
use twinsite_agents::{Desk, Heard, Noted, Peers};
use twinsite_consensus::{
    AsyncRuntime, Destination, Inbound, Lane, LogIndex, SnapshotTransfer, Transport, TransportError, pb,
};
use twinsite_controller::{NodeReport, Release, Renewal, RenewalAnswer};
use twinsite_model::{Applied, NodeId, Proposal};
use twinsite_sessions::Sessions;

/// How much later than the quickest the slowest message comes in a network that is well, in nanoseconds.
const HEALTHY_SPREAD: TrueTime = 2_000_000;

/// What may happen to messages.
#[derive(Debug, Clone, Copy)]
pub(super) struct Weather {
    /// The shortest way, in nanoseconds.
    pub(super) delay_min: TrueTime,
    /// The longest.
    pub(super) delay_max: TrueTime,
    /// Of a thousand, how many are lost.
    pub(super) lost: u32,
    /// Of a thousand, how many arrive twice.
    pub(super) doubled: u32,
}

/// Where a node's process takes messages.
#[derive(Clone)]
pub(super) struct Door {
    pub(super) inbound: Inbound<SimRuntime>,
    pub(super) desk: Desk<SimRuntime, End>,
    pub(super) sessions: Sessions,
}

struct Links {
    weather: Weather,
    /// From whom nothing reaches whom.
    cut: BTreeSet<(NodeId, NodeId)>,
    nodes: BTreeMap<NodeId, (ProcessId, Door)>,
    random: fastrand::Rng,
}

impl Links {
    /// How long each copy of a message takes; none if it is lost.
    fn ways(&mut self, from: NodeId, to: NodeId) -> Vec<Duration> {
        if self.cut.contains(&(from, to)) || self.random.u32(..1_000) < self.weather.lost {
            return Vec::new();
        }
        let copies = 1 + u32::from(self.random.u32(..1_000) < self.weather.doubled);
        let (min, max) = (self.weather.delay_min, self.weather.delay_max);
        (0..copies).map(|_| Duration::from_nanos(self.random.u64(min..=max))).collect()
    }
}

/// Who waits for an answer, until it has one.
type Waiting<A> = Arc<Mutex<Option<oneshot::Sender<Result<A, TransportError>>>>>;

/// The network. Cheap to clone.
#[derive(Clone)]
pub(super) struct Net(Arc<Mutex<Links>>);

impl Net {
    pub(super) fn new(weather: Weather) -> Self {
        let links =
            Links { weather, cut: BTreeSet::new(), nodes: BTreeMap::new(), random: Executor::random() };
        Self(Arc::new(Mutex::new(links)))
    }

    fn links(&self) -> MutexGuard<'_, Links> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says later whether the network is still in memory.
    #[cfg(test)]
    pub(super) fn watch_memory(&self) -> impl Fn() -> bool + use<> {
        let links = Arc::downgrade(&self.0);
        move || links.strong_count() > 0
    }

    /// A node answers from now on.
    pub(super) fn attach(&self, node: NodeId, process: ProcessId, door: Door) {
        self.links().nodes.insert(node, (process, door));
    }

    /// A node's process is gone: whoever calls hears so at once.
    pub(super) fn detach(&self, node: NodeId) {
        self.links().nodes.remove(&node);
    }

    /// Nobody answers any more. What answers holds the network itself, and would keep it, and all that hangs on it, in
    /// memory for ever.
    pub(super) fn close(&self) {
        let nodes = std::mem::take(&mut self.links().nodes);
        drop(nodes);
    }

    /// Nothing reaches `to` from `from` any more, or it does again.
    pub(super) fn cut(&self, from: NodeId, to: NodeId, cut: bool) {
        let cuts = &mut self.links().cut;
        if cut {
            cuts.insert((from, to));
        } else {
            cuts.remove(&(from, to));
        }
    }

    /// Whether a question reaches a node, and its answer comes back.
    pub(super) fn is_open(&self, from: NodeId, to: NodeId) -> bool {
        let links = self.links();
        !links.cut.contains(&(from, to)) && !links.cut.contains(&(to, from))
    }

    /// Nothing is cut any more.
    pub(super) fn mend(&self) {
        self.links().cut.clear();
    }

    /// Everything passes again, as quickly as the timings ask of a network.
    pub(super) fn heal(&self) {
        let mut links = self.links();
        links.cut.clear();
        links.weather.delay_max = links.weather.delay_max.min(links.weather.delay_min + HEALTHY_SPREAD);
        links.weather.lost = 0;
        links.weather.doubled = 0;
    }

    /// How long something takes that is sent once; none if it is lost.
    pub(super) fn way(&self, from: NodeId, to: NodeId) -> Option<Duration> {
        self.links().ways(from, to).first().copied()
    }

    /// Takes a question to a node and its answer back.
    async fn carry<A, F>(
        &self,
        from: NodeId,
        to: NodeId,
        ask: impl Fn(Door) -> F + Clone + Send + 'static,
    ) -> Result<A, TransportError>
    where
        A: Send + 'static,
        F: Future<Output = Result<A, TransportError>> + Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        // Of two copies the first answer counts.
        let answer = Arc::new(Mutex::new(Some(answer)));
        for way in self.links().ways(from, to) {
            let (net, ask, answer) = (self.clone(), ask.clone(), Arc::clone(&answer));
            drop(spawn(ProcessId::WORLD, async move {
                SimRuntime::sleep(way).await;
                let target = net.links().nodes.get(&to).cloned();
                let Some((process, door)) = target else {
                    return net.bring_back(to, from, Err(refused()), answer);
                };
                drop(spawn(process, async move {
                    let result = ask(door).await;
                    net.bring_back(to, from, result, answer);
                }));
            }));
        }
        drop(answer);
        match answered.await {
            Ok(result) => result,
            // Lost: nobody ever says so. The caller's own time runs out.
            Err(_) => std::future::pending().await,
        }
    }

    fn bring_back<A: Send + 'static>(
        &self,
        from: NodeId,
        to: NodeId,
        result: Result<A, TransportError>,
        answer: Waiting<A>,
    ) {
        let Some(&way) = self.links().ways(from, to).first() else { return };
        drop(spawn(ProcessId::WORLD, async move {
            SimRuntime::sleep(way).await;
            let first = answer.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(first) = first {
                let _gave_up = first.send(result);
            }
        }));
    }
}

fn refused() -> TransportError {
    TransportError::Unreachable("connection refused".to_owned())
}

/// One node's end of the network, and whom it takes for a node of the cluster. Clones share it.
#[derive(Clone)]
pub(super) struct End {
    pub(super) net: Net,
    pub(super) node: NodeId,
    known: Arc<Mutex<BTreeSet<NodeId>>>,
}

impl End {
    pub(super) fn new(net: Net, node: NodeId, known: BTreeSet<NodeId>) -> Self {
        Self { net, node, known: Arc::new(Mutex::new(known)) }
    }

    /// The nodes are these from now on.
    pub(super) fn know(&self, nodes: BTreeSet<NodeId>) {
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = nodes;
    }

    /// Asks a node's desk; nothing is answered to one that was removed for good.
    async fn ask<A, F>(
        &self,
        to: NodeId,
        within: Duration,
        ask: impl Fn(Desk<SimRuntime, Self>) -> F + Clone + Send + 'static,
    ) -> Result<A, TransportError>
    where
        A: Send + 'static,
        F: Future<Output = Option<A>> + Send + 'static,
    {
        let answer = self.net.carry(self.node, to, move |door| {
            let ask = ask.clone();
            async move { ask(door.desk).await.ok_or_else(busy) }
        });
        SimRuntime::timeout(within, answer).await.unwrap_or_else(|_| Err(silent()))
    }

    /// Asks a node's sessions.
    pub(super) async fn ask_rooms<A: Send + 'static>(
        &self,
        to: NodeId,
        within: Duration,
        ask: impl Fn(&Sessions) -> A + Clone + Send + 'static,
    ) -> Result<A, TransportError> {
        let answer = self.net.carry(self.node, to, move |door| std::future::ready(Ok(ask(&door.sessions))));
        SimRuntime::timeout(within, answer).await.unwrap_or_else(|_| Err(silent()))
    }

    /// Has another node propose something.
    pub(super) async fn propose(
        &self,
        to: NodeId,
        proposal: Proposal,
        within: Duration,
    ) -> Result<Applied, TransportError> {
        self.ask(to, within, move |desk| {
            let proposal = proposal.clone();
            async move { desk.raft.propose(&proposal).await.ok() }
        })
        .await
    }
}

fn busy() -> TransportError {
    TransportError::Unreachable("busy".to_owned())
}

fn silent() -> TransportError {
    TransportError::Unreachable("no answer in time".to_owned())
}

impl Peers for End {
    type Error = TransportError;

    fn others(&self) -> Vec<NodeId> {
        self.everybody().into_iter().filter(|node| *node != self.node).collect()
    }

    fn everybody(&self) -> Vec<NodeId> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).iter().copied().collect()
    }

    async fn report(
        &self,
        to: NodeId,
        report: NodeReport,
        within: Duration,
    ) -> Result<Heard, TransportError> {
        let from = self.node;
        self.ask(to, within, move |desk| {
            let report = report.clone();
            async move { if desk.raft.is_retired(from) { None } else { desk.report(report).ok() } }
        })
        .await
    }

    async fn ping(&self, to: NodeId, within: Duration) -> Result<(), TransportError> {
        self.ask(to, within, |_| std::future::ready(Some(()))).await
    }

    async fn renew(
        &self,
        to: NodeId,
        renewal: Renewal,
        within: Duration,
    ) -> Result<RenewalAnswer, TransportError> {
        let from = self.node;
        self.ask(to, within, move |desk| {
            let renewal = renewal.clone();
            async move { if desk.raft.is_retired(from) { None } else { Some(desk.renew(renewal).await) } }
        })
        .await
    }

    async fn read_index(&self, to: NodeId, within: Duration) -> Result<LogIndex, TransportError> {
        self.ask(to, within, |desk| async move { desk.raft.read_index().await.ok() }).await
    }

    async fn release(
        &self,
        to: NodeId,
        release: &Release,
        within: Duration,
    ) -> Result<Noted, TransportError> {
        let release = release.clone();
        self.ask(to, within, move |desk| {
            let release = release.clone();
            async move { desk.release(release).await.ok() }
        })
        .await
    }
}

impl Transport for End {
    async fn exchange(
        &self,
        to: &Destination,
        _: Lane,
        message: pb::ExchangeRequest,
        _: Duration,
    ) -> Result<pb::ExchangeResponse, TransportError> {
        let ask = move |door: Door| {
            let message = message.clone();
            async move { Ok(door.inbound.exchange(message).await?) }
        };
        self.net.carry(self.node, to.node, ask).await
    }

    async fn install_snapshot(
        &self,
        to: &Destination,
        snapshot: SnapshotTransfer,
        _: Duration,
    ) -> Result<pb::InstallSnapshotResponse, TransportError> {
        let ask = move |door: Door| {
            let snapshot = snapshot.clone();
            async move { Ok(door.inbound.install_snapshot(snapshot).await?) }
        };
        self.net.carry(self.node, to.node, ask).await
    }
}
