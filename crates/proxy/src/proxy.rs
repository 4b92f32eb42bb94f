//! The proxy of a node: its cores, its table, its connections.

use crate::authority::Authority;
use crate::group::{Closing, Group, Load, Phase, What};
use crate::rooms::Rooms;
use crate::table::{RoutingTable, UpstreamLoad};
use crate::worker::{self, Given, Seat, Start};
use arc_swap::ArcSwap;
use socket2::{Domain, Protocol, Socket, Type};
use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{broadcast, mpsc};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use twinsite_model::dial::DialMap;
use twinsite_model::{
    ClusterName, FloatingIpName, Incarnation, NodeId, NodeName, RoomKey, UpstreamName, Verdict,
};

/// Connections that the kernel completes ahead of a core.
const BACKLOG: i32 = 1_024;
/// Failures that wait for a slow listener.
const FAILURES_KEPT: usize = 256;
/// How long closed connections may take to end.
const CLOSE_WITHIN: Duration = Duration::from_millis(500);

/// How a proxy is set up.
#[derive(Debug, Clone)]
pub struct ProxyOptions {
    /// The node.
    pub node: NodeId,
    /// Its name.
    pub name: NodeName,
    /// Its cluster.
    pub cluster: ClusterName,
    /// This life.
    pub incarnation: Incarnation,
    /// Threads.
    pub cores: usize,
    /// The node's own addresses, served beside the floating ones.
    pub own: Vec<SocketAddr>,
    /// Translations of addresses.
    pub dial: DialMap,
}

/// Why a proxy cannot start.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// An address of its own cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// What the kernel said.
        source: io::Error,
    },
    /// A thread cannot be started.
    #[error("cannot start a thread: {0}")]
    Thread(#[from] io::Error),
}

/// The proxy. Clones share it.
#[derive(Clone)]
pub struct Proxy {
    inner: Arc<Inner>,
}

struct Inner {
    table: Arc<Published>,
    cores: Vec<CoreHandle>,
    own: Arc<Group>,
    /// Connections by the address at which they came in; the group of an earlier token is replaced.
    floating: Mutex<BTreeMap<FloatingIpName, Arc<Group>>>,
    taken: Arc<AtomicU32>,
    failures: broadcast::Sender<UpstreamName>,
    live: Arc<LiveRooms>,
    no_more: CancellationToken,
    stop: CancellationToken,
}

struct CoreHandle {
    given: mpsc::UnboundedSender<Given>,
    taken: Arc<AtomicU32>,
}

/// The routing table in force, and what outlives it.
pub(crate) struct Published {
    pub(crate) table: Arc<ArcSwap<RoutingTable>>,
    loads: Mutex<BTreeMap<UpstreamName, Arc<UpstreamLoad>>>,
}

impl Proxy {
    /// Starts threads and listeners. Nothing is routed before a table is published.
    pub fn start(options: ProxyOptions, rooms: Arc<dyn Rooms>) -> Result<Self, ProxyError> {
        let count = options.cores.max(1);
        let mut listeners = listeners(&options.own, count)?;
        let options = Arc::new(options);
        let table = Arc::new(Published {
            table: Arc::new(ArcSwap::from_pointee(RoutingTable::empty())),
            loads: Mutex::default(),
        });
        let (failures, _) = broadcast::channel(FAILURES_KEPT);
        let (own, live, taken) =
            (Group::new(None), Arc::new(LiveRooms::default()), Arc::new(AtomicU32::new(0)));
        let (no_more, stop) = (CancellationToken::new(), CancellationToken::new());
        let mut cores = Vec::new();
        for number in 0..count {
            let (given, receiver) = mpsc::unbounded_channel();
            let core_taken = Arc::new(AtomicU32::new(0));
            let start = Start {
                options: Arc::clone(&options),
                rooms: Arc::clone(&rooms),
                table: Arc::clone(&table),
                failures: failures.clone(),
                live: Arc::clone(&live),
                listeners: listeners.pop().unwrap_or_default(),
                own: Arc::clone(&own),
                given: receiver,
                taken: Arc::clone(&core_taken),
                node_taken: Arc::clone(&taken),
                no_more: no_more.clone(),
                stop: stop.clone(),
            };
            std::thread::Builder::new().name(format!("proxy-{number}")).spawn(move || {
                if let Err(error) = worker::run(start) {
                    tracing::error!(%error, "a core of the proxy ended");
                }
            })?;
            cores.push(CoreHandle { given, taken: core_taken });
        }
        let inner =
            Inner { table, cores, own, floating: Mutex::default(), taken, failures, live, no_more, stop };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Puts a table in force. Tunnels to upstreams that were given up are ended, so that their clients come again and
    /// meet the others of their rooms.
    pub fn publish(&self, mut table: RoutingTable) {
        let mut loads = self.inner.table.loads.lock().unwrap_or_else(PoisonError::into_inner);
        let all_bad = table.upstreams.iter().all(|upstream| upstream.verdict == Verdict::Unhealthy);
        let mut given_up = Vec::new();
        for upstream in &mut table.upstreams {
            let load = loads.entry(upstream.name.clone()).or_default();
            upstream.load = Arc::clone(load);
            let bad = upstream.verdict == Verdict::Unhealthy;
            if bad && !all_bad && load.tunnels.load(Ordering::Acquire) > 0 {
                given_up.push(Arc::clone(load));
            }
        }
        let known: std::collections::BTreeSet<_> =
            table.upstreams.iter().map(|upstream| &upstream.name).collect();
        let removed: Vec<_> =
            loads.iter().filter(|(name, _)| !known.contains(name)).map(|(name, _)| name.clone()).collect();
        given_up.extend(removed.iter().filter_map(|name| loads.remove(name)));
        self.inner.table.table.store(Arc::new(table));
        for load in given_up {
            load.given_up.send_modify(|times| *times += 1);
        }
    }

    /// Serves a connection that came in at a floating IP, as long as the authority holds.
    pub fn accept_floating(&self, stream: TcpStream, authority: Arc<dyn Authority>) {
        let max = self.inner.table.table.load().limits.connections_max;
        let Some(core) = self.inner.cores.iter().min_by_key(|core| core.taken.load(Ordering::Relaxed)) else {
            return;
        };
        let Some(seat) = Seat::take(&self.inner.taken, &core.taken, max) else {
            metrics::counter!("twinsite_proxy_connections_refused_total").increment(1);
            return;
        };
        let group = self.group_of(authority);
        let counted = group.count(What::Connection);
        // A core ends only with the process.
        let _ended = core.given.send(Given { stream, group, counted, seat });
    }

    fn group_of(&self, authority: Arc<dyn Authority>) -> Arc<Group> {
        let mut floating = self.floating();
        if let Some(group) = floating.get(authority.ip()) {
            let same = group.authority.as_ref().is_some_and(|known| known.token() == authority.token());
            if same && !matches!(group.phase(), Phase::Closed(_)) {
                return Arc::clone(group);
            }
            group.set_phase(Phase::Closed(Closing::Involuntary));
        }
        let group = Group::new(Some(Arc::clone(&authority)));
        floating.insert(authority.ip().clone(), Arc::clone(&group));
        group
    }

    fn floating(&self) -> MutexGuard<'_, BTreeMap<FloatingIpName, Arc<Group>>> {
        self.inner.floating.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn group(&self, ip: &FloatingIpName) -> Option<Arc<Group>> {
        self.floating().get(ip).cloned()
    }

    /// Lets a floating IP run empty: answers tell clients to connect anew, tunnels end one after the other within this
    /// time.
    pub fn drain_floating(&self, ip: &FloatingIpName, tunnels_within: Duration) {
        if let Some(group) = self.group(ip).filter(|group| group.phase() == Phase::Open) {
            group.set_phase(Phase::Draining(tunnels_within));
        }
    }

    /// Takes that back.
    pub fn undrain_floating(&self, ip: &FloatingIpName) {
        if let Some(group) = self.group(ip).filter(|group| matches!(group.phase(), Phase::Draining(_))) {
            group.set_phase(Phase::Open);
        }
    }

    /// What is open at a floating IP.
    pub fn in_flight(&self, ip: &FloatingIpName) -> Load {
        self.group(ip).map(|group| group.load()).unwrap_or_default()
    }

    /// Closes everything that came in at a floating IP; done when it is closed.
    pub async fn close_floating(&self, ip: &FloatingIpName, closing: Closing) {
        let Some(group) = self.group(ip) else { return };
        group.set_phase(Phase::Closed(closing));
        if timeout(CLOSE_WITHIN, group.empty()).await.is_err() {
            // What is still there writes nothing more once the lease has ended.
            tracing::error!(%ip, left = group.load().connections, "connections are slow to close");
        }
        let mut floating = self.floating();
        if floating.get(ip).is_some_and(|known| Arc::ptr_eq(known, &group)) {
            floating.remove(ip);
        }
    }

    /// What is open on this node, at its own addresses and the floating ones.
    pub fn load(&self) -> Load {
        let floating = self.floating();
        let groups = floating.values().chain([&self.inner.own]);
        groups.map(|group| group.load()).fold(Load::default(), |sum, load| Load {
            connections: sum.connections + load.connections,
            requests: sum.requests + load.requests,
            tunnels: sum.tunnels + load.tunnels,
        })
    }

    /// The rooms that have tunnels here, and where they lead; once for each tunnel.
    pub fn live_rooms(&self) -> Vec<(RoomKey, UpstreamName)> {
        self.inner.live.all()
    }

    /// A room is at this upstream: its tunnels to others are ended, so that everybody meets there.
    pub fn room_moved(&self, room: RoomKey, to: &UpstreamName) {
        self.inner.live.moved(room, to);
    }

    /// Tunnels to each upstream.
    pub fn connections(&self) -> BTreeMap<UpstreamName, u32> {
        let table = self.inner.table.table.load();
        let counts = table
            .upstreams
            .iter()
            .map(|upstream| (upstream.name.clone(), upstream.load.tunnels.load(Ordering::Acquire)));
        counts.filter(|(_, count)| *count > 0).collect()
    }

    /// Upstreams that real requests failed at, as it happens.
    pub fn upstream_failures(&self) -> broadcast::Receiver<UpstreamName> {
        self.inner.failures.subscribe()
    }

    /// Whether answers at this node's own addresses tell clients to connect anew.
    pub fn set_draining(&self, draining: bool) {
        let phase = if draining { Phase::Draining(Duration::from_secs(1)) } else { Phase::Open };
        self.inner.own.set_phase(phase);
    }

    /// Ends everything: no new connections, then those that there are, within `grace`.
    pub async fn shutdown(&self, grace: Duration) {
        self.inner.no_more.cancel();
        let own = &self.inner.own;
        own.set_phase(Phase::Draining(grace.min(Duration::from_secs(1))));
        let quiet = async {
            while own.load().requests > 0 || own.load().tunnels > 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let _late = timeout(grace, quiet).await;
        own.set_phase(Phase::Closed(Closing::Planned));
        let _slow = timeout(CLOSE_WITHIN, own.empty()).await;
        self.inner.stop.cancel();
    }
}

/// Listeners on the node's own addresses, a set for each core: the kernel spreads connections over them.
fn listeners(own: &[SocketAddr], cores: usize) -> Result<Vec<Vec<TcpListener>>, ProxyError> {
    // Alone first: with `SO_REUSEPORT` from the start, an address that another process of ours holds would be shared.
    for address in own {
        drop(listener(*address, false)?);
    }
    (0..cores).map(|_| own.iter().map(|address| listener(*address, true)).collect()).collect()
}

fn listener(address: SocketAddr, shared: bool) -> Result<TcpListener, ProxyError> {
    let open = || {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        socket.set_reuse_port(shared)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        Ok(socket.into())
    };
    open().map_err(|source| ProxyError::Bind { address, source })
}

/// The rooms of this node's tunnels. Touched when a tunnel begins or ends, never by a request.
#[derive(Debug, Default)]
pub(crate) struct LiveRooms {
    rooms: Mutex<BTreeMap<u64, InRoom>>,
    next: AtomicU64,
}

#[derive(Debug)]
struct InRoom {
    room: RoomKey,
    upstream: UpstreamName,
    moved: CancellationToken,
}

/// Notes a tunnel's room while it lives.
pub(crate) struct LiveRoom {
    all: Arc<LiveRooms>,
    number: u64,
    /// Set when the room was given another place.
    pub(crate) moved: CancellationToken,
}

impl LiveRooms {
    pub(crate) fn note(self: &Arc<Self>, room: RoomKey, upstream: &UpstreamName) -> LiveRoom {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let moved = CancellationToken::new();
        self.rooms().insert(number, InRoom { room, upstream: upstream.clone(), moved: moved.clone() });
        LiveRoom { all: Arc::clone(self), number, moved }
    }

    fn all(&self) -> Vec<(RoomKey, UpstreamName)> {
        self.rooms().values().map(|tunnel| (tunnel.room, tunnel.upstream.clone())).collect()
    }

    fn moved(&self, room: RoomKey, to: &UpstreamName) {
        let rooms = self.rooms();
        for tunnel in rooms.values().filter(|tunnel| tunnel.room == room && tunnel.upstream != *to) {
            tunnel.moved.cancel();
        }
    }

    fn rooms(&self) -> MutexGuard<'_, BTreeMap<u64, InRoom>> {
        self.rooms.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for LiveRoom {
    fn drop(&mut self) {
        self.all.rooms().remove(&self.number);
    }
}
