//! Unit and property tests of `State::apply`.

mod drills;
mod journal;
mod properties;
mod records;
mod sessions;
mod specification;

use super::{Applied, Effect, Refusal};
use crate::command::{Command, NewVerdict, Proposal};
use crate::event::Event;
use crate::ids::{FloatingIpName, Incarnation, NodeId, OperationId, Revision, Token};
use crate::operation::{Fence, Operation, OperationKind, Outcome, Reason, Step, StepResult};
use crate::samples;
use crate::state::{Format, Owner, State, Verdict};
use crate::time::WallTime;
use std::sync::Arc;

/// A state with a log of its own: each command gets the next index and a clock that advances.
struct Cluster {
    state: State,
    index: u64,
    wall: u64,
}

impl Cluster {
    /// With the sample specification, and every node alive: node N in its life 10·N.
    fn new() -> Self {
        let mut cluster = Self { state: State::default(), index: 0, wall: 1_000 };
        cluster.done(Command::ApplySpec { spec: Arc::new(samples::spec()) });
        for node in 1..=5 {
            cluster.done(life(node, node * 10));
        }
        cluster
    }

    fn apply(&mut self, proposal: &Proposal) -> Applied {
        self.index += 1;
        self.state.apply(self.index, proposal)
    }

    fn propose(&mut self, command: Command) -> Applied {
        self.wall += 10;
        self.apply(&Proposal::by_controller(WallTime(self.wall), command))
    }

    /// Expects the command to change something; returns the events.
    #[track_caller]
    fn done(&mut self, command: Command) -> Vec<Event> {
        let applied = self.propose(command);
        assert!(applied.result.is_ok(), "{:?}", applied.result);
        assert_ne!(applied.result, Ok(Effect::Unchanged));
        assert_eq!(applied.revision, Revision(self.index));
        applied.events
    }

    /// Expects the command to change nothing, because things are already so.
    #[track_caller]
    fn unchanged(&mut self, command: Command) {
        let before = self.state.clone();
        let applied = self.propose(command);
        assert_eq!(applied.result, Ok(Effect::Unchanged));
        assert_eq!(applied.events, []);
        assert_eq!(self.state, State { wall: self.state.wall, ..before });
    }

    /// Expects the command to be refused without a trace.
    #[track_caller]
    fn refused(&mut self, command: Command, refusal: &Refusal) {
        let before = self.state.clone();
        let applied = self.propose(command);
        assert_eq!(applied.result.as_ref(), Err(refusal));
        assert_eq!((applied.events.len(), applied.revision), (0, before.revision));
        assert_eq!(self.state, State { wall: self.state.wall, ..before });
    }

    fn owner(&self) -> Option<Owner> {
        self.state.owner(&ip()).cloned()
    }

    fn running(&self) -> Option<&Operation> {
        self.state.floating_ips[&ip()].operation.as_ref()
    }

    fn begin(&mut self, kind: OperationKind, target: u64) -> OperationId {
        let from = self.owner().map(|owner| owner.token);
        let applied = self.propose(begin(kind, from, target));
        match applied.result {
            Ok(Effect::Began(id)) => id,
            other => panic!("{other:?}"),
        }
    }

    /// Moves the address to a node, through all steps.
    fn move_to(&mut self, kind: OperationKind, target: u64) -> OperationId {
        let operation = self.begin(kind, target);
        if kind.drains() {
            self.done(finish(operation, Step::Drain));
            self.done(start(operation, Step::Fence));
        }
        self.done(fence(operation));
        self.done(Command::Assign { ip: ip(), operation });
        self.done(finish(operation, Step::Observe));
        self.done(start(operation, Step::Announce));
        self.done(finish(operation, Step::Announce));
        self.done(start(operation, Step::Verify));
        self.done(finish(operation, Step::Verify));
        self.done(close(operation));
        operation
    }
}

fn ip() -> FloatingIpName {
    "public".parse().unwrap()
}

fn life(node: u64, incarnation: u64) -> Command {
    Command::RecordLife {
        node: NodeId(node),
        incarnation: Incarnation(incarnation),
        format_max: Format(1),
        version: "0.1.0".to_owned(),
    }
}

fn begin(kind: OperationKind, from: Option<Token>, target: u64) -> Command {
    Command::BeginOperation {
        ip: ip(),
        kind,
        reason: Reason::Operator,
        evidence: vec!["asked".to_owned()],
        from,
        target: NodeId(target),
        target_incarnation: Incarnation(target * 10),
        overrides: Vec::new(),
    }
}

fn start(operation: OperationId, step: Step) -> Command {
    Command::StartStep { ip: ip(), operation, step }
}

fn finish(operation: OperationId, step: Step) -> Command {
    Command::FinishStep { ip: ip(), operation, step, result: StepResult::Done, detail: String::new() }
}

fn fence(operation: OperationId) -> Command {
    Command::CompleteFence { ip: ip(), operation, fence: Fence::Released, detail: String::new() }
}

fn assign(operation: OperationId) -> Command {
    Command::Assign { ip: ip(), operation }
}

fn close(operation: OperationId) -> Command {
    Command::CloseOperation { ip: ip(), operation, outcome: Outcome::Verified }
}

fn abort(operation: OperationId) -> Command {
    Command::AbortOperation { ip: ip(), operation, detail: "no longer wanted".to_owned() }
}

fn verdict(upstream: &str, health: Verdict) -> Command {
    let upstream = samples::upstream(upstream);
    Command::SetVerdicts { verdicts: vec![NewVerdict { upstream, health, evidence: Vec::new() }] }
}
