//! One request is for one host: the route and the upstream agree on which.

use crate::bench::{Bench, ask, upstream};

#[tokio::test]
async fn the_route_and_the_upstream_see_the_same_host() {
    let (one, two) = (upstream("one").await, upstream("two").await);
    let bench = Bench::with(&[("one", one), ("two", two)], |spec| {
        let mut other = spec.routes[1].clone();
        spec.routes[1].hosts = vec!["a.example.org".to_owned()];
        spec.routes[1].upstreams = vec![spec.upstreams[0].name.clone()];
        other.hosts = vec!["b.example.org".to_owned()];
        other.upstreams = vec![spec.upstreams[1].name.clone()];
        spec.routes.push(other);
    })
    .await;
    let asked = async |target: &str, hosts: &[&str]| {
        let hosts: Vec<_> = hosts.iter().map(|host| format!("Host: {host}\r\n")).collect();
        let hosts = hosts.concat();
        ask(bench.own, &format!("GET {target} HTTP/1.1\r\n{hosts}Connection: close\r\n\r\n"))
            .await
            .to_lowercase()
    };
    for (target, host, place, seen) in [
        ("/web/", "a.example.org", "one", "a.example.org"),
        ("/web/", "b.example.org:8080", "two", "b.example.org:8080"),
        ("http://a.example.org/web/", "b.example.org", "one", "a.example.org"),
        ("http://b.example.org:81/web/", "a.example.org", "two", "b.example.org:81"),
        ("http://user:secret@a.example.org/web/", "b.example.org", "one", "a.example.org"),
    ] {
        let answer = asked(target, &[host]).await;
        assert!(answer.contains(&format!("\r\n\r\n{place}\n")), "{target} {host}: {answer}");
        assert!(answer.contains(&format!("\r\nhost: {seen}\r\n")), "{target} {host}: {answer}");
        assert!(answer.contains(&format!("\r\nx-forwarded-host: {seen}\r\n")), "{target} {host}: {answer}");
        assert_eq!(answer.matches("\r\nhost: ").count(), 1, "{answer}");
        assert!(!answer.contains("secret"), "{answer}");
    }
    for (target, hosts) in [
        ("/web/", &["a.example.org", "b.example.org"][..]),
        ("/web/", &["a.example.org", "a.example.org"]),
        ("http://a.example.org/web/", &["a.example.org", "b.example.org"]),
        ("http://a.example.org/web/", &[]),
        ("/web/", &["user@a.example.org"]),
        ("/web/", &["a.example.org, b.example.org"]),
    ] {
        let answer = asked(target, hosts).await;
        assert!(answer.starts_with("http/1.1 400 "), "{target} {hosts:?}: {answer}");
    }
}
