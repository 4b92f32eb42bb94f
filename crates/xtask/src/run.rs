//! Running other programs, and saying what happened.

use crate::judged::Held;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// How often is tried what a machine disturbs that stands still or is busy.
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
    /// Something was too late or came out otherwise, which a busy machine may explain, and nothing happened that must not.
    #[error("{0}")]
    Late(String),
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

/// A command as a person would type it, in the folder of the project.
pub fn describe(command: &Command) -> String {
    let program = Path::new(command.get_program());
    let name = program.file_name().unwrap_or(command.get_program()).to_string_lossy().into_owned();
    let root = root();
    command.get_args().fold(name, |line, argument| {
        let argument = Path::new(argument);
        line + " " + &argument.strip_prefix(&root).unwrap_or(argument).to_string_lossy()
    })
}

/// Checks that ran one after the other, for the summary.
#[derive(Default)]
pub struct Checks {
    passed: Vec<(String, Duration)>,
    slow: Vec<(String, String)>,
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

    /// Like [`Self::check`], for what is told when it takes longer than it should.
    pub fn check_time(&mut self, name: &str, max: Duration, check: impl FnOnce() -> Result<(), TaskError>) {
        self.check(name, check);
        let slow = self.passed.pop_if(|(passed, took)| passed == name && *took > max);
        self.slow
            .extend(slow.map(|(name, took)| (name, format!("{} s of {}", took.as_secs(), max.as_secs()))));
    }

    /// Tests that passed, but not the first time.
    pub fn note_again(&mut self, tests: Vec<String>) {
        self.slow.extend(tests.into_iter().map(|test| (test, "not at the first try".to_owned())));
    }

    /// Like [`Self::check`], for an exercise. What a machine that stands still or is busy may have disturbed is tried again;
    /// it is left out if the machine does not come to rest, and has failed if it fails each time.
    pub fn check_exercise(&mut self, name: &str, mut exercise: impl FnMut() -> Result<Held, TaskError>) {
        let mut ended = None;
        let mut tries = 0;
        while tries < TRIES {
            tries += 1;
            anstream::println!("\n== {name}");
            let began = Instant::now();
            let result = exercise();
            match &result {
                Ok(Held::Whole) => anstream::println!("pass ({:.1} s)", began.elapsed().as_secs_f64()),
                Ok(Held::Slowly(limits)) => anstream::println!("pass, but slowly: {limits}"),
                Err(error) => anstream::println!("{name}: {error}"),
            }
            let is_over = !matches!(result, Err(TaskError::Disturbed(_) | TaskError::Late(_)));
            ended = Some((result, began.elapsed()));
            if is_over {
                break;
            }
        }
        match ended {
            Some((Ok(Held::Whole), took)) if tries == 1 => self.passed.push((name.to_owned(), took)),
            Some((Ok(Held::Whole), _)) => self.slow.push((name.to_owned(), format!("at the {tries}. try"))),
            Some((Ok(Held::Slowly(limits)), _)) => self.slow.push((name.to_owned(), limits)),
            Some((Err(TaskError::Disturbed(_)), _)) | None => {
                self.leave_out(name, &format!("this machine stood still each of the {TRIES} times"));
            }
            Some((Err(error), _)) => self.failed.push((name.to_owned(), error.to_string())),
        }
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
        for (name, limits) in &self.slow {
            anstream::println!(
                "  slowly    {name}: {limits}; a machine with nothing else to do should be faster"
            );
        }
        for (name, why) in &self.left_out {
            anstream::println!("  left out  {name}: {why}");
        }
        for (name, why) in &self.failed {
            anstream::println!("  FAILED    {name}: {why}");
        }
        let (passed, failed, skipped) =
            (self.passed.len() + self.slow.len(), self.failed.len(), self.left_out.len());
        anstream::println!("checks: {passed} passed, {failed} failed, {skipped} skipped");
        if failed == 0 { Ok(()) } else { Err(TaskError::Failed(format!("{failed} checks failed"))) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// Everything above a package is built again when somebody asks for another feature of it. That took half as long again
    /// as everything else before anybody noticed.
    #[test]
    fn the_program_and_its_tests_ask_for_the_same_features() {
        let packages = |arguments: &[&str]| -> BTreeSet<String> {
            let mut command =
                cargo(&["tree", "--offline", "--locked", "--prefix", "none", "--format", "{p} {f}"]);
            let printed = output(command.args(arguments)).unwrap();
            printed.lines().map(|line| line.trim_end_matches(" (*)").trim_end().to_owned()).collect()
        };
        let run = packages(&["--edges", "no-dev", "--package", "twinsite"]);
        let build = packages(&["--edges", "no-dev", "--workspace"]);
        let test = packages(&["--workspace"]);
        assert!(run.len() > 100);
        let otherwise = |less: &BTreeSet<String>, more| less.difference(more).cloned().collect::<Vec<_>>();
        let none: [&str; 0] = [];
        assert_eq!(otherwise(&run, &build), none, "built otherwise by `cargo build --workspace`");
        assert_eq!(otherwise(&build, &test), none, "built otherwise by `cargo test --workspace`");
    }
}
