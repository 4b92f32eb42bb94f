//! The state, for those who ask.

use super::names::{
    drill_outcome_to_pb, fence_to_pb, kind_to_pb, outcome_to_pb, reason_to_pb, result_to_pb, step_to_pb,
    verdict_to_pb,
};
use crate::v1;
use twinsite_model::spec::{self, NodeKind, NodeSpec};
use twinsite_model::{
    ClusterSpec, DrillRecord, NodeId, Operation, Owner, RunningDrill, State, StepRecord, Token,
};

/// A token.
pub fn token_to_pb(token: Token) -> v1::Token {
    v1::Token { generation: token.generation.0, epoch: token.epoch.0 }
}

/// A token.
pub fn token(token: v1::Token) -> Token {
    Token::new(token.generation, token.epoch)
}

/// The whole state, with the specification and what is known beside it brought together.
pub fn state_to_pb(state: &State) -> v1::State {
    let spec = state.spec.as_deref();
    let pause = state.pause.as_ref().map(|pause| v1::Pause {
        until_ms: pause.until.0,
        since_ms: pause.since.0,
        by: pause.by.clone(),
        reason: pause.reason.clone(),
    });
    v1::State {
        revision: state.revision.0,
        cluster: state.cluster().map(ToString::to_string).unwrap_or_default(),
        generation: state.generation.0,
        wall_ms: state.wall.0,
        spec_json: spec.map(spec_json).unwrap_or_default(),
        nodes: spec.iter().flat_map(|spec| &spec.nodes).map(|node| node_to_pb(state, node)).collect(),
        upstreams: spec.map(|spec| upstreams(state, spec)).unwrap_or_default(),
        floating_ips: spec.map(|spec| floating_ips(state, spec)).unwrap_or_default(),
        pause,
        automatic_failovers_ms: state.automatic_failovers.iter().map(|at| at.0).collect(),
        history: state.history.iter().map(|operation| operation_to_pb(state, operation)).collect(),
        embedded_rooms: u32::try_from(state.sessions.pins.len()).unwrap_or(u32::MAX),
        session_token: Some(token_to_pb(state.session_token())),
        drill: state.drill.as_ref().map(|drill| running_drill_to_pb(state, drill)),
        last_drill: state.drills.back().map(|drill| drill_record_to_pb(state, drill, false)),
    }
}

fn spec_json(spec: &ClusterSpec) -> String {
    String::from_utf8_lossy(&spec::to_json(spec)).into_owned()
}

/// The specification, and what it was before.
pub fn specs_to_pb(state: &State) -> v1::ListSpecsResponse {
    let earlier = state.earlier_specs.iter().map(|earlier| v1::EarlierSpec {
        revision: earlier.revision.0,
        until_ms: earlier.until.0,
        replaced_by: earlier.replaced_by.clone(),
        spec_json: spec_json(&earlier.spec),
    });
    v1::ListSpecsResponse {
        earlier: earlier.collect(),
        spec_revision: state.spec_revision.0,
        spec_json: state.spec.as_deref().map(spec_json).unwrap_or_default(),
    }
}

fn name_of(state: &State, node: NodeId) -> String {
    let known = state.spec.as_ref().and_then(|spec| spec.node(node));
    known.map(|node| node.name.to_string()).unwrap_or_default()
}

/// A drill that runs.
pub fn running_drill_to_pb(state: &State, drill: &RunningDrill) -> v1::Drill {
    let stop = drill.stop.clone();
    let (stopped_by, stop_reason) = stop.map_or_else(Default::default, |stop| (stop.by, stop.reason));
    v1::Drill {
        id: drill.id.0,
        name: drill.name.clone(),
        by: drill.by.clone(),
        runner: drill.runner.0,
        runner_name: name_of(state, drill.runner),
        since_ms: drill.since.0,
        until_ms: drill.until.0,
        stopped_by,
        stop_reason,
        ..v1::Drill::default()
    }
}

/// A drill that is over, with its report or without.
pub fn drill_record_to_pb(state: &State, drill: &DrillRecord, with_report: bool) -> v1::Drill {
    v1::Drill {
        id: drill.id.0,
        name: drill.name.clone(),
        by: drill.by.clone(),
        runner: drill.runner.0,
        runner_name: name_of(state, drill.runner),
        since_ms: drill.since.0,
        ended_ms: drill.ended.0,
        outcome: drill_outcome_to_pb(drill.outcome).into(),
        report_json: if with_report { drill.summary.clone() } else { String::new() },
        ..v1::Drill::default()
    }
}

fn node_to_pb(state: &State, node: &NodeSpec) -> v1::NodeState {
    let life = state.nodes.get(&node.id);
    v1::NodeState {
        id: node.id.0,
        name: node.name.to_string(),
        site: node.site.to_string(),
        kind: match node.kind {
            NodeKind::Proxy => "proxy",
            NodeKind::Witness => "witness",
            NodeKind::Edge => "edge",
        }
        .to_owned(),
        peer_address: node.peer.to_string(),
        api_address: node.api.to_string(),
        incarnation: life.map(|life| life.incarnation.0.to_string()).unwrap_or_default(),
        since_ms: life.map_or(0, |life| life.since.0),
        version: life.map(|life| life.version.clone()).unwrap_or_default(),
    }
}

fn upstreams(state: &State, spec: &ClusterSpec) -> Vec<v1::UpstreamState> {
    let upstream = |upstream: &spec::UpstreamSpec| {
        let record = state.verdicts.get(&upstream.name);
        let announced = state.announced.get(&upstream.name);
        v1::UpstreamState {
            name: upstream.name.to_string(),
            site: upstream.site.to_string(),
            address: upstream.address.clone(),
            verdict: verdict_to_pb(state.verdict(&upstream.name)).into(),
            since_ms: record.map_or(0, |record| record.since.0),
            evidence: record.map(|record| record.evidence.clone()).unwrap_or_default(),
            drain: state.drains.get(&upstream.name).map(|drain| v1::Drain {
                since_ms: drain.since.0,
                by: drain.by.clone(),
                deadline_ms: drain.deadline.map_or(0, |deadline| deadline.0),
            }),
            announced_ip: announced.map(|record| record.address.to_string()).unwrap_or_default(),
            announced_token: announced.map(|record| token_to_pb(record.token)),
        }
    };
    spec.upstreams.iter().map(upstream).collect()
}

fn floating_ips(state: &State, spec: &ClusterSpec) -> Vec<v1::FloatingIpState> {
    let floating_ip = |ip: &spec::FloatingIpSpec| {
        let entry = state.floating_ips.get(&ip.name);
        v1::FloatingIpState {
            name: ip.name.to_string(),
            address: ip.address.to_string(),
            ports: ip.ports.iter().map(|port| u32::from(*port)).collect(),
            owner: entry.and_then(|entry| entry.owner.as_ref()).map(|owner| owner_to_pb(Some(state), owner)),
            operation: entry
                .and_then(|entry| entry.operation.as_ref())
                .map(|operation| operation_to_pb(state, operation)),
        }
    };
    spec.floating_ips.iter().map(floating_ip).collect()
}

/// An owner; its name and site come from the state's specification, where that is at hand.
pub fn owner_to_pb(state: Option<&State>, owner: &Owner) -> v1::Owner {
    let node = state.and_then(|state| state.spec.as_ref()).and_then(|spec| spec.node(owner.node));
    v1::Owner {
        node: owner.node.0,
        node_name: node.map(|node| node.name.to_string()).unwrap_or_default(),
        site: node.map(|node| node.site.to_string()).unwrap_or_default(),
        incarnation: owner.incarnation.0.to_string(),
        token: Some(token_to_pb(owner.token)),
        since_ms: owner.since.0,
        revoked: owner.revoked,
    }
}

/// A move with its journal.
pub fn operation_to_pb(state: &State, operation: &Operation) -> v1::Operation {
    let target = state.spec.as_ref().and_then(|spec| spec.node(operation.target));
    v1::Operation {
        id: operation.id.0,
        floating_ip: operation.ip.to_string(),
        kind: kind_to_pb(operation.kind).into(),
        reason: reason_to_pb(operation.reason).into(),
        evidence: operation.evidence.clone(),
        from: operation.from.as_ref().map(|owner| owner_to_pb(Some(state), owner)),
        target: operation.target.0,
        target_name: target.map(|node| node.name.to_string()).unwrap_or_default(),
        by: operation.by.clone(),
        overrides: operation.overrides.iter().map(|rule| rule.as_str().to_owned()).collect(),
        fence: operation.fence.map_or(v1::Fence::Unspecified, fence_to_pb).into(),
        token: operation.token.map(token_to_pb),
        steps: operation.steps.iter().map(step_record).collect(),
        outcome: operation
            .ended
            .map_or(v1::Outcome::Unspecified, |(_, outcome)| outcome_to_pb(outcome))
            .into(),
        ended_ms: operation.ended.map_or(0, |(at, _)| at.0),
    }
}

fn step_record(record: &StepRecord) -> v1::StepRecord {
    let result = record.finished.map_or(v1::StepResult::Unspecified, |(_, result)| result_to_pb(result));
    v1::StepRecord {
        step: step_to_pb(record.step).into(),
        started_ms: record.started.0,
        finished_ms: record.finished.map_or(0, |(at, _)| at.0),
        result: result.into(),
        detail: record.detail.clone(),
    }
}
