//! Running other programs, and saying what happened.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// How many of the last lines of a program that failed are quoted: the limits and audit of an exercise fit in.
const QUOTED_LINES: usize = 12;

/// The exit code of a drill on a machine that stood still meanwhile.
const CODE_DISTURBED: i32 = 5;
/// How often is tried what such a machine disturbs.
pub const TRIES: u32 = 3;

/// Why a task ended badly.
#[derive(Debug, thiserror::Error)]
pub enum TaskError {
    /// A program could not be started.
    #[error("cannot start `{program}`: {source}")]
    Start {
        /// The program.
        program: String,
        /// Why.
        source: std::io::Error,
    },
    /// A program said no.
    #[error("`{program}` ended with {status}")]
    Ended {
        /// The program and its arguments.
        program: String,
        /// How it ended.
        status: ExitStatus,
    },
    /// What it measured says nothing, for this machine stood still meanwhile.
    #[error("{0}")]
    Disturbed(String),
    /// Some checks failed.
    #[error("{0}")]
    Failed(String),
    /// A file could not be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// The project's top folder.
pub fn root() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.ancestors().nth(2).unwrap_or(manifest).to_owned()
}

/// Where cargo puts what it builds.
pub fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// `cargo`, the one that runs this.
pub fn cargo(arguments: &[&str]) -> Command {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(arguments).current_dir(root());
    // `cargo run` tells a program which package it is of. Build scripts that look at these names would run again, and
    // everything above them be built again, each time somebody calls cargo by hand in between.
    for name in std::env::vars_os().map(|(name, _)| name) {
        let told = name.to_str().is_some_and(|name| {
            name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_") || name == "CARGO_BIN_NAME"
        });
        if told {
            command.env_remove(name);
        }
    }
    command
}

/// Runs a program to its end, its output going where ours goes.
pub fn run(command: &mut Command) -> Result<Duration, TaskError> {
    let began = Instant::now();
    let program = describe(command);
    let status = command
        .stdin(Stdio::null())
        .status()
        .map_err(|source| TaskError::Start { program: program.clone(), source })?;
    if status.success() { Ok(began.elapsed()) } else { Err(TaskError::Ended { program, status }) }
}

/// Like [`run`]; if it says no, the error quotes the end of what it printed, for summaries that are read alone.
pub fn run_quoting(command: &mut Command) -> Result<(), TaskError> {
    let program = describe(command);
    let start = |source| TaskError::Start { program: program.clone(), source };
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().map_err(start)?;
    let mut last = VecDeque::new();
    for line in child.stdout.take().into_iter().flat_map(|printed| BufReader::new(printed).lines()) {
        let line = line.map_err(start)?;
        anstream::println!("{line}");
        last.push_back(line);
        last.drain(..last.len().saturating_sub(QUOTED_LINES));
    }
    let status = child.wait().map_err(start)?;
    if status.success() {
        return Ok(());
    }
    let quoted = last.make_contiguous().join("\n            ");
    let said = format!("`{program}` ended with {status}; the end of what it printed:\n            {quoted}");
    Err(if status.code() == Some(CODE_DISTURBED) {
        TaskError::Disturbed(said)
    } else {
        TaskError::Failed(said)
    })
}

/// Waits until what was written so far, by builds above all, is on the disk: it would slow the disk under those who
/// are measured next.
pub fn settle_disk() -> Result<(), TaskError> {
    run(&mut Command::new("sync")).map(drop)
}

/// Runs a program and returns what it printed, or nothing if it is missing or said no.
pub fn output(command: &mut Command) -> Option<String> {
    let output = command.stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Builds everything that runs, with the profile that users run. One package by itself would have other features of what
/// it stands on, and build that again.
pub fn build() -> Command {
    cargo(&["build", "--workspace", "--release"])
}

/// Whether a program is on the path.
pub fn found(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

/// A command as a person would type it.
pub fn describe(command: &Command) -> String {
    let program = Path::new(command.get_program());
    let name = program.file_name().unwrap_or(command.get_program()).to_string_lossy().into_owned();
    command.get_args().fold(name, |line, argument| line + " " + &argument.to_string_lossy())
}

/// Checks that ran one after the other, for the summary.
#[derive(Default)]
pub struct Checks {
    passed: Vec<(String, Duration)>,
    failed: Vec<(String, String)>,
    left_out: Vec<(String, String)>,
}

impl Checks {
    /// Runs one check; a failure is noted and the others still run.
    pub fn check(&mut self, name: &str, check: impl FnOnce() -> Result<(), TaskError>) {
        anstream::println!("\n== {name}");
        let began = Instant::now();
        match check() {
            Ok(()) => self.passed.push((name.to_owned(), began.elapsed())),
            Err(error) => {
                anstream::println!("{name}: {error}");
                self.failed.push((name.to_owned(), error.to_string()));
            }
        }
    }

    /// Like [`Self::check`], for what says of itself that this machine stood still meanwhile. It is tried again, and left
    /// out if the machine does not come to rest.
    pub fn check_undisturbed(&mut self, name: &str, mut check: impl FnMut() -> Result<(), TaskError>) {
        for _ in 0..TRIES {
            let mut is_disturbed = false;
            let failed = self.failed.len();
            self.check(name, || {
                let ended = check();
                is_disturbed = matches!(ended, Err(TaskError::Disturbed(_)));
                ended
            });
            if !is_disturbed {
                return;
            }
            self.failed.truncate(failed);
        }
        self.leave_out(name, &format!("this machine stood still each of the {TRIES} times"));
    }

    /// Notes a check that could not run here.
    pub fn leave_out(&mut self, name: &str, why: &str) {
        anstream::println!("\n== {name}: left out ({why})");
        self.left_out.push((name.to_owned(), why.to_owned()));
    }

    /// Notes what tests have left out by themselves: they write it to a file, a line each.
    pub fn leave_out_lines(&mut self, file: &Path) {
        for line in std::fs::read_to_string(file).unwrap_or_default().lines() {
            let (name, why) = line.split_once(": ").unwrap_or((line, "not possible here"));
            self.left_out.push((name.to_owned(), why.to_owned()));
        }
    }

    /// Prints what ran, and fails if anything did.
    pub fn finish(self) -> Result<(), TaskError> {
        anstream::println!("\n== summary");
        for (name, took) in &self.passed {
            anstream::println!("  passed    {name} ({:.1} s)", took.as_secs_f64());
        }
        for (name, why) in &self.left_out {
            anstream::println!("  left out  {name}: {why}");
        }
        for (name, why) in &self.failed {
            anstream::println!("  FAILED    {name}: {why}");
        }
        let (passed, failed, skipped) = (self.passed.len(), self.failed.len(), self.left_out.len());
        anstream::println!("checks: {passed} passed, {failed} failed, {skipped} skipped");
        if failed == 0 { Ok(()) } else { Err(TaskError::Failed(format!("{failed} checks failed"))) }
    }
}
