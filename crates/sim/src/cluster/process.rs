//! One life of a node: the real consensus, controller and agents, put together as the program does it, with a
//! simulated machine below.

use super::Mistake;
use super::guardian::Guardian;
use super::holding::{Pace, tools};
use super::instances::{Files, Writer};
use super::kernel::Kernel;
use super::net::{Door, End};
use super::outside::{Probed, probe};
use super::provider::SimProvider;
use super::rooms::{Meetings, Rooms};
use super::sight::{Eyes, Sight};
use super::watch::Watches;
use crate::runtime::{Executor, JoinHandle, ProcessId, SimRuntime};
use futures_util::future::BoxFuture;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use twinsite_agents::{
    AllHands, Announcing, Brain, Desk, Employer, Errands, Follower, Keeper, Luggage, QuorumWatch,
    RecoveryNote, Reporter, Runner, Supervisor, Surroundings, Tools, hand_leadership_over, listen_to_peers,
};
use twinsite_consensus::{AsyncRuntime, Change, Consensus, Disk, Options, StartError};
use twinsite_model::spec::FloatingIpSpec;
use twinsite_model::{ClusterSpec, Event, FloatingIpName, Incarnation, NodeId, NodeName, SiteName, State};

/// The consensus as it runs here.
pub(super) type Raft = Consensus<SimRuntime>;

/// How long a drain takes at most.
const DRAIN_MAX: Duration = Duration::from_millis(200);

/// What a life begins with.
#[derive(Clone)]
pub(super) struct Birth {
    pub(super) process: ProcessId,
    pub(super) incarnation: Incarnation,
    pub(super) options: Options,
    /// What a forced recovery left.
    pub(super) recovery: Option<RecoveryNote>,
    /// What the node's file says.
    pub(super) spec: Arc<ClusterSpec>,
    pub(super) end: End,
    pub(super) kernel: Kernel,
    pub(super) guardian: Guardian,
    pub(super) sight: Sight,
    pub(super) pace: Pace,
    pub(super) provider: SimProvider,
    pub(super) mistake: Option<Mistake>,
    pub(super) watches: Watches,
    /// Where the node is, and the files of the instances there.
    pub(super) site: SiteName,
    pub(super) files: Files,
    pub(super) meetings: Meetings,
}

/// A node that runs.
#[derive(Clone)]
pub(super) struct Running {
    pub(super) raft: Raft,
    pub(super) brain: Brain,
    pub(super) supervisor: Supervisor,
    pub(super) rooms: Rooms,
    draining: Arc<AtomicBool>,
    changed: Arc<Notify>,
    letting_go: CancellationToken,
    following: Arc<Mutex<Option<JoinHandle<()>>>>,
}

/// Starts everything.
pub(super) async fn begin(birth: Birth, disk: Arc<dyn Disk>) -> Result<Running, StartError> {
    let me = birth.end.node;
    let raft = Raft::prepare(birth.options.clone(), disk, birth.end.clone()).await?;
    let stop = CancellationToken::new();
    let supervisor = Supervisor::new(stop.clone());
    let brain = Brain::start(me, raft.clone(), &supervisor, stop.clone());
    let (quorum, changed, letting_go) =
        (QuorumWatch::default(), Arc::new(Notify::new()), CancellationToken::new());
    let (draining, heard) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(BTreeSet::new())));
    let hands = AllHands::default();
    let errands = Errands::default();
    let rooms = birth.meetings.open(birth.process, &birth.end, &raft, quorum.view());
    let employer = Employer {
        me,
        incarnation: birth.incarnation,
        raft: raft.clone(),
        brain: brain.clone(),
        peers: birth.end.clone(),
        supervisor: supervisor.clone(),
        hands: hands.clone(),
        report_soon: Arc::clone(&changed),
    };
    let (probe_soon, read_soon, announce_again) = (Arc::default(), Arc::default(), Arc::default());
    let here = Here {
        birth: birth.clone(),
        rooms: rooms.clone(),
        probe_soon: Arc::clone(&probe_soon),
        announce_again: Arc::clone(&announce_again),
        random: Executor::random(),
    };
    let follower = Follower::new(employer, quorum.clone(), here);
    let follow = supervisor.passing("what follows the state", follower.run(letting_go.clone()));
    let following = SimRuntime::spawn(follow);
    let (sight, site) = (birth.sight.clone(), birth.site.clone());
    let outside = probe(me, sight.clone(), birth.end.net.clone(), raft.clone(), probe_soon);
    let announced = birth.files.read_back(site.clone(), raft.clone(), Arc::clone(&read_soon));
    let under = Arc::default();
    let observations = Eyes {
        incarnation: birth.incarnation,
        opinions: sight.opinions(),
        outside: outside.clone(),
        announced,
        under: Arc::clone(&under),
        hands: hands.clone(),
        peers_heard: Arc::clone(&heard),
        draining: Arc::clone(&draining),
        changed: Arc::clone(&changed),
        errands: errands.clone(),
        format_max: birth.options.format_max,
        rooms: rooms.clone(),
    };
    go_on_errands(&birth, &raft, &errands, &changed, &supervisor, &stop);
    let files = birth.files.clone();
    let announcing = Announcing {
        me,
        raft: raft.clone(),
        quorum: quorum.clone(),
        hands,
        errands,
        instances: Writer { me, site, files, sight, soon: read_soon, random: Executor::random() },
        outside: Probed(outside),
        under,
        again: announce_again,
    };
    let announcing = announcing.run(stop.clone());
    drop(SimRuntime::spawn(supervisor.lasting("the delivery of announced addresses", announcing)));
    let reporter = Reporter {
        me,
        raft: raft.clone(),
        brain: brain.clone(),
        peers: birth.end.clone(),
        quorum,
        observations,
    };
    drop(SimRuntime::spawn(supervisor.lasting("the reporter", reporter.run(stop.clone()))));
    let listening = listen_to_peers(raft.clone(), birth.end.clone(), heard, stop.clone());
    drop(SimRuntime::spawn(supervisor.lasting("listening to the other nodes", listening)));
    let keeper = Keeper {
        me,
        name: name(me),
        raft: raft.clone(),
        brain: brain.clone(),
        luggage: Luggage { spec: ClusterSpec::clone(&birth.spec), recovery: birth.recovery.clone() },
    };
    drop(SimRuntime::spawn(supervisor.lasting("the keeper of the membership", keeper.run(stop))));
    let desk = Desk { me, peers: birth.end.clone(), brain: brain.clone(), raft: raft.clone() };
    birth.end.net.attach(
        me,
        birth.process,
        Door { inbound: raft.inbound(), desk, sessions: rooms.sessions.clone() },
    );
    drop(SimRuntime::spawn(birth.watches.clone().watch(me, raft.clone(), birth.mistake)));
    raft.take_part();
    let following = Arc::new(Mutex::new(Some(following)));
    Ok(Running { raft, brain, supervisor, rooms, draining, changed, letting_go, following })
}

/// Looks at the provider of every address that it routes, and calls it when the leader says so.
fn go_on_errands(
    birth: &Birth,
    raft: &Raft,
    errands: &Errands,
    changed: &Arc<Notify>,
    supervisor: &Supervisor,
    stop: &CancellationToken,
) {
    let me = birth.end.node;
    for ip in birth.spec.floating_ips.iter().filter(|ip| birth.provider.routes(&ip.name)) {
        let runner = Runner {
            ip: ip.name.clone(),
            me,
            incarnation: birth.incarnation,
            raft: raft.clone(),
            peers: birth.end.clone(),
            api: birth.provider.api(ip.name.clone(), me, birth.kernel.clone()),
            errands: errands.clone(),
            changed: Arc::clone(changed),
        };
        drop(SimRuntime::spawn(supervisor.lasting("errands at a provider", runner.run(stop.clone()))));
    }
}

fn name(node: NodeId) -> NodeName {
    NodeName::new(format!("node-{node}")).expect("it is letters and digits")
}

impl Running {
    /// Ends in good order: leadership, floating IPs, the log.
    pub(super) async fn end(self, me: NodeId) {
        self.draining.store(true, Ordering::Relaxed);
        self.changed.notify_one();
        hand_leadership_over(me, &self.raft).await;
        self.letting_go.cancel();
        let following = self.following.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(following) = following {
            let _killed = following.await;
        }
        self.raft.shutdown().await;
    }
}

/// What follows the state on a simulated machine.
struct Here {
    birth: Birth,
    rooms: Rooms,
    probe_soon: Arc<Notify>,
    announce_again: Arc<Notify>,
    random: fastrand::Rng,
}

impl Surroundings for Here {
    fn begin(&mut self, state: &Arc<State>) {
        self.rooms.hear_of_all(state);
    }

    fn publish(&mut self, _: &Change) {}

    fn configure(&mut self, spec: &ClusterSpec) {
        self.birth.end.know(spec.nodes.iter().map(|node| node.id).collect());
    }

    fn follow(&mut self, _: &State, events: &[Event]) {
        if events.iter().any(|event| matches!(event, Event::OwnerChanged { .. })) {
            self.probe_soon.notify_one();
        }
        self.rooms.hear(events);
        self.announce_again.notify_one();
    }

    fn tools(&mut self, ip: &FloatingIpSpec) -> Option<Tools> {
        let Birth { kernel, guardian, incarnation, pace, mistake, .. } = &self.birth;
        Some(tools(&ip.name, kernel, guardian, *incarnation, *pace, *mistake))
    }

    fn drain(&mut self, _: &FloatingIpName, _: Duration) -> BoxFuture<'static, ()> {
        let takes = Duration::from_nanos(self.random.u64(..=DRAIN_MAX.as_nanos() as u64));
        Box::pin(SimRuntime::sleep(takes))
    }

    fn undrain(&mut self, _: &FloatingIpName) {}
}
