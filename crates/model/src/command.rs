//! The commands: the only way in which the replicated state changes.

use crate::drill::DrillOutcome;
use crate::errand::ErrandEnd;
use crate::ids::{
    DrillId, ErrandId, FloatingIpName, Generation, Incarnation, NodeId, OperationId, RequestId, Revision,
    RoomKey, Token, UpstreamName,
};
use crate::operation::{Fence, OperationKind, Outcome, Reason, SafetyRule, Step, StepResult};
use crate::spec::{ClusterSpec, NodeSpec};
use crate::state::{Format, Verdict};
use crate::ticket_keys::TicketSecret;
use crate::time::WallTime;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// A command with what surrounds it: one entry of the log.
#[derive(Debug, Clone, PartialEq)]
pub struct Proposal {
    /// The leader's wall clock when it proposed.
    pub at: WallTime,
    /// Who wants it: `controller`, `node NAME`, or a person's certificate name.
    pub by: String,
    /// The caller's id, for commands that came over the API.
    pub request: Option<RequestId>,
    /// Refuse unless the state is at this revision.
    pub expected_revision: Option<Revision>,
    /// What to do.
    pub command: Command,
}

/// Who wants what the controller decides.
const CONTROLLER: &str = "controller";

impl Proposal {
    /// A proposal of the controller's own.
    pub fn by_controller(at: WallTime, command: Command) -> Self {
        Self { at, by: CONTROLLER.to_owned(), request: None, expected_revision: None, command }
    }

    /// Whether the controller decided it, and not a person.
    pub fn is_by_controller(&self) -> bool {
        self.by == CONTROLLER
    }

    /// Whether a node of its own accord, and not a person, wants it.
    pub(crate) fn by_node(&self) -> bool {
        self.by.starts_with("node ")
    }

    /// Whether it carries the leader's clock. What the session store proposes comes from any node: see
    /// [`State::wall`](crate::State::wall).
    pub(crate) fn moves_clock(&self) -> bool {
        let of_sessions = matches!(
            self.command,
            Command::PinRoom { .. } | Command::TouchRooms { .. } | Command::ExpireRooms { .. }
        );
        self.is_by_controller() || !of_sessions
    }
}

/// What can happen to the state.
#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    /// Replaces the specification. It was validated before it was proposed.
    ApplySpec {
        /// The new specification.
        spec: Arc<ClusterSpec>,
    },
    /// Adds a node to the specification, or changes one.
    PutNode {
        /// The node.
        node: NodeSpec,
    },
    /// Takes a node out for good; its id never comes back.
    RetireNode {
        /// The node.
        node: NodeId,
    },
    /// Lets the cluster use a newer encoding.
    RaiseFormat {
        /// The encoding.
        format: Format,
    },
    /// Notes a node's present life.
    RecordLife {
        /// The node.
        node: NodeId,
        /// The life.
        incarnation: Incarnation,
        /// The newest format that it reads.
        format_max: Format,
        /// The program's version.
        version: String,
    },
    /// Notes new verdicts.
    SetVerdicts {
        /// For each upstream the health (never `Draining`) and the evidence.
        verdicts: Vec<NewVerdict>,
    },
    /// Begins or ends the draining of an upstream.
    SetDrain {
        /// The upstream.
        upstream: UpstreamName,
        /// Whether it shall drain.
        draining: bool,
        /// When it should be empty.
        deadline: Option<WallTime>,
    },
    /// Begins a move: from here on the old owner is granted nothing.
    BeginOperation {
        /// The address.
        ip: FloatingIpName,
        /// What kind of move.
        kind: OperationKind,
        /// Why.
        reason: Reason,
        /// What was seen.
        evidence: Vec<String>,
        /// The token that is revoked; refused if the owner has another one by now.
        from: Option<Token>,
        /// Who shall hold the address.
        target: NodeId,
        /// The life of it that shall hold the address.
        target_incarnation: Incarnation,
        /// Safety rules overridden by name.
        overrides: Vec<SafetyRule>,
    },
    /// Notes the start of a step.
    StartStep {
        /// The address.
        ip: FloatingIpName,
        /// The operation.
        operation: OperationId,
        /// The step.
        step: Step,
    },
    /// Notes the end of a step other than `Fence` and `Move`.
    FinishStep {
        /// The address.
        ip: FloatingIpName,
        /// The operation.
        operation: OperationId,
        /// The step.
        step: Step,
        /// How it ended.
        result: StepResult,
        /// One line about it.
        detail: String,
    },
    /// The old owner can no longer act.
    CompleteFence {
        /// The address.
        ip: FloatingIpName,
        /// The operation.
        operation: OperationId,
        /// How it was fenced.
        fence: Fence,
        /// One line about it.
        detail: String,
    },
    /// Gives the target the next token. Refused unless the fence is complete.
    Assign {
        /// The address.
        ip: FloatingIpName,
        /// The operation.
        operation: OperationId,
    },
    /// Names another target before the token is given.
    Retarget {
        /// The address.
        ip: FloatingIpName,
        /// The operation.
        operation: OperationId,
        /// Who shall hold the address instead.
        target: NodeId,
        /// The life of it.
        target_incarnation: Incarnation,
        /// Why.
        detail: String,
    },
    /// Ends an operation whose target holds the address.
    CloseOperation {
        /// The address.
        ip: FloatingIpName,
        /// The operation.
        operation: OperationId,
        /// How it ended.
        outcome: Outcome,
    },
    /// Calls an operation off. Refused once the target has the token.
    AbortOperation {
        /// The address.
        ip: FloatingIpName,
        /// The operation.
        operation: OperationId,
        /// Why.
        detail: String,
    },
    /// Stops automatic moves until a point in time.
    Pause {
        /// When the pause ends by itself.
        until: WallTime,
        /// Why.
        reason: String,
    },
    /// Ends a pause.
    Resume {
        /// Whether it ended by itself.
        expired: bool,
    },
    /// Forgets the automatic failovers that opened the breaker.
    ResetBreaker,
    /// The first command after a forced recovery.
    RaiseGeneration {
        /// The new generation.
        generation: Generation,
        /// What the person named and attested.
        statement: String,
    },
    /// Notes what upstreams were seen to announce.
    RecordAnnounced {
        /// The node that read it back.
        by: NodeId,
        /// Each upstream, its address, and the token under which that was derived.
        announced: Vec<(UpstreamName, IpAddr, Token)>,
    },
    /// Places a room in the embedded store, if it has no place or has exactly the place to be replaced.
    PinRoom {
        /// The room.
        room: RoomKey,
        /// Where it shall be.
        upstream: UpstreamName,
        /// The place that may be overwritten (an upstream that died).
        replace: Option<UpstreamName>,
        /// The writer's session token; refused if the store has seen a newer one.
        token: Token,
    },
    /// Confirms rooms that are in use.
    TouchRooms {
        /// The rooms.
        rooms: Vec<RoomKey>,
        /// The writer's session token.
        token: Token,
    },
    /// Forgets rooms that nobody used for the agreed time.
    ExpireRooms {
        /// Everything touched before this.
        before: WallTime,
    },
    /// Sends a node to the provider. Refused while another errand for the address is under way.
    SendErrand {
        /// The address.
        ip: FloatingIpName,
        /// Who calls.
        by: NodeId,
        /// The life of it.
        incarnation: Incarnation,
        /// The owner's token; refused if it has another one by now.
        token: Token,
        /// Where the address shall be routed: to the owner.
        to: NodeId,
        /// How long the call may take.
        within: Duration,
    },
    /// Whoever has not begun an errand must not begin it any more.
    RecallErrand {
        /// The address.
        ip: FloatingIpName,
        /// The errand.
        errand: ErrandId,
    },
    /// Notes the end of an errand.
    EndErrand {
        /// The address.
        ip: FloatingIpName,
        /// The errand.
        errand: ErrandId,
        /// How it ended.
        end: ErrandEnd,
    },
    /// Begins a drill on this cluster. Refused while it would be in the way of something.
    BeginDrill {
        /// The scenario's name.
        name: String,
        /// Who wants it: the proposal comes from the runner.
        by: String,
        /// The node that runs it.
        runner: NodeId,
        /// The life of it.
        incarnation: Incarnation,
        /// When it ends at the latest.
        until: WallTime,
    },
    /// Asks the runner to end the drill.
    StopDrill {
        /// The drill.
        drill: DrillId,
        /// Why.
        reason: String,
    },
    /// Notes the end of the drill.
    EndDrill {
        /// The drill.
        drill: DrillId,
        /// How it ended.
        outcome: DrillOutcome,
        /// The report as JSON; empty if there is none.
        summary: String,
    },
    /// Makes new TLS session tickets with keys of another secret. Without effect before it is due.
    RotateTicketKey {
        /// The secret.
        secret: TicketSecret,
    },
}

/// A verdict to be noted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewVerdict {
    /// The upstream.
    pub upstream: UpstreamName,
    /// Its health; never `Draining`.
    pub health: Verdict,
    /// One line for each observer.
    pub evidence: Vec<String>,
}

impl Command {
    /// The format that every member must read before this command may be proposed.
    pub fn required_format(&self) -> Format {
        match self {
            Self::SendErrand { .. } | Self::RecallErrand { .. } | Self::EndErrand { .. } => Format::ERRANDS,
            Self::BeginDrill { .. } | Self::StopDrill { .. } | Self::EndDrill { .. } => Format::DRILLS,
            Self::RotateTicketKey { .. } => Format::EDGE,
            Self::ApplySpec { spec } => spec.required_format(),
            Self::PutNode { node } => node.required_format(),
            _ => Format::FIRST,
        }
    }
}
