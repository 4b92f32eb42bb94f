//! One client connection, from its first byte to its end.

use crate::client_io::{ClientIo, Waiting};
use crate::forward::answer;
use crate::group::{Closing, Counted, Group, Phase};
use crate::open::OpenConnection;
use crate::worker::{Core, Seat};
use http::HeaderValue;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{sleep_until, timeout};

/// How long an answer that is on its way may take when its connection is closed.
const LAST_BYTES: Duration = Duration::from_millis(100);

/// What is known of a connection.
pub(crate) struct Context {
    pub(crate) client: SocketAddr,
    pub(crate) port: u16,
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
pub(crate) async fn serve(core: Rc<Core>, stream: TcpStream, group: Arc<Group>, place: Place) {
    let place = Rc::new(place);
    // The socket is gone when this returns, so that nothing counts as closed that is still open.
    converse(core, stream, group, &place).await;
    drop(place);
}

async fn converse(core: Rc<Core>, stream: TcpStream, group: Arc<Group>, place: &Rc<Place>) {
    let (Ok(client), Ok(local)) = (stream.peer_addr(), stream.local_addr()) else { return };
    drop(stream.set_nodelay(true)); // only a matter of speed
    let table = core.table();
    let (limits, stall_min) = (table.limits.clone(), table.silence_min);
    drop(table); // a connection outlives it
    let (head_timeout, idle_timeout) = (limits.head_timeout.0, limits.keep_alive_timeout.0);
    let io = ClientIo::new(stream, Arc::clone(&group), head_timeout, idle_timeout, stall_min);
    let waiting = Arc::clone(&io.waiting);
    let token = group.authority.as_ref().map(|authority| authority.token().to_string());
    let context = Rc::new(Context {
        client,
        port: local.port(),
        group: Arc::clone(&group),
        token_header: token.and_then(|token| HeaderValue::from_str(&token).ok()),
        waiting: Arc::clone(&waiting),
        place: Rc::clone(place),
    });
    let service = service_fn(move |request| answer(Rc::clone(&core), Rc::clone(&context), request));
    let mut phases = group.phases();
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        // The watchdog below tells an idle connection from a slow head; this is for what it does not see.
        .header_read_timeout(idle_timeout.max(head_timeout))
        .max_buf_size((limits.head_bytes_max as usize).max(8 * 1024))
        .serve_connection(TokioIo::new(io), service)
        .with_upgrades();
    tokio::pin!(connection);
    let look = sleep_until(waiting.look_at());
    tokio::pin!(look);
    phases.mark_changed(); // one that was set before this subscription counts too
    loop {
        tokio::select! {
            biased;
            _ = connection.as_mut() => break, // what went wrong, the client knows
            Ok(()) = phases.changed() => {
                let phase = *phases.borrow_and_update(); // a copy: whoever sets the next one must not wait for this
                match phase {
                    // While draining, each answer tells its client to come again on a new connection. An idle one is
                    // left: closing it could cross with a request that is already on its way.
                    Phase::Open | Phase::Draining(_) => {}
                    Phase::Closed(Closing::Planned) => {
                        // A new connection is left to bring its request: hyper would close it at once.
                        if waiting.is_idle() {
                            connection.as_mut().graceful_shutdown();
                        }
                        tokio::select! {
                            biased;
                            _ = timeout(LAST_BYTES, connection.as_mut()) => {}
                            () = cut_off(&mut phases) => {}
                        }
                        break;
                    }
                    Phase::Closed(Closing::Involuntary) => break,
                }
            }
            () = look.as_mut() => {
                if waiting.is_over() {
                    break;
                }
                look.as_mut().reset(waiting.look_at());
            }
        }
    }
}

/// Ends when nothing more may be said, not even goodbye.
pub(crate) async fn cut_off(phases: &mut watch::Receiver<Phase>) {
    if phases.wait_for(|phase| *phase == Phase::Closed(Closing::Involuntary)).await.is_err() {
        std::future::pending::<()>().await; // the group outlives its connections
    }
}
