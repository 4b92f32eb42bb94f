//! One core: a thread with a runtime of its own, its own listeners, its own upstream connections.

use crate::access_log::AccessLog;
use crate::balance::Turns;
use crate::connection::{Place, serve};
use crate::group::{Counted, Group, What};
use crate::live_rooms::LiveRooms;
use crate::open::OpenConnection;
use crate::pool::Pool;
use crate::proxy::{BACKLOG, ProxyOptions, Published};
use crate::retries::RetryBudget;
use crate::rooms::Rooms;
use crate::table::{RoutingTable, Upstream};
use crate::tls::Tls;
use arc_swap::ArcSwap;
use arc_swap::cache::Cache;
use http::{HeaderValue, StatusCode};
use rustix::process::{getpriority_process, setpriority_process};
use rustix::thread::gettid;
use socket2::SockRef;
use std::cell::RefCell;
use std::io;
use std::net::TcpStream;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::{broadcast, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::task_tracker::TaskTrackerToken;
use twinsite_model::UpstreamName;
use twinsite_model::spec::{HealthSpec, Scheme};

/// How often idle upstream connections are looked through.
const SWEEP_EVERY: Duration = Duration::from_secs(1);
/// How long a listener rests when the process is out of descriptors.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(20);

/// A connection given to a core.
pub(crate) struct Given {
    pub(crate) stream: TcpStream,
    pub(crate) scheme: Scheme,
    pub(crate) group: Arc<Group>,
    pub(crate) counted: Counted,
    pub(crate) seat: Seat,
    pub(crate) open: Option<OpenConnection>,
}

/// A connection's place among those that a core has, and that the node allows.
pub(crate) struct Seat {
    core: Arc<AtomicU32>,
    node: Arc<AtomicU32>,
}

impl Seat {
    /// A place, unless all `max` are taken.
    pub(crate) fn take(node: &Arc<AtomicU32>, core: &Arc<AtomicU32>, max: u32) -> Option<Self> {
        let taken =
            node.fetch_update(Ordering::AcqRel, Ordering::Acquire, |taken| (taken < max).then(|| taken + 1));
        taken.ok()?;
        core.fetch_add(1, Ordering::AcqRel);
        Some(Self { core: Arc::clone(core), node: Arc::clone(node) })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.core.fetch_sub(1, Ordering::AcqRel);
        self.node.fetch_sub(1, Ordering::AcqRel);
    }
}

/// What a core is started with.
pub(crate) struct Start {
    pub(crate) options: Arc<ProxyOptions>,
    pub(crate) rooms: Arc<dyn Rooms>,
    pub(crate) table: Arc<Published>,
    pub(crate) failures: broadcast::Sender<UpstreamName>,
    pub(crate) live: Arc<LiveRooms>,
    pub(crate) tls: Arc<Tls>,
    pub(crate) listeners: Vec<(Scheme, std::net::TcpListener)>,
    pub(crate) own: Arc<Group>,
    pub(crate) given: mpsc::UnboundedReceiver<Given>,
    pub(crate) taken: Arc<AtomicU32>,
    pub(crate) node_taken: Arc<AtomicU32>,
    /// Which core it is.
    pub(crate) number: usize,
    pub(crate) access_log: Option<AccessLog>,
    /// No new connections at the node's own addresses.
    pub(crate) no_more: CancellationToken,
    /// Kept until these listeners are closed.
    pub(crate) open: TaskTrackerToken,
    /// The end.
    pub(crate) stop: CancellationToken,
}

/// What requests on one core share.
pub(crate) struct Core {
    pub(crate) options: Arc<ProxyOptions>,
    pub(crate) number: usize,
    pub(crate) access_log: Option<AccessLog>,
    pub(crate) name_header: HeaderValue,
    pub(crate) rooms: Arc<dyn Rooms>,
    pub(crate) pool: Rc<Pool>,
    pub(crate) turns: Turns,
    pub(crate) retries: RetryBudget,
    pub(crate) live: Arc<LiveRooms>,
    pub(crate) tls: Arc<Tls>,
    table: RefCell<Cache<Arc<ArcSwap<RoutingTable>>, Arc<RoutingTable>>>,
    failures: broadcast::Sender<UpstreamName>,
    answers: [metrics::Counter; 5],
}

impl Core {
    /// The table in force.
    pub(crate) fn table(&self) -> Arc<RoutingTable> {
        Arc::clone(self.table.borrow_mut().load())
    }

    /// Counts an answer.
    pub(crate) fn count(&self, status: StatusCode) {
        let class = usize::from(status.as_u16() / 100).clamp(1, 5) - 1;
        self.answers[class].increment(1);
    }

    /// A request could not be answered by this upstream.
    pub(crate) fn failed(&self, upstream: &Upstream, health: &HealthSpec) {
        if upstream.load.strikes.strike(health) {
            tracing::warn!(upstream = %upstream.name, "left out for a while: its requests fail here");
            metrics::counter!("twinsite_upstream_ejections_total", "upstream" => upstream.name.to_string())
                .increment(1);
        }
        let _nobody_listens = self.failures.send(upstream.name.clone());
    }
}

/// How much nicer a core is than the rest of its node; each step is worth about a quarter more time to the others
/// (`sched(7)`).
const NICER: i32 = 5;

/// Lets the rest of the node go first where processors are short: the lease, without which nobody is served, must not wait
/// for the clients. Linux has priorities of threads under the name of those of processes (`setpriority(2)`).
fn give_way() {
    let core = Some(gettid());
    // Where it is not allowed a core is served in its turn, as without this.
    getpriority_process(core).and_then(|nice| setpriority_process(core, nice + NICER)).ok();
}

/// Runs a core until it is stopped.
pub(crate) fn run(start: Start) -> io::Result<()> {
    give_way();
    // With a `LocalSet` each wake of a task would be one of the whole set, and that a write to the kernel.
    let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default())?;
    runtime.block_on(work(start))
}

async fn work(start: Start) -> io::Result<()> {
    let Start {
        options,
        rooms,
        table,
        failures,
        live,
        tls,
        listeners,
        own,
        mut given,
        taken,
        node_taken,
        number,
        access_log,
        no_more,
        open,
        stop,
    } = start;
    let name_header =
        HeaderValue::from_str(options.name.as_str()).unwrap_or_else(|_| HeaderValue::from_static("unnamed")); // names are letters, digits and dashes
    let class = |class: &'static str| metrics::counter!("twinsite_proxy_answers_total", "class" => class);
    let core = Rc::new(Core {
        number,
        access_log,
        name_header,
        rooms,
        pool: Pool::new(options.dial.clone()),
        turns: Turns::default(),
        retries: RetryBudget::default(),
        live,
        tls,
        table: RefCell::new(Cache::new(Arc::clone(&table.table))),
        failures,
        answers: [class("1xx"), class("2xx"), class("3xx"), class("4xx"), class("5xx")],
        options,
    });
    for (scheme, listener) in listeners {
        let door = Door {
            listener: TcpListener::from_std(listener)?,
            scheme,
            core: Rc::clone(&core),
            own: Arc::clone(&own),
            taken: Arc::clone(&taken),
            node_taken: Arc::clone(&node_taken),
            _open: open.clone(),
        };
        let no_more = no_more.clone();
        tokio::task::spawn_local(async move {
            no_more.run_until_cancelled(door.listen()).await;
            door.close();
        });
    }
    drop(open);
    let mut sweeps = tokio::time::interval(SWEEP_EVERY);
    loop {
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            Some(Given { stream, scheme, group, counted, seat, open }) = given.recv() => {
                let core = Rc::clone(&core);
                let place = Place { _counted: counted, _seat: seat, _open: open };
                tokio::task::spawn_local(async move {
                    match stream.set_nonblocking(true).and_then(|()| tokio::net::TcpStream::from_std(stream)) {
                        Ok(stream) => serve(core, stream, scheme, group, place).await,
                        Err(error) => tracing::warn!(%error, "a connection was lost on its way to its core"),
                    }
                });
            }
            _ = sweeps.tick() => core.pool.sweep(),
        }
    }
}

/// A listener of one core, at one of the node's own addresses.
struct Door {
    listener: TcpListener,
    scheme: Scheme,
    core: Rc<Core>,
    own: Arc<Group>,
    taken: Arc<AtomicU32>,
    node_taken: Arc<AtomicU32>,
    _open: TaskTrackerToken,
}

impl Door {
    async fn listen(&self) {
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) => self.let_in(stream),
                Err(error) if is_the_clients(&error) => {}
                Err(error) => {
                    tracing::warn!(%error, "cannot accept");
                    tokio::time::sleep(EXHAUSTED_PAUSE).await;
                }
            }
        }
    }

    fn let_in(&self, stream: tokio::net::TcpStream) {
        let max = self.core.table().limits.connections_max;
        let Some(seat) = Seat::take(&self.node_taken, &self.taken, max) else {
            metrics::counter!("twinsite_proxy_connections_refused_total").increment(1);
            return;
        };
        let (core, group) = (Rc::clone(&self.core), Arc::clone(&self.own));
        let place = Place { _counted: group.count(What::Connection), _seat: seat, _open: None };
        tokio::task::spawn_local(serve(core, stream, self.scheme, group, place));
    }

    /// Closes the listener, which resets whom the kernel has let in and nobody has accepted: so those come first, and
    /// the kernel itself is asked, because the runtime tells only of those that it has heard of.
    fn close(self) {
        let listener = SockRef::from(&self.listener);
        for _ in 0..BACKLOG {
            let accepted = listener.accept().and_then(|(socket, _)| {
                socket.set_nonblocking(true)?;
                tokio::net::TcpStream::from_std(socket.into())
            });
            match accepted {
                Ok(stream) => self.let_in(stream),
                Err(error) if is_the_clients(&error) => {}
                Err(_) => return,
            }
        }
    }
}

/// A client that went away while it waited costs nothing.
fn is_the_clients(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset)
}
