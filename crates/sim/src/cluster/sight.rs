//! What nodes see: the upstreams, after the moment that probes take, and the addresses from outside.

use super::kernel::Kernel;
use super::process::AllHands;
use super::rooms::Rooms;
use crate::runtime::{Executor, SimRuntime};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, watch};
use twinsite_agents::{Changed, Observations};
use twinsite_consensus::AsyncRuntime;
use twinsite_controller::{FloatingIpView, LoadView, NodeReport, OutsideView, StoreView, UpstreamView};
use twinsite_model::spec::NodeKind;
use twinsite_model::{ClusterSpec, Format, Incarnation, NodeId, State, UpstreamName};
use twinsite_sessions::{Role, StoreStatus};

/// How long probes need to agree that something has changed, at most.
const NOTICED_WITHIN: Duration = Duration::from_millis(150);

type Health = BTreeMap<UpstreamName, bool>;

/// The upstreams as they are, and the machines. Clones share it.
#[derive(Clone)]
pub(super) struct Sight {
    health: watch::Sender<Health>,
    /// The kernels of all machines, with the node that is on each.
    kernels: Arc<Mutex<BTreeMap<NodeId, Kernel>>>,
}

impl Sight {
    /// Everything is well.
    pub(super) fn new(spec: &ClusterSpec) -> Self {
        let health = spec.upstreams.iter().map(|upstream| (upstream.name.clone(), true)).collect();
        Self { health: watch::Sender::new(health), kernels: Arc::default() }
    }

    fn kernels(&self) -> MutexGuard<'_, BTreeMap<NodeId, Kernel>> {
        self.kernels.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A node is on this machine.
    pub(super) fn put(&self, node: NodeId, kernel: Kernel) {
        self.kernels().insert(node, kernel);
    }

    /// A node is nowhere any more.
    pub(super) fn take(&self, node: NodeId) {
        self.kernels().remove(&node);
    }

    /// Upstreams fail or come back.
    pub(super) fn change(&self, change: impl FnOnce(&mut Health)) {
        self.health.send_modify(change);
    }

    /// Whether an upstream is well.
    pub(super) fn is_healthy(&self, upstream: &UpstreamName) -> bool {
        self.health.borrow().get(upstream).copied().unwrap_or_default()
    }

    /// What one life of a node sees.
    pub(super) fn observations(
        &self,
        rooms: Rooms,
        incarnation: Incarnation,
        hands: AllHands,
        peers_heard: Arc<Mutex<BTreeSet<NodeId>>>,
        draining: Arc<AtomicBool>,
        changed: Arc<Notify>,
    ) -> Eyes {
        let mut truth = self.health.subscribe();
        let seen = watch::Sender::new(truth.borrow_and_update().clone());
        let opinions = seen.subscribe();
        let mut random = Executor::random();
        drop(SimRuntime::spawn(async move {
            while truth.changed().await.is_ok() {
                let notice = random.u64(..=NOTICED_WITHIN.as_nanos() as u64);
                SimRuntime::sleep(Duration::from_nanos(notice)).await;
                seen.send_replace(truth.borrow_and_update().clone());
            }
        }));
        Eyes { incarnation, sight: self.clone(), opinions, hands, peers_heard, draining, changed, rooms }
    }
}

/// The observations of one life of a node.
pub(super) struct Eyes {
    incarnation: Incarnation,
    sight: Sight,
    opinions: watch::Receiver<Health>,
    hands: AllHands,
    peers_heard: Arc<Mutex<BTreeSet<NodeId>>>,
    draining: Arc<AtomicBool>,
    changed: Arc<Notify>,
    rooms: Rooms,
}

impl Observations for Eyes {
    fn report(&self, state: &State, seq: u64, full: bool) -> NodeReport {
        let node = state.spec.as_ref().and_then(|spec| spec.node(self.rooms.me));
        let serves = node.is_some_and(|node| node.kind != NodeKind::Witness);
        let opinions = self.opinions.borrow();
        let upstreams = opinions.iter().filter(|_| serves).map(|(upstream, healthy)| UpstreamView {
            upstream: upstream.clone(),
            healthy: *healthy,
            detail: String::new(),
        });
        let hands = self.hands.lock().unwrap_or_else(PoisonError::into_inner);
        let views = state.floating_ips.keys().map(|ip| {
            let own = hands.get(ip);
            let kernels = self.sight.kernels();
            let answers = kernels.iter().find_map(|(node, kernel)| {
                kernel.answers(ip).map(|(token, _)| OutsideView::Answered { node: *node, token })
            });
            let silent = || OutsideView::Silent { detail: "nobody answers".to_owned() };
            let view = FloatingIpView {
                held: own.and_then(|hands| hands.observe().attached),
                drained: own.and_then(|hands| hands.drained()),
                observed_holder: None,
                outside: Some(answers.unwrap_or_else(silent)),
            };
            (ip.clone(), view)
        });
        NodeReport {
            node: self.rooms.me,
            incarnation: self.incarnation,
            seq,
            format_max: Format::NEWEST,
            version: "sim".to_owned(),
            applied: state.revision,
            not_ready: None,
            draining: self.draining.load(Ordering::Relaxed),
            store: match *self.rooms.sessions.store_status().borrow() {
                StoreStatus::Up { role: Role::Embedded } => StoreView::Embedded,
                StoreStatus::Up { role: Role::Primary } => StoreView::Reachable,
                StoreStatus::Down { why } => StoreView::Unreachable { detail: why.to_string() },
            },
            peers_heard: self.peers_heard.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            upstreams: full.then(|| upstreams.collect()),
            floating_ips: views.collect(),
            announced: Vec::new(),
            load: LoadView { rooms: 0, tunnels: 0 },
            rooms_in_use: if full { self.rooms.live().into_keys().collect() } else { Vec::new() },
        }
    }

    async fn changed(&mut self) -> Changed {
        tokio::select! {
            biased;
            Ok(()) = self.opinions.changed() => Changed::Opinions,
            () = self.changed.notified() => Changed::Rest,
        }
    }
}
