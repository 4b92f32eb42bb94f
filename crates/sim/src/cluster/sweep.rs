//! Many seeds, on as many threads as there are cores.

use super::run::Run;
use crate::violation::Violation;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// In fewer seeds chance may leave something out.
const SEEDS_FOR_EVERYTHING: u64 = 200;

/// What came of them.
#[derive(Debug, Default)]
pub struct Found {
    /// How many were lived through.
    pub seeds: u64,
    /// All traces together, as a number: the same for the same seeds, whatever the threads.
    pub hash: u64,
    /// How often things came up.
    pub counts: BTreeMap<&'static str, u64>,
    /// The seeds that broke a rule.
    pub violations: Vec<(u64, Violation)>,
}

impl Found {
    /// What should have come up in so many seeds and did not.
    pub fn missing(&self) -> Vec<&'static str> {
        let never =
            self.counts.iter().filter(|(_, count)| **count == 0 && self.seeds >= SEEDS_FOR_EVERYTHING);
        never.map(|(what, _)| *what).collect()
    }
}

/// Lives through these seeds. `tell` hears how many are over.
pub fn sweep(seeds: Range<u64>, threads: usize, tell: &(dyn Fn(u64) + Sync)) -> Found {
    let (next, last) = (AtomicU64::new(seeds.start), seeds.end);
    let found = Mutex::new(Found::default());
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= last {
                return;
            }
            let report = Run::of(seed).live();
            let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
            found.seeds += 1;
            found.hash = found.hash.wrapping_add((report.hash ^ seed).wrapping_mul(0x9e37_79b9_7f4a_7c15));
            found.violations.extend(report.violation.map(|violation| (seed, violation)));
            for (what, count) in report.counts {
                *found.counts.entry(what).or_default() += count;
            }
            tell(found.seeds);
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(work);
        }
    });
    let mut found = found.into_inner().unwrap_or_else(PoisonError::into_inner);
    found.violations.sort_by_key(|(seed, _)| *seed);
    found
}
