//! Commands.

use super::fields::{
    Choice, read_address, read_choices, read_name, read_nanos, read_room, read_secret, read_token, required,
    required_token, write_address, write_choices, write_name, write_nanos, write_room, write_token,
};
use super::wire::log_proposal::Command as Wire;
use super::{DecodeError, spec, wire};
use crate::command::{Command, NewVerdict};
use crate::drill::DrillOutcome;
use crate::errand::ErrandEnd;
use crate::ids::{DrillId, ErrandId, Generation, Incarnation, NodeId, OperationId, Token, UpstreamName};
use crate::operation::{Fence, OperationKind, Outcome, Reason, Step, StepResult};
use crate::state::{Format, Verdict};
use crate::time::WallTime;
use std::net::IpAddr;

pub(super) fn write(command: &Command) -> Wire {
    match command {
        Command::ApplySpec { spec } => Wire::ApplySpec(wire::ApplySpec { spec: Some(spec::write(spec)) }),
        Command::PutNode { node } => Wire::PutNode(wire::PutNode { node: Some(spec::write_node(node)) }),
        Command::RetireNode { node } => Wire::RetireNode(wire::RetireNode { node: node.0 }),
        Command::RaiseFormat { format } => Wire::RaiseFormat(wire::RaiseFormat { format: format.0 }),
        Command::RecordLife { node, incarnation, format_max, version } => {
            Wire::RecordLife(wire::RecordLife {
                node: node.0,
                incarnation: incarnation.0,
                format_max: format_max.0,
                version: version.clone(),
            })
        }
        Command::SetVerdicts { verdicts } => {
            Wire::SetVerdicts(wire::SetVerdicts { verdicts: verdicts.iter().map(write_verdict).collect() })
        }
        Command::SetDrain { upstream, draining, deadline } => Wire::SetDrain(wire::SetDrain {
            upstream: write_name(upstream),
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
        } => Wire::BeginOperation(wire::BeginOperation {
            ip: write_name(ip),
            kind: kind.write(),
            reason: reason.write(),
            evidence: evidence.clone(),
            from: from.map(write_token),
            target: target.0,
            target_incarnation: target_incarnation.0,
            overrides: write_choices(overrides),
        }),
        Command::StartStep { ip, operation, step } => Wire::StartStep(wire::StartStep {
            ip: write_name(ip),
            operation: operation.0,
            step: step.write(),
        }),
        Command::FinishStep { ip, operation, step, result, detail } => Wire::FinishStep(wire::FinishStep {
            ip: write_name(ip),
            operation: operation.0,
            step: step.write(),
            result: result.write(),
            detail: detail.clone(),
        }),
        Command::CompleteFence { ip, operation, fence, detail } => Wire::CompleteFence(wire::CompleteFence {
            ip: write_name(ip),
            operation: operation.0,
            fence: fence.write(),
            detail: detail.clone(),
        }),
        Command::Assign { ip, operation } => {
            Wire::Assign(wire::Assign { ip: write_name(ip), operation: operation.0 })
        }
        Command::Retarget { ip, operation, target, target_incarnation, detail } => {
            Wire::Retarget(wire::Retarget {
                ip: write_name(ip),
                operation: operation.0,
                target: target.0,
                target_incarnation: target_incarnation.0,
                detail: detail.clone(),
            })
        }
        Command::CloseOperation { ip, operation, outcome } => Wire::CloseOperation(wire::CloseOperation {
            ip: write_name(ip),
            operation: operation.0,
            outcome: outcome.write(),
        }),
        Command::AbortOperation { ip, operation, detail } => Wire::AbortOperation(wire::AbortOperation {
            ip: write_name(ip),
            operation: operation.0,
            detail: detail.clone(),
        }),
        Command::Pause { until, reason } => {
            Wire::Pause(wire::Pause { until_ms: until.0, reason: reason.clone() })
        }
        Command::Resume { expired } => Wire::Resume(wire::Resume { expired: *expired }),
        Command::ResetBreaker => Wire::ResetBreaker(wire::ResetBreaker {}),
        Command::RaiseGeneration { generation, statement } => Wire::RaiseGeneration(wire::RaiseGeneration {
            generation: generation.0,
            statement: statement.clone(),
        }),
        Command::RecordAnnounced { by, announced } => Wire::RecordAnnounced(wire::RecordAnnounced {
            by: by.0,
            announced: announced.iter().map(write_announced).collect(),
        }),
        Command::PinRoom { room, upstream, replace, token } => Wire::PinRoom(wire::PinRoom {
            room: write_room(room),
            upstream: write_name(upstream),
            replace: replace.as_ref().map(write_name),
            token: Some(write_token(*token)),
        }),
        Command::TouchRooms { rooms, token } => Wire::TouchRooms(wire::TouchRooms {
            rooms: rooms.iter().map(write_room).collect(),
            token: Some(write_token(*token)),
        }),
        Command::ExpireRooms { before } => Wire::ExpireRooms(wire::ExpireRooms { before_ms: before.0 }),
        Command::SendErrand { ip, by, incarnation, token, to, within } => {
            Wire::SendErrand(wire::SendErrand {
                ip: write_name(ip),
                by: by.0,
                incarnation: incarnation.0,
                token: Some(write_token(*token)),
                to: to.0,
                within_ns: write_nanos(*within),
            })
        }
        Command::RecallErrand { ip, errand } => {
            Wire::RecallErrand(wire::RecallErrand { ip: write_name(ip), errand: errand.0 })
        }
        Command::EndErrand { ip, errand, end } => {
            Wire::EndErrand(wire::EndErrand { ip: write_name(ip), errand: errand.0, end: end.write() })
        }
        Command::BeginDrill { name, by, runner, incarnation, until } => Wire::BeginDrill(wire::BeginDrill {
            name: name.clone(),
            by: by.clone(),
            runner: runner.0,
            incarnation: incarnation.0,
            until_ms: until.0,
        }),
        Command::StopDrill { drill, reason } => {
            Wire::StopDrill(wire::StopDrill { drill: drill.0, reason: reason.clone() })
        }
        Command::RotateTicketKey { secret } => {
            Wire::RotateTicketKey(wire::RotateTicketKey { secret: secret.expose().to_vec() })
        }
        Command::EndDrill { drill, outcome, summary } => Wire::EndDrill(wire::EndDrill {
            drill: drill.0,
            outcome: outcome.write(),
            summary: summary.clone(),
        }),
    }
}

pub(super) fn read(command: Wire) -> Result<Command, DecodeError> {
    Ok(match command {
        Wire::ApplySpec(c) => Command::ApplySpec { spec: spec::read(&required(c.spec, "spec")?)? },
        Wire::PutNode(c) => Command::PutNode { node: spec::read_node(&required(c.node, "node")?)? },
        Wire::RetireNode(c) => Command::RetireNode { node: NodeId(c.node) },
        Wire::RaiseFormat(c) => Command::RaiseFormat { format: Format(c.format) },
        Wire::RecordLife(c) => Command::RecordLife {
            node: NodeId(c.node),
            incarnation: Incarnation(c.incarnation),
            format_max: Format(c.format_max),
            version: c.version,
        },
        Wire::SetVerdicts(c) => Command::SetVerdicts {
            verdicts: c.verdicts.into_iter().map(read_verdict).collect::<Result<_, _>>()?,
        },
        Wire::SetDrain(c) => Command::SetDrain {
            upstream: read_name(c.upstream, "upstream")?,
            draining: c.draining,
            deadline: c.deadline_ms.map(WallTime),
        },
        Wire::BeginOperation(c) => Command::BeginOperation {
            ip: read_name(c.ip, "ip")?,
            kind: OperationKind::read_required(c.kind, "kind")?,
            reason: Reason::read_required(c.reason, "reason")?,
            evidence: c.evidence,
            from: c.from.map(read_token),
            target: NodeId(c.target),
            target_incarnation: Incarnation(c.target_incarnation),
            overrides: read_choices(&c.overrides, "overrides")?,
        },
        Wire::StartStep(c) => Command::StartStep {
            ip: read_name(c.ip, "ip")?,
            operation: OperationId(c.operation),
            step: Step::read_required(c.step, "step")?,
        },
        Wire::FinishStep(c) => Command::FinishStep {
            ip: read_name(c.ip, "ip")?,
            operation: OperationId(c.operation),
            step: Step::read_required(c.step, "step")?,
            result: StepResult::read_required(c.result, "result")?,
            detail: c.detail,
        },
        Wire::CompleteFence(c) => Command::CompleteFence {
            ip: read_name(c.ip, "ip")?,
            operation: OperationId(c.operation),
            fence: Fence::read_required(c.fence, "fence")?,
            detail: c.detail,
        },
        Wire::Assign(c) => {
            Command::Assign { ip: read_name(c.ip, "ip")?, operation: OperationId(c.operation) }
        }
        Wire::Retarget(c) => Command::Retarget {
            ip: read_name(c.ip, "ip")?,
            operation: OperationId(c.operation),
            target: NodeId(c.target),
            target_incarnation: Incarnation(c.target_incarnation),
            detail: c.detail,
        },
        Wire::CloseOperation(c) => Command::CloseOperation {
            ip: read_name(c.ip, "ip")?,
            operation: OperationId(c.operation),
            outcome: Outcome::read_required(c.outcome, "outcome")?,
        },
        Wire::AbortOperation(c) => Command::AbortOperation {
            ip: read_name(c.ip, "ip")?,
            operation: OperationId(c.operation),
            detail: c.detail,
        },
        Wire::Pause(c) => Command::Pause { until: WallTime(c.until_ms), reason: c.reason },
        Wire::Resume(c) => Command::Resume { expired: c.expired },
        Wire::ResetBreaker(wire::ResetBreaker {}) => Command::ResetBreaker,
        Wire::RaiseGeneration(c) => {
            Command::RaiseGeneration { generation: Generation(c.generation), statement: c.statement }
        }
        Wire::RecordAnnounced(c) => Command::RecordAnnounced {
            by: NodeId(c.by),
            announced: c.announced.into_iter().map(read_announced).collect::<Result<_, _>>()?,
        },
        Wire::PinRoom(c) => Command::PinRoom {
            room: read_room(&c.room)?,
            upstream: read_name(c.upstream, "upstream")?,
            replace: c.replace.map(|name| read_name(name, "replace")).transpose()?,
            token: required_token(c.token)?,
        },
        Wire::TouchRooms(c) => Command::TouchRooms {
            rooms: c.rooms.iter().map(|room| read_room(room)).collect::<Result<_, _>>()?,
            token: required_token(c.token)?,
        },
        Wire::ExpireRooms(c) => Command::ExpireRooms { before: WallTime(c.before_ms) },
        Wire::SendErrand(c) => Command::SendErrand {
            ip: read_name(c.ip, "ip")?,
            by: NodeId(c.by),
            incarnation: Incarnation(c.incarnation),
            token: required_token(c.token)?,
            to: NodeId(c.to),
            within: read_nanos(c.within_ns),
        },
        Wire::RecallErrand(c) => {
            Command::RecallErrand { ip: read_name(c.ip, "ip")?, errand: ErrandId(c.errand) }
        }
        Wire::EndErrand(c) => Command::EndErrand {
            ip: read_name(c.ip, "ip")?,
            errand: ErrandId(c.errand),
            end: ErrandEnd::read_required(c.end, "end")?,
        },
        Wire::BeginDrill(c) => Command::BeginDrill {
            name: c.name,
            by: c.by,
            runner: NodeId(c.runner),
            incarnation: Incarnation(c.incarnation),
            until: WallTime(c.until_ms),
        },
        Wire::StopDrill(c) => Command::StopDrill { drill: DrillId(c.drill), reason: c.reason },
        Wire::RotateTicketKey(c) => Command::RotateTicketKey { secret: read_secret(&c.secret)? },
        Wire::EndDrill(c) => Command::EndDrill {
            drill: DrillId(c.drill),
            outcome: DrillOutcome::read_required(c.outcome, "outcome")?,
            summary: c.summary,
        },
    })
}

fn write_verdict(verdict: &NewVerdict) -> wire::NewVerdict {
    wire::NewVerdict {
        upstream: write_name(&verdict.upstream),
        health: verdict.health.write(),
        evidence: verdict.evidence.clone(),
    }
}

fn read_verdict(verdict: wire::NewVerdict) -> Result<NewVerdict, DecodeError> {
    Ok(NewVerdict {
        upstream: read_name(verdict.upstream, "upstream")?,
        health: Verdict::read_required(verdict.health, "health")?,
        evidence: verdict.evidence,
    })
}

fn write_announced((upstream, address, token): &(UpstreamName, IpAddr, Token)) -> wire::NewAnnounced {
    wire::NewAnnounced {
        upstream: write_name(upstream),
        address: write_address(*address),
        token: Some(write_token(*token)),
    }
}

fn read_announced(announced: wire::NewAnnounced) -> Result<(UpstreamName, IpAddr, Token), DecodeError> {
    Ok((
        read_name(announced.upstream, "upstream")?,
        read_address(&announced.address)?,
        required_token(announced.token)?,
    ))
}
