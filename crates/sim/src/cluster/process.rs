//! One life of a node: the real consensus, controller and agents, put together as the program does it, with a
//! simulated machine below.

use super::Mistake;
use super::guardian::Guardian;
use super::holding::{Pace, tools};
use super::kernel::Kernel;
use super::net::{Door, End};
use super::rooms::{Meetings, Rooms};
use super::sight::Sight;
use super::watch::Watches;
use crate::runtime::{Executor, JoinHandle, ProcessId, SimRuntime, spawn};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use twinsite_agents::{
    Agent, Brain, Charge, Desk, FloatingHands, Hands, Identity, Keeper, Luggage, QuorumWatch, RecoveryNote,
    Reporter, Supervisor, hand_leadership_over, listen_to_peers,
};
use twinsite_consensus::{AsyncRuntime, Consensus, Disk, Options, StartError};
use twinsite_controller::election_turn;
use twinsite_model::{ClusterSpec, FloatingIpName, Incarnation, NodeId, NodeName, State, Step, Token};

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
    pub(super) mistake: Option<Mistake>,
    pub(super) watches: Watches,
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
    let hands = Arc::default();
    let rooms = birth.meetings.open(birth.process, &birth.end, &raft, quorum.view());
    let follower = Follower {
        birth: birth.clone(),
        raft: raft.clone(),
        brain: brain.clone(),
        quorum: quorum.clone(),
        rooms: rooms.clone(),
        hands: Arc::clone(&hands),
        changed: Arc::clone(&changed),
        supervisor: supervisor.clone(),
        agents: BTreeMap::new(),
        holding: Vec::new(),
        drains: BTreeMap::new(),
        random: Executor::random(),
    };
    let follow = supervisor.passing("what follows the state", follower.run(letting_go.clone()));
    let following = SimRuntime::spawn(follow);
    let observations = birth.sight.observations(
        rooms.clone(),
        birth.incarnation,
        hands,
        Arc::clone(&heard),
        Arc::clone(&draining),
        Arc::clone(&changed),
    );
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

/// The floating IPs that a node may hold.
pub(super) type AllHands = Arc<Mutex<BTreeMap<FloatingIpName, Arc<FloatingHands>>>>;

/// Brings the agents of a node in line with the replicated state.
struct Follower {
    birth: Birth,
    raft: Raft,
    brain: Brain,
    quorum: QuorumWatch,
    rooms: Rooms,
    hands: AllHands,
    changed: Arc<Notify>,
    supervisor: Supervisor,
    agents: BTreeMap<FloatingIpName, (watch::Sender<Charge>, CancellationToken)>,
    holding: Vec<JoinHandle<()>>,
    drains: BTreeMap<FloatingIpName, Token>,
    random: fastrand::Rng,
}

impl Follower {
    async fn run(mut self, stop: CancellationToken) {
        let (state, mut changes) = self.raft.subscribe();
        self.bring_in_line(&state);
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                change = changes.next() => match change {
                    Ok(change) => {
                        self.bring_in_line(&change.state);
                        self.rooms.hear(if change.skipped { &[] } else { &change.events });
                    }
                    Err(_) if self.raft.status().borrow().stopped.is_some() => break,
                    Err(_) => {
                        let (state, again) = self.raft.subscribe();
                        changes = again;
                        self.bring_in_line(&state);
                    }
                },
            }
        }
        for (_, stop) in self.agents.values() {
            stop.cancel();
        }
        for agent in self.holding {
            let _killed = agent.await;
        }
    }

    fn hands(&self) -> MutexGuard<'_, BTreeMap<FloatingIpName, Arc<FloatingHands>>> {
        self.hands.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn bring_in_line(&mut self, state: &Arc<State>) {
        self.quorum.applied(state);
        let me = self.birth.end.node;
        if let Some(spec) = &state.spec {
            self.birth.end.know(spec.nodes.iter().map(|node| node.id).collect());
            self.appoint(spec);
        }
        if let Some(place) = election_turn(state, me) {
            self.raft.set_election_turn(place);
        }
        self.follow_drains(state);
    }

    /// One agent for each address, as long as this node may own it.
    fn appoint(&mut self, spec: &ClusterSpec) {
        let me = self.birth.end.node;
        let may_own = spec.node(me).is_some_and(|node| node.kind.may_own());
        if !may_own {
            for (charge, _) in self.agents.values() {
                charge.send_replace(None);
            }
            self.hands().clear();
            return;
        }
        for ip in &spec.floating_ips {
            let known = self.hands().get(&ip.name).cloned();
            if let Some(hands) = known {
                hands.set_timing(spec.timing());
                continue;
            }
            let Birth { kernel, guardian, incarnation, pace, mistake, .. } = &self.birth;
            let hands = FloatingHands::start::<SimRuntime>(
                ip.name.clone(),
                Vec::new(),
                spec.timing(),
                tools(&ip.name, kernel, guardian, *incarnation, *pace, *mistake),
                Arc::clone(&self.changed),
                &self.supervisor,
            );
            self.hands().insert(ip.name.clone(), Arc::clone(&hands));
            let charge = watch::Sender::new(Some(hands as Arc<dyn Hands>));
            let identity = Identity { ip: ip.name.clone(), node: me, incarnation: *incarnation };
            let agent = Agent::new(
                identity,
                self.raft.clone(),
                self.brain.clone(),
                self.birth.end.clone(),
                charge.subscribe(),
                spec.timing(),
            );
            let stop = CancellationToken::new();
            let run = self.supervisor.passing("a floating IP's agent", agent.run(stop.clone()));
            self.holding.push(SimRuntime::spawn(run));
            self.agents.insert(ip.name.clone(), (charge, stop));
        }
    }

    /// A planned move begins with the owner running empty, which takes a moment.
    fn follow_drains(&mut self, state: &State) {
        let me = (self.birth.end.node, self.birth.incarnation);
        for (ip, entry) in &state.floating_ips {
            let owner = entry.owner.as_ref().filter(|owner| (owner.node, owner.incarnation) == me);
            let drains = entry.operation.as_ref().is_some_and(|operation| {
                operation.kind.drains() && operation.steps.iter().any(|record| record.step == Step::Drain)
            });
            let wanted = owner.filter(|_| drains).map(|owner| owner.token);
            let Some(hands) = self.hands().get(ip).cloned() else { continue };
            if self.drains.get(ip).copied() == wanted {
                continue;
            }
            let Some(token) = wanted else {
                self.drains.remove(ip);
                hands.set_drained(None);
                continue;
            };
            self.drains.insert(ip.clone(), token);
            let takes = Duration::from_nanos(self.random.u64(..=DRAIN_MAX.as_nanos() as u64));
            let changed = Arc::clone(&self.changed);
            drop(spawn(self.birth.process, async move {
                SimRuntime::sleep(takes).await;
                hands.set_drained(Some(token));
                changed.notify_one();
            }));
        }
    }
}
