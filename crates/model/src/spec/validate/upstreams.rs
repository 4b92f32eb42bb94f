//! Upstreams.

use super::{Findings, UPSTREAMS_MAX, key, unique};
use crate::spec::{ClusterSpec, UpstreamProtocol, UpstreamSpec};
use std::net::{IpAddr, Ipv6Addr};

pub(super) fn check(spec: &ClusterSpec, findings: &mut Findings) {
    findings.count("upstream", spec.upstreams.len(), 0..=UPSTREAMS_MAX);
    let upstreams = || spec.upstreams.iter().enumerate();
    unique(
        upstreams().map(|(index, upstream)| (&upstream.name, key("upstream", index, &upstream.name, "name"))),
        "give each upstream its own name",
        findings,
    );
    // Addresses with numbers are compared with everything else that has an address and a port.
    let named = upstreams().filter(|(_, upstream)| upstream.address.parse::<std::net::SocketAddr>().is_err());
    unique(
        named.map(|(index, upstream)| (&upstream.address, key("upstream", index, &upstream.name, "address"))),
        "give each upstream its own address",
        findings,
    );
    for (index, upstream) in upstreams() {
        check_upstream(spec, index, upstream, findings);
    }
}

fn check_upstream(spec: &ClusterSpec, index: usize, upstream: &UpstreamSpec, findings: &mut Findings) {
    let key = |field| key("upstream", index, &upstream.name, field);
    match spec.site(&upstream.site) {
        None => findings.add(
            key("site"),
            format!("there is no site `{}`", upstream.site),
            "write the name of a [[site]], or add it",
        ),
        Some(site) if site.witness => findings.add(
            key("site"),
            format!("`{}` is a witness site: it serves nothing", site.name),
            "write the site at which the upstream runs",
        ),
        Some(_) => {}
    }
    if let Err(problem) = host_and_port(&upstream.address) {
        findings.add(
            key("address"),
            format!("`{}`: {problem}", upstream.address),
            "write HOST:PORT, as in `10.1.0.11:3443`, `[2001:db8::1]:3443` or `meet-1.example.org:3443`",
        );
    }
    findings.number(key("weight"), upstream.weight.into(), 1..=1_000);
    if !upstream.tls.is_default() && upstream.protocol != UpstreamProtocol::Https {
        findings.add(
            key("tls"),
            "it says how a certificate is looked at, and the upstream does not speak TLS",
            "write `protocol = \"https\"`, or remove `tls`",
        );
    }
    if let Some(path) = upstream.tls.authorities.as_ref().filter(|path| !path.is_absolute()) {
        findings.add(
            key("tls.authorities"),
            format!("`{}` depends on where a node was started", path.display()),
            "write the whole path, from `/`",
        );
    }
    if let Some(name) =
        upstream.tls.name.as_ref().filter(|name| !is_host_name(name) && name.parse::<IpAddr>().is_err())
    {
        findings.add(
            key("tls.name"),
            format!("`{}` is not the name of a host", name.escape_debug()),
            "write the name in the upstream's certificate",
        );
    }
}

pub(super) fn warn(spec: &ClusterSpec, findings: &mut Findings) {
    for (index, upstream) in spec.upstreams.iter().enumerate() {
        if upstream.protocol == UpstreamProtocol::Https && !upstream.tls.verify {
            findings.add(
                key("upstream", index, &upstream.name, "tls.verify"),
                "anybody on the way can say that he is this upstream",
                "write `authorities` with the certificate that signed the upstream's, and remove `verify = false`",
            );
        }
        let port_of_tls = upstream.address.ends_with(":443") && upstream.protocol != UpstreamProtocol::Https;
        if port_of_tls {
            findings.add(
                key("upstream", index, &upstream.name, "protocol"),
                "443 is the port of HTTPS, and this upstream is spoken to in clear",
                "write `protocol = \"https\"`",
            );
        }
    }
}

/// Checks `HOST:PORT`.
pub fn host_and_port(address: &str) -> Result<(), &'static str> {
    let (host, port) = address.rsplit_once(':').ok_or("the port is missing")?;
    let digits = !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
    if !digits || port.starts_with('0') || port.parse::<u16>().is_err() {
        return Err("the port is not a number from 1 to 65535");
    }
    if let Some(inner) = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        let v6: Ipv6Addr = inner.parse().map_err(|_| "there is no IPv6 address in the brackets")?;
        return usable(v6.into());
    }
    if host.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
        let v4: std::net::Ipv4Addr = host.parse().map_err(|_| "the host is not an IPv4 address")?;
        return usable(v4.into());
    }
    if is_host_name(host) { Ok(()) } else { Err("the host is neither an address nor a name") }
}

fn usable(address: IpAddr) -> Result<(), &'static str> {
    super::unusable(address).map_or(Ok(()), Err)
}

/// Whether this is the name of a host: labels of letters, digits and `-`, joined by dots.
pub fn is_host_name(host: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    (1..=253).contains(&host.len()) && host.split('.').all(label)
}
