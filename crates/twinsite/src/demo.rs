//! A whole cluster on this machine: to look at, to try, and to break on purpose.

use crate::cli::arguments::DemoArguments;
use crate::cli::{CliError, Exit, output};
use crate::client_file::{self, ClientFile};
use crate::drill_api::DrillApi;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use twinsite_drill::engine::{self, ClusterApi};
use twinsite_drill::lab::Lab;
use twinsite_drill::layout::{Ground, Layout, Shape, Store};
use twinsite_drill::process::{Cluster, ClusterOptions, Launcher};
use twinsite_drill::scenario::{self, NetworkNeeded, Scenario};
use twinsite_model::Profile;
use twinsite_model::dial::DialMap;

/// How long the API of a healthy cluster may take until it answers.
const API_PATIENCE: Duration = Duration::from_secs(10);

/// Makes the lab, if one is wanted, and goes where its clients are: this thread, and all that it starts later. So a lab
/// is made before there is a runtime with threads of its own.
pub fn enter_lab(arguments: &DemoArguments) -> Result<Option<Arc<Lab>>, CliError> {
    if !arguments.lab || arguments.list {
        return Ok(None);
    }
    let scenario = arguments.exercise.as_deref().map(load).transpose()?;
    let shape = scenario.as_ref().map_or_else(Shape::default, |scenario| scenario.topology.shape());
    // Who has which address in a lab does not depend on the block, the timings and the store.
    let layout = Layout::on(Ground::Lab, 0, Profile::Lan, &shape, Store::Embedded);
    let lab = Lab::up(&layout)?;
    lab.enter()?;
    Ok(Some(lab))
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
        shape: scenario.as_ref().map_or_else(Shape::default, |scenario| scenario.topology.shape()),
        lab,
    };
    let progress = Progress::new();
    let mut tell = |at| progress.starting(&at);
    let mut cluster = tokio::select! {
        started = Cluster::start(options, &mut tell) => started?,
        () = interrupted() => return Ok(Exit::Refused), // dropped: everything that was started ends
    };
    let file = write_client_file(cluster.directory(), cluster.layout())?;
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
    let ready = async {
        loop {
            match api.watch().await {
                Ok(changes) => return changes,
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    };
    let watching = tokio::time::timeout(API_PATIENCE, ready).await;
    let mut changes =
        watching.map_err(|_| CliError::Unreachable("the cluster's API did not answer".to_owned()))?;
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
    let store = match &layout.store {
        Store::OwnRedis => format!("Redis on {}", layout.redis()),
        Store::OtherRedis(_) => "your Redis".to_owned(),
        Store::Embedded => "the embedded session store".to_owned(),
    };
    let sites: Vec<_> = layout
        .sites
        .iter()
        .map(|site| match layout.instances_at(site).count() {
            0 => format!("{site} as witness"),
            instances => {
                let proxies = layout.nodes_at(site).count();
                format!(
                    "{site} with {} and {}",
                    counted(proxies, "proxy", "proxies"),
                    counted(instances, "meeting instance", "meeting instances")
                )
            }
        })
        .collect();
    // Where a planned move would go: to the other site than the one that is preferred.
    let elsewhere = layout.serving_sites().last().map_or("sbg", |site| site.as_str());
    format!(
        "All healthy: {sites}; {store}.\n\n\
         The floating address is http://{floating}\n\n\
         Try, in another terminal:\n\
         \x20 {as_client}curl -s -H 'x-twinsite-trace: 1' -i http://{floating}/health\n\
         \x20 {as_client}twinsite status\n\
         \x20 {as_client}twinsite switchover --plan\n\
         \x20 {as_client}twinsite switchover --to {elsewhere}\n\
         \x20 {as_client}twinsite explain\n\
         or kill something: the processes' folders and logs are in {directory}\n\n\
         (`twinsite` is {program}.) Changes follow; Ctrl-C ends everything.\n",
        sites = sites.join(", "),
        floating = layout.floating,
        directory = cluster.directory().display(),
        program = std::env::current_exe()
            .map_or_else(|_| "this program".to_owned(), |path| path.display().to_string()),
    )
}

fn counted(count: usize, one: &str, several: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { several })
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
        None if launcher.has_redis() => Ok(Store::OwnRedis),
        None => {
            let wanted_redis = arguments.exercise.as_deref().is_some_and(|name| name.starts_with("redis-"));
            if wanted_redis {
                let problem = "this exercise breaks Redis, and there is no redis-server on this machine; \
                               install it (Debian: apt-get install redis-server)";
                return Err(CliError::Usage(problem.to_owned()));
            }
            anstream::eprintln!("no redis-server found: session placement goes into the embedded store");
            Ok(Store::Embedded)
        }
    }
}

/// How a cluster is reached, in its own folder.
const CLIENT_FILE: &str = "client.toml";

/// Writes how the cluster is reached.
pub(crate) fn write_client_file(directory: &Path, layout: &Layout) -> Result<ClientFile, CliError> {
    let file = ClientFile {
        cluster: layout.cluster.clone(),
        endpoints: layout.nodes.iter().map(|node| layout.api(node)).collect(),
        tls: crate::config::TlsConfig {
            ca: directory.join("ca.pem"),
            cert: directory.join("operator.pem"),
            key: directory.join("operator.key"),
        },
        dial: DialMap::default(),
    };
    file.write(&directory.join(CLIENT_FILE))?;
    Ok(file)
}

pub(crate) async fn interrupted() {
    use tokio::signal::unix::{SignalKind, signal};
    let terminated = async {
        match signal(SignalKind::terminate()) {
            Ok(mut signal) => drop(signal.recv().await),
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        () = terminated => {}
    }
}

/// What is going on, on one line of a terminal, or a line each time it changes.
struct Progress {
    bar: ProgressBar,
    terminal: bool,
}

impl Progress {
    fn new() -> Self {
        let terminal = std::io::stderr().is_terminal();
        let bar = ProgressBar::with_draw_target(
            None,
            if terminal { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() },
        );
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} ({elapsed})") {
            bar.set_style(style);
        }
        if terminal {
            bar.enable_steady_tick(Duration::from_millis(100));
        }
        Self { bar, terminal }
    }

    fn starting(&self, at: &twinsite_drill::process::Progress) {
        let text = format!("waiting for {}: {}/{}", at.stage, at.done, at.of);
        if self.terminal || at.done == at.of {
            self.say(&text);
        }
    }

    fn say(&self, text: &str) {
        if self.terminal {
            self.bar.set_message(text.to_owned());
        } else {
            anstream::eprintln!("{text}");
        }
    }

    fn end(&self) {
        self.bar.finish_and_clear();
    }
}
