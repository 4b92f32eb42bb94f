//! Connections of one core to upstreams, kept for the next request.

use crate::body::RequestBody;
use crate::http2::OnThisCore;
use futures_util::FutureExt;
use futures_util::future::Either;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http1, http2};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};
use twinsite_model::dial::DialMap;
use twinsite_upstream::{ConnectError as NotConnected, Connector, Purpose, Spoken, Target};

mod shape;

/// Idle connections older than this are not used: most servers close after five seconds (Node's default) or more, and a
/// request that meets a close is lost.
const IDLE_MAX: Duration = Duration::from_secs(4);
/// Requests on one HTTP/2 connection before another one is made. Servers allow a hundred or more (RFC 9113 section 6.5.2).
const STREAMS_MAX: u32 = 100;
/// How long an HTTP/2 connection without requests is kept.
const LINE_IDLE_MAX: Duration = Duration::from_secs(60);
/// What is read of an answer at a time: a client that takes little at a time is waited for one such piece after the other, and
/// each is kept as long.
const READ_BYTES_MAX: usize = 64 * 1024;
/// How often a silent HTTP/2 upstream with requests is asked whether it is there, and how long it has for the answer.
const PING_EVERY: Duration = Duration::from_secs(5);
const PONG_WITHIN: Duration = Duration::from_secs(5);

/// The pool of one core.
pub(crate) struct Pool {
    connector: Connector,
    idle: RefCell<BTreeMap<Arc<Target>, Vec<Idle>>>,
    lines: RefCell<BTreeMap<Arc<Target>, Vec<Line>>>,
    /// Held while an HTTP/2 connection is made.
    making: RefCell<BTreeMap<Arc<Target>, Rc<Mutex<()>>>>,
}

struct Idle {
    sender: http1::SendRequest<RequestBody>,
    since: Instant,
}

/// An HTTP/2 connection, which many requests share.
struct Line {
    sender: http2::SendRequest<RequestBody>,
    streams: Rc<Streams>,
}

#[derive(Default)]
struct Streams {
    open: Cell<u32>,
    idle_since: Cell<Option<Instant>>,
}

/// A request's place on an HTTP/2 connection.
struct Stream(Rc<Streams>);

impl Stream {
    fn on(streams: &Rc<Streams>) -> Self {
        streams.open.set(streams.open.get() + 1);
        Self(Rc::clone(streams))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.0.open.set(self.0.open.get() - 1);
        self.0.idle_since.set(Some(Instant::now()));
    }
}

/// What a request is sent with.
pub(crate) enum Sender {
    /// The connection is this request's until its answer has been read.
    Http1(http1::SendRequest<RequestBody>),
    /// It is shared.
    Http2(Shared),
}

/// A part of an HTTP/2 connection.
pub(crate) struct Shared {
    sender: http2::SendRequest<RequestBody>,
    _stream: Stream,
}

impl Shared {
    fn of(line: &Line) -> Self {
        Self { sender: line.sender.clone(), _stream: Stream::on(&line.streams) }
    }
}

/// A connection to an upstream, for one request.
pub(crate) struct Connection {
    pub(crate) sender: Sender,
    /// Whether it has served before: then a failure may only mean that the upstream closed it meanwhile.
    pub(crate) reused: bool,
}

/// Gives a connection back when its answer has been read.
pub(crate) struct Returning {
    pool: Rc<Pool>,
    target: Arc<Target>,
    sender: Sender,
    max: usize,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    #[error(transparent)]
    NotConnected(#[from] NotConnected),
    #[error("{0}")]
    Http(#[from] hyper::Error),
}

impl Pool {
    pub(crate) fn new(dial: DialMap) -> Rc<Self> {
        let connector = Connector::new(dial);
        let (idle, lines, making) = (RefCell::default(), RefCell::default(), RefCell::default());
        Rc::new(Self { connector, idle, lines, making })
    }

    /// A connection that was kept, or a new one.
    pub(crate) async fn connection(
        &self,
        target: &Arc<Target>,
        within: Duration,
    ) -> Result<Connection, ConnectError> {
        if let Some(sender) = self.kept(target) {
            return Ok(Connection { sender, reused: true });
        }
        // On the heap, and only when it is needed: within each request's own state it would be moved with every request.
        Box::pin(self.make(target, within)).await
    }

    async fn make(&self, target: &Arc<Target>, within: Duration) -> Result<Connection, ConnectError> {
        if self.connector.may_speak_http2(target) {
            // One is made for all that wait for it.
            let making = Rc::clone(self.making.borrow_mut().entry(Arc::clone(target)).or_default());
            let begun = Instant::now();
            let late = |_| NotConnected::Late(within);
            // Where nobody takes connections, each would wait for all before it otherwise.
            let _turn = timeout(within, making.lock()).await.map_err(late)?;
            if let Some(sender) = self.kept(target) {
                return Ok(Connection { sender, reused: true });
            }
            let left = within.saturating_sub(begun.elapsed());
            return self.fresh(target, Purpose::Requests, left).await;
        }
        self.fresh(target, Purpose::Requests, within).await
    }

    /// A new connection.
    pub(crate) async fn fresh(
        &self,
        target: &Arc<Target>,
        purpose: Purpose,
        within: Duration,
    ) -> Result<Connection, ConnectError> {
        let (stream, spoken) = self.connector.connect(target, purpose, within).await?;
        let io = TokioIo::new(stream);
        let sender = match spoken {
            Spoken::Http1 => {
                let (sender, connection) =
                    http1::Builder::new().max_buf_size(READ_BYTES_MAX).handshake(io).await?;
                tokio::task::spawn_local(async move {
                    // What goes wrong is told to the request that it happens to.
                    drop(connection.with_upgrades().await);
                });
                Sender::Http1(sender)
            }
            Spoken::Http2 => {
                let mut builder = http2::Builder::new(OnThisCore);
                builder
                    .timer(TokioTimer::new())
                    .keep_alive_interval(PING_EVERY)
                    .keep_alive_timeout(PONG_WITHIN);
                let shaken = builder.handshake(io).await;
                let (sender, connection) = shaken.inspect_err(|_| self.connector.doubt(target))?;
                tokio::task::spawn_local(async move { drop(connection.await) });
                let line = Line { sender, streams: Rc::default() };
                let shared = Shared::of(&line);
                self.lines.borrow_mut().entry(Arc::clone(target)).or_default().push(line);
                Sender::Http2(shared)
            }
        };
        Ok(Connection { sender, reused: false })
    }

    /// A request failed there. What is spoken may have changed.
    pub(crate) fn failed(&self, target: &Target) {
        if !target.protocol.is_default() {
            self.connector.doubt(target);
        }
    }

    fn kept(&self, target: &Arc<Target>) -> Option<Sender> {
        if !target.protocol.is_default()
            && let Some(lines) = self.lines.borrow().get(target)
        {
            let usable = |line: &&Line| !line.sender.is_closed() && line.streams.open.get() < STREAMS_MAX;
            if let Some(line) = lines.iter().find(usable) {
                return Some(Sender::Http2(Shared::of(line)));
            }
        }
        let mut idle = self.idle.borrow_mut();
        let kept = idle.get_mut(target)?;
        while let Some(mut entry) = kept.pop() {
            let usable = entry.since.elapsed() < IDLE_MAX && !entry.sender.is_closed();
            // Just given back, it may need one more look at the end of the last answer.
            if usable && matches!(entry.sender.ready().now_or_never(), Some(Ok(()))) {
                return Some(Sender::Http1(entry.sender));
            }
        }
        None
    }

    pub(crate) fn returning(self: &Rc<Self>, target: Arc<Target>, sender: Sender, max: u32) -> Returning {
        Returning { pool: Rc::clone(self), target, sender, max: max as usize }
    }

    /// Closes what has been idle for too long.
    pub(crate) fn sweep(&self) {
        self.idle.borrow_mut().retain(|_, kept| {
            kept.retain(|entry| entry.since.elapsed() < IDLE_MAX && !entry.sender.is_closed());
            !kept.is_empty()
        });
        let is_idle = |streams: &Streams| {
            let for_long = |since: Instant| since.elapsed() >= LINE_IDLE_MAX;
            streams.open.get() == 0 && streams.idle_since.get().is_some_and(for_long)
        };
        self.making.borrow_mut().retain(|_, making| Rc::strong_count(making) > 1);
        self.lines.borrow_mut().retain(|_, lines| {
            lines.retain(|line| !line.sender.is_closed() && !is_idle(&line.streams));
            !lines.is_empty()
        });
    }
}

impl Returning {
    pub(crate) fn give_back(self) {
        // Of a shared one it was only a place.
        let Sender::Http1(sender) = self.sender else { return };
        if sender.is_closed() {
            return;
        }
        let mut idle = self.pool.idle.borrow_mut();
        let kept = idle.entry(self.target).or_default();
        if kept.len() < self.max {
            kept.push(Idle { sender, since: Instant::now() });
        }
    }
}

/// How sending went.
pub(crate) enum Outcome {
    /// An answer has begun.
    Answer(Response<Incoming>),
    /// Nothing was sent; here is the request.
    Unsent(Request<RequestBody>),
    /// It was sent, at least in part, and no answer came.
    Failed(hyper::Error),
}

/// Sends a request and waits for the head of the answer.
pub(crate) fn send(
    sender: &mut Sender,
    request: Request<RequestBody>,
) -> impl Future<Output = Outcome> + use<> {
    // Sent here and now: what waits for the answer need not hold the request.
    let sent = match sender {
        Sender::Http1(sender) => Either::Left(sender.try_send_request(shape::for_http1(request))),
        Sender::Http2(shared) => Either::Right(shared.sender.try_send_request(shape::for_http2(request))),
    };
    sent.map(|sent| sent.map_or_else(unanswered, Outcome::Answer))
}

fn unanswered(mut error: TrySendError<Request<RequestBody>>) -> Outcome {
    match error.take_message() {
        Some(request) => Outcome::Unsent(request),
        None => Outcome::Failed(error.into_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt;
    use tokio::net::TcpListener;
    use tokio::task::LocalSet;

    const SOON: Duration = Duration::from_secs(10);

    #[tokio::test]
    async fn a_connection_is_kept_for_its_own_upstream_and_not_for_long() {
        let pooling = async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let target = Arc::new(Target::in_clear(listener.local_addr().unwrap().to_string()));
            let other = Arc::new(Target::in_clear("127.0.0.1:1"));
            tokio::task::spawn_local(async move {
                loop {
                    let (mut stream, _) = listener.accept().await.unwrap();
                    tokio::task::spawn_local(async move { drop(stream.read_to_end(&mut Vec::new()).await) });
                }
            });
            let pool = Pool::new(DialMap::default());
            let mut made = pool.connection(&target, SOON).await.unwrap();
            assert!(!made.reused);
            if let Sender::Http1(sender) = &mut made.sender {
                sender.ready().await.unwrap(); // as after an answer
            }
            pool.returning(Arc::clone(&target), made.sender, 1).give_back();
            assert!(pool.kept(&other).is_none());
            let kept = pool.connection(&target, SOON).await.unwrap();
            assert!(kept.reused && pool.idle.borrow()[&target].is_empty());
            pool.returning(Arc::clone(&target), kept.sender, 1).give_back();
            for entry in pool.idle.borrow_mut().values_mut().flatten() {
                entry.since = Instant::now().checked_sub(IDLE_MAX).unwrap();
            }
            assert!(pool.kept(&target).is_none(), "its server may be about to close it");
        };
        LocalSet::new().run_until(pooling).await;
    }
}
