//! Operations with their journal, and owners.

use super::fields::{
    Choice, read_choices, read_name, read_token, required_token, write_choices, write_name, write_token,
};
use super::{DecodeError, wire};
use crate::ids::{Incarnation, NodeId, OperationId};
use crate::operation::{Fence, Operation, OperationKind, Outcome, Reason, Step, StepRecord, StepResult};
use crate::state::Owner;
use crate::time::WallTime;

pub(super) fn write_owner(owner: &Owner) -> wire::SnapshotOwner {
    wire::SnapshotOwner {
        node: owner.node.0,
        incarnation: owner.incarnation.0,
        token: Some(write_token(owner.token)),
        since_ms: owner.since.0,
        revoked: owner.revoked,
    }
}

pub(super) fn read_owner(owner: wire::SnapshotOwner) -> Result<Owner, DecodeError> {
    Ok(Owner {
        node: NodeId(owner.node),
        incarnation: Incarnation(owner.incarnation),
        token: required_token(owner.token)?,
        since: WallTime(owner.since_ms),
        revoked: owner.revoked,
    })
}

pub(super) fn write(operation: &Operation) -> wire::SnapshotOperation {
    wire::SnapshotOperation {
        id: operation.id.0,
        ip: write_name(&operation.ip),
        kind: operation.kind.write(),
        reason: operation.reason.write(),
        evidence: operation.evidence.clone(),
        from: operation.from.as_ref().map(write_owner),
        target: operation.target.0,
        target_incarnation: operation.target_incarnation.0,
        by: operation.by.clone(),
        overrides: write_choices(&operation.overrides),
        fence: operation.fence.map_or(0, Choice::write),
        token: operation.token.map(write_token),
        steps: operation.steps.iter().map(write_step).collect(),
        outcome: operation.ended.map_or(0, |(_, outcome)| outcome.write()),
        ended_ms: operation.ended.map(|(at, _)| at.0),
    }
}

pub(super) fn read(operation: wire::SnapshotOperation) -> Result<Operation, DecodeError> {
    Ok(Operation {
        id: OperationId(operation.id),
        ip: read_name(operation.ip, "ip")?,
        kind: OperationKind::read_required(operation.kind, "kind")?,
        reason: Reason::read_required(operation.reason, "reason")?,
        evidence: operation.evidence,
        from: operation.from.map(read_owner).transpose()?,
        target: NodeId(operation.target),
        target_incarnation: Incarnation(operation.target_incarnation),
        by: operation.by,
        overrides: read_choices(&operation.overrides, "overrides")?,
        fence: Fence::read(operation.fence)?,
        token: operation.token.map(read_token),
        steps: operation.steps.into_iter().map(read_step).collect::<Result<_, _>>()?,
        ended: end(operation.ended_ms, Outcome::read(operation.outcome)?, "outcome")?,
    })
}

fn write_step(record: &StepRecord) -> wire::SnapshotStep {
    wire::SnapshotStep {
        step: record.step.write(),
        started_ms: record.started.0,
        result: record.finished.map_or(0, |(_, result)| result.write()),
        finished_ms: record.finished.map(|(at, _)| at.0),
        detail: record.detail.clone(),
    }
}

fn read_step(record: wire::SnapshotStep) -> Result<StepRecord, DecodeError> {
    Ok(StepRecord {
        step: Step::read_required(record.step, "step")?,
        started: WallTime(record.started_ms),
        finished: end(record.finished_ms, StepResult::read(record.result)?, "result")?,
        detail: record.detail,
    })
}

/// When and how something ended: both or neither.
fn end<T>(
    at_ms: Option<u64>,
    how: Option<T>,
    field: &'static str,
) -> Result<Option<(WallTime, T)>, DecodeError> {
    match (at_ms, how) {
        (Some(at), Some(how)) => Ok(Some((WallTime(at), how))),
        (None, None) => Ok(None),
        _ => Err(DecodeError::invalid(field, "a time without a result, or a result without a time")),
    }
}
