//! Routes.

use super::upstreams::is_host_name;
use super::{DAY, Findings, HOUR, MINUTE, MS, ROUTES_MAX, SECOND, key, unique};
use crate::ids::UpstreamName;
use crate::spec::template::is_token_byte;
use crate::spec::{ClusterSpec, MatchSpec, RouteSpec};
use std::collections::BTreeSet;

/// What a route looks at, or changes, of one kind.
const EDITS_MAX: usize = 100;

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
    let key = |field: &str| key("route", index, &route.name, field);
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
    check_match(&key("match"), &route.matches, findings);
    check_own_answer(&key, route, findings);
    for (field, edits) in
        [("request_headers", &route.request_headers), ("response_headers", &route.response_headers)]
    {
        let count = edits.remove.len() + edits.set.len() + edits.add.len();
        if count > EDITS_MAX {
            findings.add(
                key(field),
                format!("{count} headers are changed, at most {EDITS_MAX} are allowed"),
                "change fewer",
            );
        }
    }
    if route.compress.len() > 2
        || route.compress.first().is_some_and(|first| route.compress[1..].contains(first))
    {
        findings.add(
            key("compress"),
            "one of them is there twice",
            "write `zstd`, `gzip`, or both, once each",
        );
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

/// What a request must look like makes sense.
fn check_match(key: &str, wanted: &MatchSpec, findings: &mut Findings) {
    let is_token = |text: &String| (1..=64).contains(&text.len()) && text.bytes().all(is_token_byte);
    for method in
        wanted.methods.iter().filter(|method| !is_token(method) || **method != method.to_ascii_uppercase())
    {
        findings.add(
            format!("{key}.methods"),
            format!("`{}` is not a method", method.escape_debug()),
            "write `GET`, `POST` and their like, in upper case",
        );
    }
    for name in wanted.headers.keys().filter(|name| !is_token(name)) {
        findings.add(
            format!("{key}.headers"),
            format!("`{}` is not the name of a header", name.escape_debug()),
            "write 1 to 64 letters, digits or `-`, as in `User-Agent`",
        );
    }
    for name in wanted.query.keys().filter(|name| !(1..=64).contains(&name.len())) {
        findings.add(
            format!("{key}.query"),
            format!("`{}` is not the name of a query parameter", name.escape_debug()),
            "write 1 to 64 bytes, decoded",
        );
    }
    let count = wanted.methods.len() + wanted.headers.len() + wanted.query.len();
    if count > EDITS_MAX {
        findings.add(
            key,
            format!("it asks for {count} things, at most {EDITS_MAX} are allowed"),
            "split the route",
        );
    }
}

/// A route that answers by itself has one answer and no upstreams.
fn check_own_answer(key: &impl Fn(&str) -> String, route: &RouteSpec, findings: &mut Findings) {
    let (redirect, respond) = (route.redirect.as_ref(), route.respond.as_ref());
    if let Some(redirect) = redirect {
        if !matches!(redirect.status, 301 | 302 | 303 | 307 | 308) {
            findings.add(
                key("redirect.status"),
                format!("{} sends nobody elsewhere", redirect.status),
                "write 301, 302, 303, 307 or 308",
            );
        }
        if redirect.to.parts().is_empty() {
            findings.add(key("redirect.to"), "it is empty", "write where to, as in `https://{host}{uri}`");
        }
    }
    if let Some(respond) = respond {
        findings.number(key("respond.status"), respond.status.into(), 200..=599);
        // RFC 9110 sections 15.3.5, 15.3.6 and 15.4.5.
        if matches!(respond.status, 204 | 205 | 304) && !respond.body.parts().is_empty() {
            findings.add(
                key("respond.body"),
                format!("an answer of status {} has no body", respond.status),
                "remove it, or write another status",
            );
        }
    }
    if redirect.is_some() && respond.is_some() {
        findings.add(
            key("respond"),
            "there is a redirect too",
            "write one of them, and another route for the other",
        );
    }
    let is_own = redirect.is_some() || respond.is_some();
    if is_own && (!route.upstreams.is_empty() || route.room_query.is_some()) {
        findings.add(
            key("upstreams"),
            "the route answers by itself and asks no upstream",
            "remove `upstreams` and `room_query`, or the redirect or answer",
        );
    }
}

fn is_host_pattern(host: &str) -> bool {
    host == "*"
        || is_host_name(host.strip_prefix("*.").unwrap_or(host))
        || host
            .strip_prefix('[')
            .and_then(|h| h.strip_suffix(']'))
            .is_some_and(|h| h.parse::<std::net::Ipv6Addr>().is_ok())
}

/// Checks a path, or a beginning of paths that ends with `*`.
pub fn path_pattern(path: &str) -> Result<(), &'static str> {
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
    hosts && path && earlier.matches.is_any()
}
