//! The proxy from outside: real sockets, real tunnels, upstreams that behave and upstreams that do not.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test's helpers end the test")]

use futures_util::{SinkExt, StreamExt};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::protocol::Message;
use twinsite_model::dial::DialMap;
use twinsite_model::state::VerdictRecord;
use twinsite_model::{
    ClusterName, FloatingIpName, Incarnation, NodeId, NodeName, RoomKey, State, Token, UpstreamName, Verdict,
    WallTime, spec,
};
use twinsite_proxy::{Authority, Closing, Proxy, ProxyOptions, RoomRefused, Rooms, RoutingTable};

const SOON: Duration = Duration::from_secs(10);

/// Keeps rooms as a store would.
#[derive(Default)]
struct Book {
    rooms: Mutex<BTreeMap<RoomKey, UpstreamName>>,
    refuses: AtomicBool,
}

impl Rooms for Book {
    fn remembered(&self, room: RoomKey) -> Option<UpstreamName> {
        self.rooms.lock().unwrap().get(&room).cloned()
    }

    fn place<'a>(
        &'a self,
        room: RoomKey,
        proposal: UpstreamName,
        replace: Option<UpstreamName>,
    ) -> Pin<Box<dyn Future<Output = Result<UpstreamName, RoomRefused>> + Send + 'a>> {
        Box::pin(async move {
            if self.refuses.load(Ordering::Relaxed) {
                return Err(RoomRefused::QuorumUnknown);
            }
            let mut rooms = self.rooms.lock().unwrap();
            let known = rooms.entry(room).or_insert_with(|| proposal.clone());
            if replace.as_ref() == Some(known) {
                *known = proposal;
            }
            Ok(known.clone())
        })
    }
}

struct Held {
    ip: FloatingIpName,
    holds: AtomicBool,
}

impl Authority for Held {
    fn ip(&self) -> &FloatingIpName {
        &self.ip
    }
    fn token(&self) -> Token {
        Token::new(1, 7)
    }
    fn holds(&self) -> bool {
        self.holds.load(Ordering::Relaxed)
    }
}

fn public() -> FloatingIpName {
    FloatingIpName::new("public").unwrap()
}

fn name(name: &str) -> UpstreamName {
    UpstreamName::new(name).unwrap()
}

/// An upstream that answers with its name and what it was asked, and echoes what comes over a WebSocket.
async fn upstream(name: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(serve(name, stream));
        }
    });
    address
}

async fn serve(name: &'static str, mut stream: TcpStream) {
    let mut peeked = [0; 4_096];
    let count = stream.peek(&mut peeked).await.unwrap_or(0);
    if String::from_utf8_lossy(&peeked[..count]).to_lowercase().contains("upgrade: websocket") {
        let mut socket = tokio_tungstenite::accept_async(stream).await.unwrap();
        socket.send(Message::text(name)).await.unwrap();
        while let Some(Ok(message)) = socket.next().await {
            if message.is_text() && socket.send(message).await.is_err() {
                return;
            }
        }
        return;
    }
    loop {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            match stream.read_u8().await {
                Ok(byte) => head.push(byte),
                Err(_) => return,
            }
        }
        let text = String::from_utf8_lossy(&head).into_owned();
        let length =
            text.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
        let mut body = vec![0; length.unwrap_or(0)];
        stream.read_exact(&mut body).await.unwrap();
        let answer = format!("{name}\n{text}{}", String::from_utf8_lossy(&body));
        let head =
            format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nx-twinsite-token: 9.9\r\n\r\n", answer.len());
        stream.write_all(format!("{head}{answer}").as_bytes()).await.unwrap();
    }
}

/// A proxy with a node's own address, and a floating one that the test holds.
struct Bench {
    proxy: Proxy,
    own: SocketAddr,
    floating: SocketAddr,
    authority: Arc<Held>,
    book: Arc<Book>,
    state: State,
}

impl Bench {
    async fn new(upstreams: &[(&str, SocketAddr)]) -> Self {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let book = Arc::new(Book::default());
        let options = ProxyOptions {
            node: NodeId(1),
            name: NodeName::new("gra-1").unwrap(),
            cluster: ClusterName::new("test").unwrap(),
            incarnation: Incarnation(5),
            cores: 2,
            own: vec![free],
            dial: DialMap::default(),
        };
        let proxy = Proxy::start(options, Arc::clone(&book) as Arc<dyn Rooms>).unwrap();
        let spec = spec::from_toml(&toml(upstreams)).unwrap();
        let mut state = State { spec: Some(Arc::new(spec)), ..State::default() };
        for (upstream, _) in upstreams {
            let record =
                VerdictRecord { health: Verdict::Healthy, since: WallTime::default(), evidence: Vec::new() };
            state.verdicts.insert(name(upstream), record);
        }
        proxy.publish(RoutingTable::build(&state));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let floating = listener.local_addr().unwrap();
        let authority = Arc::new(Held { ip: public(), holds: AtomicBool::new(true) });
        let (taker, held) = (proxy.clone(), Arc::clone(&authority));
        tokio::spawn(async move {
            loop {
                let stream = listener.accept().await.unwrap().0.into_std().unwrap();
                taker.accept_floating(stream, Arc::clone(&held) as Arc<dyn Authority>);
            }
        });
        Self { proxy, own: free, floating, authority, book, state }
    }

    fn judge(&mut self, upstream: &str, health: Verdict) {
        self.state.verdicts.get_mut(&name(upstream)).unwrap().health = health;
        self.proxy.publish(RoutingTable::build(&self.state));
    }
}

fn toml(upstreams: &[(&str, SocketAddr)]) -> String {
    let mut text = r#"
        version = 1
        cluster = "test"
        profile = "lan"
        [[site]]
        name = "gra"
        announced_ip = "192.0.2.10"
        [[site]]
        name = "sbg"
        announced_ip = "198.51.100.10"
        [[site]]
        name = "wit"
        witness = true
        [[node]]
        id = 2
        name = "sbg-1"
        site = "sbg"
        peer = "127.0.0.2:7100"
        api = "127.0.0.2:7101"
        http = ["127.0.0.2:7102"]
        [[node]]
        id = 3
        name = "wit-1"
        site = "wit"
        kind = "witness"
        peer = "127.0.0.3:7100"
        api = "127.0.0.3:7101"
        [[node]]
        id = 1
        name = "gra-1"
        site = "gra"
        peer = "127.0.0.1:7100"
        api = "127.0.0.1:7101"
        http = ["127.0.0.1:7102"]
        [[floating_ip]]
        name = "public"
        address = "127.0.0.10"
        ports = [8080]
        provider = "loopback"
        [[route]]
        name = "rooms"
        path = "/rooms/*"
        room_query = "roomId"
        connect_timeout = "500ms"
        tunnel_idle_timeout = "1s"
        [[route]]
        name = "web"
        path = "/web/*"
        balance = "first"
        connect_timeout = "500ms"
        response_timeout = "1s"
        [proxy]
        body_bytes_max = 1000
        head_timeout = "1s"
    "#
    .to_owned();
    for (upstream, address) in upstreams {
        text.push_str(&format!(
            "\n[[upstream]]\nname = \"{upstream}\"\nsite = \"gra\"\naddress = \"{address}\"\n"
        ));
    }
    text
}

/// One request on a connection of its own; the whole answer as text.
async fn ask(to: SocketAddr, request: &str) -> String {
    let exchange = async {
        let mut stream = TcpStream::connect(to).await?;
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        std::io::Result::Ok(String::from_utf8_lossy(&answer).into_owned())
    };
    tokio::time::timeout(SOON, exchange).await.unwrap().unwrap_or_else(|error| format!("ERROR {error}"))
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: meet.example.org\r\nConnection: close\r\n\r\n")
}

async fn websocket(
    to: SocketAddr,
    path: &str,
) -> tokio_tungstenite::WebSocketStream<tokio_tungstenite::MaybeTlsStream<TcpStream>> {
    let url = format!("ws://{to}{path}");
    tokio::time::timeout(SOON, tokio_tungstenite::connect_async(url)).await.unwrap().unwrap().0
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let deadline = tokio::time::Instant::now() + SOON;
    while !condition() {
        assert!(tokio::time::Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn requests_pass_with_the_headers_that_upstreams_need() {
    let bench = Bench::new(&[("one", upstream("one").await)]).await;
    let request = "POST /web/x?y=1 HTTP/1.1\r\nHost: meet.example.org\r\nX-Forwarded-For: 10.0.0.1\r\n\
                   Content-Length: 5\r\nConnection: close, x-mine\r\nX-Mine: 1\r\nX-Twinsite-Trace: 1\r\n\r\nhello";
    let answer = ask(bench.floating, request).await;
    let lower = answer.to_lowercase();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    for wanted in [
        "post /web/x?y=1 http/1.1",
        "x-forwarded-for: 127.0.0.1",
        "x-forwarded-host: meet.example.org",
        "x-real-ip: 127.0.0.1",
        "x-twinsite-node: gra-1",
        "x-twinsite-token: 1.7",
        "hello",
    ] {
        assert!(lower.contains(wanted), "{wanted} is missing in {answer}");
    }
    for unwanted in ["10.0.0.1", "x-mine: 1", "x-twinsite-token: 9.9"] {
        assert!(!lower.contains(unwanted), "{unwanted} is in {answer}");
    }
    let plain = ask(bench.own, &get("/web/")).await.to_lowercase();
    assert!(!plain.contains("x-twinsite"), "nobody asked: {plain}");
}

#[tokio::test]
async fn what_cannot_be_passed_on_is_answered_in_words() {
    let bench = Bench::new(&[("one", upstream("one").await)]).await;
    let status =
        async |request: String| ask(bench.own, &request).await.lines().next().unwrap_or_default().to_owned();
    assert_eq!(status(get("/elsewhere")).await, "HTTP/1.1 404 Not Found");
    assert_eq!(
        status("GET /web/ HTTP/1.1\r\nConnection: close\r\n\r\n".to_owned()).await,
        "HTTP/1.1 400 Bad Request"
    );
    let large = "POST /web/ HTTP/1.1\r\nHost: x\r\nContent-Length: 1001\r\nConnection: close\r\n\r\n";
    assert_eq!(status(large.to_owned()).await, "HTTP/1.1 413 Payload Too Large");
    let who = ask(bench.floating, &get("/.well-known/twinsite")).await;
    assert!(who.contains("\"node\":\"gra-1\"") && who.contains("\"token\":\"1.7\""), "{who}");
    let slow = tokio::time::timeout(SOON, async {
        let mut stream = TcpStream::connect(bench.own).await.unwrap();
        stream.write_all(b"GET /web/ HTTP/1.1\r\n").await.unwrap();
        stream.read_to_end(&mut Vec::new()).await
    });
    assert!(slow.await.is_ok(), "a head that never ends keeps no connection");
}

#[tokio::test]
async fn a_dead_upstream_is_passed_over_and_reported() {
    let dead = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let bench = Bench::new(&[("dead", dead), ("alive", upstream("alive").await)]).await;
    let mut failures = bench.proxy.upstream_failures();
    let answer = ask(bench.own, &get("/web/")).await;
    assert!(answer.contains("\r\n\r\nalive\n"), "{answer}");
    assert_eq!(failures.recv().await.unwrap(), name("dead"));
    let only = Bench::new(&[("dead", dead)]).await;
    assert!(ask(only.own, &get("/web/")).await.starts_with("HTTP/1.1 502 "));
}

#[tokio::test]
async fn everybody_in_a_room_meets_wherever_its_upstream_ranks() {
    let (one, two) = (upstream("one").await, upstream("two").await);
    let mut bench = Bench::new(&[("one", one), ("two", two)]).await;
    let mut places = BTreeMap::new();
    for room in 0..20 {
        for to in [bench.own, bench.floating, bench.own] {
            let answer = ask(to, &get(&format!("/rooms/?roomId=room%20{room}"))).await;
            let place = answer.split("\r\n\r\n").nth(1).unwrap().lines().next().unwrap().to_owned();
            assert_eq!(*places.entry(room).or_insert(place.clone()), place, "room {room} is split");
        }
    }
    assert!(places.values().any(|place| place == "one") && places.values().any(|place| place == "two"));

    // Its upstream is given up: the room moves, and only such rooms do.
    bench.judge("one", Verdict::Unhealthy);
    for (room, before) in &places {
        let answer = ask(bench.own, &get(&format!("/rooms/?roomId=room%20{room}"))).await;
        assert!(answer.contains("\r\n\r\ntwo\n"), "room {room} was at {before}: {answer}");
    }
    bench.book.refuses.store(true, Ordering::Relaxed);
    let refused = ask(bench.own, &get("/rooms/?roomId=new")).await.to_lowercase();
    assert!(refused.starts_with("http/1.1 503 ") && refused.contains("retry-after: 1"), "{refused}");
    let known = ask(bench.own, &get("/rooms/?roomId=room%203")).await;
    assert!(known.starts_with("HTTP/1.1 200 "), "live rooms go on: {known}");
}

#[tokio::test]
async fn a_tunnel_carries_both_ways_and_says_goodbye_when_it_must_go() {
    let mut bench = Bench::new(&[("one", upstream("one").await), ("two", upstream("two").await)]).await;
    let mut socket = websocket(bench.floating, "/rooms/?roomId=a").await;
    let home = socket.next().await.unwrap().unwrap().into_text().unwrap().to_string();
    for size in [1, 125, 126, 70_000] {
        let text = "x".repeat(size);
        socket.send(Message::text(text.clone())).await.unwrap();
        assert_eq!(socket.next().await.unwrap().unwrap().into_text().unwrap().as_str(), text);
    }
    let load = bench.proxy.in_flight(&public());
    assert_eq!((load.tunnels, bench.proxy.live_rooms().len()), (1, 1));
    assert_eq!(bench.proxy.connections(), BTreeMap::from([(name(&home), 1)]));

    // The upstream is given up.
    bench.judge(&home, Verdict::Unhealthy);
    let close = tokio::time::timeout(SOON, socket.next()).await.unwrap().unwrap().unwrap();
    assert!(matches!(&close, Message::Close(Some(frame)) if u16::from(frame.code) == 1001), "{close:?}");

    // The address moves.
    let mut socket = websocket(bench.floating, "/rooms/?roomId=a").await;
    let other = socket.next().await.unwrap().unwrap().into_text().unwrap().to_string();
    assert_ne!(other, home);
    bench.proxy.drain_floating(&public(), Duration::from_millis(50));
    let close = tokio::time::timeout(SOON, socket.next()).await.unwrap().unwrap().unwrap();
    assert!(matches!(&close, Message::Close(Some(frame)) if u16::from(frame.code) == 1001), "{close:?}");
    until("the tunnel is forgotten", || bench.proxy.in_flight(&public()).tunnels == 0).await;
    let draining = ask(bench.floating, "GET /web/ HTTP/1.1\r\nHost: x\r\n\r\n").await.to_lowercase();
    assert!(draining.contains("connection: close"), "{draining}");
}

#[tokio::test]
async fn a_room_that_moved_takes_its_tunnels_along() {
    let bench = Bench::new(&[("one", upstream("one").await), ("two", upstream("two").await)]).await;
    let mut socket = websocket(bench.own, "/rooms/?roomId=b").await;
    let home = socket.next().await.unwrap().unwrap().into_text().unwrap().to_string();
    let (room, _) = bench.proxy.live_rooms()[0];
    bench.proxy.room_moved(room, &name(&home));
    socket.send(Message::text("still here")).await.unwrap();
    assert!(socket.next().await.unwrap().unwrap().is_text());
    bench.proxy.room_moved(room, &name(if home == "one" { "two" } else { "one" }));
    assert!(tokio::time::timeout(SOON, socket.next()).await.unwrap().unwrap().unwrap().is_close());
}

#[tokio::test]
async fn an_idle_tunnel_ends_and_a_living_one_does_not() {
    let bench = Bench::new(&[("one", upstream("one").await)]).await;
    let mut living = websocket(bench.own, "/rooms/?roomId=c").await;
    let mut idle = websocket(bench.own, "/rooms/?roomId=c").await;
    for _ in 0..8 {
        tokio::time::sleep(Duration::from_millis(250)).await;
        living.send(Message::text("ping")).await.unwrap();
        assert!(living.next().await.unwrap().is_ok());
    }
    let _name = idle.next().await;
    let ended = tokio::time::timeout(SOON, idle.next()).await.unwrap();
    assert!(ended.is_none_or(|message| message.is_err()), "an idle tunnel must end");
}

#[tokio::test]
async fn without_the_right_to_answer_nothing_is_said() {
    let bench = Bench::new(&[("one", upstream("one").await)]).await;
    let mut socket = websocket(bench.floating, "/rooms/?roomId=d").await;
    assert!(socket.next().await.unwrap().is_ok());
    let mut kept = TcpStream::connect(bench.floating).await.unwrap();
    kept.write_all(b"GET /web/ HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    assert!(kept.read(&mut [0; 4_096]).await.unwrap() > 0);

    bench.authority.holds.store(false, Ordering::Relaxed);
    kept.write_all(b"GET /web/ HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let said = tokio::time::timeout(SOON, kept.read(&mut [0; 4_096])).await.unwrap();
    assert!(matches!(said, Ok(0) | Err(_)), "an old connection was answered: {said:?}");
    let new = ask(bench.floating, &get("/web/")).await;
    assert!(!new.contains("HTTP/1.1"), "a new connection was answered: {new}");
    let _lost = socket.send(Message::text("anybody?")).await;
    let heard = tokio::time::timeout(SOON, socket.next()).await.unwrap();
    assert!(heard.is_none_or(|message| message.is_err()), "a tunnel was answered");
    assert!(ask(bench.own, &get("/web/")).await.starts_with("HTTP/1.1 200 "), "its own address is its own");
    bench.proxy.close_floating(&public(), Closing::Involuntary).await;
    assert_eq!(bench.proxy.in_flight(&public()).connections, 0);
}

#[tokio::test]
async fn an_address_in_use_is_an_error_with_its_name() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let options = ProxyOptions {
        node: NodeId(1),
        name: NodeName::new("gra-1").unwrap(),
        cluster: ClusterName::new("test").unwrap(),
        incarnation: Incarnation(5),
        cores: 2,
        own: vec![taken.local_addr().unwrap()],
        dial: DialMap::default(),
    };
    let error = Proxy::start(options, Arc::new(Book::default())).err().unwrap();
    assert!(error.to_string().contains("in use"), "{error}");
}
