//! One client connection, from its first byte to its end.

use crate::client_io::{ClientIo, Waiting};
use crate::forward::answer;
use crate::group::{Closing, Counted, Group, Phase};
use crate::worker::Core;
use http::HeaderValue;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::{MissedTickBehavior, interval, timeout};

/// How often it is looked whether a client has had its time.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long an answer that is on its way may take when its connection is closed.
const LAST_BYTES: Duration = Duration::from_millis(100);

/// What is known of a connection.
pub(crate) struct Context {
    pub(crate) client: SocketAddr,
    pub(crate) port: u16,
    pub(crate) group: Arc<Group>,
    pub(crate) token_header: Option<HeaderValue>,
    pub(crate) waiting: Arc<Waiting>,
}

/// Serves a connection until it ends. `counted` is kept as long.
pub(crate) async fn serve(core: Rc<Core>, stream: TcpStream, group: Arc<Group>, counted: Counted) {
    let (Ok(client), Ok(local)) = (stream.peer_addr(), stream.local_addr()) else { return };
    drop(stream.set_nodelay(true)); // only a matter of speed
    let limits = core.table().limits.clone();
    let io = ClientIo::new(stream, Arc::clone(&group));
    let waiting = Arc::clone(&io.waiting);
    let token = group.authority.as_ref().map(|authority| authority.token().to_string());
    let context = Rc::new(Context {
        client,
        port: local.port(),
        group: Arc::clone(&group),
        token_header: token.and_then(|token| HeaderValue::from_str(&token).ok()),
        waiting: Arc::clone(&waiting),
    });
    let service = service_fn(move |request| answer(Rc::clone(&core), Rc::clone(&context), request));
    let mut phases = group.phases();
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        // The watchdog below tells an idle connection from a slow head; this is for what it does not see.
        .header_read_timeout(limits.keep_alive_timeout.0.max(limits.head_timeout.0))
        .max_buf_size((limits.head_bytes_max as usize).max(8 * 1024))
        .keep_alive(*phases.borrow_and_update() == Phase::Open)
        .serve_connection(TokioIo::new(io), service)
        .with_upgrades();
    tokio::pin!(connection);
    let mut looks = interval(LOOK_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            _ = connection.as_mut() => break, // what went wrong, the client knows
            Ok(()) = phases.changed() => match *phases.borrow_and_update() {
                // While draining, each answer tells its client to come again on a new connection. An idle one is left:
                // closing it could cross with a request that is already on its way.
                Phase::Open | Phase::Draining(_) => {}
                Phase::Closed(Closing::Planned) => {
                    // A new connection is left to bring its request: hyper would close it at once.
                    if waiting.is_idle() {
                        connection.as_mut().graceful_shutdown();
                    }
                    let _late = timeout(LAST_BYTES, connection.as_mut()).await;
                    break;
                }
                Phase::Closed(Closing::Involuntary) => break,
            },
            _ = looks.tick() => {
                if waiting.is_over(limits.head_timeout.0, limits.keep_alive_timeout.0) {
                    break;
                }
            }
        }
    }
    drop(counted);
}
