//! The journal.

use super::codes::Coded;
use super::pieces::{ip_name, owner, owner_to_pb, token, token_to_pb};
use super::{DecodeError, pb};
use crate::ids::{Incarnation, NodeId, OperationId};
use crate::operation::{
    Fence, Operation, OperationKind, Outcome, Reason, SafetyRule, Step, StepRecord, StepResult,
};
use crate::time::WallTime;

pub(super) fn to_pb(operation: &Operation) -> pb::LogOperation {
    pb::LogOperation {
        id: operation.id.0,
        ip: operation.ip.to_string(),
        kind: operation.kind.code(),
        reason: operation.reason.code(),
        evidence: operation.evidence.clone(),
        from: operation.from.as_ref().map(owner_to_pb),
        target: operation.target.0,
        target_incarnation: operation.target_incarnation.0,
        by: operation.by.clone(),
        overrides: operation.overrides.iter().map(|rule| rule.code()).collect(),
        fence: operation.fence.map(Coded::code),
        token: operation.token.map(token_to_pb),
        steps: operation.steps.iter().map(step_to_pb).collect(),
        ended_ms: operation.ended.map(|(at, _)| at.0),
        outcome: operation.ended.map(|(_, outcome)| outcome.code()),
    }
}

pub(super) fn from_pb(operation: pb::LogOperation) -> Result<Operation, DecodeError> {
    Ok(Operation {
        id: OperationId(operation.id),
        ip: ip_name(operation.ip)?,
        kind: OperationKind::from_code(operation.kind)?,
        reason: Reason::from_code(operation.reason)?,
        evidence: operation.evidence,
        from: operation.from.map(owner).transpose()?,
        target: NodeId(operation.target),
        target_incarnation: Incarnation(operation.target_incarnation),
        by: operation.by,
        overrides: rules(&operation.overrides)?,
        fence: operation.fence.map(Fence::from_code).transpose()?,
        token: operation.token.map(token),
        steps: operation.steps.into_iter().map(step).collect::<Result<_, _>>()?,
        ended: both(operation.ended_ms, operation.outcome, Outcome::from_code)?,
    })
}

pub(super) fn rules(codes: &[u32]) -> Result<Vec<SafetyRule>, DecodeError> {
    codes.iter().map(|code| SafetyRule::from_code(*code)).collect()
}

fn step_to_pb(record: &StepRecord) -> pb::LogStep {
    pb::LogStep {
        step: record.step.code(),
        started_ms: record.started.0,
        finished_ms: record.finished.map(|(at, _)| at.0),
        result: record.finished.map(|(_, result)| result.code()),
        detail: record.detail.clone(),
    }
}

fn step(record: pb::LogStep) -> Result<StepRecord, DecodeError> {
    Ok(StepRecord {
        step: Step::from_code(record.step)?,
        started: WallTime(record.started_ms),
        finished: both(record.finished_ms, record.result, StepResult::from_code)?,
        detail: record.detail,
    })
}

/// A time and a result that are there together or not at all.
fn both<T>(
    at_ms: Option<u64>,
    code: Option<u32>,
    from_code: impl FnOnce(u32) -> Result<T, DecodeError>,
) -> Result<Option<(WallTime, T)>, DecodeError> {
    match (at_ms, code) {
        (Some(at), Some(code)) => Ok(Some((WallTime(at), from_code(code)?))),
        (None, None) => Ok(None),
        _ => Err(DecodeError::Malformed("an end without its time or its result".to_owned())),
    }
}
