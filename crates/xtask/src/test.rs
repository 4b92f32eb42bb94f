//! `cargo xtask test`: what every change must pass, on a fresh machine with Rust and nothing else.

use crate::prerequisites::ensure;
use crate::run::{Checks, TaskError, cargo, found, run, target};
use std::process::Command;

/// The exercises of which one run each belongs to the sample; the full counts are in `accept`.
pub const EXERCISES: [&str; 14] = [
    "owner-killed",
    "owner-frozen",
    "site-lost",
    "site-lost-with-leader",
    "leader-lost",
    "witness-lost",
    "site-isolated",
    "one-way-cut",
    "upstream-down",
    "redis-lost",
    "redis-flushed",
    "switchover",
    "majority-lost",
    "rolling-restart",
];

/// Runs the sample of every check.
pub fn run_all() -> Result<(), TaskError> {
    let mut checks = Checks::default();
    let redis = ensure("redis-server", "redis-server");
    checks.check("format", || run(&mut cargo(&["fmt", "--all", "--check"])).map(drop));
    checks.check("lints", || {
        run(&mut cargo(&["clippy", "--workspace", "--all-targets", "--quiet", "--", "--deny", "warnings"]))
            .map(drop)
    });
    if found("cargo-deny") {
        checks.check("licences and sources", || {
            run(&mut cargo(&["deny", "--offline", "check", "licenses", "bans", "sources"])).map(drop)
        });
    } else {
        checks.leave_out("licences and sources", "cargo-deny is not installed");
    }
    // Everything that runs is built once, with the profile that users run.
    checks.check("build", || run(&mut cargo(&["build", "--workspace", "--release"])).map(drop));
    checks.check("unit, property and end-to-end tests", || run(&mut workspace_tests()).map(drop));
    checks.check("simulation, 20,000 seeds", || {
        run(Command::new(target().join("release/twinsite-sim")).args(["--seeds", "20000"])).map(drop)
    });
    // With mistakes built in, and therefore in a folder of its own: what users run never has them.
    checks.check("simulation, every seeded mistake", || {
        let mut command = cargo(&[
            "test",
            "--release",
            "--package",
            "twinsite-sim",
            "--features",
            "seeded-faults",
            "--quiet",
        ]);
        run(command.env("CARGO_TARGET_DIR", target().join("mistakes"))).map(drop)
    });
    for exercise in EXERCISES {
        for store in ["redis", "embedded"] {
            let name = format!("exercise {exercise}, {store}");
            if store == "redis" && !redis {
                checks.leave_out(&name, "redis-server is not installed");
                continue;
            }
            if store == "embedded" && exercise.starts_with("redis-") {
                continue; // there is no Redis to lose
            }
            checks.check(&name, || run(&mut exercise_command(exercise, store, 1)).map(drop));
        }
    }
    checks.finish()
}

/// All tests of the workspace: nextest where it is installed, for its process per test and its deadlines.
fn workspace_tests() -> Command {
    if found("cargo-nextest") {
        cargo(&["nextest", "run", "--workspace", "--release", "--no-fail-fast"])
    } else {
        cargo(&["test", "--workspace", "--release", "--no-fail-fast"])
    }
}

/// `twinsite demo --exercise NAME`, as a user would type it.
pub fn exercise_command(exercise: &str, store: &str, runs: u32) -> Command {
    let mut command = Command::new(target().join("release/twinsite"));
    command.args(["demo", "--exercise", exercise, "--profile", "lan", "--runs", &runs.to_string()]);
    if store == "embedded" {
        command.arg("--embedded");
    }
    command
}
