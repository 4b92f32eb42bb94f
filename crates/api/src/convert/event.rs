//! Events, both ways: a client follows a watch in the model's own words.

use super::Unknown;
use super::names::{
    drill_outcome, drill_outcome_to_pb, errand_end, errand_end_to_pb, fence, fence_to_pb, kind, kind_to_pb,
    outcome, outcome_to_pb, reason, reason_to_pb, result, result_to_pb, step, step_to_pb, verdict,
    verdict_to_pb,
};
use super::state::{owner_to_pb, token, token_to_pb};
use crate::v1::{self, event::Event as Wire};
use std::str::FromStr;
use std::time::Duration;
use twinsite_model::{
    DrillId, Errand, ErrandId, Event, Format, Generation, Incarnation, NodeId, OperationId, Owner, RoomKey,
    Token, WallTime,
};

/// An event.
pub fn event_to_pb(event: &Event) -> v1::Event {
    let wire = match event {
        Event::SpecApplied => Wire::SpecApplied(v1::SpecApplied {}),
        Event::TicketKeyRotated => Wire::TicketKeyRotated(v1::TicketKeyRotated {}),
        Event::NodePut(node) => Wire::NodePut(v1::NodePut { node: node.0 }),
        Event::NodeRetired(node) => Wire::NodeRetired(v1::NodeRetired { node: node.0 }),
        Event::FormatRaised(format) => Wire::FormatRaised(v1::FormatRaised { format: format.0 }),
        Event::NodeStarted { node, incarnation } => {
            Wire::NodeStarted(v1::NodeStarted { node: node.0, incarnation: incarnation.0.to_string() })
        }
        Event::VerdictChanged { upstream, from, to, evidence } => Wire::VerdictChanged(v1::VerdictChanged {
            upstream: upstream.to_string(),
            from: verdict_to_pb(*from).into(),
            to: verdict_to_pb(*to).into(),
            evidence: evidence.clone(),
        }),
        Event::OperationBegan { ip, operation, kind, reason, target, evidence } => {
            Wire::OperationBegan(v1::OperationBegan {
                floating_ip: ip.to_string(),
                operation: operation.0,
                kind: kind_to_pb(*kind).into(),
                reason: reason_to_pb(*reason).into(),
                target: target.0,
                evidence: evidence.clone(),
            })
        }
        Event::Retargeted { ip, operation, target } => Wire::Retargeted(v1::Retargeted {
            floating_ip: ip.to_string(),
            operation: operation.0,
            target: target.0,
        }),
        Event::StepStarted { ip, operation, step } => Wire::StepStarted(v1::StepStarted {
            floating_ip: ip.to_string(),
            operation: operation.0,
            step: step_to_pb(*step).into(),
        }),
        Event::StepFinished { ip, operation, step, result, detail } => Wire::StepFinished(v1::StepFinished {
            floating_ip: ip.to_string(),
            operation: operation.0,
            step: step_to_pb(*step).into(),
            result: result_to_pb(*result).into(),
            detail: detail.clone(),
        }),
        Event::Fenced { ip, operation, token, fence } => Wire::Fenced(v1::Fenced {
            floating_ip: ip.to_string(),
            operation: operation.0,
            token: token.map(token_to_pb),
            fence: fence_to_pb(*fence).into(),
        }),
        Event::OwnerChanged { ip, owner } => Wire::OwnerChanged(v1::OwnerChanged {
            floating_ip: ip.to_string(),
            owner: Some(owner_to_pb(None, owner)),
        }),
        Event::OperationEnded { ip, operation, outcome } => Wire::OperationEnded(v1::OperationEnded {
            floating_ip: ip.to_string(),
            operation: operation.0,
            outcome: outcome_to_pb(*outcome).into(),
        }),
        Event::Paused { until, by, reason } => {
            Wire::Paused(v1::Paused { until_ms: until.0, by: by.clone(), reason: reason.clone() })
        }
        Event::Resumed { expired, by } => Wire::Resumed(v1::Resumed { expired: *expired, by: by.clone() }),
        Event::BreakerReset { by } => Wire::BreakerReset(v1::BreakerReset { by: by.clone() }),
        Event::GenerationRaised { generation, statement } => Wire::GenerationRaised(v1::GenerationRaised {
            generation: generation.0,
            statement: statement.clone(),
        }),
        Event::AnnouncedChanged { upstream, address, token } => {
            Wire::AnnouncedChanged(v1::AnnouncedChanged {
                upstream: upstream.to_string(),
                address: address.to_string(),
                token: Some(token_to_pb(*token)),
            })
        }
        Event::RoomPinned { room, upstream, token } => Wire::RoomPinned(v1::RoomPinned {
            room: room.0.to_vec(),
            upstream: upstream.to_string(),
            token: Some(token_to_pb(*token)),
        }),
        Event::RoomsExpired { count } => Wire::RoomsExpired(v1::RoomsExpired { count: *count }),
        Event::ErrandSent { ip, errand } => Wire::ErrandSent(v1::ErrandSent {
            floating_ip: ip.to_string(),
            errand: errand.id.0,
            by: errand.by.0,
            incarnation: errand.incarnation.0.to_string(),
            token: Some(token_to_pb(errand.token)),
            to: errand.to.0,
            within_ns: u64::try_from(errand.within.as_nanos()).unwrap_or(u64::MAX),
            since_ms: errand.since.0,
            recalled: errand.recalled,
        }),
        Event::ErrandRecalled { ip, errand } => {
            Wire::ErrandRecalled(v1::ErrandRecalled { floating_ip: ip.to_string(), errand: errand.0 })
        }
        Event::ErrandEnded { ip, errand, end } => Wire::ErrandEnded(v1::ErrandEnded {
            floating_ip: ip.to_string(),
            errand: errand.0,
            end: errand_end_to_pb(*end).into(),
        }),
        Event::DrillBegan { drill, name, by, runner, until } => Wire::DrillBegan(v1::DrillBegan {
            drill: drill.0,
            name: name.clone(),
            by: by.clone(),
            runner: runner.0,
            until_ms: until.0,
        }),
        Event::DrillStopped { drill, by, reason } => {
            Wire::DrillStopped(v1::DrillStopped { drill: drill.0, by: by.clone(), reason: reason.clone() })
        }
        Event::DrillEnded { drill, name, outcome } => Wire::DrillEnded(v1::DrillEnded {
            drill: drill.0,
            name: name.clone(),
            outcome: drill_outcome_to_pb(*outcome).into(),
        }),
    };
    v1::Event { event: Some(wire) }
}

/// An event. An error: this program is older than the cluster.
pub fn event(wire: v1::Event) -> Result<Event, Unknown> {
    Ok(match wire.event.ok_or(Unknown("event"))? {
        Wire::SpecApplied(_) => Event::SpecApplied,
        Wire::TicketKeyRotated(_) => Event::TicketKeyRotated,
        Wire::NodePut(e) => Event::NodePut(NodeId(e.node)),
        Wire::NodeRetired(e) => Event::NodeRetired(NodeId(e.node)),
        Wire::FormatRaised(e) => Event::FormatRaised(Format(e.format)),
        Wire::NodeStarted(e) => {
            Event::NodeStarted { node: NodeId(e.node), incarnation: incarnation(&e.incarnation)? }
        }
        Wire::VerdictChanged(e) => Event::VerdictChanged {
            from: verdict(e.from())?,
            to: verdict(e.to())?,
            upstream: parsed(&e.upstream)?,
            evidence: e.evidence,
        },
        Wire::OperationBegan(e) => Event::OperationBegan {
            ip: parsed(&e.floating_ip)?,
            operation: OperationId(e.operation),
            kind: kind(e.kind())?,
            reason: reason(e.reason())?,
            target: NodeId(e.target),
            evidence: e.evidence,
        },
        Wire::Retargeted(e) => Event::Retargeted {
            ip: parsed(&e.floating_ip)?,
            operation: OperationId(e.operation),
            target: NodeId(e.target),
        },
        Wire::StepStarted(e) => Event::StepStarted {
            ip: parsed(&e.floating_ip)?,
            operation: OperationId(e.operation),
            step: step(e.step())?,
        },
        Wire::StepFinished(e) => Event::StepFinished {
            ip: parsed(&e.floating_ip)?,
            operation: OperationId(e.operation),
            step: step(e.step())?,
            result: result(e.result())?,
            detail: e.detail,
        },
        Wire::Fenced(e) => Event::Fenced {
            ip: parsed(&e.floating_ip)?,
            operation: OperationId(e.operation),
            fence: fence(e.fence())?,
            token: e.token.map(token),
        },
        Wire::OwnerChanged(e) => Event::OwnerChanged { ip: parsed(&e.floating_ip)?, owner: owner(e.owner)? },
        Wire::OperationEnded(e) => Event::OperationEnded {
            ip: parsed(&e.floating_ip)?,
            operation: OperationId(e.operation),
            outcome: outcome(e.outcome())?,
        },
        Wire::Paused(e) => Event::Paused { until: WallTime(e.until_ms), by: e.by, reason: e.reason },
        Wire::Resumed(e) => Event::Resumed { expired: e.expired, by: e.by },
        Wire::BreakerReset(e) => Event::BreakerReset { by: e.by },
        Wire::GenerationRaised(e) => {
            Event::GenerationRaised { generation: Generation(e.generation), statement: e.statement }
        }
        Wire::AnnouncedChanged(e) => Event::AnnouncedChanged {
            upstream: parsed(&e.upstream)?,
            address: parsed(&e.address)?,
            token: needed(e.token)?,
        },
        Wire::RoomPinned(e) => Event::RoomPinned {
            room: RoomKey(e.room.as_slice().try_into().map_err(|_| Unknown("room"))?),
            upstream: parsed(&e.upstream)?,
            token: needed(e.token)?,
        },
        Wire::RoomsExpired(e) => Event::RoomsExpired { count: e.count },
        Wire::ErrandSent(e) => Event::ErrandSent {
            ip: parsed(&e.floating_ip)?,
            errand: Errand {
                id: ErrandId(e.errand),
                by: NodeId(e.by),
                incarnation: incarnation(&e.incarnation)?,
                token: needed(e.token)?,
                to: NodeId(e.to),
                within: Duration::from_nanos(e.within_ns),
                since: WallTime(e.since_ms),
                recalled: e.recalled,
            },
        },
        Wire::ErrandRecalled(e) => {
            Event::ErrandRecalled { ip: parsed(&e.floating_ip)?, errand: ErrandId(e.errand) }
        }
        Wire::ErrandEnded(e) => Event::ErrandEnded {
            end: errand_end(e.end())?,
            ip: parsed(&e.floating_ip)?,
            errand: ErrandId(e.errand),
        },
        Wire::DrillBegan(e) => Event::DrillBegan {
            drill: DrillId(e.drill),
            name: e.name,
            by: e.by,
            runner: NodeId(e.runner),
            until: WallTime(e.until_ms),
        },
        Wire::DrillStopped(e) => Event::DrillStopped { drill: DrillId(e.drill), by: e.by, reason: e.reason },
        Wire::DrillEnded(e) => {
            Event::DrillEnded { outcome: drill_outcome(e.outcome())?, drill: DrillId(e.drill), name: e.name }
        }
    })
}

fn owner(owner: Option<v1::Owner>) -> Result<Owner, Unknown> {
    let owner = owner.ok_or(Unknown("owner"))?;
    Ok(Owner {
        node: NodeId(owner.node),
        incarnation: incarnation(&owner.incarnation)?,
        token: needed(owner.token)?,
        since: WallTime(owner.since_ms),
        revoked: owner.revoked,
    })
}

fn incarnation(text: &str) -> Result<Incarnation, Unknown> {
    text.parse().map(Incarnation).map_err(|_| Unknown("incarnation"))
}

fn needed(field: Option<v1::Token>) -> Result<Token, Unknown> {
    field.map(token).ok_or(Unknown("token"))
}

fn parsed<T: FromStr>(text: &str) -> Result<T, Unknown> {
    text.parse().map_err(|_| Unknown("name"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use twinsite_model::{
        DrillOutcome, ErrandEnd, Fence, OperationKind, Outcome, Reason, Step, StepResult, Verdict,
    };

    fn all() -> Vec<Event> {
        let ip: twinsite_model::FloatingIpName = "public".parse().unwrap();
        let upstream: twinsite_model::UpstreamName = "gra-meet-1".parse().unwrap();
        let (operation, node, token) = (OperationId(7), NodeId(3), Token::new(2, 9));
        let owner =
            Owner { node, incarnation: Incarnation(u64::MAX), token, since: WallTime(5), revoked: true };
        let errand = Errand {
            id: ErrandId(4),
            by: node,
            incarnation: Incarnation(5),
            token,
            to: NodeId(1),
            within: Duration::from_secs(10),
            since: WallTime(6),
            recalled: true,
        };
        let evidence = vec!["one".to_owned(), "two".to_owned()];
        let text = || "text".to_owned();
        vec![
            Event::SpecApplied,
            Event::TicketKeyRotated,
            Event::NodePut(node),
            Event::NodeRetired(node),
            Event::FormatRaised(Format(2)),
            Event::NodeStarted { node, incarnation: Incarnation(1 << 33) },
            Event::VerdictChanged {
                upstream: upstream.clone(),
                from: Verdict::Unknown,
                to: Verdict::Draining,
                evidence: evidence.clone(),
            },
            Event::OperationBegan {
                ip: ip.clone(),
                operation,
                kind: OperationKind::Failback,
                reason: Reason::Preference,
                target: node,
                evidence,
            },
            Event::Retargeted { ip: ip.clone(), operation, target: node },
            Event::StepStarted { ip: ip.clone(), operation, step: Step::Drain },
            Event::StepFinished {
                ip: ip.clone(),
                operation,
                step: Step::Verify,
                result: StepResult::TimedOut,
                detail: text(),
            },
            Event::Fenced { ip: ip.clone(), operation, token: Some(token), fence: Fence::LeaseEnded },
            Event::Fenced { ip: ip.clone(), operation, token: None, fence: Fence::NoOwner },
            Event::OwnerChanged { ip: ip.clone(), owner },
            Event::OperationEnded { ip: ip.clone(), operation, outcome: Outcome::Unverified },
            Event::ErrandSent { ip: ip.clone(), errand },
            Event::ErrandRecalled { ip: ip.clone(), errand: ErrandId(4) },
            Event::ErrandEnded { ip, errand: ErrandId(4), end: ErrandEnd::Unanswered },
            Event::Paused { until: WallTime(9), by: text(), reason: text() },
            Event::Resumed { expired: true, by: text() },
            Event::BreakerReset { by: text() },
            Event::GenerationRaised { generation: Generation(4), statement: text() },
            Event::AnnouncedChanged {
                upstream: upstream.clone(),
                address: "2001:db8::1".parse().unwrap(),
                token,
            },
            Event::RoomPinned { room: RoomKey([7; 16]), upstream, token },
            Event::RoomsExpired { count: 3 },
            Event::DrillBegan {
                drill: DrillId(8),
                name: text(),
                by: text(),
                runner: node,
                until: WallTime(10),
            },
            Event::DrillStopped { drill: DrillId(8), by: text(), reason: text() },
            Event::DrillEnded { drill: DrillId(8), name: text(), outcome: DrillOutcome::Aborted },
        ]
    }

    #[test]
    fn every_event_survives_the_wire() {
        for wanted in all() {
            assert_eq!(event(event_to_pb(&wanted)), Ok(wanted));
        }
    }

    #[test]
    fn what_a_newer_cluster_says_is_an_error_and_no_guess() {
        assert!(event(v1::Event { event: None }).is_err());
        let odd = v1::StepStarted { floating_ip: "public".to_owned(), operation: 1, step: 99 };
        assert!(event(v1::Event { event: Some(Wire::StepStarted(odd)) }).is_err());
    }
}
