//! `WebSockets`: many that wait for an echo, and many that wait for nothing.

use crate::peers::HOST;
use crate::upstream::ECHO;
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use rustls::ClientConfig;
use rustls::client::Resumption;
use rustls::pki_types::ServerName;
use serde::{Deserialize, Serialize};
use std::cell::RefCell;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::{JoinSet, LocalSet};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{WebSocketStream, client_async};
use twinsite_upstream::anybody;

/// Handshakes at a time, so that no queue of a listener runs over.
const AT_A_TIME: usize = 64;

/// What came of messages.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Echoed {
    /// Messages that came back whole.
    pub(crate) good: u64,
    /// Connections that ended before they should.
    pub(crate) lost: u64,
    pub(crate) seconds: f64,
    pub(crate) p50_us: u64,
    pub(crate) p99_us: u64,
}

/// Each of so many connections sends a message, waits for its echo, and again; prints what came of it.
pub(crate) fn echo(
    at: SocketAddr,
    tls: bool,
    connections: usize,
    bytes: usize,
    lasts: Duration,
) -> io::Result<()> {
    let echoed = block_on(async {
        let sockets = open(at, tls, connections).await?;
        let times = Rc::new(RefCell::new(Vec::new()));
        let (began, mut lost) = (Instant::now(), 0);
        let until = began + lasts;
        let mut all = JoinSet::new();
        for socket in sockets {
            all.spawn_local(ping_pong(socket, Bytes::from(vec![b'm'; bytes]), until, Rc::clone(&times)));
        }
        while let Some(ended) = all.join_next().await {
            lost += u64::from(!ended.is_ok_and(|whole| whole));
        }
        let seconds = began.elapsed().as_secs_f64();
        let mut times = times.take();
        times.sort_unstable();
        let at = |percent| times.get(times.len() * percent / 100).copied().unwrap_or_default();
        Ok(Echoed { good: times.len() as u64, lost, seconds, p50_us: at(50), p99_us: at(99) })
    })?;
    println_json(&echoed)
}

async fn ping_pong(mut socket: Socket, text: Bytes, until: Instant, times: Rc<RefCell<Vec<u64>>>) -> bool {
    while Instant::now() < until {
        let sent = Instant::now();
        if socket.send(Message::Binary(text.clone())).await.is_err() {
            return false;
        }
        match socket.next().await {
            Some(Ok(Message::Binary(back))) if back.len() == text.len() => {
                times.borrow_mut().push(u64::try_from(sent.elapsed().as_micros()).unwrap_or(u64::MAX));
            }
            _ => return false,
        }
    }
    true
}

/// Opens so many, says so with a line, and holds them until its input ends.
pub(crate) fn idle(at: SocketAddr, tls: bool, connections: usize) -> io::Result<()> {
    block_on(async {
        let sockets = open(at, tls, connections).await?;
        println_json(&sockets.len())?;
        tokio::task::spawn_blocking(|| io::stdin().read_to_end(&mut Vec::new())).await.ok();
        drop(sockets);
        Ok(())
    })
}

/// Shakes hands again and again, on eight connections at a time; prints what came of it.
pub(crate) fn handshakes(at: SocketAddr, lasts: Duration) -> io::Result<()> {
    let shaken = block_on(async {
        let connector = connector()?;
        let times = Rc::new(RefCell::new(Vec::new()));
        let (began, mut lost) = (Instant::now(), 0);
        let mut all = JoinSet::new();
        for _ in 0..8 {
            let (connector, times) = (connector.clone(), Rc::clone(&times));
            all.spawn_local(async move {
                while began.elapsed() < lasts {
                    let sent = Instant::now();
                    shake_hands(at, &connector).await?;
                    times.borrow_mut().push(u64::try_from(sent.elapsed().as_micros()).unwrap_or(u64::MAX));
                }
                io::Result::Ok(())
            });
        }
        while let Some(ended) = all.join_next().await {
            lost += u64::from(!ended.is_ok_and(|ended| ended.is_ok()));
        }
        let seconds = began.elapsed().as_secs_f64();
        let mut times = times.take();
        times.sort_unstable();
        let at = |percent| times.get(times.len() * percent / 100).copied().unwrap_or_default();
        Ok(Echoed { good: times.len() as u64, lost, seconds, p50_us: at(50), p99_us: at(99) })
    })?;
    println_json(&shaken)
}

/// Something to read and write, in clear or by TLS.
trait Wire: AsyncRead + AsyncWrite + Unpin {}

impl<T: AsyncRead + AsyncWrite + Unpin> Wire for T {}

type Socket = WebSocketStream<Box<dyn Wire>>;

fn connector() -> io::Result<TlsConnector> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider));
    let builder = builder.with_protocol_versions(&[&rustls::version::TLS13]).map_err(io::Error::other)?;
    // What is measured is the other side.
    let mut config =
        builder.dangerous().with_custom_certificate_verifier(anybody(provider)).with_no_client_auth();
    config.resumption = Resumption::disabled();
    Ok(TlsConnector::from(Arc::new(config)))
}

async fn shake_hands(at: SocketAddr, connector: &TlsConnector) -> io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(at).await?;
    stream.set_nodelay(true)?;
    let name = ServerName::try_from(HOST).map_err(io::Error::other)?;
    connector.connect(name, stream).await
}

async fn open(at: SocketAddr, tls: bool, connections: usize) -> io::Result<Vec<Socket>> {
    let connector = connector()?;
    let mut open = Vec::with_capacity(connections);
    while open.len() < connections {
        let mut begun = JoinSet::new();
        for _ in 0..AT_A_TIME.min(connections - open.len()) {
            let connector = connector.clone();
            begun.spawn_local(async move {
                let stream: Box<dyn Wire> = if tls {
                    Box::new(shake_hands(at, &connector).await?)
                } else {
                    let stream = TcpStream::connect(at).await?;
                    stream.set_nodelay(true)?;
                    Box::new(stream)
                };
                let opened = client_async(format!("ws://{HOST}{ECHO}"), stream).await;
                opened.map(|(socket, _)| socket).map_err(io::Error::other)
            });
        }
        while let Some(opened) = begun.join_next().await {
            open.push(opened.map_err(io::Error::other)??);
        }
    }
    Ok(open)
}

fn block_on<T>(work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, work)
}

/// A line for the program that started this one.
fn println_json(value: &impl Serialize) -> io::Result<()> {
    let mut out = io::stdout().lock();
    serde_json::to_writer(&mut out, value)?;
    out.write_all(b"\n")?;
    out.flush()
}
