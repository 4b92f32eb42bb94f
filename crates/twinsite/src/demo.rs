//! A whole cluster on this machine: to look at, to try, and to break on purpose.

use crate::cli::arguments::DemoArguments;
use crate::cli::{CliError, Exit, output};
use crate::client_file;
use crate::cluster_here::{self, CLIENT_FILE, Progress, interrupted, write_client_file};
use crate::drill_api::DrillApi;
use std::path::Path;
use std::sync::Arc;
use twinsite_drill::engine;
use twinsite_drill::lab::Lab;
use twinsite_drill::layout::{Family, Ground, Layout, Shape, Store};
use twinsite_drill::process::{self, Cluster, ClusterOptions, Launcher};
use twinsite_drill::scenario::{self, NetworkNeeded, Scenario};
use twinsite_model::Profile;

/// Makes the lab, if one is wanted, and goes where its clients are: this thread, and all that it starts later. So a lab
/// is made before there is a runtime with threads of its own.
pub fn enter_lab(arguments: &DemoArguments) -> Result<Option<Arc<Lab>>, CliError> {
    if !arguments.lab || arguments.list {
        return Ok(None);
    }
    let scenario = arguments.exercise.as_deref().map(load).transpose()?;
    let shape = shape(arguments, scenario.as_ref());
    // Who has which address in a lab does not depend on the block, the timings and the store.
    let layout = Layout::on(Ground::Lab, 0, Profile::Lan, &shape, Store::Embedded);
    let lab = Lab::up(&layout)?;
    lab.enter()?;
    Ok(Some(lab))
}

/// How many of what, and with which addresses.
fn shape(arguments: &DemoArguments, scenario: Option<&Scenario>) -> Shape {
    let shape = scenario.map_or_else(Shape::default, |scenario| scenario.topology.shape());
    let family = if arguments.ipv6 { Family::Ipv6 } else { shape.family };
    Shape { family, ..shape }
}

/// Those that the person asks for, else those that the exercise is about, else the fast ones.
fn profile(arguments: &DemoArguments, scenario: Option<&Scenario>) -> Profile {
    let of_scenario = scenario.and_then(|scenario| scenario.topology.profile);
    arguments.profile.map(Profile::from).or(of_scenario).unwrap_or(Profile::Lan)
}

/// Starts the cluster; then follows it until Ctrl-C, or runs an exercise and ends.
pub async fn run(arguments: DemoArguments, lab: Option<Arc<Lab>>) -> Result<Exit, CliError> {
    if arguments.list {
        return list(arguments.json);
    }
    let scenario = arguments.exercise.as_deref().map(load).transpose()?;
    let as_client = lab.as_ref().map(|lab| format!("{} ", lab.as_client())).unwrap_or_default();
    let namespace = lab.as_ref().map(|lab| lab.clients());
    let launcher = Launcher::new(std::env::current_exe().map_err(CliError::Output)?);
    let store = store(&arguments, &launcher)?;
    if let Some(scenario) = &scenario {
        // Said before anything is started for it.
        let ground = if lab.is_some() { Ground::Lab } else { Ground::Loopback };
        engine::suits(scenario, ground, &store)?;
    }
    let options = ClusterOptions {
        store,
        launcher,
        directory: arguments.directory.clone(),
        profile: profile(&arguments, scenario.as_ref()),
        shape: shape(&arguments, scenario.as_ref()),
        lab,
    };
    let progress = Progress::new();
    let mut tell = |at: process::Progress| progress.starting(at.stage, at.done, at.of);
    let mut cluster = tokio::select! {
        started = Cluster::start(options, &mut tell) => started?,
        () = interrupted() => return Ok(Exit::Refused), // dropped: everything that was started ends
    };
    let file = write_client_file(cluster.directory(), cluster.layout(), namespace)?;
    client_file::point_demo_at(&cluster.directory().join(CLIENT_FILE))?;
    let api = DrillApi::connect(&file, cluster.layout())?;
    let outcome = tokio::select! {
        outcome = attend(&arguments, scenario.as_ref(), &mut cluster, &api, &progress, &as_client) => outcome,
        () = interrupted() => Ok(Exit::Done),
    };
    progress.say("ending all processes");
    client_file::forget_demo(&cluster.directory().join(CLIENT_FILE));
    cluster.stop().await;
    progress.end();
    outcome
}

async fn attend(
    arguments: &DemoArguments,
    scenario: Option<&Scenario>,
    cluster: &mut Cluster,
    api: &DrillApi,
    progress: &Progress,
    as_client: &str,
) -> Result<Exit, CliError> {
    let Some(scenario) = scenario else {
        return follow(cluster, api, progress, as_client).await;
    };
    let options = engine::Options { runs: arguments.runs };
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
    Ok(if report.passed() { Exit::Done } else { Exit::Refused })
}

/// Prints what to try, then every change.
async fn follow(
    cluster: &Cluster,
    api: &DrillApi,
    progress: &Progress,
    as_client: &str,
) -> Result<Exit, CliError> {
    let mut changes = cluster_here::watch(api).await?;
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
        cluster = cluster_here::in_words(layout),
        floating = layout.floating,
        elsewhere = cluster_here::elsewhere(layout),
        directory = cluster.directory().display(),
        program = cluster_here::this_program(),
    )
}

fn list(json: bool) -> Result<Exit, CliError> {
    let all: Vec<_> = scenario::builtins()
        .iter()
        .filter_map(|builtin| Some((builtin.name, builtin.scenario().ok()?)))
        .map(|(name, scenario)| (name, scenario.guards.network == NetworkNeeded::Lab, scenario.description))
        .collect();
    if json {
        let list: Vec<_> = all
            .iter()
            .map(|(name, needs_lab, description)| {
                serde_json::json!({ "name": name, "description": description, "needs_lab": needs_lab })
            })
            .collect();
        output::json(&serde_json::Value::Array(list))?;
    } else {
        let mut table = output::table(&["EXERCISE", "WHAT HAPPENS"]);
        for (name, needs_lab, description) in all {
            let description = if needs_lab { format!("{description} (needs --lab)") } else { description };
            table.add_row([name, &description]);
        }
        output::line(&table.to_string())?;
    }
    Ok(Exit::Done)
}

/// An exercise by its name, or a scenario by its file.
fn load(name: &str) -> Result<Scenario, CliError> {
    let errors = |errors: Vec<scenario::ScenarioError>| {
        CliError::Usage(errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))
    };
    if Path::new(name).extension().is_some_and(|extension| extension == "toml") {
        return Scenario::load(Path::new(name)).map_err(errors);
    }
    match scenario::builtin(name) {
        Ok(builtin) => builtin.scenario().map_err(errors),
        Err(known) => {
            let known = known.join(", ");
            Err(CliError::Usage(format!(
                "there is no exercise `{name}`; there are: {known}; or name a .toml file"
            )))
        }
    }
}

fn store(arguments: &DemoArguments, launcher: &Launcher) -> Result<Store, CliError> {
    match &arguments.redis {
        Some(url) if url.starts_with("redis://") || url.starts_with("rediss://") => {
            Ok(Store::OtherRedis(url.clone()))
        }
        Some(url) => {
            Err(CliError::Usage(format!("--redis {url}: write redis://HOST:PORT or rediss://HOST:PORT")))
        }
        None if arguments.embedded => Ok(Store::Embedded),
        None => {
            let store = cluster_here::own_store(launcher);
            if store == Store::Embedded {
                let wanted_redis =
                    arguments.exercise.as_deref().is_some_and(|name| name.starts_with("redis-"));
                if wanted_redis {
                    let problem = format!("this exercise breaks Redis, and {}", cluster_here::INSTALL_REDIS);
                    return Err(CliError::Usage(problem));
                }
                anstream::eprintln!("{}", cluster_here::NO_REDIS);
            }
            Ok(store)
        }
    }
}
