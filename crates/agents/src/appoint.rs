//! Appoints a holder for each floating IP that this node may own, and withdraws it when it may not any more.

use crate::brain::Brain;
use crate::hands::{FloatingHands, Tools};
use crate::leases::{Agent, Charge, Hands, Identity};
use crate::machine::Machine;
use crate::peers::Peers;
use crate::supervise::Supervisor;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{Notify, watch};
use tokio_util::sync::{CancellationToken, DropGuard};
use twinsite_consensus::Consensus;
use twinsite_model::spec::{FloatingIpSpec, ProviderKind};
use twinsite_model::{ClusterSpec, FloatingIpName, Incarnation, InterfaceName, NodeId};

/// The hands for all floating IPs that this node may hold. Clones share them.
#[derive(Clone, Default)]
pub struct AllHands(Arc<Mutex<BTreeMap<FloatingIpName, Arc<FloatingHands>>>>);

impl AllHands {
    /// As they are now.
    pub fn now(&self) -> MutexGuard<'_, BTreeMap<FloatingIpName, Arc<FloatingHands>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Those for one address.
    pub fn of(&self, ip: &FloatingIpName) -> Option<Arc<FloatingHands>> {
        self.now().get(ip).cloned()
    }
}

/// What holders need of their node.
pub struct Employer<M: Machine, P: Peers> {
    /// This node.
    pub me: NodeId,
    /// This life.
    pub incarnation: Incarnation,
    /// The consensus.
    pub raft: Consensus<M>,
    /// This node's own controller, when it leads.
    pub brain: Brain,
    /// The way to whoever else leads.
    pub peers: P,
    /// What watches over the tasks.
    pub supervisor: Supervisor,
    /// The hands, for whoever looks at what they hold.
    pub hands: AllHands,
    /// Told when something should be reported at once.
    pub report_soon: Arc<Notify>,
}

/// The holders of floating IPs. Once appointed they stay for this life of the process.
pub(crate) struct Appointments<M: Machine> {
    appointed: BTreeMap<FloatingIpName, Appointment>,
    /// Their tasks.
    holding: Vec<M::JoinHandle<()>>,
    /// They end where they are when nobody is left to tell them to let go.
    orphaned: CancellationToken,
    _orphans: DropGuard,
}

/// Where and how an address is held: what begins anew when the specification changes it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    provider: ProviderKind,
    address: IpAddr,
    interface: Option<InterfaceName>,
    ports: Vec<u16>,
}

impl Place {
    fn of(ip: &FloatingIpSpec) -> Self {
        let FloatingIpSpec { provider, address, interface, ports, .. } = ip.clone();
        Self { provider, address, interface, ports }
    }
}

/// The holder of one floating IP, as this node's specification wants it.
struct Appointment {
    charge: watch::Sender<Charge>,
    /// What it holds, and with what; none while this node shall not hold it.
    holds: Option<(Place, Arc<FloatingHands>)>,
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

impl<M: Machine> Default for Appointments<M> {
    fn default() -> Self {
        let orphaned = CancellationToken::new();
        let orphans = orphaned.clone().drop_guard();
        Self { appointed: BTreeMap::new(), holding: Vec::new(), orphaned, _orphans: orphans }
    }
}

impl<M: Machine> Appointments<M> {
    /// One holder for each floating IP that this node may own and has the tools for.
    pub(crate) fn follow<P: Peers>(
        &mut self,
        spec: &ClusterSpec,
        employer: &Employer<M, P>,
        mut tools: impl FnMut(&FloatingIpSpec) -> Option<Tools>,
    ) {
        let may_own = spec.node(employer.me).is_some_and(|node| node.kind.may_own());
        for (ip, agent) in &mut self.appointed {
            if !may_own || spec.floating_ip(ip).is_none() {
                agent.withdraw();
                employer.hands.now().remove(ip);
            }
        }
        if !may_own {
            return;
        }
        for ip in &spec.floating_ips {
            let holds = self.appointed.get(&ip.name).and_then(|agent| agent.holds.as_ref());
            if let Some((_, hands)) = holds.filter(|(place, _)| *place == Place::of(ip)) {
                hands.set_timing(spec.timing());
                continue;
            }
            // Another address, interface or other ports under the same name: what is held is let go before these begin.
            if let Some(tools) = tools(ip) {
                self.appoint(spec, ip, tools, employer);
            }
        }
    }

    fn appoint<P: Peers>(
        &mut self,
        spec: &ClusterSpec,
        ip: &FloatingIpSpec,
        tools: Tools,
        employer: &Employer<M, P>,
    ) {
        let Employer { me, incarnation, raft, brain, peers, supervisor, hands: all, report_soon } = employer;
        let hands = FloatingHands::start::<M>(
            ip.name.clone(),
            ip.ports.iter().map(|port| SocketAddr::new(ip.address, *port)).collect(),
            spec.timing(),
            tools,
            Arc::clone(report_soon),
            supervisor,
        );
        all.now().insert(ip.name.clone(), Arc::clone(&hands));
        let held: Charge = Some(Arc::clone(&hands) as Arc<dyn Hands>);
        let agent = self.appointed.entry(ip.name.clone()).or_insert_with(|| {
            let charge = watch::Sender::new(held.clone());
            let identity = Identity { ip: ip.name.clone(), node: *me, incarnation: *incarnation };
            let (raft, brain, peers) = (raft.clone(), brain.clone(), peers.clone());
            let agent = Agent::new(identity, raft, brain, peers, charge.subscribe(), spec.timing());
            let stop = CancellationToken::new();
            let run = supervisor.passing("a floating IP's agent", agent.run(stop.clone()));
            let orphaned = self.orphaned.clone();
            self.holding.push(M::spawn(async move {
                let _orphaned = orphaned.run_until_cancelled(run).await;
            }));
            Appointment { charge, holds: None, stop }
        });
        if agent.holds.is_some() || agent.charge.borrow().is_none() {
            agent.charge.send_replace(held);
        }
        agent.holds = Some((Place::of(ip), hands));
    }

    /// Lets every floating IP go in good order.
    pub(crate) async fn end(mut self) {
        for agent in self.appointed.values() {
            agent.stop.cancel();
        }
        for agent in self.holding.drain(..) {
            let _ended = agent.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_begins_anew_where_it_is_held_otherwise_and_not_for_anything_else() {
        let text = include_str!("../../../deploy/example/cluster.toml");
        let ip = twinsite_model::spec::from_toml(text).unwrap().floating_ips[0].clone();
        let changed = |change: fn(&mut FloatingIpSpec)| {
            let mut other = ip.clone();
            change(&mut other);
            assert_ne!(other, ip);
            Place::of(&other) != Place::of(&ip)
        };
        assert!(changed(|ip| ip.interface = Some(InterfaceName::new("eth7").unwrap())));
        assert!(changed(|ip| ip.address = "203.0.113.11".parse().unwrap()));
        assert!(changed(|ip| ip.ports.push(443)));
        assert!(!changed(|ip| drop(ip.sites.pop())));
    }
}
