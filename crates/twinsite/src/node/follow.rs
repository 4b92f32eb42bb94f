//! Brings everything on this node in line with the replicated state, revision by revision.

use super::Raft;
use super::announcing::Announcing;
use super::hands;
use super::run::Shared;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use twinsite_agents::{Agent, Charge, FloatingHands, Hands, Identity, QuorumWatch};
use twinsite_api::WatchHub;
use twinsite_consensus::{Change, TokioRuntime};
use twinsite_controller::election_turn;
use twinsite_health::{OutsideProbes, UpstreamProbes, UpstreamTarget};
use twinsite_model::{ClusterSpec, Event, FloatingIpName, Revision, State, Step, Token, Verdict};
use twinsite_proxy::RoutingTable;

/// How often it is looked whether a drained address is empty.
const DRAIN_POLL: Duration = Duration::from_millis(10);

/// What follows the state on this node.
pub struct Follower {
    /// What the node's tasks share.
    pub shared: Arc<Shared>,
    /// Probes of upstreams; a witness has none.
    pub upstreams: Option<Arc<UpstreamProbes>>,
    /// Probes of floating IPs from outside.
    pub outside: Arc<OutsideProbes>,
    /// What is known of a quorum.
    pub quorum: QuorumWatch,
    /// Delivery of `announcedIp`.
    pub announcing: Announcing,
    /// Changes for the public API.
    pub hub: WatchHub,
    /// The holders of floating IPs. Once appointed they stay for this life of the process.
    pub agents: BTreeMap<FloatingIpName, Appointment>,
    /// Their tasks.
    pub holding: JoinSet<()>,
    /// The specification that everything was configured by.
    pub configured: Option<Revision>,
    /// Drains under way.
    pub draining: BTreeMap<FloatingIpName, (Token, CancellationToken)>,
}

/// The holder of one floating IP, as this node's specification wants it.
pub struct Appointment {
    charge: watch::Sender<Charge>,
    /// What it holds, and with what; none while this node shall not hold it.
    holds: Option<(IpAddr, Vec<u16>, Arc<FloatingHands>)>,
    stop: CancellationToken,
}

impl Appointment {
    /// Lets go, until there are hands again.
    fn withdraw(&mut self) {
        if self.holds.take().is_some() {
            self.charge.send_replace(None);
        }
    }
}

impl Follower {
    /// Follows until cancelled; then lets every floating IP go in good order.
    pub async fn run(mut self, stop: CancellationToken) {
        let raft: Raft = self.shared.raft.clone();
        let (state, mut changes) = raft.subscribe();
        self.hub.reset(Arc::clone(&state));
        self.bring_in_line(&state, None);
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                change = changes.next() => match change {
                    Ok(change) => self.take(&change),
                    Err(_) => {
                        if raft.status().borrow().stopped.is_some() {
                            break;
                        }
                        let (state, again) = raft.subscribe();
                        changes = again;
                        self.hub.reset(Arc::clone(&state));
                        self.bring_in_line(&state, None);
                    }
                },
            }
        }
        for agent in self.agents.values() {
            agent.stop.cancel();
        }
        while self.holding.join_next().await.is_some() {}
    }

    fn take(&mut self, change: &Change) {
        if change.skipped {
            self.hub.reset(Arc::clone(&change.state));
        } else {
            let (revision, wall) = (change.revision, change.state.wall);
            self.hub.publish(revision, wall, change.events.clone(), Arc::clone(&change.state));
        }
        let events = if change.skipped { None } else { Some(change.events.as_slice()) };
        self.bring_in_line(&change.state, events);
    }

    /// `events` is what changed; `None` if it cannot be told.
    fn bring_in_line(&mut self, state: &Arc<State>, events: Option<&[Event]>) {
        self.quorum.applied(state);
        if events.is_some_and(|events| events.iter().all(concerns_rooms_only)) {
            return;
        }
        if let Some(spec) = &state.spec
            && self.configured != Some(state.spec_revision)
        {
            self.configured = Some(state.spec_revision);
            self.configure(spec);
        }
        if let Some(place) = election_turn(state, self.shared.me) {
            self.shared.raft.set_election_turn(place);
        }
        if let Some(proxy) = &self.shared.proxy {
            proxy.publish(RoutingTable::build(state));
        }
        for event in events.unwrap_or_default() {
            match event {
                Event::VerdictChanged { upstream, to: Verdict::Unhealthy, .. } => {
                    self.shared.sessions.upstream_lost(upstream);
                }
                Event::OwnerChanged { ip, .. } => self.outside.probe_soon(ip),
                _ => {}
            }
        }
        let drains = state.drains.iter().map(|(upstream, drain)| (upstream.clone(), drain.since)).collect();
        self.shared.sessions.put_drains(drains);
        self.announcing.look_again();
        self.follow_drains(state);
    }

    fn configure(&mut self, spec: &ClusterSpec) {
        self.shared.peers.update(spec);
        let timing = spec.timing();
        if let Some(upstreams) = &self.upstreams {
            let targets = spec.upstreams.iter().map(|upstream| UpstreamTarget {
                name: upstream.name.clone(),
                address: upstream.address.clone(),
            });
            upstreams.configure(&spec.health, targets.collect());
        }
        let targets = spec.floating_ips.iter().filter_map(|ip| {
            let port = ip.ports.first()?;
            Some((ip.name.clone(), SocketAddr::new(ip.address, *port)))
        });
        let interval = (timing.lease / 4).clamp(Duration::from_millis(50), Duration::from_secs(1));
        let patience = (timing.lease / 2).clamp(Duration::from_millis(150), Duration::from_secs(1));
        self.outside.configure(interval, patience, targets.collect());
        self.announcing.configure(spec);
        self.appoint_agents(spec);
    }

    /// One holder for each floating IP that this node may own.
    fn appoint_agents(&mut self, spec: &ClusterSpec) {
        let me = self.shared.me;
        let may_own = spec.node(me).is_some_and(|node| node.kind.may_own());
        for (ip, agent) in &mut self.agents {
            if !may_own || spec.floating_ip(ip).is_none() {
                agent.withdraw();
                self.shared.hands().remove(ip);
            }
        }
        let (Some(proxy), Some(guard)) = (&self.shared.proxy, &self.shared.guard) else { return };
        if !may_own {
            return;
        }
        let (shared, timing) = (&self.shared, spec.timing());
        for ip in &spec.floating_ips {
            let holds = self.agents.get(&ip.name).and_then(|agent| agent.holds.as_ref());
            if let Some((_, _, hands)) =
                holds.filter(|(address, ports, _)| (*address, ports) == (ip.address, &ip.ports))
            {
                hands.set_timing(timing);
                continue;
            }
            // Another address or other ports under the same name: what is held is let go before these begin.
            let hands = FloatingHands::start::<TokioRuntime>(
                ip.name.clone(),
                ip.ports.iter().map(|port| SocketAddr::new(ip.address, *port)).collect(),
                timing,
                hands::tools(ip, proxy, guard),
                Arc::clone(&shared.report_soon),
                &shared.supervisor,
            );
            shared.hands().insert(ip.name.clone(), Arc::clone(&hands));
            let held: Charge = Some(Arc::clone(&hands) as Arc<dyn Hands>);
            let agent = self.agents.entry(ip.name.clone()).or_insert_with(|| {
                let charge = watch::Sender::new(held.clone());
                let identity = Identity { ip: ip.name.clone(), node: me, incarnation: shared.incarnation };
                let (raft, brain) = (shared.raft.clone(), shared.brain.clone());
                let agent =
                    Agent::new(identity, raft, brain, shared.peers.clone(), charge.subscribe(), timing);
                let stop = CancellationToken::new();
                self.holding
                    .spawn(shared.supervisor.passing("a floating IP's agent", agent.run(stop.clone())));
                Appointment { charge, holds: None, stop }
            });
            if agent.holds.is_some() || agent.charge.borrow().is_none() {
                agent.charge.send_replace(held);
            }
            agent.holds = Some((ip.address, ip.ports.clone(), hands));
        }
    }

    /// A planned move begins with the owner running empty.
    fn follow_drains(&mut self, state: &State) {
        let Some(proxy) = &self.shared.proxy else { return };
        let wanted = |ip: &FloatingIpName| {
            let entry = state.floating_ips.get(ip)?;
            let owner = entry.owner.as_ref().filter(|owner| {
                owner.node == self.shared.me && owner.incarnation == self.shared.incarnation
            })?;
            let operation = entry.operation.as_ref()?;
            // From the first step of draining until the address is somebody else's, or the move is called off.
            let began = operation.steps.iter().any(|record| record.step == Step::Drain);
            (operation.kind.drains() && began).then_some(owner.token)
        };
        self.draining.retain(|ip, (token, stop)| {
            let goes_on = wanted(ip) == Some(*token);
            if !goes_on {
                stop.cancel();
                proxy.undrain_floating(ip);
                if let Some(hands) = self.shared.hands().get(ip) {
                    hands.set_drained(None);
                }
            }
            goes_on
        });
        let limit = state.spec.as_ref().map_or(Duration::from_secs(1), |spec| spec.policy.drain_timeout.0);
        for ip in state.floating_ips.keys() {
            let Some(token) = wanted(ip).filter(|_| !self.draining.contains_key(ip)) else { continue };
            let Some(hands) = self.shared.hands().get(ip).cloned() else { continue };
            let stop = CancellationToken::new();
            self.draining.insert(ip.clone(), (token, stop.clone()));
            tracing::debug!(%ip, load = ?proxy.in_flight(ip), "draining");
            proxy.drain_floating(ip, (limit / 2).min(Duration::from_millis(500)));
            let drain = drain(Arc::clone(&self.shared), ip.clone(), token, hands, stop);
            tokio::spawn(self.shared.supervisor.passing("a drain", drain));
        }
    }
}

/// Says so when nothing of an address is in flight any more.
async fn drain(
    shared: Arc<Shared>,
    ip: FloatingIpName,
    token: Token,
    hands: Arc<FloatingHands>,
    stop: CancellationToken,
) {
    let Some(proxy) = &shared.proxy else { return };
    let empty = async {
        loop {
            let load = proxy.in_flight(&ip);
            if load.requests == 0 && load.tunnels <= load.late_tunnels {
                return;
            }
            tokio::time::sleep(DRAIN_POLL).await;
        }
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = empty => {
            hands.set_drained(Some(token));
            tracing::debug!(%ip, %token, "drained");
            shared.report_soon.notify_one();
        }
    }
}

fn concerns_rooms_only(event: &Event) -> bool {
    matches!(event, Event::RoomPinned { .. } | Event::RoomsExpired { .. })
}

impl Shared {
    /// The floating IPs that this node may hold.
    pub fn hands(&self) -> std::sync::MutexGuard<'_, BTreeMap<FloatingIpName, Arc<FloatingHands>>> {
        self.hands.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
