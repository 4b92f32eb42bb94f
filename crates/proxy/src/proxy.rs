//! The proxy of a node: its cores, its table, its connections.

use crate::access_log::AccessLog;
use crate::authority::Authority;
use crate::group::{Closing, Group, Load, Phase, What};
use crate::live_rooms::LiveRooms;
use crate::open::{Changed, OpenConnections};
use crate::rooms::Rooms;
use crate::table::{RoutingTable, UpstreamLoad};
use crate::tally::Tallies;
use crate::tls::{CertificatesState, Tls};
use crate::worker::{self, Given, Seat, Start};
use arc_swap::ArcSwap;
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{broadcast, mpsc};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use twinsite_model::dial::DialMap;
use twinsite_model::spec::Scheme;
use twinsite_model::{
    ClusterName, FloatingIpName, Incarnation, NodeId, NodeName, RoomKey, Token, UpstreamName,
};

/// Connections that the kernel completes ahead of a core.
pub(crate) const BACKLOG: i32 = 1_024;
/// Failures that wait for a slow listener.
const FAILURES_KEPT: usize = 256;
/// An index that no interface has: the kernel counts them up from one.
const NO_INTERFACE: Option<NonZeroU32> = NonZeroU32::new(i32::MAX.unsigned_abs());
/// How long handshakes that had begun may take to end; a client that is farther away finds nobody and tries again.
const HANDSHAKES_END: Duration = Duration::from_millis(2);
/// How long connections may take to end in good order.
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
    /// The same by TLS.
    pub own_tls: Vec<SocketAddr>,
    /// Where a line is written for each request, if it is.
    pub access_log: Option<PathBuf>,
    /// Translations of addresses.
    pub dial: DialMap,
}

/// Why a proxy cannot start.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// An address of its own cannot be listened on.
    #[error("cannot listen on {address}: {source}; {}", remedy(*.address, .source))]
    Bind {
        /// The address.
        address: SocketAddr,
        /// What the kernel said.
        source: io::Error,
    },
    /// The access log cannot be written.
    #[error("access_log {}: {source}; name a file in a folder that this user may write to", path.display())]
    AccessLog {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A thread cannot be started.
    #[error("cannot start a thread: {0}")]
    Thread(#[from] io::Error),
}

/// What to do about an address that cannot be listened on.
fn remedy(address: SocketAddr, source: &io::Error) -> String {
    match source.kind() {
        io::ErrorKind::AddrInUse => {
            format!(
                "`ss -ltnp 'sport = :{}'` shows who does: stop it, or choose another port",
                address.port()
            )
        }
        io::ErrorKind::AddrNotAvailable => {
            format!("this host has no address {}: choose one that `ip address` shows", address.ip())
        }
        io::ErrorKind::PermissionDenied => {
            "ports below 1024 take root or CAP_NET_BIND_SERVICE: grant it, or choose another port".to_owned()
        }
        _ => "choose another address or port in the node's `http`".to_owned(),
    }
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
    floating: Mutex<Floating>,
    taken: Arc<AtomicU32>,
    failures: broadcast::Sender<UpstreamName>,
    live: Arc<LiveRooms>,
    tls: Arc<Tls>,
    routes: Tallies,
    upstreams: Tallies,
    connections: Arc<OpenConnections>,
    /// The listeners at the node's own addresses, those of all cores, until they are to be closed.
    doors: Mutex<Vec<TcpListener>>,
    no_more: CancellationToken,
    /// The listeners at the node's own addresses that are still open.
    open: TaskTracker,
    stop: CancellationToken,
}

/// What came in at floating IPs.
#[derive(Default)]
struct Floating {
    /// Connections by their address; the group of an earlier token is replaced.
    groups: BTreeMap<FloatingIpName, Arc<Group>>,
    /// The addresses that are to run empty, and how soon their tunnels end, whether anything has come in there or not.
    drains: BTreeMap<FloatingIpName, Duration>,
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
        let of = |addresses: &[SocketAddr], scheme| {
            addresses.iter().map(move |at| (scheme, *at)).collect::<Vec<_>>()
        };
        let own = [of(&options.own, Scheme::Http), of(&options.own_tls, Scheme::Https)].concat();
        let mut listeners = listeners(&own, count)?;
        let doors = listeners.iter().flatten().map(|(_, listener)| listener.try_clone());
        let doors = doors.collect::<Result<Vec<_>, _>>()?;
        let tls = Arc::new(Tls::start()?);
        let open = |path: &PathBuf| {
            AccessLog::start(path).map_err(|source| ProxyError::AccessLog { path: path.clone(), source })
        };
        let access_log = options.access_log.as_ref().map(open).transpose()?;
        let options = Arc::new(options);
        let table = Arc::new(Published {
            table: Arc::new(ArcSwap::from_pointee(RoutingTable::empty())),
            loads: Mutex::default(),
        });
        let (failures, _) = broadcast::channel(FAILURES_KEPT);
        let (own, live, taken) =
            (Group::new(None), Arc::new(LiveRooms::default()), Arc::new(AtomicU32::new(0)));
        let (no_more, open, stop) = (CancellationToken::new(), TaskTracker::new(), CancellationToken::new());
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
                tls: Arc::clone(&tls),
                listeners: listeners.pop().unwrap_or_default(),
                own: Arc::clone(&own),
                given: receiver,
                taken: Arc::clone(&core_taken),
                node_taken: Arc::clone(&taken),
                number,
                access_log: access_log.clone(),
                no_more: no_more.clone(),
                open: open.token(),
                stop: stop.clone(),
            };
            std::thread::Builder::new().name(format!("proxy-{number}")).spawn(move || {
                if let Err(error) = worker::run(start) {
                    tracing::error!(%error, "a core of the proxy ended");
                }
            })?;
            cores.push(CoreHandle { given, taken: core_taken });
        }
        let floating = Mutex::default();
        let (doors, connections) = (Mutex::new(doors), Arc::default());
        let inner = Inner {
            table,
            cores,
            own,
            floating,
            taken,
            failures,
            live,
            tls,
            routes: Tallies::default(),
            upstreams: Tallies::default(),
            connections,
            doors,
            no_more,
            open,
            stop,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Puts a table in force. Tunnels to upstreams that are given up are ended, so that their clients come again and meet
    /// the others of their rooms.
    pub fn publish(&self, mut table: RoutingTable) {
        self.inner.tls.follow(&table);
        let mut loads = self.inner.table.loads.lock().unwrap_or_else(PoisonError::into_inner);
        for upstream in &mut table.upstreams {
            upstream.load = Arc::clone(loads.entry(upstream.name.clone()).or_default());
            upstream.tally = self.inner.upstreams.of(upstream.name.as_str(), self.inner.cores.len());
            upstream.load.judged(upstream.verdict, table.health.slow_start.0);
        }
        for route in &mut table.routes {
            route.tally = self.inner.routes.of(route.name.as_str(), self.inner.cores.len());
        }
        self.inner.routes.keep(|name| table.routes.iter().any(|route| route.name.as_str() == name));
        self.inner
            .upstreams
            .keep(|name| table.upstreams.iter().any(|upstream| upstream.name.as_str() == name));
        let mut given_up: Vec<_> = table
            .upstreams
            .iter()
            .enumerate()
            .map(|(index, upstream)| (Arc::clone(&upstream.load), table.gives_up(index)))
            .collect();
        let known: BTreeSet<_> = table.upstreams.iter().map(|upstream| &upstream.name).collect();
        let removed = loads.extract_if(.., |name, _| !known.contains(name));
        given_up.extend(removed.map(|(_, load)| (load, true)));
        self.inner.table.table.store(Arc::new(table));
        for (load, is_given_up) in given_up {
            load.given_up.send_if_modified(|known| std::mem::replace(known, is_given_up) != is_given_up);
        }
    }

    /// Serves a connection that came in at a floating IP, as long as the authority holds.
    pub fn accept_floating(&self, stream: TcpStream, authority: Arc<dyn Authority>) {
        let table = self.inner.table.table.load();
        let max = table.limits.connections_max;
        let Some(core) = self.inner.cores.iter().min_by_key(|core| core.taken.load(Ordering::Relaxed)) else {
            return;
        };
        let Some(seat) = Seat::take(&self.inner.taken, &core.taken, max) else {
            metrics::counter!("twinsite_proxy_connections_refused_total").increment(1);
            return;
        };
        let scheme =
            stream.local_addr().map_or(Scheme::Http, |at| table.scheme_at(authority.ip(), at.port()));
        drop(table);
        let group = self.group_of(authority);
        let counted = group.count(What::Connection);
        let open = self.inner.connections.note(&stream, &group);
        // A core ends only with the process.
        let _ended = core.given.send(Given { stream, scheme, group, counted, seat, open });
    }

    fn group_of(&self, authority: Arc<dyn Authority>) -> Arc<Group> {
        let mut floating = self.floating();
        if let Some(group) = floating.groups.get(authority.ip()) {
            let same = group.authority.as_ref().is_some_and(|known| known.token() == authority.token());
            if same && !matches!(group.phase(), Phase::Closed(_)) {
                return Arc::clone(group);
            }
            group.set_phase(Phase::Closed(Closing::Involuntary));
        }
        let group = Group::new(Some(Arc::clone(&authority)));
        if let Some(tunnels_within) = floating.drains.get(authority.ip()) {
            group.set_phase(Phase::Draining(*tunnels_within));
        }
        floating.groups.insert(authority.ip().clone(), Arc::clone(&group));
        group
    }

    fn floating(&self) -> MutexGuard<'_, Floating> {
        self.inner.floating.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn group(&self, ip: &FloatingIpName) -> Option<Arc<Group>> {
        self.floating().groups.get(ip).cloned()
    }

    /// Lets a floating IP run empty, until that is taken back: answers tell clients to connect anew, the tunnels that there
    /// are end one after the other within this time.
    pub fn drain_floating(&self, ip: &FloatingIpName, tunnels_within: Duration) {
        let mut floating = self.floating();
        floating.drains.insert(ip.clone(), tunnels_within);
        if let Some(group) = floating.groups.get(ip).filter(|group| group.phase() == Phase::Open) {
            group.set_phase(Phase::Draining(tunnels_within));
        }
    }

    /// Takes that back.
    pub fn undrain_floating(&self, ip: &FloatingIpName) {
        let mut floating = self.floating();
        floating.drains.remove(ip);
        if let Some(group) =
            floating.groups.get(ip).filter(|group| matches!(group.phase(), Phase::Draining(_)))
        {
            group.set_phase(Phase::Open);
        }
    }

    /// What is open at a floating IP.
    pub fn in_flight(&self, ip: &FloatingIpName) -> Load {
        self.group(ip).map(|group| group.load()).unwrap_or_default()
    }

    /// Closes everything that came in at a floating IP. What has not ended in good order within `within`, half a second at
    /// most, is broken off. Done when no socket is left, however long that takes: to report one as closed that is open
    /// would let two nodes answer.
    pub async fn close_floating(&self, ip: &FloatingIpName, closing: Closing, within: Duration) {
        let Some(group) = self.group(ip) else { return };
        group.set_phase(Phase::Closed(closing));
        if timeout(within.min(CLOSE_WITHIN), group.empty()).await.is_err() {
            tracing::warn!(%ip, left = group.load().connections, "connections are slow to close: broken off");
            group.set_phase(Phase::Closed(Closing::Involuntary));
            group.empty().await;
        }
        let mut floating = self.floating();
        if floating.groups.get(ip).is_some_and(|known| Arc::ptr_eq(known, &group)) {
            floating.groups.remove(ip);
        }
    }

    /// What is open on this node, at its own addresses and the floating ones.
    pub fn load(&self) -> Load {
        let floating = self.floating();
        let groups = floating.groups.values().chain([&self.inner.own]);
        groups.map(|group| group.load()).fold(Load::default(), |sum, load| Load {
            connections: sum.connections + load.connections,
            requests: sum.requests + load.requests,
            tunnels: sum.tunnels + load.tunnels,
            late_tunnels: sum.late_tunnels + load.late_tunnels,
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

    /// What became of connections at floating IPs since the last look. A connection stays open here that ended when its
    /// client could not, or could not for sure, be told: the next owner may have to.
    pub fn changed_connections(&self) -> Vec<Changed> {
        self.inner.connections.take()
    }

    /// The floating IPs that something came in at, and the token under which it may be answered.
    pub fn served(&self) -> Vec<(FloatingIpName, Token)> {
        let floating = self.floating();
        let held = floating.groups.iter().filter_map(|(ip, group)| {
            let authority = group.authority.as_ref().filter(|authority| authority.holds())?;
            Some((ip.clone(), authority.token()))
        });
        held.collect()
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

    /// What was counted by route and upstream, and what is open, as Prometheus reads it.
    pub fn metrics(&self) -> String {
        let mut text = String::new();
        self.inner.routes.render("route", &mut text);
        self.inner.upstreams.render("upstream", &mut text);
        let load = self.load();
        for (name, value) in
            [("connections", load.connections), ("requests", load.requests), ("tunnels", load.tunnels)]
        {
            text += &format!("# TYPE twinsite_proxy_open_{name} gauge\ntwinsite_proxy_open_{name} {value}\n");
        }
        text += "# TYPE twinsite_upstream_open gauge\n";
        for upstream in &self.inner.table.table.load().upstreams {
            let (name, tunnels) = (&upstream.name, upstream.load.tunnels.load(Ordering::Relaxed));
            let requests = upstream.load.open.load(Ordering::Relaxed).saturating_sub(tunnels);
            for (kind, count) in [("requests", requests), ("tunnels", tunnels)] {
                text += &format!("twinsite_upstream_open{{upstream=\"{name}\",kind=\"{kind}\"}} {count}\n");
            }
        }
        text
    }

    /// What this node has of the certificates that the specification names.
    pub fn certificates(&self) -> Arc<CertificatesState> {
        self.inner.tls.certificates()
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

    /// Has the kernel refuse new connections at the node's own addresses, while those that it has completed are still
    /// accepted; closing the listeners at once would reset them. A SYN finds no listener on the interface that it came in
    /// at (`compute_score` in `net/ipv4/inet_hashtables.c`). All cores' at once: the kernel chooses among those of one
    /// address before it looks.
    async fn refuse(&self) {
        let doors = std::mem::take(&mut *self.inner.doors.lock().unwrap_or_else(PoisonError::into_inner));
        for door in &doors {
            if let Err(error) = SockRef::from(door).bind_device_by_index_v4(NO_INTERFACE) {
                // Before Linux 5.7 it takes CAP_NET_RAW. Only who comes in the next microseconds is reset.
                tracing::debug!(%error, "a listener cannot refuse before it closes");
            }
        }
        drop(doors);
        tokio::time::sleep(HANDSHAKES_END).await;
    }

    /// Ends everything: no new connections, then those that there are, within `grace`.
    pub async fn shutdown(&self, grace: Duration) {
        self.refuse().await;
        self.inner.no_more.cancel();
        self.inner.open.close();
        // Whom the listeners still let in counts among those that are waited for.
        let _slow = timeout(CLOSE_WITHIN, self.inner.open.wait()).await;
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
fn listeners(
    own: &[(Scheme, SocketAddr)],
    cores: usize,
) -> Result<Vec<Vec<(Scheme, TcpListener)>>, ProxyError> {
    // Alone first: with `SO_REUSEPORT` from the start, an address that another process of ours holds would be shared.
    for (_, address) in own {
        drop(listener(*address, false)?);
    }
    let of_core = |_| own.iter().map(|(scheme, address)| Ok((*scheme, listener(*address, true)?))).collect();
    (0..cores).map(of_core).collect()
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
