//! What nodes see: the upstreams, after the moment that probes take, and the addresses from outside.

use super::kernel::Kernel;
use super::outside::Answers;
use super::provider::SimProvider;
use super::rooms::Rooms;
use crate::runtime::{Executor, SimRuntime};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, watch};
use twinsite_agents::{AllHands, Changed, Errands, Observations};
use twinsite_consensus::AsyncRuntime;
use twinsite_controller::{AnnouncedView, FloatingIpView, LoadView, NodeReport, StoreView, UpstreamView};
use twinsite_model::spec::NodeKind;
use twinsite_model::{
    ClusterSpec, FloatingIpName, Format, Incarnation, NodeId, SiteName, State, Token, UpstreamName,
};
use twinsite_sessions::{Role, StoreStatus};

/// How long probes need to agree that something has changed, at most.
const NOTICED_WITHIN: Duration = Duration::from_millis(150);

pub(super) type Health = BTreeMap<UpstreamName, bool>;

/// The upstreams as they are, and the machines. Clones share it.
#[derive(Clone)]
pub(super) struct Sight {
    health: watch::Sender<Health>,
    provider: SimProvider,
    machines: Arc<Mutex<Machines>>,
}

/// The kernels of all machines, with the node that is on each and its site.
#[derive(Default)]
struct Machines {
    now: BTreeMap<NodeId, (SiteName, Kernel)>,
    /// Those whose node is nowhere any more.
    former: Vec<(SiteName, Kernel)>,
    addresses: BTreeMap<IpAddr, FloatingIpName>,
    /// Where every node is, or was.
    sites: BTreeMap<NodeId, SiteName>,
}

impl Sight {
    /// Everything is well.
    pub(super) fn new(spec: &ClusterSpec, provider: SimProvider) -> Self {
        let health = spec.upstreams.iter().map(|upstream| (upstream.name.clone(), true)).collect();
        let addresses = spec.floating_ips.iter().map(|ip| (ip.address, ip.name.clone())).collect();
        let machines = Machines { addresses, ..Machines::default() };
        Self { health: watch::Sender::new(health), provider, machines: Arc::new(Mutex::new(machines)) }
    }

    fn machines(&self) -> MutexGuard<'_, Machines> {
        self.machines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A node is on this machine, at this site.
    pub(super) fn put(&self, node: NodeId, site: SiteName, kernel: Kernel) {
        let mut machines = self.machines();
        machines.sites.insert(node, site.clone());
        machines.now.insert(node, (site, kernel));
    }

    /// A node is nowhere any more.
    pub(super) fn take(&self, node: NodeId) {
        let mut machines = self.machines();
        let former = machines.now.remove(&node);
        machines.former.extend(former);
    }

    /// Who answers for an address, of the nodes that can be reached.
    pub(super) fn answers(
        &self,
        ip: &FloatingIpName,
        is_reached: impl Fn(NodeId) -> bool,
    ) -> Option<(NodeId, Token)> {
        let machines = self.machines();
        // What is sent to a routed address goes to one machine, whoever else would answer.
        let routed = self.provider.routing(ip);
        let is_routed = |node: NodeId| routed.as_ref().is_none_or(|routed| routed.to == Some(node));
        let mut reached = machines.now.iter().filter(|(node, _)| is_routed(**node) && is_reached(**node));
        reached.find_map(|(node, (_, kernel))| Some((*node, kernel.answers(ip)?.0)))
    }

    /// The newest token under which a node of this site has ever answered for an address, if it is a floating one.
    pub(super) fn has_answered(&self, site: &SiteName, address: IpAddr) -> Option<Token> {
        let machines = self.machines();
        let ip = machines.addresses.get(&address)?;
        let there = machines.now.values().chain(&machines.former).filter(|(at, _)| at == site);
        there.filter_map(|(_, kernel)| kernel.has_answered(ip)).max()
    }

    /// Whether a node is, or was, at this site.
    pub(super) fn is_at(&self, node: NodeId, site: &SiteName) -> bool {
        self.machines().sites.get(&node) == Some(site)
    }

    /// Upstreams fail or come back.
    pub(super) fn change(&self, change: impl FnOnce(&mut Health)) {
        self.health.send_modify(change);
    }

    /// Whether an upstream is well.
    pub(super) fn is_healthy(&self, upstream: &UpstreamName) -> bool {
        self.health.borrow().get(upstream).copied().unwrap_or_default()
    }

    /// What one life of a node thinks of the upstreams, which takes it a moment.
    pub(super) fn opinions(&self) -> watch::Receiver<Health> {
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
        opinions
    }
}

/// The observations of one life of a node.
pub(super) struct Eyes {
    pub(super) incarnation: Incarnation,
    pub(super) opinions: watch::Receiver<Health>,
    pub(super) outside: watch::Receiver<Answers>,
    /// What the instances of its site were read back to announce, and the token of its last announcement.
    pub(super) announced: watch::Receiver<BTreeMap<UpstreamName, Option<IpAddr>>>,
    pub(super) under: Arc<Mutex<Token>>,
    pub(super) hands: AllHands,
    pub(super) peers_heard: Arc<Mutex<BTreeSet<NodeId>>>,
    pub(super) draining: Arc<AtomicBool>,
    pub(super) changed: Arc<Notify>,
    pub(super) errands: Errands,
    pub(super) format_max: Format,
    pub(super) rooms: Rooms,
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
        let (hands, outside) = (self.hands.now(), self.outside.borrow());
        let views = state.floating_ips.keys().map(|ip| {
            let own = hands.get(ip);
            let said = self.errands.of(ip);
            let view = FloatingIpView {
                held: own.and_then(|hands| hands.observe().attached),
                drained: own.and_then(|hands| hands.drained()),
                routing: said.routing,
                errand: said.errand,
                outside: outside.get(ip).cloned(),
                stranger: None,
            };
            (ip.clone(), view)
        });
        NodeReport {
            node: self.rooms.me,
            incarnation: self.incarnation,
            seq,
            format_max: self.format_max,
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
            announced: self.announced(),
            load: LoadView { rooms: 0, tunnels: 0 },
            rooms_in_use: if full { self.rooms.live().into_keys().collect() } else { Vec::new() },
        }
    }

    async fn changed(&mut self) -> Changed {
        tokio::select! {
            biased;
            Ok(()) = self.opinions.changed() => Changed::Opinions,
            () = self.changed.notified() => Changed::Rest,
            Ok(()) = self.outside.changed() => Changed::Rest,
            Ok(()) = self.announced.changed() => Changed::Rest,
        }
    }
}

impl Eyes {
    fn announced(&self) -> Vec<AnnouncedView> {
        let token = *self.under.lock().unwrap_or_else(PoisonError::into_inner);
        let announced = self.announced.borrow();
        let views = announced.iter().filter_map(|(upstream, address)| {
            Some(AnnouncedView { upstream: upstream.clone(), address: (*address)?, token })
        });
        views.collect()
    }
}
