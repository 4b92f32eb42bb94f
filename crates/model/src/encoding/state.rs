//! The replicated state.

use super::fields::{
    Choice, read_address, read_name, read_nanos, read_room, read_secret, required, required_token,
    write_address, write_name, write_nanos, write_room, write_token,
};
use super::{DecodeError, drill, errand, operation, read_request, spec, wire};
use crate::ids::{
    Epoch, ErrandId, FloatingIpName, Generation, Incarnation, NodeId, Revision, RoomKey, UpstreamName,
};
use crate::state::{
    AnnouncedRecord, Drain, EarlierSpec, EmbeddedSessions, FloatingIpState, Format, NodeLife, Pause, Pin,
    State, Verdict, VerdictRecord,
};
use crate::ticket_keys::TicketKey;
use crate::time::WallTime;
use crate::timing::LeaseBound;
use std::collections::BTreeMap;

pub(super) fn write(state: &State) -> wire::Snapshot {
    wire::Snapshot {
        revision: state.revision.0,
        format: state.format.0,
        generation: state.generation.0,
        wall_ms: state.wall.0,
        spec: state.spec.as_deref().map(spec::write),
        spec_revision: state.spec_revision.0,
        nodes: state.nodes.iter().map(write_node).collect(),
        retired_nodes: state.retired_nodes.iter().map(|node| node.0).collect(),
        verdicts: state.verdicts.iter().map(write_verdict).collect(),
        drains: state.drains.iter().map(write_drain).collect(),
        floating_ips: state.floating_ips.iter().map(write_floating_ip).collect(),
        moves: state.moves.0,
        pause: state.pause.as_ref().map(write_pause),
        automatic_failovers_ms: state.automatic_failovers.iter().map(|at| at.0).collect(),
        history: state.history.iter().map(operation::write).collect(),
        announced: state.announced.iter().map(write_announced).collect(),
        sessions_token: Some(write_token(state.sessions.token)),
        pins: state.sessions.pins.iter().map(write_pin).collect(),
        requests: state
            .requests
            .iter()
            .map(|(id, revision)| wire::SnapshotRequest { id: id.as_str().to_owned(), revision: revision.0 })
            .collect(),
        longest_lease_ns: write_nanos(state.longest.lease),
        longest_wait_ns: write_nanos(state.longest.wait),
        drill: state.drill.as_ref().map(drill::write),
        drills: state.drills.iter().map(drill::write_record).collect(),
        ticket_keys: state.ticket_keys.iter().map(write_ticket_key).collect(),
        earlier_specs: state.earlier_specs.iter().map(write_earlier_spec).collect(),
    }
}

pub(super) fn read(state: wire::Snapshot, newest: Format) -> Result<State, DecodeError> {
    let format = Format(state.format);
    if format > newest {
        return Err(DecodeError::newer(format!("format {}", format.0)));
    }
    if format < Format::ERRANDS && state.floating_ips.iter().any(|ip| ip.errands > 0 || ip.errand.is_some()) {
        return Err(DecodeError::invalid("errands", "this format has none"));
    }
    if format < Format::DRILLS && (state.drill.is_some() || !state.drills.is_empty()) {
        return Err(DecodeError::invalid("drills", "this format has none"));
    }
    if format < Format::PLACES && state.pins.iter().any(|pin| pin.placed.is_some()) {
        return Err(DecodeError::invalid("pins", "this format does not say when they were placed"));
    }
    if format < Format::EDGE && !(state.ticket_keys.is_empty() && state.earlier_specs.is_empty()) {
        return Err(DecodeError::invalid(
            "ticket_keys",
            "this format has neither these nor earlier specifications",
        ));
    }
    let pins = table(state.pins, "pins", read_pin)?;
    let sessions = EmbeddedSessions { token: required_token(state.sessions_token)?, pins };
    let retired = state.retired_nodes.into_iter().map(NodeId);
    let requests = state.requests.into_iter();
    Ok(State {
        revision: Revision(state.revision),
        format,
        generation: Generation(state.generation),
        wall: WallTime(state.wall_ms),
        spec: state.spec.as_ref().map(spec::read).transpose()?,
        spec_revision: Revision(state.spec_revision),
        longest: LeaseBound {
            lease: read_nanos(state.longest_lease_ns),
            wait: read_nanos(state.longest_wait_ns),
        },
        nodes: table(state.nodes, "nodes", |node| Ok(read_node(node)))?,
        retired_nodes: table(retired.collect(), "retired_nodes", |node| Ok((node, ())))?
            .into_keys()
            .collect(),
        verdicts: table(state.verdicts, "verdicts", read_verdict)?,
        drains: table(state.drains, "drains", read_drain)?,
        floating_ips: table(state.floating_ips, "floating_ips", read_floating_ip)?,
        moves: Epoch(state.moves),
        pause: state.pause.map(read_pause),
        automatic_failovers: state.automatic_failovers_ms.into_iter().map(WallTime).collect(),
        history: state.history.into_iter().map(operation::read).collect::<Result<_, _>>()?,
        announced: table(state.announced, "announced", read_announced)?,
        sessions,
        requests: requests
            .map(|request| Ok((read_request(request.id)?, Revision(request.revision))))
            .collect::<Result<_, DecodeError>>()?,
        drill: state.drill.map(drill::read),
        drills: state.drills.into_iter().map(drill::read_record).collect::<Result<_, _>>()?,
        ticket_keys: state.ticket_keys.into_iter().map(read_ticket_key).collect::<Result<_, _>>()?,
        earlier_specs: state.earlier_specs.into_iter().map(read_earlier_spec).collect::<Result<_, _>>()?,
    })
}

/// Reads a list that stands for a table: keys in order, each once.
fn table<W, K: Ord, V>(
    list: Vec<W>,
    field: &'static str,
    read: impl Fn(W) -> Result<(K, V), DecodeError>,
) -> Result<BTreeMap<K, V>, DecodeError> {
    let mut table = BTreeMap::new();
    for entry in list {
        let (key, value) = read(entry)?;
        if table.last_key_value().is_some_and(|(last, _)| *last >= key) {
            return Err(DecodeError::invalid(field, "its keys are not in order"));
        }
        table.insert(key, value);
    }
    Ok(table)
}

fn write_node((node, life): (&NodeId, &NodeLife)) -> wire::SnapshotNode {
    wire::SnapshotNode {
        node: node.0,
        incarnation: life.incarnation.0,
        format_max: life.format_max.0,
        version: life.version.clone(),
        since_ms: life.since.0,
    }
}

fn read_node(node: wire::SnapshotNode) -> (NodeId, NodeLife) {
    let life = NodeLife {
        incarnation: Incarnation(node.incarnation),
        format_max: Format(node.format_max),
        version: node.version,
        since: WallTime(node.since_ms),
    };
    (NodeId(node.node), life)
}

fn write_verdict((upstream, record): (&UpstreamName, &VerdictRecord)) -> wire::SnapshotVerdict {
    wire::SnapshotVerdict {
        upstream: write_name(upstream),
        health: record.health.write(),
        since_ms: record.since.0,
        evidence: record.evidence.clone(),
    }
}

fn read_verdict(verdict: wire::SnapshotVerdict) -> Result<(UpstreamName, VerdictRecord), DecodeError> {
    let record = VerdictRecord {
        health: Verdict::read_required(verdict.health, "health")?,
        since: WallTime(verdict.since_ms),
        evidence: verdict.evidence,
    };
    Ok((read_name(verdict.upstream, "upstream")?, record))
}

fn write_drain((upstream, drain): (&UpstreamName, &Drain)) -> wire::SnapshotDrain {
    wire::SnapshotDrain {
        upstream: write_name(upstream),
        since_ms: drain.since.0,
        by: drain.by.clone(),
        deadline_ms: drain.deadline.map(|at| at.0),
    }
}

fn read_drain(drain: wire::SnapshotDrain) -> Result<(UpstreamName, Drain), DecodeError> {
    let record =
        Drain { since: WallTime(drain.since_ms), by: drain.by, deadline: drain.deadline_ms.map(WallTime) };
    Ok((read_name(drain.upstream, "upstream")?, record))
}

fn write_floating_ip((ip, entry): (&FloatingIpName, &FloatingIpState)) -> wire::SnapshotFloatingIp {
    wire::SnapshotFloatingIp {
        ip: write_name(ip),
        epoch: entry.epoch.0,
        owner: entry.owner.as_ref().map(operation::write_owner),
        operation: entry.operation.as_ref().map(operation::write),
        errands: entry.errands.0,
        errand: entry.errand.as_ref().map(errand::write),
    }
}

fn read_floating_ip(
    entry: wire::SnapshotFloatingIp,
) -> Result<(FloatingIpName, FloatingIpState), DecodeError> {
    let state = FloatingIpState {
        epoch: Epoch(entry.epoch),
        owner: entry.owner.map(operation::read_owner).transpose()?,
        operation: entry.operation.map(operation::read).transpose()?,
        errands: ErrandId(entry.errands),
        errand: entry.errand.map(errand::read).transpose()?,
    };
    Ok((read_name(entry.ip, "ip")?, state))
}

fn write_pause(pause: &Pause) -> wire::SnapshotPause {
    wire::SnapshotPause {
        until_ms: pause.until.0,
        since_ms: pause.since.0,
        by: pause.by.clone(),
        reason: pause.reason.clone(),
    }
}

fn read_pause(pause: wire::SnapshotPause) -> Pause {
    Pause {
        until: WallTime(pause.until_ms),
        since: WallTime(pause.since_ms),
        by: pause.by,
        reason: pause.reason,
    }
}

fn write_announced((upstream, record): (&UpstreamName, &AnnouncedRecord)) -> wire::SnapshotAnnounced {
    wire::SnapshotAnnounced {
        upstream: write_name(upstream),
        address: write_address(record.address),
        token: Some(write_token(record.token)),
        since_ms: record.since.0,
        by: record.by.0,
    }
}

fn read_announced(
    announced: wire::SnapshotAnnounced,
) -> Result<(UpstreamName, AnnouncedRecord), DecodeError> {
    let record = AnnouncedRecord {
        address: read_address(&announced.address)?,
        token: required_token(announced.token)?,
        since: WallTime(announced.since_ms),
        by: NodeId(announced.by),
    };
    Ok((read_name(announced.upstream, "upstream")?, record))
}

fn write_ticket_key(key: &TicketKey) -> wire::SnapshotTicketKey {
    wire::SnapshotTicketKey { secret: key.secret.expose().to_vec(), since_ms: key.since.0 }
}

fn read_ticket_key(key: wire::SnapshotTicketKey) -> Result<TicketKey, DecodeError> {
    Ok(TicketKey { secret: read_secret(&key.secret)?, since: WallTime(key.since_ms) })
}

fn write_earlier_spec(earlier: &EarlierSpec) -> wire::SnapshotEarlierSpec {
    wire::SnapshotEarlierSpec {
        revision: earlier.revision.0,
        until_ms: earlier.until.0,
        replaced_by: earlier.replaced_by.clone(),
        spec: Some(spec::write(&earlier.spec)),
    }
}

fn read_earlier_spec(earlier: wire::SnapshotEarlierSpec) -> Result<EarlierSpec, DecodeError> {
    Ok(EarlierSpec {
        revision: Revision(earlier.revision),
        until: WallTime(earlier.until_ms),
        replaced_by: earlier.replaced_by,
        spec: spec::read(&required(earlier.spec, "spec")?)?,
    })
}

fn write_pin((room, pin): (&RoomKey, &Pin)) -> wire::SnapshotPin {
    wire::SnapshotPin {
        room: write_room(room),
        upstream: write_name(&pin.upstream),
        token: Some(write_token(pin.token)),
        touched_ms: pin.touched.0,
        placed: pin.placed.map(|placed| placed.0),
    }
}

fn read_pin(pin: wire::SnapshotPin) -> Result<(RoomKey, Pin), DecodeError> {
    let record = Pin {
        upstream: read_name(pin.upstream, "upstream")?,
        token: required_token(pin.token)?,
        touched: WallTime(pin.touched_ms),
        placed: pin.placed.map(Revision),
    };
    Ok((read_room(&pin.room)?, record))
}
