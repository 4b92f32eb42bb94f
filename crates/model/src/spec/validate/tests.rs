//! One test for each finding: the sample specification, changed in one place, has exactly that finding.

use super::{Finding, check, introduced, warnings};
use crate::ids::{InterfaceName, NodeId, SiteName};
use crate::samples::{sound_spec as spec, upstream};
use crate::spec::{
    AnnounceMode, BlockedWindow, ClusterSpec, Day, Failback, HumanDuration, NodeKind, OnQuorumUnknown,
    ProviderKind, SessionStoreKind,
};
use std::time::Duration;

fn findings(change: impl FnOnce(&mut ClusterSpec)) -> Vec<Finding> {
    let mut spec = spec();
    change(&mut spec);
    check(&spec)
}

/// Expects exactly one finding, at this key, whose problem contains this text.
#[track_caller]
fn found(key: &str, problem: &str, change: impl FnOnce(&mut ClusterSpec)) {
    let findings = findings(change);
    let matches = findings.len() == 1 && findings[0].key == key && findings[0].problem.contains(problem);
    assert!(matches, "expected {key}: …{problem}…, found {findings:#?}");
    assert!(!findings[0].remedy.is_empty());
}

fn site(name: &str) -> SiteName {
    SiteName::new(name).unwrap()
}

fn ms(ms: u64) -> HumanDuration {
    HumanDuration(Duration::from_millis(ms))
}

#[test]
fn the_sample_has_no_findings() {
    assert_eq!(check(&spec()), []);
}

#[test]
fn sites() {
    found("site[2] (gra).name", "already used by site[1] (gra).name", |s| {
        s.sites[1].name = site("gra");
        for node in &mut s.nodes {
            if node.site == site("sbg") {
                node.site = site("gra");
            }
        }
        s.upstreams.iter_mut().for_each(|u| u.site = site("gra"));
        s.floating_ips.iter_mut().for_each(|ip| ip.sites = vec![site("gra")]);
    });
    found("site[2] (sbg).announced_ip", "already used", |s| {
        s.sites[1].announced_ip = s.sites[0].announced_ip;
    });
    found("site[1] (gra).announced_ip", "missing", |s| s.sites[0].announced_ip = None);
    found("site[1] (gra).announced_ip", "every address", |s| {
        s.sites[0].announced_ip = Some("0.0.0.0".parse().unwrap());
    });
    found("site[1] (gra).announced_ip", "floating IP `public`", |s| {
        s.sites[0].announced_ip = Some("127.0.0.10".parse().unwrap());
    });
    found("site[3] (wit).announced_ip", "serves nothing", |s| {
        s.sites[2].announced_ip = Some("192.0.2.99".parse().unwrap());
    });
    found("site[2] (sbg).announce", "may not own any floating IP", |s| {
        s.floating_ips.iter_mut().for_each(|ip| ip.sites = vec![site("gra")]);
    });
    found("site[2] (sbg).announce", "may not own any floating IP", |s| s.floating_ips.clear());
    let alone = findings(|s| {
        s.sites.truncate(1);
        s.nodes.truncate(1);
        s.upstreams.truncate(2);
        s.routes.clear();
        s.floating_ips.clear();
    });
    assert_eq!(alone[0].to_string(), "site: there are 1; write at least 2 and at most 20 [[site]] sections");
    let all_witnesses = findings(|s| s.sites.iter_mut().for_each(|site| site.witness = true));
    assert!(all_witnesses.iter().any(|f| f.key == "site" && f.problem == "every site is a witness"));
}

#[test]
fn nodes() {
    found("node[2] (gra-2).id", "already used by node[1] (gra-1).id", |s| s.nodes[1].id = NodeId(1));
    found("node[2] (gra-2).id", "0 is not an id", |s| s.nodes[1].id = NodeId(0));
    found("node[2] (gra-1).name", "already used", |s| s.nodes[1].name = s.nodes[0].name.clone());
    found("node[2] (gra-2).site", "no site `par`", |s| s.nodes[1].site = site("par"));
    found("node[5] (wit-1).kind", "this node is no witness", |s| s.nodes[4].kind = NodeKind::Edge);
    found("node[2] (gra-2).kind", "site `gra` serves", |s| s.nodes[1].kind = NodeKind::Witness);
    found("node[2] (gra-2).peer", "already used by node[1] (gra-1).peer", |s| {
        s.nodes[1].peer = s.nodes[0].peer;
    });
    found("node[2] (gra-2).api", "already used by node[2] (gra-2).peer", |s| {
        s.nodes[1].api = s.nodes[1].peer;
    });
    found("node[1] (gra-1).http", "already used by node[1] (gra-1).http", |s| {
        let http = s.nodes[0].http[0];
        s.nodes[0].http.push(http);
    });
    found("node[2] (gra-2).peer", "port 0", |s| s.nodes[1].peer.set_port(0));
    found("node[2] (gra-2).http", "every address", |s| s.nodes[1].http = vec!["0.0.0.0:80".parse().unwrap()]);
    found("node[5] (wit-1).http", "serves nothing", |s| {
        s.nodes[4].http = vec!["10.3.0.1:80".parse().unwrap()];
    });
    found("node[1] (gra-1).http", "more than 16", |s| {
        s.nodes[0].http = (1..=17).map(|port| ([10, 1, 0, 1], port).into()).collect();
    });
    let edges = findings(|s| s.nodes.iter_mut().for_each(|n| n.kind = NodeKind::Edge));
    assert!(edges.iter().any(|f| f.problem == "no node has a vote"), "{edges:?}");
    assert!(edges.iter().any(|f| f.problem == "no node may own a floating IP"), "{edges:?}");
    assert!(findings(|s| s.nodes.clear()).iter().any(|f| f.to_string().starts_with("node: there are 0;")));
    let many = findings(|s| {
        for n in 0..100_u16 {
            let mut node = s.nodes[1].clone();
            node.id = NodeId(100 + u64::from(n));
            node.name = format!("more-{n}").parse().unwrap();
            node.peer.set_port(10_000 + n);
            node.api.set_port(20_000 + n);
            s.nodes.push(node);
        }
    });
    assert_eq!(many.len(), 1, "{many:?}");
    assert!(many[0].problem.contains("105"), "{many:?}");
}

#[test]
fn upstreams() {
    found("upstream[2] (gra-meet-2).address", "already used by upstream[1]", |s| {
        s.upstreams[1].address = s.upstreams[0].address.clone();
    });
    found("upstream[2] (gra-meet-2).address", "already used by upstream[1]", |s| {
        s.upstreams[0].address = "meet:3443".to_owned();
        s.upstreams[1].address = "meet:3443".to_owned();
    });
    found("upstream[2] (gra-meet-1).name", "already used", |s| s.upstreams[1].name = upstream("gra-meet-1"));
    found("upstream[1] (gra-meet-1).site", "no site `par`", |s| s.upstreams[0].site = site("par"));
    found("upstream[1] (gra-meet-1).site", "witness site", |s| s.upstreams[0].site = site("wit"));
    found("upstream[1] (gra-meet-1).address", "already used by node[1] (gra-1).http", |s| {
        s.upstreams[0].address = s.nodes[0].http[0].to_string();
    });
    found("upstream[1] (gra-meet-1).address", "already used by floating_ip[1] (public).ports", |s| {
        s.upstreams[0].address = "127.0.0.10:8080".to_owned();
    });
    for bad in [
        "",
        "meet",
        "meet:",
        ":80",
        "meet:0",
        "meet:65536",
        "meet:+80",
        "10.0.0.300:80",
        "::1:80",
        "[::1:80",
        "a b:80",
        "0.0.0.0:80",
        "-x:80",
        "meet:080",
    ] {
        let found = findings(|s| s.upstreams[0].address = bad.to_owned());
        assert_eq!(found.len(), 1, "{bad}: {found:?}");
        assert_eq!(found[0].key, "upstream[1] (gra-meet-1).address", "{bad}");
    }
    for good in ["meet-1.example.org:3443", "multiparty_1:3443", "[2001:db8::1]:3443", "10.9.9.9:1"] {
        assert_eq!(findings(|s| s.upstreams[0].address = good.to_owned()), [], "{good}");
    }
    let many = findings(|s| {
        for n in 0..10_000_u32 {
            let mut more = s.upstreams[0].clone();
            more.name = upstream(&format!("m-{n}"));
            more.address = format!("m{n}:80");
            s.upstreams.push(more);
        }
    });
    assert_eq!(many.len(), 1, "{many:?}");
    assert!(many[0].problem.contains("10004"), "{many:?}");
}

#[test]
fn floating_ips() {
    let first = "floating_ip[1] (public)";
    found(&format!("{first}.ports"), "none", |s| s.floating_ips[0].ports.clear());
    found(&format!("{first}.ports"), "port 0", |s| s.floating_ips[0].ports = vec![0]);
    found(&format!("{first}.ports"), "already used", |s| s.floating_ips[0].ports = vec![80, 80]);
    found(&format!("{first}.ports"), "more than 64", |s| s.floating_ips[0].ports = (1..=65).collect());
    found(&format!("{first}.ports"), "already used by node[1] (gra-1).http", |s| {
        s.nodes[0].http = vec!["127.0.0.10:8080".parse().unwrap()];
    });
    found(&format!("{first}.provider"), "loopback range", |s| {
        s.floating_ips[0].address = "203.0.113.5".parse().unwrap();
    });
    found(&format!("{first}.provider"), "no other host would look for it", |s| {
        s.floating_ips[0].provider = ProviderKind::Netlink;
        s.floating_ips[0].interface = Some(InterfaceName::new("eth0").unwrap());
    });
    found(&format!("{first}.interface"), "none is named", |s| {
        s.floating_ips[0].provider = ProviderKind::Netlink;
        s.floating_ips[0].address = "203.0.113.5".parse().unwrap();
    });
    found(&format!("{first}.interface"), "only addresses of `netlink`", |s| {
        s.floating_ips[0].interface = Some(InterfaceName::new("eth0").unwrap());
    });
    found("floating_ip[2] (second).address", "already used", |s| {
        s.floating_ips[1].address = s.floating_ips[0].address;
        s.floating_ips[1].ports = vec![9_000];
    });
    let same_port = findings(|s| s.floating_ips[1].address = s.floating_ips[0].address);
    assert_eq!(same_port.len(), 2, "the address, and the port: {same_port:?}");
    found("floating_ip[2] (public).name", "already used", |s| {
        s.floating_ips[1].name = s.floating_ips[0].name.clone();
    });
    found(&format!("{first}.sites"), "no site `par`", |s| s.floating_ips[0].sites.push(site("par")));
    found(&format!("{first}.sites"), "witness site", |s| s.floating_ips[0].sites.push(site("wit")));
    found(&format!("{first}.sites"), "twice", |s| s.floating_ips[0].sites.push(site("gra")));
    found(&format!("{first}.sites"), "no node may own", |s| {
        s.floating_ips[0].sites = vec![site("gra")];
        s.nodes[0].kind = NodeKind::Edge;
        s.nodes[1].kind = NodeKind::Edge;
    });
    found(&format!("{first}.failback"), "out of bounds", |s| {
        s.floating_ips[0].failback = Failback::After(ms(10));
    });
    let many = findings(|s| {
        for n in 0..99_u8 {
            let mut more = s.floating_ips[0].clone();
            more.name = format!("more-{n}").parse().unwrap();
            more.address = [127, 0, 1, n].into();
            s.floating_ips.push(more);
        }
    });
    assert_eq!(many.len(), 1, "{many:?}");
    assert_eq!(many[0].key, "floating_ip");
}

#[test]
fn routes() {
    let first = "route[1] (signalling)";
    found("route[2] (signalling).name", "already used", |s| s.routes[1].name = s.routes[0].name.clone());
    for bad in ["", "meet.example.org:443", "*.", "a.*.b", "http://x", "a b", "*x"] {
        found(&format!("{first}.hosts"), "not a host name", |s| s.routes[0].hosts = vec![bad.to_owned()]);
    }
    for good in ["*", "*.example.org", "10.0.0.1", "[::1]", "meet"] {
        assert_eq!(findings(|s| s.routes[0].hosts = vec![good.to_owned()]), [], "{good}");
    }
    found(&format!("{first}.hosts"), "more than 100", |s| s.routes[0].hosts = vec!["a".to_owned(); 101]);
    for bad in ["", "socket.io", "/a*b", "/**", "/a b", "/a?b", "/ä", "/a\n"] {
        let found = findings(|s| s.routes[0].path = bad.to_owned());
        assert_eq!(found.len(), 1, "{bad}: {found:?}");
        assert_eq!(found[0].key, format!("{first}.path"), "{bad}");
    }
    found(&format!("{first}.path"), "longer", |s| s.routes[0].path = format!("/{}", "x".repeat(1_024)));
    found("route[2] (static).upstreams", "no upstream `nope`", |s| {
        s.routes[1].upstreams.push(upstream("nope"));
    });
    found("route[2] (static).upstreams", "twice", |s| s.routes[1].upstreams.push(upstream("gra-meet-1")));
    for bad in ["", "room id", "room&id", "ä"] {
        found(&format!("{first}.room_query"), "query parameter", |s| {
            s.routes[0].room_query = Some(bad.to_owned());
        });
    }
    found(&format!("{first}.connect_timeout"), "out of bounds", |s| s.routes[0].connect_timeout = ms(0));
    found(&format!("{first}.response_timeout"), "out of bounds", |s| s.routes[0].response_timeout = ms(0));
    found(&format!("{first}.body_idle_timeout"), "out of bounds", |s| s.routes[0].body_idle_timeout = ms(0));
    found(&format!("{first}.tunnel_idle_timeout"), "out of bounds", |s| {
        s.routes[0].tunnel_idle_timeout = ms(999);
    });
    let many = findings(|s| {
        for n in 0..1_000 {
            let mut more = s.routes[1].clone();
            more.name = format!("more-{n}").parse().unwrap();
            s.routes.push(more);
        }
    });
    assert_eq!(many.len(), 1, "{many:?}");
    assert_eq!(many[0].key, "route");
}

#[test]
fn routes_that_answer_by_themselves_or_look_closer() {
    use crate::spec::{RedirectSpec, RespondSpec};
    let first = "route[1] (signalling)";
    let key = |field: &str| format!("{first}.{field}");
    let redirect = |to: &str, status| Some(RedirectSpec { to: to.parse().unwrap(), status });
    let respond = |status| Some(RespondSpec { status, body: "x".parse().unwrap() });
    let alone = |s: &mut ClusterSpec| {
        s.routes[0].room_query = None;
        s.routes[0].upstreams.clear();
    };
    assert_eq!(
        findings(|s| {
            alone(s);
            s.routes[0].redirect = redirect("https://{host}{uri}", 308);
        }),
        []
    );
    found(&key("redirect.status"), "304 sends nobody", |s| {
        alone(s);
        s.routes[0].redirect = redirect("/x", 304);
    });
    found(&key("redirect.to"), "empty", |s| {
        alone(s);
        s.routes[0].redirect = redirect("", 301);
    });
    found(&key("respond.status"), "199 is out of bounds", |s| {
        alone(s);
        s.routes[0].respond = respond(199);
    });
    found(&key("respond.body"), "204 has no body", |s| {
        alone(s);
        s.routes[0].respond = respond(204);
    });
    found(&key("respond"), "a redirect too", |s| {
        alone(s);
        s.routes[0].redirect = redirect("/x", 301);
        s.routes[0].respond = respond(200);
    });
    found(&key("upstreams"), "answers by itself", |s| s.routes[0].respond = respond(200));
    for bad in ["get", "", "A B"] {
        found(&key("match.methods"), "not a method", |s| s.routes[0].matches.methods = vec![bad.to_owned()]);
    }
    let any = || crate::spec::Pattern::try_from("*".to_owned()).unwrap();
    found(&key("match.headers"), "not the name of a header", |s| {
        s.routes[0].matches.headers.insert("a:".to_owned(), any());
    });
    found(&key("match.query"), "not the name of a query parameter", |s| {
        s.routes[0].matches.query.insert(String::new(), any());
    });
    found(&key("compress"), "twice", |s| {
        s.routes[0].compress = vec![crate::spec::Compression::Gzip; 2];
    });
    found(&key("match"), "at most 100", |s| {
        s.routes[0].matches.methods = vec!["GET".to_owned(); 101];
    });
    found(&key("response_headers"), "at most 100", |s| {
        let name = |number| crate::spec::HeaderName::try_from(format!("x-{number}")).unwrap();
        s.routes[0].response_headers.remove = (0..101).map(name).collect();
    });
}

#[test]
fn a_route_that_looks_closer_hides_no_other() {
    let hidden = |closer: bool| {
        let mut spec = spec();
        spec.routes[0].path = "/*".to_owned();
        spec.routes[0].hosts.clear();
        if closer {
            spec.routes[0].matches.methods = vec!["POST".to_owned()];
        }
        warnings(&spec).iter().filter(|finding| finding.problem.contains("comes first")).count()
    };
    assert!(hidden(false) > 0);
    assert_eq!(hidden(true), 0);
}

#[test]
fn health_and_proxy() {
    found("health.path", "begins with", |s| s.health.path = "health".to_owned());
    found("health.path", "one path", |s| s.health.path = "/health*".to_owned());
    found("health.interval", "out of bounds", |s| s.health.interval = ms(1));
    found("health.timeout", "out of bounds", |s| s.health.timeout = ms(1));
    found("health.rise", "0 is out of bounds", |s| s.health.rise = 0);
    found("health.fall", "101 is out of bounds", |s| s.health.fall = 101);
    found("proxy.head_bytes_max", "out of bounds", |s| s.proxy.head_bytes_max = 10);
    found("proxy.head_timeout", "out of bounds", |s| s.proxy.head_timeout = ms(1));
    found("proxy.keep_alive_timeout", "out of bounds", |s| s.proxy.keep_alive_timeout = ms(1));
    found("proxy.connections_max", "out of bounds", |s| s.proxy.connections_max = 0);
    found("proxy.idle_per_upstream_max", "out of bounds", |s| s.proxy.idle_per_upstream_max = 10_001);
    found("proxy.trusted_proxies", "at most 256", |s| {
        s.proxy.trusted_proxies = vec!["10.0.0.0/8".parse().unwrap(); 257];
    });
}

#[test]
fn sessions() {
    found("sessions.url", "missing", |s| s.sessions.store = SessionStoreKind::Redis);
    found("sessions.url", "embedded", |s| s.sessions.url = Some("redis://r:6379/0".to_owned()));
    let with = |url: &str| {
        findings(|s| {
            s.sessions.store = SessionStoreKind::Redis;
            s.sessions.url = Some(url.to_owned());
        })
    };
    for bad in
        ["redis:6379", "http://r:6379", "redis://r", "redis://r:6379/x", "redis://r:6379?x=1", "redis://"]
    {
        assert_eq!(with(bad).len(), 1, "{bad}: {:?}", with(bad));
    }
    let secret = with("redis://anna:hunter2@r:6379/0");
    assert!(secret[0].problem.contains("password"), "{secret:?}");
    assert!(!secret[0].to_string().contains("hunter2"), "{secret:?}");
    for good in ["redis://10.3.0.9:6379/0", "rediss://redis.example.org:6379", "redis://[::1]:6379/15"] {
        assert_eq!(with(good), [], "{good}");
    }
    found("sessions.room_ttl", "out of bounds", |s| s.sessions.room_ttl = ms(1));
    found("sessions.placement_timeout", "out of bounds", |s| s.sessions.placement_timeout = ms(0));
}

#[test]
fn policy() {
    found("policy.healthy_upstreams_min", "no site has 3 upstreams", |s| s.policy.healthy_upstreams_min = 3);
    found("policy.failovers_max", "out of bounds", |s| s.policy.failovers_max = 10_001);
    found("policy.failover_window", "out of bounds", |s| s.policy.failover_window = ms(1));
    found("policy.drain_timeout", "out of bounds", |s| s.policy.drain_timeout = ms(3_600_001));
    found("policy.pause_default", "out of bounds", |s| s.policy.pause_default = ms(1));
}

#[test]
fn timing() {
    found(
        "timing",
        "`2*election_max + renew + slack < lease` does not hold: 285ms is not below 250ms",
        |s| {
            s.timing.lease = Some(ms(250));
        },
    );
    found("timing", "`9/4*heartbeat < election_max`", |s| s.timing.heartbeat = Some(ms(54)));
    found("timing", "`election_min < election_max`", |s| s.timing.election_min = Some(ms(120)));
    found("timing", "`5ms < slack`", |s| s.timing.slack = Some(ms(5)));
    found("timing", "`4ms < heartbeat`", |s| s.timing.heartbeat = Some(ms(4)));
    found("timing.lease", "out of bounds", |s| s.timing.lease = Some(HumanDuration(Duration::MAX)));
    found("timing.election_max", "out of bounds", |s| {
        s.timing.election_max = Some(HumanDuration(Duration::MAX));
    });
    found("timing.drift_ppm", "out of bounds", |s| s.timing.drift_ppm = Some(100_001));
}

#[test]
fn a_specification_must_fit_into_one_entry_of_the_log() {
    let long = findings(|s| {
        for n in 0..9_990_usize {
            let mut more = s.upstreams[0].clone();
            more.name = upstream(&format!("{n}{}", "x".repeat(40)));
            more.address = format!("{}.{n}:80", "x.".repeat(60));
            s.upstreams.push(more);
        }
    });
    assert!(long.iter().any(|f| f.key == "cluster" && f.problem.contains("as JSON")), "{:?}", long.last());
}

#[test]
fn all_findings_are_reported_at_once() {
    let all = findings(|s| {
        s.nodes[1].id = NodeId(1);
        s.floating_ips[0].ports.clear();
        s.health.rise = 0;
    });
    assert_eq!(all.len(), 3, "{all:?}");
}

#[test]
fn times_without_drills() {
    let window = |from: &str, to: &str| BlockedWindow {
        days: vec![Day::Mon],
        from: from.parse().unwrap(),
        to: to.parse().unwrap(),
    };
    found("drills.blocked[2]", "begins and ends at 08:00", |s| {
        s.drills.blocked = vec![window("22:00", "02:00"), window("08:00", "08:00")];
    });
    found("drills.blocked", "there are 65", |s| s.drills.blocked = vec![window("08:00", "18:00"); 65]);
}

/// The sample with all its nodes on one machine, as the only provider wants it.
fn on_one_machine() -> ClusterSpec {
    let mut spec = spec();
    for (index, node) in spec.nodes.iter_mut().enumerate() {
        let port = 7_100 + 10 * u16::try_from(index).unwrap();
        node.peer = format!("127.0.0.1:{port}").parse().unwrap();
        node.http = Vec::new();
    }
    spec
}

#[test]
fn a_loopback_address_stops_with_its_lease_and_nothing_else_can_be_written() {
    for wrong in [OnQuorumUnknown::ServeFrozen, OnQuorumUnknown::Drain] {
        found("floating_ip[1] (public).on_quorum_unknown", "always stops with its lease", |s| {
            s.floating_ips[0].on_quorum_unknown = Some(wrong);
        });
    }
    assert_eq!(findings(|s| s.floating_ips[0].on_quorum_unknown = Some(OnQuorumUnknown::Stop)), []);
    let netlink = |on_quorum_unknown| {
        findings(|s| {
            let ip = &mut s.floating_ips[0];
            ip.provider = ProviderKind::Netlink;
            ip.interface = Some(InterfaceName::new("eth0.7").unwrap());
            ip.address = "2001:db8::7".parse().unwrap();
            ip.on_quorum_unknown = on_quorum_unknown;
        })
    };
    assert_eq!(netlink(None), []);
    assert_eq!(netlink(Some(OnQuorumUnknown::ServeFrozen)).len(), 1);
}

#[test]
fn a_change_is_judged_by_what_it_makes_wrong() {
    let mut former = spec();
    former.floating_ips[0].on_quorum_unknown = Some(OnQuorumUnknown::Drain);
    let mut new = former.clone();
    new.nodes.remove(1);
    assert_eq!(introduced(&former, &new), [], "what was wrong before is no news");
    new.nodes[3].site = site("gra");
    let [finding] = &introduced(&former, &new)[..] else { panic!("{:?}", introduced(&former, &new)) };
    assert_eq!(finding.key, "node[4] (wit-1).kind");
}

#[test]
fn warnings_say_what_is_weak() {
    let warned = |key: &str, problem: &str, change: &dyn Fn(&mut ClusterSpec)| {
        let mut spec = on_one_machine();
        assert_eq!(warnings(&spec), [], "the sample is sound");
        change(&mut spec);
        assert_eq!(check(&spec), [], "a warning is no error");
        let found = warnings(&spec);
        assert!(found.iter().any(|f| f.key == key && f.problem.contains(problem)), "{found:#?}");
    };
    let no_witness = |s: &mut ClusterSpec| {
        s.nodes.pop();
        s.sites.pop();
    };
    warned("node", "4 nodes vote: that tolerates 1 failures", &no_witness);
    warned("node", "fewer than three sites vote", &no_witness);
    warned("site", "only one site serves", &|s| {
        s.sites[1].witness = true;
        s.sites[1].announced_ip = None;
        s.nodes.retain(|n| n.site != site("sbg"));
        s.upstreams.retain(|u| u.site != site("sbg"));
        s.routes[1].upstreams.pop();
        s.floating_ips.iter_mut().for_each(|ip| ip.sites = vec![site("gra")]);
    });
    warned("site[2] (sbg).name", "no upstreams", &|s| {
        s.upstreams.retain(|u| u.site != site("sbg"));
        s.routes[1].upstreams.pop();
    });
    warned("floating_ip[2] (second).provider", "on one machine only", &|s| {
        s.nodes[2].peer = "10.2.0.1:7100".parse().unwrap();
        s.nodes[3].http = vec!["10.2.0.2:8080".parse().unwrap()];
    });
    warned("floating_ip[1] (public).sites", "only one node", &|s| {
        s.floating_ips[0].sites = vec![site("gra")];
        s.nodes[1].kind = NodeKind::Edge;
    });
    warned("route[2] (static).path", "comes first", &|s| {
        s.routes[0].path = "/*".to_owned();
        s.routes[0].hosts.clear();
        s.sites[1].announce = AnnounceMode::Site;
    });
    warned("route", "404", &|s| s.routes.clear());
    warned("policy.observe_only", "by itself", &|s| s.policy.observe_only = true);
    warned("proxy.trusted_proxies", "trusts everybody", &|s| {
        s.proxy.trusted_proxies = vec!["10.0.0.0/8".parse().unwrap(), "::/0".parse().unwrap()];
    });
    warned("policy.failovers_max", "never opens", &|s| s.policy.failovers_max = 65);
}
