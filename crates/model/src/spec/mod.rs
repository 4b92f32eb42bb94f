//! The cluster specification: what the operators want, agreed by all nodes, written by people in `cluster.toml`.
//!
//! The types here say what can be written; [`validate`] says what makes sense. Durations are written as text with
//! a unit (`"250ms"`, `"3s"`, `"10m"`).

mod certificate;
mod cidr;
pub mod diff;
mod drills;
mod duration;
mod floating_ip;
#[cfg(test)]
mod fuzz;
mod headers;
mod parse;
mod pattern;
mod route;
mod template;
mod upstream;
pub mod validate;

pub use certificate::CertificateSpec;
pub use cidr::Cidr;
pub use drills::{BlockedWindow, Day, DayTime, DayTimeError, DrillsSpec};
pub use duration::HumanDuration;
pub use floating_ip::{Failback, FloatingIpSpec, OnQuorumUnknown, ProviderKind};
pub use headers::{HeaderEdits, HeaderName, HeaderNameError};
pub use parse::{Place, SPEC_TEXT_BYTES_MAX, SpecError, from_json, from_toml, to_json, to_toml};
pub use pattern::{Pattern, PatternError};
pub use route::{Balance, Compression, MatchSpec, RedirectSpec, RespondSpec, RouteSpec, Scheme};
pub use template::{Part, Template, TemplateError, Variable};
pub use upstream::{UpstreamProtocol, UpstreamSpec, UpstreamTlsSpec};

use crate::ids::{ClusterName, FloatingIpName, NodeId, NodeName, SiteName, UpstreamName};
use crate::state::Format;
use crate::timing::{Profile, Timing};
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// The newest version of the specification's format that this program reads.
pub const SPEC_VERSION: u32 = 1;

/// Everything that the operators decide about a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClusterSpec {
    /// The version of this format; 1.
    pub version: u32,
    /// The cluster's name.
    pub cluster: ClusterName,
    /// The set of timings to use.
    #[serde(default)]
    pub profile: Profile,
    /// Single timings that differ from the profile's.
    #[serde(default, skip_serializing_if = "TimingOverrides::is_empty")]
    pub timing: TimingOverrides,
    /// The sites, in order of preference.
    #[serde(rename = "site")]
    pub sites: Vec<SiteSpec>,
    /// The nodes.
    #[serde(rename = "node")]
    pub nodes: Vec<NodeSpec>,
    /// The instances of the meeting server.
    #[serde(rename = "upstream", default)]
    pub upstreams: Vec<UpstreamSpec>,
    /// The floating IPs.
    #[serde(rename = "floating_ip", default)]
    pub floating_ips: Vec<FloatingIpSpec>,
    /// The certificates. A client gets the first one for the name that it asks for, or simply the first.
    #[serde(rename = "certificate", default, skip_serializing_if = "Vec::is_empty")]
    pub certificates: Vec<CertificateSpec>,
    /// The routes, tried in order.
    #[serde(rename = "route", default)]
    pub routes: Vec<RouteSpec>,
    /// How upstreams are probed.
    #[serde(default)]
    pub health: HealthSpec,
    /// Where session placement is kept.
    #[serde(default)]
    pub sessions: SessionsSpec,
    /// What the controller may do by itself.
    #[serde(default)]
    pub policy: PolicySpec,
    /// The bounds of the proxy.
    #[serde(default)]
    pub proxy: ProxySpec,
    /// Drills on this cluster.
    #[serde(default, skip_serializing_if = "DrillsSpec::is_default")]
    pub drills: DrillsSpec,
}

/// Timings that replace those of the profile.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TimingOverrides {
    /// See [`Timing::heartbeat`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub heartbeat: Option<HumanDuration>,
    /// See [`Timing::election_min`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub election_min: Option<HumanDuration>,
    /// See [`Timing::election_max`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub election_max: Option<HumanDuration>,
    /// See [`Timing::renew`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub renew: Option<HumanDuration>,
    /// See [`Timing::lease`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lease: Option<HumanDuration>,
    /// See [`Timing::slack`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slack: Option<HumanDuration>,
    /// See [`Timing::provider_call`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provider_call: Option<HumanDuration>,
    /// See [`Timing::drift_ppm`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drift_ppm: Option<u32>,
}

impl TimingOverrides {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// A failure domain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SiteSpec {
    /// Its short name.
    pub name: SiteName,
    /// A witness site has a vote and serves nothing.
    #[serde(default)]
    pub witness: bool,
    /// The site's own public address, which its meeting instances announce for media by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub announced_ip: Option<IpAddr>,
    /// Which address the site's meeting instances announce.
    #[serde(default)]
    pub announce: AnnounceMode,
}

/// Which address the meeting instances of a site announce to their clients for media.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AnnounceMode {
    /// The site's own address: media never moves.
    #[default]
    Site,
    /// The floating address, while this site is observed to hold it; the site's own one otherwise.
    Floating,
}

/// What a node is for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NodeKind {
    /// Votes and serves.
    #[default]
    Proxy,
    /// Votes, never owns, serves nothing.
    Witness,
    /// Serves without a vote.
    Edge,
}

impl NodeKind {
    /// Whether a node of this kind has a vote.
    pub const fn votes(self) -> bool {
        matches!(self, Self::Proxy | Self::Witness)
    }

    /// Whether a node of this kind proxies requests.
    pub const fn serves(self) -> bool {
        matches!(self, Self::Proxy | Self::Edge)
    }

    /// Whether a node of this kind may own a floating IP.
    pub const fn may_own(self) -> bool {
        matches!(self, Self::Proxy)
    }
}

/// One node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeSpec {
    /// Its number; never used twice in the life of a cluster.
    pub id: NodeId,
    /// Its name for people.
    pub name: NodeName,
    /// The site at which it runs.
    pub site: SiteName,
    /// What it is for.
    #[serde(default)]
    pub kind: NodeKind,
    /// Where the other nodes reach it (consensus, reports, leases).
    pub peer: SocketAddr,
    /// Where the public API answers.
    pub api: SocketAddr,
    /// Where it proxies HTTP on addresses of its own, beside the floating ones.
    #[serde(default)]
    pub http: Vec<SocketAddr>,
    /// The same by TLS.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub https: Vec<SocketAddr>,
}

impl NodeSpec {
    /// The oldest format whose programs read all that is written here.
    pub(crate) fn required_format(&self) -> Format {
        if self.https.is_empty() { Format::FIRST } else { Format::EDGE }
    }
}

/// How every serving node probes every upstream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HealthSpec {
    /// The path of the probe; its answer must be 2xx within the deadline, to the last byte.
    pub path: String,
    /// The pause between probes.
    pub interval: HumanDuration,
    /// The deadline of one probe, body included.
    pub timeout: HumanDuration,
    /// How many good probes in a row make an upstream healthy.
    pub rise: u32,
    /// How many bad probes in a row make it unhealthy.
    pub fall: u32,
    /// Whether a Socket.IO handshake must answer too.
    pub socket_io: bool,
    /// After so many failed requests in a row a node by itself leaves an upstream out for a while, without waiting for the
    /// cluster's verdict; 0 for never. Rooms stay where they are.
    #[serde(skip_serializing_if = "is_zero")]
    pub eject_after: u32,
    /// For how long, the first time; then twice as long each time, up to ten times.
    #[serde(skip_serializing_if = "is_eject_for_default")]
    pub eject_for: HumanDuration,
    /// How long an upstream that was unhealthy takes, once it is healthy again, to get as much as the others.
    #[serde(skip_serializing_if = "HumanDuration::is_zero")]
    pub slow_start: HumanDuration,
}

/// See [`HealthSpec::eject_for`].
const EJECT_FOR: HumanDuration = HumanDuration(Duration::from_secs(5));

#[allow(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
const fn is_zero(number: &u32) -> bool {
    *number == 0
}

fn is_eject_for_default(duration: &HumanDuration) -> bool {
    *duration == EJECT_FOR
}

impl HealthSpec {
    fn is_of_format_6(&self) -> bool {
        self.eject_after != 0 || self.eject_for != EJECT_FOR || self.slow_start != HumanDuration::default()
    }
}

impl Default for HealthSpec {
    fn default() -> Self {
        Self {
            path: "/health".to_owned(),
            interval: HumanDuration(Duration::from_secs(1)),
            timeout: HumanDuration(Duration::from_millis(800)),
            rise: 2,
            fall: 3,
            socket_io: false,
            eject_after: 0,
            eject_for: EJECT_FOR,
            slow_start: HumanDuration::default(),
        }
    }
}

/// Which store holds session placement.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SessionStoreKind {
    /// A shared Redis.
    Redis,
    /// A small table in the replicated state: for demos and tiny set-ups.
    #[default]
    Embedded,
}

/// Where session placement is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SessionsSpec {
    /// Which store.
    pub store: SessionStoreKind,
    /// `redis://HOST:PORT/DB` or `rediss://…`, without credentials: those come from a file or the environment of
    /// each node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// How long a room that nobody uses keeps its place.
    pub room_ttl: HumanDuration,
    /// How long the first placement of a room may wait for the store.
    pub placement_timeout: HumanDuration,
    /// Whether every accepted write is noted, with its token, in a bounded stream for later audit.
    pub audit: bool,
}

impl Default for SessionsSpec {
    fn default() -> Self {
        Self {
            store: SessionStoreKind::Embedded,
            url: None,
            room_ttl: HumanDuration(Duration::from_hours(1)),
            placement_timeout: HumanDuration(Duration::from_millis(50)),
            audit: false,
        }
    }
}

/// What the controller may do by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PolicySpec {
    /// Log every decision as "would have ..." and act on none.
    pub observe_only: bool,
    /// A move needs at least so many healthy upstreams at the target's site.
    pub healthy_upstreams_min: u32,
    /// The breaker: at most so many automatic failovers in each window, then only by hand.
    pub failovers_max: u32,
    /// The breaker's window.
    pub failover_window: HumanDuration,
    /// How long a switchover waits for requests in flight at the old owner.
    pub drain_timeout: HumanDuration,
    /// How long a pause lasts if nobody says otherwise.
    pub pause_default: HumanDuration,
}

impl Default for PolicySpec {
    fn default() -> Self {
        Self {
            observe_only: false,
            healthy_upstreams_min: 1,
            failovers_max: 2,
            failover_window: HumanDuration(Duration::from_hours(1)),
            drain_timeout: HumanDuration(Duration::from_secs(10)),
            pause_default: HumanDuration(Duration::from_hours(1)),
        }
    }
}

/// The bounds of the proxy on each node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ProxySpec {
    /// The longest request or response head, in bytes.
    pub head_bytes_max: u32,
    /// The longest wait for a complete request head on a new connection or after a response.
    pub head_timeout: HumanDuration,
    /// How long an idle client connection is kept.
    pub keep_alive_timeout: HumanDuration,
    /// Client connections that a node accepts at once, tunnels included.
    pub connections_max: u32,
    /// The largest request body, in bytes; 0 for no limit.
    pub body_bytes_max: u64,
    /// Idle connections that each core keeps to each upstream.
    pub idle_per_upstream_max: u32,
    /// Proxies in front of the nodes: what they say of a client's address (`X-Forwarded-For`, from the right), scheme, host
    /// and port counts; nobody else's word does.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub trusted_proxies: Vec<Cidr>,
    /// Load balancers in front of the nodes: each of their connections begins with a PROXY header, version 1 or 2, that says
    /// whose it is, and is closed if it does not.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub proxy_protocol_from: Vec<Cidr>,
    /// How many of a hundred requests may be tried a second time where the first upstream did not take them: when everything
    /// is down, retries would double the load. A few in each second always may.
    #[serde(skip_serializing_if = "is_retry_percent_default")]
    pub retry_percent: u32,
    /// Answer `x-twinsite-node` and `x-twinsite-token` to requests that carry `x-twinsite-trace: 1`.
    pub trace_headers: bool,
}

/// See [`ProxySpec::retry_percent`].
const RETRY_PERCENT: u32 = 20;

#[allow(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
const fn is_retry_percent_default(percent: &u32) -> bool {
    *percent == RETRY_PERCENT
}

impl Default for ProxySpec {
    fn default() -> Self {
        Self {
            head_bytes_max: 64 * 1024,
            head_timeout: HumanDuration(Duration::from_secs(10)),
            keep_alive_timeout: HumanDuration(Duration::from_secs(75)),
            connections_max: 10_000,
            body_bytes_max: 0,
            idle_per_upstream_max: 64,
            trusted_proxies: Vec::new(),
            proxy_protocol_from: Vec::new(),
            retry_percent: RETRY_PERCENT,
            trace_headers: true,
        }
    }
}

impl ClusterSpec {
    /// The timings in force: the profile's, with the overrides.
    pub fn timing(&self) -> Timing {
        let base = Timing::of(self.profile);
        let over = &self.timing;
        let pick = |own: Option<HumanDuration>, profile: Duration| own.map_or(profile, |d| d.0);
        Timing {
            heartbeat: pick(over.heartbeat, base.heartbeat),
            election_min: pick(over.election_min, base.election_min),
            election_max: pick(over.election_max, base.election_max),
            renew: pick(over.renew, base.renew),
            lease: pick(over.lease, base.lease),
            slack: pick(over.slack, base.slack),
            provider_call: pick(over.provider_call, base.provider_call),
            drift_ppm: over.drift_ppm.unwrap_or(base.drift_ppm),
        }
    }

    /// The oldest format whose programs read all that is written here.
    pub(crate) fn required_format(&self) -> Format {
        if self.is_of_format_6() {
            Format::EDGE
        } else if self.routes.iter().any(RouteSpec::is_of_format_5) || !self.proxy.trusted_proxies.is_empty()
        {
            Format::ROUTES
        } else if !self.drills.is_default() {
            Format::DRILLS
        } else {
            Format::FIRST
        }
    }

    /// Whether it says what [`Format::EDGE`] brought.
    fn is_of_format_6(&self) -> bool {
        !self.certificates.is_empty()
            || !self.proxy.proxy_protocol_from.is_empty()
            || self.speaks_tls()
            || self.upstreams.iter().any(|upstream| upstream.required_format() == Format::EDGE)
            || self.health.is_of_format_6()
            || self.proxy.retry_percent != ProxySpec::default().retry_percent
    }

    /// Whether any node serves clients by TLS.
    pub fn speaks_tls(&self) -> bool {
        self.nodes.iter().any(|node| !node.https.is_empty())
            || self.floating_ips.iter().any(|ip| !ip.tls_ports.is_empty())
    }

    /// The node with this id.
    pub fn node(&self, id: NodeId) -> Option<&NodeSpec> {
        self.nodes.iter().find(|node| node.id == id)
    }

    /// The node with this name.
    pub fn node_named(&self, name: &NodeName) -> Option<&NodeSpec> {
        self.nodes.iter().find(|node| node.name == *name)
    }

    /// The site with this name.
    pub fn site(&self, name: &SiteName) -> Option<&SiteSpec> {
        self.sites.iter().find(|site| site.name == *name)
    }

    /// The upstream with this name.
    pub fn upstream(&self, name: &UpstreamName) -> Option<&UpstreamSpec> {
        self.upstreams.iter().find(|upstream| upstream.name == *name)
    }

    /// The floating IP with this name.
    pub fn floating_ip(&self, name: &FloatingIpName) -> Option<&FloatingIpSpec> {
        self.floating_ips.iter().find(|ip| ip.name == *name)
    }

    /// The sites that may own a floating IP, the preferred one first.
    pub fn owner_sites<'a>(&'a self, ip: &'a FloatingIpSpec) -> Vec<&'a SiteName> {
        if ip.sites.is_empty() {
            self.sites.iter().filter(|site| !site.witness).map(|site| &site.name).collect()
        } else {
            ip.sites.iter().collect()
        }
    }
}
