//! Changes of the configuration under two thousand `WebSockets` with traffic: none ends that does not lead to what was removed,
//! and no message is lost or comes in another order.

use crate::bench::{Bench, SOON, name, upstream};
use crate::tls::{Certificate, HOST, shake_hands};
use futures_util::{SinkExt, StreamExt};
use rustix::process::{Resource, getrlimit, setrlimit};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::Message;
use twinsite_model::spec::{Balance, HumanDuration, RouteSpec, UpstreamSpec};

const SOCKETS: usize = 2_000;
const CHANGES: u32 = 50;

trait Wire: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Wire for T {}

type Socket = WebSocketStream<Box<dyn Wire>>;

/// How a socket's traffic ended.
#[derive(Debug, PartialEq, Eq)]
enum Ended {
    /// When it was told to.
    WhenTold,
    /// By the proxy.
    Closed,
    /// A message was lost, or came in another order.
    Wrong(String),
}

/// Sends numbers, a few at a time, and expects each of them back in its turn.
async fn traffic(mut socket: Socket, stop: Arc<AtomicBool>, passed: Arc<AtomicU64>) -> Ended {
    let mut number = 0_u64;
    while !stop.load(Ordering::Relaxed) {
        for ahead in 0..3 {
            if socket.send(Message::text((number + ahead).to_string())).await.is_err() {
                return Ended::Closed;
            }
        }
        for ahead in 0..3 {
            match timeout(SOON * 3, socket.next()).await {
                Ok(Some(Ok(Message::Text(text)))) if text.as_str() == (number + ahead).to_string() => {}
                Ok(Some(Ok(Message::Close(_)) | Err(_)) | None) => return Ended::Closed,
                other => return Ended::Wrong(format!("{other:?} for {}", number + ahead)),
            }
        }
        number += 3;
        passed.fetch_add(3, Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(150)).await;
    }
    Ended::WhenTold
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_change_ends_or_disturbs_a_websocket_that_is_not_concerned() {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, rustix::process::Rlimit { current: limit.maximum, ..limit }).unwrap();
    let mut certificate = Certificate::new("meet", HOST);
    let upstreams = [("one", upstream("one").await), ("two", upstream("two").await)];
    let later = upstream("later").await;
    let mut bench = Bench::with(&upstreams, |spec| {
        for route in &mut spec.routes {
            route.tunnel_idle_timeout = HumanDuration(Duration::from_secs(60));
        }
        spec.routes[1].balance = Balance::RoundRobin;
        spec.routes[1].connect_timeout = HumanDuration(Duration::from_secs(10));
        spec.proxy.head_timeout = HumanDuration(Duration::from_secs(30));
    })
    .await;
    bench.speak_tls(&[&certificate]).await;
    let (stop, passed) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let config = certificate.trusted(&[]);
    let (mut sockets, mut at_two) = (JoinSet::new(), 0);
    for number in 0..SOCKETS {
        let wire: Box<dyn Wire> = if number % 4 == 0 {
            Box::new(shake_hands(bench.floating, &config, HOST).await.unwrap())
        } else {
            Box::new(TcpStream::connect(bench.own).await.unwrap())
        };
        let url = format!("ws://{HOST}/web/");
        let (mut socket, _) =
            timeout(SOON, tokio_tungstenite::client_async(url, wire)).await.unwrap().unwrap();
        let from = socket.next().await.unwrap().unwrap().into_text().unwrap().to_string();
        at_two += usize::from(from == "two");
        let traffic = traffic(socket, Arc::clone(&stop), Arc::clone(&passed));
        sockets.spawn(async move { (from, traffic.await) });
    }

    for change in 0..CHANGES {
        bench.change(|spec, _| {
            // Another route in front, other limits, another balance, another order.
            let mut route = RouteSpec::new(format!("extra-{change}").parse().unwrap());
            route.path = format!("/extra-{change}/*");
            spec.routes.retain(|route| !route.name.as_str().starts_with("extra-"));
            spec.routes.insert(0, route);
            let web = spec.routes.iter_mut().find(|route| route.path == "/web/*");
            if let Some(web) = web {
                web.response_timeout = HumanDuration(Duration::from_secs(1 + u64::from(change)));
            }
            spec.proxy.head_bytes_max = 16 * 1024 + change;
            match change {
                10 => spec.upstreams.push(UpstreamSpec::new(
                    name("later"),
                    "gra".parse().unwrap(),
                    later.to_string(),
                )),
                20 => spec.upstreams.retain(|upstream| upstream.name != name("later")),
                _ => {}
            }
        });
        if change == 30 {
            certificate.renew(HOST);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let trusted = certificate.trusted(&[]);
    let renewed = async {
        while shake_hands(bench.floating, &trusted, HOST).await.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(SOON, renewed).await.expect("the new certificate is not in force");
    assert!(sockets.try_join_next().is_none(), "a socket ended that no change concerned");
    assert_eq!(bench.proxy.load().tunnels as usize, SOCKETS);

    // Now one that people are on: they are told to come again, and nobody else is.
    bench.change(|spec, _| spec.upstreams.retain(|upstream| upstream.name != name("two")));
    let mut ended = Vec::new();
    let of_two = async {
        while ended.len() < at_two {
            ended.push(sockets.join_next().await.unwrap().unwrap());
        }
    };
    timeout(SOON * 2, of_two).await.expect("those of the removed upstream are not told");
    assert!(ended.iter().all(|(from, how)| from == "two" && *how == Ended::Closed), "{:?}", &ended[..10]);
    tokio::time::sleep(Duration::from_millis(200)).await;
    stop.store(true, Ordering::Relaxed);
    while let Some(left) = sockets.join_next().await {
        assert_eq!(left.unwrap(), ("one".to_owned(), Ended::WhenTold));
    }
    assert!(passed.load(Ordering::Relaxed) > 10 * SOCKETS as u64, "hardly any traffic");
    assert!(at_two.abs_diff(SOCKETS / 2) < SOCKETS / 10, "{at_two} of {SOCKETS}");
}
