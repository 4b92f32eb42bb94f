//! When things were so, in milliseconds since the first step: what a drawing to scale needs beside the timeline.

use crate::measure::answered;
use crate::measure::hosts::Period;
use crate::measure::{Kind, Recording, gap};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::time::Instant;

/// The spans of one run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Spans {
    /// The end of the observation.
    pub observed_ms: i64,
    /// The phases of every move, in order.
    pub phases: Vec<PhaseSpan>,
    /// The longest time without an answer, for each kind of client.
    pub gaps: Vec<GapSpan>,
    /// Which nodes clients had answers from through the floating address.
    pub nodes: Vec<NodeSpans>,
}

/// A phase of a move.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PhaseSpan {
    /// Which move of the run, from 1.
    pub of_move: usize,
    /// Its name, as in `phases_ms`.
    pub phase: Cow<'static, str>,
    /// Its beginning.
    pub from_ms: i64,
    /// Its end.
    pub to_ms: i64,
}

/// The longest time in which clients of a kind got no answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GapSpan {
    /// The kind of clients.
    pub clients: Cow<'static, str>,
    /// The last answer before.
    pub from_ms: i64,
    /// The first answer after.
    pub to_ms: i64,
}

/// When clients had answers from a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeSpans {
    /// The node.
    pub node: String,
    /// From the first answer of a row to its last.
    pub answered: Vec<(i64, i64)>,
}

/// What clients saw between the two moments, in times that `since` tells.
pub(crate) fn of_clients(seen: &Recording, observed: Period, since: impl Fn(Instant) -> i64) -> Spans {
    let Period { from, to } = observed;
    let gaps = [
        ("new connections", gap::http(&seen.answers, Kind::NewConnection, from, to)),
        ("keep-alive", gap::http(&seen.answers, Kind::KeepAlive, from, to)),
        ("WebSocket", gap::websocket(&seen.answers, from, to)),
    ];
    let gap = |(clients, gap): (&'static str, Option<Period>)| {
        let Period { from, to } = gap?;
        Some(GapSpan { clients: clients.into(), from_ms: since(from), to_ms: since(to) })
    };
    let node = |(node, periods): (twinsite_model::NodeName, Vec<Period>)| NodeSpans {
        node: node.to_string(),
        answered: periods.into_iter().map(|period| (since(period.from), since(period.to))).collect(),
    };
    Spans {
        observed_ms: since(to),
        phases: Vec::new(),
        gaps: gaps.into_iter().filter_map(gap).collect(),
        nodes: answered::by_node(&seen.answers, to).into_iter().map(node).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::{Answer, Identity};
    use std::time::Duration;

    #[test]
    fn what_clients_saw_is_told_since_the_fault() {
        let fault = Instant::now() + Duration::from_secs(1);
        let at = |ms: i64| {
            let away = Duration::from_millis(ms.unsigned_abs());
            if ms < 0 { fault.checked_sub(away).unwrap() } else { fault + away }
        };
        let answer = |node: &str, ms| Answer {
            kind: Kind::NewConnection,
            sent: None,
            received: at(ms),
            identity: Some(Identity { node: node.parse().unwrap(), token: None }),
            floating: true,
        };
        let answers =
            vec![answer("gra-1", -20), answer("gra-1", 5), answer("sbg-1", 300), answer("sbg-1", 380)];
        let seen = Recording { answers, ..Recording::default() };
        let since = |moment: Instant| match moment.checked_duration_since(fault) {
            Some(after) => i64::try_from(after.as_millis()).unwrap(),
            None => -i64::try_from(fault.duration_since(moment).as_millis()).unwrap(),
        };
        let spans = of_clients(&seen, Period { from: fault, to: at(400) }, since);
        let node = |node: &str, from, to| NodeSpans { node: node.to_owned(), answered: vec![(from, to)] };
        let gap = GapSpan { clients: "new connections".into(), from_ms: 5, to_ms: 300 };
        assert_eq!(spans.gaps, [gap]);
        assert_eq!(spans.nodes, [node("gra-1", -20, 5), node("sbg-1", 300, 380)]);
        assert_eq!(spans.observed_ms, 400);
    }
}
