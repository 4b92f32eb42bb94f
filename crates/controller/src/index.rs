//! What is looked up again and again, prepared once for each specification and each revision, so that no decision
//! walks over everything.

use std::collections::BTreeMap;
use twinsite_model::spec::NodeSpec;
use twinsite_model::{ClusterSpec, FloatingIpName, NodeId, Revision, SiteName, State, UpstreamName, Verdict};

/// How many upstreams of a site are in which state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct SiteHealth {
    pub(crate) upstreams: u32,
    /// Healthy and not draining.
    pub(crate) healthy: u32,
    pub(crate) unhealthy: u32,
}

impl SiteHealth {
    /// Whether the site has upstreams and every single one is found bad.
    pub(crate) fn all_bad(self) -> bool {
        self.upstreams > 0 && self.unhealthy == self.upstreams
    }
}

/// Lookups over one specification, and counts over one revision.
#[derive(Debug, Clone, Default)]
pub(crate) struct Index {
    spec_revision: Revision,
    revision: Revision,
    nodes: BTreeMap<NodeId, usize>,
    ips: BTreeMap<FloatingIpName, usize>,
    upstream_sites: BTreeMap<UpstreamName, SiteName>,
    verdicts: BTreeMap<UpstreamName, Verdict>,
    health: BTreeMap<SiteName, SiteHealth>,
    owned: BTreeMap<SiteName, u32>,
}

/// What became different.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    /// The specification.
    pub(crate) spec: bool,
    /// These upstreams' agreed health.
    pub(crate) verdicts: Vec<UpstreamName>,
}

impl Index {
    /// Brings it up to date.
    pub(crate) fn refresh(&mut self, state: &State) -> Changes {
        let mut changes = Changes::default();
        let Some(spec) = &state.spec else { return changes };
        let changed = self.spec_revision != state.spec_revision;
        if changed {
            self.spec_revision = state.spec_revision;
            self.nodes = spec.nodes.iter().enumerate().map(|(place, node)| (node.id, place)).collect();
            self.ips =
                spec.floating_ips.iter().enumerate().map(|(place, ip)| (ip.name.clone(), place)).collect();
            let sites = spec.upstreams.iter().map(|upstream| (upstream.name.clone(), upstream.site.clone()));
            self.upstream_sites = sites.collect();
            self.verdicts = self.upstream_sites.keys().map(|name| (name.clone(), Verdict::Unknown)).collect();
        }
        changes.spec = changed;
        if changed || self.revision != state.revision {
            self.revision = state.revision;
            changes.verdicts = self.compare_verdicts(state);
            self.count(spec, state);
        }
        changes
    }

    fn compare_verdicts(&mut self, state: &State) -> Vec<UpstreamName> {
        let mut changed = Vec::new();
        for (upstream, known) in &mut self.verdicts {
            let health = state.verdicts.get(upstream).map_or(Verdict::Unknown, |record| record.health);
            if std::mem::replace(known, health) != health {
                changed.push(upstream.clone());
            }
        }
        changed
    }

    fn count(&mut self, spec: &ClusterSpec, state: &State) {
        self.health = spec.sites.iter().map(|site| (site.name.clone(), SiteHealth::default())).collect();
        for (upstream, site) in &self.upstream_sites {
            let Some(health) = self.health.get_mut(site) else { continue };
            health.upstreams += 1;
            match state.verdict(upstream) {
                Verdict::Healthy => health.healthy += 1,
                Verdict::Unhealthy => health.unhealthy += 1,
                Verdict::Draining | Verdict::Unknown => {}
            }
        }
        self.owned.clear();
        for ip in &spec.floating_ips {
            let place = state.owner(&ip.name).and_then(|owner| self.nodes.get(&owner.node));
            if let Some(node) = place.and_then(|place| spec.nodes.get(*place)) {
                *self.owned.entry(node.site.clone()).or_default() += 1;
            }
        }
    }

    /// A node of the specification.
    pub(crate) fn node<'s>(&self, spec: &'s ClusterSpec, id: NodeId) -> Option<&'s NodeSpec> {
        spec.nodes.get(*self.nodes.get(&id)?)
    }

    /// The place of an address in the specification.
    pub(crate) fn ip(&self, name: &FloatingIpName) -> Option<usize> {
        self.ips.get(name).copied()
    }

    /// The site of an upstream.
    pub(crate) fn upstream_site(&self, name: &UpstreamName) -> Option<&SiteName> {
        self.upstream_sites.get(name)
    }

    /// The upstreams of a site, counted.
    pub(crate) fn health(&self, site: &SiteName) -> SiteHealth {
        self.health.get(site).copied().unwrap_or_default()
    }

    /// How many addresses are owned at a site.
    pub(crate) fn owned(&self, site: &SiteName) -> u32 {
        self.owned.get(site).copied().unwrap_or_default()
    }
}
