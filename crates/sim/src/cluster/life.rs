//! One seed: disasters, then everything is healed and must become well.

use super::Mistake;
use super::disk::SimDisk;
use super::net::Net;
use super::node::{Node, Raft};
use super::oracle::Oracle;
use super::plan::{Misfortune, Plan};
use super::replacement::{Progress, Replacement};
use crate::clock::{TrueTime, nanos};
use crate::runtime::{Executor, ProcessId, spawn};
use crate::trace::Trace;
use crate::violation::{Rule, Violation};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::runtime::RngSeed;
use tokio::task::unconstrained;
use twinsite_consensus::{MembershipError, Options};
use twinsite_model::{
    ClusterName, Command, NodeId, Profile, Proposal, RequestId, Revision, Timing, WallTime,
};

const MS: TrueTime = 1_000_000;
/// How long misfortunes happen.
const STORMY: TrueTime = 20_000 * MS;
/// How soon everything must be well afterwards.
const WELL_WITHIN: TrueTime = 10_000 * MS;
/// How long a stopped node lies there before its supervisor starts it again, at most.
const RESTART_MAX: TrueTime = 2_000 * MS;
/// What a slow disk takes for a sync: longer than the voters' lease.
const SLOW_SYNC: Duration = Duration::from_millis(400);

/// Everything that is counted, and that must come up in a hundred seeds.
const COUNTED: [&str; 22] = [
    "batches lost in a crash",
    "clocks that changed",
    "commands acknowledged",
    "commands of unknown outcome",
    "commands refused",
    "crashes",
    "crashes of all",
    "elections",
    "freezes",
    "full disks",
    "isolated nodes",
    "lost disks",
    "machines that stood still",
    "nodes that stopped",
    "one-way cuts",
    "reads answered",
    "reads refused",
    "replaced nodes",
    "revisions skipped by snapshots",
    "slow disks",
    "splits",
    "steps of a replacement that were tried again",
];

/// What came of a seed.
#[derive(Debug)]
pub struct Report {
    /// What was broken, if anything.
    pub violation: Option<Violation>,
    /// The same for the same seed, whenever and wherever it runs.
    pub hash: u64,
    /// What happened, on demand.
    pub timeline: Vec<String>,
    /// How often things came up; what did not is there with zero.
    pub counts: BTreeMap<&'static str, u64>,
}

/// What clients hear, put down by their tasks and read by the simulation.
enum Heard {
    Acknowledged(RequestId, Revision),
    Unknown,
    Refused,
    Read { node: NodeId, floor: Revision, revision: Revision },
    NotRead,
    Replaced(Progress),
}

struct Life {
    executor: Executor,
    random: fastrand::Rng,
    plan: Plan,
    mistake: Option<Mistake>,
    nodes: Vec<Node>,
    net: Net,
    oracle: Oracle,
    trace: Trace,
    heard: Arc<Mutex<Vec<Heard>>>,
    counts: BTreeMap<&'static str, u64>,
    requests: u64,
    /// What is undone later: at a time, on a node.
    later: BTreeMap<(TrueTime, u64), (usize, Undo)>,
    numbers: u64,
    replacement: Option<Replacement>,
    /// Whether somebody has been asked to go on with it, and has not answered.
    replacing: bool,
    ids: u64,
}

#[derive(Debug, Clone, Copy)]
enum Undo {
    Start,
    Thaw,
    GoOn,
    CutOne(NodeId, NodeId),
    Rejoin,
    FastDisk,
}

/// Lives through one seed.
///
/// Inside a tokio runtime that does nothing itself: tokio's channels draw lots about whom they wake first, from the
/// seed of the runtime that is entered.
pub fn live(seed: u64, mistake: Option<Mistake>, timeline: bool) -> Report {
    let lots = RngSeed::from_bytes(&seed.to_le_bytes());
    let runtime = tokio::runtime::Builder::new_current_thread().rng_seed(lots).build();
    let runtime = runtime.expect("without drivers it needs nothing of the system");
    // Not by tokio's measure of fairness, which would make our tasks wait for a turn that it never gives.
    runtime.block_on(unconstrained(async { Life::begin(seed, mistake, timeline).run() }))
}

impl Life {
    fn begin(seed: u64, mistake: Option<Mistake>, timeline: bool) -> Self {
        let executor = Executor::new(seed);
        let mut random = Executor::random();
        let mut plan = Plan::draw(&mut random);
        plan.disk.lies = mistake == Some(Mistake::AcknowledgeBeforeSync);
        let net = Net::new(plan.weather);
        let nodes = (1..=plan.nodes)
            .map(|id| {
                let machine = Executor::add_machine(random.i32(-plan.drift_ppm..=plan.drift_ppm));
                Node::new(NodeId(id), machine, SimDisk::new(1_000 + id, plan.disk), net.clone())
            })
            .collect();
        let ids = plan.nodes;
        let mut trace = Trace::new(timeline);
        trace.note(0, || format!("{plan:?}"));
        Self {
            executor,
            random,
            plan,
            mistake,
            nodes,
            net,
            oracle: Oracle::default(),
            trace,
            heard: Arc::default(),
            counts: COUNTED.map(|what| (what, 0)).into(),
            requests: 0,
            later: BTreeMap::new(),
            numbers: 0,
            replacement: None,
            replacing: false,
            ids,
        }
    }

    fn run(mut self) -> Report {
        for node in 0..self.nodes.len() {
            self.start(node);
        }
        self.initialize();
        let mut next_misfortune = 2_000 * MS;
        while Executor::now() < STORMY && self.oracle.is_content() {
            self.ask();
            let pause = self.around(self.plan.ask_every);
            self.pass(pause);
            self.supervise();
            if Executor::now() >= next_misfortune {
                self.misfortune();
                next_misfortune = Executor::now() + self.around(self.plan.every);
            }
        }
        self.heal();
        let well_by = Executor::now() + WELL_WITHIN;
        let mut well = false;
        while !well && Executor::now() < well_by && self.oracle.is_content() {
            self.ask();
            self.pass(20 * MS);
            self.supervise();
            well = self.is_well();
        }
        if !well && self.oracle.is_content() {
            let detail = self.describe();
            self.oracle.report(Rule::Recovers, Executor::now(), detail);
        }
        self.count("elections", self.oracle.elections);
        self.count("revisions skipped by snapshots", self.oracle.snapshots);
        Report {
            violation: self.oracle.violation(),
            hash: self.trace.hash(),
            timeline: self.trace.into_lines(),
            counts: self.counts,
        }
    }

    /// Lets time go by, and looks at everything that happens meanwhile.
    fn pass(&mut self, pause: TrueTime) {
        let until = Executor::now() + pause;
        while Executor::now() < until {
            let next = self.later.keys().next().map_or(until, |(at, _)| until.min(*at));
            let Self { executor, oracle, nodes, trace, .. } = self;
            executor.run_until(next, || oracle.look(nodes, Executor::now(), trace));
            self.hear();
            while let Some(entry) = self.later.first_entry().filter(|entry| entry.key().0 <= next) {
                let (node, undo) = entry.remove();
                self.undo(node, undo);
            }
        }
    }

    fn around(&mut self, pause: Duration) -> TrueTime {
        self.random.u64(1..=2 * nanos(pause))
    }

    fn count(&mut self, what: &'static str, times: u64) {
        *self.counts.get_mut(what).expect("everything that is counted is in the list") += times;
    }

    fn note(&mut self, line: impl FnOnce() -> String) {
        self.trace.note(Executor::now(), line);
    }

    fn start(&mut self, node: usize) {
        let id = self.nodes[node].id;
        let cluster = ClusterName::new("sim").expect("it is letters");
        let mut options = Options::new(cluster, id, Timing::of(Profile::Lan));
        options.snapshot_after = self.plan.snapshot_after;
        options.keep_after_snapshot = self.plan.snapshot_after / 4;
        self.note(|| format!("{id} starts"));
        self.nodes[node].start(options);
    }

    fn initialize(&mut self) {
        let members = self.nodes.iter().map(|node| (node.id, format!("{}", node.id))).collect();
        self.pass(500 * MS);
        let (Some(raft), Some(process)) = (self.nodes[0].raft(), self.nodes[0].process) else { return };
        drop(spawn(process, async move { raft.initialize(&members).await }));
        self.pass(500 * MS);
    }

    /// Somebody asks a node for something.
    fn ask(&mut self) {
        self.replace();
        let node = self.random.usize(..self.nodes.len());
        let (id, process) = (self.nodes[node].id, self.nodes[node].process);
        let (Some(raft), Some(process)) = (self.nodes[node].raft(), process) else { return };
        let heard = Arc::clone(&self.heard);
        let tell = move |what| heard.lock().unwrap_or_else(PoisonError::into_inner).push(what);
        if self.random.u32(..3) == 0 {
            let floor = self.oracle.acknowledged();
            let mistake = self.mistake;
            drop(spawn(process, async move { tell(read(&raft, id, floor, mistake).await) }));
        } else {
            self.requests += 1;
            let request = RequestId::new(format!("r{}", self.requests)).expect("a short one");
            drop(spawn(process, async move { tell(propose(&raft, request).await) }));
        }
    }

    fn hear(&mut self) {
        let heard = std::mem::take(&mut *self.heard.lock().unwrap_or_else(PoisonError::into_inner));
        let now = Executor::now();
        for heard in heard {
            let what = match heard {
                Heard::Acknowledged(request, revision) => {
                    self.trace.mix(&[now, revision.0]);
                    self.oracle.acknowledge(request, revision, now);
                    "commands acknowledged"
                }
                Heard::Read { node, floor, revision } => {
                    self.oracle.read(node, floor, revision, now);
                    "reads answered"
                }
                Heard::Unknown => "commands of unknown outcome",
                Heard::Refused => "commands refused",
                Heard::NotRead => "reads refused",
                Heard::Replaced(Progress::NotYet(_)) => {
                    self.replacing = false;
                    "steps of a replacement that were tried again"
                }
                Heard::Replaced(Progress::Done) => {
                    self.replacing = false;
                    self.replacement = None;
                    "replaced nodes"
                }
            };
            self.count(what, 1);
        }
    }

    fn misfortune(&mut self) {
        if self.plan.misfortunes.is_empty() {
            return;
        }
        let which = self.plan.misfortunes[self.random.usize(..self.plan.misfortunes.len())];
        let node = self.random.usize(..self.nodes.len());
        let id = self.nodes[node].id;
        self.note(|| format!("{which:?} ({id})"));
        self.count(name(which), 1);
        match which {
            Misfortune::Crash => self.crash(node),
            Misfortune::CrashOfAll => (0..self.nodes.len()).for_each(|node| self.crash(node)),
            Misfortune::Freeze => {
                self.nodes[node].freeze(true);
                self.undo_later(node, Undo::Thaw, 3_000 * MS);
            }
            Misfortune::StandStill => {
                Executor::hold_still(self.nodes[node].machine, true);
                self.undo_later(node, Undo::GoOn, 3_000 * MS);
            }
            Misfortune::Drift => {
                let rate = self.random.i32(-self.plan.drift_ppm..=self.plan.drift_ppm);
                Executor::change_clock(self.nodes[node].machine, |clock, now| clock.set_rate(now, rate));
            }
            Misfortune::OneWayCut => {
                let other = self.nodes[self.random.usize(..self.nodes.len())].id;
                self.net.cut(id, other, true);
                self.undo_later(node, Undo::CutOne(id, other), 4_000 * MS);
            }
            Misfortune::Isolation => {
                self.split(&[id]);
                self.undo_later(node, Undo::Rejoin, 4_000 * MS);
            }
            Misfortune::Split => {
                let part: Vec<_> = self.nodes.iter().map(|node| node.id).collect();
                let part: Vec<_> = part.into_iter().filter(|_| self.random.bool()).collect();
                self.split(&part);
                self.undo_later(node, Undo::Rejoin, 4_000 * MS);
            }
            Misfortune::SlowDisk => {
                self.nodes[node].disk.set_health(|health| health.sync_max = SLOW_SYNC);
                self.undo_later(node, Undo::FastDisk, 4_000 * MS);
            }
            Misfortune::FullDisk => {
                self.nodes[node].disk.set_health(|health| health.is_full = true);
                self.undo_later(node, Undo::FastDisk, 2_000 * MS);
            }
            Misfortune::LostDisk => self.lose_disk(node),
        }
    }

    fn crash(&mut self, node: usize) {
        if self.nodes[node].process.is_some() {
            let lost = self.nodes[node].kill();
            self.count("batches lost in a crash", lost as u64);
            self.undo_later(node, Undo::Start, RESTART_MAX);
        }
    }

    /// Not before the last one is replaced: two of three would be a loss of the quorum for good.
    fn lose_disk(&mut self, node: usize) {
        if self.replacement.is_some() || self.requests == 0 {
            return;
        }
        self.ids += 1;
        let (old, new) = (self.nodes[node].id, NodeId(self.ids));
        self.nodes[node].kill();
        let disk = SimDisk::new(1_000 + self.ids, self.plan.disk);
        self.nodes[node] = Node::new(new, self.nodes[node].machine, disk, self.net.clone());
        self.note(|| format!("{old} has lost its disk and joins again as {new}"));
        self.replacement = Some(Replacement { old, new });
        self.undo_later(node, Undo::Start, RESTART_MAX);
    }

    /// Whoever believes to lead is asked to go on with a replacement.
    fn replace(&mut self) {
        let Some(replacement) = self.replacement.filter(|_| !self.replacing) else { return };
        let leads = |node: &&Node| node.raft().is_some_and(|raft| raft.status().borrow().is_leader);
        let leader = self.nodes.iter().find(leads).and_then(|node| Some((node.raft()?, node.process?)));
        let Some((raft, process)) = leader else { return };
        self.replacing = true;
        let heard = Arc::clone(&self.heard);
        let answer = spawn(process, async move { replacement.go_on(&raft).await });
        drop(spawn(ProcessId::WORLD, async move {
            let progress = answer.await.unwrap_or(Progress::NotYet(MembershipError::OutcomeUnknown));
            heard.lock().unwrap_or_else(PoisonError::into_inner).push(Heard::Replaced(progress));
        }));
    }

    fn split(&mut self, part: &[NodeId]) {
        let ids: Vec<_> = self.nodes.iter().map(|node| node.id).collect();
        for from in &ids {
            for to in &ids {
                if part.contains(from) != part.contains(to) {
                    self.net.cut(*from, *to, true);
                }
            }
        }
    }

    fn undo_later(&mut self, node: usize, undo: Undo, within: TrueTime) {
        self.numbers += 1;
        let at = Executor::now() + self.random.u64(MS..=within);
        self.later.insert((at, self.numbers), (node, undo));
    }

    fn undo(&mut self, node: usize, undo: Undo) {
        let id = self.nodes[node].id;
        self.note(|| format!("{undo:?} ({id})"));
        match undo {
            Undo::Start if self.nodes[node].process.is_none() => self.start(node),
            Undo::Start => {}
            Undo::Thaw => self.nodes[node].freeze(false),
            Undo::GoOn => Executor::hold_still(self.nodes[node].machine, false),
            Undo::CutOne(from, to) => self.net.cut(from, to, false),
            Undo::Rejoin => self.net.mend(),
            Undo::FastDisk => {
                let health = self.plan.disk;
                self.nodes[node].disk.set_health(|present| *present = health);
            }
        }
    }

    /// Whoever has stopped, as on a full disk, ends and is started again.
    fn supervise(&mut self) {
        for node in 0..self.nodes.len() {
            if self.has_stopped(node) {
                self.count("nodes that stopped", 1);
                self.crash(node);
            }
        }
    }

    fn has_stopped(&self, node: usize) -> bool {
        let node = &self.nodes[node];
        let stopped = |raft: Raft| raft.status().borrow().stopped.is_some();
        node.refusal().is_some() || node.raft().is_some_and(stopped)
    }

    fn heal(&mut self) {
        self.note(|| "everything is healed".to_owned());
        self.later.clear();
        self.net.heal();
        for node in 0..self.nodes.len() {
            Executor::hold_still(self.nodes[node].machine, false);
            self.nodes[node].freeze(false);
            let health = self.plan.disk;
            self.nodes[node].disk.set_health(|present| *present = health);
            if self.has_stopped(node) {
                self.nodes[node].kill();
            }
            if self.nodes[node].process.is_none() {
                self.start(node);
            }
        }
    }

    /// One leads, and everybody has what was acknowledged last.
    fn is_well(&self) -> bool {
        let rafts: Vec<_> = self.nodes.iter().filter_map(Node::raft).collect();
        let leaders = rafts.iter().filter(|raft| raft.status().borrow().is_leader).count();
        let acknowledged = self.oracle.acknowledged();
        let newest = rafts.iter().map(|raft| raft.state().revision).max().unwrap_or_default();
        let caught_up = rafts.iter().all(|raft| raft.state().revision == newest);
        self.replacement.is_none()
            && rafts.len() == self.nodes.len()
            && leaders == 1
            && caught_up
            && newest >= acknowledged
    }

    fn describe(&self) -> String {
        let mut text = "not well in time:".to_owned();
        for node in &self.nodes {
            let id = node.id;
            let what = match (node.raft(), node.refusal()) {
                (Some(raft), _) => {
                    let status = raft.status().borrow().clone();
                    format!(
                        "{} of term {}, state {}, stopped {:?}",
                        if status.is_leader { "leader" } else { "follower" },
                        status.term,
                        raft.state().revision,
                        status.stopped
                    )
                }
                (None, Some(refusal)) => refusal,
                (None, None) => "starting".to_owned(),
            };
            text.push_str(&format!(" {id}: {what};"));
        }
        text
    }
}

const fn name(misfortune: Misfortune) -> &'static str {
    match misfortune {
        Misfortune::Crash => "crashes",
        Misfortune::CrashOfAll => "crashes of all",
        Misfortune::Freeze => "freezes",
        Misfortune::StandStill => "machines that stood still",
        Misfortune::Drift => "clocks that changed",
        Misfortune::OneWayCut => "one-way cuts",
        Misfortune::Isolation => "isolated nodes",
        Misfortune::Split => "splits",
        Misfortune::SlowDisk => "slow disks",
        Misfortune::FullDisk => "full disks",
        Misfortune::LostDisk => "lost disks",
    }
}

async fn propose(raft: &Raft, request: RequestId) -> Heard {
    let proposal = Proposal {
        at: WallTime(1_700_000_000_000),
        by: "sim".to_owned(),
        request: Some(request.clone()),
        expected_revision: None,
        command: Command::Pause { until: WallTime(1_700_000_100_000), reason: format!("{request:?}") },
    };
    match raft.propose(&proposal).await {
        Ok(applied) => Heard::Acknowledged(request, applied.revision),
        Err(twinsite_consensus::ProposeError::OutcomeUnknown) => Heard::Unknown,
        Err(_) => Heard::Refused,
    }
}

async fn read(raft: &Raft, node: NodeId, floor: Revision, mistake: Option<Mistake>) -> Heard {
    if mistake == Some(Mistake::TrustTheFlag) && raft.status().borrow().is_leader {
        return Heard::Read { node, floor, revision: raft.state().revision };
    }
    let Ok(index) = raft.read_index().await else { return Heard::NotRead };
    if mistake == Some(Mistake::ReadBeforeApplied) {
        return Heard::Read { node, floor, revision: raft.state().revision };
    }
    match raft.wait_applied(index, Duration::from_secs(2)).await {
        Ok(()) => Heard::Read { node, floor, revision: raft.state().revision },
        Err(_) => Heard::NotRead,
    }
}
