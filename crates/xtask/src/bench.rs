//! `cargo xtask bench`: twinsite beside others, in the same run on the same machine.

use crate::accept::{machine, revision};
use crate::prerequisites::{ensure, lab};
use crate::run::{TaskError, build, describe, output, root, run, settle_disk, target};
use clap::{Args, Subcommand};
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

/// What is measured.
#[derive(Subcommand)]
pub enum Benchmark {
    /// How long clients wait when the owner of an address is lost, and how long two answer: beside keepalived, in a lab.
    /// As root; every run of all takes about three minutes
    Failover(Failover),
    /// What requests and messages cost the proxy: beside others, each alone on one processor
    Proxy {
        /// What `twinsite-bench proxy --help` says
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        options: Vec<String>,
    },
}

/// `bench failover`.
#[derive(Args)]
pub struct Failover {
    /// How often each system meets each cause
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
    runs: u32,
    /// Only this system: keepalived-1s, keepalived-100ms, twinsite-wan, twinsite-lan; may be given several times
    #[arg(long, value_name = "NAME")]
    system: Vec<String>,
    /// Only this cause: host-cut, killed, frozen, planned; may be given several times
    #[arg(long, value_name = "NAME")]
    cause: Vec<String>,
    /// Print everything as JSON instead of the table
    #[arg(long)]
    json: bool,
}

/// Where the results are kept, as JSON and as a table.
const JSON: &str = "tests/accept/failover.json";
const TABLE: &str = "tests/accept/failover.md";

/// What is kept.
#[derive(Serialize)]
struct Report<'a> {
    revision: String,
    machine: String,
    keepalived: String,
    /// The command that shows it.
    command: String,
    measured: &'a serde_json::Value,
}

/// What is read of a comparison here.
#[derive(Debug, Deserialize)]
struct Comparison {
    runs: u32,
    lasts_ms: u64,
    probes_apart_max_ms: u64,
    cells: Vec<Cell>,
    failed: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Cell {
    system: String,
    cause: String,
    gap_ms: Numbers,
    return_gap_ms: Numbers,
    two_hosts_ms: Numbers,
    failed_requests: u64,
    failed_attempts: u64,
    trials: Vec<serde::de::IgnoredAny>,
}

#[derive(Debug, Deserialize)]
struct Numbers {
    median: u64,
    p99: u64,
    max: u64,
}

/// Measures, keeps and prints.
pub fn measure(benchmark: &Benchmark) -> Result<(), TaskError> {
    match benchmark {
        Benchmark::Failover(arguments) => failover(arguments),
        Benchmark::Proxy { options } => proxy(options),
    }
}

fn proxy(options: &[String]) -> Result<(), TaskError> {
    let packages = [
        ("h2load", "nghttp2-client"),
        ("nginx", "nginx"),
        ("haproxy", "haproxy"),
        ("caddy", "caddy"),
        ("taskset", "util-linux"),
    ];
    for (program, package) in packages {
        if !ensure(program, package) {
            return Err(TaskError::Failed(format!("bench proxy needs {program}, which is missing")));
        }
    }
    run(&mut build())?;
    let mut command = Command::new(target().join("release/twinsite-bench"));
    command.args(["proxy", "--twinsite"]).arg(target().join("release/twinsite")).args(options);
    run(&mut command).map(drop)
}

fn failover(arguments: &Failover) -> Result<(), TaskError> {
    lab().map_err(|why| TaskError::Failed(format!("bench failover: {why}")))?;
    for (program, package) in [("keepalived", "keepalived"), ("nft", "nftables")] {
        if !ensure(program, package) {
            return Err(TaskError::Failed(format!("bench failover needs {program}, which is missing")));
        }
    }
    run(&mut build())?;
    settle_disk()?;
    let mut command = Command::new(target().join("release/twinsite"));
    command.args(["compare-failover", "--runs", &arguments.runs.to_string()]);
    for (option, names) in [("--system", &arguments.system), ("--cause", &arguments.cause)] {
        command.args(names.iter().flat_map(|name| [option, name]));
    }
    let program = describe(&command);
    let start = |source| TaskError::Start { program: program.clone(), source };
    let ended = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output().map_err(start)?;
    let unreadable = || TaskError::Ended { program: program.clone(), status: ended.status };
    let measured: serde_json::Value = serde_json::from_slice(&ended.stdout).map_err(|_| unreadable())?;
    let comparison = Comparison::deserialize(&measured).map_err(|_| unreadable())?;

    let keepalived = keepalived_version();
    let report = Report {
        revision: revision(),
        machine: machine(),
        keepalived: keepalived.clone(),
        command: format!("cargo xtask bench failover --runs {}", arguments.runs),
        measured: &measured,
    };
    let table = table(&comparison, &report.machine, &keepalived);
    let json = serde_json::to_string_pretty(&report)
        .map_err(|error| TaskError::Failed(format!("{JSON}: {error}")))?;
    keep(JSON, &json)?;
    keep(TABLE, &table)?;
    anstream::println!("{}", if arguments.json { &json } else { &table });
    if ended.status.success() {
        return Ok(());
    }
    let why = comparison.failed.join("; ");
    Err(TaskError::Failed(format!("bench failover: not everything was measured: {why}")))
}

fn keep(name: &str, text: &str) -> Result<(), TaskError> {
    let path = root().join(name);
    let failed = |source| TaskError::File { path: path.clone(), source };
    fs::create_dir_all(path.parent().unwrap_or(Path::new("."))).map_err(failed)?;
    fs::write(&path, text).map_err(failed)
}

fn keepalived_version() -> String {
    // It says that on standard error.
    let said = output(Command::new("sh").args(["-c", "keepalived --version 2>&1"])).unwrap_or_default();
    said.split_whitespace().nth(1).unwrap_or("of unknown version").to_owned()
}

/// A table that reads well in a terminal and in a document.
fn table(comparison: &Comparison, machine: &str, keepalived: &str) -> String {
    let header = [
        "cause",
        "system",
        "runs",
        "gap: median",
        "p99",
        "max",
        "at the repair: median",
        "two hosts: median",
        "max",
        "failed requests",
    ];
    let mut rows = vec![header.map(str::to_owned)];
    rows.push(std::array::from_fn(|column| if column < 2 { "---" } else { "---:" }.to_owned()));
    let mut cells: Vec<_> = comparison.cells.iter().collect();
    cells.sort_by_key(|cell| place(&cell.cause));
    for cell in cells {
        rows.push([
            in_words(&cell.cause).to_owned(),
            in_words(&cell.system).to_owned(),
            cell.trials.len().to_string(),
            format!("{} ms", cell.gap_ms.median),
            format!("{} ms", cell.gap_ms.p99),
            format!("{} ms", cell.gap_ms.max),
            format!("{} ms", cell.return_gap_ms.median),
            format!("{} ms", cell.two_hosts_ms.median),
            format!("{} ms", cell.two_hosts_ms.max),
            // Where something breaks without notice, clients fail; only of a planned move it is asked that none does.
            if cell.cause == "planned" {
                format!("{} ({} attempts)", cell.failed_requests, cell.failed_attempts)
            } else {
                String::new()
            },
        ]);
    }
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
    let widths: [usize; 10] = std::array::from_fn(width);
    let mut text = String::new();
    for row in &rows {
        for (column, (cell, width)) in row.iter().zip(widths).enumerate() {
            let fill = " ".repeat(width.saturating_sub(cell.chars().count()));
            let padded = if column < 2 { format!("{cell}{fill}") } else { format!("{fill}{cell}") };
            text += &format!("| {padded} ");
        }
        text += "|\n";
    }
    text += &format!(
        "\nOf {} runs on {machine}; keepalived {keepalived}. Each cause lasts {} s and is then repaired. Gap: the longest \
         time without an answer to a new connection, one every 2 ms, while it lasts, and then \
         from the repair on. Two hosts: the time in which two \
         answered for the address at once, the repair included, as probes to each host every millisecond (at most {} ms \
         apart) prove it. keepalived's hosts answer by themselves, also when keepalived is dead or frozen.\n",
        comparison.runs,
        comparison.lasts_ms as f64 / 1_000.0,
        comparison.probes_apart_max_ms,
    );
    text
}

/// In which order causes come.
fn place(cause: &str) -> usize {
    ["host-cut", "killed", "frozen", "planned"].iter().position(|known| *known == cause).unwrap_or(usize::MAX)
}

fn in_words(name: &str) -> &str {
    match name {
        "host-cut" => "host cut off",
        "killed" => "process killed",
        "frozen" => "process frozen",
        "planned" => "planned move",
        "keepalived-1s" => "keepalived, 1 s",
        "keepalived-100ms" => "keepalived, 100 ms",
        "twinsite-wan" => "twinsite, wan",
        "twinsite-lan" => "twinsite, lan",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_a_row_for_each_cell_and_equal_lines() {
        let numbers = |median| Numbers { median, p99: median + 1, max: median + 2 };
        let cell = |cause: &str, median| Cell {
            system: "twinsite-lan".to_owned(),
            cause: cause.to_owned(),
            gap_ms: numbers(median),
            return_gap_ms: numbers(2),
            two_hosts_ms: numbers(0),
            failed_requests: 3,
            failed_attempts: 4,
            trials: vec![serde::de::IgnoredAny; 2],
        };
        let comparison = Comparison {
            runs: 2,
            lasts_ms: 6_000,
            probes_apart_max_ms: 7,
            cells: vec![cell("planned", 5), cell("host-cut", 1_234)],
            failed: Vec::new(),
        };
        let text = table(&comparison, "2 cores", "v2.2.7");
        let lines: Vec<_> = text.lines().collect();
        assert!(
            lines[2].starts_with("| host cut off | twinsite, lan | ") && lines[2].contains(" 1236 ms "),
            "{text}"
        );
        assert!(lines[3].ends_with(" 3 (4 attempts) |"), "{text}");
        let lengths: Vec<_> = lines[..4].iter().map(|line| line.chars().count()).collect();
        assert!(lengths.windows(2).all(|pair| pair[0] == pair[1]), "{text}");
        assert!(text.contains("Each cause lasts 6 s") && text.contains("at most 7 ms apart"), "{text}");
    }
}
