//! One client connection, from its first byte to its end.

use crate::client_io::{ClientIo, Waiting};
use crate::forward::answer;
use crate::greeting::{Greeted, greet};
use crate::group::{Closing, Counted, Group, Phase};
use crate::headers;
use crate::http2::{self, Guarded, PatientlyOnThisCore};
use crate::open::OpenConnection;
use crate::worker::{Core, Seat};
use http::HeaderValue;
use hyper::server::conn::{http1, http2 as hyper_http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{sleep, sleep_until, timeout};
use twinsite_model::spec::Scheme;

/// How long an answer that is on its way may take when its connection is closed.
const LAST_BYTES: Duration = Duration::from_millis(100);

/// What is known of a connection.
pub(crate) struct Context {
    pub(crate) client: SocketAddr,
    /// Its address as headers have it.
    pub(crate) address: HeaderValue,
    pub(crate) port: u16,
    pub(crate) scheme: Scheme,
    pub(crate) group: Arc<Group>,
    pub(crate) token_header: Option<HeaderValue>,
    pub(crate) waiting: Arc<Waiting>,
    pub(crate) place: Rc<Place>,
}

/// What a client's socket takes up as long as it is open, as a tunnel too: dropped only after it.
pub(crate) struct Place {
    /// None at a node's own addresses. The first to go: whoever sees that nothing is left finds it noted.
    pub(crate) _open: Option<OpenConnection>,
    pub(crate) _counted: Counted,
    pub(crate) _seat: Seat,
}

/// Serves a connection until it ends or becomes a tunnel.
pub(crate) async fn serve(
    core: Rc<Core>,
    stream: TcpStream,
    scheme: Scheme,
    group: Arc<Group>,
    place: Place,
) {
    let place = Rc::new(place);
    // The socket is gone when this returns, so that nothing counts as closed that is still open.
    converse(core, stream, scheme, group, &place).await;
    drop(place);
}

async fn converse(core: Rc<Core>, stream: TcpStream, scheme: Scheme, group: Arc<Group>, place: &Rc<Place>) {
    let (Ok(peer), Ok(local)) = (stream.peer_addr(), stream.local_addr()) else { return };
    drop(stream.set_nodelay(true)); // only a matter of speed
    let table = core.table();
    let (limits, stall_min) = (table.limits.clone(), table.silence_min);
    drop(table); // a connection outlives it
    let (head_timeout, idle_timeout) = (limits.head_timeout.0, limits.keep_alive_timeout.0);
    let io = ClientIo::new(stream, Arc::clone(&group), head_timeout, idle_timeout, stall_min);
    let waiting = Arc::clone(&io.waiting);
    let mut phases = group.phases();
    phases.mark_changed(); // one that was set before this subscription counts too
    let tls = (scheme == Scheme::Https).then_some(&*core.tls);
    // On the heap: what a handshake needs is not kept for as long as the connection.
    let greeting = Box::pin(greet(io, peer, &limits.proxy_protocol_from, tls));
    let greeted = tokio::select! {
        biased;
        greeted = timeout(head_timeout, greeting) => greeted,
        () = is_closed(&mut phases) => return,
    };
    let Greeted { edge, client, is_http2 } = match greeted {
        Ok(Ok(greeted)) => greeted,
        Ok(Err(error)) => {
            tracing::debug!(%peer, %error, "a connection ended before HTTP");
            return;
        }
        Err(_too_late) => return,
    };
    phases.mark_changed();
    let token = group.authority.as_ref().map(|authority| authority.token().to_string());
    let context = Rc::new(Context {
        client,
        address: headers::address(client.ip().to_canonical()),
        port: local.port(),
        scheme,
        group: Arc::clone(&group),
        token_header: token.and_then(|token| HeaderValue::from_str(&token).ok()),
        waiting: Arc::clone(&waiting),
        place: Rc::clone(place),
    });
    let service = service_fn(move |request| answer(Rc::clone(&core), Rc::clone(&context), request));
    if is_http2 {
        waiting.set_framed();
        let connection = hyper_http2::Builder::new(PatientlyOnThisCore)
            .timer(TokioTimer::new())
            .max_concurrent_streams(http2::STREAMS_MAX)
            .max_pending_accept_reset_streams(http2::RESETS_MAX)
            .max_header_list_size(limits.head_bytes_max)
            .keep_alive_interval(http2::PING_EVERY)
            .keep_alive_timeout(http2::PONG_WITHIN)
            .serve_connection(TokioIo::new(Guarded::new(edge)), service);
        drive(
            connection,
            hyper_http2::Connection::graceful_shutdown,
            Leaves::WhenDraining,
            &waiting,
            &mut phases,
        )
        .await;
    } else {
        let connection = http1::Builder::new()
            // The watchdog knows a slow head from an idle connection, and needs no timer for each request.
            .header_read_timeout(None)
            .max_buf_size((limits.head_bytes_max as usize).max(8 * 1024))
            .serve_connection(TokioIo::new(edge), service)
            .with_upgrades();
        drive(
            connection,
            http1::UpgradeableConnection::graceful_shutdown,
            Leaves::WhenClosed,
            &waiting,
            &mut phases,
        )
        .await;
    }
}

/// When a connection is asked to leave.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Leaves {
    /// At once when its group is to run empty: HTTP/2 has a word for it that crosses with no request (GOAWAY, RFC 9113
    /// section 6.8).
    WhenDraining,
    /// Only at the end. While draining, each answer tells its client to come again on a new connection. An idle one is
    /// left: closing it could cross with a request that is already on its way.
    WhenClosed,
}

/// Lets a connection go on until it ends, has to, or has had its time. `leave` asks it to end in good order.
async fn drive<C: Future>(
    connection: C,
    leave: impl Fn(Pin<&mut C>),
    leaves: Leaves,
    waiting: &Waiting,
    phases: &mut watch::Receiver<Phase>,
) {
    tokio::pin!(connection);
    let look = sleep_until(waiting.look_at());
    tokio::pin!(look);
    loop {
        tokio::select! {
            biased;
            _ = connection.as_mut() => break, // what went wrong, the client knows
            Ok(()) = phases.changed() => {
                let phase = *phases.borrow_and_update(); // a copy: whoever sets the next one must not wait for this
                match phase {
                    Phase::Open => {}
                    Phase::Draining(_) => {
                        if leaves == Leaves::WhenDraining {
                            leave(connection.as_mut());
                        }
                    }
                    Phase::Closed(Closing::Planned) => {
                        // A new connection is left to bring its request: hyper would close it at once.
                        if leaves == Leaves::WhenDraining || waiting.is_idle() {
                            leave(connection.as_mut());
                        }
                        say_last_bytes(connection.as_mut(), phases).await;
                        break;
                    }
                    Phase::Closed(Closing::Involuntary) => break,
                }
            }
            () = look.as_mut() => {
                if waiting.is_over() {
                    if leaves == Leaves::WhenDraining {
                        leave(connection.as_mut());
                        say_last_bytes(connection.as_mut(), phases).await;
                    }
                    break;
                }
                look.as_mut().reset(waiting.look_at());
            }
        }
    }
}

/// Lets a connection end in good order, for a moment, and as long as anything may be said.
async fn say_last_bytes<C: Future>(connection: Pin<&mut C>, phases: &mut watch::Receiver<Phase>) {
    tokio::select! {
        biased;
        _ = timeout(LAST_BYTES, connection) => {}
        () = cut_off(phases) => {}
    }
}

/// Ends when a connection that is only about to begin has had its time: in good order a little later, for its request may
/// be on the way.
async fn is_closed(phases: &mut watch::Receiver<Phase>) {
    let closed = phases.wait_for(|phase| matches!(phase, Phase::Closed(_))).await.map(|phase| *phase);
    match closed {
        Ok(Phase::Closed(Closing::Planned)) => {
            tokio::select! {
                biased;
                () = cut_off(phases) => {}
                () = sleep(LAST_BYTES) => {}
            }
        }
        Ok(_) => {}
        Err(_) => std::future::pending().await, // the group outlives its connections
    }
}

/// Ends when nothing more may be said, not even goodbye.
pub(crate) async fn cut_off(phases: &mut watch::Receiver<Phase>) {
    if phases.wait_for(|phase| *phase == Phase::Closed(Closing::Involuntary)).await.is_err() {
        std::future::pending::<()>().await; // the group outlives its connections
    }
}
