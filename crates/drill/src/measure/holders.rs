//! Which hosts of a lab held the floating address, as their kernels say.
//!
//! Two hosts may have it on their interfaces, as long as one of them is dark: so it is when an owner is frozen, whose
//! kernel ends the light long before it takes the address away. That both *answer* is what must never be (DESIGN,
//! invariant 2).

use super::Evidence;
use crate::lab::holding::Holding;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use twinsite_model::NodeName;

/// A time in which the same hosts held the address in the same way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HolderPeriod {
    /// From when.
    pub from: Instant,
    /// Until when.
    pub to: Instant,
    /// The hosts that have the address on an interface.
    pub holders: BTreeMap<NodeName, Holding>,
}

impl HolderPeriod {
    /// One that begins.
    pub fn beginning(at: Instant, holders: BTreeMap<NodeName, Holding>) -> Self {
        Self { from: at, to: at, holders }
    }

    /// Who answered.
    fn answering(&self) -> impl Iterator<Item = &NodeName> {
        self.holders.iter().filter(|(_, holding)| holding.answers()).map(|(name, _)| name)
    }
}

/// For how long two hosts answered at once, over all periods, and which they were.
pub fn doubly_answered(periods: &[HolderPeriod]) -> (Duration, Vec<Evidence>) {
    let doubled: Vec<_> = periods.iter().filter(|period| period.answering().count() > 1).collect();
    let lasted = |period: &HolderPeriod| period.to.duration_since(period.from).max(Duration::from_millis(1));
    let lines = doubled.iter().map(|period| {
        let names: Vec<_> = period.answering().map(NodeName::as_str).collect();
        let names = names.join(" and ");
        let line = format!(
            "the floating address was on {names} at once, and dark on none, for {:?}",
            lasted(period)
        );
        Evidence { at: period.from, line }
    });
    (doubled.iter().map(|period| lasted(period)).sum(), lines.collect())
}

/// Asks every kernel once, and those that answer once more if there are several: the address may have moved between
/// two questions. Who still answers after the last one was asked, did so at that moment too.
pub(super) fn look<K, E>(
    hosts: &mut [(NodeName, K)],
    mut ask: impl FnMut(&mut K) -> Result<Holding, E>,
) -> Result<BTreeMap<NodeName, Holding>, E> {
    let mut seen = hosts.iter_mut().map(|(_, kernel)| ask(kernel)).collect::<Result<Vec<_>, _>>()?;
    let answering: Vec<_> = (0..seen.len()).filter(|at| seen[*at].answers()).collect();
    if let Some((_, earlier)) = answering.split_last() {
        for at in earlier {
            seen[*at] = ask(&mut hosts[*at].1)?;
        }
    }
    let all = hosts.iter().map(|(name, _)| name.clone()).zip(seen);
    Ok(all.filter(|(_, holding)| holding.present).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::holding::Gate;
    use std::collections::VecDeque;

    fn holding(present: bool, gate: Gate) -> Holding {
        Holding { present, gate, listening: None }
    }

    fn host(name: &str, answers: &[Holding]) -> (NodeName, VecDeque<Holding>) {
        (name.parse().unwrap(), answers.iter().copied().collect())
    }

    fn seen(mut hosts: Vec<(NodeName, VecDeque<Holding>)>) -> BTreeMap<NodeName, Holding> {
        let seen = look(&mut hosts, |answers| answers.pop_front().ok_or("asked too often")).unwrap();
        assert!(hosts.iter().all(|(_, answers)| answers.is_empty()), "asked too seldom");
        seen
    }

    #[test]
    fn an_address_that_moves_between_two_questions_is_on_one_host() {
        let (light, dark) = (holding(true, Gate::Light), holding(true, Gate::Dark));
        let absent = holding(false, Gate::Dark);
        let moved = seen(vec![host("gra-1", &[light, absent]), host("sbg-1", &[light])]);
        assert_eq!(moved, BTreeMap::from([("sbg-1".parse().unwrap(), light)]));
        let twice = seen(vec![host("gra-1", &[light, light]), host("sbg-1", &[light])]);
        assert_eq!(twice.len(), 2);
        let frozen = seen(vec![host("gra-1", &[dark]), host("gra-2", &[absent]), host("sbg-1", &[light])]);
        assert_eq!(frozen.len(), 2, "what is dark is recorded too");
    }

    #[test]
    fn only_two_that_answer_are_one_too_many() {
        let from = Instant::now();
        let period = |hosts: &[(&str, Gate)]| HolderPeriod {
            from,
            to: from + Duration::from_millis(30),
            holders: hosts.iter().map(|(name, gate)| (name.parse().unwrap(), holding(true, *gate))).collect(),
        };
        let legal = [period(&[]), period(&[("gra-1", Gate::Dark), ("sbg-1", Gate::Light)])];
        assert_eq!(doubly_answered(&legal), (Duration::ZERO, Vec::new()));
        let (lasted, lines) = doubly_answered(&[period(&[("gra-1", Gate::Missing), ("sbg-1", Gate::Light)])]);
        assert_eq!(lasted, Duration::from_millis(30));
        assert!(lines[0].line.contains("gra-1 and sbg-1"), "{lines:?}");
    }
}
