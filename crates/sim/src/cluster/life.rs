//! One seed: disasters, then everything is healed and must become well.

use super::Mistake;
use super::addresses::Addresses;
use super::announced;
use super::disaster::Disaster;
use super::disk::SimDisk;
use super::instances::{Files, Written};
use super::misfortunes::Undo;
use super::net::Net;
use super::node::Node;
use super::oracle::Oracle;
use super::people::{Heard, Replacement};
use super::plan::Plan;
use super::process::Birth;
use super::provider::SimProvider;
use super::redis::Redis;
use super::redis_data::Omitted;
use super::rooms::{Meetings, Told};
use super::rooms_check::Fence;
use super::run::{COUNTED, Report, Run};
use super::sight::Sight;
use super::watch::Watches;
use crate::clock::{TrueTime, nanos};
use crate::runtime::{Executor, spawn};
use crate::trace::Trace;
use crate::violation::Rule;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use twinsite_consensus::{ElectionBias, Options, StopReason};
use twinsite_model::spec::NodeKind;
use twinsite_model::{ErrandEnd, Format, NodeId};

pub(super) const MS: TrueTime = 1_000_000;
/// How long misfortunes happen.
const STORMY: TrueTime = 20_000 * MS;

pub(super) struct Life {
    executor: Executor,
    pub(super) random: fastrand::Rng,
    /// Chance of its own, so that the other seeds are what they were before there were drills.
    pub(super) drilling: fastrand::Rng,
    pub(super) plan: Plan,
    pub(super) mistake: Option<Mistake>,
    pub(super) nodes: Vec<Node>,
    pub(super) net: Net,
    pub(super) sight: Sight,
    pub(super) provider: SimProvider,
    pub(super) files: Files,
    pub(super) oracle: Oracle,
    pub(super) addresses: Addresses,
    watches: Watches,
    pub(super) meetings: Meetings,
    pub(super) fence: Fence,
    pub(super) trace: Trace,
    pub(super) heard: Arc<Mutex<Vec<Heard>>>,
    counts: BTreeMap<&'static str, u64>,
    pub(super) requests: u64,
    /// What is undone later: at a time, on a node.
    pub(super) later: BTreeMap<(TrueTime, u64), (usize, Undo)>,
    pub(super) numbers: u64,
    pub(super) disaster: Disaster,
    pub(super) replacement: Option<Replacement>,
    /// Whether somebody has been asked to go on with it, and has not answered.
    pub(super) replacing: bool,
    pub(super) ids: u64,
    /// Misfortunes and wishes so far, and which of them come to pass.
    events: u64,
    only: Option<BTreeSet<u64>>,
}

impl Life {
    pub(super) fn begin(run: &Run) -> Self {
        let mistake = run.mistake;
        let executor = Executor::new(run.seed);
        let mut random = Executor::random();
        let mut plan = Plan::draw(&mut random);
        plan.disk.lies = mistake == Some(Mistake::AcknowledgeBeforeSync);
        plan.disk.loses_votes = mistake == Some(Mistake::VoteNotKept);
        plan.disk.guesses = mistake == Some(Mistake::DamageIsGuessedAt);
        let net = Net::new(plan.weather);
        let routed = plan.spec.floating_ips.iter().filter(|ip| ip.provider.is_routed());
        let provider = SimProvider::new(plan.habits, routed.map(|ip| ip.name.clone()));
        let sight = Sight::new(&plan.spec, provider.clone());
        let known: BTreeSet<_> = plan.spec.nodes.iter().map(|node| node.id).collect();
        let nodes: Vec<_> = known
            .iter()
            .map(|id| {
                let machine = Executor::add_machine(plan.rate(&mut random));
                let disk = SimDisk::new(1_000 + id.0, plan.disk);
                Node::new(*id, machine, disk, &net, known.clone()).reading(plan.format)
            })
            .collect();
        for (node, place) in nodes.iter().zip(&plan.spec.nodes) {
            sight.put(node.id, place.site.clone(), node.kernel.clone());
        }
        let files = Files::new(&plan.spec);
        let meetings = Meetings {
            redis: plan.rooms.redis.then(|| {
                let beside = [nodes[0].id, nodes[nodes.len() / 2].id];
                Redis::new(net.clone(), beside, Omitted::of(mistake))
            }),
            settle: plan.rooms.settle,
            keep_interval: plan.rooms.keep_interval,
            visit_every: plan.rooms.visit_every,
            sight: sight.clone(),
            told: Told::default(),
        };
        let ids = known.last().map_or(0, |id| id.0);
        let mut trace = Trace::new(run.timeline);
        trace.note(0, || plan.describe());
        let ips = plan.spec.floating_ips.iter().map(|ip| ip.name.clone()).collect();
        Self {
            executor,
            random,
            drilling: fastrand::Rng::with_seed(!run.seed),
            plan,
            mistake,
            nodes,
            net,
            sight,
            provider,
            files,
            oracle: Oracle::default(),
            addresses: Addresses::new(ips),
            watches: Watches::default(),
            meetings,
            fence: Fence::default(),
            trace,
            heard: Arc::default(),
            counts: COUNTED.map(|what| (what, 0)).into(),
            requests: 0,
            later: BTreeMap::new(),
            numbers: 0,
            disaster: Disaster::default(),
            replacement: None,
            replacing: false,
            ids,
            events: 0,
            only: run.only.clone(),
        }
    }

    pub(super) fn run(mut self) -> Report {
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
                self.event(Self::misfortune);
                next_misfortune = Executor::now() + self.around(self.plan.every);
            }
        }
        self.heal();
        let well_by = Executor::now() + self.plan.well_within();
        let mut wrong = Some("healed just now".to_owned());
        while wrong.is_some() && Executor::now() < well_by && self.oracle.is_content() {
            self.ask();
            self.pass(20 * MS);
            self.supervise();
            wrong = self.what_is_wrong();
        }
        if let Some(wrong) = wrong.filter(|_| self.oracle.is_content()) {
            let detail = format!("not well in time: {wrong};{}", self.describe());
            self.oracle.report(Rule::Recovers, Executor::now(), detail);
        }
        // Nothing is broken in quiet times either.
        while Executor::now() < well_by && self.oracle.is_content() {
            self.ask();
            let pause = self.around(self.plan.ask_every);
            self.pass(pause);
            self.supervise();
        }
        if let Some(detail) = self.watches.verdict() {
            self.oracle.report(Rule::WatchIsComplete, Executor::now(), detail);
        }
        self.count("addresses taken over", self.addresses.taken_over);
        self.count("elections", self.oracle.elections);
        let (snapshots, in_a_move) = self.watches.snapshots();
        self.count("snapshots installed", snapshots);
        self.count("snapshots installed in the middle of a move", in_a_move);
        self.count("owners that changed during a call", self.oracle.changed_during_a_call);
        self.count_calls();
        self.net.close();
        Report {
            violation: self.oracle.violation(),
            hash: self.trace.hash(),
            timeline: self.trace.into_lines(),
            events: self.events,
            counts: self.counts,
        }
    }

    /// Lets time go by, and looks at everything that happens meanwhile.
    fn pass(&mut self, pause: TrueTime) {
        let until = Executor::now() + pause;
        while Executor::now() < until {
            let next = self.later.keys().next().map_or(until, |(at, _)| until.min(*at));
            let Self { executor, oracle, addresses, nodes, provider, trace, .. } = self;
            executor.run_until(next, || {
                let now = Executor::now();
                oracle.look(nodes, now, trace);
                addresses.look(nodes, now, trace, oracle);
                if let Some(violation) = provider.look(now, trace) {
                    oracle.found(violation);
                }
            });
            self.hear();
            self.read_announcements();
            self.look_at_rooms(Executor::now());
            self.guardians();
            while let Some(entry) = self.later.first_entry().filter(|entry| entry.key().0 <= next) {
                let (node, undo) = entry.remove();
                self.undo(node, undo);
            }
        }
    }

    fn count_calls(&mut self) {
        let counts = self.provider.counts();
        self.count("calls at the provider", counts.calls);
        for (what, end) in [
            ("errands that came to nothing", ErrandEnd::NotMade),
            ("errands that were refused", ErrandEnd::Refused),
            ("errands that were taken", ErrandEnd::Accepted),
            ("errands that were waited out", ErrandEnd::WaitedOut),
            ("errands without an answer", ErrandEnd::Unanswered),
        ] {
            self.count(what, self.watches.errands(end));
        }
        self.count("calls while another task worked", counts.conflicts);
        self.count("answers of the provider that were lost", counts.answers_lost);
        self.count("tasks that failed", counts.tasks_failed);
        self.count("tasks that hung", counts.tasks_hung);
        self.count("tasks that came to pass twice", counts.tasks_twice);
    }

    fn read_announcements(&mut self) {
        let (written, late) = self.files.take_written();
        let now = Executor::now();
        for written in &written {
            let Written { upstream, by, wanted, .. } = written;
            self.trace.mix(&[now, by.0, wanted.token.epoch.0]);
            self.trace
                .note(now, || format!("{by} tells {upstream} {} under {}", wanted.address, wanted.token));
            announced::look(written, &self.plan.spec, (&self.provider, &self.sight), now, &mut self.oracle);
        }
        self.count("announcements written", written.len() as u64);
        self.count("announcements that came too late", late);
    }

    /// A misfortune or a wish, unless it is left out. It has chance of its own, so that leaving it out changes nothing
    /// about the others.
    pub(super) fn event(&mut self, happens: impl FnOnce(&mut Self, u64)) {
        self.events += 1;
        let number = self.events;
        let own = self.random.fork();
        if self.only.as_ref().is_some_and(|only| !only.contains(&number)) {
            return;
        }
        let everybodys = std::mem::replace(&mut self.random, own);
        happens(self, number);
        self.random = everybodys;
    }

    pub(super) fn around(&mut self, pause: Duration) -> TrueTime {
        self.random.u64(1..=2 * nanos(pause))
    }

    pub(super) fn count(&mut self, what: &'static str, times: u64) {
        *self.counts.get_mut(what).expect("everything that is counted is in the list") += times;
    }

    pub(super) fn note(&mut self, line: impl FnOnce() -> String) {
        self.trace.note(Executor::now(), line);
    }

    pub(super) fn start(&mut self, node: usize) {
        let id = self.nodes[node].id;
        let spec = Arc::clone(&self.plan.spec);
        let mut options = Options::new(spec.cluster.clone(), id, spec.timing());
        options.format_max = self.nodes[node].format;
        options.snapshot_after = self.plan.snapshot_after;
        options.keep_after_snapshot = self.plan.snapshot_after / 4;
        if self.is_witness(id) {
            options.bias = ElectionBias::Reluctant;
        }
        self.note(|| format!("{id} starts"));
        let (sight, pace, mistake) = (self.sight.clone(), self.plan.pace, self.mistake);
        let (watches, provider, meetings) =
            (self.watches.clone(), self.provider.clone(), self.meetings.clone());
        let note = self.disaster.note.as_ref().filter(|(survivor, _)| *survivor == node);
        let recovery = note.map(|(_, note)| note.clone());
        let (site, files) = (spec.nodes[node].site.clone(), self.files.clone());
        let (kernel, end) = (self.nodes[node].kernel.clone(), self.nodes[node].end.clone());
        self.nodes[node].start(mistake, |process, incarnation, guardian| Birth {
            process,
            incarnation,
            options,
            recovery,
            spec,
            end,
            kernel,
            guardian,
            sight,
            pace,
            provider,
            mistake,
            watches,
            site,
            files,
            meetings,
        });
    }

    fn is_witness(&self, id: NodeId) -> bool {
        self.plan.spec.node(id).is_some_and(|node| node.kind == NodeKind::Witness)
    }

    fn initialize(&mut self) {
        let voters = self.plan.spec.nodes.iter().map(|node| (node.id, node.peer.to_string())).collect();
        self.pass(500 * MS);
        let (Some(raft), Some(process)) = (self.nodes[0].raft(), self.nodes[0].process) else { return };
        drop(spawn(process, async move { raft.initialize(&voters).await }));
        self.pass(500 * MS);
    }

    /// Guardians end nodes that hang.
    fn guardians(&mut self) {
        for node in 0..self.nodes.len() {
            if self.nodes[node].hangs() && self.nodes[node].process.is_some() {
                let id = self.nodes[node].id;
                self.note(|| format!("the guardian of {id} ends it"));
                self.count("hung nodes ended by their guardians", 1);
                self.crash(node);
            }
        }
    }

    /// Whoever has stopped, as on a full disk, ends and is started again.
    fn supervise(&mut self) {
        for node in 0..self.nodes.len() {
            if let Some(why) = self.nodes[node].broken() {
                let id = self.nodes[node].id;
                self.oracle.report(Rule::NoPanic, Executor::now(), format!("{id}: {why}"));
            }
            if self.nodes[node].has_ended() {
                self.count("nodes that ended in good order", 1);
                self.crash(node);
            } else if self.nodes[node].is_damaged() {
                // Nothing is repaired by guessing: a person gives it a new disk.
                self.replace_disk(node);
            } else if self.has_stopped(node) {
                self.check_stop(node);
                self.count("nodes that stopped", 1);
                self.crash(node);
            }
        }
    }

    /// Whatever stops a node, it is not that it cannot read what others wrote.
    fn check_stop(&mut self, node: usize) {
        let (id, node) = (self.nodes[node].id, &self.nodes[node]);
        let stopped = node.peek(|raft| raft.status().borrow().stopped.clone()).flatten();
        if let Some(StopReason::Undecodable { why, .. }) = stopped {
            self.oracle.report(Rule::Readable, Executor::now(), format!("{id}: {why}"));
        }
    }

    pub(super) fn has_stopped(&self, node: usize) -> bool {
        let node = &self.nodes[node];
        let stopped = node.raft().is_some_and(|raft| raft.status().borrow().stopped.is_some());
        node.refusal().is_some() || stopped
    }

    fn heal(&mut self) {
        self.note(|| "everything is healed".to_owned());
        self.plan.wishes = 0;
        self.plan.habits.restless = 0;
        self.later.clear();
        self.net.heal();
        self.provider.heal();
        if let Some(redis) = &self.meetings.redis {
            redis.heal();
        }
        self.sight.change(|health| health.values_mut().for_each(|healthy| *healthy = true));
        for node in 0..self.nodes.len() {
            self.go_on(node);
            self.nodes[node].freeze(false);
            Executor::change_clock(self.nodes[node].machine, |clock, _| clock.set_wall_error(0));
            let health = self.plan.disk;
            self.nodes[node].disk.set_health(|present| *present = health);
            let upgrades = self.nodes[node].runs_format < Format::NEWEST;
            self.nodes[node].format = Format::NEWEST;
            if upgrades || self.has_stopped(node) || self.nodes[node].has_ended() {
                self.nodes[node].kill(Duration::ZERO);
            }
            if self.nodes[node].process.is_none() && self.disaster.allows(node) {
                self.start(node);
            }
        }
    }

    /// Whether a move of an address is under way, as this node knows it.
    pub(super) fn is_moving(&self, node: usize) -> bool {
        let state = self.nodes[node].raft().map(|raft| raft.state());
        state.is_some_and(|state| state.floating_ips.values().any(|entry| entry.operation.is_some()))
    }
}
