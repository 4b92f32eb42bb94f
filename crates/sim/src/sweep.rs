//! Many seeds, on all cores.

use crate::coverage::Coverage;
use crate::violation::{Rule, Violation};
use crate::world::{Outcome, Settings, World};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Lives through one seed. An assertion that fails is a violation like any other.
pub fn run_seed(seed: u64, settings: &Settings) -> Outcome {
    let settings = settings.clone();
    catch_unwind(AssertUnwindSafe(|| World::new(seed, settings).run())).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Outcome {
            violation: Some(Violation {
                rule: Rule::NoPanic,
                at_seconds: 0.0,
                detail: text.unwrap_or_else(|| "a panic without a word".to_owned()),
            }),
            coverage: Coverage::default(),
            hash: 0,
            seconds: 0.0,
            timeline: Vec::new(),
        }
    })
}

/// What came of a sweep.
#[derive(Debug, Default)]
pub struct Sweep {
    /// Seeds that were lived through.
    pub seeds: u64,
    /// The sum over all of them.
    pub coverage: Coverage,
    /// Simulated time, in seconds.
    pub seconds: f64,
    /// The violations found, by seed.
    pub violations: Vec<(u64, Violation)>,
}

/// Lives through the seeds from `first` on, on `threads` threads, until `stop_after` violations are found. `progress`
/// is told of each seed that is done.
pub fn sweep(
    first: u64,
    seeds: u64,
    threads: usize,
    stop_after: usize,
    settings: &Settings,
    progress: &(dyn Fn(u64) + Sync),
) -> Sweep {
    let next = AtomicU64::new(first);
    let stop = AtomicBool::new(false);
    let total = Mutex::new(Sweep::default());
    let work = || {
        while !stop.load(Ordering::Relaxed) {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= first + seeds {
                return;
            }
            let outcome = run_seed(seed, settings);
            let done = {
                let mut total = total.lock().unwrap_or_else(PoisonError::into_inner);
                total.seeds += 1;
                total.coverage += outcome.coverage;
                total.seconds += outcome.seconds;
                total.violations.extend(outcome.violation.map(|violation| (seed, violation)));
                if total.violations.len() >= stop_after {
                    stop.store(true, Ordering::Relaxed);
                }
                total.seeds
            };
            progress(done);
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(work);
        }
    });
    let mut total = total.into_inner().unwrap_or_else(PoisonError::into_inner);
    total.violations.sort_by_key(|(seed, _)| *seed);
    total
}
