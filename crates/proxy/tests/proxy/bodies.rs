//! Bodies on their way, in both directions, and what happens when they stand still.

use crate::bench::{Bench, SOON, ask, name, public, read_until, scripted, until, upstream};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Notify, broadcast};
use tokio::time::timeout;
use twinsite_model::spec::{ClusterSpec, HumanDuration};

const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

fn limits(response: u64, body_idle: u64) -> impl Fn(&mut ClusterSpec) {
    move |spec| {
        spec.routes[1].response_timeout = HumanDuration(Duration::from_millis(response));
        spec.routes[1].body_idle_timeout = HumanDuration(Duration::from_millis(body_idle));
    }
}

fn nothing_failed(failures: &mut broadcast::Receiver<twinsite_model::UpstreamName>) {
    assert!(failures.try_recv().is_err(), "the client's own doing is not the upstream's failure");
}

#[tokio::test]
async fn an_answer_arrives_before_its_end() {
    let first_came = Arc::new(Notify::new());
    let wait = Arc::clone(&first_came);
    let address = scripted(move |mut stream| {
        let wait = Arc::clone(&wait);
        async move {
            read_until(&mut stream, b"\r\n\r\n").await;
            let head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nfirst\r\n";
            stream.write_all(head).await.unwrap();
            wait.notified().await;
            stream.write_all(b"4\r\nlast\r\n0\r\n\r\n").await.unwrap();
        }
    })
    .await;
    let bench = Bench::new(&[("one", address)]).await;
    let mut stream = TcpStream::connect(bench.own).await.unwrap();
    stream.write_all(b"GET /web/ HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    read_until(&mut stream, b"5\r\nfirst\r\n").await;
    first_came.notify_one();
    read_until(&mut stream, b"4\r\nlast\r\n0\r\n\r\n").await;
}

#[tokio::test]
async fn a_body_arrives_before_its_end_with_whatever_method() {
    for method in ["POST", "GET", "DELETE"] {
        let first_came = Arc::new(Notify::new());
        let tell = Arc::clone(&first_came);
        let address = scripted(move |mut stream| {
            let tell = Arc::clone(&tell);
            async move {
                let head = read_until(&mut stream, b"5\r\nfirst\r\n").await;
                let head = String::from_utf8(head).unwrap().to_lowercase();
                assert!(head.contains("transfer-encoding: chunked\r\n"), "{head}");
                assert!(!head.contains("content-length"), "{head}");
                tell.notify_one();
                read_until(&mut stream, b"4\r\nlast\r\n0\r\n\r\n").await;
                stream.write_all(OK).await.unwrap();
            }
        })
        .await;
        let bench = Bench::new(&[("one", address)]).await;
        let mut stream = TcpStream::connect(bench.own).await.unwrap();
        let head = format!("{method} /web/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
        stream.write_all(format!("{head}5\r\nfirst\r\n").as_bytes()).await.unwrap();
        timeout(SOON, first_came.notified()).await.unwrap_or_else(|_| panic!("the body of {method} is kept"));
        stream.write_all(b"4\r\nlast\r\n0\r\n\r\n").await.unwrap();
        let answer = read_until(&mut stream, b"\r\n\r\nok").await;
        assert!(answer.starts_with(b"HTTP/1.1 200 OK\r\n"));
    }
}

#[tokio::test]
async fn an_upload_takes_its_time_and_its_answer_may_not() {
    let bench = Bench::with(&[("one", upstream("one").await)], limits(400, 5_000)).await;
    let mut failures = bench.proxy.upstream_failures();
    let mut stream = TcpStream::connect(bench.own).await.unwrap();
    let head = "POST /web/ HTTP/1.1\r\nHost: x\r\nContent-Length: 8\r\nConnection: close\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    for _ in 0..8 {
        tokio::time::sleep(Duration::from_millis(150)).await; // three times as long as an answer may take
        stream.write_all(b"x").await.unwrap();
    }
    let mut answer = String::new();
    timeout(SOON, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("xxxxxxxx"), "{answer}");
    nothing_failed(&mut failures);

    // With the body, and without one.
    let silent = scripted(|mut stream| async move { drop(stream.read_to_end(&mut Vec::new()).await) }).await;
    let bench = Bench::with(&[("one", silent)], limits(300, 5_000)).await;
    let mut failures = bench.proxy.upstream_failures();
    for request in [
        "POST /web/ HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nConnection: close\r\n\r\nx",
        "GET /web/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    ] {
        let answer = ask(bench.own, request).await;
        assert!(answer.starts_with("HTTP/1.1 504 "), "{answer}");
        assert_eq!(failures.recv().await.unwrap(), name("one"));
    }
}

#[tokio::test]
async fn a_body_that_stops_or_grows_too_large_is_the_clients_own_doing() {
    let bench = Bench::with(&[("one", upstream("one").await)], limits(200, 500)).await;
    let mut failures = bench.proxy.upstream_failures();
    let stops = "POST /web/ HTTP/1.1\r\nHost: x\r\nContent-Length: 8\r\n\r\nx";
    let answer = ask(bench.own, stops).await;
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    let chunk = format!("258\r\n{}\r\n", "x".repeat(600));
    let grows = "POST /web/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n";
    let answer = ask(bench.own, &format!("{grows}{chunk}{chunk}0\r\n\r\n")).await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    nothing_failed(&mut failures);
}

#[tokio::test]
async fn an_answer_that_stops_is_cut_off() {
    let address = scripted(|mut stream| async move {
        read_until(&mut stream, b"\r\n\r\n").await;
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf").await.unwrap();
        drop(stream.read_to_end(&mut Vec::new()).await);
    })
    .await;
    let bench = Bench::with(&[("one", address)], limits(1_000, 300)).await;
    let answer = ask(bench.own, "GET /web/ HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert!(answer.ends_with("\r\n\r\nhalf") || answer.starts_with("ERROR"), "{answer}");
}

/// An upstream whose answer has no end, and what is told when it is not read any more.
async fn endless(broken_off: Arc<Notify>) -> SocketAddr {
    scripted(move |mut stream| {
        let broken_off = Arc::clone(&broken_off);
        async move {
            read_until(&mut stream, b"\r\n\r\n").await;
            let head = b"HTTP/1.1 200 OK\r\ncontent-length: 100000000000\r\n\r\n";
            stream.write_all(head).await.unwrap();
            while stream.write_all(&[b'x'; 8_192]).await.is_ok() {}
            broken_off.notify_one();
        }
    })
    .await
}

#[tokio::test]
async fn a_client_that_takes_nothing_is_let_go_and_its_upstream_too() {
    let broken_off = Arc::new(Notify::new());
    let bench = Bench::with(&[("one", endless(Arc::clone(&broken_off)).await)], |spec| {
        limits(1_000, 400)(spec);
        spec.proxy.head_timeout = HumanDuration(Duration::from_secs(60)); // nothing else looks after it
    })
    .await;
    let mut stream = TcpStream::connect(bench.floating).await.unwrap();
    stream.write_all(b"GET /web/ HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    read_until(&mut stream, b"\r\n\r\nxxxx").await;
    timeout(SOON, broken_off.notified()).await.expect("the upstream writes for nobody");
    until("the connection is forgotten", || bench.proxy.in_flight(&public()).connections == 0).await;
}

#[tokio::test]
async fn a_client_that_takes_a_little_now_and_then_is_served() {
    let broken_off = Arc::new(Notify::new());
    let bench = Bench::with(&[("one", endless(Arc::clone(&broken_off)).await)], limits(1_000, 1_000)).await;
    let mut stream = TcpStream::connect(bench.floating).await.unwrap();
    stream.write_all(b"GET /web/ HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut taken = vec![0; 4 * 1024 * 1024];
    for _ in 0..10 {
        tokio::time::sleep(Duration::from_millis(200)).await;
        timeout(SOON, stream.read_exact(&mut taken)).await.unwrap().unwrap();
    }
    assert_eq!(bench.proxy.in_flight(&public()).connections, 1);
}
