//! Routes.

use super::upstreams::is_host_name;
use super::{DAY, Findings, HOUR, MINUTE, MS, ROUTES_MAX, SECOND, key, unique};
use crate::ids::UpstreamName;
use crate::spec::{ClusterSpec, RouteSpec};
use std::collections::BTreeSet;

pub(super) fn check(spec: &ClusterSpec, findings: &mut Findings) {
    findings.count("route", spec.routes.len(), 0..=ROUTES_MAX);
    unique(
        spec.routes
            .iter()
            .enumerate()
            .map(|(index, route)| (&route.name, key("route", index, &route.name, "name"))),
        "give each route its own name",
        findings,
    );
    let known: BTreeSet<_> = spec.upstreams.iter().map(|upstream| &upstream.name).collect();
    for (index, route) in spec.routes.iter().enumerate() {
        check_route(index, route, &known, findings);
    }
}

fn check_route(index: usize, route: &RouteSpec, known: &BTreeSet<&UpstreamName>, findings: &mut Findings) {
    let key = |field| key("route", index, &route.name, field);
    for host in &route.hosts {
        if !is_host_pattern(host) {
            findings.add(
                key("hosts"),
                format!("`{}` is not a host name", host.escape_debug()),
                "write a name or an address without port, `*.example.org` for every name below, or `*` for any",
            );
        }
    }
    if route.hosts.len() > 100 {
        findings.add(key("hosts"), "more than 100 hosts", "split the route");
    }
    if let Err(problem) = path_pattern(&route.path) {
        findings.add(
            key("path"),
            format!("`{}`: {problem}", route.path.escape_debug()),
            "write a path as in `/health`, or a beginning as in `/socket.io/*`",
        );
    }
    let mut seen = BTreeSet::new();
    for upstream in &route.upstreams {
        if !known.contains(upstream) {
            findings.add(
                key("upstreams"),
                format!("there is no upstream `{upstream}`"),
                "write names of [[upstream]] sections",
            );
        } else if !seen.insert(upstream) {
            findings.add(
                key("upstreams"),
                format!("`{upstream}` is there twice"),
                "write each upstream once",
            );
        }
    }
    if let Some(parameter) = &route.room_query {
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'~');
        if !(1..=64).contains(&parameter.len()) || !parameter.bytes().all(plain) {
            findings.add(
                key("room_query"),
                format!("`{}` is not the name of a query parameter", parameter.escape_debug()),
                "write 1 to 64 letters, digits, `-`, `_`, `.` or `~`, as in `roomId`",
            );
        }
    }
    findings.duration(key("connect_timeout"), route.connect_timeout, 10 * MS..=MINUTE);
    findings.duration(key("response_timeout"), route.response_timeout, 10 * MS..=HOUR);
    findings.duration(key("body_idle_timeout"), route.body_idle_timeout, 10 * MS..=HOUR);
    findings.duration(key("tunnel_idle_timeout"), route.tunnel_idle_timeout, SECOND..=7 * DAY);
}

fn is_host_pattern(host: &str) -> bool {
    host == "*"
        || is_host_name(host.strip_prefix("*.").unwrap_or(host))
        || host
            .strip_prefix('[')
            .and_then(|h| h.strip_suffix(']'))
            .is_some_and(|h| h.parse::<std::net::Ipv6Addr>().is_ok())
}

pub(super) fn path_pattern(path: &str) -> Result<(), &'static str> {
    let fixed = path.strip_suffix('*').unwrap_or(path);
    if !path.starts_with('/') {
        Err("a path begins with `/`")
    } else if path.len() > 1_024 {
        Err("it is longer than 1024 bytes")
    } else if fixed.contains('*') {
        Err("`*` may stand at the end only")
    } else if fixed.contains(['?', '#']) {
        Err("a path has no query and no fragment")
    } else if !fixed.bytes().all(|b| b.is_ascii_graphic()) {
        Err("spaces and characters beyond ASCII must be percent-encoded")
    } else {
        Ok(())
    }
}

pub(super) fn warn(spec: &ClusterSpec, findings: &mut Findings) {
    if spec.routes.is_empty() {
        findings.add("route", "there are none: every request is answered 404", "add a [[route]]");
    }
    for (index, route) in spec.routes.iter().enumerate() {
        let Some(earlier) = spec.routes[..index].iter().find(|earlier| covers(earlier, route)) else {
            continue;
        };
        findings.add(
            key("route", index, &route.name, "path"),
            format!("route `{}` comes first and takes every request", earlier.name),
            "put the narrower route first",
        );
    }
}

/// Whether every request of the later route matches the earlier one.
fn covers(earlier: &RouteSpec, later: &RouteSpec) -> bool {
    let any = |route: &RouteSpec| route.hosts.is_empty() || route.hosts.iter().any(|host| host == "*");
    let hosts = any(earlier) || (!any(later) && later.hosts.iter().all(|host| earlier.hosts.contains(host)));
    let path = match earlier.path.strip_suffix('*') {
        Some(beginning) => later.path.starts_with(beginning),
        None => later.path == earlier.path,
    };
    hosts && path
}
