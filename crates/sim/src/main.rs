//! `twinsite-sim`: lives through seeds, and says what it found.
#![allow(clippy::disallowed_methods, reason = "how fast the seeds go is measured by a real clock")]

use clap::Parser;
use std::process::ExitCode;
use std::time::{Duration, Instant};
use twinsite_sim::sweep::{Sweep, sweep};
use twinsite_sim::{SEEDS_FOR_EVERYTHING, Settings, run_seed};

#[derive(Parser)]
#[command(
    name = "twinsite-sim",
    about = "The seeded simulation of the controller and the lease",
    after_help = "Examples:\n  twinsite-sim --seeds 20000\n  twinsite-sim --seed 4711 --trace"
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
    /// Look at outcomes only, not at how grants come about
    #[arg(long)]
    outcomes_only: bool,
    /// Leave this safety rule out of controllers and holders, and expect that it is noticed (`list` names them)
    #[arg(long)]
    fault: Option<String>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let settings =
        Settings { outcomes_only: arguments.outcomes_only, timeline: arguments.trace, ..Settings::default() };
    let settings = match fault::seeded(arguments.fault.as_deref(), settings) {
        Ok(settings) => settings,
        Err(why) => {
            anstream::eprintln!("twinsite-sim: {why}");
            return ExitCode::from(2);
        }
    };
    // A failed assertion is reported with its seed, so the usual message would only repeat it.
    std::panic::set_hook(Box::new(|_| {}));
    match arguments.seed {
        Some(seed) => one(seed, &settings),
        None => many(&arguments, &settings),
    }
}

fn one(seed: u64, settings: &Settings) -> ExitCode {
    let outcome = run_seed(seed, settings);
    for line in &outcome.timeline {
        anstream::println!("{line}");
    }
    anstream::println!("seed {seed}: {:.3} s simulated, trace {:016x}", outcome.seconds, outcome.hash);
    match outcome.violation {
        None => ExitCode::SUCCESS,
        Some(violation) => {
            anstream::println!("seed {seed}: VIOLATION of {violation}");
            ExitCode::FAILURE
        }
    }
}

fn many(arguments: &Arguments, settings: &Settings) -> ExitCode {
    let began = Instant::now();
    let threads = arguments
        .threads
        .unwrap_or_else(|| std::thread::available_parallelism().map_or(1, std::num::NonZero::get));
    let every = (arguments.seeds / 10).max(1);
    let progress = |done: u64| {
        if done.is_multiple_of(every) {
            anstream::eprintln!(
                "{done} of {} seeds, {:.0} seeds/s",
                arguments.seeds,
                rate(done, began.elapsed())
            );
        }
    };
    let stop_after = if arguments.fault.is_some() { 1 } else { 5 };
    let found = sweep(arguments.first, arguments.seeds, threads, stop_after, settings, &progress);
    print(&found, began.elapsed());
    for (seed, violation) in &found.violations {
        anstream::println!("seed {seed}: VIOLATION of {violation}");
        let fault = arguments.fault.as_ref().map_or_else(String::new, |fault| format!(" --fault {fault}"));
        anstream::println!("  reproduce it with: twinsite-sim --seed {seed} --trace{fault}");
    }
    let missing = missing(&found, arguments);
    for name in &missing {
        anstream::println!("NEVER happened in {} seeds: {}", found.seeds, name.replace('_', " "));
    }
    let as_expected = found.violations.is_empty() == arguments.fault.is_none() && missing.is_empty();
    if arguments.fault.is_some() && !as_expected {
        anstream::println!("the seeded mistake was NOT noticed within {} seeds", found.seeds);
    }
    if as_expected { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// What must happen in so many seeds and did not. A run that looks for a seeded mistake ends with the first violation.
fn missing(found: &Sweep, arguments: &Arguments) -> Vec<&'static str> {
    let enough = found.seeds >= SEEDS_FOR_EVERYTHING && arguments.fault.is_none();
    if enough { found.coverage.missing() } else { Vec::new() }
}

fn rate(seeds: u64, took: Duration) -> f64 {
    seeds as f64 / took.as_secs_f64().max(1e-9)
}

fn print(found: &Sweep, took: Duration) {
    anstream::println!(
        "{} seeds in {:.1} s ({:.0} seeds/s), {:.0} s simulated; on average each went through:",
        found.seeds,
        took.as_secs_f64(),
        rate(found.seeds, took),
        found.seconds
    );
    let seeds = found.seeds.max(1) as f64;
    let counts: Vec<_> = found.coverage.counts();
    for row in counts.chunks(3) {
        let cell = |(name, count): &(&str, u64)| {
            format!("{:>10.2} {:<34}", *count as f64 / seeds, name.replace('_', " "))
        };
        let line: String = row.iter().map(cell).collect();
        anstream::println!("{}", line.trim_end());
    }
}

#[cfg(feature = "seeded-faults")]
mod fault {
    use twinsite_model::{Fault, Faults};
    use twinsite_sim::Settings;

    pub(super) fn seeded(name: Option<&str>, settings: Settings) -> Result<Settings, String> {
        let Some(name) = name else { return Ok(settings) };
        let fault = Fault::ALL.into_iter().find(|fault| format!("{fault:?}") == name);
        let known = || Fault::ALL.map(|fault| format!("{fault:?}")).join(", ");
        let fault = fault.ok_or_else(|| format!("there is no `{name}`; choose one of {}", known()))?;
        Ok(Settings { faults: Faults::only(fault), ..settings })
    }
}

#[cfg(not(feature = "seeded-faults"))]
mod fault {
    use twinsite_sim::Settings;

    pub(super) fn seeded(name: Option<&str>, settings: Settings) -> Result<Settings, String> {
        match name {
            None => Ok(settings),
            Some(_) => Err("this build has no mistakes; build with `--features seeded-faults`".to_owned()),
        }
    }
}
