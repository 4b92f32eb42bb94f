//! One request and its whole answer, on a connection of its own.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{Instant, timeout};
use twinsite_model::dial::DialMap;

/// The largest answer that is read, in bytes.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// How many addresses of one name are tried.
const ADDRESSES_MAX: usize = 8;

/// An answer, read to its last byte.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// Why there is none. Without numbers that change from one time to the next, so that equal failures compare equal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoAnswer {
    #[error("{host} is not known: {why}")]
    Unresolved { host: String, why: String },
    #[error("cannot connect: {0}")]
    Connect(String),
    #[error("{0}")]
    Broken(String),
    #[error("no whole answer within {}", millis(.0))]
    Late(Duration),
}

fn millis(duration: &Duration) -> String {
    format!("{} ms", duration.as_millis())
}

/// Gets `path` from `host:port`, everything within `within`. A connection of its own each time: a server that accepts
/// nothing new is not well, however lively its old connections are.
pub(crate) async fn get(
    dial: &DialMap,
    target: &str,
    path: &str,
    headers: &[(HeaderName, HeaderValue)],
    within: Duration,
) -> Result<Answer, NoAnswer> {
    timeout(within, exchange(dial, target, path, headers, within))
        .await
        .unwrap_or(Err(NoAnswer::Late(within)))
}

async fn exchange(
    dial: &DialMap,
    target: &str,
    path: &str,
    headers: &[(HeaderName, HeaderValue)],
    within: Duration,
) -> Result<Answer, NoAnswer> {
    let broken = |error: hyper::Error| NoAnswer::Broken(error.to_string());
    let stream = connect(dial, &resolve(target).await?, within).await?;
    drop(stream.set_nodelay(true)); // only a matter of speed
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
    let mut request = Request::get(path)
        .header(header::HOST, target)
        .header(header::USER_AGENT, concat!("twinsite/", env!("CARGO_PKG_VERSION")))
        .header(header::CONNECTION, "close");
    for (name, value) in headers {
        request = request.header(name, value);
    }
    let request = request.body(Empty::<Bytes>::new()).map_err(|error| NoAnswer::Broken(error.to_string()))?;
    let answer = async {
        let response = sender.send_request(request).await.map_err(broken)?;
        let (head, body) = response.into_parts();
        let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
        let body = body.map_err(|error| NoAnswer::Broken(format!("the answer broke off: {error}")))?;
        Ok(Answer { status: head.status, headers: head.headers, body: body.to_bytes() })
    };
    tokio::pin!(answer);
    tokio::select! {
        answered = &mut answer => answered,
        // The connection may end first when the server closes it after its last byte.
        ended = connection => match ended {
            Ok(()) => answer.await,
            Err(error) => Err(broken(error)),
        },
    }
}

/// Connects to the first of the addresses that takes it, as the proxy does for real requests. None may use up the time
/// of those after it.
async fn connect(dial: &DialMap, addresses: &[SocketAddr], within: Duration) -> Result<TcpStream, NoAnswer> {
    let deadline = Instant::now() + within;
    let mut why = NoAnswer::Late(within);
    for (tried, address) in addresses.iter().enumerate() {
        let left = u32::try_from(addresses.len() - tried).unwrap_or(u32::MAX);
        let share = deadline.saturating_duration_since(Instant::now()) / left;
        match timeout(share, TcpStream::connect(dial.resolve(*address))).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => why = NoAnswer::Connect(plain(&error)),
            Err(_) => why = NoAnswer::Late(within),
        }
    }
    Err(why)
}

async fn resolve(target: &str) -> Result<Vec<SocketAddr>, NoAnswer> {
    if let Ok(address) = target.parse() {
        return Ok(vec![address]);
    }
    let unresolved = |why: String| NoAnswer::Unresolved { host: target.to_owned(), why };
    let found = lookup_host(target).await.map_err(|error| unresolved(plain(&error)))?;
    let mut addresses: Vec<_> = found.collect();
    addresses.truncate(ADDRESSES_MAX);
    if addresses.is_empty() { Err(unresolved("it has no address".to_owned())) } else { Ok(addresses) }
}

/// The error's kind: the same words on every node, without numbers of the system.
fn plain(error: &std::io::Error) -> String {
    error.kind().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    #[tokio::test]
    async fn every_address_of_a_name_is_tried() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let good = listener.local_addr().unwrap();
        // Bound and not listening: refused.
        let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let bad = closed.local_addr().unwrap();
        drop(closed);
        let within = Duration::from_secs(5);
        let stream = connect(&DialMap::default(), &[bad, good], within).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), good);
        let error = connect(&DialMap::default(), &[bad, bad], within).await.unwrap_err();
        assert!(matches!(error, NoAnswer::Connect(_)), "{error}");
    }

    #[tokio::test]
    async fn a_silent_address_leaves_time_for_the_next() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let good = listener.local_addr().unwrap();
        // A listener whose queue is full answers no more connection attempts.
        let silent = socket_with_full_queue();
        let within = Duration::from_secs(2);
        let begun = Instant::now();
        let stream = connect(&DialMap::default(), &[silent.address, good], within).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), good);
        assert!(begun.elapsed() >= within / 4, "the first one answered: {:?}", begun.elapsed());
    }

    struct Silent {
        address: SocketAddr,
        _listener: std::net::TcpListener,
        _waiting: Vec<std::net::TcpStream>,
    }

    fn socket_with_full_queue() -> Silent {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = socket.listen(1).unwrap().into_std().unwrap();
        let address = listener.local_addr().unwrap();
        let mut waiting = Vec::new();
        // Each attempt that is still taken is kept; the first that is not shows that the queue is full.
        while let Ok(stream) = std::net::TcpStream::connect_timeout(&address, Duration::from_millis(300)) {
            waiting.push(stream);
            assert!(waiting.len() < 64, "the queue is never full");
        }
        Silent { address, _listener: listener, _waiting: waiting }
    }
}
