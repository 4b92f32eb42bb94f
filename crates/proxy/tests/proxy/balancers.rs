//! Load balancers in front that say whose connections they bring.

use crate::bench::{Bench, ask, get, upstream};

fn from_here(spec: &mut twinsite_model::ClusterSpec) {
    spec.proxy.proxy_protocol_from = vec!["127.0.0.0/8".parse().unwrap()];
}

#[tokio::test]
async fn the_client_is_whom_a_balancer_names() {
    let one = upstream("one").await;
    let bench = Bench::with(&[("one", one)], from_here).await;
    for to in [bench.own, bench.floating] {
        let answer = ask(to, &format!("PROXY TCP4 192.0.2.7 192.0.2.1 4711 443\r\n{}", get("/web/"))).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        assert!(answer.contains("x-forwarded-for: 192.0.2.7\r\n"), "{answer}");
        // Its own probes are its own.
        let answer = ask(to, &format!("PROXY UNKNOWN\r\n{}", get("/web/"))).await;
        assert!(answer.contains("x-forwarded-for: 127.0.0.1\r\n"), "{answer}");
    }
}

#[tokio::test]
async fn a_balancer_that_does_not_say_it_is_not_served() {
    let one = upstream("one").await;
    let bench = Bench::with(&[("one", one)], from_here).await;
    let answer = ask(bench.own, &get("/web/")).await;
    assert!(!answer.contains("HTTP/1.1"), "{answer}");
}

#[tokio::test]
async fn nobody_else_may_say_who_it_is() {
    let one = upstream("one").await;
    let bench = Bench::with(&[("one", one)], |spec| {
        spec.proxy.proxy_protocol_from = vec!["10.0.0.0/8".parse().unwrap()];
    })
    .await;
    let answer =
        ask(bench.own, &format!("PROXY TCP4 192.0.2.7 192.0.2.1 4711 443\r\n{}", get("/web/"))).await;
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    assert!(ask(bench.own, &get("/web/")).await.contains("x-forwarded-for: 127.0.0.1\r\n"));
}
