//! Medians of the rounds, and how they compare.

use crate::cases::{CASES, Measured};
use crate::peers::Peer;
use serde::Serialize;
use std::collections::BTreeMap;

/// All rounds: by case and proxy.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Report {
    cases: BTreeMap<&'static str, BTreeMap<Peer, Vec<Measured>>>,
}

impl Report {
    pub(crate) fn note(&mut self, case: &'static str, peer: Peer, measured: Measured) {
        self.cases.entry(case).or_default().entry(peer).or_default().push(measured);
    }

    /// A table for people: medians, and ours by the best of the others.
    pub(crate) fn table(&self) -> String {
        let mut text = format!(
            "{:<17} {:<9} {:>10} {:>12} {:>9} {:>9} {:>11} {:>8}\n",
            "case", "proxy", "cpu us", "per second", "p50 us", "p99 us", "B/socket", "to best"
        );
        for case in CASES {
            let Some(peers) = self.cases.get(case.name) else { continue };
            let cost = |peer: Peer| peers.get(&peer).map(|rounds| figure(case.name, rounds));
            let others = Peer::ALL.into_iter().filter(|peer| *peer != Peer::Twinsite);
            let best = others.filter_map(cost).fold(f64::INFINITY, f64::min);
            for (peer, rounds) in peers {
                let whole =
                    |value: Option<f64>| value.map_or_else(String::new, |value| format!("{value:.0}"));
                let optional = |of: fn(&Measured) -> Option<u64>| {
                    median(rounds.iter().filter_map(of).map(|value| value as f64))
                };
                let ratio = figure(case.name, rounds) / best;
                text += &format!(
                    "{:<17} {:<9} {:>10.2} {:>12} {:>9} {:>9} {:>11} {:>8}\n",
                    case.name,
                    peer.name(),
                    median(rounds.iter().map(|one| one.cpu_us)).unwrap_or_default(),
                    whole(median(rounds.iter().map(|one| one.per_second)).filter(|rate| *rate > 0.0)),
                    whole(optional(|one| one.p50_us)),
                    whole(optional(|one| one.p99_us)),
                    whole(optional(|one| one.memory)),
                    if ratio.is_finite() { format!("{ratio:.2}") } else { String::new() },
                );
            }
        }
        text
    }
}

/// What is compared: memory where that is measured, how long the slowest wait at half the rate, else time on the processor.
fn figure(case: &str, rounds: &[Measured]) -> f64 {
    if case.ends_with("-half") {
        let slowest = rounds.iter().filter_map(|one| one.p99_us).map(|time| time as f64);
        return median(slowest).unwrap_or(f64::INFINITY);
    }
    let memory = median(rounds.iter().filter_map(|one| one.memory).map(|memory| memory as f64));
    memory.or_else(|| median(rounds.iter().map(|one| one.cpu_us))).unwrap_or(f64::INFINITY)
}

fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<_> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ours_is_compared_with_the_best_of_the_others() {
        let measured =
            |cpu_us| Measured { cpu_us, per_second: 1.0, p50_us: None, p99_us: None, memory: None };
        let mut report = Report::default();
        for (peer, times) in
            [(Peer::Twinsite, [9.0, 30.0, 12.0]), (Peer::Nginx, [24.0, 25.0, 1.0]), (Peer::Caddy, [99.0; 3])]
        {
            for time in times {
                report.note("small", peer, measured(time));
            }
        }
        let table = report.table();
        let ours = table.lines().find(|line| line.contains("twinsite")).unwrap();
        assert!(ours.contains(" 12.00 ") && ours.ends_with(" 0.50"), "{table}");
    }
}
