//! HTTP as the clients of a drill speak it: from an address of their own, asking who answers.

use crate::measure::Identity;
use bytes::Bytes;
use http::{HeaderMap, Request};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use socket2::SockRef;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

/// How long an attempt to connect may go unanswered until it is made anew: the least that RFC 8305 recommends. A kernel
/// would ask again after a second, and what a client waits then says little of the cluster.
pub const CONNECT_PATIENCE: Duration = Duration::from_millis(100);
/// The longest body that a client reads, in bytes.
const BODY_BYTES_MAX: usize = 64 * 1024;

/// A complete answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// Which node answered, under which token.
    pub identity: Option<Identity>,
    /// Whether the server will close this connection.
    pub closes: bool,
    /// The body.
    pub body: Bytes,
}

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum Failure {
    /// Nobody listens.
    #[error("refused")]
    Refused,
    /// Nobody is there: the attempt to connect went unanswered, as on a network where no host has the address.
    #[error("unanswered")]
    Unanswered,
    /// Nothing came in time.
    #[error("timed out")]
    TimedOut,
    /// The connection broke before the answer was complete.
    #[error("broken")]
    Broken,
    /// The connection turned out to be closed before the request was sent on it.
    #[error("closed before sending")]
    Closed,
    /// The answer has a status of 500 or more.
    #[error("server error")]
    ServerError,
}

/// Connects from one address to another, within a time: one attempt, which ends after [`CONNECT_PATIENCE`].
pub async fn connect(from: IpAddr, to: SocketAddr, within: Duration) -> Result<TcpStream, Failure> {
    let attempt = async { bound_socket(from)?.connect(to).await };
    match timeout(within.min(CONNECT_PATIENCE), attempt).await {
        Err(_) => Err(Failure::Unanswered),
        Ok(Err(error)) => Err(match error.kind() {
            io::ErrorKind::ConnectionRefused => Failure::Refused,
            io::ErrorKind::TimedOut | io::ErrorKind::HostUnreachable => Failure::Unanswered,
            _ => Failure::Broken,
        }),
        Ok(Ok(stream)) => {
            stream.set_nodelay(true).ok();
            Ok(stream)
        }
    }
}

fn bound_socket(from: IpAddr) -> io::Result<TcpSocket> {
    let socket = if from.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.bind(SocketAddr::new(from, 0))?;
    Ok(socket)
}

/// A keep-alive connection.
pub struct Connection {
    sender: http1::SendRequest<Empty<Bytes>>,
    driver: tokio::task::JoinHandle<()>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Connection {
    /// Connects. With `abrupt` the end is a reset, which leaves no trace in the kernel: for clients that open
    /// hundreds of connections a second.
    pub async fn open(from: IpAddr, to: SocketAddr, within: Duration, abrupt: bool) -> Result<Self, Failure> {
        let stream = connect(from, to, within).await?;
        if abrupt {
            SockRef::from(&stream).set_linger(Some(Duration::ZERO)).ok();
        }
        let (sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|_| Failure::Broken)?;
        let driver = tokio::spawn(async move {
            // Errors reach the requests too, and are counted there.
            connection.await.ok();
        });
        Ok(Self { sender, driver })
    }

    /// Sends a traced GET and reads the whole answer.
    pub async fn ask(&mut self, to: SocketAddr, path: &str, within: Duration) -> Result<Answer, Failure> {
        match timeout(within, self.exchange(to, path)).await {
            Ok(answer) => answer,
            Err(_) => Err(Failure::TimedOut),
        }
    }

    async fn exchange(&mut self, to: SocketAddr, path: &str) -> Result<Answer, Failure> {
        self.sender.ready().await.map_err(|_| Failure::Closed)?;
        let request = Request::get(path)
            .header(http::header::HOST, to.to_string())
            .header("x-twinsite-trace", "1")
            .body(Empty::new())
            .map_err(|_| Failure::Broken)?;
        let answer = self
            .sender
            .send_request(request)
            .await
            .map_err(|error| if error.is_canceled() { Failure::Closed } else { Failure::Broken })?;
        let (head, body) = answer.into_parts();
        let body =
            Limited::new(body, BODY_BYTES_MAX).collect().await.map_err(|_| Failure::Broken)?.to_bytes();
        let closes = head
            .headers
            .get(http::header::CONNECTION)
            .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"close"));
        if head.status.is_server_error() {
            return Err(Failure::ServerError);
        }
        let identity = identity(&head.headers).or_else(|| identity_in_body(&body));
        Ok(Answer { status: head.status.as_u16(), identity, closes, body })
    }
}

/// Who answered, as the trace headers say.
pub fn identity(headers: &HeaderMap) -> Option<Identity> {
    let text = |name: &str| headers.get(name)?.to_str().ok();
    let node = text("x-twinsite-node")?.parse().ok()?;
    let token = text("x-twinsite-token").and_then(|token| token.parse().ok());
    Some(Identity { node, token })
}

/// Who answered, as the node's own page says.
fn identity_in_body(body: &Bytes) -> Option<Identity> {
    #[derive(serde::Deserialize)]
    struct Page {
        node: String,
        token: Option<String>,
    }
    let page: Page = serde_json::from_slice(body).ok()?;
    Some(Identity { node: page.node.parse().ok()?, token: page.token.and_then(|token| token.parse().ok()) })
}

/// Connects, asks one thing, and hangs up.
pub async fn ask_once(from: IpAddr, to: SocketAddr, path: &str, within: Duration) -> Result<Answer, Failure> {
    let ask = async { Connection::open(from, to, within, true).await?.ask(to, path, within).await };
    timeout(within, ask).await.unwrap_or(Err(Failure::TimedOut))
}
