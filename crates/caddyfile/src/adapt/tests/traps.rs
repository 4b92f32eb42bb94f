//! What surprises is told: one test for each.

use super::{adapted, document, site, wishes};
use crate::adapt::{Wishes, adapt};
use twinsite_model::spec::{Balance, UpstreamProtocol};

/// Expects a trap at `line:column` with these words in it.
#[track_caller]
fn trap(text: &str, place: &str, words: &str) {
    let traps: Vec<_> = adapted(text).traps.iter().map(ToString::to_string).collect();
    let begin = format!("Caddyfile:{place}: warning: ");
    let is_told = traps.iter().any(|trap| trap.starts_with(&begin) && trap.contains(words));
    assert!(is_told, "expected {place}: …{words}…, found {traps:#?}");
}

#[track_caller]
fn no_trap(text: &str, words: &str) {
    let traps: Vec<_> = adapted(text).traps.iter().map(ToString::to_string).collect();
    assert!(!traps.iter().any(|trap| trap.contains(words)), "{traps:#?}");
}

#[test]
fn h2c() {
    let h2c = "reverse_proxy /a/* a:1 {\ntransport http {\nversions h2c 1.1\n}\n}";
    let text = site(h2c);
    trap(&text, "4:10", "no HTTP/1.1");
    trap(&text, "4:10", "it gets `protocol = \"h2c\"`");
    assert_eq!(adapted(&text).upstreams[0].protocol, UpstreamProtocol::H2c);
    let text = site(&format!("{h2c}\nreverse_proxy a:1"));
    trap(&text, "4:10", "another route to this upstream does not say so");
    assert_eq!(adapted(&text).upstreams[0].protocol, UpstreamProtocol::Http);
    trap(&site("reverse_proxy h2c://a:1"), "2:15", "no HTTP/1.1");
}

#[test]
fn headers_for_upstreams_on_answers() {
    let text =
        site("header {\nX-Forwarded-Proto {scheme}\nX-Real-IP {remote_host}\nX-A b\n}\nreverse_proxy a:1");
    trap(&text, "3:1", "`x-forwarded-proto` is set on answers");
    trap(&text, "4:1", "`x-real-ip` is set on answers");
    let edits = &adapted(&text).routes[0].response_headers;
    assert_eq!((edits.set.len(), edits.remove.len(), edits.add.len()), (1, 0, 0));
}

#[test]
fn ip_hash_on_socket_io() {
    let text = site("reverse_proxy /socket.io/* a:1 b:1 {\nlb_policy ip_hash\n}");
    trap(&text, "3:1", "`room_query = \"roomId\"`");
    assert_eq!(adapted(&text).routes[0].room_query.as_deref(), Some("roomId"));
    let kept = adapt(&document(&text), &Wishes { keep_ip_hash: true, ..wishes() }).unwrap();
    assert_eq!((&kept.routes[0].room_query, kept.routes[0].balance), (&None, Balance::IpHash));
    assert!(kept.traps.iter().any(|trap| trap.what.contains("two people of one room")));
    trap(&site("reverse_proxy /socket.io/* a:1 b:1"), "2:1", "spread over all instances");
    no_trap(&site("reverse_proxy /socket.io/* a:1"), "room");
    let websockets = "@w {\npath /socket.io/*\nheader Upgrade websocket\n}\nreverse_proxy @w a:1 b:1 {\nlb_policy ip_hash\n}";
    trap(&site(websockets), "6:1", "begins with polls");
    no_trap(&site("reverse_proxy a:1 b:1 {\nlb_policy ip_hash\n}"), "room");
}

#[test]
fn no_health_check() {
    trap(&site("reverse_proxy /socket.io/* a:1"), "2:1", "WebSockets to dead upstreams");
    trap(&site("reverse_proxy a:1"), "2:1", "requests to dead upstreams");
    no_trap(&site("reverse_proxy a:1 {\nhealth_uri /x\n}"), "dead");
}

#[test]
fn http_in_clear_to_a_port_of_tls() {
    trap(&site("reverse_proxy a:3443 b:3443"), "2:15", "`httpOnly: true`");
    trap(&site("reverse_proxy a:443"), "2:15", "port 443 is spoken to in clear");
    trap(&site("reverse_proxy a:8443"), "2:15", "port 8443 is spoken to in clear");
    no_trap(&site("reverse_proxy https://a:3443"), "in clear");
    no_trap(&site("reverse_proxy a:3443 {\ntransport http {\ntls\n}\n}"), "in clear");
}

#[test]
fn health_that_is_none() {
    trap(&site("reverse_proxy a:1 {\nhealth_uri /health\n}"), "3:1", "`socket_io = true`");
    no_trap(&site("reverse_proxy a:1 {\nhealth_uri /well\n}"), "socket_io");
}

#[test]
fn https_without_a_certificate() {
    trap("a.org {\nrespond x\n}", "1:1", "no ACME");
    trap("a.org {\ntls internal\nrespond x\n}", "1:1", "no ACME");
    no_trap("a.org {\ntls /c.pem /k.pem\nrespond x\n}", "ACME");
    no_trap("http://a.org {\nrespond x\n}", "ACME");
}

#[test]
fn health_checks_that_differ() {
    let text = site(
        "handle /a {\nreverse_proxy a:1 {\nhealth_uri /x\n}\n}\nreverse_proxy b:1 {\nhealth_uri /y\nhealth_timeout 2s\n}",
    );
    trap(&text, "8:1", "line 4 says it otherwise");
    let health = adapted(&text).health.unwrap();
    assert_eq!((health.path.as_str(), health.timeout.to_string().as_str()), ("/x", "2s"));
    trap(
        &site("reverse_proxy a:1 {\nhealth_uri /x\nhealth_interval 30s\n}"),
        "4:1",
        "found only after 1m 30s",
    );
    trap(&site("reverse_proxy a:1 {\nmax_fails 3\n}"), "3:1", "`fail_duration`");
}

#[test]
fn what_has_no_meaning_here() {
    trap("{\nemail a@b.org\n}\n:80 {\nrespond x\n}", "2:1", "no meaning here");
    trap("{\ndebug\n}\n:80 {\nrespond x\n}", "2:1", "no meaning here");
    trap(&site("log\nrespond x"), "2:1", "`access_log`");
    for (line, words) in [
        ("lb_retries 3", "no third one"),
        ("lb_try_duration 2s", "`retry_percent`"),
        ("flush_interval -1", "goes on at once"),
        ("stream_timeout 24h", "however old"),
        ("stream_close_delay 5m", "upstreams that are gone"),
        ("lb_policy random", "one upstream after the other"),
        ("transport http {\nkeepalive 30s\n}", "closes idle connections"),
        ("transport http {\nread_timeout 24h\n}", "at most an hour"),
    ] {
        let text = site(&format!("reverse_proxy a:1 {{\n{line}\n}}"));
        let place = match line {
            line if line.starts_with("transport") => "4:1",
            line if line.starts_with("lb_policy") => "3:11",
            _ => "3:1",
        };
        trap(&text, place, words);
    }
}

#[test]
fn what_is_not_quite_the_same() {
    trap("http://*.a.org {\nrespond x\n}", "1:1", "any number of them");
    trap(&site("respond /Static/* x"), "2:9", "upper and lower case");
    trap(&site("reverse_proxy localhost:80"), "2:15", "another machine for each node");
    trap(&site("reverse_proxy :3000"), "2:15", "another machine for each node");
    trap(&site("respond /a x"), "1:1", "200 and nothing");
    no_trap(&site("respond x"), "200 and nothing");
    trap(&site("reverse_proxy a:1\nrespond x"), "2:1", "no request gets to this `reverse_proxy`");
    no_trap(&site("route {\nreverse_proxy /a a:1\nrespond x\n}"), "no request");
    trap("{\nservers {\nprotocols h1 h2 h3\n}\n}\n:80 {\nrespond x\n}", "3:17", "no HTTP/3");
}

#[test]
fn a_trap_in_a_snippet_is_told_once() {
    let text = "(s) {\nreverse_proxy a:443\n}\nhttp://a.org {\nimport s\n}\nhttp://b.org {\nimport s\n}";
    let traps = adapted(text).traps;
    assert_eq!(traps.iter().filter(|trap| trap.what.contains("in clear")).count(), 1, "{traps:#?}");
}
