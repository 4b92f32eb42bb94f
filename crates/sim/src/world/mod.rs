//! The world of one seed: five machines, the network between them, misfortunes, people, and the checks.

mod checks;
mod consensus;
mod control;
mod ending;
mod holding;
mod lives;
mod misfortunes;
mod network;
mod people;
mod reference;
mod reports;

use crate::clock::{HostClock, TrueTime, nanos};
use crate::coverage::Coverage;
use crate::event::{Agenda, Event, Work};
use crate::host::Host;
use crate::raft::{Pace, Raft};
use crate::scenario::{NODES, Scenario};
use crate::trace::Trace;
use crate::violation::{Rule, Violation};
use reference::Reference;
use std::collections::{BTreeMap, VecDeque};
use twinsite_model::Faults;
use twinsite_model::{FloatingIpName, Incarnation, NodeId, State, Timing, Token};

/// Events of one seed at most: far above what any needs.
const EVENTS_MAX: u64 = 3_000_000;

/// What is simulated, and how closely it is looked at.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// Mistakes that controllers and holders make.
    pub faults: Faults,
    /// Whether to keep the timeline.
    pub timeline: bool,
    /// Whether to look at outcomes only (who answers, what is agreed) and not at how grants come about.
    pub outcomes_only: bool,
}

/// What came of a seed.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The first broken rule.
    pub violation: Option<Violation>,
    /// What the seed went through.
    pub coverage: Coverage,
    /// Tells this run from every other one; the same for the same seed and settings.
    pub hash: u64,
    /// Simulated time, in seconds.
    pub seconds: f64,
    /// What happened, if it was kept.
    pub timeline: Vec<String>,
}

/// The last instant at which a grant of a token lets its holder answer.
#[derive(Debug, Clone, Copy)]
struct Granted {
    node: usize,
    incarnation: Incarnation,
    /// On the holder's undisturbed clock.
    until: u64,
    /// When the newest was given.
    at: TrueTime,
}

pub(crate) struct World {
    scenario: Scenario,
    settings: Settings,
    pace: Pace,
    rng: fastrand::Rng,
    now: TrueTime,
    agenda: Agenda,
    hosts: Vec<Host>,
    ips: Vec<FloatingIpName>,
    /// How many cuts there are from one node to another.
    cut: [[u32; NODES]; NODES],
    cuts: BTreeMap<u64, Vec<(usize, usize)>>,
    cuts_so_far: u64,
    /// Whether each upstream is well, in the order of the specification.
    upstreams: Vec<bool>,
    reference: Reference,
    grants: BTreeMap<(usize, Token), Granted>,
    /// When everything became well.
    healed: Option<TrueTime>,
    /// When every address was first answered for after that, and what had been committed by then.
    recovered: Option<(TrueTime, u64)>,
    retired: Option<NodeId>,
    done: bool,
    coverage: Coverage,
    trace: Trace,
    violation: Option<Violation>,
}

impl World {
    pub(crate) fn new(seed: u64, settings: Settings) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed ^ 0x7477_696e_7369_7465);
        let scenario = Scenario::draw(&mut rng);
        let timing = scenario.spec.timing();
        let hosts = (0..NODES)
            .map(|node| {
                let spec = &scenario.spec.nodes[node];
                let rate = clock_rate(&mut rng, &scenario, &timing);
                Host {
                    id: spec.id,
                    site: spec.site.clone(),
                    kind: spec.kind,
                    clock: HostClock::new(rng.u64(0..1 << 42), rate),
                    up: true,
                    still: None,
                    waiting: VecDeque::new(),
                    raft: Raft::new(node, NODES),
                    state: State::default(),
                    applied: 0,
                    lives: 0,
                    process: None,
                    guarded: BTreeMap::new(),
                }
            })
            .collect();
        Self {
            pace: Pace {
                heartbeat: nanos(timing.heartbeat),
                election_min: nanos(timing.election_min),
                election_max: nanos(timing.election_max),
            },
            ips: scenario.spec.floating_ips.iter().map(|ip| ip.name.clone()).collect(),
            upstreams: vec![true; scenario.spec.upstreams.len()],
            trace: Trace::new(settings.timeline),
            scenario,
            settings,
            rng,
            now: 0,
            agenda: Agenda::default(),
            hosts,
            cut: [[0; NODES]; NODES],
            cuts: BTreeMap::new(),
            cuts_so_far: 0,
            reference: Reference::default(),
            grants: BTreeMap::new(),
            healed: None,
            recovered: None,
            retired: None,
            done: false,
            coverage: Coverage::default(),
            violation: None,
        }
    }

    /// Lives through the whole seed.
    pub(crate) fn run(mut self) -> Outcome {
        self.begin();
        while !self.done && self.violation.is_none() {
            let Some((at, event)) = self.agenda.next() else { break };
            self.now = at;
            self.coverage.events += 1;
            if self.coverage.events > EVENTS_MAX {
                self.violate(Rule::Bounded, || "there is no end of events".to_owned());
            }
            self.happen(event);
            self.check_answers();
        }
        self.trace.mix(&[self.now, self.reference.index(), self.coverage.events]);
        Outcome {
            violation: self.violation,
            coverage: self.coverage,
            hash: self.trace.hash(),
            seconds: self.now as f64 / 1e9,
            timeline: self.trace.into_lines(),
        }
    }

    /// Everybody starts; misfortunes begin when the cluster has had the time to form.
    fn begin(&mut self) {
        let (pace, timing) = (self.pace, self.timing());
        for node in 0..NODES {
            let at = self.rng.u64(0..pace.election_max);
            self.agenda.put(at, Event::Start { node });
        }
        let formed = 6 * pace.election_max;
        self.agenda.put(formed, Event::Misfortune);
        if self.scenario.people.is_some() {
            self.agenda.put(formed, Event::People);
        }
        self.agenda.put(formed + self.scenario.faulty_for, Event::Heal);
        self.trace.note(0, || format!("timing: {timing:?}"));
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Packet { from, to, packet } => self.arrive(from, to, packet),
            Event::Work { node, life, work } => self.work(node, life, work),
            Event::Guardian { node, ip, token, life, tries } => self.guardian(node, ip, token, life, tries),
            Event::Kill { node, since } => self.kill(node, since),
            Event::Start { node } => self.start(node),
            Event::GoOn { node, since } => self.go_on(node, since),
            Event::Misfortune => self.misfortune(),
            Event::Mend { cut } => self.mend(cut),
            Event::UpstreamBack { upstream } => self.upstreams[upstream] = true,
            Event::People => self.people(),
            Event::Heal => self.heal(),
            Event::Look => self.look(),
        }
    }

    /// Something that a process began comes to its end.
    fn work(&mut self, node: usize, life: Incarnation, work: Work) {
        if self.hosts[node].incarnation() != Some(life) {
            return;
        }
        if self.hosts[node].still.is_some() {
            self.hosts[node].waiting.push_back(Event::Work { node, life, work });
            return;
        }
        match work {
            Work::Timer(timer, at) => self.timer(node, timer, at),
            Work::Leadership => self.look_who_leads(node),
            Work::Propose { ticket, term, proposal } => self.propose(node, ticket, term, *proposal),
            Work::ProposalDone { ticket, outcome } => self.proposal_done(node, ticket, *outcome),
            Work::GiveUp { index, ticket } => self.give_up(node, index, ticket),
            Work::RoundDone { round, began, confirmed } => self.round_done(node, round, began, confirmed),
            Work::Apply => self.apply(node),
            Work::Hands(ip) => self.hands_done(node, ip),
            Work::Operator(request) => self.asked(node, *request),
            Work::Leave => self.leave(node),
        }
    }

    /// Something that takes its time on a process.
    fn later(&mut self, node: usize, delay: u64, work: Work) {
        let Some(life) = self.hosts[node].incarnation() else { return };
        self.agenda.put(self.now + delay, Event::Work { node, life, work });
    }

    /// The timing that the scenario begins with.
    fn timing(&self) -> Timing {
        self.scenario.spec.timing()
    }

    fn draw(&mut self, span: impl FnOnce(&Scenario) -> crate::scenario::Span) -> u64 {
        span(&self.scenario).draw(&mut self.rng)
    }

    fn chance(&mut self, chance: f64) -> bool {
        chance > 0.0 && self.rng.f64() < chance
    }

    fn place_of(&self, ip: &FloatingIpName) -> Option<usize> {
        self.ips.iter().position(|known| known == ip)
    }

    fn violate(&mut self, rule: Rule, detail: impl FnOnce() -> String) {
        if self.violation.is_none() {
            let detail = detail();
            self.trace.note(self.now, || format!("VIOLATION {rule:?}: {detail}"));
            self.violation = Some(Violation { rule, at_seconds: self.now as f64 / 1e9, detail });
        }
    }
}

/// The place of a node among the hosts: nodes are numbered from one.
fn place(node: NodeId) -> Option<usize> {
    usize::try_from(node.0).ok()?.checked_sub(1).filter(|place| *place < NODES)
}

fn clock_rate(rng: &mut fastrand::Rng, scenario: &Scenario, timing: &Timing) -> i32 {
    let bound = i32::try_from(timing.drift_ppm).unwrap_or(i32::MAX);
    if scenario.extreme_clocks { if rng.bool() { bound } else { -bound } } else { rng.i32(-bound..=bound) }
}
