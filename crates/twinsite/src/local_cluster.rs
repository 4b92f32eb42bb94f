//! A whole cluster on this machine: what those who start one, `demo`, `drill` and `lab up`, have in common.

use crate::cli::CliError;
use crate::client_file::{self, ClientFile};
use crate::drill_api::DrillApi;
use crate::progress::Progress;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use twinsite_drill::engine::{ClusterApi, WatchItem};
use twinsite_drill::lab::Lab;
use twinsite_drill::layout::{Ground, Layout, Shape, Store};
use twinsite_drill::process::{self, Cluster, ClusterOptions, Launcher};
use twinsite_drill::scenario::{Scenario, StoreNeeded};
use twinsite_model::Profile;
use twinsite_model::dial::DialMap;

/// How long the API of a healthy cluster may take until it answers.
const API_PATIENCE: Duration = Duration::from_secs(10);

/// How a cluster is reached, in its own folder.
pub const CLIENT_FILE: &str = "client.toml";

/// Where session placement goes if nobody says otherwise: into a Redis of the cluster's own, if there is one to start.
pub fn own_store(launcher: &Launcher) -> Store {
    if launcher.has_redis() { Store::OwnRedis } else { Store::Embedded }
}

/// What is said to who did not ask for the embedded store.
pub const NO_REDIS: &str = "no redis-server found: session placement goes into the embedded store";
/// What is said to who cannot do without a Redis.
pub const INSTALL_REDIS: &str =
    "there is no redis-server on this machine; install it (Debian: apt-get install redis-server)";

/// Where session placement goes, by what a person asks for and a scenario needs.
pub fn store(
    redis: Option<&str>,
    embedded: bool,
    scenario: Option<&Scenario>,
    launcher: &Launcher,
) -> Result<Store, CliError> {
    match redis {
        Some(url) if url.starts_with("redis://") || url.starts_with("rediss://") => {
            return Ok(Store::OtherRedis(url.to_owned()));
        }
        Some(url) => {
            return Err(CliError::Usage(format!(
                "--redis {url}: write redis://HOST:PORT or rediss://HOST:PORT"
            )));
        }
        None if embedded => return Ok(Store::Embedded),
        None => {}
    }
    let store = own_store(launcher);
    if store == Store::Embedded {
        if scenario.is_some_and(|scenario| scenario.guards.store == StoreNeeded::OwnRedis) {
            return Err(CliError::Usage(format!("this exercise breaks Redis, and {INSTALL_REDIS}")));
        }
        anstream::eprintln!("{NO_REDIS}");
    }
    Ok(store)
}

/// The timings that a person asks for, else those that the scenario is about, else the fast ones.
pub fn profile(wanted: Option<Profile>, scenario: Option<&Scenario>) -> Profile {
    let of_scenario = scenario.and_then(|scenario| scenario.topology.profile);
    wanted.or(of_scenario).unwrap_or(Profile::Lan)
}

/// Makes a lab for a cluster of this shape, and goes where its clients are: this thread, and all that it starts later. So
/// a lab is made before there is a runtime with threads of its own.
pub fn enter_lab(shape: &Shape) -> Result<Arc<Lab>, CliError> {
    // Who has which address in a lab does not depend on the block, the timings and the store.
    let layout = Layout::on(Ground::Lab, 0, Profile::Lan, shape, Store::Embedded);
    let lab = Lab::up(&layout)?;
    lab.enter()?;
    Ok(lab)
}

/// A running cluster that commands find by themselves, and the way to ask it. Dropping it ends everything at once.
pub struct LocalCluster {
    /// The processes.
    pub cluster: Cluster,
    /// Its API.
    pub api: DrillApi,
}

impl LocalCluster {
    /// Starts it, and waits until all is healthy.
    pub async fn start(options: ClusterOptions, progress: &Progress) -> Result<Self, CliError> {
        let namespace = options.lab.as_ref().map(|lab| lab.clients());
        let mut tell = |at: process::Progress| progress.starting(at.stage, at.done, at.of);
        let cluster = Cluster::start(options, &mut tell).await?;
        let file = write_client_file(cluster.directory(), cluster.layout(), namespace)?;
        client_file::point_demo_at(&cluster.directory().join(CLIENT_FILE))?;
        let api = DrillApi::connect(&file, cluster.layout())?;
        Ok(Self { cluster, api })
    }

    /// Ends it in order.
    pub async fn stop(self) {
        client_file::forget_demo(&self.cluster.directory().join(CLIENT_FILE));
        self.cluster.stop().await;
    }
}

/// Writes how the cluster is reached, into its own folder. A cluster in a lab is reached from a network namespace.
pub fn write_client_file(
    directory: &Path,
    layout: &Layout,
    namespace: Option<String>,
) -> Result<ClientFile, CliError> {
    let file = ClientFile {
        cluster: layout.cluster.clone(),
        endpoints: layout.nodes.iter().map(|node| layout.api(node)).collect(),
        namespace,
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

/// Waits until the API of a healthy cluster answers, and follows its changes.
pub async fn watch(api: &DrillApi) -> Result<mpsc::Receiver<WatchItem>, CliError> {
    let ready = async {
        loop {
            match api.watch().await {
                Ok(changes) => return changes,
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    };
    let watching = tokio::time::timeout(API_PATIENCE, ready).await;
    watching.map_err(|_| CliError::Unreachable("the cluster's API did not answer".to_owned()))
}

/// What a cluster consists of, in a sentence.
pub fn in_words(layout: &Layout) -> String {
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
    format!("{}; {store}", sites.join(", "))
}

/// Where a planned move would go: to the other site than the one that is preferred.
pub fn elsewhere(layout: &Layout) -> &str {
    layout.serving_sites().last().map_or("sbg", |site| site.as_str())
}

fn counted(count: usize, one: &str, several: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { several })
}

/// This program, for those who type its name.
pub fn this_program() -> String {
    std::env::current_exe().map_or_else(|_| "this program".to_owned(), |path| path.display().to_string())
}
