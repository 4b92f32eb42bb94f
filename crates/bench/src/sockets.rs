//! `WebSockets`: many that wait for an echo, and many that wait for nothing.

use crate::upstream::ECHO;
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use serde::{Deserialize, Serialize};
use std::cell::RefCell;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tokio::task::{JoinSet, LocalSet};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{WebSocketStream, client_async};

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
pub(crate) fn echo(at: SocketAddr, connections: usize, bytes: usize, lasts: Duration) -> io::Result<()> {
    let echoed = block_on(async {
        let sockets = open(at, connections).await?;
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

async fn ping_pong(
    mut socket: WebSocketStream<TcpStream>,
    text: Bytes,
    until: Instant,
    times: Rc<RefCell<Vec<u64>>>,
) -> bool {
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
pub(crate) fn idle(at: SocketAddr, connections: usize) -> io::Result<()> {
    block_on(async {
        let sockets = open(at, connections).await?;
        println_json(&sockets.len())?;
        tokio::task::spawn_blocking(|| io::stdin().read_to_end(&mut Vec::new())).await.ok();
        drop(sockets);
        Ok(())
    })
}

async fn open(at: SocketAddr, connections: usize) -> io::Result<Vec<WebSocketStream<TcpStream>>> {
    let mut open = Vec::with_capacity(connections);
    while open.len() < connections {
        let mut begun = JoinSet::new();
        for _ in 0..AT_A_TIME.min(connections - open.len()) {
            begun.spawn_local(async move {
                let stream = TcpStream::connect(at).await?;
                stream.set_nodelay(true)?;
                let opened = client_async(format!("ws://{at}{ECHO}"), stream).await;
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
