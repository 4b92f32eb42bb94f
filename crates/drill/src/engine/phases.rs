//! Reading the cluster's journal and the clients' answers: how long each phase took, and what happened in words.

use super::WatchItem;
use super::report::PhasesMs;
use super::run::whole_ms;
use crate::measure::{Answer, Identity};
use std::collections::BTreeMap;
use std::time::Instant;
use twinsite_model::{Event, NodeId, Step, WallTime};

/// The phases of the first move after the fault; all empty if there was none.
pub(crate) fn of(journal: &[WatchItem], fault: WallTime) -> PhasesMs {
    let began = journal.iter().find_map(|item| match &item.event {
        Event::OperationBegan { operation, .. } => Some((*operation, item.at)),
        _ => None,
    });
    let Some((id, began)) = began else { return PhasesMs::default() };
    let of_step = |wanted: Step| {
        let started = journal.iter().find_map(|item| match &item.event {
            Event::StepStarted { operation, step, .. } if *operation == id && *step == wanted => {
                Some(item.at)
            }
            _ => None,
        })?;
        let finished = journal.iter().find_map(|item| match &item.event {
            Event::StepFinished { operation, step, .. } if *operation == id && *step == wanted => {
                Some(item.at)
            }
            _ => None,
        })?;
        Some(whole_ms(finished.since(started)))
    };
    PhasesMs {
        detect: Some(whole_ms(began.since(fault))),
        drain: of_step(Step::Drain),
        fence: of_step(Step::Fence),
        r#move: of_step(Step::Move),
        observe: of_step(Step::Observe),
        announce: of_step(Step::Announce),
        verify: of_step(Step::Verify),
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
