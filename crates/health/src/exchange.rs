//! One request and its whole answer, on a connection of its own.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;
use twinsite_model::dial::DialMap;

/// The largest answer that is read, in bytes.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

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
    timeout(within, exchange(dial, target, path, headers)).await.unwrap_or(Err(NoAnswer::Late(within)))
}

async fn exchange(
    dial: &DialMap,
    target: &str,
    path: &str,
    headers: &[(HeaderName, HeaderValue)],
) -> Result<Answer, NoAnswer> {
    let broken = |error: hyper::Error| NoAnswer::Broken(error.to_string());
    let address = resolve(target).await?;
    let stream = TcpStream::connect(dial.resolve(address)).await;
    let stream = stream.map_err(|error| NoAnswer::Connect(plain(&error)))?;
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

async fn resolve(target: &str) -> Result<SocketAddr, NoAnswer> {
    if let Ok(address) = target.parse() {
        return Ok(address);
    }
    let unresolved = |why: String| NoAnswer::Unresolved { host: target.to_owned(), why };
    let mut found = lookup_host(target).await.map_err(|error| unresolved(plain(&error)))?;
    found.next().ok_or_else(|| unresolved("it has no address".to_owned()))
}

/// The error's kind: the same words on every node, without numbers of the system.
fn plain(error: &std::io::Error) -> String {
    error.kind().to_string()
}
