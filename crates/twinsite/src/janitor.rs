//! Who takes away what a killed drill leaves.
//!
//! A process of its own waits until its standard input closes, which the kernel does however the runner ends. Processes of
//! the cluster end by themselves then (the drill crate's reaper); the lab's namespaces and mounts, and the cluster's
//! folder, are removed here.

use crate::cli::{CliError, Exit};
use clap::Args;
use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use twinsite_drill::lab::leftovers;
use twinsite_drill::lab::life::Life;

/// How long a runner whose pipe has closed may take to be gone.
const DEATH_MAX: Duration = Duration::from_secs(60);
/// How often it is tried to remove the folder, while processes that are being killed may still write into it.
const ATTEMPTS: u32 = 50;
const AGAIN: Duration = Duration::from_millis(100);

/// `janitor`, which people do not type.
#[derive(Debug, Args)]
pub struct JanitorArguments {
    /// The number of the runner
    #[arg(long)]
    pid: u32,
    /// When it was started
    #[arg(long)]
    started: u64,
    /// The cluster's folder
    #[arg(long)]
    folder: Option<PathBuf>,
}

/// Waits for the runner's end, and takes away what it has left.
pub fn run(arguments: &JanitorArguments) -> Exit {
    drop(io::copy(&mut io::stdin().lock(), &mut io::sink()));
    let runner = Life { pid: arguments.pid, started: arguments.started };
    if !runner.wait(DEATH_MAX) {
        return Exit::Refused;
    }
    let left = leftovers::namespaces(runner.pid);
    if !left.is_empty() {
        leftovers::end_inhabitants(&left);
        leftovers::remove_leftovers();
    }
    if let Some(folder) = &arguments.folder {
        remove(folder);
    }
    Exit::Done
}

fn remove(folder: &Path) {
    for _ in 0..ATTEMPTS {
        match fs::remove_dir_all(folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => std::thread::sleep(AGAIN),
            _ => return,
        }
    }
}

/// A janitor that waits. Dropping it means that nothing was left.
#[derive(Debug)]
pub struct Janitor(Child);

impl Janitor {
    /// Starts one for this process. Before it goes into a lab, which the janitor must not live in.
    pub fn start(folder: Option<&Path>) -> Result<Self, CliError> {
        let failed = |source| CliError::System { what: "start the janitor", source };
        let own = Life::own().map_err(failed)?;
        let mut command = Command::new(std::env::current_exe().map_err(failed)?);
        command.arg("janitor");
        command.args(["--pid", &own.pid.to_string(), "--started", &own.started.to_string()]);
        if let Some(folder) = folder {
            command.arg("--folder").arg(folder);
        }
        // In a group of its own: Ctrl-C is not for it.
        command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().map(Self).map_err(failed)
    }
}

impl Drop for Janitor {
    fn drop(&mut self) {
        self.0.kill().and_then(|()| self.0.wait()).ok();
    }
}
