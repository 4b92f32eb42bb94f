//! A whole cluster on this machine: what its keepers, `demo` and `lab up`, have in common.

use crate::cli::CliError;
use crate::client_file::ClientFile;
use crate::drill_api::DrillApi;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal;
use std::path::Path;
use std::time::Duration;
use tokio::sync::mpsc;
use twinsite_drill::engine::{ClusterApi, WatchItem};
use twinsite_drill::layout::{Layout, Store};
use twinsite_drill::process::Launcher;
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

/// Told when the process shall end: Ctrl-C, SIGTERM, or the end of its terminal.
pub async fn interrupted() {
    use tokio::signal::unix::{SignalKind, signal};
    let told = |kind| async move {
        match signal(kind) {
            Ok(mut signal) => drop(signal.recv().await),
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        () = told(SignalKind::terminate()) => {}
        () = told(SignalKind::hangup()) => {}
    }
}

/// What is going on, on one line of a terminal, or a line each time it changes.
pub struct Progress {
    bar: ProgressBar,
    terminal: bool,
}

impl Progress {
    /// On standard error.
    pub fn new() -> Self {
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

    /// So many of those that are waited for are ready.
    pub fn starting(&self, stage: &str, done: usize, of: usize) {
        if self.terminal || done == of {
            self.say(&format!("waiting for {stage}: {done}/{of}"));
        }
    }

    /// Says on a terminal what may be over, or refused, at once; elsewhere it is not worth a line.
    pub fn hint(&self, text: &str) {
        if self.terminal {
            self.bar.set_message(text.to_owned());
        }
    }

    /// Says what is going on now.
    pub fn say(&self, text: &str) {
        if self.terminal {
            self.bar.set_message(text.to_owned());
        } else {
            anstream::eprintln!("{text}");
        }
    }

    /// Leaves the line to others.
    pub fn end(&self) {
        self.bar.finish_and_clear();
    }
}
