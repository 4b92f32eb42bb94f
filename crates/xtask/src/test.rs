//! `cargo xtask test`: what every change must pass, on a fresh machine with Rust and nothing else.

use crate::exercises;
use crate::judged::run_judging;
use crate::nextest;
use crate::prerequisites::{ensure, lab, npm_packages};
use crate::run::{Checks, TaskError, build, cargo, found, output, run, settle_disk, target};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

/// Packages whose tests start whole clusters, which share two cores badly.
const WITH_CLUSTERS: [&str; 2] = ["twinsite-tests", "twinsite-drill"];
/// How long 20,000 seeds take at most on a machine that does nothing else.
const SIMULATION_MAX: Duration = Duration::from_mins(2);

/// Runs the sample of every check.
pub fn run_all() -> Result<(), TaskError> {
    let mut checks = Checks::default();
    let redis = ensure("redis-server", "redis-server");
    // What is missing here, its tests say they leave out.
    for (program, package) in [("ip", "iproute2"), ("nft", "nftables"), ("keepalived", "keepalived")] {
        ensure(program, package);
    }
    if let Err(why) = npm_packages() {
        anstream::println!("tests with real Socket.IO clients will be left out: {why}");
    }
    checks.check("format", || run(&mut cargo(&["fmt", "--all", "--check"])).map(drop));
    checks.check("lints", || {
        // With the profile of everything else, which has built the macros and build scripts that lints need.
        run(&mut cargo(&[
            "clippy",
            "--release",
            "--workspace",
            "--all-targets",
            "--quiet",
            "--",
            "--deny",
            "warnings",
        ]))
        .map(drop)
    });
    if found("cargo-deny") {
        checks.check("licences and sources", || {
            run(&mut cargo(&["deny", "--offline", "check", "licenses", "bans", "sources"])).map(drop)
        });
        if advisories_are_here() {
            checks.check("known vulnerabilities", || {
                run(&mut cargo(&["deny", "--offline", "check", "advisories"])).map(drop)
            });
        } else {
            let why = "no advisory database on this machine; `cargo deny fetch db` brings it";
            checks.leave_out("known vulnerabilities", why);
        }
    } else {
        checks.leave_out("licences, sources and known vulnerabilities", "cargo-deny is not installed");
    }
    checks.check("build", || run(&mut build()).map(drop));
    settle_disk()?;
    let left_out = target().join("left-out.txt");
    // What an earlier run left out is not of this one; that there is none is no error.
    std::fs::remove_file(&left_out).ok();
    if found("cargo-nextest") {
        let mut again = Vec::new();
        checks.check("unit, property and end-to-end tests", || {
            again = nextest::run_all(&left_out)?;
            Ok(())
        });
        checks.note_again(again);
    } else {
        for (name, mut command) in workspace_tests() {
            command.env("TWINSITE_LEFT_OUT", &left_out);
            checks.check(name, || run(&mut command).map(drop));
        }
    }
    checks.leave_out_lines(&left_out);
    checks.check_time("simulation, 20,000 seeds", SIMULATION_MAX, || {
        run(Command::new(target().join("release/twinsite-sim")).args(["--seeds", "20000"])).map(drop)
    });
    let twinsite = target().join("release/twinsite");
    checks.check("simulation of whole clusters, 300 seeds", || {
        run(Command::new(&twinsite).args(["sim", "--seeds", "300"])).map(drop)
    });
    checks.check("simulation of whole clusters, the same in every process", || {
        let traces = |threads| {
            let seeds = ["sim", "--seeds", "20", "--json", "--threads", threads];
            let said = output(Command::new(&twinsite).args(seeds))?;
            serde_json::from_str::<serde_json::Value>(&said).ok()?["trace"].as_str().map(str::to_owned)
        };
        match (traces("1"), traces("3")) {
            (Some(one), Some(other)) if one == other => Ok(()),
            (one, other) => Err(TaskError::Failed(format!("20 seeds gave {one:?}, and then {other:?}"))),
        }
    });
    checks.check("simulation, every seeded mistake", || {
        // Of the whole workspace, so that what all of it stands on has the features with which it was built before.
        let tried = run(&mut cargo(&[
            "test",
            "--release",
            "--workspace",
            "--features",
            "twinsite-sim/seeded-faults",
            "--test",
            "mistakes",
            "--quiet",
            "--",
            "--nocapture", // in how many seeds each was noticed
        ]));
        // What is run from here on has no mistakes built in.
        run(&mut build())?;
        tried.map(drop)
    });
    settle_disk()?;
    let lab = lab();
    for exercise in exercises::all()?.into_iter().filter(|exercise| exercise.is_in_sample) {
        let name = format!("exercise {}, {}", exercise.name, exercise.store);
        if exercise.store == "redis" && !redis {
            checks.leave_out(&name, "redis-server is not installed");
            continue;
        }
        if let (true, Err(why)) = (exercise.needs_lab, &lab) {
            checks.leave_out(&name, why);
            continue;
        }
        checks.check_exercise(&name, || run_judging(exercise.command(1).arg("--json")));
    }
    checks.finish()
}

/// Whether `cargo deny fetch db` was ever run here: tests ask nothing of the network.
fn advisories_are_here() -> bool {
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo")));
    home.is_some_and(|home| {
        let databases = std::fs::read_dir(home.join("advisory-dbs"));
        databases.is_ok_and(|mut databases| databases.next().is_some())
    })
}

/// All tests of the workspace, without nextest, which would give each a process and a deadline.
fn workspace_tests() -> Vec<(&'static str, Command)> {
    // What .config/nextest.toml says of whole clusters, `cargo test` must be told: one after the other.
    let mut units = cargo(&["test", "--workspace", "--release", "--no-fail-fast"]);
    let mut clusters = cargo(&["test", "--release", "--no-fail-fast"]);
    for package in WITH_CLUSTERS {
        units.args(["--exclude", package]);
        clusters.args(["--package", package]);
    }
    clusters.args(["--", "--test-threads=1"]);
    vec![("unit and property tests", units), ("end-to-end tests", clusters)]
}
