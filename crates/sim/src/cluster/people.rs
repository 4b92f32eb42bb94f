//! Who asks for what: clients that place rooms and read, operators, and whoever replaces a machine that is lost.

use super::Mistake;
use super::life::Life;
use super::node::Node;
use super::process::Raft;
use crate::runtime::{Executor, ProcessId, SimRuntime, spawn};
use crate::violation::Rule;
use std::sync::{Arc, PoisonError};
use std::time::Duration;
use twinsite_agents::{Brain, Machine, RecoveryNote};
use twinsite_consensus::{MemberRole, ProposeError, TransferError};
use twinsite_controller::{
    MoveKind, MoveRequest, MoveTarget, OperatorAction, OperatorAnswer, OperatorRefusal, OperatorRequest,
};
use twinsite_model::spec::NodeSpec;
use twinsite_model::{
    Command, DrillOutcome, Generation, Incarnation, NodeId, Proposal, RequestId, Revision, RoomKey,
    SafetyRule,
};

/// Rooms that are placed again and again.
const ROOMS: u8 = 12;

/// How long a mistaken leader trusts the last word of its quorum.
const LEASE_READ_WITHIN: Duration = Duration::from_millis(75);

/// What people hear, put down by their tasks and read by the simulation.
pub(super) enum Heard {
    Acknowledged(Generation, RequestId, Revision),
    Late,
    Unknown,
    Refused,
    Read { node: NodeId, floor: (Generation, Revision), revision: (Generation, Revision) },
    NotRead,
    Granted(&'static str, u64),
    WishRefused,
    DrillRefused,
    NotAnswered,
    Replaced(bool),
    Transferred(Result<(), TransferError>),
    Recovered(Result<(usize, RecoveryNote, Option<usize>), String>),
}

/// A replacement under way. At most one at a time, as for a careful operator.
#[derive(Debug, Clone, Copy)]
pub(super) struct Replacement {
    pub(super) old: NodeId,
    pub(super) new: NodeId,
}

impl Life {
    /// Somebody asks a node for something.
    pub(super) fn ask(&mut self) {
        self.replace();
        if self.drilling.u32(..100) < self.plan.drills {
            self.drill();
        }
        let node = self.random.usize(..self.nodes.len());
        let id = self.nodes[node].id;
        let (Some(raft), Some(process)) = (self.nodes[node].raft(), self.nodes[node].process) else { return };
        if self.random.u32(..100) < self.plan.wishes {
            return self.event(Self::wish);
        }
        if self.random.u32(..100) < self.plan.habits.restless && self.provider.is_used() {
            let to = self.nodes[self.random.usize(..self.nodes.len())].id;
            return self.event(|life, _| life.moved_by_hand(to));
        }
        let heard = Arc::clone(&self.heard);
        let tell = move |what| heard.lock().unwrap_or_else(PoisonError::into_inner).push(what);
        if self.random.u32(..3) == 0 {
            let floor = self.oracle.acknowledged();
            let mistake = self.mistake;
            drop(spawn(process, async move { tell(read(&raft, id, floor, mistake).await) }));
        } else {
            self.requests += 1;
            let request = RequestId::new(format!("r{}", self.requests)).expect("a short one");
            let room = RoomKey([self.random.u8(..ROOMS); 16]);
            let upstreams = &self.plan.spec.upstreams;
            let upstream = upstreams[self.random.usize(..upstreams.len())].name.clone();
            let state = raft.state();
            let replace = state.sessions.pins.get(&room).map(|pin| pin.upstream.clone());
            let command = Command::PinRoom { room, upstream, replace, token: state.session_token() };
            drop(spawn(process, async move { tell(propose(&raft, request, command).await) }));
        }
    }

    /// A person at whoever believes to lead.
    fn wish(&mut self, number: u64) {
        let Some((raft, brain, process)) = self.some_leader() else { return };
        if self.random.u32(..8) == 0 {
            return self.transfer(number, raft, process);
        }
        let ips = &self.plan.spec.floating_ips;
        let ip = ips[self.random.usize(..ips.len())].name.clone();
        let action = match self.random.u32(..10) {
            0..6 => {
                let kind = if self.random.u32(..3) > 0 { MoveKind::Switchover } else { MoveKind::Failover };
                let to = if self.random.bool() {
                    MoveTarget::Best
                } else {
                    MoveTarget::Node(self.nodes[self.random.usize(..self.nodes.len())].id)
                };
                let overrides = SafetyRule::ALL.into_iter().filter(|_| self.random.u32(..8) == 0).collect();
                OperatorAction::Move(MoveRequest { ip, kind, to, overrides })
            }
            6 => OperatorAction::Abort { ip, detail: "changed my mind".to_owned() },
            7 => OperatorAction::Pause {
                duration: Some(Duration::from_millis(self.random.u64(1..2_000))),
                reason: "work".to_owned(),
            },
            8 => OperatorAction::Resume,
            _ => OperatorAction::ResetBreaker,
        };
        self.note(|| format!("#{number} a person wants {action:?}"));
        let heard = Arc::clone(&self.heard);
        drop(spawn(process, async move {
            let answer = operate(&brain, action).await;
            heard.lock().unwrap_or_else(PoisonError::into_inner).push(answer);
        }));
    }

    /// A drill is begun, stopped or ended by whoever believes to lead. Whatever fails meanwhile fails for real.
    fn drill(&mut self) {
        let Some((raft, brain, process)) = self.some_leader() else { return };
        let (heard, chance) = (Arc::clone(&self.heard), &mut self.drilling);
        let (what, node) = (chance.u32(..6), NodeId(chance.u64(1..=5)));
        let within = Duration::from_millis(chance.u64(1..5_000));
        drop(spawn(process, async move {
            let state = raft.state();
            let action = match (what, &state.drill) {
                (0..3, _) => OperatorAction::BeginDrill {
                    name: "sim".to_owned(),
                    person: "ada".to_owned(),
                    runner: node,
                    incarnation: state.nodes.get(&node).map_or(Incarnation(0), |life| life.incarnation),
                    within,
                },
                (3, Some(drill)) => OperatorAction::EndDrill {
                    drill: drill.id,
                    outcome: DrillOutcome::Passed,
                    summary: "{}".to_owned(),
                },
                _ => OperatorAction::StopDrill { reason: "changed my mind".to_owned() },
            };
            let answer = match operate(&brain, action).await {
                Heard::Granted(_, revision) => Heard::Granted("wishes about drills carried out", revision),
                Heard::WishRefused => Heard::DrillRefused,
                other => other,
            };
            heard.lock().unwrap_or_else(PoisonError::into_inner).push(answer);
        }));
    }

    /// Leadership is to be handed over, whatever that does.
    fn transfer(&mut self, number: u64, raft: Raft, process: ProcessId) {
        let to = self.nodes[self.random.usize(..self.nodes.len())].id;
        self.note(|| format!("#{number} a person wants {to} to lead"));
        let heard = Arc::clone(&self.heard);
        drop(spawn(process, async move {
            let done = raft.transfer_leadership(to).await;
            heard.lock().unwrap_or_else(PoisonError::into_inner).push(Heard::Transferred(done));
        }));
    }

    fn some_leader(&self) -> Option<(Raft, Brain, ProcessId)> {
        let leads = |node: &&Node| node.raft().is_some_and(|raft| raft.status().borrow().is_leader);
        let leader = self.nodes.iter().find(leads)?;
        let running = leader.running()?;
        Some((running.raft, running.brain, leader.process?))
    }

    /// Whoever believes to lead is asked to take the old node out for good and to put the new one in its place; the rest is
    /// the keeper's.
    fn replace(&mut self) {
        let Some(Replacement { old, new }) = self.replacement.filter(|_| !self.replacing) else { return };
        let Some((raft, brain, process)) = self.some_leader() else { return };
        let place = self.nodes.iter().position(|node| node.id == new);
        let Some(former) = place.map(|place| self.plan.spec.nodes[place].clone()) else { return };
        self.replacing = true;
        let heard = Arc::clone(&self.heard);
        let answer = spawn(process, async move {
            let state = raft.state();
            let Some(spec) = &state.spec else { return false };
            let action = match (spec.node(old), spec.node(new)) {
                (Some(_), _) => Some(OperatorAction::RetireNode(old)),
                (None, None) => Some(OperatorAction::PutNode(NodeSpec { id: new, ..former })),
                (None, Some(_)) => None,
            };
            if let Some(action) = action {
                drop(operate(&brain, action).await);
                return false;
            }
            let status = raft.status().borrow().clone();
            let role = status.members.get(&new).map(|member| member.role);
            let is_in = role == Some(MemberRole::Voter) && !status.members.contains_key(&old);
            is_in && status.is_leader && !status.is_changing
        });
        drop(spawn(ProcessId::WORLD, async move {
            let done = answer.await.unwrap_or(false);
            heard.lock().unwrap_or_else(PoisonError::into_inner).push(Heard::Replaced(done));
        }));
    }

    pub(super) fn hear(&mut self) {
        let heard = std::mem::take(&mut *self.heard.lock().unwrap_or_else(PoisonError::into_inner));
        let now = Executor::now();
        for heard in heard {
            let what = match heard {
                Heard::Acknowledged(generation, request, revision) => {
                    self.trace.mix(&[now, revision.0]);
                    self.oracle.acknowledge(generation, request, revision, now);
                    "commands acknowledged"
                }
                Heard::Read { node, floor, revision } => {
                    self.oracle.read(node, floor, revision, now);
                    "reads answered"
                }
                Heard::Late => "commands that came too late",
                Heard::Unknown => "commands of unknown outcome",
                Heard::Refused => "commands refused",
                Heard::NotRead => "reads refused",
                Heard::Granted(what, revision) => {
                    self.trace.mix(&[now, revision]);
                    what
                }
                Heard::Transferred(Ok(())) => "transfers of leadership",
                Heard::Transferred(Err(TransferError::Failed(_))) => "transfers that failed",
                Heard::Transferred(Err(_)) => "transfers that were not tried",
                Heard::WishRefused => "wishes refused",
                Heard::DrillRefused => "wishes about drills refused",
                Heard::NotAnswered => "wishes that nobody answered",
                Heard::Recovered(Ok(recovered)) => {
                    self.recovered(recovered);
                    "forced recoveries"
                }
                Heard::Recovered(Err(why)) => {
                    self.oracle.report(Rule::Recovers, now, format!("no forced recovery: {why}"));
                    continue;
                }
                Heard::Replaced(false) => {
                    self.replacing = false;
                    "steps of a replacement that were tried again"
                }
                Heard::Replaced(true) => {
                    self.replacing = false;
                    self.replacement = None;
                    "replaced nodes"
                }
            };
            self.count(what, 1);
        }
    }
}

async fn operate(brain: &Brain, action: OperatorAction) -> Heard {
    let request = OperatorRequest { by: "ada".to_owned(), request: None, expected_revision: None, action };
    match brain.operator(request).await {
        Ok(Ok(answer)) => {
            let (OperatorAnswer::Done { revision }
            | OperatorAnswer::Unchanged { revision }
            | OperatorAnswer::Repeated { revision }
            | OperatorAnswer::Began { revision, .. }) = answer;
            Heard::Granted("wishes carried out", revision.0)
        }
        Ok(Err(OperatorRefusal::OutcomeUnknown)) | Err(_) => Heard::NotAnswered,
        Ok(Err(_)) => Heard::WishRefused,
    }
}

async fn propose(raft: &Raft, request: RequestId, command: Command) -> Heard {
    let proposal = Proposal {
        at: SimRuntime::wall_now(),
        by: "sim".to_owned(),
        request: Some(request.clone()),
        expected_revision: None,
        command,
    };
    match raft.propose(&proposal).await {
        // The room may have found another place meanwhile, and the state stays as it is.
        Ok(applied) if applied.events.is_empty() => Heard::Late,
        Ok(applied) => Heard::Acknowledged(raft.generation(), request, applied.revision),
        Err(ProposeError::OutcomeUnknown) => Heard::Unknown,
        Err(_) => Heard::Refused,
    }
}

async fn read(raft: &Raft, node: NodeId, floor: (Generation, Revision), mistake: Option<Mistake>) -> Heard {
    if mistake == Some(Mistake::TrustTheFlag) && raft.status().borrow().is_leader {
        return Heard::Read { node, floor, revision: (raft.generation(), raft.state().revision) };
    }
    let fresh = raft.quorum_ack_age().is_some_and(|age| age < LEASE_READ_WITHIN);
    if mistake == Some(Mistake::LeaseRead) && raft.status().borrow().is_leader && fresh {
        return Heard::Read { node, floor, revision: (raft.generation(), raft.state().revision) };
    }
    let Ok(index) = raft.read_index().await else { return Heard::NotRead };
    if mistake == Some(Mistake::ReadBeforeApplied) {
        return Heard::Read { node, floor, revision: (raft.generation(), raft.state().revision) };
    }
    match raft.wait_applied(index, Duration::from_secs(2)).await {
        Ok(()) => Heard::Read { node, floor, revision: (raft.generation(), raft.state().revision) },
        Err(_) => Heard::NotRead,
    }
}
