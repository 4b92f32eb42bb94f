//! How a command changes the state. Total and deterministic: the same commands in the same order give the same
//! state on every node, and a command that makes no sense is refused without a trace.

mod drills;
mod errands;
mod operations;
mod sessions;
mod specification;

pub use drills::DrillBlock;

use crate::command::{Command, NewVerdict, Proposal};
use crate::event::Event;
use crate::faults::{Fault, Faults};
use crate::ids::{
    DrillId, ErrandId, FloatingIpName, NodeId, OperationId, RequestId, Revision, Token, UpstreamName,
};
use crate::operation::Step;
use crate::spec::validate::Finding;
use crate::spec::{ClusterSpec, HumanDuration};
use crate::state::{
    AHEAD_MAX, AnnouncedRecord, Drain, EVIDENCE_MAX, Format, NodeLife, Pause, Pin, REQUESTS_MAX, State,
    Verdict, VerdictRecord,
};
use crate::time::WallTime;
use std::collections::BTreeSet;
use std::net::IpAddr;

/// What came of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// The state's revision afterwards.
    pub revision: Revision,
    /// What changed; empty when the command was refused, a repetition, or changed nothing that is watched.
    pub events: Vec<Event>,
    /// Whether it was carried out.
    pub result: Result<Effect, Refusal>,
}

/// What a command that was carried out did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// It changed the state.
    Done,
    /// It changed nothing: things were already so.
    Unchanged,
    /// The same request was carried out before, at this revision.
    Repeated(Revision),
    /// The room's place after a `PinRoom`, whoever chose it.
    Placed(Pin),
    /// A move began.
    Began(OperationId),
}

/// Why a command was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The caller expected another revision.
    #[error("the state is at revision {actual}, not at {expected}: look again, then repeat")]
    RevisionMismatch {
        /// What the caller expected.
        expected: Revision,
        /// What it is.
        actual: Revision,
    },
    /// There is no specification yet.
    #[error("the cluster has no specification yet")]
    NoSpec,
    /// No such upstream.
    #[error("there is no upstream `{0}`")]
    UnknownUpstream(UpstreamName),
    /// No such node, or its life has not been recorded.
    #[error("there is no live node {0}")]
    UnknownNode(NodeId),
    /// The id belonged to a node that is gone.
    #[error("node id {0} belonged to a node that was removed: take a new one")]
    RetiredNode(NodeId),
    /// No such floating IP.
    #[error("there is no floating IP `{0}`")]
    UnknownFloatingIp(FloatingIpName),
    /// The address is being moved already.
    #[error("operation {0} is moving this address already")]
    OperationRunning(OperationId),
    /// No such operation is running.
    #[error("operation {0} is not running")]
    NoSuchOperation(OperationId),
    /// The journal is not at that step.
    #[error("operation {operation} is not at step {step}")]
    WrongStep {
        /// The operation.
        operation: OperationId,
        /// The step.
        step: Step,
    },
    /// The fence is not complete.
    #[error("operation {0} has not fenced the old owner")]
    NotFenced(OperationId),
    /// The token was given; there is no way back.
    #[error("operation {0} has given the address to its target: it can only go forward")]
    TooLateToAbort(OperationId),
    /// The owner has another token than the caller thought.
    #[error("the owner's token is not {given:?} (it is {current:?})")]
    OwnerChanged {
        /// What the caller thought.
        given: Option<Token>,
        /// What it is.
        current: Option<Token>,
    },
    /// As many automatic failovers have begun as the policy allows.
    #[error("{counted} automatic failovers began within {window}, which is as many as the policy allows")]
    BreakerOpen {
        /// How many.
        counted: usize,
        /// The policy's window.
        window: HumanDuration,
    },
    /// An errand for the address is under way.
    #[error("errand {0} at the provider is under way already")]
    ErrandUnderWay(ErrandId),
    /// No such errand is under way.
    #[error("errand {0} is not under way")]
    NoSuchErrand(ErrandId),
    /// The errand was not recalled, so it may begin at any time.
    #[error("errand {0} stands: it was not recalled")]
    ErrandStands(ErrandId),
    /// The writer missed a change of owner.
    #[error("token {given} is older than {seen}")]
    StaleToken {
        /// The writer's.
        given: Token,
        /// The newest seen.
        seen: Token,
    },
    /// The embedded store is full.
    #[error("the embedded session store is full")]
    SessionsFull,
    /// The generation can only grow.
    #[error("the generation can only grow")]
    GenerationNotNewer,
    /// Not every member reads this format.
    #[error("not every member reads format {}", .0.0)]
    FormatUnsupported(Format),
    /// The command needs a newer format than the cluster has agreed on.
    #[error("the cluster has agreed on an older format than this command needs ({})", .0.0)]
    FormatTooNew(Format),
    /// The node does not read what the cluster writes.
    #[error("node {node} reads format {} at most, and the cluster uses {}: upgrade it", reads.0, used.0)]
    FormatTooOld {
        /// The node.
        node: NodeId,
        /// The newest format that it reads.
        reads: Format,
        /// The format that the cluster uses.
        used: Format,
    },
    /// The specification belongs to another cluster.
    #[error("the specification is for another cluster")]
    OtherCluster,
    /// A point in time is too far ahead.
    #[error("it would end more than {} from now: choose a shorter time", HumanDuration(AHEAD_MAX))]
    TooFarAhead,
    /// A drill runs already.
    #[error("drill {0} runs already: wait for its end, or abort it")]
    DrillRunning(DrillId),
    /// No such drill runs.
    #[error("drill {0} does not run")]
    NoSuchDrill(DrillId),
    /// Drills are not allowed now.
    #[error("no drill may begin: {0}")]
    DrillBlocked(DrillBlock),
    /// A text about a drill is too long.
    #[error("{what} has {bytes} bytes, at most {max} are allowed")]
    DrillTextTooLong {
        /// Which text.
        what: &'static str,
        /// How long it is.
        bytes: usize,
        /// How long it may be.
        max: usize,
    },
    /// A floating IP is taken away or changed while somebody may still answer for it.
    #[error(
        "floating IP `{0}` is, or was until a moment ago, held by a node: to change it or to give its address to \
         another, apply a specification without it first; when nobody holds it any more, apply the one that has it \
         as it shall be"
    )]
    FloatingIpHeld(FloatingIpName),
    /// An address is moved and taken away at once.
    #[error(
        "operation {operation} is moving floating IP `{ip}`: wait for its end, or abort it, then apply again"
    )]
    FloatingIpMoving {
        /// The address.
        ip: FloatingIpName,
        /// The operation.
        operation: OperationId,
    },
    /// The specification leaves out a node that is a member.
    #[error(
        "the specification leaves out node {0}, which is a member: add it to the file, or take the node out for good \
         with `members remove`, then apply again"
    )]
    NodeMissing(NodeId),
    /// A node that has a vote would lose it and stay, or the other way round.
    #[error("node {0} cannot lose its vote and stay: remove it, and add it anew under another id")]
    VoteKept(NodeId),
    /// The specification that would result cannot be used.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    SpecInvalid(Vec<Finding>),
}

/// The outcome of one handler: what happened, and the events.
type Handled = Result<(Effect, Vec<Event>), Refusal>;

impl State {
    /// Carries out one committed command. `index` is its place in the log; places only grow.
    pub fn apply(&mut self, index: u64, proposal: &Proposal) -> Applied {
        assert!(index > self.revision.0, "log entries are applied in order: {index} after {}", self.revision);
        if proposal.moves_clock() {
            self.wall = self.wall.max(proposal.at);
        }
        let handled = self.admit(proposal).unwrap_or_else(|| self.carry_out(Revision(index), proposal));
        match handled {
            Ok((effect @ (Effect::Unchanged | Effect::Repeated(_)), _)) => {
                self.applied(Vec::new(), Ok(effect))
            }
            Ok((effect, events)) => {
                if events.is_empty() && matches!(effect, Effect::Placed(_)) {
                    return self.applied(events, Ok(effect));
                }
                self.revision = Revision(index);
                if let Some(request) = &proposal.request {
                    self.remember(request.clone());
                }
                self.applied(events, Ok(effect))
            }
            Err(refusal) => self.applied(Vec::new(), Err(refusal)),
        }
    }

    fn applied(&self, events: Vec<Event>, result: Result<Effect, Refusal>) -> Applied {
        Applied { revision: self.revision, events, result }
    }

    /// What is decided before the command is looked at: repetitions, expectations, the version gate.
    fn admit(&self, proposal: &Proposal) -> Option<Handled> {
        if let Some(revision) = proposal.request.as_ref().and_then(|id| self.request(id)) {
            return Some(Ok((Effect::Repeated(revision), Vec::new())));
        }
        let required = proposal.command.required_format();
        // The format can only be raised once the members are known, so the first specification comes before.
        let first = self.spec.is_none() && matches!(proposal.command, Command::ApplySpec { .. });
        if required > self.format && !first {
            return Some(Err(Refusal::FormatTooNew(required)));
        }
        let expected = proposal.expected_revision?;
        (expected != self.revision)
            .then_some(Err(Refusal::RevisionMismatch { expected, actual: self.revision }))
    }

    fn remember(&mut self, request: RequestId) {
        if self.requests.len() >= REQUESTS_MAX {
            self.requests.pop_front();
        }
        self.requests.push_back((request, self.revision));
    }

    fn carry_out(&mut self, revision: Revision, proposal: &Proposal) -> Handled {
        let now = self.wall;
        let by = &proposal.by;
        match &proposal.command {
            Command::ApplySpec { spec } => self.apply_spec(revision, spec, by),
            Command::PutNode { node } => self.put_node(revision, node),
            Command::RetireNode { node } => self.retire_node(revision, *node, proposal.by_node()),
            Command::RaiseFormat { format } => self.raise_format(*format),
            Command::RecordLife { node, incarnation, format_max, version } => {
                let life = NodeLife {
                    incarnation: *incarnation,
                    format_max: *format_max,
                    version: version.clone(),
                    since: now,
                };
                self.record_life(*node, life)
            }
            Command::SetVerdicts { verdicts } => self.set_verdicts(now, verdicts),
            Command::SetDrain { upstream, draining, deadline } => {
                if deadline.is_some_and(|deadline| deadline > now.plus(AHEAD_MAX)) {
                    return Err(Refusal::TooFarAhead);
                }
                let drain = Drain { since: now, by: by.clone(), deadline: *deadline };
                self.set_drain(upstream, draining.then_some(drain))
            }
            Command::Pause { until, reason } => {
                if *until > now.plus(AHEAD_MAX) {
                    return Err(Refusal::TooFarAhead);
                }
                let pause = Pause { until: *until, since: now, by: by.clone(), reason: reason.clone() };
                Ok(self.begin_pause(pause))
            }
            Command::Resume { expired } => Ok(self.resume(*expired, by)),
            Command::ResetBreaker => Ok(self.reset_breaker(by)),
            Command::RaiseGeneration { generation, statement } => {
                if *generation <= self.generation {
                    return Err(Refusal::GenerationNotNewer);
                }
                self.generation = *generation;
                let event = Event::GenerationRaised { generation: *generation, statement: statement.clone() };
                Ok((Effect::Done, vec![event]))
            }
            Command::RecordAnnounced { by, announced } => Ok(self.record_announced(now, *by, announced)),
            Command::BeginOperation { .. }
            | Command::StartStep { .. }
            | Command::FinishStep { .. }
            | Command::CompleteFence { .. }
            | Command::Assign { .. }
            | Command::Retarget { .. }
            | Command::CloseOperation { .. }
            | Command::AbortOperation { .. } => self.drive_operation(revision, proposal),
            Command::PinRoom { room, upstream, replace, token } => {
                self.pin_room(revision, *room, upstream, replace.as_ref(), *token)
            }
            Command::TouchRooms { rooms, token } => self.touch_rooms(rooms, *token),
            Command::ExpireRooms { before } => Ok(self.expire_rooms(*before)),
            Command::SendErrand { .. } | Command::RecallErrand { .. } | Command::EndErrand { .. } => {
                self.drive_errand(&proposal.command)
            }
            Command::BeginDrill { .. } => self.begin_drill(revision, &proposal.command),
            Command::StopDrill { drill, reason } => self.stop_drill(*drill, by, reason),
            Command::EndDrill { drill, outcome, summary } => self.end_drill(*drill, *outcome, summary),
            Command::RotateTicketKey { secret } => Ok(self.rotate_ticket_key(now, secret)),
        }
    }

    fn raise_format(&mut self, format: Format) -> Handled {
        if format <= self.format {
            return Ok((Effect::Unchanged, Vec::new()));
        }
        let spec = self.spec.as_ref().ok_or(Refusal::NoSpec)?;
        let all_read = spec
            .nodes
            .iter()
            .all(|node| self.nodes.get(&node.id).is_some_and(|life| life.format_max >= format));
        if !all_read && !Faults::here().has(Fault::FormatRaisedTooEarly) {
            return Err(Refusal::FormatUnsupported(format));
        }
        self.format = format;
        Ok((Effect::Done, vec![Event::FormatRaised(format)]))
    }

    fn record_life(&mut self, node: NodeId, life: NodeLife) -> Handled {
        if self.retired_nodes.contains(&node) {
            return Err(Refusal::RetiredNode(node));
        }
        if self.spec.as_ref().ok_or(Refusal::NoSpec)?.node(node).is_none() {
            return Err(Refusal::UnknownNode(node));
        }
        let (reads, used) = (life.format_max, self.format);
        if reads < used {
            return Err(Refusal::FormatTooOld { node, reads, used });
        }
        let incarnation = life.incarnation;
        // Lives of one disk are counted upwards, so a report that was late cannot bring an earlier one back.
        if self.nodes.get(&node).is_some_and(|known| known.incarnation >= incarnation) {
            return Ok((Effect::Unchanged, Vec::new()));
        }
        self.nodes.insert(node, life);
        Ok((Effect::Done, vec![Event::NodeStarted { node, incarnation }]))
    }

    fn set_verdicts(&mut self, now: WallTime, verdicts: &[NewVerdict]) -> Handled {
        let spec = self.spec.clone().ok_or(Refusal::NoSpec)?;
        let named = upstream_names(&spec);
        let mut events = Vec::new();
        for new in verdicts {
            if !named.contains(&new.upstream) {
                continue; // removed by a specification that overtook the verdict
            }
            let from = self.verdict(&new.upstream);
            let health = if new.health == Verdict::Draining { Verdict::Healthy } else { new.health };
            let evidence: Vec<_> = new.evidence.iter().take(EVIDENCE_MAX).cloned().collect();
            let known = self.verdicts.get(&new.upstream).map_or(Verdict::Unknown, |record| record.health);
            if known == health {
                continue;
            }
            let record = VerdictRecord { health, since: now, evidence: evidence.clone() };
            self.verdicts.insert(new.upstream.clone(), record);
            let to = self.verdict(&new.upstream);
            events.push(Event::VerdictChanged { upstream: new.upstream.clone(), from, to, evidence });
        }
        Ok(if events.is_empty() { (Effect::Unchanged, events) } else { (Effect::Done, events) })
    }

    fn set_drain(&mut self, upstream: &UpstreamName, drain: Option<Drain>) -> Handled {
        let spec = self.spec.as_ref().ok_or(Refusal::NoSpec)?;
        if spec.upstream(upstream).is_none() {
            return Err(Refusal::UnknownUpstream(upstream.clone()));
        }
        let deadline = |drain: &Drain| drain.deadline;
        let known = self.drains.get(upstream);
        if known.is_some() == drain.is_some() && known.map(deadline) == drain.as_ref().map(deadline) {
            return Ok((Effect::Unchanged, Vec::new()));
        }
        let from = self.verdict(upstream);
        let evidence = match &drain {
            Some(drain) => vec![format!("drain wanted by {}", drain.by)],
            None => vec!["drain ended".to_owned()],
        };
        match drain {
            Some(drain) => self.drains.insert(upstream.clone(), drain),
            None => self.drains.remove(upstream),
        };
        let to = self.verdict(upstream);
        Ok((Effect::Done, vec![Event::VerdictChanged { upstream: upstream.clone(), from, to, evidence }]))
    }

    fn begin_pause(&mut self, pause: Pause) -> (Effect, Vec<Event>) {
        let event = Event::Paused { until: pause.until, by: pause.by.clone(), reason: pause.reason.clone() };
        self.pause = Some(pause);
        (Effect::Done, vec![event])
    }

    fn resume(&mut self, expired: bool, by: &str) -> (Effect, Vec<Event>) {
        match self.pause.take() {
            Some(_) => (Effect::Done, vec![Event::Resumed { expired, by: by.to_owned() }]),
            None => (Effect::Unchanged, Vec::new()),
        }
    }

    fn reset_breaker(&mut self, by: &str) -> (Effect, Vec<Event>) {
        if self.automatic_failovers.is_empty() {
            return (Effect::Unchanged, Vec::new());
        }
        self.automatic_failovers.clear();
        (Effect::Done, vec![Event::BreakerReset { by: by.to_owned() }])
    }

    fn record_announced(
        &mut self,
        now: WallTime,
        by: NodeId,
        announced: &[(UpstreamName, IpAddr, Token)],
    ) -> (Effect, Vec<Event>) {
        let Some(spec) = self.spec.clone() else { return (Effect::Unchanged, Vec::new()) };
        let named = upstream_names(&spec);
        let mut events = Vec::new();
        for (upstream, address, token) in announced {
            let known = self.announced.get(upstream);
            let same = known.is_some_and(|record| record.address == *address && record.token == *token);
            if same || !named.contains(upstream) {
                continue;
            }
            let record = AnnouncedRecord { address: *address, token: *token, since: now, by };
            self.announced.insert(upstream.clone(), record);
            events.push(Event::AnnouncedChanged {
                upstream: upstream.clone(),
                address: *address,
                token: *token,
            });
        }
        if events.is_empty() { (Effect::Unchanged, events) } else { (Effect::Done, events) }
    }
}

/// The names for many look-ups, so that work grows with the number of upstreams and not with its square.
fn upstream_names(spec: &ClusterSpec) -> BTreeSet<&UpstreamName> {
    spec.upstreams.iter().map(|upstream| &upstream.name).collect()
}

#[cfg(test)]
mod tests;
