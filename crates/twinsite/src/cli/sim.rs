//! `twinsite sim`: whole simulated clusters, through seeded disasters.

use super::arguments::SimArguments;
use super::{CliError, Exit, output};
use serde_json::json;
use std::io::IsTerminal;
use std::time::Instant;
use twinsite_sim::cluster::{Found, Run, shrink, sweep};

/// `twinsite sim`.
pub fn run(arguments: &SimArguments) -> Result<Exit, CliError> {
    // A failed assertion is reported with its seed; the usual message would only repeat it.
    std::panic::set_hook(Box::new(|_| {}));
    match arguments.seed {
        Some(seed) => one(seed, arguments),
        None => many(arguments),
    }
}

fn one(seed: u64, arguments: &SimArguments) -> Result<Exit, CliError> {
    let only = arguments.only.as_ref().map(|only| only.iter().copied().collect());
    let mut run = Run { seed, only, timeline: arguments.trace, mistake: None };
    if arguments.shrink {
        let progress = |left| {
            if std::io::stderr().is_terminal() {
                anstream::eprint!("\r{left} left ");
            }
        };
        let Some(short) = shrink(&run, progress) else {
            output::line(&format!("seed {seed}: no rule is broken"))?;
            return Ok(Exit::Done);
        };
        run = short;
        output::line(&format!(
            "seed {seed}: what is left breaks the same rule; repeat it with: {}",
            command(&run)
        ))?;
    }
    let report = run.live();
    for line in &report.timeline {
        output::line(line)?;
    }
    let broken = report.violation.as_ref().map(ToString::to_string);
    if arguments.json {
        let hash = format!("{:016x}", report.hash);
        output::json(&json!({ "seed": seed, "trace": hash, "events": report.events, "violation": broken }))?;
    } else {
        output::line(&format!("seed {seed}: {} events, trace {:016x}", report.events, report.hash))?;
        let verdict = broken
            .as_ref()
            .map_or_else(|| "no rule is broken".to_owned(), |broken| format!("VIOLATION of {broken}"));
        output::line(&format!("seed {seed}: {verdict}"))?;
    }
    Ok(if broken.is_none() { Exit::Done } else { Exit::Refused })
}

fn command(run: &Run) -> String {
    let only = run.only.iter().flatten().map(ToString::to_string).collect::<Vec<_>>().join(",");
    let only = if run.only.is_some() { format!(" --only {only}") } else { String::new() };
    format!("twinsite sim --seed {}{only} --trace", run.seed)
}

fn many(arguments: &SimArguments) -> Result<Exit, CliError> {
    let began = Instant::now();
    let cores = || std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let every = (arguments.seeds / 20).max(1);
    let progress = |over: u64| {
        if over.is_multiple_of(every) {
            let rate = over as f64 / began.elapsed().as_secs_f64().max(1e-9);
            anstream::eprintln!("{over} of {} seeds, {rate:.1} seeds/s", arguments.seeds);
        }
    };
    let seeds = arguments.first..arguments.first.saturating_add(arguments.seeds);
    let found = sweep(seeds, arguments.threads.unwrap_or_else(cores), &progress);
    let missing = found.missing();
    if arguments.json {
        output::json(&as_json(&found, began.elapsed().as_secs_f64()))?;
    } else {
        print(&found, began.elapsed().as_secs_f64())?;
    }
    Ok(if found.violations.is_empty() && missing.is_empty() { Exit::Done } else { Exit::Refused })
}

fn as_json(found: &Found, seconds: f64) -> serde_json::Value {
    let violations: Vec<_> = found
        .violations
        .iter()
        .map(|(seed, violation)| json!({ "seed": seed, "violation": violation.to_string() }))
        .collect();
    json!({
        "seeds": found.seeds,
        "seconds": seconds,
        "trace": format!("{:016x}", found.hash),
        "counts": found.counts,
        "never": found.missing(),
        "violations": violations,
    })
}

fn print(found: &Found, seconds: f64) -> Result<(), CliError> {
    output::line(&format!("{} seeds in {seconds:.1} s, all traces {:016x}", found.seeds, found.hash))?;
    for (what, count) in &found.counts {
        output::line(&format!("{count:>12} {what}"))?;
    }
    for (seed, violation) in &found.violations {
        output::line(&format!("seed {seed}: VIOLATION of {violation}"))?;
        output::line(&format!("  repeat it with: {}", command(&Run::of(*seed))))?;
        output::line(&format!("  shorten it with: twinsite sim --seed {seed} --shrink"))?;
    }
    for what in found.missing() {
        output::line(&format!("NEVER came up in {} seeds: {what}", found.seeds))?;
    }
    Ok(())
}
