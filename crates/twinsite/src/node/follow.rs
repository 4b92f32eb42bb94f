//! What follows the state in this program: the way to the other nodes, probes, routing, rooms, the public API. How it is
//! followed is in `twinsite-agents`.

use super::announcing::Announced;
use super::hands;
use super::run::Shared;
use crate::config::NodeConfig;
use crate::incident::Incidents;
use futures_util::future::BoxFuture;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use twinsite_agents::{Employer, Follower, QuorumWatch, Surroundings, Tools};
use twinsite_api::WatchHub;
use twinsite_consensus::{Change, TokioRuntime};
use twinsite_health::{OutsideProbes, UpstreamProbes, UpstreamTarget};
use twinsite_model::spec::FloatingIpSpec;
use twinsite_model::{ClusterSpec, DrillId, DrillOutcome, Event, FloatingIpName, State, Verdict};
use twinsite_proxy::RoutingTable;
use twinsite_upstream::Target;

/// How often it is looked whether a drained address is empty.
const DRAIN_POLL: Duration = Duration::from_millis(10);

/// What follows the state in this program.
pub struct Here {
    /// What the node's tasks share.
    pub shared: Arc<Shared>,
    /// What this host knows by itself.
    pub config: NodeConfig,
    /// Probes of upstreams; a witness has none.
    pub upstreams: Option<Arc<UpstreamProbes>>,
    /// Probes of floating IPs from outside.
    pub outside: Arc<OutsideProbes>,
    /// Delivery of `announcedIp`.
    pub announced: Announced,
    /// Changes for the public API.
    pub hub: WatchHub,
    /// Changes for reports of what nobody planned.
    pub incidents: Incidents,
}

impl Here {
    /// Has it follow.
    pub fn follow(self, quorum: QuorumWatch) -> Follower<TokioRuntime, crate::peer::Peers, Self> {
        let shared = &self.shared;
        let employer = Employer {
            me: shared.me,
            incarnation: shared.incarnation,
            raft: shared.raft.clone(),
            brain: shared.brain.clone(),
            peers: shared.peers.clone(),
            supervisor: shared.supervisor.clone(),
            hands: shared.hands.clone(),
            report_soon: Arc::clone(&shared.report_soon),
        };
        Follower::new(employer, quorum, self)
    }
}

impl Here {
    /// Every node says so; who leads counts it, so that the sum over all nodes is the number of drills.
    fn drill_ended(&self, drill: DrillId, name: &str, outcome: DrillOutcome) {
        let outcome = outcome.as_str();
        tracing::warn!(%drill, name, outcome, "the drill is over");
        if self.shared.raft.status().borrow().is_leader {
            metrics::counter!("twinsite_drills_total", "outcome" => outcome).increment(1);
        }
    }
}

impl Surroundings for Here {
    fn begin(&mut self, state: &Arc<State>) {
        self.hub.reset(Arc::clone(state));
        // Any upstream may have been away meanwhile, and others have moved its rooms.
        for upstream in state.spec.iter().flat_map(|spec| &spec.upstreams) {
            self.shared.sessions.upstream_lost(&upstream.name);
        }
    }

    fn publish(&mut self, change: &Change) {
        let (revision, wall) = (change.revision, change.state.wall);
        self.hub.publish(revision, wall, change.events.clone(), Arc::clone(&change.state));
        self.incidents.tell(change);
    }

    fn configure(&mut self, spec: &ClusterSpec) {
        self.shared.peers.update(spec);
        let timing = spec.timing();
        if let Some(upstreams) = &self.upstreams {
            let targets = spec
                .upstreams
                .iter()
                .map(|upstream| UpstreamTarget { name: upstream.name.clone(), target: Target::of(upstream) });
            upstreams.configure(&spec.health, targets.collect());
        }
        let targets = spec.floating_ips.iter().filter_map(|ip| {
            let port = ip.probe_port()?;
            Some((ip.name.clone(), SocketAddr::new(ip.address, port)))
        });
        let interval = (timing.lease / 4).clamp(Duration::from_millis(50), Duration::from_secs(1));
        let patience = (timing.lease / 2).clamp(Duration::from_millis(150), Duration::from_secs(1));
        self.outside.configure(interval, patience, targets.collect());
        self.announced.configure(spec);
    }

    fn follow(&mut self, state: &State, events: &[Event]) {
        if let Some(proxy) = &self.shared.proxy {
            proxy.publish(RoutingTable::build(state));
        }
        for event in events {
            match event {
                Event::VerdictChanged { upstream, to: Verdict::Unhealthy, .. } => {
                    self.shared.sessions.upstream_lost(upstream);
                }
                Event::OwnerChanged { ip, .. } => self.outside.probe_soon(ip),
                Event::DrillBegan { drill, name, by, runner, until } => {
                    tracing::warn!(%drill, name, by, %runner, %until, "a drill begins");
                }
                Event::DrillStopped { drill, by, reason } => {
                    tracing::warn!(%drill, by, reason, "the drill is to end");
                }
                Event::DrillEnded { drill, name, outcome } => self.drill_ended(*drill, name, *outcome),
                _ => {}
            }
        }
        let drains = state.drains.iter().map(|(upstream, drain)| (upstream.clone(), drain.since)).collect();
        self.shared.sessions.put_drains(drains);
        self.announced.again.notify_one();
    }

    fn tools(&mut self, ip: &FloatingIpSpec) -> Option<Tools> {
        let (Some(proxy), Some(guard)) = (&self.shared.proxy, &self.shared.guard) else { return None };
        Some(hands::tools(ip, self.config.interface(ip), proxy, guard, &self.shared.connections))
    }

    fn drain(&mut self, ip: &FloatingIpName, limit: Duration) -> BoxFuture<'static, ()> {
        let Some(proxy) = self.shared.proxy.clone() else { return Box::pin(std::future::pending()) };
        let ip = ip.clone();
        tracing::debug!(%ip, load = ?proxy.in_flight(&ip), "draining");
        proxy.drain_floating(&ip, (limit / 2).min(Duration::from_millis(500)));
        Box::pin(async move {
            loop {
                let load = proxy.in_flight(&ip);
                if load.requests == 0 && load.tunnels <= load.late_tunnels {
                    return;
                }
                tokio::time::sleep(DRAIN_POLL).await;
            }
        })
    }

    fn undrain(&mut self, ip: &FloatingIpName) {
        if let Some(proxy) = &self.shared.proxy {
            proxy.undrain_floating(ip);
        }
    }
}
