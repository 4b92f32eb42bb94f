//! The engine: runs a scenario on a backend and reports.
//!
//! Each run: all healthy, guards, clients on, steps, until all has settled, a look at the outcome, the way back, and
//! the audit over everything that was seen. Runs share one cluster, which must heal in between.

mod actions;
mod backend;
mod cluster_api;
mod conditions;
mod faults;
mod hosts;
pub(crate) mod phases;
mod render;
mod report;
mod roles;
pub(crate) mod run;
pub(crate) mod spans;
pub(crate) mod verdict;

pub use backend::{Backend, BackendError};
pub use cluster_api::{ApiError, ClusterApi, ClusterStatus, WatchItem};
pub use report::{
    AnsweringReport, Attempts, Check, CountReport, GapMs, HostReport, LimitReport, Origin, PhasesMs,
    REPORT_VERSION, Report, Requests, RunReport, TimelineEntry, TunnelReport, Verdict,
};
pub use spans::{GapSpan, NodeSpans, PhaseSpan, Spans};

use crate::audit::Audit;
use crate::layout::{Ground, Store};
use crate::measure::Recorder;
use crate::scenario::{LeaderPlace, NetworkNeeded, Scenario, StoreNeeded};
use report::disturbs;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;
use twinsite_machine::{Awake, Pulse};

/// How a scenario is run.
#[derive(Debug, Clone)]
pub struct Options {
    /// How often.
    pub runs: u32,
    /// Cancel it to end the drill: what is under way goes its way back, and the report says `aborted`.
    pub abort: CancellationToken,
}

impl Default for Options {
    fn default() -> Self {
        Self { runs: 1, abort: CancellationToken::new() }
    }
}

/// What the engine is doing, for those who watch.
#[derive(Debug, Clone)]
pub struct DrillProgress {
    /// Which run, from 1.
    pub run: u32,
    /// Of how many.
    pub runs: u32,
    /// What happens now, in a few words.
    pub now: String,
    /// What this run's clients see, if there are any yet; it can be looked at while the run goes on.
    pub clients: Option<Arc<Recorder>>,
}

/// Why a drill could not be run. A drill that runs and breaks a limit is no error but a report.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The cluster is not as the scenario needs it, and cannot be made so.
    #[error("the drill was not begun: {0}")]
    Guard(String),
    /// The cluster did not become healthy before or after a run.
    #[error("the cluster did not become healthy within {}: {why}", humantime::format_duration(*within))]
    NotHealthy {
        /// How long was waited.
        within: Duration,
        /// What was missing.
        why: String,
    },
    /// The backend failed.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// The cluster could not be asked.
    #[error("the cluster could not be asked: {0}")]
    Api(#[from] ApiError),
    /// The session store's record could not be read.
    #[error("the session store's record of writes could not be read: {0}")]
    Store(#[from] redis::RedisError),
    /// The machine refused something.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// It did not come about, but the machine that measures stood still meanwhile.
    #[error(
        "{problem}; but this machine itself stood still for {} meanwhile, so that says nothing: run it again when nothing \
         else is done here",
        humantime::format_duration(*stalled)
    )]
    Disturbed {
        /// For how long, without a pause.
        stalled: Duration,
        /// What did not come about.
        problem: Box<EngineError>,
    },
}

/// Whether a cluster with this store, on this ground, is one that a scenario can be run on.
pub fn suits(scenario: &Scenario, ground: Ground, store: &Store) -> Result<(), EngineError> {
    if scenario.guards.store == StoreNeeded::OwnRedis && *store != Store::OwnRedis {
        let problem = "it breaks Redis, so it needs one of its own; run it without --redis and --embedded";
        return Err(EngineError::Guard(problem.to_owned()));
    }
    if scenario.guards.network == NetworkNeeded::Lab && ground != Ground::Lab {
        let problem = "it is about packets on a network; run it with --lab, as root";
        return Err(EngineError::Guard(problem.to_owned()));
    }
    Ok(())
}

/// Waits until a cluster is whole, seen from outside and by itself, and has its leader where it is wanted.
pub(crate) async fn made_ready(
    backend: &mut dyn Backend,
    api: &dyn ClusterApi,
    leader: LeaderPlace,
    within: Duration,
) -> Result<ClusterStatus, EngineError> {
    backend.wait_healthy(within).await?;
    let healthy = conditions::wait_healthy(backend, api, within).await?;
    run::arrange_leader(leader, api, backend.layout(), healthy).await
}

/// Runs a scenario. The cluster is running; afterwards it is whole again, unless this is an error. A drill that is aborted
/// leaves a whole cluster too: steps that wait are left, then comes the way back.
pub async fn run(
    scenario: &Scenario,
    backend: &mut dyn Backend,
    api: &dyn ClusterApi,
    options: &Options,
    progress: &mut (dyn FnMut(DrillProgress) + Send),
) -> Result<Report, EngineError> {
    suits(scenario, backend.layout().ground, &backend.layout().store)?;
    let (runs, began) = (options.runs.max(1), run::wall_now());
    let mut reports = Vec::new();
    let mut audit = Audit::clean();
    let mut aborted = false;
    let _awake = Awake::keep();
    let pulse = Pulse::start()?;
    for number in 1..=runs {
        let mut tell = |now: &str, clients: Option<&Arc<Recorder>>| {
            progress(DrillProgress { run: number, runs, now: now.to_owned(), clients: clients.cloned() });
        };
        // Until its first step a run has changed nothing, and can be left at any moment.
        let began = Instant::now();
        let new = run::Run::new(scenario, backend, api, options.abort.clone(), &mut tell);
        let Some(run) = options.abort.run_until_cancelled(new).await else {
            aborted = true;
            break;
        };
        let performed = match run {
            Ok(run) => run.perform(number).await,
            Err(error) => Err(error),
        };
        let stalled = pulse.most_lost(began, Instant::now());
        let (mut report, found) =
            performed.map_err(|problem| excused(problem, stalled, disturbs(backend.layout().profile)))?;
        report.machine_stalled_ms = Some(run::whole_ms(stalled));
        report.logs = backend.logs();
        aborted = report.aborted;
        audit.merge(found);
        reports.push(report);
        if aborted {
            break;
        }
    }
    let mut report = verdict::judge(scenario, backend.layout(), began, reports, audit, aborted);
    if matches!(report.verdict, Verdict::Pass | Verdict::Aborted) {
        report.runs.iter_mut().for_each(|run| run.logs.clear());
    }
    Ok(report)
}

/// What a machine that stood still for this long explains, which is what did not come about in time.
fn excused(problem: EngineError, stalled: Duration, disturbs: Duration) -> EngineError {
    let is_late = match &problem {
        EngineError::Guard(_) | EngineError::NotHealthy { .. } | EngineError::Api(_) => true,
        EngineError::Backend(error) => error.is_late(),
        EngineError::Store(_) | EngineError::Io(_) | EngineError::Disturbed { .. } => false,
    };
    if stalled < disturbs || !is_late {
        return problem;
    }
    let stalled = Duration::from_millis(run::whole_ms(stalled));
    EngineError::Disturbed { stalled, problem: Box::new(problem) }
}

#[cfg(test)]
mod tests;
