//! Health checks, sessions, policy and the bounds of the proxy.

use super::routes::path_pattern;
use super::{DAY, Findings, HOUR, MINUTE, MS, SECOND, upstreams};
use crate::spec::{
    ClusterSpec, DrillsSpec, HealthSpec, PolicySpec, ProxySpec, SessionStoreKind, SessionsSpec,
};
use std::collections::BTreeMap;
use std::time::Duration;

/// Windows in which no drill may run.
const WINDOWS_MAX: usize = 64;

/// Prefixes of trusted proxies; each request of one of them is compared with all.
const TRUSTED_MAX: usize = 256;

/// The state remembers so many automatic failovers; a breaker above that never opens.
const BREAKER_MAX: u32 = 64;

pub(super) fn check(spec: &ClusterSpec, findings: &mut Findings) {
    check_health(&spec.health, findings);
    check_sessions(&spec.sessions, findings);
    check_policy(spec, &spec.policy, findings);
    check_proxy(&spec.proxy, findings);
    check_drills(&spec.drills, findings);
}

fn check_drills(drills: &DrillsSpec, findings: &mut Findings) {
    let count = drills.blocked.len();
    if count > WINDOWS_MAX {
        let problem = format!("there are {count}, at most {WINDOWS_MAX} are allowed");
        findings.add("drills.blocked", problem, "use fewer and longer windows");
    }
    for (number, window) in drills.blocked.iter().enumerate().filter(|(_, window)| window.from == window.to) {
        findings.add(
            format!("drills.blocked[{}]", number + 1),
            format!("it begins and ends at {}", window.from),
            "write from = \"00:00\", to = \"24:00\" for whole days",
        );
    }
}

fn check_health(health: &HealthSpec, findings: &mut Findings) {
    if let Err(problem) = path_pattern(&health.path) {
        findings.add("health.path", problem, "write the path of the probe, as in `/health`");
    } else if health.path.ends_with('*') {
        findings.add("health.path", "a probe asks for one path", "remove the `*`");
    }
    findings.duration("health.interval", health.interval, 50 * MS..=HOUR);
    findings.duration("health.timeout", health.timeout, 10 * MS..=5 * MINUTE);
    findings.number("health.rise", health.rise.into(), 1..=100);
    findings.number("health.fall", health.fall.into(), 1..=100);
    findings.number("health.eject_after", health.eject_after.into(), 0..=10_000);
    findings.duration("health.eject_for", health.eject_for, 100 * MS..=HOUR);
    findings.duration("health.slow_start", health.slow_start, Duration::ZERO..=HOUR);
}

fn check_sessions(sessions: &SessionsSpec, findings: &mut Findings) {
    match (sessions.store, &sessions.url) {
        (SessionStoreKind::Redis, None) => {
            findings.add("sessions.url", "it is missing", "write `url = \"redis://HOST:PORT/DB\"`");
        }
        (SessionStoreKind::Redis, Some(url)) => {
            if let Err(problem) = redis_url(url) {
                // The address itself may hold a password, so it is not repeated here.
                findings.add(
                    "sessions.url",
                    problem,
                    "write `redis://HOST:PORT/DB` or `rediss://HOST:PORT/DB`; user and password go into files that \
                     node.toml names",
                );
            }
        }
        (SessionStoreKind::Embedded, Some(_)) => findings.add(
            "sessions.url",
            "`store` is \"embedded\", which has no address",
            "remove it, or write `store = \"redis\"`",
        ),
        (SessionStoreKind::Embedded, None) => {}
    }
    findings.duration("sessions.room_ttl", sessions.room_ttl, SECOND..=30 * DAY);
    findings.duration("sessions.placement_timeout", sessions.placement_timeout, MS..=5 * SECOND);
}

fn redis_url(url: &str) -> Result<(), &'static str> {
    let rest = url
        .strip_prefix("redis://")
        .or_else(|| url.strip_prefix("rediss://"))
        .ok_or("it begins with neither `redis://` nor `rediss://`")?;
    if rest.contains('@') {
        return Err("it contains a user or a password");
    }
    if rest.contains(['?', '#']) {
        return Err("it has a query or a fragment");
    }
    let (place, database) = rest.split_once('/').unwrap_or((rest, ""));
    upstreams::host_and_port(place)?;
    let number = database.is_empty() || database.parse::<u16>().is_ok();
    if number { Ok(()) } else { Err("the database is not a number") }
}

fn check_policy(spec: &ClusterSpec, policy: &PolicySpec, findings: &mut Findings) {
    let mut healthy_at_most: BTreeMap<_, u64> = BTreeMap::new();
    for upstream in &spec.upstreams {
        *healthy_at_most.entry(&upstream.site).or_default() += 1;
    }
    let most = healthy_at_most.values().max().copied().unwrap_or(0);
    if most > 0 && u64::from(policy.healthy_upstreams_min) > most {
        findings.add(
            "policy.healthy_upstreams_min",
            format!("no site has {} upstreams, so none could ever take over", policy.healthy_upstreams_min),
            format!("write at most {most}"),
        );
    }
    findings.number("policy.failovers_max", policy.failovers_max.into(), 0..=10_000);
    findings.duration("policy.failover_window", policy.failover_window, SECOND..=30 * DAY);
    findings.duration("policy.drain_timeout", policy.drain_timeout, Duration::ZERO..=HOUR);
    findings.duration("policy.pause_default", policy.pause_default, SECOND..=7 * DAY);
}

fn check_proxy(proxy: &ProxySpec, findings: &mut Findings) {
    findings.number("proxy.head_bytes_max", proxy.head_bytes_max.into(), 1_024..=1 << 20);
    findings.duration("proxy.head_timeout", proxy.head_timeout, 100 * MS..=10 * MINUTE);
    findings.duration("proxy.keep_alive_timeout", proxy.keep_alive_timeout, SECOND..=DAY);
    findings.number("proxy.connections_max", proxy.connections_max.into(), 1..=10_000_000);
    for (key, prefixes) in [
        ("proxy.trusted_proxies", &proxy.trusted_proxies),
        ("proxy.proxy_protocol_from", &proxy.proxy_protocol_from),
    ] {
        if prefixes.len() > TRUSTED_MAX {
            let problem = format!("there are {}, at most {TRUSTED_MAX} are allowed", prefixes.len());
            findings.add(key, problem, "use fewer and shorter prefixes");
        }
    }
    findings.number("proxy.retry_percent", proxy.retry_percent.into(), 0..=100);
    findings.number("proxy.idle_per_upstream_max", proxy.idle_per_upstream_max.into(), 0..=10_000);
}

pub(super) fn warn(spec: &ClusterSpec, findings: &mut Findings) {
    if spec.policy.observe_only {
        findings.add(
            "policy.observe_only",
            "nothing fails over by itself",
            "write `false` when you trust it",
        );
    }
    if let Some(everybody) = spec.proxy.trusted_proxies.iter().find(|prefix| prefix.is_everything()) {
        findings.add(
            "proxy.trusted_proxies",
            format!("`{everybody}` trusts everybody: each client chooses the address that it is seen at"),
            "write the addresses of the proxies in front of these nodes only",
        );
    }
    if let Some(everybody) = spec.proxy.proxy_protocol_from.iter().find(|prefix| prefix.is_everything()) {
        findings.add(
            "proxy.proxy_protocol_from",
            format!("`{everybody}` takes everybody for a load balancer: each client chooses the address that it is seen at"),
            "write the addresses of the load balancers in front of these nodes only",
        );
    }
    if spec.policy.failovers_max > BREAKER_MAX {
        findings.add(
            "policy.failovers_max",
            format!("only {BREAKER_MAX} failovers are remembered: the breaker never opens"),
            format!("write at most {BREAKER_MAX}"),
        );
    }
}
