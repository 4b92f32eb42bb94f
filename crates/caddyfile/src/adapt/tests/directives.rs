//! Single directives, and what becomes of them.

use super::{adapted, routes, site};
use twinsite_model::spec::{Compression, UpstreamProtocol};

/// The only route of a site with these directives.
#[track_caller]
fn only(directives: &str) -> String {
    let routes = routes(&site(directives));
    assert_eq!(routes.len(), 1, "{routes:#?}");
    routes[0].replace("http://a.org", "")
}

#[test]
fn redirects_and_answers() {
    assert_eq!(only("redir https://{host}{uri} permanent"), "redirect: /* -> 301 https://{host}{uri}");
    assert_eq!(only("redir * /b"), "redirect: /* -> 302 /b");
    assert_eq!(only("redir https://b.org{http.request.uri} 308"), "redirect: /* -> 308 https://b.org{uri}");
    assert_eq!(only("respond 204"), "answer: /* -> 204 \"\"");
    assert_eq!(only("respond \"gone away\" 410"), "answer: /* -> 410 \"gone away\"");
    assert_eq!(only("respond 503 {\nbody later\n}"), "answer: /* -> 503 \"later\"");
    assert_eq!(only(r#"respond `{"a": "{host}"}`"#), r#"answer: /* -> 200 "{{\"a\": \"{host}\"}}""#);
    assert_eq!(only(r"respond \{host\}"), "answer: /* -> 200 \"{{host}}\"");
}

#[test]
fn placeholders_have_short_and_long_names() {
    let all = "{http.request.hostport} {path} {query} {http.request.uri.path} {remote_host} {client_ip} {http.request.remote.host} \
               {header.X-A} {http.request.header.X-A} {query.a} {http.request.uri.query.a} {uuid} {method} {port} {scheme}";
    assert_eq!(
        only(&format!("respond \"{all}\"")),
        "answer: /* -> 200 \"{hostport} {path} {query} {path} {remote_ip} {client_ip} {remote_ip} {header.x-a} {header.x-a} \
         {query.a} {query.a} {request_id} {method} {port} {scheme}\""
    );
}

#[test]
fn headers_are_removed_set_and_added() {
    assert_eq!(
        only("header -Server\nheader +X-A a\nheader X-B b\nheader {\nX-C c\ndefer\n}\nrespond x"),
        "answer: /* -> 200 \"x\" <-server <x-b=b <x-c=c <+x-a=a"
    );
    // What is deferred is done from the inside outwards, and after the rest.
    assert_eq!(
        only("header >X-A outer\nroute {\nheader X-A inner\nrespond x\n}"),
        "answer: /* -> 200 \"x\" <x-a=outer"
    );
    assert_eq!(
        only("header X-A outer\nroute {\nheader X-A inner\nrespond x\n}"),
        "answer: /* -> 200 \"x\" <x-a=inner"
    );
    assert_eq!(only("header X-A a\nheader +X-A b\nrespond x"), "answer: /* -> 200 \"x\" <x-a=a <+x-a=b");
    assert_eq!(
        only(
            "request_header X-A a\nrequest_header -X-B\nreverse_proxy a:1 {\nheader_up X-A b\nheader_down -X-C\n}"
        ),
        "rest: /* -> a RoundRobin >-x-b >x-a=b <-x-c"
    );
}

#[test]
fn what_twinsite_sets_by_itself_is_left_to_it() {
    let up = "header_up X-Forwarded-For {remote_host}\nheader_up X-Forwarded-Proto {scheme}\nheader_up X-Forwarded-Host {host}\n\
              header_up X-Forwarded-Port {port}\nheader_up X-Real-IP {client_ip}\nheader_up Host {http.request.hostport}";
    assert_eq!(only(&format!("reverse_proxy a:1 {{\n{up}\n}}")), "rest: /* -> a RoundRobin");
    assert_eq!(only("reverse_proxy a:1 {\nheader_up Host b.org\n}"), "rest: /* -> a RoundRobin >host=b.org");
    assert_eq!(
        only("request_header X-Real-IP x\nreverse_proxy a:1 {\nheader_up X-Real-IP {remote_host}\n}"),
        "rest: /* -> a RoundRobin"
    );
}

#[test]
fn encodings() {
    let ways = |directives: &str| {
        adapted(&site(&format!("{directives}\nreverse_proxy a:1"))).routes[0].compress.clone()
    };
    assert_eq!(ways("encode gzip zstd"), [Compression::Gzip, Compression::Zstd]);
    assert_eq!(ways("encode"), [Compression::Zstd, Compression::Gzip]);
    assert_eq!(ways("encode {\nminimum_length 512\ngzip\n}"), [Compression::Gzip]);
    assert_eq!(ways(""), []);
}

#[test]
fn upstreams_have_names_protocols_and_weights() {
    let text = site(
        "reverse_proxy https://a b:81 b:82 [::1]:3000-3001 {\nlb_policy weighted_round_robin 1 2 3 1 1\nheader_up X-A b\n}",
    );
    let upstreams = adapted(&text).upstreams;
    let said =
        upstreams.iter().map(|it| format!("{} {} {:?} {}", it.name, it.address, it.protocol, it.weight));
    assert_eq!(
        said.collect::<Vec<_>>(),
        [
            "a a:443 Https 1",
            "b-81 b:81 Http 2",
            "b-82 b:82 Http 3",
            "1-3000 [::1]:3000 Http 1",
            "1-3001 [::1]:3001 Http 1"
        ]
    );
    let text = site("reverse_proxy {\nto a\nto b:1\n}\nreverse_proxy /x a:80");
    let addresses: Vec<_> = adapted(&text).upstreams.into_iter().map(|it| it.address).collect();
    assert_eq!(addresses, ["a:80", "b:1"]);
}

#[test]
fn transports() {
    let text = site(
        "reverse_proxy a:1 {\ntransport http {\ntls\ntls_insecure_skip_verify\ntls_server_name b.org\n\
         tls_trusted_ca_certs /ca.pem\ndial_timeout 2s\nresponse_header_timeout 3s\nread_timeout 600s\nwrite_timeout 10m\n\
         keepalive_idle_conns 100\nkeepalive_idle_conns_per_host 10\ncompression off\nversions 1.1 2\n}\n}",
    );
    let adapted = adapted(&text);
    let (upstream, route) = (&adapted.upstreams[0], &adapted.routes[0]);
    assert_eq!(upstream.protocol, UpstreamProtocol::Https);
    assert_eq!((upstream.tls.verify, upstream.tls.name.as_deref()), (false, Some("b.org")));
    assert_eq!(upstream.tls.authorities.as_deref(), Some("/ca.pem".as_ref()));
    let timeouts =
        [route.connect_timeout, route.response_timeout, route.body_idle_timeout, route.tunnel_idle_timeout];
    assert_eq!(timeouts.map(|it| it.to_string()), ["2s", "3s", "10m", "10m"]);
    assert_eq!(adapted.idle_per_upstream_max, Some(10));
}

#[test]
fn health() {
    let text = site(
        "reverse_proxy a:1 {\nhealth_uri /well\nhealth_interval 2s\nhealth_timeout 1s\nhealth_status 200\nhealth_passes 3\n\
         health_fails 4\nmax_fails 5\nfail_duration 30s\n}",
    );
    let health = adapted(&text).health.unwrap();
    assert_eq!((health.path.as_str(), health.rise, health.fall, health.eject_after), ("/well", 3, 4, 5));
    let durations = [health.interval, health.timeout, health.eject_for].map(|it| it.to_string());
    assert_eq!(durations, ["2s", "1s", "30s"]);
    let only = adapted(&site("reverse_proxy a:1 {\nfail_duration 30s\n}")).health.unwrap();
    assert_eq!((only.eject_after, only.path.as_str()), (1, "/health"));
    assert_eq!(adapted(&site("reverse_proxy a:1")).health, None);
}

#[test]
fn matchers() {
    let one = "@x {\npath /a/*\nmethod get\nheader X-A *b*\nquery c=d\nprotocol http\n}\nhandle @x {\nreverse_proxy a:1\n}\nrespond 404";
    assert_eq!(
        routes(&site(one)),
        ["a: http://a.org/a/* GET x-a=*b* c=d -> a RoundRobin", "answer: http://a.org/* -> 404 \"\""]
    );
    let alternatives =
        "@x header X-A b\n@y {\nheader X-A c\nheader X-A d\n}\nrespond @x 1\nrespond @y 2\nrespond 404";
    assert_eq!(routes(&site(alternatives)).len(), 4);
}

#[test]
fn certificates_and_proxies_in_front() {
    let text = "{\nservers {\ntrusted_proxies static 10.9.1.7/24 192.0.2.1 private_ranges\ntrusted_proxies_strict\n}\n}\n\
                a.org, www.a.org {\ntls /c.pem /k.pem\nrespond x\n}\nb.org {\ntls /c.pem /k.pem\nrespond x\n}";
    let adapted = adapted(text);
    let certificates: Vec<_> =
        adapted.certificates.iter().map(|it| format!("{} {}", it.name, it.chain.display())).collect();
    assert_eq!(certificates, ["a-org /c.pem"]);
    let trusted: Vec<_> = adapted.trusted_proxies.iter().map(ToString::to_string).collect();
    assert_eq!(trusted[..3], ["10.9.1.0/24", "192.0.2.1/32", "192.168.0.0/16"]);
}

#[test]
fn upstreams_are_at_the_sites_that_are_said() {
    use crate::adapt::{Wishes, adapt};
    let name = |name: &str| name.parse().unwrap();
    let wishes = Wishes {
        upstream_sites: [("gra-2:1".to_owned(), name("par"))].into(),
        known_sites: vec![name("gra"), name("gra-2")],
        site: Some(name("sbg")),
        keep_ip_hash: false,
    };
    let text = site("reverse_proxy gra-1:1 gra-2:1 gra-2:2 grafana:1 x:1");
    let sites: Vec<_> = adapt(&super::document(&text), &wishes)
        .unwrap()
        .upstreams
        .into_iter()
        .map(|it| it.site.to_string())
        .collect();
    assert_eq!(sites, ["gra", "par", "gra-2", "sbg", "sbg"]);
    let errors = adapt(&super::document(&text), &Wishes::default()).unwrap_err();
    assert_eq!(errors.len(), 5);
    assert!(errors[0].to_string().starts_with("Caddyfile:2:15: it is not known at which site `gra-1:1` is; say it with `--upstream-site gra-1:1=SITE`"));
}
