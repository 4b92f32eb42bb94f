//! The controller: one entry point for everything that happens.
//!
//! Each input is taken in; then everything that it may have changed is looked at anew: the journals and owners of the
//! addresses ([`crate::decide`]), the verdicts, the upkeep, the alarms, the place of leadership. Nothing is an edge:
//! an input that was lost costs time, never a decision.

use crate::drills;
use crate::explain::{self, Explanation};
use crate::grantor::{
    Granting, Grantor, Nearly, Release, ReleasedBy, Renewal, RenewalAnswer, RenewalRefusal,
};
use crate::index::Index;
use crate::input::{CallId, Effect, Input, RoundFailed, RoundId, Ticket};
use crate::notice::Notice;
use crate::operator::{MoveRequest, OperatorRefusal};
use crate::plan::{self, Plan};
use crate::report::{NodeReport, report_freshness};
use crate::tenure::{News, Tenure};
use crate::view::View;
use std::collections::BTreeSet;
use std::time::Duration;
use twinsite_model::Faults;
use twinsite_model::{BootTime, FloatingIpName, NodeId, Profile, State, Timing, WallTime};

/// Decides, while its node leads. It lives on every node and keeps nothing that must survive.
#[derive(Debug, Clone)]
pub struct Controller {
    pub(crate) me: NodeId,
    pub(crate) faults: Faults,
    /// The term in which this node leads, and since when. The tenure begins with the first specification.
    leading: Option<(u64, BootTime)>,
    pub(crate) tenure: Option<Tenure>,
    pub(crate) index: Index,
    pub(crate) timing: Timing,
    /// The state's clock, and when it was seen to go beyond what was counted on from before.
    clock: (WallTime, BootTime),
    pub(crate) tickets: u64,
    rounds: u64,
    pub(crate) transfer_tried: Option<BootTime>,
}

/// What an input may have changed.
pub(crate) enum Affected {
    /// Nothing beyond what was done already.
    Nothing,
    /// What is seen of these addresses.
    Addresses(BTreeSet<FloatingIpName>),
    /// Anything.
    Everything,
}

impl Controller {
    /// A controller on this node.
    pub fn new(me: NodeId) -> Self {
        Self {
            me,
            faults: Faults::here(),
            leading: None,
            tenure: None,
            index: Index::default(),
            timing: Timing::of(Profile::default()),
            clock: (WallTime(0), BootTime::default()),
            tickets: 0,
            rounds: 0,
            transfer_tried: None,
        }
    }

    /// Makes deliberate mistakes from here on.
    #[cfg(feature = "seeded-faults")]
    pub fn seed_faults(&mut self, faults: Faults) {
        self.faults = faults;
    }

    /// Something happened. `now` never goes back; `state` is the newest applied here.
    pub fn step(&mut self, now: BootTime, wall: WallTime, state: &State, input: Input) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.keep_up(now, state);
        let wall = self.wall(now, wall);
        match input {
            Input::BecameLeader { term } => {
                assert!(self.leading.is_none_or(|(known, _)| known < term), "terms only grow");
                self.end_tenure(&mut effects);
                self.leading = Some((term, now));
            }
            Input::LostLeadership => {
                self.end_tenure(&mut effects);
                self.leading = None;
            }
            _ => {}
        }
        self.begin_tenure(state);
        if let Some(tenure) = &mut self.tenure {
            tenure.look_at(now, state);
        }
        let affected = self.take(now, wall, state, input, &mut effects);
        self.decide(now, wall, state, &affected, &mut effects);
        effects
    }

    /// When [`Input::Tick`] is due at the latest, if nothing else happens before.
    pub fn next_wake(&self, _now: BootTime, _state: &State) -> Option<BootTime> {
        self.tenure.as_ref()?.wake
    }

    /// Why things are as they are. `None`: there is no such address.
    pub fn explain(
        &self,
        now: BootTime,
        wall: WallTime,
        state: &State,
        ip: &FloatingIpName,
    ) -> Option<Explanation> {
        self.with_view(now, wall, state, |view, leads| explain::explain(view, self.me, leads, ip)).flatten()
    }

    /// What a move would do. Changes nothing.
    pub fn plan(
        &self,
        now: BootTime,
        wall: WallTime,
        state: &State,
        request: &MoveRequest,
    ) -> Result<Plan, OperatorRefusal> {
        let plan = self.with_view(now, wall, state, |view, leads| {
            if leads { plan::plan(view, request) } else { Err(OperatorRefusal::NotLeader) }
        });
        plan.unwrap_or(Err(OperatorRefusal::NoSpec))
    }

    /// Why no drill of this length may begin now; `None` if one may. Changes nothing.
    pub fn drill_forbidden(
        &self,
        now: BootTime,
        wall: WallTime,
        state: &State,
        within: Duration,
    ) -> Option<OperatorRefusal> {
        let asked = self.with_view(now, wall, state, |view, leads| {
            if leads { drills::forbidden(view, self.me, within) } else { Some(OperatorRefusal::NotLeader) }
        });
        asked.unwrap_or(Some(OperatorRefusal::NoSpec))
    }

    /// The term in which this controller acts; `None` while its node does not lead.
    pub fn term(&self) -> Option<u64> {
        self.leading.map(|(term, _)| term)
    }

    /// Voters that this leader hears, itself included. `None` while its node does not lead.
    pub fn heard(&self, now: BootTime, wall: WallTime, state: &State) -> Option<BTreeSet<NodeId>> {
        self.with_view(now, wall, state, |view, leads| {
            let all = view.spec.nodes.iter().map(|node| node.id);
            leads.then(|| all.filter(|node| *node == self.me || view.heard(*node).is_some()).collect())
        })
        .flatten()
    }

    /// The newest report of every node that this leader hears. Empty while its node does not lead.
    pub fn reports(&self, now: BootTime, wall: WallTime, state: &State) -> Vec<NodeReport> {
        let heard = self.with_view(now, wall, state, |view, _| {
            let known = view.tenure.reports().filter_map(|(_, report)| view.heard(report.node).cloned());
            known.collect()
        });
        heard.unwrap_or_default()
    }

    /// A look at everything; a node that does not lead has no evidence.
    fn with_view<T>(
        &self,
        now: BootTime,
        wall: WallTime,
        state: &State,
        look: impl FnOnce(&View<'_>, bool) -> T,
    ) -> Option<T> {
        let spec = state.spec.as_ref()?;
        let timing = spec.timing();
        let wall = self.wall(now, wall);
        let mut index = self.index.clone();
        index.refresh(state);
        let nothing;
        let (tenure, leads) = if let Some(tenure) = &self.tenure {
            (tenure, true)
        } else {
            nothing = Tenure::new(0, now, Grantor::new(now, state.lease_bound(), self.faults.clone()));
            (&nothing, false)
        };
        let view = View { tenure, index: &index, state, spec, timing: &timing, now, wall };
        Some(look(&view, leads))
    }

    /// The wall clock, or what has been counted on from the state's clock, if that is ahead: a clock that was once wrong
    /// must not make pauses and windows last until true time has caught up with it. It is counted on a little slower,
    /// so that true time does.
    fn wall(&self, now: BootTime, wall: WallTime) -> WallTime {
        let (seen, at) = self.clock;
        let passed = now.since(at);
        wall.max(seen.plus(passed / 8 * 7))
    }

    fn keep_up(&mut self, now: BootTime, state: &State) {
        if state.wall > self.wall(now, WallTime(0)) {
            self.clock = (state.wall, now);
        }
        let changes = self.index.refresh(state);
        if let Some(tenure) = &mut self.tenure {
            tenure.opinions.count_again(changes.verdicts);
        }
        let Some(spec) = state.spec.as_ref().filter(|_| changes.spec) else { return };
        self.timing = spec.timing();
        if let Some(tenure) = &mut self.tenure {
            tenure.grantor.outwait(state.lease_bound());
            tenure.opinions.count_all_again();
        }
    }

    /// A tenure needs a specification. Grants of earlier leaders are counted from the election, whenever it begins.
    fn begin_tenure(&mut self, state: &State) {
        if self.tenure.is_some() || state.spec.is_none() {
            return;
        }
        if let Some((term, elected_at)) = self.leading {
            let grantor = Grantor::new(elected_at, state.lease_bound(), self.faults.clone());
            self.tenure = Some(Tenure::new(term, elected_at, grantor));
        }
    }

    /// Everybody who waits for this tenure is told to ask elsewhere.
    fn end_tenure(&mut self, effects: &mut Vec<Effect>) {
        let Some(mut tenure) = self.tenure.take() else { return };
        grant(tenure.grantor.end(), &self.timing, effects);
        let waiting = tenure.waiting_calls();
        effects.extend(
            waiting.map(|call| Effect::AnswerOperator { call, answer: Err(OperatorRefusal::OutcomeUnknown) }),
        );
    }

    /// Takes an input in; says what it may have changed.
    fn take(
        &mut self,
        now: BootTime,
        wall: WallTime,
        state: &State,
        input: Input,
        effects: &mut Vec<Effect>,
    ) -> Affected {
        match input {
            Input::BecameLeader { .. } | Input::LostLeadership | Input::Applied => Affected::Everything,
            Input::Tick => {
                self.give_up_round(now, effects);
                Affected::Everything
            }
            Input::Report(report) => self.take_report(now, wall, state, report, effects),
            Input::Renew { call, renewal } => {
                self.renew(now, state, call, renewal, effects);
                Affected::Nothing
            }
            Input::RoundDone { round, outcome } => {
                self.round_done(now, state, round, outcome, effects);
                Affected::Nothing
            }
            Input::Released(release) => self.released(state, &release),
            Input::ProposalDone { ticket, outcome } => {
                self.proposal_done(now, ticket, outcome, effects);
                Affected::Everything
            }
            Input::Operator { call, request } => {
                self.operator(now, wall, state, call, request, effects);
                Affected::Nothing
            }
        }
    }

    fn take_report(
        &mut self,
        now: BootTime,
        wall: WallTime,
        state: &State,
        report: NodeReport,
        effects: &mut Vec<Effect>,
    ) -> Affected {
        let Some(tenure) = &mut self.tenure else { return Affected::Nothing };
        let seen: BTreeSet<_> = report.floating_ips.keys().cloned().collect();
        let node = report.node;
        let news = tenure.take_report(now, report_freshness(&self.timing), report);
        if news == News::None {
            return Affected::Nothing;
        }
        self.note_attachment(now, state, node);
        self.propose_upkeep_of(now, wall, state, node, effects);
        if news == News::Fitness { Affected::Everything } else { Affected::Addresses(seen) }
    }

    /// Notes since when an owner that was granted time has been seen without its address.
    fn note_attachment(&mut self, now: BootTime, state: &State, node: NodeId) {
        let Some(tenure) = &mut self.tenure else { return };
        let owned = state.floating_ips.iter().filter_map(|(ip, entry)| Some((ip, entry.owner.as_ref()?)));
        let owned: Vec<_> = owned.filter(|(_, owner)| owner.node == node).collect();
        for (ip, owner) in owned {
            let Some((_, report)) = tenure.report(node) else { return };
            let holds = report.floating_ips.get(ip).and_then(|view| view.held) == Some(owner.token);
            let granted = tenure.grantor.last_grant(ip, owner.token).is_some();
            let same_life = report.incarnation == owner.incarnation;
            if holds || owner.revoked || !granted || !same_life {
                tenure.unattached.remove(ip);
            } else if tenure.unattached.get(ip).is_none_or(|(token, _)| *token != owner.token) {
                tenure.unattached.insert(ip.clone(), (owner.token, now));
            }
        }
    }

    fn renew(
        &mut self,
        now: BootTime,
        state: &State,
        call: CallId,
        renewal: Renewal,
        effects: &mut Vec<Effect>,
    ) {
        let round = self.next_round();
        let Some(tenure) = &mut self.tenure else {
            let why = if self.leading.is_some() { RenewalRefusal::Busy } else { RenewalRefusal::NotLeader };
            let answer = RenewalAnswer::Refused { seq: renewal.seq, why };
            effects.push(Effect::AnswerRenewal { call, answer });
            return;
        };
        grant(tenure.grantor.renew(now, &self.timing, state, round, (call, renewal)), &self.timing, effects);
    }

    fn round_done(
        &mut self,
        now: BootTime,
        state: &State,
        round: RoundId,
        outcome: Result<(), RoundFailed>,
        effects: &mut Vec<Effect>,
    ) {
        let next = self.next_round();
        let Some(tenure) = &mut self.tenure else { return };
        tenure.caught_up |= outcome.is_ok();
        grant(
            tenure.grantor.round_done(now, &self.timing, state, (round, outcome), next),
            &self.timing,
            effects,
        );
    }

    fn give_up_round(&mut self, now: BootTime, effects: &mut Vec<Effect>) {
        let next = self.next_round();
        let Some(tenure) = &mut self.tenure else { return };
        grant(tenure.grantor.give_up_round(now, &self.timing, next), &self.timing, effects);
    }

    fn released(&mut self, state: &State, release: &Release) -> Affected {
        let Some(tenure) = &mut self.tenure else { return Affected::Nothing };
        if !state.floating_ips.contains_key(&release.ip) || !tenure.grantor.released(release) {
            return Affected::Nothing;
        }
        match release.by {
            ReleasedBy::Holder => Affected::Addresses(BTreeSet::from([release.ip.clone()])),
            ReleasedBy::Guardian => {
                tenure.life_ended(release.node, release.incarnation);
                Affected::Everything
            }
        }
    }

    fn next_round(&mut self) -> RoundId {
        self.rounds += 1;
        RoundId(self.rounds)
    }

    pub(crate) fn next_ticket(&mut self) -> Ticket {
        self.tickets += 1;
        Ticket(self.tickets)
    }
}

fn grant(granting: Granting, timing: &Timing, effects: &mut Vec<Effect>) {
    let nearly = granting.nearly.into_iter().map(|Nearly { ip, owner, token, silent_for }| {
        Effect::Notice(Notice::NearlyMoved { ip, owner, token, silent_for, lease: timing.lease })
    });
    effects.extend(nearly);
    let answers = granting.answers.into_iter();
    effects.extend(answers.map(|(call, answer)| Effect::AnswerRenewal { call, answer }));
    effects.extend(granting.start.map(|round| Effect::StartRound { round }));
}
