//! What many trials give together.

use super::{Cause, LASTS, System, Trial};
use serde::Serialize;
use std::collections::BTreeMap;

/// Of many values, in milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Numbers {
    /// The middle one, the higher of two.
    pub median: u64,
    /// The lowest that 99 of 100 do not exceed (nearest rank): of fewer than 100 the highest.
    pub p99: u64,
    /// The highest.
    pub max: u64,
}

impl Numbers {
    /// None of no values.
    pub fn of(values: impl IntoIterator<Item = u64>) -> Option<Self> {
        let mut values: Vec<_> = values.into_iter().collect();
        values.sort_unstable();
        let rank = (values.len() * 99).div_ceil(100);
        Some(Self {
            median: *values.get(values.len() / 2)?,
            p99: *values.get(rank.checked_sub(1)?)?,
            max: *values.last()?,
        })
    }
}

/// One system and one cause.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Cell {
    /// The system.
    pub system: System,
    /// The cause.
    pub cause: Cause,
    /// The longest time without an answer.
    pub gap_ms: Numbers,
    /// The longest time without an answer after the repair.
    pub return_gap_ms: Numbers,
    /// The time in which two hosts answered at once.
    pub two_hosts_ms: Numbers,
    /// Failed requests of patient clients, all trials together.
    pub failed_requests: u64,
    /// Failed attempts of all clients, all trials together.
    pub failed_attempts: u64,
    /// Each trial.
    pub trials: Vec<Trial>,
}

/// Everything that was measured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Comparison {
    /// How often each system met each cause, or should have.
    pub runs: u32,
    /// How long a cause lasted, in milliseconds.
    pub lasts_ms: u64,
    /// The longest time from one probe of a host to the next, in any trial.
    pub probes_apart_max_ms: u64,
    /// Every system and cause of which something was measured.
    pub cells: Vec<Cell>,
    /// What could not be measured, a line each.
    pub failed: Vec<String>,
}

impl Comparison {
    pub(super) fn new(
        runs: u32,
        trials: &BTreeMap<(System, Cause), Vec<Trial>>,
        failed: Vec<String>,
    ) -> Self {
        let cells = trials.iter().filter_map(|((system, cause), trials)| {
            Some(Cell {
                system: *system,
                cause: *cause,
                gap_ms: Numbers::of(trials.iter().map(|trial| trial.gap_ms))?,
                return_gap_ms: Numbers::of(trials.iter().map(|trial| trial.return_gap_ms))?,
                two_hosts_ms: Numbers::of(trials.iter().map(|trial| trial.two_hosts_ms))?,
                failed_requests: trials.iter().map(|trial| trial.failed_requests).sum(),
                failed_attempts: trials.iter().map(|trial| trial.failed_attempts).sum(),
                trials: trials.clone(),
            })
        });
        let apart = trials.values().flatten().map(|trial| trial.probes_apart_max_ms).max();
        Self {
            runs,
            lasts_ms: u64::try_from(LASTS.as_millis()).unwrap_or(u64::MAX),
            probes_apart_max_ms: apart.unwrap_or_default(),
            cells: cells.collect(),
            failed,
        }
    }

    /// Everything as JSON, for machines.
    pub fn to_json(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string_pretty(self)
    }

    /// Whether everything was measured.
    pub fn is_whole(&self) -> bool {
        self.failed.is_empty() && self.cells.iter().all(|cell| cell.trials.len() == self.runs as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_are_those_of_values_that_were_there() {
        assert_eq!(Numbers::of([]), None);
        assert_eq!(Numbers::of([7]), Some(Numbers { median: 7, p99: 7, max: 7 }));
        assert_eq!(Numbers::of((1..=20).rev()), Some(Numbers { median: 11, p99: 20, max: 20 }));
        assert_eq!(Numbers::of(1..=200), Some(Numbers { median: 101, p99: 198, max: 200 }));
    }

    #[test]
    fn what_was_not_measured_is_not_passed_over() {
        let trial = Trial {
            gap_ms: 5,
            return_gap_ms: 3,
            two_hosts_ms: 0,
            nobody_ms: 4,
            failed_requests: 1,
            requests: 100,
            failed_attempts: 2,
            before: "gra-1".parse().unwrap(),
            after: vec!["sbg-1".parse().unwrap()],
            probes_apart_max_ms: 3,
        };
        let key = (System::TwinsiteLan, Cause::Planned);
        let two = BTreeMap::from([(key, vec![trial.clone(), Trial { probes_apart_max_ms: 9, ..trial }])]);
        let whole = Comparison::new(2, &two, Vec::new());
        assert!(whole.is_whole());
        assert_eq!((whole.cells[0].failed_requests, whole.probes_apart_max_ms), (2, 9));
        assert!(!Comparison::new(3, &two, Vec::new()).is_whole());
        assert!(!Comparison::new(2, &two, vec!["why".to_owned()]).is_whole());
    }
}
