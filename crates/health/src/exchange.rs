//! One request and its whole answer, on a connection of its own.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::future::Future;
use std::time::Duration;
use tokio::time::timeout;
use twinsite_upstream::{ConnectError, Connector, Purpose, Spoken, Target};

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

/// Gets `path` from a target, everything within `within`. A connection of its own each time: a server that accepts nothing
/// new is not well, however lively its old connections are.
pub(crate) async fn get(
    connector: &Connector,
    target: &Target,
    path: &str,
    headers: &[(HeaderName, HeaderValue)],
    within: Duration,
) -> Result<Answer, NoAnswer> {
    timeout(within, exchange(connector, target, path, headers, within))
        .await
        .unwrap_or(Err(NoAnswer::Late(within)))
}

async fn exchange(
    connector: &Connector,
    target: &Target,
    path: &str,
    headers: &[(HeaderName, HeaderValue)],
    within: Duration,
) -> Result<Answer, NoAnswer> {
    let (stream, spoken) = connector.connect(target, Purpose::Requests, within).await?;
    let mut request =
        Request::get(path).header(header::USER_AGENT, concat!("twinsite/", env!("CARGO_PKG_VERSION")));
    for (name, value) in headers {
        request = request.header(name, value);
    }
    let io = TokioIo::new(stream);
    match spoken {
        Spoken::Http1 => {
            let request = request.header(header::HOST, &target.address).header(header::CONNECTION, "close");
            let (mut sender, connection) = http1::handshake(io).await.map_err(broken)?;
            together(sender.send_request(whole(request)?), connection).await
        }
        Spoken::Http2 => {
            let request = request.uri(format!("http://{}{path}", target.address));
            let (mut sender, connection) =
                http2::handshake(TokioExecutor::new(), io).await.map_err(broken)?;
            together(sender.send_request(whole(request)?), connection).await
        }
    }
}

fn whole(request: http::request::Builder) -> Result<Request<Empty<Bytes>>, NoAnswer> {
    request.body(Empty::new()).map_err(|error| NoAnswer::Broken(error.to_string()))
}

fn broken(error: hyper::Error) -> NoAnswer {
    NoAnswer::Broken(error.to_string())
}

/// Reads the answer while the connection is driven.
async fn together(
    answered: impl Future<Output = hyper::Result<Response<Incoming>>>,
    connection: impl Future<Output = hyper::Result<()>>,
) -> Result<Answer, NoAnswer> {
    let answer = async {
        let (head, body) = answered.await.map_err(broken)?.into_parts();
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

impl From<ConnectError> for NoAnswer {
    fn from(error: ConnectError) -> Self {
        match error {
            ConnectError::Unresolved { host, why } => Self::Unresolved { host, why },
            ConnectError::Refused(error) => Self::Connect(plain(&error)),
            ConnectError::Late(within) => Self::Late(within),
            ConnectError::Tls(why) => Self::Connect(format!("TLS: {why}")),
        }
    }
}

/// The error's kind: the same words on every node, without numbers of the system.
fn plain(error: &std::io::Error) -> String {
    error.kind().to_string()
}
