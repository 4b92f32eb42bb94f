//! Who plays which role, and who has been hit.

use super::ClusterStatus;
use crate::layout::{Layout, NodePlace};
use crate::measure::Tunnel;
use crate::process::ProcessName;
use crate::scenario::{InstanceTarget, NodeTarget, Processes, SiteTarget};
use std::collections::{BTreeMap, BTreeSet};
use twinsite_model::spec::NodeKind;
use twinsite_model::{NodeName, SiteName, Token, UpstreamName};

/// The roles: sites as they were before the first step, owner and leader as last known.
#[derive(Debug)]
pub(super) struct Roles {
    layout: Layout,
    pub(super) owner_site: SiteName,
    pub(super) other_site: SiteName,
    /// The token before the first step.
    pub(super) token: Token,
    owner: NodeName,
    leader: Option<NodeName>,
    pub(super) nodes_hit: BTreeSet<NodeName>,
    pub(super) instances_hit: BTreeSet<UpstreamName>,
}

impl Roles {
    /// The roles in a healthy cluster; none while nobody owns the address.
    pub(super) fn new(layout: &Layout, status: &ClusterStatus) -> Option<Self> {
        let (owner, token) = status.owner.clone()?;
        let owner_site = layout.node(&owner)?.site.clone();
        let other_site = layout.serving_sites().find(|site| **site != owner_site)?.clone();
        Some(Self {
            layout: layout.clone(),
            owner_site,
            other_site,
            token,
            owner,
            leader: status.leader.clone(),
            nodes_hit: BTreeSet::new(),
            instances_hit: BTreeSet::new(),
        })
    }

    /// Takes in who owns and leads now.
    pub(super) fn update(&mut self, status: &ClusterStatus) {
        if let Some((owner, _)) = &status.owner {
            self.owner = owner.clone();
        }
        if status.leader.is_some() {
            self.leader.clone_from(&status.leader);
        }
    }

    pub(super) fn site(&self, target: &SiteTarget) -> SiteName {
        match target {
            SiteTarget::OwnerSite => self.owner_site.clone(),
            SiteTarget::OtherSite => self.other_site.clone(),
            SiteTarget::WitnessSite => self
                .layout
                .nodes
                .iter()
                .find(|node| node.kind == NodeKind::Witness)
                .map_or_else(|| self.other_site.clone(), |node| node.site.clone()),
            SiteTarget::Named(name) => name.clone(),
        }
    }

    pub(super) fn nodes(&self, target: &NodeTarget) -> Vec<NodeName> {
        let chosen = |choose: &dyn Fn(&NodePlace) -> bool| {
            self.layout.nodes.iter().filter(|node| choose(node)).map(|node| node.name.clone()).collect()
        };
        match target {
            NodeTarget::Owner => vec![self.owner.clone()],
            NodeTarget::Leader => self.leader.iter().cloned().collect(),
            NodeTarget::OwnerSite => chosen(&|node| node.site == self.owner_site),
            NodeTarget::OtherSite => chosen(&|node| node.site == self.other_site),
            NodeTarget::Witness => chosen(&|node| node.kind == NodeKind::Witness),
            NodeTarget::Majority => {
                chosen(&|node| node.site == self.owner_site || node.kind == NodeKind::Witness)
            }
            NodeTarget::All => chosen(&|_| true),
            NodeTarget::Victims => self.nodes_hit.iter().cloned().collect(),
            NodeTarget::Survivors => chosen(&|node| !self.nodes_hit.contains(&node.name)),
            NodeTarget::Named(name) => vec![name.clone()],
        }
    }

    pub(super) fn instances(&self, target: &InstanceTarget, seen: &[Tunnel]) -> Vec<UpstreamName> {
        let at = |site: &SiteName| self.layout.instances_at(site).map(|place| place.name.clone()).collect();
        match target {
            InstanceTarget::Busiest => busiest(seen)
                .or_else(|| self.layout.instances_at(&self.owner_site).next().map(|place| place.name.clone()))
                .into_iter()
                .collect(),
            InstanceTarget::OwnerSite => at(&self.owner_site),
            InstanceTarget::OtherSite => at(&self.other_site),
            InstanceTarget::All => self.layout.instances.iter().map(|place| place.name.clone()).collect(),
            InstanceTarget::Victims => self.instances_hit.iter().cloned().collect(),
            InstanceTarget::Named(name) => vec![name.clone()],
        }
    }

    /// The processes that a step means: guardians first, because a guardian that lives would report the death.
    pub(super) fn processes(&self, processes: &Processes, seen: &[Tunnel]) -> Vec<ProcessName> {
        let guardians = processes.guardians.iter().flat_map(|target| self.nodes(target));
        let nodes = processes.nodes.iter().flat_map(|target| self.nodes(target));
        let instances = processes.instances.iter().flat_map(|target| self.instances(target, seen));
        guardians
            .map(ProcessName::Guardian)
            .chain(nodes.map(ProcessName::Node))
            .chain(instances.map(ProcessName::Instance))
            .collect()
    }

    /// Notes that these were hit, so that later steps can name them.
    pub(super) fn hit(&mut self, processes: &[ProcessName]) {
        for process in processes {
            match process {
                ProcessName::Node(name) | ProcessName::Guardian(name) => {
                    self.nodes_hit.insert(name.clone());
                }
                ProcessName::Instance(name) => {
                    self.instances_hit.insert(name.clone());
                }
                ProcessName::Redis => {}
            }
        }
    }
}

/// The instance with the most participants at this moment.
fn busiest(seen: &[Tunnel]) -> Option<UpstreamName> {
    let mut participants: BTreeMap<&UpstreamName, usize> = BTreeMap::new();
    for tunnel in seen.iter().filter(|tunnel| tunnel.lost.is_none()) {
        *participants.entry(&tunnel.instance).or_default() += 1;
    }
    participants.into_iter().max_by_key(|(_, count)| *count).map(|(instance, _)| instance.clone())
}
