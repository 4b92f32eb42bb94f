//! Floating IPs.

use super::{DAY, FLOATING_IPS_MAX, Findings, SECOND, key, unique, unusable};
use crate::spec::{ClusterSpec, Failback, FloatingIpSpec, NodeSpec, OnQuorumUnknown, ProviderKind};
use std::collections::BTreeSet;
use std::net::SocketAddr;

pub(super) fn check(spec: &ClusterSpec, findings: &mut Findings) {
    findings.count("floating_ip", spec.floating_ips.len(), 0..=FLOATING_IPS_MAX);
    let ips = || spec.floating_ips.iter().enumerate();
    unique(
        ips().map(|(index, ip)| (&ip.name, key("floating_ip", index, &ip.name, "name"))),
        "give each floating IP its own name",
        findings,
    );
    unique(
        ips().map(|(index, ip)| (ip.address, key("floating_ip", index, &ip.name, "address"))),
        "write all its ports in one [[floating_ip]]: an address has one owner",
        findings,
    );
    for (index, ip) in ips() {
        check_ip(spec, index, ip, findings);
    }
}

fn check_ip(spec: &ClusterSpec, index: usize, ip: &FloatingIpSpec, findings: &mut Findings) {
    let key = |field| key("floating_ip", index, &ip.name, field);
    if let Some(why) = unusable(ip.address) {
        findings.add(key("address"), format!("{} {why}", ip.address), "write one address");
    }
    match ip.provider {
        ProviderKind::Loopback if !ip.address.is_loopback() => findings.add(
            key("provider"),
            format!("`loopback` cannot move {}, which is not an address of the loopback range", ip.address),
            "write an address of 127.0.0.0/8",
        ),
        ProviderKind::Netlink if ip.address.is_loopback() => findings.add(
            key("provider"),
            format!(
                "{} is an address of the loopback range: no other host would look for it here",
                ip.address
            ),
            "write an address of the network that the hosts share, or `provider = \"loopback\"`",
        ),
        ProviderKind::Loopback | ProviderKind::Netlink | ProviderKind::Ovh => {}
    }
    match (ip.provider, &ip.interface) {
        (ProviderKind::Netlink, None) => findings.add(
            key("interface"),
            "`netlink` puts the address on an interface, and none is named",
            "write `interface = \"eth0\"`, as `ip link` calls it",
        ),
        (ProviderKind::Loopback | ProviderKind::Ovh, Some(interface)) => findings.add(
            key("interface"),
            format!("`{interface}` is named, and only addresses of `netlink` are put on an interface"),
            "remove it, or write `provider = \"netlink\"`",
        ),
        _ => {}
    }
    if !ip.provider.is_routed() && ip.on_quorum_unknown() != OnQuorumUnknown::Stop {
        findings.add(
            key("on_quorum_unknown"),
            "an address of provider `loopback` or `netlink` always stops with its lease",
            "write `on_quorum_unknown = \"stop\"`, or remove it",
        );
    }
    if ip.ports.is_empty() {
        findings.add(key("ports"), "there are none", "write the ports on which the owner proxies HTTP");
    }
    if ip.ports.len() > 64 {
        findings.add(key("ports"), "more than 64 ports", "write at most 64");
    }
    if ip.ports.contains(&0) {
        findings.add(key("ports"), "port 0 stands for any port", "write ports from 1 to 65535");
    }
    if let Some(other) = ip.tls_ports.iter().find(|port| !ip.ports.contains(port)) {
        findings.add(
            key("tls_ports"),
            format!("{other} is not among `ports`"),
            "name in `tls_ports` those of the `ports` that speak TLS",
        );
    }
    if !ip.ports.is_empty() && ip.probe_port().is_none() {
        findings.add(
            key("tls_ports"),
            "every port speaks TLS: the cluster could not tell a bad certificate from a lost address",
            "add a port without TLS to `ports`, as 80, with a route that redirects to HTTPS",
        );
    }
    check_sites(spec, ip, &key("sites"), findings);
    if let Failback::After(stable) = ip.failback {
        findings.duration(key("failback"), stable, SECOND..=30 * DAY);
    }
}

fn check_sites(spec: &ClusterSpec, ip: &FloatingIpSpec, key: &str, findings: &mut Findings) {
    let mut seen = BTreeSet::new();
    for name in &ip.sites {
        match spec.site(name) {
            None => {
                findings.add(key, format!("there is no site `{name}`"), "write names of [[site]] sections");
            }
            Some(site) if site.witness => findings.add(
                key,
                format!("`{name}` is a witness site: it cannot own an address"),
                "remove it",
            ),
            Some(_) if !seen.insert(name) => {
                findings.add(key, format!("`{name}` is there twice"), "write each site once");
            }
            Some(_) => {}
        }
    }
    let sites = spec.owner_sites(ip);
    let eligible = spec.nodes.iter().any(|node| node.kind.may_own() && sites.contains(&&node.site));
    if !eligible {
        findings.add(
            key,
            "no node may own this address",
            "name a site that has a node of kind `proxy`, or add such a node",
        );
    }
}

/// Whether these nodes may be on one machine, by the addresses at which others reach them.
fn on_one_machine(nodes: &[&NodeSpec]) -> bool {
    let of_node = |node: &NodeSpec| {
        node.http.iter().chain(&node.https).map(SocketAddr::ip).chain([node.peer.ip()]).collect::<Vec<_>>()
    };
    let hosts: BTreeSet<_> =
        nodes.iter().flat_map(|node| of_node(node)).filter(|host| !host.is_loopback()).collect();
    hosts.len() <= 1
}

pub(super) fn warn(spec: &ClusterSpec, findings: &mut Findings) {
    for (index, ip) in spec.floating_ips.iter().enumerate() {
        let sites = spec.owner_sites(ip);
        let owners = spec.nodes.iter().filter(|node| node.kind.may_own() && sites.contains(&&node.site));
        let owners: Vec<_> = owners.collect();
        if ip.provider == ProviderKind::Loopback && !on_one_machine(&owners) {
            findings.add(
                key("floating_ip", index, &ip.name, "provider"),
                "`loopback` keeps two holders apart on one machine only, and the nodes that may own this address have \
                 addresses of several",
                "use it for the demo, drills and tests, with all nodes on one machine",
            );
        }
        if owners.len() == 1 {
            findings.add(
                key("floating_ip", index, &ip.name, "sites"),
                "only one node may own this address: its loss cannot be repaired",
                "name a second site, or add a node of kind `proxy`",
            );
        }
    }
}
