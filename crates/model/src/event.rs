//! What a command changed: the stuff of `Watch`, of logs and of the timeline of a drill.

use crate::drill::DrillOutcome;
use crate::errand::{Errand, ErrandEnd};
use crate::ids::{
    DrillId, ErrandId, FloatingIpName, Generation, Incarnation, NodeId, OperationId, RoomKey, Token,
    UpstreamName,
};
use crate::operation::{Fence, OperationKind, Outcome, Reason, Step, StepResult};
use crate::state::{Format, Owner, Verdict};
use crate::time::WallTime;
use std::net::IpAddr;

/// One change of the state. A command may bring several; they share its revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// There is a new specification.
    SpecApplied,
    /// TLS session tickets are made with another key.
    TicketKeyRotated,
    /// A node was added or changed.
    NodePut(NodeId),
    /// A node is gone for good.
    NodeRetired(NodeId),
    /// The cluster uses a newer encoding.
    FormatRaised(Format),
    /// A node lives a new life.
    NodeStarted {
        /// The node.
        node: NodeId,
        /// The life.
        incarnation: Incarnation,
    },
    /// The cluster's opinion of an upstream changed.
    VerdictChanged {
        /// The upstream.
        upstream: UpstreamName,
        /// The opinion before.
        from: Verdict,
        /// The opinion now, draining included.
        to: Verdict,
        /// One line for each observer.
        evidence: Vec<String>,
    },
    /// A move began.
    OperationBegan {
        /// The address.
        ip: FloatingIpName,
        /// The operation.
        operation: OperationId,
        /// What kind of move.
        kind: OperationKind,
        /// Why.
        reason: Reason,
        /// Who shall hold the address.
        target: NodeId,
        /// What was seen.
        evidence: Vec<String>,
    },
    /// Another target was named.
    Retargeted {
        /// The address.
        ip: FloatingIpName,
        /// The operation.
        operation: OperationId,
        /// Who shall hold the address now.
        target: NodeId,
    },
    /// A step began.
    StepStarted {
        /// The address.
        ip: FloatingIpName,
        /// The operation.
        operation: OperationId,
        /// The step.
        step: Step,
    },
    /// A step ended.
    StepFinished {
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
    Fenced {
        /// The address.
        ip: FloatingIpName,
        /// The operation.
        operation: OperationId,
        /// The token that ended.
        token: Option<Token>,
        /// How.
        fence: Fence,
    },
    /// An address has a new owner.
    OwnerChanged {
        /// The address.
        ip: FloatingIpName,
        /// The new owner.
        owner: Owner,
    },
    /// A move ended.
    OperationEnded {
        /// The address.
        ip: FloatingIpName,
        /// The operation.
        operation: OperationId,
        /// How.
        outcome: Outcome,
    },
    /// Automatic moves stopped.
    Paused {
        /// Until when.
        until: WallTime,
        /// Who wanted it.
        by: String,
        /// Why.
        reason: String,
    },
    /// Automatic moves may happen again.
    Resumed {
        /// Whether the pause ended by itself.
        expired: bool,
        /// Who wanted it.
        by: String,
    },
    /// The breaker was closed by hand.
    BreakerReset {
        /// Who wanted it.
        by: String,
    },
    /// A forced recovery took place.
    GenerationRaised {
        /// The new generation.
        generation: Generation,
        /// What the person named and attested.
        statement: String,
    },
    /// An upstream announces another address.
    AnnouncedChanged {
        /// The upstream.
        upstream: UpstreamName,
        /// The address.
        address: IpAddr,
        /// The token under which it was derived.
        token: Token,
    },
    /// A room was placed.
    RoomPinned {
        /// The room.
        room: RoomKey,
        /// The upstream.
        upstream: UpstreamName,
        /// The session token of the write.
        token: Token,
    },
    /// Rooms that nobody used were forgotten.
    RoomsExpired {
        /// How many.
        count: u32,
    },
    /// A node is to call a provider.
    ErrandSent {
        /// The address.
        ip: FloatingIpName,
        /// What it is to do.
        errand: Errand,
    },
    /// It must not begin any more.
    ErrandRecalled {
        /// The address.
        ip: FloatingIpName,
        /// The errand.
        errand: ErrandId,
    },
    /// It is over.
    ErrandEnded {
        /// The address.
        ip: FloatingIpName,
        /// The errand.
        errand: ErrandId,
        /// How.
        end: ErrandEnd,
    },
    /// A drill begins on this cluster.
    DrillBegan {
        /// The drill.
        drill: DrillId,
        /// The scenario's name.
        name: String,
        /// Who wants it.
        by: String,
        /// The node that runs it.
        runner: NodeId,
        /// When it ends at the latest.
        until: WallTime,
    },
    /// A person wants the drill to end.
    DrillStopped {
        /// The drill.
        drill: DrillId,
        /// Who.
        by: String,
        /// Why.
        reason: String,
    },
    /// A drill is over.
    DrillEnded {
        /// The drill.
        drill: DrillId,
        /// The scenario's name.
        name: String,
        /// How.
        outcome: DrillOutcome,
    },
}
