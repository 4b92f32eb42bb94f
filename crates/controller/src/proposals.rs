//! Commands on their way to the log: handed out with a ticket, taken back with their fate; and people's requests,
//! which are commands with somebody who waits.

use crate::by_hand;
use crate::controller::Controller;
use crate::drills;
use crate::input::{CallId, Effect, ProposeFailed, Ticket};
use crate::journal;
use crate::operator::{MoveKind, OperatorAction, OperatorAnswer, OperatorRefusal, OperatorRequest};
use crate::tenure::{Pending, Subject};
use crate::upkeep;
use crate::view::View;
use twinsite_model::{
    Applied, BootTime, Command, NodeId, OperationKind, Proposal, Reason, Refusal, State, WallTime, apply,
};

impl Controller {
    /// Hands commands about one thing out, in order, unless something about it is under way or was refused a moment
    /// ago. Says whether it did.
    pub(crate) fn propose_own(
        &mut self,
        now: BootTime,
        wall: WallTime,
        subject: &Subject,
        commands: Vec<Command>,
        effects: &mut Vec<Effect>,
    ) -> bool {
        let may = self.tenure.as_ref().is_some_and(|tenure| tenure.may_propose(now, subject));
        if !may {
            return false;
        }
        for command in commands {
            let revokes = match (&command, subject) {
                (command, Subject::Journal(ip)) if journal::revokes(command) => Some(ip.clone()),
                _ => None,
            };
            let fails_over = matches!(
                &command,
                Command::BeginOperation { kind: OperationKind::Failover, reason, .. }
                    if *reason != Reason::OwnerStopped
            );
            let pending = Pending { revokes, fails_over, ..Pending::own(subject.clone()) };
            self.hand_out(pending, Proposal::by_controller(wall, command), effects);
        }
        true
    }

    fn hand_out(&mut self, pending: Pending, proposal: Proposal, effects: &mut Vec<Effect>) {
        let ticket = self.next_ticket();
        let Some(tenure) = &mut self.tenure else { return };
        tenure.hand_out(ticket, pending);
        effects.push(Effect::Propose { ticket, term: tenure.term, proposal });
    }

    /// The fate of a proposal is known, or known to be unknown.
    pub(crate) fn proposal_done(
        &mut self,
        now: BootTime,
        ticket: Ticket,
        outcome: Result<Applied, ProposeFailed>,
        effects: &mut Vec<Effect>,
    ) {
        let next = Ticket(self.tickets + 1);
        let Some(tenure) = &mut self.tenure else { return };
        let Some(pending) = tenure.take_back(ticket) else { return };
        let done = matches!(&outcome, Ok(Applied { result: Ok(_), .. }));
        if let Ok(applied) = &outcome {
            tenure.conclusive(ticket);
            if let (Ok(apply::Effect::Began(operation)), Some(ip)) = (&applied.result, &pending.attests) {
                tenure.attested.insert(ip.clone(), *operation);
            }
        }
        if let Some(ip) = pending.revokes {
            match &outcome {
                Ok(applied) if done => tenure.revocation_applied(ip, ticket, applied.revision),
                Ok(_) | Err(ProposeFailed::NotDone) => tenure.grantor.revocation_settled(&ip, ticket),
                Err(ProposeFailed::Unknown) => tenure.revocation_unknown(ip, ticket, next),
            }
        }
        if done {
            tenure.succeeded(&pending.subject);
            if let Some(ip) = pending.calls_off {
                tenure.called_off.insert(ip, now);
            }
        } else {
            tenure.failed(now, &pending.subject);
            if pending.subject == Subject::Verdicts {
                tenure.opinions.count_all_again();
            }
        }
        if let Some(call) = pending.call {
            effects.push(Effect::AnswerOperator { call, answer: answer(outcome) });
        }
    }

    /// What follows from the newest report of a node beside decisions: its life, and what it read back.
    pub(crate) fn propose_upkeep_of(
        &mut self,
        now: BootTime,
        wall: WallTime,
        state: &State,
        node: NodeId,
        effects: &mut Vec<Effect>,
    ) {
        let (Some(spec), Some(tenure)) = (&state.spec, &self.tenure) else { return };
        let (timing, index) = (&self.timing, &self.index);
        let view = View { tenure, index, state, spec, timing, now, wall };
        let Some((_, report)) = tenure.report(node) else { return };
        for (subject, command) in upkeep::from_report(&view, report) {
            self.propose_own(now, wall, &subject, vec![command], effects);
        }
    }

    /// A person asks for something.
    pub(crate) fn operator(
        &mut self,
        now: BootTime,
        wall: WallTime,
        state: &State,
        call: CallId,
        request: OperatorRequest,
        effects: &mut Vec<Effect>,
    ) {
        match self.prepare(now, wall, state, call, &request) {
            Ok(Prepared::Known(answer)) => {
                effects.push(Effect::AnswerOperator { call, answer: Ok(answer) });
            }
            // The state would refuse it, but a member with an older program could not read it in its log any more.
            Ok(Prepared::Propose(_, command)) if command.required_format() > state.format => {
                let refusal = Refusal::FormatTooNew(command.required_format()).into();
                effects.push(Effect::AnswerOperator { call, answer: Err(refusal) });
            }
            Ok(Prepared::Propose(pending, command)) => {
                let OperatorRequest { by, request, expected_revision, .. } = request;
                let proposal = Proposal { at: wall, by, request, expected_revision, command: *command };
                self.hand_out(*pending, proposal, effects);
            }
            Err(refusal) => effects.push(Effect::AnswerOperator { call, answer: Err(refusal) }),
        }
    }

    fn prepare(
        &mut self,
        now: BootTime,
        wall: WallTime,
        state: &State,
        call: CallId,
        request: &OperatorRequest,
    ) -> Result<Prepared, OperatorRefusal> {
        if self.term().is_none() {
            return Err(OperatorRefusal::NotLeader);
        }
        let (Some(spec), Some(tenure)) = (&state.spec, &mut self.tenure) else {
            return Err(OperatorRefusal::NoSpec);
        };
        if let Some(revision) = request.request.as_ref().and_then(|id| state.request(id)) {
            return Ok(Prepared::Known(OperatorAnswer::Repeated { revision }));
        }
        let pending = Pending { call: Some(call), ..Pending::own(Subject::Request(call)) };
        let plain = |command| Ok(Prepared::Propose(Box::new(pending.clone()), Box::new(command)));
        match &request.action {
            OperatorAction::Move(wanted) => {
                tenure.called_off.remove(&wanted.ip);
                let view = View { tenure, index: &self.index, state, spec, timing: &self.timing, now, wall };
                let command = by_hand::begin(&view, wanted)?;
                let attests = matches!(wanted.kind, MoveKind::Forced { attested: true });
                // Under the journal's subject, so that no decision of the controller's own overtakes it.
                let pending = Pending {
                    subject: Subject::Journal(wanted.ip.clone()),
                    revokes: Some(wanted.ip.clone()),
                    attests: attests.then(|| wanted.ip.clone()),
                    ..pending
                };
                Ok(Prepared::Propose(Box::new(pending), Box::new(command)))
            }
            OperatorAction::Abort { ip, detail } => {
                let entry = state.floating_ips.get(ip);
                let entry = entry.ok_or_else(|| OperatorRefusal::UnknownFloatingIp(ip.clone()))?;
                let running = entry.operation.as_ref();
                let running = running.ok_or_else(|| OperatorRefusal::NoOperation(ip.clone()))?;
                let command =
                    Command::AbortOperation { ip: ip.clone(), operation: running.id, detail: detail.clone() };
                let pending = Pending { calls_off: Some(ip.clone()), ..pending };
                Ok(Prepared::Propose(Box::new(pending), Box::new(command)))
            }
            OperatorAction::Pause { duration, reason } => {
                let until = wall.max(state.wall).plus(duration.unwrap_or(spec.policy.pause_default.0));
                plain(Command::Pause { until, reason: reason.clone() })
            }
            OperatorAction::Resume => plain(Command::Resume { expired: false }),
            OperatorAction::SetDrain { upstream, draining, within } => {
                let deadline = within.map(|within| wall.max(state.wall).plus(within));
                plain(Command::SetDrain { upstream: upstream.clone(), draining: *draining, deadline })
            }
            OperatorAction::ResetBreaker => plain(Command::ResetBreaker),
            OperatorAction::ApplySpec(spec) => plain(Command::ApplySpec { spec: spec.clone() }),
            OperatorAction::PutNode(node) => plain(Command::PutNode { node: node.clone() }),
            OperatorAction::RetireNode(node) => plain(Command::RetireNode { node: *node }),
            OperatorAction::BeginDrill { name, person, runner, incarnation, within } => {
                let view = View { tenure, index: &self.index, state, spec, timing: &self.timing, now, wall };
                if let Some(refusal) = drills::forbidden(&view, self.me, *within) {
                    return Err(refusal);
                }
                plain(Command::BeginDrill {
                    name: name.clone(),
                    by: person.clone(),
                    runner: *runner,
                    incarnation: *incarnation,
                    until: drills::until(&view, *within),
                })
            }
            OperatorAction::StopDrill { reason } => {
                let view = View { tenure, index: &self.index, state, spec, timing: &self.timing, now, wall };
                plain(drills::stop(&view, self.me, reason)?)
            }
            OperatorAction::EndDrill { drill, outcome, summary } => {
                plain(Command::EndDrill { drill: *drill, outcome: *outcome, summary: summary.clone() })
            }
        }
    }
}

/// What is to be done about a request.
enum Prepared {
    /// It was carried out before.
    Known(OperatorAnswer),
    /// This is to be proposed.
    Propose(Box<Pending>, Box<Command>),
}

fn answer(outcome: Result<Applied, ProposeFailed>) -> Result<OperatorAnswer, OperatorRefusal> {
    let applied = outcome.map_err(|failed| match failed {
        ProposeFailed::NotDone => OperatorRefusal::NotDone,
        ProposeFailed::Unknown => OperatorRefusal::OutcomeUnknown,
    })?;
    let revision = applied.revision;
    Ok(match applied.result? {
        apply::Effect::Done | apply::Effect::Placed(_) => OperatorAnswer::Done { revision },
        apply::Effect::Unchanged => OperatorAnswer::Unchanged { revision },
        apply::Effect::Repeated(revision) => OperatorAnswer::Repeated { revision },
        apply::Effect::Began(operation) => OperatorAnswer::Began { operation, revision },
    })
}
