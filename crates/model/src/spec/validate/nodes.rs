//! Nodes and votes.

use super::{Findings, NODES, key, unique, unusable};
use crate::spec::{ClusterSpec, NodeKind, NodeSpec};
use std::net::SocketAddr;

pub(super) fn check(spec: &ClusterSpec, findings: &mut Findings) {
    findings.count("node", spec.nodes.len(), NODES);
    let nodes = || spec.nodes.iter().enumerate();
    unique(
        nodes().map(|(index, node)| (node.id, key("node", index, &node.name, "id"))),
        "give each node its own id, one that was never used in this cluster",
        findings,
    );
    unique(
        nodes().map(|(index, node)| (&node.name, key("node", index, &node.name, "name"))),
        "give each node its own name",
        findings,
    );
    for (index, node) in nodes() {
        check_node(spec, index, node, findings);
    }
    for prefix in &spec.proxy.proxy_protocol_from {
        let of_node = |node: &&NodeSpec| {
            let own = node.http.iter().chain(&node.https).chain([&node.peer, &node.api]);
            own.map(SocketAddr::ip).any(|own| prefix.contains(own))
        };
        // One on everything is warned of.
        if let Some(node) = spec.nodes.iter().find(of_node).filter(|_| !prefix.is_everything()) {
            findings.add(
                "proxy.proxy_protocol_from",
                format!(
                    "`{prefix}` covers node {}, whose probes of the floating IPs say no PROXY header",
                    node.name
                ),
                "write the addresses of the load balancers alone",
            );
        }
    }
    if spec.nodes.is_empty() {
        return;
    }
    if !spec.nodes.iter().any(|node| node.kind.votes()) {
        findings.add("node", "no node has a vote", "add nodes of kind `proxy` or `witness`");
    }
    if !spec.nodes.iter().any(|node| node.kind.may_own()) {
        findings.add("node", "no node may own a floating IP", "add a node of kind `proxy`");
    }
}

fn check_node(spec: &ClusterSpec, index: usize, node: &NodeSpec, findings: &mut Findings) {
    let key = |field| key("node", index, &node.name, field);
    if node.id.0 == 0 {
        findings.add(key("id"), "0 is not an id", "count from 1");
    }
    match spec.site(&node.site) {
        None => findings.add(
            key("site"),
            format!("there is no site `{}`", node.site),
            "write the name of a [[site]], or add it",
        ),
        Some(site) if site.witness && node.kind != NodeKind::Witness => findings.add(
            key("kind"),
            format!("site `{}` is a witness site, and this node is no witness", site.name),
            "write `kind = \"witness\"`, or move the node to a site that serves",
        ),
        Some(site) if !site.witness && node.kind == NodeKind::Witness => findings.add(
            key("kind"),
            format!("the node is a witness, and site `{}` serves", site.name),
            "move the node to a site with `witness = true`: beside a site that serves it would fall with it",
        ),
        Some(_) => {}
    }
    for (field, address) in [("peer", node.peer), ("api", node.api)] {
        check_address(&key(field), address, findings);
    }
    for (field, addresses) in [("http", &node.http), ("https", &node.https)] {
        for address in addresses {
            check_address(&key(field), *address, findings);
        }
        if !addresses.is_empty() && !node.kind.serves() {
            findings.add(key(field), "a witness serves nothing", "remove it");
        }
        if addresses.len() > 16 {
            findings.add(key(field), "more than 16 addresses", "write at most 16");
        }
    }
}

fn check_address(key: &str, address: SocketAddr, findings: &mut Findings) {
    if address.port() == 0 {
        findings.add(key, "port 0 stands for any port", "write the port, 1 to 65535");
    }
    // A listener on every address would also answer for floating IPs that another node owns.
    if let Some(why) = unusable(address.ip()) {
        findings.add(key, format!("{} {why}", address.ip()), "write the node's own address");
    }
}

pub(super) fn warn(spec: &ClusterSpec, findings: &mut Findings) {
    let voters = spec.nodes.iter().filter(|node| node.kind.votes()).count();
    if voters.is_multiple_of(2) {
        let tolerated = voters.saturating_sub(1) / 2;
        findings.add(
            "node",
            format!(
                "{voters} nodes vote: that tolerates {tolerated} failures, no more than one voter fewer does"
            ),
            "make the number of voters odd, with a witness at a third site",
        );
    }
    let voting_sites = spec
        .sites
        .iter()
        .filter(|site| spec.nodes.iter().any(|node| node.site == site.name && node.kind.votes()));
    if voting_sites.count() < 3 {
        findings.add(
            "node",
            "fewer than three sites vote: the loss of one of them can take the quorum with it, and failover is then \
             manual",
            "add a site with `witness = true` and a node of kind `witness` elsewhere",
        );
    }
}
