//! What makes a specification usable. Every finding names the key and the remedy.

mod certificates;
mod floating_ips;
mod nodes;
mod policies;
mod routes;
mod sites;
mod timing;
mod upstreams;

pub use routes::path_pattern;
pub use upstreams::{host_and_port, is_host_name};

use super::{ClusterSpec, to_json};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::Duration;

/// The longest specification, in bytes of JSON: it travels in one entry of the log.
pub const SPEC_BYTES_MAX: usize = 1_900_000;
/// How many sites a cluster may have. Two serving ones and a witness are the standard.
pub const SITES: RangeInclusive<usize> = 2..=20;
/// How many nodes a cluster may have.
pub const NODES: RangeInclusive<usize> = 1..=100;
/// How many upstreams a cluster may have.
pub const UPSTREAMS_MAX: usize = 10_000;
/// How many floating IPs a cluster may have.
pub const FLOATING_IPS_MAX: usize = 100;
/// How many routes a cluster may have.
pub const ROUTES_MAX: usize = 1_000;

/// One thing about a specification: a contradiction ([`check`]) or something to know ([`warnings`]).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Where, as a person would point at it, counting from 1: `node[2] (gra-2).site`.
    pub key: String,
    /// What is wrong.
    pub problem: String,
    /// What to do.
    pub remedy: String,
}

impl Finding {
    /// The finding without the number of the thing in its list, which changes when others come and go.
    fn without_place(&self) -> (String, String) {
        let numbered =
            self.key.split_once('[').and_then(|(list, rest)| Some((list, rest.split_once(']')?.1)));
        let key = numbered.map_or_else(|| self.key.clone(), |(list, rest)| format!("{list}{rest}"));
        (key, self.problem.clone())
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}; {}", self.key, self.problem, self.remedy)
    }
}

/// Everything that is wrong with a specification; empty if it can be used.
pub fn check(spec: &ClusterSpec) -> Vec<Finding> {
    let mut findings = Findings::default();
    sites::check(spec, &mut findings);
    nodes::check(spec, &mut findings);
    upstreams::check(spec, &mut findings);
    floating_ips::check(spec, &mut findings);
    certificates::check(spec, &mut findings);
    routes::check(spec, &mut findings);
    policies::check(spec, &mut findings);
    timing::check(spec, &mut findings);
    addresses_used_twice(spec, &mut findings);
    let bytes = to_json(spec).len();
    if bytes > SPEC_BYTES_MAX {
        let problem = format!("it has {bytes} bytes as JSON, and at most {SPEC_BYTES_MAX} are allowed");
        findings.add("cluster", problem, "use fewer entries or shorter names");
    }
    findings.0
}

/// What a change of a specification makes wrong: findings about the new one that the former one did not have, wherever
/// in their lists the things stand.
pub fn introduced(former: &ClusterSpec, new: &ClusterSpec) -> Vec<Finding> {
    let former: BTreeSet<_> = check(former).iter().map(Finding::without_place).collect();
    check(new).into_iter().filter(|finding| !former.contains(&finding.without_place())).collect()
}

/// Floating IPs whose provider the cluster can agree on, and this program has no client for.
pub fn without_provider(spec: &ClusterSpec) -> Vec<Finding> {
    let mut findings = Findings::default();
    for (index, ip) in spec.floating_ips.iter().enumerate().filter(|(_, ip)| ip.provider.is_routed()) {
        findings.add(
            key("floating_ip", index, &ip.name, "provider"),
            "this program has no way yet to move an address by `ovh`",
            "write `provider = \"netlink\"`, or \"loopback\" for one machine",
        );
    }
    findings.0
}

/// What can be used, and yet should be known: each with the remedy.
pub fn warnings(spec: &ClusterSpec) -> Vec<Finding> {
    let mut findings = Findings::default();
    sites::warn(spec, &mut findings);
    nodes::warn(spec, &mut findings);
    floating_ips::warn(spec, &mut findings);
    certificates::warn(spec, &mut findings);
    upstreams::warn(spec, &mut findings);
    routes::warn(spec, &mut findings);
    policies::warn(spec, &mut findings);
    findings.0
}

/// The findings so far.
#[derive(Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn add(&mut self, key: impl Into<String>, problem: impl Into<String>, remedy: impl Into<String>) {
        self.0.push(Finding { key: key.into(), problem: problem.into(), remedy: remedy.into() });
    }

    fn count(&mut self, key: &str, count: usize, allowed: RangeInclusive<usize>) {
        if !allowed.contains(&count) {
            let (min, max) = allowed.into_inner();
            self.add(
                key,
                format!("there are {count}"),
                format!("write at least {min} and at most {max} [[{key}]] sections"),
            );
        }
    }

    fn number(&mut self, key: impl Into<String>, value: u64, allowed: RangeInclusive<u64>) {
        if !allowed.contains(&value) {
            let (min, max) = allowed.into_inner();
            self.add(key, format!("{value} is out of bounds"), format!("use {min} to {max}"));
        }
    }

    fn duration(
        &mut self,
        key: impl Into<String>,
        value: super::HumanDuration,
        allowed: RangeInclusive<Duration>,
    ) {
        if !allowed.contains(&value.0) {
            let (min, max) = allowed.into_inner();
            let (min, max) = (super::HumanDuration(min), super::HumanDuration(max));
            self.add(key, format!("{value} is out of bounds"), format!("use {min} to {max}"));
        }
    }
}

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_mins(1);
const HOUR: Duration = Duration::from_hours(1);
const DAY: Duration = Duration::from_hours(24);

/// `node[2] (gra-2).site`, counting from 1.
fn key(list: &str, index: usize, name: &impl fmt::Display, field: &str) -> String {
    format!("{list}[{}] ({name}).{field}", index + 1)
}

/// Says where a value occurs for the second time.
fn unique<'a, V: Ord + fmt::Display + 'a>(
    values: impl Iterator<Item = (V, String)> + 'a,
    remedy: &str,
    findings: &mut Findings,
) {
    let mut seen: BTreeMap<V, String> = BTreeMap::new();
    for (value, place) in values {
        if let Some(first) = seen.get(&value) {
            findings.add(place, format!("`{value}` is already used by {first}"), remedy);
        } else {
            seen.insert(value, place);
        }
    }
}

/// Why an address cannot be given to one thing of its own.
fn unusable(address: IpAddr) -> Option<&'static str> {
    match address {
        _ if address.is_unspecified() => Some("stands for every address"),
        _ if address.is_multicast() => Some("is a multicast address"),
        IpAddr::V4(v4) if v4.is_broadcast() => Some("is the broadcast address"),
        IpAddr::V4(_) | IpAddr::V6(_) => None,
    }
}

/// No two things may listen on, or be reached at, the same address and port.
fn addresses_used_twice(spec: &ClusterSpec, findings: &mut Findings) {
    let mut all: Vec<(SocketAddr, String)> = Vec::new();
    for (index, node) in spec.nodes.iter().enumerate() {
        all.push((node.peer, key("node", index, &node.name, "peer")));
        all.push((node.api, key("node", index, &node.name, "api")));
        all.extend(node.http.iter().map(|http| (*http, key("node", index, &node.name, "http"))));
        all.extend(node.https.iter().map(|https| (*https, key("node", index, &node.name, "https"))));
    }
    for (index, ip) in spec.floating_ips.iter().enumerate() {
        let address =
            |port| (SocketAddr::new(ip.address, port), key("floating_ip", index, &ip.name, "ports"));
        all.extend(ip.ports.iter().copied().map(address));
    }
    for (index, upstream) in spec.upstreams.iter().enumerate() {
        let address = upstream.address.parse().ok();
        all.extend(address.map(|at: SocketAddr| (at, key("upstream", index, &upstream.name, "address"))));
    }
    unique(all.into_iter(), "give each its own address and port", findings);
}

#[cfg(test)]
mod tests;
