//! One node, from its configuration to its last word.

use super::announcing::{Announced, Files, Probed};
use super::follow::Here;
use super::guard::{Guard, Patience};
use super::observe::Sources;
use super::rooms::{self, PeerSpread, ProxyRooms};
use super::servers::{self, Listeners};
use super::{Raft, connections, hands, life, metrics};
use crate::cli::CliError;
use crate::cli::arguments::NodeArguments;
use crate::config::{self, Loaded};
use crate::identity::Credentials;
use crate::incident::Incidents;
use crate::recovery_note;
use crate::sealed_file::SealedError;
use crate::telemetry;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use twinsite_agents::{
    AllHands, Announcing, Brain, Connections, Errands, Keeper, Luggage, QuorumWatch, RecoveryNote, Reporter,
    Supervisor, hand_leadership_over, listen_to_peers,
};
use twinsite_announce::Announcer;
use twinsite_api::WatchHub;
use twinsite_consensus::grpc::GrpcTransport;
use twinsite_consensus::{
    Consensus, DiskError, ElectionBias, Identity, MembershipError, Options, RedbDisk, StopReason,
    TokioRuntime,
};
use twinsite_health::{OutsideProbes, ReadBack, UpstreamProbes};
use twinsite_model::spec::NodeKind;
use twinsite_model::{Incarnation, NodeId, NodeName, Timing};
use twinsite_proxy::{Proxy, ProxyOptions};
use twinsite_sessions::{Sessions, SessionsOptions};

/// How long a node waits for its guardian, at its start and when it has gone.
const GUARDIAN_PATIENCE: Duration = Duration::from_secs(10);
/// Changes that the public API remembers, so that a watch can resume.
const CHANGES_KEPT: usize = 4_096;
/// How long requests in flight may take when the node ends.
const GRACE: Duration = Duration::from_secs(5);
/// How long a clean end may take before it is made an unclean one.
const END_WITHIN: Duration = Duration::from_secs(20);
/// The same for a node that something vital has ended of: the guardian says better what was held.
const BROKEN_END_WITHIN: Duration = Duration::from_secs(2);

/// What the tasks of a node share.
pub struct Shared {
    /// This node.
    pub me: NodeId,
    /// Its name.
    pub name: NodeName,
    /// This life.
    pub incarnation: Incarnation,
    /// The consensus.
    pub raft: Raft,
    /// The controller.
    pub brain: Brain,
    /// The other nodes.
    pub peers: crate::peer::Peers,
    /// The places of rooms.
    pub sessions: Sessions,
    /// The connections of floating IPs, here and on the other nodes.
    pub connections: Connections,
    /// The data plane; a witness has none.
    pub proxy: Option<Proxy>,
    /// The line to the guardian; a node that may not own needs none.
    pub guard: Option<Guard>,
    /// The floating IPs that this node may hold.
    pub hands: AllHands,
    /// Told when something should be reported at once.
    pub report_soon: Arc<Notify>,
    /// What is known of a quorum.
    pub quorum: QuorumWatch,
    /// What watches over the tasks.
    pub supervisor: Supervisor,
}

/// `twinsite node`.
pub fn run(arguments: &NodeArguments) -> Result<(), CliError> {
    let loaded = config::load(&arguments.config)?;
    let credentials = Credentials::load(&loaded.node.tls)?;
    credentials.check_node(&loaded.node.tls.cert, &loaded.spec.cluster, loaded.me.id)?;
    telemetry::start(arguments.log);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .worker_threads(2)
        .thread_name("node")
        .build()
        .map_err(|source| CliError::System { what: "start the runtime", source })?;
    let result = runtime.block_on(live(loaded, credentials));
    runtime.shutdown_timeout(Duration::from_millis(200));
    result
}

/// A node's whole life.
async fn live(loaded: Loaded, credentials: Credentials) -> Result<(), CliError> {
    let ended = ended_by_signal()?;
    let data = loaded.node.data.clone();
    std::fs::create_dir_all(&data).map_err(|source| CliError::Data { path: data.clone(), source })?;
    let listeners = Listeners::bind(&loaded).await?;
    let recovery = left_by_recovery(&data)?;
    // Counted before the database is made: a directory with the one and without the other has lost something.
    let incarnation = begin_life(&data)?;
    let disk = open_disk(&loaded)?;
    tracing::info!(
        node = %loaded.me.name, cluster = %loaded.spec.cluster, %incarnation,
        version = env!("CARGO_PKG_VERSION"), "starting"
    );
    let stop = CancellationToken::new();
    exit_with_stdin(loaded.node.lab.exit_with_stdin);

    // Everything that a leader needs comes before the first vote: one that was elected and answered nobody would keep
    // the cluster from electing another.
    let guard = tokio::select! {
        guard = find_guardian(&loaded, incarnation) => guard?,
        () = ended.cancelled() => return Ok(()),
    };
    hands::make_ready(&loaded)?;
    let raft = prepare_consensus(&loaded, &credentials, disk).await?;
    let supervisor = Supervisor::new(stop.clone());
    let peers = crate::peer::Peers::new(
        loaded.me.id,
        &loaded.spec,
        credentials.peer_tls()?,
        loaded.node.dial.clone(),
    );
    let brain = Brain::start(loaded.me.id, raft.clone(), &supervisor, stop.clone());
    let quorum = QuorumWatch::default();
    let store = rooms::store(&loaded, &raft, &peers)?;
    let mut options = SessionsOptions::new(loaded.me.id);
    options.room_ttl = loaded.spec.sessions.room_ttl.0;
    options.store_timeout = loaded.spec.sessions.placement_timeout.0;
    let spread = Arc::new(PeerSpread::new(peers.clone()));
    let sessions = Sessions::start(options, store, spread, quorum.view());
    let proxy = start_proxy(&loaded, incarnation, &sessions)?;
    let shared = Arc::new(Shared {
        me: loaded.me.id,
        name: loaded.me.name.clone(),
        incarnation,
        raft,
        brain,
        peers,
        sessions,
        connections: Connections::default(),
        proxy,
        guard,
        hands: AllHands::default(),
        report_soon: Arc::default(),
        quorum,
        supervisor,
    });
    attend(loaded, credentials, recovery, shared, listeners, ended, stop).await
}

/// A node that may own an address holds none without a guardian.
async fn find_guardian(loaded: &Loaded, incarnation: Incarnation) -> Result<Option<Guard>, CliError> {
    if !loaded.me.kind.may_own() {
        return Ok(None);
    }
    Ok(Some(Guard::connect(&loaded.node.data, incarnation, GUARDIAN_PATIENCE).await?))
}

/// Runs everything until a signal, the loss of the guardian, or the end of the consensus.
async fn attend(
    loaded: Loaded,
    credentials: Credentials,
    recovery: Option<RecoveryNote>,
    shared: Arc<Shared>,
    listeners: Listeners,
    ended: CancellationToken,
    stop: CancellationToken,
) -> Result<(), CliError> {
    let data = loaded.node.data.clone();
    let dial = loaded.node.dial.clone();
    let upstreams = shared.proxy.as_ref().map(|_| Arc::new(UpstreamProbes::start(dial.clone(), shared.me.0)));
    let outside = Arc::new(OutsideProbes::start(dial.clone()));
    let instances: Vec<_> = loaded
        .node
        .instances
        .iter()
        .map(|instance| (instance.upstream.clone(), instance.announced_file.clone()))
        .collect();
    let names = instances.iter().map(|(name, _)| name.clone()).collect();
    let timing = loaded.spec.timing();
    let read_every = (timing.lease / 2).clamp(Duration::from_millis(100), Duration::from_secs(1));
    let read_back = Arc::new(ReadBack::start(dial, read_every));
    let announced = Announced::new(Arc::clone(&read_back), names);
    let announced_token = Arc::new(Mutex::default());
    let hub = WatchHub::new(shared.raft.state(), CHANGES_KEPT);
    let draining = Arc::new(AtomicBool::new(false));
    let peers_heard = Arc::new(Mutex::new(BTreeSet::new()));

    let mut tasks = JoinSet::new();
    let supervisor = shared.supervisor.clone();
    let (incidents, reports) = Incidents::new(&data, shared.raft.state());
    // Not supervised: whatever goes wrong with a report, the node lives on.
    tasks.spawn(reports.run(outside.answers(), shared.brain.notices(), stop.clone()));
    let follow_stop = CancellationToken::new();
    let here = Here {
        shared: Arc::clone(&shared),
        config: loaded.node.clone(),
        upstreams: upstreams.clone(),
        outside: Arc::clone(&outside),
        announced: announced.clone(),
        hub: hub.clone(),
        incidents,
    };
    let follower = here.follow(shared.quorum.clone());
    let mut following =
        tokio::spawn(supervisor.passing("what follows the state", follower.run(follow_stop.clone())));
    let announcing = Announcing {
        me: shared.me,
        raft: shared.raft.clone(),
        quorum: shared.quorum.clone(),
        hands: shared.hands.clone(),
        errands: Errands::default(), // no provider that routes is built in
        instances: Files::new(Announcer::new(instances), Arc::clone(&read_back)),
        outside: Probed(outside.answers()),
        under: Arc::clone(&announced_token),
        again: announced.again,
    };
    tasks.spawn(supervisor.lasting("the delivery of announced addresses", announcing.run(stop.clone())));
    let nothing = tokio::sync::watch::Sender::new(Arc::default());
    let reporter = Reporter {
        me: shared.me,
        raft: shared.raft.clone(),
        brain: shared.brain.clone(),
        peers: shared.peers.clone(),
        quorum: shared.quorum.clone(),
        observations: Sources {
            me: shared.me,
            incarnation: shared.incarnation,
            upstreams: upstreams.as_ref().map_or_else(|| nothing.subscribe(), |probes| probes.opinions()),
            outside: outside.answers(),
            announced: read_back.announced(),
            announced_token,
            hands: shared.hands.clone(),
            sessions: shared.sessions.clone(),
            proxy: shared.proxy.clone(),
            peers_heard: Arc::clone(&peers_heard),
            draining: Arc::clone(&draining),
            changed: Arc::clone(&shared.report_soon),
        },
    };
    tasks.spawn(supervisor.lasting("the reporter", reporter.run(stop.clone())));
    let listening =
        listen_to_peers(shared.raft.clone(), shared.peers.clone(), Arc::clone(&peers_heard), stop.clone());
    tasks.spawn(supervisor.lasting("listening to the other nodes", listening));
    let keeper = Keeper {
        me: shared.me,
        name: shared.name.clone(),
        raft: shared.raft.clone(),
        brain: shared.brain.clone(),
        luggage: Luggage { spec: loaded.spec.clone(), recovery },
    };
    tasks.spawn(supervisor.lasting("the keeper of the membership", keeper.run(stop.clone())));
    let rotating = super::ticket_keys::rotate(shared.raft.clone(), stop.clone());
    tasks.spawn(supervisor.lasting("the keys of session tickets", rotating));
    if let Some(proxy) = shared.proxy.clone() {
        let spreading = connections::spreading(&shared, proxy).run::<TokioRuntime>(stop.clone());
        tasks.spawn(supervisor.lasting("the roll of connections", spreading));
    }
    if let (Some(proxy), Some(probes)) = (shared.proxy.clone(), upstreams.clone()) {
        let passive = super::passive::run(proxy, probes, shared.sessions.clone(), stop.clone());
        tasks.spawn(supervisor.lasting("the evidence of real traffic", passive));
    }
    let (unguarded, ending) = (CancellationToken::new(), CancellationToken::new());
    if let Some(guard) = shared.guard.clone() {
        // Nothing is held, and no lease extended, while there is none. While there is still something left of a lease
        // it is given up; then there is time to wait.
        let patience = Patience { fit: timing.lease / 2, alive: GUARDIAN_PATIENCE };
        let (unfit, soon, ending) = (Arc::clone(&draining), Arc::clone(&shared.report_soon), ending.clone());
        let missing = move |missing| {
            if !ending.is_cancelled() {
                unfit.store(missing, Ordering::Relaxed);
                soon.notify_one();
            }
        };
        let keeping = guard.keep(data, shared.incarnation, patience, missing, unguarded.clone());
        tasks.spawn(supervisor.passing("the line to the guardian", keeping));
    }
    let readiness = metrics::Readiness::default();
    servers::start(&mut tasks, listeners, &loaded, &credentials, &shared, hub, &readiness, &stop).await?;
    shared.raft.take_part();
    if loaded.node.bootstrap {
        bootstrap(&loaded, &shared.raft).await?;
    }
    readiness.set(true);
    tracing::info!("ready");

    let why = tokio::select! {
        () = ended.cancelled() => Ok(()),
        () = unguarded.cancelled() => Err(CliError::NoGuardian),
        reason = shared.raft.stopped() => Err(CliError::Stopped(reason)),
        task = supervisor.failed() => Err(CliError::Task(task)),
        _ = &mut following => Err(CliError::Stopped(StopReason::Internal("the follower ended".to_owned()))),
    };
    ending.cancel();
    draining.store(true, Ordering::Relaxed);
    shared.report_soon.notify_one();
    readiness.set(false);
    let end = end(&shared, follow_stop, following);
    let within = if matches!(why, Err(CliError::Task(_))) { BROKEN_END_WITHIN } else { END_WITHIN };
    if tokio::time::timeout(within, end).await.is_err() {
        tracing::warn!("the end took too long; the guardian says what was held");
    }
    stop.cancel();
    why
}

/// Lets go of everything in good order: leadership, floating IPs, requests, the log.
async fn end(shared: &Shared, follow_stop: CancellationToken, following: tokio::task::JoinHandle<()>) {
    tracing::info!("ending");
    if let Some(proxy) = &shared.proxy {
        proxy.set_draining(true);
    }
    hand_leadership_over(shared.me, &shared.raft).await;
    follow_stop.cancel();
    if !following.is_finished() {
        drop(following.await);
    }
    if let Some(proxy) = &shared.proxy {
        proxy.shutdown(GRACE).await;
    }
    shared.raft.shutdown().await;
}

fn begin_life(data: &Path) -> Result<Incarnation, CliError> {
    let used = data.join(RedbDisk::FILE).exists();
    life::begin(data, used).map_err(|error| match error {
        SealedError::Io(source) => CliError::Data { path: data.to_owned(), source },
        SealedError::Damaged(what) => {
            CliError::Disk(DiskError::Damaged { path: data.display().to_string(), what })
        }
    })
}

fn left_by_recovery(data: &Path) -> Result<Option<RecoveryNote>, CliError> {
    recovery_note::read(data).map_err(|error| match error {
        SealedError::Io(source) => CliError::Data { path: data.to_owned(), source },
        SealedError::Damaged(what) => CliError::DamagedNote { path: data.to_owned(), what },
    })
}

fn open_disk(loaded: &Loaded) -> Result<Arc<RedbDisk>, CliError> {
    let new_disk = getrandom::u64().map_err(|error| CliError::System {
        what: "draw a random number",
        source: std::io::Error::other(error),
    })?;
    let identity = Identity { cluster: loaded.spec.cluster.clone(), node: loaded.me.id, new_disk };
    Ok(Arc::new(telemetry::without_panic_messages(|| RedbDisk::open(&loaded.node.data, &identity))?))
}

async fn prepare_consensus(
    loaded: &Loaded,
    credentials: &Credentials,
    disk: Arc<RedbDisk>,
) -> Result<Raft, CliError> {
    let tls = credentials.peer_tls()?;
    let transport = GrpcTransport::new(loaded.spec.cluster.clone(), loaded.node.dial.clone(), Some(tls));
    let mut options = Options::new(loaded.spec.cluster.clone(), loaded.me.id, agreed_timing(loaded));
    options.bias = bias(loaded);
    Ok(Consensus::<TokioRuntime>::prepare(options, disk, transport).await?)
}

/// Heartbeats and elections follow the file: they are needed before anything agreed can be read.
fn agreed_timing(loaded: &Loaded) -> Timing {
    loaded.spec.timing()
}

/// A witness leads when nobody else does.
fn bias(loaded: &Loaded) -> ElectionBias {
    if loaded.me.kind == NodeKind::Witness { ElectionBias::Reluctant } else { ElectionBias::Normal }
}

/// Brings a new cluster to life. A node that has ever been a member does nothing.
async fn bootstrap(loaded: &Loaded, raft: &Raft) -> Result<(), CliError> {
    let voters = loaded.spec.nodes.iter().filter(|node| node.kind.votes());
    let members = voters.map(|node| (node.id, node.peer.to_string())).collect();
    match raft.initialize(&members).await {
        Ok(()) => tracing::info!(voters = members.len(), "a new cluster begins"),
        Err(MembershipError::AlreadyInitialised) => {}
        Err(error) => return Err(CliError::Usage(format!("bootstrap: {error}"))),
    }
    Ok(())
}

fn start_proxy(
    loaded: &Loaded,
    incarnation: Incarnation,
    sessions: &Sessions,
) -> Result<Option<Proxy>, CliError> {
    if !loaded.me.kind.serves() {
        return Ok(None);
    }
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let options = ProxyOptions {
        node: loaded.me.id,
        name: loaded.me.name.clone(),
        cluster: loaded.spec.cluster.clone(),
        incarnation,
        cores: loaded.node.cores.unwrap_or(cores).max(1),
        own: loaded.me.http.clone(),
        own_tls: loaded.me.https.clone(),
        access_log: loaded.node.access_log.clone(),
        dial: loaded.node.dial.clone(),
    };
    Ok(Some(Proxy::start(options, Arc::new(ProxyRooms(sessions.clone())))?))
}

/// Told when the process shall end: SIGTERM, SIGINT. Both are caught from here on, not only once somebody waits.
pub fn ended_by_signal() -> Result<CancellationToken, CliError> {
    use tokio::signal::unix::{SignalKind, signal};
    let catch = |kind| signal(kind).map_err(|source| CliError::System { what: "catch signals", source });
    let (mut terminate, mut interrupt) = (catch(SignalKind::terminate())?, catch(SignalKind::interrupt())?);
    let told = CancellationToken::new();
    let ended = told.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        ended.cancel();
    });
    Ok(told)
}

/// For clusters that live and die with a program: ends the process, without any grace, when standard input closes.
pub fn exit_with_stdin(wanted: bool) {
    if !wanted {
        return;
    }
    std::thread::spawn(|| {
        let mut sink = std::io::sink();
        drop(std::io::copy(&mut std::io::stdin().lock(), &mut sink));
        std::process::exit(0);
    });
}
