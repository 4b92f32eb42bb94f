//! A proxy with what surrounds it: upstreams, a store of rooms, the right to answer.

use futures_util::{SinkExt, StreamExt};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::protocol::Message;
use twinsite_model::dial::DialMap;
use twinsite_model::spec::{self, ClusterSpec};
use twinsite_model::state::VerdictRecord;
use twinsite_model::{
    ClusterName, FloatingIpName, Incarnation, NodeId, NodeName, RoomKey, State, Token, UpstreamName, Verdict,
    WallTime,
};
use twinsite_proxy::{Authority, Proxy, ProxyOptions, RoomRefused, Rooms, RoutingTable};

/// Longer than anything here takes.
pub(crate) const SOON: Duration = Duration::from_secs(10);

/// Keeps rooms as a store would.
#[derive(Default)]
pub(crate) struct Book {
    rooms: Mutex<BTreeMap<RoomKey, UpstreamName>>,
    pub(crate) refuses: AtomicBool,
    /// The threads that asked, in their order.
    pub(crate) asked_by: Mutex<Vec<String>>,
}

impl Rooms for Book {
    fn remembered(&self, room: RoomKey) -> Option<UpstreamName> {
        let thread = std::thread::current().name().unwrap_or_default().to_owned();
        self.asked_by.lock().unwrap().push(thread);
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

impl Book {
    /// Every room is there now.
    pub(crate) fn move_all(&self, to: &UpstreamName) {
        self.rooms.lock().unwrap().values_mut().for_each(|place| place.clone_from(to));
    }
}

pub(crate) struct Held {
    ip: FloatingIpName,
    pub(crate) holds: AtomicBool,
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

pub(crate) fn public() -> FloatingIpName {
    FloatingIpName::new("public").unwrap()
}

pub(crate) fn name(name: &str) -> UpstreamName {
    UpstreamName::new(name).unwrap()
}

/// An upstream that answers with its name and what it was asked, and echoes what comes over a WebSocket.
pub(crate) async fn upstream(name: &'static str) -> SocketAddr {
    scripted(move |stream| serve(name, stream)).await
}

/// An upstream that does this with every connection.
pub(crate) async fn scripted<S: Future<Output = ()> + Send + 'static>(
    script: impl Fn(TcpStream) -> S + Send + 'static,
) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(script(stream));
        }
    });
    address
}

/// Reads until what came ends so, and returns all of it.
pub(crate) async fn read_until(stream: &mut (impl AsyncRead + Unpin), end: &[u8]) -> Vec<u8> {
    let mut read = Vec::new();
    let reading = async {
        while !read.ends_with(end) {
            read.push(stream.read_u8().await.unwrap());
        }
    };
    tokio::time::timeout(SOON, reading).await.unwrap();
    read
}

pub(crate) async fn serve(name: &'static str, mut stream: TcpStream) {
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

/// A WebSocket's client.
pub(crate) type Client = tokio_tungstenite::WebSocketStream<tokio_tungstenite::MaybeTlsStream<TcpStream>>;

/// A proxy with a node's own address, and a floating one that the test holds.
pub(crate) struct Bench {
    pub(crate) proxy: Proxy,
    pub(crate) own: SocketAddr,
    pub(crate) floating: SocketAddr,
    pub(crate) authority: Arc<Held>,
    pub(crate) book: Arc<Book>,
    state: State,
}

impl Bench {
    pub(crate) async fn new(upstreams: &[(&str, SocketAddr)]) -> Self {
        Self::with(upstreams, |_| ()).await
    }

    /// With something else specified.
    pub(crate) async fn with(
        upstreams: &[(&str, SocketAddr)],
        change: impl FnOnce(&mut ClusterSpec),
    ) -> Self {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let book = Arc::new(Book::default());
        let proxy = Proxy::start(options(free), Arc::clone(&book) as Arc<dyn Rooms>).unwrap();
        let mut spec = spec::from_toml(&toml(upstreams)).unwrap();
        change(&mut spec);
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

    /// Something else is specified, or agreed on, from here on.
    pub(crate) fn change(&mut self, change: impl FnOnce(&mut ClusterSpec, &mut State)) {
        let mut spec = self.state.spec.as_deref().unwrap().clone();
        change(&mut spec, &mut self.state);
        self.state.spec = Some(Arc::new(spec));
        self.proxy.publish(RoutingTable::build(&self.state));
    }

    pub(crate) fn judge(&mut self, upstream: &str, health: Verdict) {
        self.state.verdicts.get_mut(&name(upstream)).unwrap().health = health;
        self.proxy.publish(RoutingTable::build(&self.state));
    }
}

/// A node with one address of its own.
pub(crate) fn options(own: SocketAddr) -> ProxyOptions {
    ProxyOptions {
        node: NodeId(1),
        name: NodeName::new("gra-1").unwrap(),
        cluster: ClusterName::new("test").unwrap(),
        incarnation: Incarnation(5),
        cores: 2,
        own: vec![own],
        own_tls: Vec::new(),
        access_log: None,
        dial: DialMap::default(),
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
pub(crate) async fn ask(to: SocketAddr, request: &str) -> String {
    let exchange = async {
        let mut stream = TcpStream::connect(to).await?;
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        std::io::Result::Ok(String::from_utf8_lossy(&answer).into_owned())
    };
    tokio::time::timeout(SOON, exchange).await.unwrap().unwrap_or_else(|error| format!("ERROR {error}"))
}

pub(crate) fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: meet.example.org\r\nConnection: close\r\n\r\n")
}

pub(crate) async fn websocket(to: SocketAddr, path: &str) -> Client {
    let url = format!("ws://{to}{path}");
    tokio::time::timeout(SOON, tokio_tungstenite::connect_async(url)).await.unwrap().unwrap().0
}

pub(crate) async fn until(what: &str, condition: impl Fn() -> bool) {
    let deadline = tokio::time::Instant::now() + SOON;
    while !condition() {
        assert!(tokio::time::Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
