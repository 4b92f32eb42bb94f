//! The sites and nodes of a live cluster, in the words of a scenario.

use crate::engine::ClusterStatus;
use crate::scenario::{NodeTarget, SiteTarget};
use twinsite_model::spec::{FloatingIpSpec, NodeKind};
use twinsite_model::{ClusterSpec, NodeName, SiteName};

/// Who is where. Owner's site and other site are those of before the first step.
#[derive(Debug, Clone)]
pub(super) struct Places {
    spec: ClusterSpec,
    pub(super) owner: NodeName,
    pub(super) owner_site: SiteName,
    pub(super) other_site: SiteName,
}

impl Places {
    /// The places as they are now; or why there is nothing to rehearse.
    pub(super) fn new(
        spec: &ClusterSpec,
        ip: &FloatingIpSpec,
        status: &ClusterStatus,
    ) -> Result<Self, String> {
        let owner = status.owner.as_ref().map(|(owner, _)| owner.clone());
        let owner = owner.ok_or_else(|| "nobody owns the floating address".to_owned())?;
        let owner_site = spec.node_named(&owner).map(|node| node.site.clone());
        let owner_site = owner_site.ok_or_else(|| format!("the owner, {owner}, is no member any more"))?;
        let other = spec.owner_sites(ip).into_iter().find(|site| **site != owner_site);
        let other_site =
            other.cloned().ok_or_else(|| format!("no other site than {owner_site} may own the address"))?;
        Ok(Self { spec: spec.clone(), owner, owner_site, other_site })
    }

    /// The site that is meant; none if there is no such site.
    pub(super) fn site(&self, target: &SiteTarget) -> Option<SiteName> {
        match target {
            SiteTarget::OwnerSite => Some(self.owner_site.clone()),
            SiteTarget::OtherSite => Some(self.other_site.clone()),
            SiteTarget::WitnessSite => {
                self.spec.sites.iter().find(|site| site.witness).map(|site| site.name.clone())
            }
            SiteTarget::Named(name) => self.spec.site(name).map(|site| site.name.clone()),
        }
    }

    /// The voters that are meant, in the order of the specification.
    pub(super) fn voters(&self, target: &NodeTarget, owner: Option<&NodeName>) -> Vec<NodeName> {
        let voters = self.spec.nodes.iter().filter(|node| node.kind.votes());
        let chosen = voters.filter(|node| match target {
            NodeTarget::Owner => Some(&node.name) == owner,
            NodeTarget::OwnerSite => node.site == self.owner_site,
            NodeTarget::OtherSite => node.site == self.other_site,
            NodeTarget::Witness => node.kind == NodeKind::Witness,
            NodeTarget::Named(name) => node.name == *name,
            NodeTarget::Leader
            | NodeTarget::Majority
            | NodeTarget::All
            | NodeTarget::Victims
            | NodeTarget::Survivors => false,
        });
        chosen.map(|node| node.name.clone()).collect()
    }

    pub(super) fn site_of(&self, node: &NodeName) -> Option<&SiteName> {
        self.spec.node_named(node).map(|node| &node.site)
    }

    pub(super) fn nodes(&self) -> impl Iterator<Item = &NodeName> {
        self.spec.nodes.iter().map(|node| &node.name)
    }

    pub(super) fn upstreams(&self) -> impl Iterator<Item = (&SiteName, &twinsite_model::UpstreamName)> {
        self.spec.upstreams.iter().map(|upstream| (&upstream.site, &upstream.name))
    }

    pub(super) fn healthy_upstreams_min(&self) -> usize {
        self.spec.policy.healthy_upstreams_min as usize
    }
}
