//! `--plan`: what a move would do, without doing it.

use crate::operator::OperatorRefusal;
use crate::rules::RuleResult;
use std::time::Duration;
use twinsite_model::{FloatingIpName, NodeId, OperationKind, Step};

/// What a move would do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The address.
    pub ip: FloatingIpName,
    /// What kind of move.
    pub kind: OperationKind,
    /// Who owns it now.
    pub from: Option<NodeId>,
    /// Who would own it; `None` when nobody can.
    pub target: Option<NodeId>,
    /// The steps, in order.
    pub steps: Vec<PlannedStep>,
    /// The rules, as asked now.
    pub rules: Vec<RuleResult>,
    /// Why it would be refused; `None` when it would begin.
    pub refusal: Option<OperatorRefusal>,
    /// How long new connections would find nobody, as far as can be told.
    pub predicted_outage: Duration,
    /// Rooms whose participants would reconnect; `None` when the owner has not reported.
    pub rooms: Option<u32>,
    /// Tunnels that would reconnect; `None` when the owner has not reported.
    pub tunnels: Option<u32>,
}

/// One step of a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedStep {
    /// The step.
    pub step: Step,
    /// What happens in it.
    pub what: String,
    /// The longest that it takes when all goes well.
    pub at_most: Duration,
}
