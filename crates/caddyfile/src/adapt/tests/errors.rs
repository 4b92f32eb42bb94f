//! What cannot be said here is refused, with its place: one line for each.

use super::{errors, site, wrong};

#[track_caller]
fn in_site(directives: &str, place: &str, words: &str) {
    wrong(&site(directives), place, words);
}

#[track_caller]
fn in_proxy(line: &str, place: &str, words: &str) {
    in_site(&format!("reverse_proxy a:1 b:1 {{\n{line}\n}}"), place, words);
}

#[track_caller]
fn in_transport(line: &str, place: &str, words: &str) {
    in_proxy(&format!("transport http {{\n{line}\n}}"), place, words);
}

#[test]
fn addresses_of_sites() {
    wrong("a.org:8080 {\n}", "1:1", "port 80 or 443");
    wrong("http://a.org:443 {\n}", "1:1", "do not fit together");
    wrong("ftp://a.org {\n}", "1:1", "scheme is not supported");
    wrong("a.org/x {\n}", "1:1", "no path");
    wrong("http://a.org b..org {\n}", "1:14", "not a host");
    wrong("{http.request.host} {\n}", "1:1", "not a host");
    wrong("http://a.org {\n}\na.org:80 {\n}", "3:1", "a site at line 1 already");
}

#[test]
fn options() {
    wrong("{\nhttp_port 8080\n}", "2:1", "`http_port` is not supported");
    wrong("{\norder encode first\n}", "2:1", "another order");
    wrong("{\nnonsense\n}", "2:1", "option `nonsense`");
    wrong("{\nauto_https maybe\n}", "2:12", "value `maybe`");
    wrong("{\nservers :443 {\n}\n}", "2:1", "one listener");
    wrong("{\nservers {\ntimeouts {\n}\n}\n}", "3:1", "option `timeouts`");
    wrong("{\nservers {\ntrusted_proxies cloudflare\n}\n}", "3:17", "source `cloudflare`");
    wrong("{\nservers {\ntrusted_proxies static x\n}\n}", "3:24", "not a range");
    wrong("{\nservers {\nclient_ip_headers X-Client\n}\n}", "3:19", "`X-Client`");
    wrong("{\nservers {\nprotocols h4\n}\n}", "3:11", "protocol `h4`");
}

#[test]
fn directives_that_there_are_none_of() {
    for name in [
        "file_server",
        "root",
        "rewrite",
        "uri",
        "handle_path",
        "basic_auth",
        "php_fastcgi",
        "abort",
        "bind",
        "vars",
        "nonsense",
        "handle_errors",
        "log_skip",
    ] {
        in_site(&format!(" {name} x"), "2:2", &format!("directive `{name}` is not supported"));
    }
    in_site("handle {\ntls /a /b\n}", "3:1", "directive `tls`");
    let request_body = site("request_body {\nmax_size 10MB\n}");
    let errors = crate::adapt::adapt(&super::document(&request_body), &super::wishes()).unwrap_err();
    assert!(errors[0].remedy.contains("`body_bytes_max = 10000000`"), "{errors:?}");
}

#[test]
fn matchers() {
    in_site("respond @x y", "2:9", "no matcher `@x`");
    in_site("@x path /a\n@x path /b", "3:1", "defined twice");
    in_site("@x not path /a\nrespond @x y", "2:4", "matcher `not`");
    in_site("@x {\nnot {\npath /a\n}\n}", "3:1", "matcher `not`");
    in_site("@x not {\npath /a\n}", "2:4", "matcher `not`");
    in_site("@x path_regexp ^/a", "2:4", "matcher `path_regexp`");
    in_site("@x {\nremote_ip 10.0.0.0/8\n}", "3:1", "matcher `remote_ip`");
    in_site("@x `path('/a')`", "2:4", "matcher `path(");
    in_site("@x", "2:1", "says nothing");
    in_site("@x path", "2:4", "`path` has no value");
    in_site("@x path *.png", "2:9", "begins with `/`");
    in_site("respond /a/*/b x", "2:9", "at the end only");
    in_site("@x header X-A", "2:4", "a name and a value");
    in_site("@x header !X-A x", "2:11", "not there");
    in_site("@x header X-A a*b", "2:15", "beginning and at the end");
    in_site("@x header X-A {host}", "2:15", "placeholder");
    in_site("@x query a", "2:10", "not a parameter");
    in_site("@x query a=b*", "2:10", "not a parameter");
    in_site("@x protocol grpc", "2:13", "protocol `grpc`");
    in_site("@x host a..b", "2:9", "not a host name");
    in_site(
        "@a header X-A a*\n@b header X-A *b\nhandle @a {\nrespond @b x\n}",
        "5:1",
        "different values of `x-a`",
    );
}

#[test]
fn headers() {
    in_site("header ?X-A b", "2:8", "only for answers without one");
    in_site("header X-A b c", "2:14", "replacing");
    in_site("header X-A", "2:8", "has no value");
    in_site("header -X-A b", "2:13", "has a value here");
    in_site("header -X-*", "2:8", "several headers");
    in_site("header Connection close", "2:8", "single connection");
    in_site("header \"X A\" b", "2:8", "not the name of a header");
    in_site("header", "2:1", "no headers are said");
    in_site("header X-A b {\nX-B c\n}", "2:1", "or twice");
    in_site("header {\nmatch status 200\nX-A b\n}", "3:1", "looks at the answer");
    in_site("header {\n+X-A b\n+X-A c\n}", "4:1", "written twice");
    in_site("header +X-A a\nheader +X-A b\nrespond x", "3:1", "more values");
    in_site("request_header ?X-A b", "2:16", "without one");
    in_site("header X-A {nonsense}", "2:12", "no placeholder `{nonsense}`");
    in_site("header X-A {http.request.cookie.a}", "2:12", "no placeholder");
}

#[test]
fn answers() {
    in_site("redir /a", "2:1", "taken for a matcher");
    in_site("redir https://a.org html", "2:21", "`html` sends nobody");
    in_site("redir https://{nonsense}", "2:7", "no placeholder");
    in_site("redir a b c d", "2:1", "too many");
    in_site("respond a 999", "2:11", "not the status");
    in_site("respond a b c", "2:13", "too many words");
    in_site("respond x 204", "2:9", "has no body");
    in_site("respond x {\nclose\n}", "3:1", "option `close`");
    in_site("respond \"a\nb\"", "2:9", "control character");
    in_site("encode br", "2:8", "encoding `br`");
    in_site("encode {\ngzip 9\n}", "3:6", "twinsite's choice");
    in_site("encode {\nminimum_length 1\n}", "3:1", "512 bytes");
    in_site("handle", "2:1", "needs a block");
    in_site("handle x {\n}", "2:1", "needs a block");
}

#[test]
fn upstreams() {
    in_site("reverse_proxy", "2:1", "has no upstreams");
    in_site("reverse_proxy unix//run/a.sock", "2:15", "only TCP");
    in_site("reverse_proxy ftp://a", "2:15", "scheme is not supported");
    in_site("reverse_proxy {env.A}:1", "2:15", "placeholder");
    in_site("reverse_proxy a:0", "2:15", "port is not a number");
    in_site("reverse_proxy a:2-1", "2:15", "range of ports");
    in_site("reverse_proxy a_/b:1", "2:15", "only TCP");
    in_site("reverse_proxy a:1 a:1", "2:19", "second time");
    in_site("reverse_proxy /x a:1\nreverse_proxy https://a:1", "3:15", "by TLS here and in clear");
}

#[test]
fn proxies() {
    in_proxy("lb_policy cookie", "3:11", "policy `cookie`");
    in_proxy("lb_policy ip_hash x", "3:19", "has no options");
    in_proxy("lb_policy weighted_round_robin 1", "3:1", "1 weights for 2 upstreams");
    in_proxy("lb_policy weighted_round_robin 1 0", "3:34", "not a weight");
    in_proxy("lb_retry_match path /a", "3:1", "subdirective `lb_retry_match`");
    in_proxy("dynamic a x 80", "3:1", "subdirective `dynamic`");
    in_proxy("handle_response {\n}", "3:1", "subdirective `handle_response`");
    in_proxy("@x status 200", "3:1", "subdirective `@x`");
    in_proxy("rewrite /a", "3:1", "subdirective `rewrite`");
    in_proxy("health_port 80", "3:1", "subdirective `health_port`");
    in_proxy("unhealthy_status 500", "3:1", "subdirective `unhealthy_status`");
    in_proxy("health_uri x", "3:12", "begins with `/`");
    in_proxy("health_uri /a?b", "3:12", "no query");
    in_proxy("health_interval soon", "3:17", "not a duration");
    in_proxy("health_interval 1ms", "3:17", "out of bounds");
    in_proxy("health_status 204", "3:15", "2xx");
    in_proxy("health_fails 0", "3:1", "out of bounds");
    in_proxy("max_fails many", "3:11", "not a whole number");
    in_proxy("header_up", "3:1", "too few words");
    in_proxy("header_up Upgrade x", "3:11", "single connection");
    in_proxy("header_down ?X-A x", "3:13", "without one");
    in_proxy("header_up Host {upstream_hostport}", "3:16", "no placeholder `{upstream_hostport}`");
    in_proxy("trusted_proxies private_ranges", "3:1", "subdirective `trusted_proxies`");
}

#[test]
fn transports() {
    in_proxy("transport fastcgi", "3:11", "transport `fastcgi`");
    in_proxy("transport http\ntransport http", "4:1", "there twice");
    in_transport("versions 3", "4:10", "version `3`");
    in_transport("tls\nversions h2c", "5:10", "HTTP/2 without TLS");
    in_transport("tls_trusted_ca_certs ca.pem", "4:22", "depends on where");
    in_transport("tls_server_name {host}", "4:17", "not the name of a host");
    in_transport("dial_timeout 2m", "4:14", "out of bounds");
    in_transport("compression on", "4:13", "asks upstreams for nothing");
    in_transport("keepalive_idle_conns 20000", "4:1", "out of bounds");
    in_transport("resolvers 1.1.1.1", "4:1", "option `resolvers`");
    in_transport("max_conns_per_host 5", "4:1", "option `max_conns_per_host`");
    in_site("reverse_proxy http://a:1 {\ntransport http {\ntls\n}\n}", "2:15", "not what `transport` says");
}

#[test]
fn certificates() {
    wrong("a.org {\ntls c.pem /k.pem\nrespond x\n}", "2:5", "depends on where");
    wrong("a.org {\ntls {\ndns x\n}\nrespond x\n}", "3:1", "option `dns`");
    wrong("a.org {\ntls a b c\nrespond x\n}", "2:1", "too many");
}

#[test]
fn too_much() {
    in_site(
        "@a header A a\n@b header B b\n@c header C c\n@d header D d\nheader @a A a\nheader @b B b\nheader @c C c\n\
         header @d D d\nrespond x",
        "9:1",
        "more than 3 directives",
    );
    let paths: Vec<_> = (0..70).map(|n| format!("/{n}")).collect();
    in_site(&format!("@x path {}", paths.join(" ")), "2:1", "more than 64 routes");
    let many: Vec<_> = (0..1_001).map(|n| format!("respond /{n} x")).collect();
    in_site(&many.join("\n"), "1002:1", "more than 1000 directives");
    let handles: Vec<_> = (0..600).map(|n| format!("handle /{n} {{\nrespond x\n}}")).collect();
    let twice = format!("@m method POST\nheader @m A a\n{}", handles.join("\n"));
    wrong(&site(&twice), "1:1", "more routes");
    let hosts: Vec<_> = (0..101).map(|n| format!("http://h{n}.org")).collect();
    wrong(&format!("{} {{\nrespond x\n}}", hosts.join(" ")), "2:1", "more than 100 hosts");
}

#[test]
fn all_errors_are_told_at_once() {
    let text = site("root x\nreverse_proxy a:1 {\nnonsense\n}\nredir\nrespond @x y");
    assert_eq!(errors(&text).len(), 4, "{:#?}", errors(&text));
}
