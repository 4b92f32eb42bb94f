//! The leader's brain, and the owner's side of the lease.
//!
//! Pure: the state, observations and the time come in; commands and effects come out. No I/O, no clock, no async, no
//! randomness, no unordered map. See `OVERVIEW.md`.

mod alarms;
mod breaker;
mod by_hand;
mod controller;
mod decide;
mod drills;
mod errands;
mod explain;
mod grantor;
mod index;
mod input;
mod journal;
mod leadership;
pub mod lease;
mod notice;
mod operator;
mod placement;
mod plan;
mod prediction;
mod proposals;
pub mod report;
mod rules;
mod tenure;
mod upkeep;
mod verdicts;
mod view;
mod withdrawal;

pub use controller::Controller;
pub use explain::{
    CandidateExplanation, Explanation, Forecast, MovingExplanation, OwnerExplanation, QuietReason,
};
pub use grantor::{Release, ReleasedBy, Renewal, RenewalAnswer, RenewalRefusal};
pub use input::{CallId, Effect, Input, ProposeFailed, RoundFailed, RoundId, Ticket};
pub use leadership::election_order;
pub use lease::{Holder, HolderInput, HolderOutput, StopReason};
pub use notice::{Alarm, Decision, Drift, Notice};
pub use operator::{
    MoveKind, MoveRequest, MoveTarget, OperatorAction, OperatorAnswer, OperatorRefusal, OperatorRequest,
};
pub use plan::{Plan, PlannedStep};
pub use prediction::Prediction;
pub use report::{
    AnnouncedView, FloatingIpView, LoadView, NodeReport, OutsideView, RoutingView, StoreView, UpstreamView,
};
pub use rules::RuleResult;
