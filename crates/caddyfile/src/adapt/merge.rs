//! What a Caddyfile says, put into a specification.

use super::Adapted;
use std::collections::BTreeSet;
use twinsite_model::spec::{
    AnnounceMode, ClusterSpec, DrillsSpec, HealthSpec, PolicySpec, ProxySpec, SPEC_VERSION, SessionsSpec,
    SiteSpec, TimingOverrides,
};
use twinsite_model::{ClusterName, Profile};

impl Adapted {
    /// Replaces upstreams and routes of a specification, and whatever else the Caddyfile says something of. The rest
    /// stays.
    pub fn put_into(&self, spec: &mut ClusterSpec) {
        spec.upstreams.clone_from(&self.upstreams);
        spec.routes.clone_from(&self.routes);
        if let Some(health) = &self.health {
            spec.health = health.clone();
        }
        if !self.certificates.is_empty() {
            spec.certificates.clone_from(&self.certificates);
        }
        if !self.trusted_proxies.is_empty() {
            spec.proxy.trusted_proxies.clone_from(&self.trusted_proxies);
        }
        if let Some(idle) = self.idle_per_upstream_max {
            spec.proxy.idle_per_upstream_max = idle;
        }
    }

    /// A specification of nothing else, whose findings about this are those of any other.
    pub(super) fn alone(&self) -> Option<ClusterSpec> {
        let sites: BTreeSet<_> = self.upstreams.iter().map(|upstream| &upstream.site).collect();
        let site =
            |name| SiteSpec { name, witness: false, announced_ip: None, announce: AnnounceMode::default() };
        let mut spec = ClusterSpec {
            version: SPEC_VERSION,
            cluster: ClusterName::new("adapted").ok()?,
            profile: Profile::default(),
            timing: TimingOverrides::default(),
            sites: sites.into_iter().cloned().map(site).collect(),
            nodes: Vec::new(),
            upstreams: Vec::new(),
            floating_ips: Vec::new(),
            certificates: Vec::new(),
            routes: Vec::new(),
            health: HealthSpec::default(),
            sessions: SessionsSpec::default(),
            policy: PolicySpec::default(),
            proxy: ProxySpec::default(),
            drills: DrillsSpec::default(),
        };
        self.put_into(&mut spec);
        Some(spec)
    }
}
