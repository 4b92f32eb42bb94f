//! Snapshots.

use super::codes::Coded;
use super::operation;
use super::pieces::{address, ip_name, owner, owner_to_pb, required, room, token, token_to_pb, upstream};
use super::{DecodeError, pb};
use crate::ids::{Epoch, Generation, Incarnation, NodeId, RequestId, Revision};
use crate::spec;
use crate::state::{
    AnnouncedRecord, Drain, EmbeddedSessions, FloatingIpState, Format, NodeLife, Pause, Pin, State, Verdict,
    VerdictRecord,
};
use crate::time::WallTime;
use std::sync::Arc;

pub(super) fn to_pb(state: &State) -> pb::LogState {
    let nodes = state.nodes.iter().map(|(node, life)| pb::LogNodeLife {
        node: node.0,
        incarnation: life.incarnation.0,
        format_max: life.format_max.0,
        version: life.version.clone(),
        since_ms: life.since.0,
    });
    let verdicts = state.verdicts.iter().map(|(upstream, record)| pb::LogVerdictRecord {
        upstream: upstream.to_string(),
        health: record.health.code(),
        since_ms: record.since.0,
        evidence: record.evidence.clone(),
    });
    let drains = state.drains.iter().map(|(upstream, drain)| pb::LogDrain {
        upstream: upstream.to_string(),
        since_ms: drain.since.0,
        by: drain.by.clone(),
        deadline_ms: drain.deadline.map(|at| at.0),
    });
    let floating_ips = state.floating_ips.iter().map(|(ip, entry)| pb::LogFloatingIp {
        ip: ip.to_string(),
        epoch: entry.epoch.0,
        owner: entry.owner.as_ref().map(owner_to_pb),
        operation: entry.operation.as_ref().map(operation::to_pb),
    });
    let announced = state.announced.iter().map(|(upstream, record)| pb::LogAnnouncedRecord {
        upstream: upstream.to_string(),
        address: record.address.to_string(),
        token: Some(token_to_pb(record.token)),
        since_ms: record.since.0,
        by: record.by.0,
    });
    let pins = state.sessions.pins.iter().map(|(room, pin)| pb::LogPin {
        room: room.0.to_vec(),
        upstream: pin.upstream.to_string(),
        token: Some(token_to_pb(pin.token)),
        touched_ms: pin.touched.0,
    });
    let requests = state
        .requests
        .iter()
        .map(|(id, revision)| pb::LogRequest { id: id.as_str().to_owned(), revision: revision.0 });
    pb::LogState {
        revision: state.revision.0,
        format: state.format.0,
        generation: state.generation.0,
        wall_ms: state.wall.0,
        spec_json: state.spec.as_ref().map_or_else(Vec::new, |spec| spec::to_json(spec)),
        spec_revision: state.spec_revision.0,
        nodes: nodes.collect(),
        retired_nodes: state.retired_nodes.iter().map(|node| node.0).collect(),
        verdicts: verdicts.collect(),
        drains: drains.collect(),
        floating_ips: floating_ips.collect(),
        moves: state.moves.0,
        pause: state.pause.as_ref().map(|pause| pb::LogPauseRecord {
            until_ms: pause.until.0,
            since_ms: pause.since.0,
            by: pause.by.clone(),
            reason: pause.reason.clone(),
        }),
        automatic_failovers_ms: state.automatic_failovers.iter().map(|at| at.0).collect(),
        history: state.history.iter().map(operation::to_pb).collect(),
        announced: announced.collect(),
        sessions_token: Some(token_to_pb(state.sessions.token)),
        pins: pins.collect(),
        requests: requests.collect(),
    }
}

pub(super) fn from_pb(m: pb::LogState) -> Result<State, DecodeError> {
    if m.format > Format::NEWEST.0 {
        return Err(DecodeError::NewerFormat(m.format));
    }
    let spec = if m.spec_json.is_empty() { None } else { Some(Arc::new(spec::from_log(&m.spec_json)?)) };
    Ok(State {
        revision: Revision(m.revision),
        format: Format(m.format),
        generation: Generation(m.generation),
        wall: WallTime(m.wall_ms),
        spec,
        spec_revision: Revision(m.spec_revision),
        nodes: m.nodes.into_iter().map(node_life).collect(),
        retired_nodes: m.retired_nodes.into_iter().map(NodeId).collect(),
        verdicts: m.verdicts.into_iter().map(verdict).collect::<Result<_, _>>()?,
        drains: m.drains.into_iter().map(drain).collect::<Result<_, _>>()?,
        floating_ips: m.floating_ips.into_iter().map(floating_ip).collect::<Result<_, _>>()?,
        moves: Epoch(m.moves),
        pause: m.pause.map(|pause| Pause {
            until: WallTime(pause.until_ms),
            since: WallTime(pause.since_ms),
            by: pause.by,
            reason: pause.reason,
        }),
        automatic_failovers: m.automatic_failovers_ms.into_iter().map(WallTime).collect(),
        history: m.history.into_iter().map(operation::from_pb).collect::<Result<_, _>>()?,
        announced: m.announced.into_iter().map(announced).collect::<Result<_, _>>()?,
        sessions: EmbeddedSessions {
            token: token(required(m.sessions_token, "the sessions' token")?),
            pins: m.pins.into_iter().map(pin).collect::<Result<_, _>>()?,
        },
        requests: m.requests.into_iter().map(request).collect::<Result<_, _>>()?,
    })
}

fn node_life(m: pb::LogNodeLife) -> (NodeId, NodeLife) {
    let life = NodeLife {
        incarnation: Incarnation(m.incarnation),
        format_max: Format(m.format_max),
        version: m.version,
        since: WallTime(m.since_ms),
    };
    (NodeId(m.node), life)
}

fn verdict(m: pb::LogVerdictRecord) -> Result<(crate::UpstreamName, VerdictRecord), DecodeError> {
    let health = Verdict::from_code(m.health)?;
    let record = VerdictRecord { health, since: WallTime(m.since_ms), evidence: m.evidence };
    Ok((upstream(m.upstream)?, record))
}

fn drain(m: pb::LogDrain) -> Result<(crate::UpstreamName, Drain), DecodeError> {
    let drain = Drain { since: WallTime(m.since_ms), by: m.by, deadline: m.deadline_ms.map(WallTime) };
    Ok((upstream(m.upstream)?, drain))
}

fn floating_ip(m: pb::LogFloatingIp) -> Result<(crate::FloatingIpName, FloatingIpState), DecodeError> {
    let state = FloatingIpState {
        epoch: Epoch(m.epoch),
        owner: m.owner.map(owner).transpose()?,
        operation: m.operation.map(operation::from_pb).transpose()?,
    };
    Ok((ip_name(m.ip)?, state))
}

fn announced(m: pb::LogAnnouncedRecord) -> Result<(crate::UpstreamName, AnnouncedRecord), DecodeError> {
    let record = AnnouncedRecord {
        address: address(&m.address)?,
        token: token(required(m.token, "the token of an announcement")?),
        since: WallTime(m.since_ms),
        by: NodeId(m.by),
    };
    Ok((upstream(m.upstream)?, record))
}

fn pin(m: pb::LogPin) -> Result<(crate::RoomKey, Pin), DecodeError> {
    let pin = Pin {
        upstream: upstream(m.upstream)?,
        token: token(required(m.token, "the token of a pin")?),
        touched: WallTime(m.touched_ms),
    };
    Ok((room(&m.room)?, pin))
}

fn request(m: pb::LogRequest) -> Result<(RequestId, Revision), DecodeError> {
    let bad = || DecodeError::Malformed("a request id is empty or too long".to_owned());
    Ok((RequestId::new(m.id).ok_or_else(bad)?, Revision(m.revision)))
}
