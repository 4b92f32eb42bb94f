//! `cargo xtask`: everything that checks this project, with one command for a sample and one for the full counts.

#![allow(unreachable_pub, reason = "a binary exports nothing; `pub` says what a module offers")]

mod accept;
mod bench;
mod exercises;
mod judged;
mod nextest;
mod prerequisites;
mod run;
mod simulate;
mod test;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

#[derive(Parser)]
#[command(
    name = "cargo xtask",
    about = "Checks this project",
    after_help = "Examples:\n  cargo xtask test\n  cargo xtask accept exercises\n  cargo xtask sim --seeds 20000\n  cargo xtask bench failover"
)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Format, lints, unit, property, simulation and end-to-end tests, and a sample of every long check
    Test,
    /// The full counts; goes on where an earlier run of the same revision stopped; reports in tests/accept
    Accept(accept::Arguments),
    /// Side by side with others, in the same run; reports in tests/accept
    #[command(subcommand)]
    Bench(bench::Benchmark),
    /// The seeded simulations: of whole clusters, and of the controller and the lease
    Sim(simulate::Arguments),
}

fn main() -> ExitCode {
    let result = match Arguments::parse().task {
        Task::Test => test::run_all(),
        Task::Accept(arguments) => accept::run_parts(&arguments),
        Task::Bench(benchmark) => bench::measure(&benchmark),
        Task::Sim(arguments) => simulate::run(&arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            anstream::eprintln!("xtask: {error}");
            ExitCode::FAILURE
        }
    }
}
