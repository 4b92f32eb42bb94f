//! Whatever the document: routes and upstreams that a specification can have, or errors that name their places.

use super::{Nothing, wishes};
use crate::adapt::{Wishes, adapt};
use crate::read;
use proptest::prelude::*;
use std::sync::LazyLock;
use twinsite_fuzz::{config, corpus, mutated};
use twinsite_model::spec::{ClusterSpec, from_toml, validate};

static CLUSTER: LazyLock<ClusterSpec> =
    LazyLock::new(|| from_toml(include_str!("../../../../../deploy/example/cluster.toml")).unwrap());

/// Lines that mean something somewhere.
const LINES: [&str; 40] = [
    "encode gzip zstd",
    "header X-A b",
    "header /a/* X-A b",
    "header -Server",
    "header {",
    "+X-B {host}",
    "}",
    "}",
    "}",
    "handle {",
    "handle /a/* {",
    "handle @x {",
    "route /b* {",
    "route {",
    "@x path /a/* /c",
    "@x header Connection *Upgrade*",
    "@x {",
    "method GET POST",
    "host a.org *.a.org",
    "query a=b a=*",
    "reverse_proxy a:1 b:3443-3445 {",
    "reverse_proxy /socket.io/* gra-1:3443 https://c",
    "reverse_proxy @x h2c://a:1",
    "to d:80",
    "lb_policy ip_hash",
    "lb_policy weighted_round_robin 1 2 3 4",
    "health_uri /health",
    "health_interval 30s",
    "max_fails 3",
    "fail_duration 10s",
    "header_up X-Forwarded-For {remote_host}",
    "header_up +X-C {header.X-D}",
    "transport http {",
    "versions h2c 1.1",
    "tls_server_name b.org",
    "read_timeout 600s",
    "keepalive_idle_conns 5",
    "redir https://{host}{uri} permanent",
    "respond \"a {path}\" 404",
    "request_header -X-E",
];

fn text() -> impl Strategy<Value = Vec<u8>> {
    let site = prop::sample::select(vec!["a.org {", ":80 {", "http://*.a.org, a.org:443 {", "b.org\n", "{"]);
    let lines = prop::collection::vec(prop::sample::select(&LINES[..]), 0..14);
    let sites = prop::collection::vec((site, lines), 1..3);
    sites.prop_map(|sites| {
        let mut text = String::new();
        for (site, lines) in sites {
            let mut open = usize::from(site.ends_with('{'));
            text += site;
            text.push('\n');
            for line in lines {
                if line == "}" && open <= 1 {
                    continue;
                }
                open = open + usize::from(line.ends_with('{')) - usize::from(line == "}");
                text += &format!("{line}\n");
            }
            text += &"}\n".repeat(open);
        }
        text.into_bytes()
    })
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn fuzz_adapt(
        bytes in prop_oneof![
            mutated(corpus(concat!(env!("CARGO_MANIFEST_DIR"), "/examples"), "Caddyfile")),
            text(),
        ],
    ) {
        let Ok(document) = read("Caddyfile", &String::from_utf8_lossy(&bytes), &Nothing) else { return Ok(()) };
        let wishes = Wishes { known_sites: vec!["sbg".parse().unwrap()], ..wishes() };
        match adapt(&document, &wishes) {
            Ok(adapted) => {
                let mut cluster = CLUSTER.clone();
                adapted.put_into(&mut cluster);
                prop_assert_eq!(validate::check(&cluster), []);
                prop_assert!(adapted.traps.iter().all(|trap| !trap.to_string().contains('\n')));
            }
            Err(errors) => {
                prop_assert!(!errors.is_empty());
                prop_assert!(errors.iter().all(|error| !error.to_string().contains('\n')), "{errors:?}");
            }
        }
    }
}
