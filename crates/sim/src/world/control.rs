//! The controller on each node: what it is told, and what it wants done.

use super::World;
use crate::event::{Packet, Timer, Work};
use crate::host::Caller;
use crate::violation::Rule;
use twinsite_controller::{
    CallId, Effect, Input, OperatorRequest, ProposeFailed, Release, ReleasedBy, Renewal, RenewalAnswer,
    RoundFailed, RoundId, Ticket,
};
use twinsite_model::{Applied, Command, Step, WallTime};

/// Effects of one step at most: some for each address and each renewal that waits. A round that is given up after two of
/// the longest leases leaves close to 300 renewals of four addresses to be answered.
const EFFECTS_MAX: usize = 400;
/// Steps of one controller at one instant at most.
const STEPS_MAX: u32 = 300;

impl World {
    pub(super) fn wall(&self, node: usize) -> WallTime {
        self.hosts[node].clock.wall(self.now)
    }

    /// A timer of a process is due, if it is still set for this time.
    pub(super) fn timer(&mut self, node: usize, timer: Timer, at: u64) {
        let Some(process) = &mut self.hosts[node].process else { return };
        if process.timers.get(&timer) != Some(&at) {
            return;
        }
        process.timers.remove(&timer);
        match timer {
            Timer::Raft => self.raft_timer(node),
            Timer::Controller => self.control(node, Input::Tick),
            Timer::Holder(ip) => self.hold(node, ip, twinsite_controller::HolderInput::Tick),
            Timer::Report => self.report(node),
            Timer::Rounds => self.rounds_timer(node),
        }
    }

    /// Tells the controller something, and does what it wants.
    pub(super) fn control(&mut self, node: usize, input: Input) {
        let now = self.now;
        let host = &mut self.hosts[node];
        let (boot, wall) = (host.clock.boot(now), host.clock.wall(now));
        let Some(process) = &mut host.process else { return };
        let (instant, steps) = process.known.steps;
        process.known.steps = if instant == now { (now, steps + 1) } else { (now, 1) };
        let too_many = process.known.steps.1 > STEPS_MAX;
        let effects = process.controller.step(boot, wall, &host.state, input);
        let wake = process.controller.next_wake(boot, &host.state);
        if too_many || effects.len() > EFFECTS_MAX {
            let id = self.hosts[node].id;
            let (steps, wants) = (steps + 1, effects.len());
            let detail = format!(
                "node {id} steps without end, or wants too much at once: step {steps} of this instant, {wants} effects"
            );
            self.violate(Rule::Bounded, || detail);
            return;
        }
        if let Some(at) = wake {
            let when = self.hosts[node].clock.when(now, at);
            // A driver's timer has its grain; a wish to be woken at this very instant must not stop time.
            self.set_timer(node, Timer::Controller, when.max(now + 1_000));
        }
        for effect in effects {
            self.perform(node, effect);
        }
    }

    fn perform(&mut self, node: usize, effect: Effect) {
        match effect {
            Effect::Propose { ticket, term, proposal } => {
                self.check_proposal(node, ticket, term, &proposal);
                let delay = self.draw(|scenario| scenario.to_log);
                let (now, disorder) = (self.now, self.scenario.disorder);
                let Some(process) = &mut self.hosts[node].process else { return };
                let at = if disorder { now + delay } else { (now + delay).max(process.to_log_until) };
                process.to_log_until = at;
                self.later(node, at - now, Work::Propose { ticket, term, proposal: Box::new(proposal) });
            }
            Effect::StartRound { round } => self.begin_round(node, round),
            Effect::AnswerRenewal { call, answer } => self.answer_renewal(node, call, answer),
            Effect::AnswerOperator { call, answer } => {
                if let Some(process) = &mut self.hosts[node].process {
                    process.calls.remove(&call);
                }
                self.coverage.operator_requests_carried_out += u64::from(answer.is_ok());
                self.trace.note(self.now, || format!("a person is answered {answer:?}"));
            }
            Effect::TransferLeadership { to } => self.hand_over(node, to),
            Effect::Notice(notice) => {
                let id = self.hosts[node].id;
                self.trace.note(self.now, || format!("node {id}: {notice:?}"));
            }
        }
    }

    fn call(&mut self, node: usize, caller: Caller) -> Option<CallId> {
        let process = self.hosts[node].process.as_mut()?;
        process.calls_so_far += 1;
        let call = CallId(process.calls_so_far);
        process.calls.insert(call, caller);
        Some(call)
    }

    /// An owner asks for more time.
    pub(super) fn renewal_arrived(&mut self, node: usize, from: usize, renewal: Renewal, sent: u64) {
        let Some(ip) = self.place_of(&renewal.ip) else { return };
        let (incarnation, token) = (renewal.incarnation, renewal.token);
        let caller = Caller::Owner { node: from, ip, incarnation, token, sent, arrived: self.now };
        if let Some(call) = self.call(node, caller) {
            self.control(node, Input::Renew { call, renewal });
        }
    }

    fn answer_renewal(&mut self, node: usize, call: CallId, answer: RenewalAnswer) {
        let Some(process) = &mut self.hosts[node].process else { return };
        let Some(caller) = process.calls.remove(&call) else { return };
        let Caller::Owner { node: owner, ip, incarnation, token, .. } = caller.clone() else { return };
        match answer {
            RenewalAnswer::Granted { lease, .. } => {
                self.coverage.grants += 1;
                self.note_grant(node, &caller, lease);
            }
            RenewalAnswer::Refused { why, .. } => {
                self.coverage.renewals_refused += 1;
                let (id, ip) = (self.hosts[node].id, &self.ips[ip]);
                self.trace.note(self.now, || {
                    format!("node {id} refuses {ip} {token} to node {}: {why}", owner + 1)
                });
            }
        }
        self.send(node, owner, Packet::RenewAnswered { ip, token, to: incarnation, answer });
    }

    /// Somebody has let go.
    pub(super) fn release_arrived(&mut self, node: usize, release: Release) {
        match release.by {
            ReleasedBy::Holder => self.coverage.released_by_holder += 1,
            ReleasedBy::Guardian => self.coverage.released_by_guardian += 1,
        }
        if let Some(process) = &mut self.hosts[node].process
            && process.leads.is_some()
        {
            let key = (release.ip.clone(), release.token, release.incarnation);
            process.known.released.insert(key);
        }
        self.control(node, Input::Released(release));
    }

    pub(super) fn round_done(&mut self, node: usize, round: RoundId, began: u64, confirmed: bool) {
        if let Some(process) = &mut self.hosts[node].process {
            process.known.round_began = confirmed.then_some(began);
        }
        let outcome = if confirmed { Ok(()) } else { Err(RoundFailed) };
        self.control(node, Input::RoundDone { round, outcome });
        if let Some(process) = &mut self.hosts[node].process {
            process.known.round_began = None;
        }
    }

    pub(super) fn proposal_done(
        &mut self,
        node: usize,
        ticket: Ticket,
        outcome: Result<Applied, ProposeFailed>,
    ) {
        if let Some(process) = &mut self.hosts[node].process {
            process.known.revoking.remove(&ticket);
        }
        if let Err(failed) = &outcome {
            let id = self.hosts[node].id;
            self.trace.note(self.now, || format!("node {id}: proposal {}: {failed}", ticket.0));
        }
        self.control(node, Input::ProposalDone { ticket, outcome });
    }

    /// A person asks for something.
    pub(super) fn asked(&mut self, node: usize, request: OperatorRequest) {
        self.coverage.operator_requests += 1;
        self.trace.note(self.now, || format!("a person asks node {}: {:?}", node + 1, request.action));
        if let Some(call) = self.call(node, Caller::Person) {
            self.control(node, Input::Operator { call, request });
        }
    }

    /// Whether a command takes the right to renew away, and for which address.
    pub(super) fn revoked_by(command: &Command) -> Option<&twinsite_model::FloatingIpName> {
        match command {
            Command::BeginOperation { ip, .. } | Command::StartStep { ip, step: Step::Fence, .. } => Some(ip),
            _ => None,
        }
    }

    /// The node that leads in the newest term, as far as any of them knows.
    pub(super) fn newest_leader(&self) -> Option<usize> {
        let leading = (0..self.hosts.len()).filter(|node| self.hosts[*node].is_running());
        let leading = leading.filter_map(|node| Some((self.hosts[node].raft.leads()?, node)));
        leading.max().map(|(_, node)| node)
    }

    /// The leader that a node knows of.
    pub(super) fn known_leader(&self, node: usize) -> Option<usize> {
        self.hosts[node].raft.leader()
    }
}
