//! `twinsite-sim-consensus`: whole clusters of the real consensus, through seeds.
#![allow(clippy::disallowed_methods, reason = "how fast the seeds go is measured by a real clock")]

use clap::Parser;
use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;
use twinsite_sim::Violation;
use twinsite_sim::cluster::live;

#[derive(Parser)]
#[command(
    about = "Whole clusters of the real consensus on a simulated runtime, network and disk",
    after_help = "Examples:\n  twinsite-sim-consensus --seeds 1000\n  twinsite-sim-consensus --seed 4711 --trace"
)]
struct Arguments {
    /// Live through this many seeds
    #[arg(long, default_value_t = 1_000)]
    seeds: u64,
    /// Begin with this seed
    #[arg(long, default_value_t = 1)]
    first: u64,
    /// Live through this seed only
    #[arg(long, conflicts_with_all = ["seeds", "first"])]
    seed: Option<u64>,
    /// Print what happened, event by event (with --seed)
    #[arg(long, requires = "seed")]
    trace: bool,
    /// Threads; as many as there are cores, if not given
    #[arg(long)]
    threads: Option<usize>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match arguments.seed {
        Some(seed) => one(seed, arguments.trace),
        None => many(&arguments),
    }
}

fn one(seed: u64, trace: bool) -> ExitCode {
    let report = live(seed, None, trace);
    for line in &report.timeline {
        anstream::println!("{line}");
    }
    anstream::println!("seed {seed}: trace {:016x}", report.hash);
    match report.violation {
        None => ExitCode::SUCCESS,
        Some(violation) => {
            anstream::println!("seed {seed}: VIOLATION of {violation}");
            ExitCode::FAILURE
        }
    }
}

#[derive(Default)]
struct Found {
    seeds: u64,
    counts: BTreeMap<&'static str, u64>,
    violations: Vec<(u64, Violation)>,
}

fn many(arguments: &Arguments) -> ExitCode {
    let began = Instant::now();
    let cores = || std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let (next, last) = (AtomicU64::new(arguments.first), arguments.first + arguments.seeds);
    let found = Mutex::new(Found::default());
    let every = (arguments.seeds / 10).max(1);
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= last {
                return;
            }
            let report = live(seed, None, false);
            let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
            found.seeds += 1;
            found.violations.extend(report.violation.map(|violation| (seed, violation)));
            for (what, count) in report.counts {
                *found.counts.entry(what).or_default() += count;
            }
            if found.seeds.is_multiple_of(every) {
                let rate = found.seeds as f64 / began.elapsed().as_secs_f64().max(1e-9);
                anstream::eprintln!("{} of {} seeds, {rate:.0} seeds/s", found.seeds, arguments.seeds);
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..arguments.threads.unwrap_or_else(cores).max(1) {
            scope.spawn(work);
        }
    });
    let mut found = found.into_inner().unwrap_or_else(PoisonError::into_inner);
    found.violations.sort_by_key(|(seed, _)| *seed);
    anstream::println!("{} seeds in {:.1} s", found.seeds, began.elapsed().as_secs_f64());
    for (what, count) in &found.counts {
        anstream::println!("{count:>12} {what}");
    }
    for (seed, violation) in &found.violations {
        anstream::println!("seed {seed}: VIOLATION of {violation}");
        anstream::println!("  reproduce it with: twinsite-sim-consensus --seed {seed} --trace");
    }
    // In fewer seeds chance may leave something out.
    let missing = found.counts.iter().filter(|(_, count)| found.seeds >= 100 && **count == 0);
    let missing: Vec<_> = missing.map(|(what, _)| *what).collect();
    for what in &missing {
        anstream::println!("NEVER came up in {} seeds: {what}", found.seeds);
    }
    if found.violations.is_empty() && missing.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
