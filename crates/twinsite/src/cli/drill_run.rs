//! `twinsite drill run` and `abort`: a scenario on a cluster of its own.

use super::drill::archive;
use super::drill_arguments::{AbortDrillArguments, ClusterArguments, OutcomeArguments, RunArguments};
use super::drill_progress::Watching;
use super::{CliError, Exit, output, runtime};
use crate::janitor::Janitor;
use crate::local_cluster::{self, LocalCluster};
use crate::progress::Progress;
use crate::scenarios::{self, Chosen, needs_lab};
use crate::signals::Interrupts;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;
use twinsite_drill::archive::{self, Archive, Claim, PAGE};
use twinsite_drill::engine::{self, Report};
use twinsite_drill::lab;
use twinsite_drill::layout::{Ground, Store};
use twinsite_drill::process::{ClusterOptions, Launcher};
use twinsite_drill::scenario::Scenario;
use twinsite_model::Profile;

/// How often is looked whether somebody wants the drill to end.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How long a drill may take to go its way back and to take its cluster down.
const WAY_BACK_MAX: Duration = Duration::from_mins(5);
/// A file system in memory that Linux has for everybody.
const MEMORY: &str = "/dev/shm";
/// How much room it must have, in bytes.
const MEMORY_MIN: u64 = 1 << 30;

/// What is to be done.
pub struct Plan {
    /// The scenario.
    pub chosen: Chosen,
    /// How often.
    pub runs: u32,
    /// Where.
    pub ground: Ground,
    /// With which session store.
    pub store: Store,
    /// The programs.
    pub launcher: Launcher,
}

/// `twinsite drill run`.
pub fn run(arguments: &RunArguments) -> Result<Exit, CliError> {
    let chosen = scenarios::load(&arguments.scenario)?;
    let launcher = Launcher::new(std::env::current_exe().map_err(CliError::Output)?);
    let ClusterArguments { redis, embedded, .. } = &arguments.cluster;
    let ground = ground(&arguments.cluster, Some(&chosen.scenario))?;
    let store = local_cluster::store(redis.as_deref(), *embedded, Some(&chosen.scenario), &launcher)?;
    let plan = Plan { chosen, runs: arguments.runs, ground, store, launcher };
    conduct(plan, &arguments.cluster, &arguments.outcome)
}

/// Where a drill is run: in a lab if one was asked for, needed, or can be made; what was not asked for is said.
pub fn ground(arguments: &ClusterArguments, scenario: Option<&Scenario>) -> Result<Ground, CliError> {
    let needed = scenario.is_some_and(needs_lab);
    if arguments.lab {
        lab::require()?;
        return Ok(Ground::Lab);
    }
    if arguments.no_lab || arguments.redis.is_some() {
        // If it needs one, the engine says so.
        return Ok(Ground::Loopback);
    }
    match lab::require() {
        Ok(()) => Ok(Ground::Lab),
        Err(error) if needed => {
            let name = scenario.map_or("it", Scenario::name);
            let problem = format!(
                "`{name}` is about packets on a network, and needs a lab: {error}; others run on loopback addresses, \
                 as `twinsite drill run owner-killed --no-lab` does (`twinsite drill list`)"
            );
            Err(CliError::Refused(problem))
        }
        Err(_) => {
            anstream::eprintln!(
                "on loopback addresses; as root, with iproute2 and /dev/net/tun, it runs in a lab"
            );
            Ok(Ground::Loopback)
        }
    }
}

/// Runs a drill from its beginning to the end, and keeps and prints the report. For a process without threads yet.
pub fn conduct(plan: Plan, cluster: &ClusterArguments, outcome: &OutcomeArguments) -> Result<Exit, CliError> {
    let scenario = &plan.chosen.scenario;
    engine::suits(scenario, plan.ground, &plan.store)?;
    let mut reports = Reports::open(outcome)?;
    let claim = reports.archive.claim(scenario.name())?;
    let shape = scenario.topology.shape();
    let temporary = match &cluster.keep {
        Some(_) => None,
        None => Some(temporary_folder()?),
    };
    let folder = temporary.as_ref().map(tempfile::TempDir::path);
    let janitor = Janitor::start(folder)?;
    let lab = match plan.ground {
        Ground::Loopback => None,
        Ground::Lab => match local_cluster::enter_lab(&shape) {
            Ok(lab) => Some(lab),
            // Nobody asked for one, and nothing needs one.
            Err(error) if !cluster.lab && !needs_lab(scenario) => {
                anstream::eprintln!("on loopback addresses, for no lab can be made: {error}");
                None
            }
            Err(error) => return Err(error),
        },
    };
    let options = ClusterOptions {
        store: plan.store,
        launcher: plan.launcher,
        directory: cluster.keep.clone().or_else(|| folder.map(Path::to_owned)),
        profile: local_cluster::profile(cluster.profile.map(Profile::from), Some(scenario)),
        shape,
        lab: lab.clone(),
    };
    let runtime = runtime()?;
    let ended = runtime.block_on(attend(&plan.chosen, plan.runs, options, &claim, &mut reports));
    runtime.shutdown_timeout(Duration::from_millis(200));
    // The lab goes with the last one that knows it.
    drop(lab);
    drop(temporary);
    drop(janitor);
    drop(claim);
    let Some(report) = ended? else {
        return Err(CliError::Refused("aborted before there was anything to report".to_owned()));
    };
    print(&report, outcome.json)?;
    reports.say_where();
    Ok(report.verdict.into())
}

/// Where the cluster's files are, until the end: in memory, if that is large enough and `TMPDIR` does not say where. Nodes
/// have disks of their own in reality; here all would share one, and wait for each other's writes.
fn temporary_folder() -> Result<tempfile::TempDir, CliError> {
    let mut named = tempfile::Builder::new();
    named.prefix("twinsite-");
    let in_memory = std::env::var_os("TMPDIR").is_none() && has_room(Path::new(MEMORY));
    let made = if in_memory { named.tempdir_in(MEMORY) } else { named.tempdir() };
    made.map_err(|source| CliError::System { what: "make a folder for the cluster", source })
}

fn has_room(folder: &Path) -> bool {
    let room = rustix::fs::statvfs(folder).map(|of| of.f_bavail.saturating_mul(of.f_frsize));
    room.is_ok_and(|room| room >= MEMORY_MIN)
}

/// Where the report goes when there is one. What cannot be written is said before the drill, not after it.
pub struct Reports {
    archive: Archive,
    junit: Option<ReportFile>,
    html: Option<ReportFile>,
    kept: Option<PathBuf>,
}

impl Reports {
    /// Opens what will be written.
    pub fn open(outcome: &OutcomeArguments) -> Result<Self, CliError> {
        let archive = archive(&outcome.archive)?;
        let junit = outcome.junit.as_deref().map(create).transpose()?;
        let html = outcome.html.as_deref().map(create).transpose()?;
        Ok(Self { archive, junit, html, kept: None })
    }

    /// Keeps a report, and writes it to the files that were named.
    pub fn keep(&mut self, report: &Report, scenario: &str) -> Result<(), CliError> {
        self.kept = Some(self.archive.keep(report, Some(scenario))?);
        if let Some(file) = &mut self.junit {
            file.write(&archive::junit(report))?;
        }
        if let Some(file) = &mut self.html {
            file.write(&archive::page(report))?;
        }
        Ok(())
    }

    /// Says where the report is.
    pub fn say_where(&self) {
        if let Some(folder) = &self.kept {
            anstream::eprintln!("report: {}", folder.join(PAGE).display());
        }
    }
}

/// Runs the drill while listening for those who want it to end; no report if it ends before its cluster is there, or
/// at once.
async fn attend(
    chosen: &Chosen,
    runs: u32,
    options: ClusterOptions,
    claim: &Claim,
    reports: &mut Reports,
) -> Result<Option<Report>, CliError> {
    let progress = Progress::new();
    let abort = CancellationToken::new();
    let mut interrupts = Interrupts::new();
    let work = perform(chosen, runs, options, &progress, &abort, reports);
    tokio::pin!(work);
    let outcome = loop {
        tokio::select! {
            outcome = &mut work => break outcome,
            () = interrupts.next() => {
                if abort.is_cancelled() {
                    // Dropped: everything that was started ends.
                    break Ok(None);
                }
                progress.say("aborting: first the way back; Ctrl-C again ends everything at once");
                abort.cancel();
            }
            () = wish(claim), if !abort.is_cancelled() => {
                progress.say("aborting, as was asked for: first the way back");
                abort.cancel();
            }
        }
    };
    progress.end();
    outcome
}

/// Waits until somebody wants the drill to end.
async fn wish(claim: &Claim) {
    while !claim.abort_is_wanted() {
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

async fn perform(
    Chosen { scenario, text }: &Chosen,
    runs: u32,
    options: ClusterOptions,
    progress: &Progress,
    abort: &CancellationToken,
    reports: &mut Reports,
) -> Result<Option<Report>, CliError> {
    let Some(started) = abort.run_until_cancelled(LocalCluster::start(options, progress)).await else {
        return Ok(None);
    };
    let mut local = started?;
    let watching = Watching::new(progress.clone(), scenario.name());
    let options = engine::Options { runs, abort: abort.clone() };
    let mut tell = |at: engine::DrillProgress| watching.now(at);
    let report = engine::run(scenario, &mut local.cluster, &local.api, &options, &mut tell).await;
    drop(watching);
    // Before the cluster goes: whatever becomes of us then, the report is kept.
    let kept = report.map_err(CliError::from).and_then(|report| {
        reports.keep(&report, text)?;
        Ok(Some(report))
    });
    progress.say("ending all processes");
    local.stop().await;
    kept
}

fn print(report: &Report, json: bool) -> Result<(), CliError> {
    if json {
        output::line(&report.to_json().map_err(|error| CliError::Output(error.into()))?)?;
    } else {
        report.write_text(&mut anstream::stdout()).map_err(CliError::Output)?;
    }
    Ok(())
}

/// A file that a report is written to when there is one.
struct ReportFile {
    path: PathBuf,
    file: File,
}

fn create(path: &Path) -> Result<ReportFile, CliError> {
    let opened = File::options().create(true).truncate(false).write(true).open(path);
    let file = opened.map_err(|source| CliError::Write { path: path.to_owned(), source })?;
    Ok(ReportFile { path: path.to_owned(), file })
}

impl ReportFile {
    fn write(&mut self, text: &str) -> Result<(), CliError> {
        let written = self.file.set_len(0).and_then(|()| self.file.write_all(text.as_bytes()));
        written.map_err(|source| CliError::Write { path: self.path.clone(), source })
    }
}

/// `twinsite drill abort`.
pub fn abort(arguments: &AbortDrillArguments) -> Result<Exit, CliError> {
    let archive = archive(&arguments.archive)?;
    let Some(running) = archive.running() else {
        return Err(CliError::Refused(format!(
            "no drill runs here that reports to {}; nothing to abort",
            archive.root().display()
        )));
    };
    archive.ask_to_abort(&running)?;
    let progress = Progress::new();
    progress.say(&format!("`{}` goes its way back", running.scenario));
    let deadline = Instant::now() + WAY_BACK_MAX;
    while archive.running().as_ref() == Some(&running) {
        if Instant::now() > deadline {
            progress.end();
            return Err(CliError::Refused(format!(
                "process {} did not end within {}; it can be killed, nothing outlives it",
                running.life.pid,
                humantime::format_duration(WAY_BACK_MAX)
            )));
        }
        std::thread::sleep(LOOK_EVERY);
    }
    progress.end();
    output::line(&format!("`{}` has ended; `twinsite drill report` shows what was seen", running.scenario))?;
    Ok(Exit::Done)
}
