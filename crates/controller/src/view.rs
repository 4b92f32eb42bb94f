//! Everything that a decision may look at, in one place.

use crate::index::{Index, SiteHealth};
use crate::report::NodeReport;
use crate::tenure::Tenure;
use std::collections::BTreeSet;
use twinsite_model::spec::{FloatingIpSpec, NodeSpec};
use twinsite_model::{
    BootTime, ClusterSpec, FloatingIpName, NodeId, Operation, Owner, SiteName, State, Timing, WallTime,
};

/// What a decision may look at.
#[derive(Clone, Copy)]
pub(crate) struct View<'a> {
    pub(crate) tenure: &'a Tenure,
    pub(crate) index: &'a Index,
    pub(crate) state: &'a State,
    pub(crate) spec: &'a ClusterSpec,
    pub(crate) timing: &'a Timing,
    pub(crate) now: BootTime,
    pub(crate) wall: WallTime,
}

impl<'a> View<'a> {
    /// The newest report of a node, if it is fresh and of the life that the cluster has recorded.
    pub(crate) fn heard(&self, node: NodeId) -> Option<&'a NodeReport> {
        let (at, report) = self.tenure.report(node)?;
        let fresh = self.now < at + crate::report::report_freshness(self.timing);
        let life = self.state.nodes.get(&node)?.incarnation;
        (fresh && life == report.incarnation && !self.has_ended(node)).then_some(report)
    }

    /// Whether the life that the cluster has recorded of a node was seen to end.
    pub(crate) fn has_ended(&self, node: NodeId) -> bool {
        let life = self.state.nodes.get(&node).map(|life| life.incarnation);
        life.is_some_and(|life| self.tenure.has_ended(node, life))
    }

    /// The serving nodes that are heard: their opinions count.
    pub(crate) fn observers(&self) -> BTreeSet<NodeId> {
        let serving = self.spec.nodes.iter().filter(|node| node.kind.serves()).map(|node| node.id);
        serving.filter(|node| self.heard(*node).is_some()).collect()
    }

    pub(crate) fn node(&self, node: NodeId) -> Option<&'a NodeSpec> {
        self.index.node(self.spec, node)
    }

    /// A node's name for people.
    pub(crate) fn name(&self, node: NodeId) -> String {
        self.node(node).map_or_else(|| format!("node {node}"), |spec| spec.name.to_string())
    }

    pub(crate) fn site_of(&self, node: NodeId) -> Option<&'a SiteName> {
        self.node(node).map(|node| &node.site)
    }

    pub(crate) fn ip(&self, name: &FloatingIpName) -> Option<&'a FloatingIpSpec> {
        self.spec.floating_ips.get(self.index.ip(name)?)
    }

    pub(crate) fn owner(&self, ip: &FloatingIpName) -> Option<&'a Owner> {
        self.state.owner(ip)
    }

    pub(crate) fn operation(&self, ip: &FloatingIpName) -> Option<&'a Operation> {
        self.state.floating_ips.get(ip)?.operation.as_ref()
    }

    pub(crate) fn health(&self, site: &SiteName) -> SiteHealth {
        self.index.health(site)
    }

    /// How many healthy upstreams make a site good enough.
    pub(crate) fn healthy_min(&self) -> u32 {
        self.spec.policy.healthy_upstreams_min
    }

    /// When everybody who lives has had the time to report since the election.
    pub(crate) fn settled_at(&self) -> BootTime {
        self.tenure.elected_at + crate::report::report_freshness(self.timing)
    }

    /// Whether everybody who lives has had the time to report since the election.
    pub(crate) fn settled(&self) -> bool {
        self.now >= self.settled_at()
    }

    /// When the owner counts as silent.
    pub(crate) fn silent_at(&self, ip: &FloatingIpName, owner: &Owner) -> BootTime {
        let seen = self.tenure.owner_seen(ip, owner.token).unwrap_or(self.now);
        self.tenure.grantor.silent_at(ip, owner, seen, self.timing)
    }

    /// The wall clock as the state will clamp it.
    pub(crate) fn wall(&self) -> WallTime {
        self.wall.max(self.state.wall)
    }
}
