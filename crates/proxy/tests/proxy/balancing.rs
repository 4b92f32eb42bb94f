//! Which upstream a request goes to, and which core serves it.

use crate::bench::{Bench, Client, SOON, ask, get, name, read_until, until, upstream, websocket};
use futures_util::StreamExt;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use twinsite_model::spec::Balance;
use twinsite_model::{UpstreamName, Verdict, rendezvous};

const NAMES: [&str; 3] = ["one", "two", "three"];

async fn three() -> Vec<(&'static str, SocketAddr)> {
    let mut upstreams = Vec::new();
    for name in NAMES {
        upstreams.push((name, upstream(name).await));
    }
    upstreams
}

/// Who answered: the first line of the body.
fn place(answer: &str) -> String {
    let body = answer.split_once("\r\n\r\n").map(|(_head, body)| body);
    body.and_then(|body| body.lines().next()).unwrap_or_else(|| panic!("no answer: {answer}")).to_owned()
}

/// One request on a connection that is kept; whole as soon as the request was said back.
async fn ask_again(stream: &mut TcpStream, path: &str) -> String {
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).await.unwrap();
    let head = read_until(stream, b"\r\n\r\n").await;
    let body = read_until(stream, b"\r\n\r\n").await;
    String::from_utf8([head, body].concat()).unwrap()
}

#[tokio::test]
async fn the_first_healthy_one_in_the_order_written() {
    let mut bench = Bench::new(&three().await).await;
    for _ in 0..4 {
        assert_eq!(place(&ask(bench.own, &get("/web/")).await), "one");
    }
    bench.judge("one", Verdict::Unhealthy);
    for _ in 0..4 {
        assert_eq!(place(&ask(bench.own, &get("/web/")).await), "two");
    }
    bench.judge("one", Verdict::Healthy);
    assert_eq!(place(&ask(bench.own, &get("/web/")).await), "one");
}

#[tokio::test]
async fn one_after_the_other_in_turn() {
    let mut bench = Bench::with(&three().await, |spec| spec.routes[1].balance = Balance::RoundRobin).await;
    let mut kept = TcpStream::connect(bench.own).await.unwrap(); // on one core, which has turns of its own
    let mut places = Vec::new();
    for _ in 0..9 {
        places.push(place(&ask_again(&mut kept, "/web/").await));
    }
    assert_eq!(places[..3].iter().collect::<BTreeSet<_>>().len(), 3, "{places:?}");
    assert!(places.windows(4).all(|turns| turns[0] == turns[3]), "{places:?}");

    bench.judge("two", Verdict::Unhealthy);
    let mut places = Vec::new();
    for _ in 0..6 {
        places.push(place(&ask_again(&mut kept, "/web/").await));
    }
    assert!(places.windows(3).all(|turns| turns[0] == turns[2] && turns[0] != turns[1]), "{places:?}");
    assert!(!places.contains(&"two".to_owned()), "{places:?}");
}

async fn opened(bench: &Bench) -> (Client, UpstreamName) {
    let mut socket = websocket(bench.floating, "/web/").await;
    let at = socket.next().await.unwrap().unwrap().into_text().unwrap().to_string();
    (socket, name(&at))
}

#[tokio::test]
async fn the_one_with_the_fewest_open() {
    let bench = Bench::with(&three().await, |spec| spec.routes[1].balance = Balance::LeastConn).await;
    let (mut tunnels, mut all) = (BTreeMap::new(), BTreeSet::new());
    for name in NAMES {
        let (socket, at) = opened(&bench).await;
        all.insert(at.clone());
        tunnels.insert(name, (socket, at));
    }
    assert_eq!(all.len(), 3, "each has one");
    for name in ["two", "three", "one", "two"] {
        let (socket, left) = tunnels.remove(name).unwrap();
        drop(socket);
        until("the tunnel is forgotten", || !bench.proxy.connections().contains_key(&left)).await;
        let (socket, at) = opened(&bench).await;
        assert_eq!(at, left, "the one that has none");
        tunnels.insert(name, (socket, at));
    }
}

async fn ask_from(client: IpAddr, to: SocketAddr, path: &str) -> String {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::new(client, 0)).unwrap();
    let exchange = async {
        let mut stream = socket.connect(to).await.unwrap();
        stream.write_all(get(path).as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    };
    tokio::time::timeout(SOON, exchange).await.unwrap()
}

/// Behind a proxy of one's own all clients have its address; whoever is not trusted says what it likes.
#[tokio::test]
async fn a_client_behind_a_trusted_proxy_goes_where_its_own_hash_says() {
    let upstreams = three().await;
    let trusted = ["127.0.0.0/24".parse().unwrap()];
    let bench = Bench::with(&upstreams, |spec| spec.proxy.trusted_proxies = trusted.to_vec()).await;
    let texts: Vec<_> = upstreams.iter().map(|(name, address)| (*name, address.to_string())).collect();
    let expected =
        |client: &str| rendezvous::choose(&texts, |(_, address)| address, client.as_bytes()).unwrap().0;
    let ask_through = async |proxy: IpAddr, client: &str| {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::new(proxy, 0)).unwrap();
        let mut stream = socket.connect(bench.own).await.unwrap();
        let lines = format!("X-Forwarded-For: 9.9.9.9, {client}, 127.0.0.9\r\nX-Forwarded-Proto: https");
        let request = format!("GET /rooms/ HTTP/1.1\r\nHost: x\r\n{lines}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    };
    let mut used = BTreeSet::new();
    for host in 1..=24_u8 {
        let client = format!("198.51.100.{host}");
        let answer = ask_through(IpAddr::from([127, 0, 0, 8]), &client).await;
        assert_eq!(place(&answer), expected(&client), "{client}");
        let lower = answer.to_lowercase();
        assert!(lower.contains(&format!("x-forwarded-for: {client}\r\n")), "{answer}");
        assert!(lower.contains("x-forwarded-proto: https\r\n"), "{answer}");
        used.insert(place(&answer));
    }
    assert!(used.len() > 1, "24 clients of one upstream");
    let stranger = IpAddr::from([127, 0, 1, 8]);
    let answer = ask_through(stranger, "198.51.100.1").await;
    assert_eq!(place(&answer), expected("127.0.1.8"));
    assert!(answer.to_lowercase().contains("x-forwarded-for: 127.0.1.8\r\n"), "{answer}");
    assert!(answer.to_lowercase().contains("x-forwarded-proto: http\r\n"), "{answer}");
}

#[tokio::test]
async fn a_client_goes_where_its_hash_says_at_every_address_of_the_node() {
    let upstreams = three().await;
    let mut bench = Bench::new(&upstreams).await;
    let texts: Vec<_> = upstreams.iter().map(|(name, address)| (*name, address.to_string())).collect();
    let expected = |client: IpAddr, without: &str| {
        let candidates = texts.iter().filter(|(name, _)| *name != without);
        rendezvous::choose(candidates, |(_, address)| address, client.to_string().as_bytes()).unwrap().0
    };
    let clients: Vec<IpAddr> = (1..=24).map(|host| IpAddr::from([127, host, 7, 3 * host])).collect();
    let mut used = BTreeSet::new();
    for client in &clients {
        for to in [bench.own, bench.floating] {
            let at = place(&ask_from(*client, to, "/rooms/").await);
            assert_eq!(at, expected(*client, ""), "{client}");
            used.insert(at);
        }
    }
    assert!(used.len() > 1, "24 clients of one upstream");
    bench.judge("one", Verdict::Unhealthy);
    for client in &clients {
        assert_eq!(
            place(&ask_from(*client, bench.own, "/rooms/").await),
            expected(*client, "one"),
            "{client}"
        );
    }
}

#[tokio::test]
async fn every_core_serves() {
    let bench = Bench::new(&three().await).await;
    let cores = |asked: &[String]| asked.iter().cloned().collect::<BTreeSet<_>>();
    // At a floating IP each connection goes to the core that has the fewest.
    let mut kept = Vec::new();
    for _ in 0..4 {
        let mut stream = TcpStream::connect(bench.floating).await.unwrap();
        ask_again(&mut stream, "/rooms/?roomId=r").await;
        kept.push(stream);
    }
    let asked = std::mem::take(&mut *bench.book.asked_by.lock().unwrap());
    for core in ["proxy-0", "proxy-1"] {
        assert_eq!(asked.iter().filter(|by| *by == core).count(), 2, "{core} in {asked:?}");
    }
    // At its own addresses the kernel spreads them, by chance.
    for _ in 0..64 {
        ask(bench.own, &get("/rooms/?roomId=r")).await;
        if cores(&bench.book.asked_by.lock().unwrap()).len() == 2 {
            return;
        }
    }
    panic!("64 connections on one core");
}

#[tokio::test]
async fn a_tunnel_counts_for_its_core() {
    let bench = Bench::new(&three().await).await;
    let mut socket = websocket(bench.floating, "/rooms/?roomId=r").await;
    assert!(socket.next().await.unwrap().is_ok());
    for _ in 0..3 {
        ask(bench.floating, &get("/rooms/?roomId=r")).await;
        until("the connection is forgotten", || bench.proxy.load().connections == 1).await;
    }
    let asked = bench.book.asked_by.lock().unwrap().clone();
    // A tunnel's core asks where to, and once more when it is open whether that is still so.
    assert_eq!(asked[0], asked[1]);
    let others = asked[2..].iter().filter(|by| **by != asked[0]).count();
    assert_eq!(others, asked.len() - 2, "the core with the tunnel has more than the other: {asked:?}");
}
