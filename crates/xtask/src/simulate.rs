//! `cargo xtask sim`: the seeded simulation, built for speed.

use crate::run::{TaskError, cargo, run as run_program};
use clap::Args;

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

/// Builds and runs the simulation.
pub fn run(arguments: &Arguments) -> Result<(), TaskError> {
    let mut command = cargo(&["run", "--quiet", "--release", "--package", "twinsite-sim", "--"]);
    match arguments.seed {
        Some(seed) => command.args(["--seed", &seed.to_string()]),
        None => command.args(["--seeds", &arguments.seeds.to_string()]),
    };
    if arguments.trace {
        command.arg("--trace");
    }
    run_program(&mut command).map(drop)
}
