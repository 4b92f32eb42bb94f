//! `cargo xtask accept`: the full counts, an hour or more. Each part keeps its report under `tests/accept`; a part
//! that was interrupted goes on where it stopped, as long as the revision is the same.

use crate::exercises;
use crate::judged::CODE_DISTURBED;
use crate::prerequisites::{ensure, lab};
use crate::run::{TaskError, build, cargo, found, output, root, run, settle_disk, target};
use clap::Args;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Instant;
use twinsite_machine::Awake;

/// Which parts.
#[derive(Args)]
pub struct Arguments {
    /// The part: exercises, scenarios, rooms, kills, freezes, flips, fuzz, simulation; all of them if none is named
    name: Option<String>,
    /// How often each holder of an address is frozen, in the part `freezes`
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    freezes: u32,
    /// Begin anew, whatever an earlier run of this revision found
    #[arg(long)]
    again: bool,
}

/// Runs in a row of each exercise of the core.
const CORE_RUNS: u32 = 20;
/// The same of the others.
const RUNS: u32 = 5;
/// Runs in a row of every scenario, as `twinsite drill run` runs it.
const DRILL_RUNS: u32 = 3;
/// The same of one that takes half a minute on a slow network.
const LAB_RUNS: u32 = 3;

/// How often a drill is run again because this machine stood still.
const DISTURBED_MAX: u32 = 10;

/// The report of one part.
#[derive(Default, Serialize, Deserialize)]
struct Report {
    /// What was tested.
    revision: String,
    /// The machine.
    machine: String,
    /// Each item: what came of it.
    items: BTreeMap<String, Item>,
}

/// One item of a part.
#[derive(Serialize, Deserialize)]
struct Item {
    passed: bool,
    seconds: f64,
    /// The command that shows it.
    command: String,
    /// What its tests could not do on this machine, a line each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    left_out: Vec<String>,
    /// How often before it said nothing, because this machine stood still meanwhile.
    #[serde(default, skip_serializing_if = "is_zero")]
    disturbed: u32,
    /// What the item measured, if it measured anything.
    #[serde(skip_serializing_if = "Option::is_none")]
    measured: Option<serde_json::Value>,
}

/// One thing to do.
struct Job {
    item: String,
    command: Command,
    /// Whether standard output is a JSON report to be kept.
    json: bool,
}

/// Runs the parts.
pub fn run_parts(arguments: &Arguments) -> Result<(), TaskError> {
    let parts = ["exercises", "scenarios", "rooms", "kills", "freezes", "flips", "fuzz", "simulation"];
    let wanted: Vec<_> = match &arguments.name {
        Some(name) if parts.contains(&name.as_str()) => vec![name.as_str()],
        Some(name) => {
            let known = parts.join(", ");
            return Err(TaskError::Failed(format!("there is no part `{name}`; choose one of {known}")));
        }
        None => parts.to_vec(),
    };
    run(&mut build())?;
    settle_disk()?;
    let _awake = Awake::keep();
    let mut failed = 0;
    for part in wanted {
        failed += run_part(part, arguments)?;
    }
    if failed == 0 { Ok(()) } else { Err(TaskError::Failed(format!("{failed} items failed"))) }
}

fn run_part(part: &str, arguments: &Arguments) -> Result<usize, TaskError> {
    let mut report = Report::open(part, arguments.again);
    for mut job in jobs(part, arguments.freezes)? {
        if report.items.get(&job.item).is_some_and(|item| item.passed) {
            anstream::println!("{part}: {}: passed before", job.item);
            continue;
        }
        anstream::println!("{part}: {} ...", job.item);
        let began = Instant::now();
        let left_out = target().join("left-out.txt");
        // What an earlier item left out is not of this one; that there is none is no error.
        fs::remove_file(&left_out).ok();
        job.command.env("TWINSITE_LEFT_OUT", &left_out);
        let times = target().join("measured.jsonl");
        fs::remove_file(&times).ok();
        job.command.env("TWINSITE_MEASURED", &times);
        let mut disturbed = 0;
        let (passed, measured) = if job.json {
            let (printed, before) = undisturbed(&mut job.command)?;
            disturbed = before;
            if !printed.status.success() {
                anstream::println!("{part}: {}: ended with {}", job.item, printed.status);
                anstream::print!("{}", String::from_utf8_lossy(&printed.stderr));
            }
            (printed.status.success(), serde_json::from_slice(&printed.stdout).ok().map(numbers))
        } else {
            let ended = run(&mut job.command);
            if let Err(error) = &ended {
                anstream::println!("{part}: {}: {error}", job.item);
            }
            (ended.is_ok(), measured_by_tests(&times))
        };
        let seconds = began.elapsed().as_secs_f64();
        let word = if passed { "passed" } else { "FAILED" };
        anstream::println!("{part}: {}: {word} in {seconds:.1} s", job.item);
        let left_out: Vec<_> =
            fs::read_to_string(&left_out).unwrap_or_default().lines().map(str::to_owned).collect();
        for line in &left_out {
            anstream::println!("{part}: {}: left out: {line}", job.item);
        }
        let command = crate::run::describe(&job.command);
        report.items.insert(job.item, Item { passed, seconds, command, left_out, disturbed, measured });
        report.save(part)?;
    }
    Ok(report.items.values().filter(|item| !item.passed).count())
}

/// Runs a drill, and again, from its first run on, if the machine stood still: then it says nothing of the cluster. How
/// often that was is told too.
fn undisturbed(command: &mut Command) -> Result<(Output, u32), TaskError> {
    let mut disturbed = 0;
    loop {
        let printed = command
            .output()
            .map_err(|source| TaskError::Start { program: crate::run::describe(command), source })?;
        if printed.status.code() != Some(CODE_DISTURBED) || disturbed == DISTURBED_MAX {
            return Ok((printed, disturbed));
        }
        disturbed += 1;
        anstream::println!("this machine stood still meanwhile: once more");
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// What tests have measured by themselves: they write it to a file, a line of JSON each.
fn measured_by_tests(file: &Path) -> Option<serde_json::Value> {
    let text = fs::read_to_string(file).ok()?;
    let lines = text.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    Some(lines.collect())
}

fn jobs(part: &str, freezes: u32) -> Result<Vec<Job>, TaskError> {
    Ok(match part {
        "exercises" => exercises()?,
        "scenarios" => scenarios()?,
        "rooms" => vec![tests("rooms, 20", &["--test", "rooms"], "rooms", ("TWINSITE_ROUNDS", "20"))],
        "kills" => vec![tests("kills, 200", &["--test", "kills"], "kills", ("TWINSITE_KILLS", "200"))],
        "fuzz" => vec![Job {
            item: "3,000,000 inputs for every decoder".to_owned(),
            command: {
                let mut command = cargo(&["test", "--release", "--workspace", "--lib", "--", "fuzz_"]);
                command.env("PROPTEST_CASES", "3000000");
                command
            },
            json: false,
        }],
        "freezes" => {
            let count = freezes.to_string();
            let item =
                format!("{count} frozen holders of an address of each kind, with each layer of the dead-man");
            vec![tests(&item, &["--test", "netlink"], "frozen", ("TWINSITE_FREEZES", &count))]
        }
        "flips" => vec![tests("every byte", &["--lib"], "flip", ("TWINSITE_FLIPS", "all"))],
        _ => vec![
            seeds("20,000 seeds of whole clusters", "release/twinsite", &["sim", "--seeds", "20000"]),
            seeds("200,000 seeds of the controller", "release/twinsite-sim", &["--seeds", "200000"]),
        ],
    })
}

fn seeds(item: &str, program: &str, arguments: &[&str]) -> Job {
    let mut command = Command::new(target().join(program));
    command.args(arguments);
    Job { item: item.to_owned(), command, json: false }
}

fn exercises() -> Result<Vec<Job>, TaskError> {
    let redis = ensure("redis-server", "redis-server");
    let lab = lab();
    if let Err(why) = &lab {
        anstream::println!("exercises: without those in a lab: {why}");
    }
    let wanted = exercises::all()?
        .into_iter()
        .filter(|exercise| (redis || exercise.store == "embedded") && (lab.is_ok() || !exercise.needs_lab));
    let jobs = wanted.map(|exercise| {
        let runs = match (exercise.needs_lab, exercise.is_core) {
            (true, _) => LAB_RUNS,
            (false, true) => CORE_RUNS,
            (false, false) => RUNS,
        };
        let mut command = exercise.command(runs);
        command.arg("--json");
        Job { item: format!("{}, {}", exercise.name, exercise.store), command, json: true }
    });
    Ok(jobs.collect())
}

/// Every scenario as an operator runs it: in a lab, if one can be made here.
fn scenarios() -> Result<Vec<Job>, TaskError> {
    let redis = ensure("redis-server", "redis-server");
    let lab = lab();
    if let Err(why) = &lab {
        anstream::println!("scenarios: on loopback addresses, and without those that need a lab: {why}");
    }
    let wanted = exercises::drills()?
        .into_iter()
        .filter(|drill| (redis || !drill.needs_redis) && (lab.is_ok() || !drill.needs_lab));
    let jobs = wanted.map(|drill| {
        let mut command = drill.command(DRILL_RUNS);
        command.arg("--json");
        Job { item: drill.name, command, json: true }
    });
    Ok(jobs.collect())
}

/// What is kept of an exercise's report: its numbers, and the timelines only of what went wrong.
fn numbers(mut measured: serde_json::Value) -> serde_json::Value {
    if measured["verdict"] == "pass" {
        for run in measured["runs"].as_array_mut().into_iter().flatten().filter_map(|run| run.as_object_mut())
        {
            run.remove("timeline");
            run.remove("spans");
        }
    }
    measured
}

/// Tests with their full count instead of their sample. Of the whole workspace, because a package by itself would be built
/// again, with the features that it alone asks for.
fn tests(item: &str, targets: &[&str], filter: &str, (variable, count): (&str, &str)) -> Job {
    let mut command = if found("cargo-nextest") {
        let mut command =
            cargo(&["nextest", "run", "--release", "--profile", "accept", "--workspace", "--no-tests=fail"]);
        command.args(targets).arg(filter);
        command
    } else {
        let mut command = cargo(&["test", "--release", "--workspace"]);
        // One cluster at a time, as .config/nextest.toml has it.
        command.args(targets).args([filter, "--", "--test-threads=1"]);
        command
    };
    command.env(variable, count);
    Job { item: item.to_owned(), command, json: false }
}

impl Report {
    fn path(part: &str) -> PathBuf {
        root().join("tests/accept").join(format!("{part}.json"))
    }

    /// The report of an earlier run of this revision, or a new one.
    fn open(part: &str, again: bool) -> Self {
        let revision = revision();
        let earlier = fs::read(Self::path(part)).ok().and_then(|json| serde_json::from_slice(&json).ok());
        match earlier {
            Some(Self { revision: of, machine, items }) if of == revision && !again => {
                Self { revision: of, machine, items }
            }
            _ => Self { revision, machine: machine(), items: BTreeMap::new() },
        }
    }

    fn save(&self, part: &str) -> Result<(), TaskError> {
        let path = Self::path(part);
        let failed = |source| TaskError::File { path: path.clone(), source };
        let json = serde_json::to_vec_pretty(self).map_err(|error| failed(error.into()))?;
        fs::create_dir_all(root().join("tests/accept")).map_err(failed)?;
        fs::write(&path, json).map_err(failed)
    }
}

/// The sources that are tested: the tree of `crates`, `proto` and `scenarios`, so that a change of a document or
/// of a report does not make a run worthless.
pub fn revision() -> String {
    let tree = |folder: &str| {
        output(Command::new("git").args(["rev-parse", &format!("HEAD:{folder}")]).current_dir(root()))
    };
    let trees: Option<Vec<_>> = ["crates", "proto", "scenarios"].into_iter().map(tree).collect();
    let clean = output(
        Command::new("git")
            .args(["status", "--porcelain", "--", "crates", "proto", "scenarios"])
            .current_dir(root()),
    );
    let changed = if clean.is_some_and(|text| text.is_empty()) { "" } else { "+changed" };
    trees.map_or_else(
        || "unknown".to_owned(),
        |trees| trees.iter().map(|tree| &tree[..12.min(tree.len())]).collect::<Vec<_>>().join("-") + changed,
    )
}

/// What it is measured on.
pub fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let kernel = output(Command::new("uname").arg("-sr")).unwrap_or_default();
    format!("{cores} cores, {kernel}")
}
