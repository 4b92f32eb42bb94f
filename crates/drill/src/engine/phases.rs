//! Reading the cluster's journal and the clients' answers: how long each phase took, and what happened in words.

use super::WatchItem;
use super::report::PhasesMs;
use super::spans::PhaseSpan;
use crate::measure::{Answer, Identity};
use std::collections::BTreeMap;
use std::time::Instant;
use twinsite_model::{Event, NodeId, OperationId, Step, WallTime};

/// The phases of every move after the fault, each from its start to its end. The first begins with what nobody had
/// decided yet: `detect`, from the fault to the decision.
pub(crate) fn spans(journal: &[WatchItem], fault: WallTime) -> Vec<PhaseSpan> {
    let since = |at: WallTime| at.0.cast_signed().saturating_sub(fault.0.cast_signed());
    let mut spans = Vec::new();
    let mut moves = Vec::new();
    let mut begun: BTreeMap<(OperationId, Step), WallTime> = BTreeMap::new();
    for item in journal {
        match &item.event {
            Event::OperationBegan { operation, .. } => {
                moves.push(*operation);
                if moves.len() == 1 {
                    let to_ms = since(item.at).max(0);
                    spans.push(PhaseSpan { of_move: 1, phase: "detect".into(), from_ms: 0, to_ms });
                }
            }
            Event::StepStarted { operation, step, .. } => {
                begun.entry((*operation, *step)).or_insert(item.at);
            }
            Event::StepFinished { operation, step, .. } => {
                // What is done by one commit has no beginning of its own.
                let from = begun.remove(&(*operation, *step)).unwrap_or(item.at);
                spans.extend(span(&moves, *operation, *step, since(from), since(item.at)));
            }
            Event::OperationEnded { operation, .. } => {
                // The last step ends with the move.
                let left: Vec<_> = begun.keys().filter(|(of, _)| of == operation).copied().collect();
                for (of, step) in left {
                    let from = begun.remove(&(of, step)).unwrap_or(item.at);
                    spans.extend(span(&moves, of, step, since(from), since(item.at)));
                }
            }
            _ => {}
        }
    }
    spans
}

/// A step of one of these moves.
fn span(moves: &[OperationId], of: OperationId, step: Step, from_ms: i64, to_ms: i64) -> Option<PhaseSpan> {
    let of_move = moves.iter().position(|known| *known == of)? + 1;
    Some(PhaseSpan { of_move, phase: step.as_str().into(), from_ms, to_ms: to_ms.max(from_ms) })
}

/// How long each phase of the first move took; all empty if there was none.
pub(crate) fn of(spans: &[PhaseSpan]) -> PhasesMs {
    let of_phase = |name: &str| {
        let span = spans.iter().find(|span| span.of_move == 1 && span.phase == name)?;
        u64::try_from(span.to_ms.saturating_sub(span.from_ms)).ok()
    };
    PhasesMs {
        detect: of_phase("detect"),
        drain: of_phase("drain"),
        fence: of_phase("fence"),
        r#move: of_phase("move"),
        observe: of_phase("observe"),
        announce: of_phase("announce"),
        verify: of_phase("verify"),
    }
}

/// An event in a line; none for what a person does not look for in a drill.
pub(crate) fn in_words(event: &Event, name: impl Fn(NodeId) -> String) -> Option<String> {
    Some(match event {
        Event::OperationBegan { kind, reason, target, .. } => {
            format!("{} to {} begins: {}", kind.as_str(), name(*target), reason.as_str())
        }
        Event::Retargeted { target, .. } => format!("another target: {}", name(*target)),
        Event::StepStarted { .. } | Event::RoomPinned { .. } | Event::RoomsExpired { .. } => return None,
        Event::StepFinished { step, result, detail, .. } if detail.is_empty() => {
            format!("{step}: {}", result.as_str())
        }
        Event::StepFinished { step, result, detail, .. } => format!("{step}: {} ({detail})", result.as_str()),
        Event::Fenced { token: Some(token), fence, .. } => format!("{token} is fenced: {}", fence.as_str()),
        Event::Fenced { token: None, fence, .. } => format!("fenced: {}", fence.as_str()),
        Event::OwnerChanged { owner, .. } => format!("{} owns under {}", name(owner.node), owner.token),
        Event::OperationEnded { outcome, .. } => format!("the move ends: {}", outcome.as_str()),
        Event::VerdictChanged { upstream, from, to, .. } => {
            format!("{upstream}: {} -> {}", from.as_str(), to.as_str())
        }
        Event::AnnouncedChanged { upstream, address, .. } => format!("{upstream} announces {address}"),
        Event::NodeStarted { node, .. } => format!("{} lives anew", name(*node)),
        Event::GenerationRaised { generation, .. } => format!("generation {generation}"),
        Event::Paused { by, .. } => format!("automatic moves paused by {by}"),
        Event::Resumed { .. } => "automatic moves resumed".to_owned(),
        Event::BreakerReset { by } => format!("breaker closed by {by}"),
        Event::NodeRetired(node) => format!("{} is retired", name(*node)),
        Event::NodePut(node) => format!("{} is a member", name(*node)),
        Event::SpecApplied => "a new specification".to_owned(),
        Event::TicketKeyRotated => "another key of session tickets".to_owned(),
        Event::FormatRaised(_) => "a newer format".to_owned(),
        Event::ErrandSent { errand, .. } => format!("{} calls the provider", name(errand.by)),
        Event::ErrandRecalled { .. } => "the call at the provider is recalled".to_owned(),
        Event::ErrandEnded { end, .. } => format!("the call at the provider: {}", end.as_str()),
        Event::DrillBegan { name, by, .. } => format!("{by} begins the drill {name}"),
        Event::DrillStopped { by, .. } => format!("{by} wants the drill to end"),
        Event::DrillEnded { outcome, .. } => format!("the drill is over: {}", outcome.as_str()),
    })
}

/// When each owner answered last and first, around the fault.
pub(crate) fn who_answered(answers: &[Answer], fault: Instant) -> Vec<(Instant, String)> {
    let mut spans: BTreeMap<&Identity, (Instant, Instant)> = BTreeMap::new();
    let traced = answers.iter().filter(|answer| answer.floating);
    for (identity, received) in traced.filter_map(|answer| Some((answer.identity.as_ref()?, answer.received)))
    {
        let span = spans.entry(identity).or_insert((received, received));
        *span = (span.0.min(received), span.1.max(received));
    }
    let newest = spans.values().map(|(_, last)| *last).max();
    let mut lines = Vec::new();
    for (identity, (first, last)) in spans {
        let token = identity.token.map_or_else(String::new, |token| format!(" ({token})"));
        if first > fault {
            lines.push((first, format!("first answer from {}{token}", identity.node)));
        }
        if last > fault && Some(last) != newest {
            lines.push((last, format!("last answer from {}{token}", identity.node)));
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use twinsite_model::{FloatingIpName, OperationKind, Outcome, Reason, Revision, StepResult};

    fn item(at: u64, event: Event) -> WatchItem {
        WatchItem { revision: Revision(at), at: WallTime(at), event }
    }

    fn ip() -> FloatingIpName {
        "public".parse().unwrap()
    }

    fn began(at: u64, operation: u64) -> WatchItem {
        let event = Event::OperationBegan {
            ip: ip(),
            operation: OperationId(operation),
            kind: OperationKind::Failover,
            reason: Reason::OwnerSilent,
            target: NodeId(3),
            evidence: Vec::new(),
        };
        item(at, event)
    }

    fn step(operation: u64, step: Step, from: u64, to: u64) -> [WatchItem; 2] {
        let operation = OperationId(operation);
        [
            item(from, Event::StepStarted { ip: ip(), operation, step }),
            item(
                to,
                Event::StepFinished {
                    ip: ip(),
                    operation,
                    step,
                    result: StepResult::Done,
                    detail: String::new(),
                },
            ),
        ]
    }

    #[test]
    fn phases_are_those_of_each_move_and_the_numbers_those_of_the_first() {
        let mut journal = vec![began(1_040, 7)];
        journal.extend(step(7, Step::Fence, 1_040, 1_100));
        journal.push(step(7, Step::Move, 0, 1_105)[1].clone());
        journal.push(step(7, Step::Verify, 1_105, 0)[0].clone());
        journal.push(item(
            1_110,
            Event::OperationEnded { ip: ip(), operation: OperationId(7), outcome: Outcome::Verified },
        ));
        journal.push(began(3_000, 9));
        journal.extend(step(9, Step::Drain, 3_000, 3_200));
        // What never ends has no length.
        journal.push(step(9, Step::Fence, 3_200, 0)[0].clone());
        let spans = spans(&journal, WallTime(1_000));
        let span = |of_move, phase: &'static str, from_ms, to_ms| PhaseSpan {
            of_move,
            phase: phase.into(),
            from_ms,
            to_ms,
        };
        let expected = [
            span(1, "detect", 0, 40),
            span(1, "fence", 40, 100),
            span(1, "move", 105, 105),
            span(1, "verify", 105, 110),
            span(2, "drain", 2_000, 2_200),
        ];
        assert_eq!(spans, expected);
        let numbers = PhasesMs {
            detect: Some(40),
            fence: Some(60),
            r#move: Some(0),
            verify: Some(5),
            ..PhasesMs::default()
        };
        assert_eq!(of(&spans), numbers);
        assert_eq!(of(&[]), PhasesMs::default());
    }
}
