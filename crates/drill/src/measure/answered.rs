//! Which nodes answered clients through the floating address, and when.

use super::Answer;
use super::hosts::Period;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use twinsite_model::NodeName;

/// Answers of a node that are no further apart belong together.
const TOGETHER: Duration = Duration::from_millis(100);
/// Times that are kept of each node.
const PERIODS_MAX: usize = 10_000;

/// The times in which each node answered, from the first answer of a row to its last, up to a moment.
pub fn by_node(answers: &[Answer], until: Instant) -> BTreeMap<NodeName, Vec<Period>> {
    let mut moments: BTreeMap<&NodeName, Vec<Instant>> = BTreeMap::new();
    for answer in answers.iter().filter(|answer| answer.floating && answer.received <= until) {
        if let Some(identity) = &answer.identity {
            moments.entry(&identity.node).or_default().push(answer.received);
        }
    }
    moments.into_iter().map(|(node, moments)| (node.clone(), periods(moments))).collect()
}

fn periods(mut moments: Vec<Instant>) -> Vec<Period> {
    moments.sort_unstable();
    let mut periods: Vec<Period> = Vec::new();
    for moment in moments {
        let kept = periods.len();
        match periods.last_mut() {
            Some(period) if moment.duration_since(period.to) <= TOGETHER => period.to = moment,
            _ if kept < PERIODS_MAX => periods.push(Period { from: moment, to: moment }),
            _ => break,
        }
    }
    periods
}

#[cfg(test)]
mod tests {
    use super::super::{Identity, Kind};
    use super::*;

    #[test]
    fn a_pause_tears_a_row_apart_and_nodes_are_told_apart() {
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let answer = |node: &str, ms, floating| Answer {
            kind: Kind::NewConnection,
            sent: None,
            received: at(ms),
            identity: Some(Identity { node: node.parse().unwrap(), token: None }),
            floating,
        };
        let answers = [
            answer("gra-1", 90, true),
            answer("gra-1", 10, true),
            answer("gra-1", 191, true),
            answer("sbg-1", 200, true),
            answer("sbg-1", 220, false),
            answer("sbg-1", 900, true),
            Answer { identity: None, ..answer("gra-1", 195, true) },
        ];
        let found = by_node(&answers, at(500));
        let period = |from, to| Period { from: at(from), to: at(to) };
        let expected = [
            ("gra-1".parse().unwrap(), vec![period(10, 90), period(191, 191)]),
            ("sbg-1".parse().unwrap(), vec![period(200, 200)]),
        ];
        assert_eq!(found, BTreeMap::from(expected));
    }
}
