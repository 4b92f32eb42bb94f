//! One life to be lived, and what came of it.

use super::Mistake;
use super::life::Life;
use crate::violation::{Rule, Violation};
use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use tokio::runtime::RngSeed;
use tokio::task::unconstrained;

/// Everything that is counted, and that must come up in two hundred seeds.
pub(super) const COUNTED: [&str; 80] = [
    "addresses moved at the console",
    "Redis servers that hung",
    "Redis servers that lost everything",
    "Redis servers that took no writes",
    "addresses taken over",
    "answers of the provider that were lost",
    "announced files that were touched",
    "announcements that came too late",
    "announcements written",
    "batches lost in a crash",
    "bridges",
    "calls at the provider",
    "calls while another task worked",
    "clocks that changed",
    "commands acknowledged",
    "commands of unknown outcome",
    "commands refused",
    "commands that came too late",
    "commands that came too late to the Redis",
    "crashes",
    "crashes of all",
    "disasters",
    "disasters that were near",
    "elections",
    "errands that came to nothing",
    "errands that were refused",
    "errands that were taken",
    "errands that were waited out",
    "errands without an answer",
    "flipped bits",
    "forced recoveries",
    "freezes",
    "full disks",
    "guests that were paused",
    "hung nodes ended by their guardians",
    "isolated nodes",
    "isolated sites",
    "leaders lost in the middle of a move",
    "lost disks",
    "lost sites",
    "machines that were suspended",
    "nodes that ended in good order",
    "nodes that stopped",
    "one-way cuts",
    "owners that changed during a call",
    "owners lost in the middle of a move",
    "power losses",
    "providers that nobody reached",
    "reads answered",
    "reads refused",
    "replaced nodes",
    "replicas that were promoted",
    "restarts",
    "rings",
    "rooms found at peers",
    "rooms found in memory",
    "rooms placed by the store",
    "rooms placed without the store",
    "rooms that were not placed",
    "slow disks",
    "splits",
    "snapshots installed",
    "snapshots installed in the middle of a move",
    "stale writers that the Redis refused",
    "steps of a replacement that were tried again",
    "tasks that came to pass twice",
    "tasks that failed",
    "tasks that hung",
    "transfers of leadership",
    "transfers that failed",
    "transfers that were not tried",
    "upgrades",
    "upstreams that changed",
    "wall clocks that were set",
    "wishes carried out",
    "wishes about drills carried out",
    "wishes about drills refused",
    "wishes refused",
    "wishes that nobody answered",
    "writes lost with a Redis",
];

/// One life to be lived.
#[derive(Debug, Clone, Default)]
pub struct Run {
    /// What everything is drawn from.
    pub seed: u64,
    /// A mistake to make, to see that it is noticed.
    pub mistake: Option<Mistake>,
    /// Whether to put down what happens; it costs more than the life.
    pub timeline: bool,
    /// The misfortunes and wishes that come to pass, by their number; all, if not given.
    pub only: Option<BTreeSet<u64>>,
}

/// What came of a life.
#[derive(Debug)]
pub struct Report {
    /// What was broken, if anything.
    pub violation: Option<Violation>,
    /// The same for the same seed, whenever and wherever it runs.
    pub hash: u64,
    /// What happened, on demand.
    pub timeline: Vec<String>,
    /// How many misfortunes and wishes there were, those left out included.
    pub events: u64,
    /// How often things came up; what did not is there with zero.
    pub counts: BTreeMap<&'static str, u64>,
}

impl Run {
    /// Everything of a seed, as it comes.
    pub fn of(seed: u64) -> Self {
        Self { seed, ..Self::default() }
    }

    /// The same with a mistake.
    #[must_use]
    pub fn with(self, mistake: Mistake) -> Self {
        Self { mistake: Some(mistake), ..self }
    }

    /// Inside a tokio runtime that does nothing itself: tokio's channels draw lots about whom they wake first, from the
    /// seed of the runtime that is entered.
    fn inside<T>(&self, work: impl FnOnce() -> T) -> T {
        let lots = RngSeed::from_bytes(&self.seed.to_le_bytes());
        let runtime = tokio::runtime::Builder::new_current_thread().rng_seed(lots).build();
        let runtime = runtime.expect("without drivers it needs nothing of the system");
        // Not by tokio's measure of fairness, which would make our tasks wait for a turn that it never gives.
        runtime.block_on(unconstrained(async { work() }))
    }

    /// Lives through it.
    pub fn live(&self) -> Report {
        make_mistakes_here(self.mistake);
        let life = || self.inside(|| Life::begin(self).run());
        catch_unwind(AssertUnwindSafe(life)).unwrap_or_else(|panic| {
            let said = panic.downcast_ref::<&str>().map(ToString::to_string);
            let said = said.or_else(|| panic.downcast_ref::<String>().cloned());
            let detail = said.unwrap_or_else(|| "without a message".to_owned());
            let violation = Some(Violation { rule: Rule::NoPanic, at_seconds: 0.0, detail });
            Report { violation, hash: 0, timeline: Vec::new(), events: 0, counts: BTreeMap::new() }
        })
    }
}

/// The product's own code asks on its thread which of its rules it is to leave out.
#[cfg(feature = "seeded-faults")]
fn make_mistakes_here(mistake: Option<Mistake>) {
    use twinsite_model::Faults;
    match mistake {
        Some(Mistake::Rule(fault)) => Faults::only(fault).make_here(),
        _ => Faults::default().make_here(),
    }
}

#[cfg(not(feature = "seeded-faults"))]
const fn make_mistakes_here(_: Option<Mistake>) {}

#[cfg(test)]
mod tests {
    use super::*;

    /// Thousands of lives follow one another in one process.
    #[test]
    fn a_life_leaves_nothing_behind_in_memory() {
        let run = Run::of(1);
        let left = run.inside(|| {
            let life = Life::begin(&run);
            let left = life.net.watch_memory();
            assert!(life.run().violation.is_none());
            left
        });
        assert!(!left(), "the network is still held by somebody");
    }
}
