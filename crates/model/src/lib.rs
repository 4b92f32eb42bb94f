//! What the cluster agrees on.
//!
//! This crate is the ground on which all others stand: the words of the design as types, the specification that
//! operators write, the replicated [`State`] and the [`Command`]s that change it. It has no I/O, no clock and no
//! async; time is always given. See `OVERVIEW.md`.

pub mod apply;
pub mod command;
pub mod dial;
pub mod drill;
pub mod encoding;
pub mod errand;
pub mod event;
mod faults;
pub mod ids;
pub mod ledger;
pub mod operation;
pub mod rendezvous;
pub mod spec;
pub mod state;
pub mod ticket_keys;
pub mod time;
pub mod timing;

pub use apply::{Applied, DrillBlock, Effect, Refusal};
pub use command::{Command, NewVerdict, Proposal};
pub use drill::{DrillOutcome, DrillRecord, DrillStop, RunningDrill};
pub use errand::{Errand, ErrandEnd};
pub use event::Event;
pub use faults::{Fault, Faults};
pub use ids::{
    CertificateName, ClusterName, DrillId, Epoch, ErrandId, FloatingIpName, Generation, HardwareAddress,
    Incarnation, InterfaceName, NameError, NodeId, NodeName, OperationId, RequestId, Revision, RoomKey,
    RouteName, SiteName, Token, UpstreamName,
};
pub use ledger::Ledger;
pub use operation::{
    Fence, Operation, OperationKind, Outcome, Reason, SafetyRule, Step, StepRecord, StepResult,
};
pub use spec::ClusterSpec;
pub use state::{EarlierSpec, Format, Owner, Pin, State, Verdict};
pub use ticket_keys::{TicketKey, TicketSecret};
pub use time::{BootTime, WallTime};
pub use timing::{LeaseBound, Profile, Timing};

#[cfg(test)]
mod arbitrary;
#[cfg(test)]
mod samples;
