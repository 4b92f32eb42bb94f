//! A small cluster around one controller: the log applies at once, every quorum round succeeds, nodes report what the
//! state asks of them, and time passes in steps. Tests take away what they like.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use twinsite_controller::{
    CallId, Controller, Effect, Explanation, FloatingIpView, Input, MoveKind, MoveRequest, MoveTarget,
    NodeReport, Notice, OperatorAction, OperatorAnswer, OperatorRefusal, OperatorRequest, OutsideView, Plan,
    Release, ReleasedBy, Renewal, RenewalAnswer, RoutingView, UpstreamView,
};
use twinsite_model::spec::{SessionsSpec, from_toml};
use twinsite_model::state::FloatingIpState;
use twinsite_model::{
    BootTime, ClusterSpec, Command, ErrandEnd, ErrandId, FloatingIpName, Format, HardwareAddress,
    Incarnation, NodeId, Operation, Owner, Profile, Proposal, SafetyRule, State, Step, WallTime,
};

/// How far one step of time goes.
const STEP: Duration = Duration::from_millis(5);
/// Reports and renewals come so often.
const BEAT: Duration = Duration::from_millis(25);
/// What the wall clocks show at the beginning, in milliseconds.
const WALL: u64 = 1_800_000_000_000;

pub(crate) const GRA_1: NodeId = NodeId(1);
pub(crate) const GRA_2: NodeId = NodeId(2);
pub(crate) const SBG_1: NodeId = NodeId(3);
pub(crate) const SBG_2: NodeId = NodeId(4);
pub(crate) const WITNESS: NodeId = NodeId(5);

/// The example's specification, with quick timings and nothing but what the controller needs.
pub(crate) fn spec() -> ClusterSpec {
    let mut spec = from_toml(include_str!("../../../../deploy/example/cluster.toml")).unwrap();
    spec.profile = Profile::Lan;
    spec.sessions = SessionsSpec::default();
    spec
}

pub(crate) fn ip() -> FloatingIpName {
    "public".parse().unwrap()
}

/// A provider that routes the address, as it is and as nodes see it.
#[derive(Debug, Default)]
pub(crate) struct Provider {
    /// Where it routes the address.
    pub(crate) to: Option<NodeId>,
    /// Whether a task is unfinished.
    pub(crate) busy: bool,
    /// Nodes that do not reach it.
    pub(crate) unseen_by: BTreeSet<NodeId>,
    /// Whether calls reach it and are answered.
    pub(crate) serves: bool,
    /// Whether what it takes on is under way until the test says otherwise.
    pub(crate) slow: bool,
    /// Whether it says no.
    pub(crate) refuses: bool,
    /// What nodes say of their errands.
    ended: BTreeMap<NodeId, (ErrandId, ErrandEnd)>,
}

pub(crate) struct Cluster {
    pub(crate) state: State,
    /// Milliseconds that the leader's wall clock is ahead of true time.
    pub(crate) wall_ahead: u64,
    /// Upstreams that every node finds bad.
    pub(crate) sick: BTreeSet<String>,
    /// Nodes of which nothing is heard.
    pub(crate) silent: BTreeSet<NodeId>,
    /// Nodes that a person empties.
    pub(crate) emptied: BTreeSet<NodeId>,
    /// Whether anybody looks at the address from outside.
    pub(crate) outside: bool,
    /// A host that is no node and answers for the address, as the owner sees it.
    pub(crate) stranger: Option<HardwareAddress>,
    /// Whether owners finish draining.
    pub(crate) drains: bool,
    /// Whether owners that lost the right to renew say that they have let go.
    pub(crate) lets_go: bool,
    /// Whoever routes the address, if it is routed.
    pub(crate) provider: Provider,
    /// What was said.
    pub(crate) notices: Vec<Notice>,
    /// What was proposed, in order.
    pub(crate) proposed: Vec<Command>,
    /// When the owner was last granted time.
    pub(crate) granted_at: Duration,
    pub(crate) now: Duration,
    /// While set, the controller is shown this state, however much is agreed, and hears of nothing new.
    behind: Option<State>,
    /// What it wanted meanwhile.
    held: Vec<Effect>,
    leader: Controller,
    term: u64,
    index: u64,
    numbers: u64,
    answers: BTreeMap<CallId, Result<OperatorAnswer, OperatorRefusal>>,
}

impl Provider {
    /// A node goes on its errand, if it is sent on one, and looks.
    fn as_seen(
        &mut self,
        node: NodeId,
        entry: &FloatingIpState,
    ) -> (Option<RoutingView>, Option<(ErrandId, ErrandEnd)>) {
        let sent = entry.errand.as_ref().filter(|errand| errand.by == node && self.serves);
        if let Some(errand) =
            sent.filter(|errand| self.ended.get(&node).is_none_or(|last| last.0 < errand.id))
        {
            let end = match (errand.recalled, self.refuses) {
                (true, _) => ErrandEnd::NotMade,
                (false, true) => ErrandEnd::Refused,
                (false, false) => ErrandEnd::Accepted,
            };
            if end == ErrandEnd::Accepted && self.slow {
                self.busy = true;
            } else if end == ErrandEnd::Accepted {
                self.to = Some(errand.to);
            }
            self.ended.insert(node, (errand.id, end));
        }
        let after = ErrandId(entry.errands.0 - u64::from(entry.errand.is_some()));
        (Some(RoutingView { to: self.to, busy: self.busy, after }), self.ended.get(&node).copied())
    }
}

impl Cluster {
    /// Everybody lives, the witness leads, and the address is held at the preferred site.
    pub(crate) fn new(change: impl FnOnce(&mut ClusterSpec)) -> Self {
        let mut cluster = Self::unplaced(change);
        cluster.run_until("the address is placed", Self::is_settled);
        cluster
    }

    /// The same before anything was decided.
    pub(crate) fn unplaced(change: impl FnOnce(&mut ClusterSpec)) -> Self {
        let mut cluster = Self {
            state: State::default(),
            wall_ahead: 0,
            sick: BTreeSet::new(),
            silent: BTreeSet::new(),
            emptied: BTreeSet::new(),
            outside: true,
            stranger: None,
            drains: true,
            lets_go: true,
            provider: Provider { serves: true, ..Provider::default() },
            notices: Vec::new(),
            proposed: Vec::new(),
            granted_at: Duration::ZERO,
            now: Duration::from_secs(1_000),
            behind: None,
            held: Vec::new(),
            leader: Controller::new(WITNESS),
            term: 0,
            index: 0,
            numbers: 0,
            answers: BTreeMap::new(),
        };
        let mut spec = spec();
        change(&mut spec);
        cluster.agree(Command::ApplySpec { spec: Arc::new(spec) });
        for node in 1..=5 {
            cluster.lives(NodeId(node), node * 100);
        }
        cluster.elect();
        cluster
    }

    /// A new leader, which knows what is agreed and nothing else.
    pub(crate) fn elect(&mut self) {
        self.leader = Controller::new(WITNESS);
        self.term += 1;
        self.tell(Input::BecameLeader { term: self.term });
    }

    /// A node begins a new life.
    pub(crate) fn lives(&mut self, node: NodeId, incarnation: u64) {
        self.agree(Command::RecordLife {
            node,
            incarnation: Incarnation(incarnation),
            format_max: Format::NEWEST,
            version: "test".to_owned(),
        });
    }

    /// Something is agreed without the leader's doing.
    pub(crate) fn agree(&mut self, command: Command) {
        self.index += 1;
        let applied = self.state.apply(self.index, &Proposal::by_controller(self.wall(), command));
        assert!(applied.result.is_ok(), "{:?}", applied.result);
        if self.term > 0 {
            self.tell(Input::Applied);
        }
    }

    pub(crate) fn wall(&self) -> WallTime {
        WallTime(WALL + self.wall_ahead).plus(self.now)
    }

    /// The leader is told something, and everything that follows from it at once happens.
    pub(crate) fn tell(&mut self, input: Input) {
        let mut inputs = vec![input];
        while let Some(input) = inputs.pop() {
            let (now, wall) = (BootTime(self.now), self.wall());
            let shown = self.behind.as_ref().unwrap_or(&self.state);
            let effects = self.leader.step(now, wall, shown, input);
            if self.behind.is_some() {
                self.held.extend(effects);
            } else {
                self.carry_out(effects, &mut inputs);
            }
        }
    }

    fn carry_out(&mut self, effects: Vec<Effect>, inputs: &mut Vec<Input>) {
        for effect in effects {
            match effect {
                Effect::Propose { ticket, proposal, .. } => {
                    self.proposed.push(proposal.command.clone());
                    self.index += 1;
                    let applied = self.state.apply(self.index, &proposal);
                    // The commands of one step enter the log before any of their fates is told.
                    inputs.insert(0, Input::ProposalDone { ticket, outcome: Ok(applied) });
                }
                Effect::StartRound { round } => inputs.insert(0, Input::RoundDone { round, outcome: Ok(()) }),
                Effect::AnswerRenewal { answer: RenewalAnswer::Granted { .. }, .. } => {
                    self.granted_at = self.now;
                }
                Effect::AnswerOperator { call, answer } => drop(self.answers.insert(call, answer)),
                Effect::Notice(notice) => self.notices.push(notice),
                Effect::AnswerRenewal { .. } | Effect::TransferLeadership { .. } => {}
            }
        }
    }

    /// A new leader that has applied no more than this.
    pub(crate) fn elect_behind(&mut self, state: State) {
        self.behind = Some(state);
        self.elect();
    }

    /// It applies the rest, and what it wanted is carried out. Says what that was.
    pub(crate) fn catch_up(&mut self) -> Vec<Effect> {
        self.behind = None;
        let held = std::mem::take(&mut self.held);
        let mut inputs = Vec::new();
        self.carry_out(held.clone(), &mut inputs);
        for input in inputs.into_iter().rev() {
            self.tell(input);
        }
        held
    }

    /// Time passes.
    pub(crate) fn run(&mut self, how_long: Duration) {
        let end = self.now + how_long;
        while self.now < end {
            self.now += STEP;
            if self.now.as_millis().is_multiple_of(BEAT.as_millis()) {
                self.beat();
            }
            self.tell(Input::Tick);
        }
    }

    /// Time passes until something holds. Says how long it took.
    #[track_caller]
    pub(crate) fn run_until(&mut self, what: &str, holds: impl Fn(&Self) -> bool) -> Duration {
        let began = self.now;
        while !holds(self) {
            assert!(
                self.since(began) < Duration::from_secs(60),
                "waited in vain: {what}; {:?}",
                self.running()
            );
            self.run(STEP);
        }
        self.since(began)
    }

    /// How long ago that was.
    pub(crate) fn since(&self, then: Duration) -> Duration {
        self.now.saturating_sub(then)
    }

    /// Everybody who is heard reports, and the owner asks for more time.
    fn beat(&mut self) {
        for node in [GRA_1, GRA_2, SBG_1, SBG_2, WITNESS] {
            if !self.silent.contains(&node) {
                let report = self.report(node);
                self.tell(Input::Report(report));
            }
        }
        let owners: Vec<_> = self
            .state
            .floating_ips
            .iter()
            .filter_map(|(ip, entry)| Some((ip.clone(), entry.owner.clone()?)))
            .filter(|(_, owner)| self.acts(owner))
            .collect();
        for (ip, owner) in owners {
            if owner.revoked && self.lets_go {
                self.release(&ip, &owner, ReleasedBy::Holder);
            } else if !owner.revoked {
                let call = CallId(self.number());
                let seq = self.number();
                let Owner { node, incarnation, token, .. } = owner;
                self.tell(Input::Renew {
                    call,
                    renewal: Renewal { ip, node, incarnation, token, seq, holding: true },
                });
            }
        }
    }

    /// Whether the owner's life goes on and is heard.
    fn acts(&self, owner: &Owner) -> bool {
        let life = self.state.nodes.get(&owner.node).map(|life| life.incarnation);
        !self.silent.contains(&owner.node) && life == Some(owner.incarnation)
    }

    fn report(&mut self, node: NodeId) -> NodeReport {
        let mut report = NodeReport::empty(node, self.state.nodes[&node].incarnation, self.number());
        report.applied = self.state.revision;
        report.draining = self.emptied.contains(&node);
        let spec = self.state.spec.as_ref().unwrap();
        report.peers_heard = spec.nodes.iter().map(|node| node.id).collect();
        if spec.node(node).unwrap().kind.serves() {
            let view = |upstream: &twinsite_model::spec::UpstreamSpec| UpstreamView {
                upstream: upstream.name.clone(),
                healthy: !self.sick.contains(upstream.name.as_str()),
                detail: "probed".to_owned(),
            };
            report.upstreams = Some(spec.upstreams.iter().map(view).collect());
        }
        for (ip, entry) in &self.state.floating_ips {
            let Some(owner) = &entry.owner else { continue };
            let mut seen = FloatingIpView::default();
            if spec.floating_ip(ip).is_some_and(|ip| ip.provider.is_routed())
                && !self.provider.unseen_by.contains(&node)
            {
                (seen.routing, seen.errand) = self.provider.as_seen(node, entry);
            }
            if owner.node == node {
                seen.stranger = self.stranger;
                seen.held = Some(owner.token).filter(|_| !owner.revoked);
                let draining = entry.operation.as_ref().and_then(Operation::current) == Some(Step::Drain);
                seen.drained = Some(owner.token).filter(|_| draining && self.drains);
            } else if self.outside && self.acts(owner) {
                seen.outside = Some(OutsideView::Answered { node: owner.node, token: owner.token });
            }
            report.floating_ips.insert(ip.clone(), seen);
        }
        report
    }

    /// The owner has let go for good, or its guardian says so.
    pub(crate) fn release(&mut self, ip: &FloatingIpName, owner: &Owner, by: ReleasedBy) {
        let Owner { node, incarnation, token, .. } = *owner;
        self.tell(Input::Released(Release { ip: ip.clone(), node, incarnation, token, by }));
    }

    fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    /// A person asks for something.
    pub(crate) fn ask(&mut self, action: OperatorAction) -> Result<OperatorAnswer, OperatorRefusal> {
        let call = CallId(self.number());
        let request =
            OperatorRequest { by: "anna".to_owned(), request: None, expected_revision: None, action };
        self.tell(Input::Operator { call, request });
        self.answers.remove(&call).unwrap()
    }

    pub(crate) fn plan(&self, request: &MoveRequest) -> Plan {
        self.leader.plan(BootTime(self.now), self.wall(), &self.state, request).unwrap()
    }

    pub(crate) fn explain(&self) -> Explanation {
        self.leader.explain(BootTime(self.now), self.wall(), &self.state, &ip()).unwrap()
    }

    pub(crate) fn owner(&self) -> Option<Owner> {
        self.state.owner(&ip()).cloned()
    }

    pub(crate) fn owner_node(&self) -> Option<NodeId> {
        self.owner().map(|owner| owner.node)
    }

    pub(crate) fn running(&self) -> Option<&Operation> {
        self.state.floating_ips.get(&ip())?.operation.as_ref()
    }

    pub(crate) fn step(&self) -> Option<Step> {
        self.running()?.current()
    }

    /// The address is held, and nothing moves it.
    pub(crate) fn is_settled(&self) -> bool {
        self.owner().is_some_and(|owner| !owner.revoked) && self.running().is_none()
    }

    /// `W`, by the specification in force.
    pub(crate) fn wait(&self) -> Duration {
        self.state.spec.as_ref().unwrap().timing().wait()
    }

    /// How many moves this leader and its predecessors wanted to begin.
    pub(crate) fn moves_wanted(&self) -> usize {
        self.proposed.iter().filter(|command| matches!(command, Command::BeginOperation { .. })).count()
    }

    /// Every upstream of a site turns bad.
    pub(crate) fn fall_sick(&mut self, site: &str) {
        self.sick.extend((1..=3).map(|number| format!("{site}-meet-{number}")));
    }
}

/// A move by hand.
pub(crate) fn wanted(kind: MoveKind, to: MoveTarget, overrides: &[SafetyRule]) -> MoveRequest {
    MoveRequest { ip: ip(), kind, to, overrides: overrides.to_vec() }
}
