//! Log entries.

use super::codes::Coded;
use super::operation::rules;
use super::pb::log_proposal::Command as Pb;
use super::pieces::{address, ip_name, required, room, token, token_to_pb, upstream};
use super::{DecodeError, pb};
use crate::command::{Command, NewVerdict, Proposal};
use crate::ids::{Generation, Incarnation, NodeId, OperationId, RequestId, Revision};
use crate::operation::{Fence, OperationKind, Outcome, Reason, Step, StepResult};
use crate::spec;
use crate::state::{Format, Verdict};
use crate::time::WallTime;
use std::sync::Arc;

pub(super) fn to_pb(proposal: &Proposal) -> pb::LogProposal {
    pb::LogProposal {
        at_ms: proposal.at.0,
        by: proposal.by.clone(),
        request_id: proposal.request.as_ref().map_or_else(String::new, |id| id.as_str().to_owned()),
        expected_revision: proposal.expected_revision.map(|revision| revision.0),
        command: Some(command_to_pb(&proposal.command)),
    }
}

pub(super) fn from_pb(proposal: pb::LogProposal) -> Result<Proposal, DecodeError> {
    let request = match proposal.request_id {
        id if id.is_empty() => None,
        id => {
            let too_long = || DecodeError::Malformed("the request id is too long".to_owned());
            Some(RequestId::new(id).ok_or_else(too_long)?)
        }
    };
    Ok(Proposal {
        at: WallTime(proposal.at_ms),
        by: proposal.by,
        request,
        expected_revision: proposal.expected_revision.map(Revision),
        command: command(proposal.command.ok_or(DecodeError::Unknown("a command"))?)?,
    })
}

fn command_to_pb(command: &Command) -> Pb {
    match command {
        Command::ApplySpec { spec } => Pb::ApplySpec(pb::LogApplySpec { spec_json: spec::to_json(spec) }),
        Command::PutNode { node } => Pb::PutNode(pb::LogPutNode { node_json: spec::node_to_json(node) }),
        Command::RetireNode { node } => Pb::RetireNode(pb::LogRetireNode { node: node.0 }),
        Command::RaiseFormat { format } => Pb::RaiseFormat(pb::LogRaiseFormat { format: format.0 }),
        Command::RecordLife { node, incarnation, format_max, version } => Pb::RecordLife(pb::LogRecordLife {
            node: node.0,
            incarnation: incarnation.0,
            format_max: format_max.0,
            version: version.clone(),
        }),
        Command::SetVerdicts { verdicts } => {
            let verdicts = verdicts.iter().map(|new| pb::LogVerdict {
                upstream: new.upstream.to_string(),
                health: new.health.code(),
                evidence: new.evidence.clone(),
            });
            Pb::SetVerdicts(pb::LogSetVerdicts { verdicts: verdicts.collect() })
        }
        Command::SetDrain { upstream, draining, deadline } => Pb::SetDrain(pb::LogSetDrain {
            upstream: upstream.to_string(),
            draining: *draining,
            deadline_ms: deadline.map(|at| at.0),
        }),
        Command::BeginOperation {
            ip,
            kind,
            reason,
            evidence,
            from,
            target,
            target_incarnation,
            overrides,
        } => Pb::BeginOperation(pb::LogBeginOperation {
            ip: ip.to_string(),
            kind: kind.code(),
            reason: reason.code(),
            evidence: evidence.clone(),
            from: from.map(token_to_pb),
            target: target.0,
            target_incarnation: target_incarnation.0,
            overrides: overrides.iter().map(|rule| rule.code()).collect(),
        }),
        Command::StartStep { ip, operation, step } => {
            Pb::StartStep(pb::LogStartStep { ip: ip.to_string(), operation: operation.0, step: step.code() })
        }
        Command::FinishStep { ip, operation, step, result, detail } => Pb::FinishStep(pb::LogFinishStep {
            ip: ip.to_string(),
            operation: operation.0,
            step: step.code(),
            result: result.code(),
            detail: detail.clone(),
        }),
        Command::CompleteFence { ip, operation, fence, detail } => Pb::CompleteFence(pb::LogCompleteFence {
            ip: ip.to_string(),
            operation: operation.0,
            fence: fence.code(),
            detail: detail.clone(),
        }),
        Command::Assign { ip, operation } => {
            Pb::Assign(pb::LogAssign { ip: ip.to_string(), operation: operation.0 })
        }
        Command::Retarget { ip, operation, target, target_incarnation, detail } => {
            Pb::Retarget(pb::LogRetarget {
                ip: ip.to_string(),
                operation: operation.0,
                target: target.0,
                target_incarnation: target_incarnation.0,
                detail: detail.clone(),
            })
        }
        Command::CloseOperation { ip, operation, outcome } => Pb::CloseOperation(pb::LogCloseOperation {
            ip: ip.to_string(),
            operation: operation.0,
            outcome: outcome.code(),
        }),
        Command::AbortOperation { ip, operation, detail } => Pb::AbortOperation(pb::LogAbortOperation {
            ip: ip.to_string(),
            operation: operation.0,
            detail: detail.clone(),
        }),
        Command::Pause { until, reason } => {
            Pb::Pause(pb::LogPause { until_ms: until.0, reason: reason.clone() })
        }
        Command::Resume { expired } => Pb::Resume(pb::LogResume { expired: *expired }),
        Command::ResetBreaker => Pb::ResetBreaker(pb::LogResetBreaker {}),
        Command::RaiseGeneration { generation, statement } => Pb::RaiseGeneration(pb::LogRaiseGeneration {
            generation: generation.0,
            statement: statement.clone(),
        }),
        Command::RecordAnnounced { by, announced } => {
            let announced = announced.iter().map(|(upstream, address, token)| pb::LogAnnounced {
                upstream: upstream.to_string(),
                address: address.to_string(),
                token: Some(token_to_pb(*token)),
            });
            Pb::RecordAnnounced(pb::LogRecordAnnounced { by: by.0, announced: announced.collect() })
        }
        Command::PinRoom { room, upstream, replace, token } => Pb::PinRoom(pb::LogPinRoom {
            room: room.0.to_vec(),
            upstream: upstream.to_string(),
            replace: replace.as_ref().map(ToString::to_string),
            token: Some(token_to_pb(*token)),
        }),
        Command::TouchRooms { rooms, token } => Pb::TouchRooms(pb::LogTouchRooms {
            rooms: rooms.iter().map(|room| room.0.to_vec()).collect(),
            token: Some(token_to_pb(*token)),
        }),
        Command::ExpireRooms { before } => Pb::ExpireRooms(pb::LogExpireRooms { before_ms: before.0 }),
    }
}

fn command(command: Pb) -> Result<Command, DecodeError> {
    Ok(match command {
        Pb::ApplySpec(m) => Command::ApplySpec { spec: Arc::new(spec::from_log(&m.spec_json)?) },
        Pb::PutNode(m) => Command::PutNode { node: spec::node_from_json(&m.node_json)? },
        Pb::RetireNode(m) => Command::RetireNode { node: NodeId(m.node) },
        Pb::RaiseFormat(m) => Command::RaiseFormat { format: Format(m.format) },
        Pb::RecordLife(m) => Command::RecordLife {
            node: NodeId(m.node),
            incarnation: Incarnation(m.incarnation),
            format_max: Format(m.format_max),
            version: m.version,
        },
        Pb::SetVerdicts(m) => {
            let verdict = |new: pb::LogVerdict| {
                let health = Verdict::from_code(new.health)?;
                Ok(NewVerdict { upstream: upstream(new.upstream)?, health, evidence: new.evidence })
            };
            let verdicts = m.verdicts.into_iter().map(verdict).collect::<Result<_, DecodeError>>()?;
            Command::SetVerdicts { verdicts }
        }
        Pb::SetDrain(m) => Command::SetDrain {
            upstream: upstream(m.upstream)?,
            draining: m.draining,
            deadline: m.deadline_ms.map(WallTime),
        },
        Pb::BeginOperation(m) => Command::BeginOperation {
            ip: ip_name(m.ip)?,
            kind: OperationKind::from_code(m.kind)?,
            reason: Reason::from_code(m.reason)?,
            evidence: m.evidence,
            from: m.from.map(token),
            target: NodeId(m.target),
            target_incarnation: Incarnation(m.target_incarnation),
            overrides: rules(&m.overrides)?,
        },
        Pb::StartStep(m) => Command::StartStep {
            ip: ip_name(m.ip)?,
            operation: OperationId(m.operation),
            step: Step::from_code(m.step)?,
        },
        Pb::FinishStep(m) => Command::FinishStep {
            ip: ip_name(m.ip)?,
            operation: OperationId(m.operation),
            step: Step::from_code(m.step)?,
            result: StepResult::from_code(m.result)?,
            detail: m.detail,
        },
        Pb::CompleteFence(m) => Command::CompleteFence {
            ip: ip_name(m.ip)?,
            operation: OperationId(m.operation),
            fence: Fence::from_code(m.fence)?,
            detail: m.detail,
        },
        Pb::Assign(m) => Command::Assign { ip: ip_name(m.ip)?, operation: OperationId(m.operation) },
        Pb::Retarget(m) => Command::Retarget {
            ip: ip_name(m.ip)?,
            operation: OperationId(m.operation),
            target: NodeId(m.target),
            target_incarnation: Incarnation(m.target_incarnation),
            detail: m.detail,
        },
        Pb::CloseOperation(m) => Command::CloseOperation {
            ip: ip_name(m.ip)?,
            operation: OperationId(m.operation),
            outcome: Outcome::from_code(m.outcome)?,
        },
        Pb::AbortOperation(m) => Command::AbortOperation {
            ip: ip_name(m.ip)?,
            operation: OperationId(m.operation),
            detail: m.detail,
        },
        Pb::Pause(m) => Command::Pause { until: WallTime(m.until_ms), reason: m.reason },
        Pb::Resume(m) => Command::Resume { expired: m.expired },
        Pb::ResetBreaker(pb::LogResetBreaker {}) => Command::ResetBreaker,
        Pb::RaiseGeneration(m) => {
            Command::RaiseGeneration { generation: Generation(m.generation), statement: m.statement }
        }
        Pb::RecordAnnounced(m) => {
            let announced = |entry: pb::LogAnnounced| {
                let token = token(required(entry.token, "the token of an announcement")?);
                Ok((upstream(entry.upstream)?, address(&entry.address)?, token))
            };
            let announced = m.announced.into_iter().map(announced).collect::<Result<_, DecodeError>>()?;
            Command::RecordAnnounced { by: NodeId(m.by), announced }
        }
        Pb::PinRoom(m) => Command::PinRoom {
            room: room(&m.room)?,
            upstream: upstream(m.upstream)?,
            replace: m.replace.map(upstream).transpose()?,
            token: token(required(m.token, "the token of a pin")?),
        },
        Pb::TouchRooms(m) => Command::TouchRooms {
            rooms: m.rooms.iter().map(|key| room(key)).collect::<Result<_, _>>()?,
            token: token(required(m.token, "the token of a touch")?),
        },
        Pb::ExpireRooms(m) => Command::ExpireRooms { before: WallTime(m.before_ms) },
    })
}
