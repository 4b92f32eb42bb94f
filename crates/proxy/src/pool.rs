//! Connections of one core to upstreams, kept for the next request.

use crate::body::RequestBody;
use futures_util::FutureExt;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{Instant, timeout};
use twinsite_model::dial::DialMap;

/// Idle connections older than this are not used: most servers close after five seconds (Node's default) or more, and a
/// request that meets a close is lost.
const IDLE_MAX: Duration = Duration::from_secs(4);
/// How long a name's addresses are believed, unless they turn out to be of no use.
const RESOLVED_MAX: Duration = Duration::from_secs(5);

/// The pool of one core.
pub(crate) struct Pool {
    dial: DialMap,
    idle: RefCell<BTreeMap<Arc<str>, Vec<Idle>>>,
    resolved: RefCell<BTreeMap<Arc<str>, Resolved>>,
}

struct Resolved {
    addresses: Arc<[SocketAddr]>,
    since: Instant,
}

impl Resolved {
    fn is_fresh(&self) -> bool {
        self.since.elapsed() < RESOLVED_MAX
    }
}

struct Idle {
    sender: SendRequest<RequestBody>,
    since: Instant,
}

/// A connection to an upstream, for one request.
pub(crate) struct Connection {
    pub(crate) sender: SendRequest<RequestBody>,
    /// Whether it has served before: then a failure may only mean that the upstream closed it meanwhile.
    pub(crate) reused: bool,
}

/// Gives a connection back when its answer has been read.
pub(crate) struct Returning {
    pool: Rc<Pool>,
    address: Arc<str>,
    sender: SendRequest<RequestBody>,
    max: usize,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    #[error("not connected within {0:?}")]
    Late(Duration),
    #[error("{0}")]
    Refused(#[from] io::Error),
    #[error("{0}")]
    Http(#[from] hyper::Error),
}

impl Pool {
    pub(crate) fn new(dial: DialMap) -> Rc<Self> {
        Rc::new(Self { dial, idle: RefCell::default(), resolved: RefCell::default() })
    }

    /// A connection that was kept, or a new one.
    pub(crate) async fn connection(
        &self,
        address: &Arc<str>,
        within: Duration,
    ) -> Result<Connection, ConnectError> {
        if let Some(sender) = self.kept(address) {
            return Ok(Connection { sender, reused: true });
        }
        self.fresh(address, within).await
    }

    /// A new connection.
    pub(crate) async fn fresh(
        &self,
        address: &Arc<str>,
        within: Duration,
    ) -> Result<Connection, ConnectError> {
        let connect = async {
            let stream = self.connect(address).await?;
            let (sender, connection) = http1::Builder::new().handshake(TokioIo::new(stream)).await?;
            tokio::task::spawn_local(async move {
                // What goes wrong is told to the request that it happens to.
                drop(connection.with_upgrades().await);
            });
            Ok(Connection { sender, reused: false })
        };
        let connected = timeout(within, connect).await.unwrap_or(Err(ConnectError::Late(within)));
        if connected.is_err() {
            self.resolved.borrow_mut().remove(address); // it may have moved
        }
        connected
    }

    async fn connect(&self, name: &Arc<str>) -> io::Result<TcpStream> {
        if let Ok(address) = name.parse() {
            return self.connect_to(address).await;
        }
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for address in self.addresses(name).await?.iter() {
            match self.connect_to(*address).await {
                Ok(stream) => return Ok(stream),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// A name's addresses, asked for at most once in a while: every WebSocket needs a connection of its own.
    async fn addresses(&self, name: &Arc<str>) -> io::Result<Arc<[SocketAddr]>> {
        if let Some(known) = self.resolved.borrow().get(name).filter(|known| known.is_fresh()) {
            return Ok(Arc::clone(&known.addresses));
        }
        let addresses: Arc<[SocketAddr]> = lookup_host(&**name).await?.collect();
        let resolved = Resolved { addresses: Arc::clone(&addresses), since: Instant::now() };
        self.resolved.borrow_mut().insert(Arc::clone(name), resolved);
        Ok(addresses)
    }

    async fn connect_to(&self, address: SocketAddr) -> io::Result<TcpStream> {
        let stream = TcpStream::connect(self.dial.resolve(address)).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    fn kept(&self, address: &Arc<str>) -> Option<SendRequest<RequestBody>> {
        let mut idle = self.idle.borrow_mut();
        let kept = idle.get_mut(address)?;
        while let Some(mut entry) = kept.pop() {
            let usable = entry.since.elapsed() < IDLE_MAX && !entry.sender.is_closed();
            // Just given back, it may need one more look at the end of the last answer.
            if usable && matches!(entry.sender.ready().now_or_never(), Some(Ok(()))) {
                return Some(entry.sender);
            }
        }
        None
    }

    pub(crate) fn returning(
        self: &Rc<Self>,
        address: Arc<str>,
        sender: SendRequest<RequestBody>,
        max: u32,
    ) -> Returning {
        Returning { pool: Rc::clone(self), address, sender, max: max as usize }
    }

    /// Closes what has been idle for too long.
    pub(crate) fn sweep(&self) {
        self.idle.borrow_mut().retain(|_, kept| {
            kept.retain(|entry| entry.since.elapsed() < IDLE_MAX && !entry.sender.is_closed());
            !kept.is_empty()
        });
        self.resolved.borrow_mut().retain(|_, resolved| resolved.is_fresh());
    }
}

impl Returning {
    pub(crate) fn give_back(self) {
        if self.sender.is_closed() {
            return;
        }
        let mut idle = self.pool.idle.borrow_mut();
        let kept = idle.entry(self.address).or_default();
        if kept.len() < self.max {
            kept.push(Idle { sender: self.sender, since: Instant::now() });
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
pub(crate) async fn send(sender: &mut SendRequest<RequestBody>, request: Request<RequestBody>) -> Outcome {
    match sender.try_send_request(request).await {
        Ok(response) => Outcome::Answer(response),
        Err(mut error) => match error.take_message() {
            Some(request) => Outcome::Unsent(request),
            None => Outcome::Failed(error.into_error()),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;
    use tokio::task::LocalSet;

    const SOON: Duration = Duration::from_secs(10);

    #[tokio::test]
    async fn a_name_is_looked_up_once_and_again_when_its_addresses_are_of_no_use() {
        let connect = async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let name: Arc<str> = format!("localhost:{}", listener.local_addr().unwrap().port()).into();
            let pool = Pool::new(DialMap::default());
            let known =
                |pool: &Pool| pool.resolved.borrow().get(&name).map(|known| Arc::clone(&known.addresses));
            assert!(pool.fresh(&name, SOON).await.is_ok());
            let first = known(&pool).unwrap();
            assert!(pool.fresh(&name, SOON).await.is_ok());
            assert!(Arc::ptr_eq(&first, &known(&pool).unwrap()), "the resolver was asked again");
            pool.sweep();
            assert!(known(&pool).is_some(), "it is still to be believed");
            drop(listener);
            assert!(pool.fresh(&name, SOON).await.is_err());
            assert!(known(&pool).is_none(), "nobody answers there");
        };
        LocalSet::new().run_until(connect).await;
    }
}
