//! The routing table: what every request needs to know, worked out once for each change of the replicated state.

use crate::edits::Edits;
use crate::facts::Facts;
use crate::standing::{Strikes, Warmth};
use crate::tally::Tally;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;
use tokio::sync::watch;
use twinsite_model::spec::{
    Balance, CertificateSpec, Compression, HeaderEdits, HealthSpec, MatchSpec, ProxySpec, RedirectSpec,
    RespondSpec, RouteSpec, Scheme,
};
use twinsite_model::{FloatingIpName, RouteName, SiteName, State, TicketSecret, UpstreamName, Verdict};
use twinsite_upstream::Target;

/// Immutable once published.
#[derive(Debug)]
pub struct RoutingTable {
    pub(crate) routes: Vec<Route>,
    pub(crate) upstreams: Vec<Upstream>,
    index: BTreeMap<UpstreamName, usize>,
    pub(crate) limits: ProxySpec,
    pub(crate) health: HealthSpec,
    /// The shortest silence that any route allows a body.
    pub(crate) silence_min: Duration,
    /// For each floating IP the sites in their order; requests at a node's own addresses use the first one's.
    site_orders: BTreeMap<FloatingIpName, Vec<SiteName>>,
    default_order: Vec<SiteName>,
    /// The ports of floating IPs that speak TLS.
    tls_ports: BTreeMap<FloatingIpName, Vec<u16>>,
    pub(crate) certificates: Vec<CertificateSpec>,
    /// What the keys of TLS session tickets are made of, the newest first.
    pub(crate) ticket_secrets: Vec<TicketSecret>,
}

/// One upstream, as the proxy sees it.
#[derive(Debug, Clone)]
pub(crate) struct Upstream {
    pub(crate) name: UpstreamName,
    pub(crate) target: Arc<Target>,
    pub(crate) weight: u32,
    pub(crate) verdict: Verdict,
    pub(crate) load: Arc<UpstreamLoad>,
    pub(crate) tally: Arc<Tally>,
}

/// What this node has open to an upstream. Outlives tables.
#[derive(Debug)]
pub(crate) struct UpstreamLoad {
    /// Requests in flight and tunnels: what `least_conn` counts.
    pub(crate) open: AtomicU32,
    /// Tunnels alone.
    pub(crate) tunnels: AtomicU32,
    /// Whether the upstream is given up, and tunnels to it must end.
    pub(crate) given_up: watch::Sender<bool>,
    /// What this node makes of its failures.
    pub(crate) strikes: Strikes,
    /// Whether it is getting warm.
    pub(crate) warmth: Warmth,
    /// Whether it was unhealthy in the table before this one.
    pub(crate) was_unhealthy: AtomicBool,
}

impl Default for UpstreamLoad {
    fn default() -> Self {
        Self {
            open: AtomicU32::new(0),
            tunnels: AtomicU32::new(0),
            given_up: watch::Sender::new(false),
            strikes: Strikes::default(),
            warmth: Warmth::default(),
            was_unhealthy: AtomicBool::new(false),
        }
    }
}

/// Counts one request or tunnel while it lives.
#[derive(Debug)]
pub(crate) struct Opened {
    load: Arc<UpstreamLoad>,
    tunnel: bool,
}

impl UpstreamLoad {
    /// A table comes into force that says this of the upstream.
    pub(crate) fn judged(&self, verdict: Verdict, slow_start: Duration) {
        let was_unhealthy = self.was_unhealthy.swap(verdict == Verdict::Unhealthy, Ordering::Relaxed);
        if was_unhealthy && verdict != Verdict::Unhealthy {
            self.warmth.begin(slow_start);
        }
    }

    pub(crate) fn open(self: &Arc<Self>, tunnel: bool) -> Opened {
        self.open.fetch_add(1, Ordering::Relaxed);
        if tunnel {
            self.tunnels.fetch_add(1, Ordering::Relaxed);
        }
        Opened { load: Arc::clone(self), tunnel }
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        self.load.open.fetch_sub(1, Ordering::Relaxed);
        if self.tunnel {
            self.load.tunnels.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// One route with its upstreams, sorted by what may be asked of them.
#[derive(Debug)]
pub(crate) struct Route {
    pub(crate) name: RouteName,
    pub(crate) tally: Arc<Tally>,
    hosts: Vec<HostPattern>,
    path: PathPattern,
    /// What else a request must look like; none if that is nothing.
    matches: Option<MatchSpec>,
    /// What it answers by itself.
    pub(crate) own_answer: Option<OwnAnswer>,
    /// What it changes of requests and answers.
    pub(crate) request_edits: Option<Edits>,
    pub(crate) response_edits: Option<Edits>,
    pub(crate) compress: Vec<Compression>,
    pub(crate) balance: Balance,
    /// Whether its upstreams have different weights.
    pub(crate) is_uneven: bool,
    pub(crate) room_query: Option<String>,
    pub(crate) connect_timeout: Duration,
    pub(crate) response_timeout: Duration,
    pub(crate) body_idle_timeout: Duration,
    pub(crate) tunnel_idle_timeout: Duration,
    /// Indices into [`RoutingTable::upstreams`].
    members: BTreeSet<usize>,
    /// The same, by verdict and site.
    by_verdict: BTreeMap<Verdict, BTreeMap<SiteName, Vec<usize>>>,
}

/// What a route answers without asking anybody.
#[derive(Debug)]
pub(crate) enum OwnAnswer {
    Redirect(RedirectSpec),
    Respond(RespondSpec),
}

#[derive(Debug)]
enum HostPattern {
    Any,
    Exact(String),
    /// Any name below; held with its leading dot.
    Below(String),
}

#[derive(Debug)]
enum PathPattern {
    Exact(String),
    Prefix(String),
}

impl RoutingTable {
    /// Works the table out.
    pub fn build(state: &State) -> Self {
        let Some(spec) = &state.spec else { return Self::empty() };
        let upstreams: Vec<Upstream> = spec
            .upstreams
            .iter()
            .map(|upstream| Upstream {
                name: upstream.name.clone(),
                target: Arc::new(Target::of(upstream)),
                weight: upstream.weight,
                verdict: state.verdict(&upstream.name),
                load: Arc::default(),
                tally: Arc::new(Tally::new(0)), // until it is published
            })
            .collect();
        let index: BTreeMap<UpstreamName, usize> =
            upstreams.iter().enumerate().map(|(index, upstream)| (upstream.name.clone(), index)).collect();
        let sites: Vec<&SiteName> = spec.upstreams.iter().map(|upstream| &upstream.site).collect();
        let routes: Vec<Route> =
            spec.routes.iter().map(|route| Route::build(route, &upstreams, &index, &sites)).collect();
        let site_orders =
            spec.floating_ips.iter().map(|ip| (ip.name.clone(), state.site_preference(Some(ip)))).collect();
        let default_order = state.site_preference(spec.floating_ips.first());
        let limits = spec.proxy.clone();
        let silences = routes.iter().map(|route| route.body_idle_timeout);
        let silence_min = silences.min().unwrap_or(limits.keep_alive_timeout.0);
        let tls_ports = spec.floating_ips.iter().map(|ip| (ip.name.clone(), ip.tls_ports.clone())).collect();
        Self {
            routes,
            upstreams,
            index,
            limits,
            health: spec.health.clone(),
            silence_min,
            site_orders,
            default_order,
            tls_ports,
            certificates: spec.certificates.clone(),
            ticket_secrets: state.ticket_keys.iter().rev().map(|key| key.secret.clone()).collect(),
        }
    }

    /// Before there is a specification: nothing is routed.
    pub(crate) fn empty() -> Self {
        Self {
            routes: Vec::new(),
            upstreams: Vec::new(),
            index: BTreeMap::new(),
            limits: ProxySpec::default(),
            health: HealthSpec::default(),
            silence_min: ProxySpec::default().keep_alive_timeout.0,
            site_orders: BTreeMap::new(),
            default_order: Vec::new(),
            tls_ports: BTreeMap::new(),
            certificates: Vec::new(),
            ticket_secrets: Vec::new(),
        }
    }

    /// Whether upstreams are left out for their failures at all.
    pub(crate) const fn ejects(&self) -> bool {
        self.health.eject_after > 0
    }

    /// What is spoken at a port of a floating IP.
    pub(crate) fn scheme_at(&self, ip: &FloatingIpName, port: u16) -> Scheme {
        let is_tls = self.tls_ports.get(ip).is_some_and(|ports| ports.contains(&port));
        if is_tls { Scheme::Https } else { Scheme::Http }
    }

    /// The first route that a request looks like.
    pub(crate) fn route(&self, facts: &Facts<'_>) -> Option<&Route> {
        let (host, path) = (facts.host.name(), facts.uri.path());
        self.routes.iter().find(|route| {
            route.is_for(host, path) && route.matches.as_ref().is_none_or(|wanted| facts.suit(wanted))
        })
    }

    /// The sites in the order in which their upstreams are preferred.
    pub(crate) fn site_order(&self, ip: Option<&FloatingIpName>) -> &[SiteName] {
        ip.and_then(|ip| self.site_orders.get(ip)).unwrap_or(&self.default_order)
    }

    /// The upstream of that name, if the route may use it.
    pub(crate) fn of_route(&self, route: &Route, name: &UpstreamName) -> Option<&Upstream> {
        let index = self.index.get(name)?;
        route.members.contains(index).then(|| &self.upstreams[*index])
    }

    /// Whether a room that is there may stay there.
    pub(crate) fn keeps_rooms(route: &Route, upstream: &Upstream) -> bool {
        upstream.verdict != Verdict::Unhealthy || route.is_all_bad()
    }

    /// Whether tunnels to the upstream at this index have no future: it is bad, and none of its routes keeps its rooms
    /// there all the same.
    pub(crate) fn gives_up(&self, index: usize) -> bool {
        let upstream = &self.upstreams[index];
        let mut routes = self.routes.iter().filter(|route| route.members.contains(&index));
        upstream.verdict == Verdict::Unhealthy && !routes.any(|route| Self::keeps_rooms(route, upstream))
    }

    /// The groups of upstreams to try, the best first: the healthy ones site after site, then those of which nothing is
    /// known, then draining ones. If nothing else is left, the unhealthy ones: when all look bad it is more likely that
    /// this node or the probe is at fault, and refusing everything helps nobody.
    pub(crate) fn tiers<'a>(
        &'a self,
        route: &'a Route,
        ip: Option<&FloatingIpName>,
    ) -> impl Iterator<Item = &'a [usize]> {
        const ORDER: [Verdict; 4] =
            [Verdict::Healthy, Verdict::Unknown, Verdict::Draining, Verdict::Unhealthy];
        let verdicts =
            ORDER.into_iter().filter(|verdict| *verdict != Verdict::Unhealthy || route.is_all_bad());
        let sites = self.site_order(ip);
        verdicts.flat_map(move |verdict| {
            let by_site = route.by_verdict.get(&verdict);
            sites.iter().filter_map(move |site| by_site?.get(site).map(Vec::as_slice))
        })
    }
}

impl Route {
    fn build(
        spec: &RouteSpec,
        upstreams: &[Upstream],
        index: &BTreeMap<UpstreamName, usize>,
        sites: &[&SiteName],
    ) -> Self {
        let indices: Vec<usize> = if spec.upstreams.is_empty() {
            (0..upstreams.len()).collect()
        } else {
            spec.upstreams.iter().filter_map(|name| index.get(name).copied()).collect()
        };
        let mut weights = indices.iter().map(|index| upstreams[*index].weight);
        let first = weights.next();
        let is_uneven = weights.any(|weight| Some(weight) != first);
        let mut by_verdict: BTreeMap<Verdict, BTreeMap<SiteName, Vec<usize>>> = BTreeMap::new();
        let members = indices.iter().copied().collect();
        for index in indices {
            let by_site = by_verdict.entry(upstreams[index].verdict).or_default();
            by_site.entry(sites[index].clone()).or_default().push(index);
        }
        Self {
            name: spec.name.clone(),
            tally: Arc::new(Tally::new(0)), // until it is published
            hosts: spec.hosts.iter().map(|host| HostPattern::new(host)).collect(),
            path: PathPattern::new(&spec.path),
            matches: (!spec.matches.is_any()).then(|| spec.matches.clone()),
            own_answer: OwnAnswer::new(spec),
            request_edits: edits(&spec.request_headers),
            response_edits: edits(&spec.response_headers),
            compress: spec.compress.clone(),
            balance: spec.balance,
            is_uneven,
            room_query: spec.room_query.clone(),
            connect_timeout: spec.connect_timeout.0,
            response_timeout: spec.response_timeout.0,
            body_idle_timeout: spec.body_idle_timeout.0,
            tunnel_idle_timeout: spec.tunnel_idle_timeout.0,
            members,
            by_verdict,
        }
    }

    fn is_for(&self, host: &str, path: &str) -> bool {
        let host_matches = self.hosts.is_empty() || self.hosts.iter().any(|pattern| pattern.matches(host));
        host_matches && self.path.matches(path)
    }

    fn is_all_bad(&self) -> bool {
        self.by_verdict.keys().all(|verdict| *verdict == Verdict::Unhealthy)
    }
}

fn edits(spec: &HeaderEdits) -> Option<Edits> {
    (!spec.is_empty()).then(|| Edits::new(spec))
}

impl OwnAnswer {
    fn new(spec: &RouteSpec) -> Option<Self> {
        let redirect = spec.redirect.clone().map(Self::Redirect);
        redirect.or_else(|| spec.respond.clone().map(Self::Respond))
    }
}

impl HostPattern {
    fn new(written: &str) -> Self {
        let written = written.to_ascii_lowercase();
        match written.strip_prefix('*') {
            Some("") => Self::Any,
            Some(below) => Self::Below(below.to_owned()),
            None => Self::Exact(written),
        }
    }

    fn matches(&self, host: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Exact(name) => host.eq_ignore_ascii_case(name),
            Self::Below(suffix) => {
                let Some(cut) = host.len().checked_sub(suffix.len()) else { return false };
                cut > 0 && host.get(cut..).is_some_and(|end| end.eq_ignore_ascii_case(suffix))
            }
        }
    }
}

impl PathPattern {
    fn new(written: &str) -> Self {
        match written.strip_suffix('*') {
            Some(prefix) => Self::Prefix(prefix.to_owned()),
            None => Self::Exact(written.to_owned()),
        }
    }

    fn matches(&self, path: &str) -> bool {
        match self {
            Self::Exact(exact) => path == exact,
            Self::Prefix(prefix) => path.starts_with(prefix.as_str()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_paths_match_as_written() {
        let host = |pattern: &str, host: &str| HostPattern::new(pattern).matches(host);
        assert!(host("*", "anything"));
        assert!(host("Meet.example.org", "meet.EXAMPLE.org"));
        assert!(!host("meet.example.org", "x.meet.example.org"));
        assert!(host("*.example.org", "a.b.example.org"));
        assert!(!host("*.example.org", "example.org"));
        assert!(!host("*.example.org", ".example.org"));
        assert!(!host("*.example.org", "badexample.org"));
        let path = |pattern: &str, path: &str| PathPattern::new(pattern).matches(path);
        assert!(path("/health", "/health") && !path("/health", "/health/"));
        assert!(path("/socket.io/*", "/socket.io/") && !path("/socket.io/*", "/socket.io"));
        assert!(path("/*", "/"));
    }
}
