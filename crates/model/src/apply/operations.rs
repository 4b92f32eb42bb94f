//! The journal's transitions. Every one checks that it comes in order, so that no leader, however confused, can
//! give out a token before the old owner is fenced.

use super::{Effect, Handled, Refusal};
use crate::command::{Command, Proposal};
use crate::event::Event;
use crate::ids::{Epoch, FloatingIpName, Incarnation, NodeId, OperationId, Revision, Token};
use crate::operation::{Fence, Operation, OperationKind, Outcome, Reason, Step, StepRecord, StepResult};
use crate::state::{EVIDENCE_MAX, FloatingIpState, HISTORY_MAX, Owner, State};
use crate::time::WallTime;

/// Beginnings of automatic failovers that are remembered at most, whatever the window.
const AUTOMATIC_FAILOVERS_MAX: usize = 64;

impl State {
    /// Commands that move the journal of one floating IP.
    pub(super) fn drive_operation(&mut self, revision: Revision, proposal: &Proposal) -> Handled {
        let now = self.wall;
        match &proposal.command {
            Command::BeginOperation { ip, .. } => self.begin_operation(revision, ip, proposal),
            Command::StartStep { ip, operation, step } => {
                self.running(ip, *operation)?.start(now, *step)?;
                if *step == Step::Fence
                    && let Some(owner) = &mut self.floating_ip_mut(ip)?.owner
                {
                    owner.revoked = true;
                }
                let event = Event::StepStarted { ip: ip.clone(), operation: *operation, step: *step };
                Ok((Effect::Done, vec![event]))
            }
            Command::FinishStep { ip, operation, step, result, detail } => {
                if matches!(step, Step::Fence | Step::Move) {
                    return Err(Refusal::WrongStep { operation: *operation, step: *step });
                }
                self.running(ip, *operation)?.finish(now, *step, *result, detail)?;
                Ok((Effect::Done, vec![finished(ip, *operation, *step, *result, detail)]))
            }
            Command::CompleteFence { ip, operation, fence, detail } => {
                let entry = self.running(ip, *operation)?;
                entry.finish(now, Step::Fence, StepResult::Done, detail)?;
                entry.fence = Some(*fence);
                let token = entry.from.as_ref().map(|owner| owner.token);
                let events = vec![
                    finished(ip, *operation, Step::Fence, StepResult::Done, detail),
                    Event::Fenced { ip: ip.clone(), operation: *operation, token, fence: *fence },
                ];
                Ok((Effect::Done, events))
            }
            Command::Assign { ip, operation } => self.assign(ip, *operation),
            Command::Retarget { ip, operation, target, target_incarnation, detail } => {
                self.retarget(ip, *operation, (*target, *target_incarnation), detail)
            }
            Command::CloseOperation { ip, operation, outcome } => {
                let entry = self.running(ip, *operation)?;
                if entry.token.is_none() || *outcome == Outcome::Aborted {
                    return Err(Refusal::WrongStep { operation: *operation, step: Step::Verify });
                }
                Ok((Effect::Done, self.end_operation(ip, *outcome)))
            }
            Command::AbortOperation { ip, operation, detail } => self.abort(ip, *operation, detail),
            _ => unreachable!("carry_out sends only the commands listed above"),
        }
    }

    fn floating_ip_mut(&mut self, ip: &FloatingIpName) -> Result<&mut FloatingIpState, Refusal> {
        self.floating_ips.get_mut(ip).ok_or_else(|| Refusal::UnknownFloatingIp(ip.clone()))
    }

    fn running(&mut self, ip: &FloatingIpName, id: OperationId) -> Result<&mut Operation, Refusal> {
        let running = self.floating_ip_mut(ip)?.operation.as_mut();
        running.filter(|operation| operation.id == id).ok_or(Refusal::NoSuchOperation(id))
    }

    /// Whether the specification names this address.
    fn names(&self, ip: &FloatingIpName) -> bool {
        self.spec.as_ref().is_some_and(|spec| spec.floating_ip(ip).is_some())
    }

    fn live(&self, node: NodeId, incarnation: Incarnation) -> Result<(), Refusal> {
        let lives = self.nodes.get(&node).is_some_and(|life| life.incarnation == incarnation);
        let may_own =
            self.spec.as_ref().and_then(|spec| spec.node(node)).is_some_and(|node| node.kind.may_own());
        if lives && may_own { Ok(()) } else { Err(Refusal::UnknownNode(node)) }
    }

    fn begin_operation(&mut self, revision: Revision, ip: &FloatingIpName, proposal: &Proposal) -> Handled {
        let Command::BeginOperation {
            kind,
            reason,
            evidence,
            from,
            target,
            target_incarnation,
            overrides,
            ..
        } = &proposal.command
        else {
            unreachable!("called for BeginOperation only");
        };
        let (now, id) = (self.wall, OperationId(revision.0));
        // What is no longer named can only be taken from its owner: such a move is fenced, and called off.
        if !self.names(ip) && self.owner(ip).is_none() {
            return Err(Refusal::UnknownFloatingIp(ip.clone()));
        }
        self.live(*target, *target_incarnation)?;
        let entry = self.floating_ip_mut(ip)?;
        if let Some(running) = &entry.operation {
            return Err(Refusal::OperationRunning(running.id));
        }
        let current = entry.owner.as_ref().map(|owner| owner.token);
        if current != *from {
            return Err(Refusal::OwnerChanged { given: *from, current });
        }
        // An owner that was stopped in good order did not fail: a rolling upgrade must not open the breaker.
        let failed = *kind == OperationKind::Failover && *reason != Reason::OwnerStopped;
        let counts = failed && proposal.is_by_controller();
        if counts {
            self.room_for_a_failover()?;
        }
        let entry = self.floating_ip_mut(ip)?;
        if let Some(owner) = &mut entry.owner {
            // A drain needs the old owner's lease; every other move takes the right to renew at once.
            owner.revoked = !kind.drains();
        }
        let decided = StepRecord {
            step: Step::Decide,
            started: now,
            finished: Some((now, StepResult::Done)),
            detail: reason.as_str().to_owned(),
        };
        let next = if kind.drains() { Step::Drain } else { Step::Fence };
        let evidence: Vec<_> = evidence.iter().take(EVIDENCE_MAX).cloned().collect();
        entry.operation = Some(Operation {
            id,
            ip: ip.clone(),
            kind: *kind,
            reason: *reason,
            evidence: evidence.clone(),
            from: entry.owner.clone(),
            target: *target,
            target_incarnation: *target_incarnation,
            by: proposal.by.clone(),
            overrides: overrides.clone(),
            fence: None,
            token: None,
            steps: vec![
                decided,
                StepRecord { step: next, started: now, finished: None, detail: String::new() },
            ],
            ended: None,
        });
        if counts {
            if self.automatic_failovers.len() >= AUTOMATIC_FAILOVERS_MAX {
                self.automatic_failovers.pop_front();
            }
            self.automatic_failovers.push_back(now);
        }
        let began = Event::OperationBegan {
            ip: ip.clone(),
            operation: id,
            kind: *kind,
            reason: *reason,
            target: *target,
            evidence,
        };
        let started = Event::StepStarted { ip: ip.clone(), operation: id, step: next };
        Ok((Effect::Began(id), vec![began, started]))
    }

    /// The controller looks at the breaker before it decides; but what it decided in an earlier term may be in the log
    /// and not yet applied, and be committed together with what it decides now.
    fn room_for_a_failover(&self) -> Result<(), Refusal> {
        let Some(policy) = self.spec.as_ref().map(|spec| &spec.policy) else { return Ok(()) };
        let counted = self.automatic_failovers_within(policy.failover_window.0, self.wall);
        if counted < policy.failovers_max as usize {
            return Ok(());
        }
        Err(Refusal::BreakerOpen { counted, window: policy.failover_window })
    }

    fn assign(&mut self, ip: &FloatingIpName, id: OperationId) -> Handled {
        let now = self.wall;
        let generation = self.generation;
        let named = self.names(ip);
        let operation = self.running(ip, id)?;
        if !named {
            return Err(Refusal::UnknownFloatingIp(ip.clone()));
        }
        let (target, incarnation) = (operation.target, operation.target_incarnation);
        if operation.token.is_some() {
            return Err(Refusal::WrongStep { operation: id, step: Step::Move });
        }
        if operation.fence.is_none() {
            return Err(Refusal::NotFenced(id));
        }
        self.live(target, incarnation)?;
        self.moves = Epoch(self.moves.0 + 1);
        let entry = self.floating_ip_mut(ip)?;
        entry.epoch = Epoch(entry.epoch.0 + 1);
        let token = Token { generation, epoch: entry.epoch };
        let owner = Owner { node: target, incarnation, token, since: now, revoked: false };
        let before = entry.owner.replace(owner.clone());
        assert!(before.is_none_or(|before| before.token < token), "tokens only grow");
        let operation = self.running(ip, id)?;
        operation.token = Some(token);
        let detail = format!("node {target} has token {token}");
        for (step, finished) in [(Step::Move, Some((now, StepResult::Done))), (Step::Observe, None)] {
            let detail = if finished.is_some() { detail.clone() } else { String::new() };
            operation.steps.push(StepRecord { step, started: now, finished, detail });
        }
        let events = vec![
            Event::OwnerChanged { ip: ip.clone(), owner },
            finished(ip, id, Step::Move, StepResult::Done, &detail),
            Event::StepStarted { ip: ip.clone(), operation: id, step: Step::Observe },
        ];
        Ok((Effect::Done, events))
    }

    fn retarget(
        &mut self,
        ip: &FloatingIpName,
        id: OperationId,
        (target, incarnation): (NodeId, Incarnation),
        detail: &str,
    ) -> Handled {
        self.live(target, incarnation)?;
        let operation = self.running(ip, id)?;
        if operation.token.is_some() {
            return Err(Refusal::TooLateToAbort(id));
        }
        if (operation.target, operation.target_incarnation) == (target, incarnation) {
            return Ok((Effect::Unchanged, Vec::new()));
        }
        operation.target = target;
        operation.target_incarnation = incarnation;
        if operation.evidence.len() < EVIDENCE_MAX {
            operation.evidence.push(format!("target is now node {target}: {detail}"));
        }
        Ok((Effect::Done, vec![Event::Retargeted { ip: ip.clone(), operation: id, target }]))
    }

    fn abort(&mut self, ip: &FloatingIpName, id: OperationId, detail: &str) -> Handled {
        let now = self.wall;
        let operation = self.running(ip, id)?;
        if operation.token.is_some() {
            return Err(Refusal::TooLateToAbort(id));
        }
        let fenced = operation.fence.is_some();
        if let Some(step) = operation.current() {
            operation.finish(now, step, StepResult::Skipped, detail)?;
        }
        let entry = self.floating_ip_mut(ip)?;
        if fenced {
            entry.owner = None; // its token is dead; the next operation places the address anew
        } else if let Some(owner) = &mut entry.owner {
            owner.revoked = false;
        }
        Ok((Effect::Done, self.end_operation(ip, Outcome::Aborted)))
    }

    fn end_operation(&mut self, ip: &FloatingIpName, outcome: Outcome) -> Vec<Event> {
        let now = self.wall;
        let Some(mut operation) = self.floating_ips.get_mut(ip).and_then(|entry| entry.operation.take())
        else {
            return Vec::new();
        };
        operation.ended = Some((now, outcome));
        let id = operation.id;
        if self.history.len() >= HISTORY_MAX {
            self.history.pop_front();
        }
        self.history.push_back(operation);
        vec![Event::OperationEnded { ip: ip.clone(), operation: id, outcome }]
    }
}

fn finished(
    ip: &FloatingIpName,
    operation: OperationId,
    step: Step,
    result: StepResult,
    detail: &str,
) -> Event {
    Event::StepFinished { ip: ip.clone(), operation, step, result, detail: detail.to_owned() }
}

impl Operation {
    fn start(&mut self, now: WallTime, step: Step) -> Result<(), Refusal> {
        let last = self.steps.last();
        let in_order = last.is_some_and(|last| last.finished.is_some() && last.step < step);
        let allowed = match step {
            Step::Decide | Step::Drain | Step::Move | Step::Observe => false, // begun by other commands
            Step::Fence => self.fence.is_none(),
            Step::Announce | Step::Verify => self.token.is_some(),
        };
        if !(in_order && allowed) {
            return Err(Refusal::WrongStep { operation: self.id, step });
        }
        self.steps.push(StepRecord { step, started: now, finished: None, detail: String::new() });
        Ok(())
    }

    fn finish(&mut self, now: WallTime, step: Step, result: StepResult, detail: &str) -> Result<(), Refusal> {
        let wrong = Refusal::WrongStep { operation: self.id, step };
        let record = self.steps.last_mut().filter(|record| record.step == step && record.finished.is_none());
        let record = record.ok_or(wrong)?;
        record.finished = Some((now, result));
        detail.clone_into(&mut record.detail);
        Ok(())
    }
}

impl Fence {
    /// Whether a person, not the protocol, stands for this fence.
    pub const fn is_attested(self) -> bool {
        matches!(self, Self::Attested)
    }
}
