//! What upstreams speak, and how much each of them gets.

use crate::bench::{Bench, SOON, ask, get, name, scripted, serve, upstream, websocket};
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_tungstenite::tungstenite::protocol::Message;
use tokio_util::sync::CancellationToken;
use twinsite_model::Verdict;
use twinsite_model::spec::{Balance, HumanDuration, UpstreamProtocol};

/// An upstream that speaks HTTP/2 in clear, and HTTP/1.1 with `WebSockets` to who asks so.
async fn http2_upstream(connections: Arc<AtomicUsize>) -> SocketAddr {
    scripted(move |stream| {
        let connections = Arc::clone(&connections);
        async move {
            let mut first = [0; 3];
            let is_http2 = timeout(SOON, stream.peek(&mut first)).await.is_ok() && first == *b"PRI";
            if !is_http2 {
                return serve("h1", stream).await;
            }
            connections.fetch_add(1, Ordering::Relaxed);
            let service = service_fn(|request: Request<Incoming>| async move {
                let said = format!("{:?} {} {:?}", request.version(), request.uri(), request.headers());
                let body = request.into_body().collect().await.unwrap().to_bytes();
                let said = [said.as_bytes(), b"\n", &body].concat();
                Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(said))))
            });
            let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            drop(server.serve_connection(TokioIo::new(stream), service).await);
        }
    })
    .await
}

fn speaks(protocol: UpstreamProtocol) -> impl FnOnce(&mut twinsite_model::ClusterSpec) {
    move |spec| spec.upstreams[0].protocol = protocol
}

#[tokio::test]
async fn http_2_in_clear_carries_requests_and_http_1_websockets() {
    let connections = Arc::new(AtomicUsize::new(0));
    let one = http2_upstream(Arc::clone(&connections)).await;
    let bench = Bench::with(&[("one", one)], speaks(UpstreamProtocol::H2c)).await;
    let asked = (0..40).map(|_| {
        let request = "POST /web/a?b=c HTTP/1.1\r\nHost: meet.example.org\r\nConnection: close\r\nContent-Length: 4\r\n\r\nbody";
        ask(bench.own, request)
    });
    for answer in futures_util::future::join_all(asked).await {
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        assert!(answer.contains("HTTP/2.0 http://meet.example.org/web/a?b=c"), "{answer}");
        assert!(
            answer.contains("\"x-forwarded-for\": \"127.0.0.1\"") && answer.ends_with("body"),
            "{answer}"
        );
    }
    // One on which it was asked whether it speaks HTTP/2 at all, and few for all requests; each core has its own.
    let made = connections.load(Ordering::Relaxed);
    assert!(made <= 42, "{made} connections");
    let before = connections.load(Ordering::Relaxed);
    for _ in 0..20 {
        assert!(ask(bench.own, &get("/web/")).await.contains("HTTP/2.0"));
    }
    assert!(connections.load(Ordering::Relaxed) <= before + 2, "connections are not shared");

    let mut socket = websocket(bench.own, "/rooms/?roomId=a").await;
    assert_eq!(socket.next().await.unwrap().unwrap().into_text().unwrap().as_str(), "h1");
    socket.send(Message::text("hello")).await.unwrap();
    assert_eq!(socket.next().await.unwrap().unwrap().into_text().unwrap().as_str(), "hello");
}

/// The trap in the meeting service's own configuration: Node's `http` server does not speak HTTP/2.
#[tokio::test]
async fn who_does_not_speak_http_2_is_served_in_http_1() {
    let one = upstream("one").await;
    let bench = Bench::with(&[("one", one)], speaks(UpstreamProtocol::H2c)).await;
    for _ in 0..5 {
        let answer = ask(bench.own, &get("/web/")).await;
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("GET /web/ HTTP/1.1"), "{answer}");
    }
}

#[tokio::test]
async fn an_upstream_behind_tls_is_asked_and_verified() {
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed(["meet.internal".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    // What ends TLS in front of a plain server.
    let plain = upstream("one").await;
    let one = scripted(move |stream| {
        let acceptor = acceptor.clone();
        async move {
            let Ok(mut stream) = acceptor.accept(stream).await else { return };
            let mut inner = TcpStream::connect(plain).await.unwrap();
            drop(tokio::io::copy_bidirectional(&mut stream, &mut inner).await);
            drop(stream.shutdown().await);
        }
    })
    .await;
    let folder = tempfile::tempdir().unwrap();
    let authorities = folder.path().join("ca.pem");
    std::fs::write(&authorities, cert.pem()).unwrap();
    let mut bench = Bench::with(&[("one", one)], |spec| {
        spec.upstreams[0].protocol = UpstreamProtocol::Https;
        spec.upstreams[0].tls.name = Some("meet.internal".to_owned());
        spec.upstreams[0].tls.authorities = Some(authorities);
    })
    .await;
    assert!(ask(bench.own, &get("/web/")).await.starts_with("HTTP/1.1 200 "));
    let mut socket = websocket(bench.own, "/rooms/?roomId=a").await;
    assert_eq!(socket.next().await.unwrap().unwrap().into_text().unwrap().as_str(), "one");
    let long = "x".repeat(2_000_000);
    socket.send(Message::text(long.clone())).await.unwrap();
    assert!(
        timeout(SOON, socket.next()).await.unwrap().unwrap().unwrap().into_text().unwrap().as_str() == long
    );

    bench.change(|spec, _| spec.upstreams[0].tls.name = Some("other.internal".to_owned()));
    assert!(ask(bench.own, &get("/web/")).await.starts_with("HTTP/1.1 502 "));
}

async fn who_answers(bench: &Bench, times: usize) -> BTreeMap<String, usize> {
    let mut answers = BTreeMap::new();
    for _ in 0..times {
        let answer = ask(bench.own, &get("/web/")).await;
        let body = answer.split("\r\n\r\n").nth(1).unwrap_or_default();
        *answers.entry(body.lines().next().unwrap_or_default().to_owned()).or_default() += 1;
    }
    answers
}

#[tokio::test]
async fn a_heavier_upstream_gets_more() {
    let bench = Bench::with(&[("one", upstream("one").await), ("two", upstream("two").await)], |spec| {
        spec.upstreams[0].weight = 3;
        spec.routes[1].balance = Balance::RoundRobin;
    })
    .await;
    let answers = who_answers(&bench, 80).await;
    assert!(answers["one"].abs_diff(60) <= 4, "{answers:?}");
}

#[tokio::test]
async fn who_fails_is_left_out_for_a_while_by_this_node_alone() {
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    let bad = scripted(move |stream| {
        counted.fetch_add(1, Ordering::Relaxed);
        async move { drop(stream) }
    })
    .await;
    let bench = Bench::with(&[("bad", bad), ("good", upstream("good").await)], |spec| {
        spec.routes[1].balance = Balance::First;
        spec.health.eject_after = 2;
        spec.health.eject_for = HumanDuration(Duration::from_secs(60));
    })
    .await;
    let request = get("/web/");
    drop(futures_util::future::join_all((0..40).map(|_| ask(bench.own, &request))).await);
    let before = asked.load(Ordering::Relaxed);
    assert!(before >= 2);
    assert_eq!(who_answers(&bench, 20).await, BTreeMap::from([("good".to_owned(), 20)]));
    assert_eq!(asked.load(Ordering::Relaxed), before, "it was asked again");
}

#[tokio::test]
async fn an_upstream_that_comes_back_is_not_given_everything_at_once() {
    let mut bench = Bench::with(&[("one", upstream("one").await), ("two", upstream("two").await)], |spec| {
        spec.routes[1].balance = Balance::RoundRobin;
        spec.health.slow_start = HumanDuration(Duration::from_secs(3_600));
    })
    .await;
    // Each core has turns of its own.
    assert!(who_answers(&bench, 20).await["one"].abs_diff(10) <= 2);
    bench.judge("one", Verdict::Unhealthy);
    assert!(!who_answers(&bench, 10).await.contains_key("one"));
    bench.judge("one", Verdict::Healthy);
    let answers = who_answers(&bench, 60).await;
    assert!(answers.get("one").is_none_or(|count| *count <= 6), "{answers:?}");
    bench.change(|spec, _| {
        spec.routes[1].balance = Balance::First;
        spec.routes[1].upstreams = vec![name("one")];
    });
    assert_eq!(who_answers(&bench, 5).await["one"], 5, "where there is no other it is given all");
}

#[tokio::test]
async fn retries_have_an_end() {
    let nobody = || {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap()
    };
    let bench = Bench::with(&[("one", nobody()), ("two", nobody()), ("three", nobody())], |spec| {
        spec.proxy.retry_percent = 0;
        spec.routes[1].balance = Balance::RoundRobin;
    })
    .await;
    for _ in 0..200 {
        assert!(ask(bench.own, &get("/web/")).await.starts_with("HTTP/1.1 502 "));
    }
    let text = bench.proxy.metrics();
    let failed = text
        .lines()
        .find(|line| line.starts_with("twinsite_route_answers_total{route=\"web\",class=\"5xx\"}"));
    assert!(failed.is_some_and(|line| line.ends_with(" 200")), "{text}");
}

/// An upstream that answers after a moment, until it is killed; and how many requests it has not answered yet.
async fn mortal(name: &'static str, killed: CancellationToken, in_flight: Arc<AtomicUsize>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = {
        let killed = killed.clone();
        async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let in_flight = Arc::clone(&in_flight);
                let serve = async move {
                    let mut head = [0; 4_096];
                    while stream.read(&mut head).await.is_ok_and(|count| count > 0) {
                        in_flight.fetch_add(1, Ordering::SeqCst);
                        tokio::time::sleep(Duration::from_millis(5)).await;
                        let answer =
                            format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{name}", name.len());
                        let sent = stream.write_all(answer.as_bytes()).await;
                        in_flight.fetch_sub(1, Ordering::SeqCst);
                        if sent.is_err() {
                            return;
                        }
                    }
                };
                let killed = killed.clone();
                tokio::spawn(async move { killed.run_until_cancelled(serve).await });
            }
        }
    };
    tokio::spawn(async move { killed.run_until_cancelled(serving).await });
    address
}

/// Two thousand requests in a second, by clients that keep their connections; how many were not answered well.
async fn client(to: SocketAddr, until: Instant, failures: Arc<AtomicUsize>, answers: Arc<AtomicUsize>) {
    let mut stream = TcpStream::connect(to).await.unwrap();
    let mut answer = vec![0; 4_096];
    let mut pace = tokio::time::interval(Duration::from_millis(50));
    while Instant::now() < until {
        pace.tick().await;
        stream.write_all(b"GET /web/ HTTP/1.1\r\nHost: meet.example.org\r\n\r\n").await.unwrap();
        let count = timeout(SOON, stream.read(&mut answer)).await.unwrap().unwrap();
        if answer[..count].starts_with(b"HTTP/1.1 200 ") {
            answers.fetch_add(1, Ordering::SeqCst);
        } else {
            assert!(
                answer[..count].starts_with(b"HTTP/1.1 502 "),
                "{:?}",
                String::from_utf8_lossy(&answer[..count])
            );
            failures.fetch_add(1, Ordering::SeqCst);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_upstream_takes_only_its_requests_in_flight_along() {
    let (killed, in_flight) = (CancellationToken::new(), Arc::new(AtomicUsize::new(0)));
    let mortal = mortal("mortal", killed.clone(), Arc::clone(&in_flight)).await;
    let other = self::mortal("other", CancellationToken::new(), Arc::default()).await;
    let bench = Bench::with(&[("mortal", mortal), ("other", other)], |spec| {
        spec.routes[1].balance = Balance::RoundRobin;
        spec.health.eject_after = 5;
        spec.proxy.retry_percent = 100;
    })
    .await;
    let (failures, answers) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let until = Instant::now() + Duration::from_secs(4);
    let mut clients = JoinSet::new();
    for _ in 0..100 {
        clients.spawn(client(bench.own, until, Arc::clone(&failures), Arc::clone(&answers)));
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    // Whatever comes in while this is read counts as in flight too: it was on its way.
    let before = in_flight.load(Ordering::SeqCst);
    killed.cancel();
    tokio::time::sleep(Duration::from_millis(1)).await;
    let in_flight = before.max(in_flight.load(Ordering::SeqCst));
    while let Some(ended) = clients.join_next().await {
        ended.unwrap();
    }
    let (failures, answers) = (failures.load(Ordering::SeqCst), answers.load(Ordering::SeqCst));
    assert!(answers > 4_000, "{answers} answers are no load");
    assert!(failures <= in_flight, "{failures} failed, {in_flight} were in flight; {answers} answers");
}
