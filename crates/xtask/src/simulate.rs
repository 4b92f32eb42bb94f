//! `cargo xtask sim`: the seeded simulations, built for speed.

use crate::run::{TaskError, build, run as run_program, target};
use clap::Args;
use std::process::Command;

/// What to simulate.
#[derive(Args)]
pub struct Arguments {
    /// Run this many seeds
    #[arg(long, default_value_t = 1_000)]
    seeds: u64,
    /// Run only this seed
    #[arg(long)]
    seed: Option<u64>,
    /// Print what happened, step by step (with --seed)
    #[arg(long, requires = "seed")]
    trace: bool,
}

/// Seeds of the simulation without consensus for each one of whole clusters: they take as long.
const QUICK_FOR_EACH: u64 = 20;

/// Builds and runs the simulations: whole clusters, and the controller by itself.
pub fn run(arguments: &Arguments) -> Result<(), TaskError> {
    run_program(&mut build())?;
    let mut whole = Command::new(target().join("release/twinsite"));
    whole.arg("sim");
    if let Some(seed) = arguments.seed {
        whole.args(["--seed", &seed.to_string()]);
        if arguments.trace {
            whole.arg("--trace");
        }
        return run_program(&mut whole).map(drop);
    }
    run_program(whole.args(["--seeds", &arguments.seeds.to_string()]))?;
    let mut quick = Command::new(target().join("release/twinsite-sim"));
    let seeds = arguments.seeds.saturating_mul(QUICK_FOR_EACH);
    run_program(quick.args(["--seeds", &seeds.to_string()])).map(drop)
}
