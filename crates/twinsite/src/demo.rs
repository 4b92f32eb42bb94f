//! A whole cluster on this machine: to look at, to try, and to break on purpose.

use crate::cli::arguments::DemoArguments;
use crate::cli::{CliError, Exit, output};
use crate::drill_api::DrillApi;
use crate::local_cluster::{self, LocalCluster};
use crate::progress::Progress;
use crate::scenarios;
use crate::signals::interrupted;
use std::sync::Arc;
use twinsite_drill::engine;
use twinsite_drill::lab::Lab;
use twinsite_drill::layout::{Family, Ground, Shape};
use twinsite_drill::process::{Cluster, ClusterOptions, Launcher};
use twinsite_drill::scenario::Scenario;
use twinsite_model::Profile;

/// Makes the lab, if one is wanted, and goes where its clients are, before there is a runtime with threads of its own.
pub fn enter_lab(arguments: &DemoArguments) -> Result<Option<Arc<Lab>>, CliError> {
    if !arguments.lab || arguments.list {
        return Ok(None);
    }
    let scenario = arguments.exercise.as_deref().map(scenarios::load).transpose()?;
    let shape = shape(arguments, scenario.as_ref().map(|chosen| &chosen.scenario));
    local_cluster::enter_lab(&shape).map(Some)
}

/// How many of what, and with which addresses.
fn shape(arguments: &DemoArguments, scenario: Option<&Scenario>) -> Shape {
    let shape = scenario.map_or_else(Shape::default, |scenario| scenario.topology.shape());
    let family = if arguments.ipv6 { Family::Ipv6 } else { shape.family };
    Shape { family, ..shape }
}

/// Starts the cluster; then follows it until Ctrl-C, or runs an exercise and ends.
pub async fn run(arguments: DemoArguments, lab: Option<Arc<Lab>>) -> Result<Exit, CliError> {
    if arguments.list {
        return scenarios::list("EXERCISE", arguments.json);
    }
    let scenario =
        arguments.exercise.as_deref().map(scenarios::load).transpose()?.map(|chosen| chosen.scenario);
    let as_client = lab.as_ref().map(|lab| format!("{} ", lab.as_client())).unwrap_or_default();
    let launcher = Launcher::new(std::env::current_exe().map_err(CliError::Output)?);
    let (redis, embedded) = (arguments.redis.as_deref(), arguments.embedded);
    let store = local_cluster::store(redis, embedded, scenario.as_ref(), &launcher)?;
    if let Some(scenario) = &scenario {
        // Said before anything is started for it.
        let ground = if lab.is_some() { Ground::Lab } else { Ground::Loopback };
        engine::suits(scenario, ground, &store)?;
    }
    let options = ClusterOptions {
        store,
        launcher,
        directory: arguments.directory.clone(),
        profile: local_cluster::profile(arguments.profile.map(Profile::from), scenario.as_ref()),
        shape: shape(&arguments, scenario.as_ref()),
        lab,
    };
    let progress = Progress::new();
    let mut local = tokio::select! {
        started = LocalCluster::start(options, &progress) => started?,
        () = interrupted() => return Ok(Exit::Refused), // dropped: everything that was started ends
    };
    let outcome = tokio::select! {
        outcome = attend(&arguments, scenario.as_ref(), &mut local, &progress, &as_client) => outcome,
        () = interrupted() => Ok(Exit::Done),
    };
    progress.say("ending all processes");
    local.stop().await;
    progress.end();
    outcome
}

async fn attend(
    arguments: &DemoArguments,
    scenario: Option<&Scenario>,
    local: &mut LocalCluster,
    progress: &Progress,
    as_client: &str,
) -> Result<Exit, CliError> {
    let LocalCluster { cluster, api } = local;
    let Some(scenario) = scenario else {
        return follow(cluster, api, progress, as_client).await;
    };
    let options = engine::Options { runs: arguments.runs, ..engine::Options::default() };
    let mut tell = |at: engine::DrillProgress| {
        progress.say(&format!("{} run {}/{}: {}", scenario.name.get_ref(), at.run, at.runs, at.now));
    };
    let report = engine::run(scenario, cluster, api, &options, &mut tell).await?;
    progress.end();
    if arguments.json {
        let text = report.to_json().map_err(|error| CliError::Output(error.into()))?;
        output::line(&text)?;
    } else {
        report.write_text(&mut anstream::stdout()).map_err(CliError::Output)?;
    }
    Ok(report.verdict.into())
}

/// Prints what to try, then every change.
async fn follow(
    cluster: &Cluster,
    api: &DrillApi,
    progress: &Progress,
    as_client: &str,
) -> Result<Exit, CliError> {
    let mut changes = local_cluster::watch(api).await?;
    let names = api.names().await;
    progress.end();
    output::line(&introduction(cluster, as_client))?;
    while let Some(change) = changes.recv().await {
        output::line(&crate::cli::events::line(&names, &change))?;
    }
    Err(CliError::Unreachable("the cluster's API went away".to_owned()))
}

/// `as_client` is what comes before a command where the cluster is reached.
fn introduction(cluster: &Cluster, as_client: &str) -> String {
    let layout = cluster.layout();
    format!(
        "All healthy: {cluster}.\n\n\
         The floating address is http://{floating}\n\n\
         Try, in another terminal:\n\
         \x20 {as_client}curl -s -H 'x-twinsite-trace: 1' -i http://{floating}/health\n\
         \x20 twinsite status\n\
         \x20 twinsite switchover --plan\n\
         \x20 twinsite switchover --to {elsewhere}\n\
         \x20 twinsite explain\n\
         or kill something: the processes' folders and logs are in {directory}\n\n\
         (`twinsite` is {program}.) Changes follow; Ctrl-C ends everything.\n",
        cluster = local_cluster::in_words(layout),
        floating = layout.floating,
        elsewhere = local_cluster::elsewhere(layout),
        directory = cluster.directory().display(),
        program = local_cluster::this_program(),
    )
}
