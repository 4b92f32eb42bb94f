//! The process that keeps a lab, and what it says to who started it: a person at its terminal, or `twinsite lab up`, which
//! reads a line of JSON for each thing that it should know.

use crate::cli::lab_arguments::UpArguments;
use crate::cli::{CliError, Exit, output, runtime};
use crate::drill_api::DrillApi;
use crate::local_cluster::{self, CLIENT_FILE, write_client_file};
use crate::progress::Progress;
use crate::signals::interrupted;
use crate::{client_file, telemetry};
use serde::{Deserialize, Serialize};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::oneshot;
use twinsite_drill::lab::{Lab, leftovers};
use twinsite_drill::layout::{Family, Ground, Layout, Shape, Store};
use twinsite_drill::process::{self, Cluster, ClusterOptions, Launcher, MeetingProgram};
use twinsite_drill::standing::{Claim, ControlSocket, Keeper, LabName, Register};
use twinsite_model::{NodeName, SiteName};

/// What the process says on its standard output while it starts.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Word {
    /// What it waits for.
    Waiting {
        /// In a few words.
        stage: String,
        /// How many of them are ready.
        done: usize,
        /// How many there are.
        of: usize,
    },
    /// The lab is up.
    Ready(Box<Ready>),
    /// It could not be made, and nothing is left of it.
    Failed {
        /// In one line.
        why: String,
        /// The exit code.
        code: u8,
    },
}

/// A lab that is up.
#[derive(Debug, Serialize, Deserialize)]
pub struct Ready {
    /// Its name.
    pub name: LabName,
    /// The process that keeps it.
    pub pid: u32,
    /// What is in it, in a sentence.
    pub what: String,
    /// The floating address.
    pub floating: SocketAddr,
    /// The file by which commands reach its cluster.
    pub client_file: PathBuf,
    /// The folder with a folder for each process, and its log in it.
    pub directory: PathBuf,
    /// The network namespace from which clients come.
    pub clients: String,
    /// A node to look at.
    pub a_node: Option<NodeName>,
    /// The sites, for those who change links.
    pub sites: Vec<SiteName>,
    /// The site to which a planned move would go.
    pub elsewhere: String,
}

impl Ready {
    /// What a person may try.
    pub fn introduction(&self) -> String {
        let name = if self.name.as_str() == "lab" { String::new() } else { format!(" --name {}", self.name) };
        let [one, other] = [0, 1].map(|at| self.sites.get(at).map_or("SITE", SiteName::as_str));
        format!(
            "The lab `{lab}` is up, and all in it is healthy: {what}.\n\n\
             The floating address is http://{floating}, on a network of the lab's own.\n\n\
             Try:\n\
             \x20 export TWINSITE_CLIENT={client}\n\
             \x20 twinsite status\n\
             \x20 twinsite switchover --to {elsewhere}\n\
             \x20 twinsite lab status{name}\n\
             \x20 twinsite lab shell{name} clients -- curl -s -H 'x-twinsite-trace: 1' -i http://{floating}/health\n\
             \x20 twinsite lab shell{name} {node}\n\
             \x20 twinsite lab link{name} {one} {other} --delay 20ms\n\
             \x20 twinsite lab freeze{name} {node}\n\
             \x20 twinsite lab down{name}\n\n\
             The processes' folders and logs are in {directory}\n\
             (`twinsite` is {program}.)",
            lab = self.name,
            what = self.what,
            floating = self.floating,
            client = self.client_file.display(),
            elsewhere = self.elsewhere,
            node = self.a_node.as_ref().map_or("NODE", NodeName::as_str),
            directory = self.directory.display(),
            program = local_cluster::this_program(),
        )
    }
}

/// Whom the process tells how far it is.
enum Listener {
    /// A person.
    Terminal { progress: Progress, json: bool },
    /// `twinsite lab up`. It holds our standard input open for as long as somebody waits for the lab.
    Parent { left: Option<oneshot::Receiver<()>> },
}

impl Listener {
    fn new(arguments: &UpArguments) -> Self {
        if !arguments.detached {
            return Self::Terminal { progress: Progress::new(), json: arguments.json };
        }
        let (leaves, left) = oneshot::channel();
        std::thread::spawn(move || {
            drop(io::copy(&mut io::stdin().lock(), &mut io::sink()));
            leaves.send(()).ok();
        });
        Self::Parent { left: Some(left) }
    }

    fn starting(&self, at: &process::Progress) {
        match self {
            Self::Terminal { progress, .. } => progress.starting(at.stage, at.done, at.of),
            Self::Parent { .. } => {
                tell(&Word::Waiting { stage: at.stage.to_owned(), done: at.done, of: at.of });
            }
        }
    }

    fn ready(&self, ready: Ready) -> Result<(), CliError> {
        match self {
            Self::Parent { .. } => {
                tell(&Word::Ready(Box::new(ready)));
                Ok(())
            }
            Self::Terminal { progress, json } => {
                progress.end();
                print(&ready, *json)?;
                if *json { Ok(()) } else { output::line("Ctrl-C ends everything.") }
            }
        }
    }

    /// Done when nobody waits for the lab any more.
    fn gone(&mut self) -> impl Future<Output = ()> + use<> {
        let left = match self {
            Self::Terminal { .. } => None,
            Self::Parent { left } => left.take(),
        };
        async move {
            match left {
                Some(left) => drop(left.await),
                None => std::future::pending().await,
            }
        }
    }
}

/// Who has gone away needs no words.
fn tell(word: &Word) {
    if let Ok(mut line) = serde_json::to_vec(word) {
        line.push(b'\n');
        let mut out = io::stdout().lock();
        drop(out.write_all(&line).and_then(|()| out.flush()));
    }
}

/// Says that the lab is up.
pub fn print(ready: &Ready, json: bool) -> Result<(), CliError> {
    if !json {
        return output::line(&ready.introduction());
    }
    let Ready { name, pid, floating, client_file, directory, clients, .. } = ready;
    output::json(&serde_json::json!({
        "name": name,
        "pid": pid,
        "floating": floating,
        "client_file": client_file,
        "directory": directory,
        "clients": clients,
    }))
}

/// Which store the lab's cluster gets.
pub fn store(arguments: &UpArguments, launcher: &Launcher) -> Result<Store, CliError> {
    if arguments.embedded {
        return Ok(Store::Embedded);
    }
    match local_cluster::own_store(launcher) {
        Store::Embedded if arguments.redis => {
            Err(CliError::Usage(format!("--redis: {}", local_cluster::INSTALL_REDIS)))
        }
        store => Ok(store),
    }
}

/// Makes a lab and keeps it until it is told to end it. For a process without threads yet.
pub fn keep(arguments: &UpArguments) -> Result<Exit, CliError> {
    telemetry::start(crate::cli::arguments::LogFormat::Text);
    let mut listener = Listener::new(arguments);
    // Named as the person sees files, so before this process goes elsewhere.
    let meeting = match &arguments.meeting_program {
        None => MeetingProgram::Sample,
        Some(words) => {
            let folder = std::env::current_dir();
            let folder = folder.map_err(|source| CliError::System { what: "find this folder", source })?;
            MeetingProgram::Other { words: words.clone(), folder }
        }
    };
    if arguments.detached {
        let detached = rustix::process::setsid().map_err(io::Error::from).map(drop);
        let detached = detached.and_then(|()| std::env::set_current_dir("/"));
        detached.map_err(|source| CliError::System { what: "leave the terminal", source })?;
    }
    let kept = keep_lab(arguments, meeting, &mut listener);
    if let (Err(error), Listener::Parent { .. }) = (&kept, &listener) {
        tell(&Word::Failed { why: error.to_string(), code: error.code() });
    }
    kept
}

fn keep_lab(
    arguments: &UpArguments,
    meeting: MeetingProgram,
    listener: &mut Listener,
) -> Result<Exit, CliError> {
    let program = std::env::current_exe().map_err(CliError::Output)?;
    let launcher = Launcher { meeting, ..Launcher::new(program) };
    let shape = Shape {
        nodes_per_site: arguments.nodes_per_site,
        instances_per_site: arguments.instances_per_site,
        family: if arguments.ipv6 { Family::Ipv6 } else { Family::Ipv4 },
        ..Shape::default()
    };
    let options = ClusterOptions {
        store: store(arguments, &launcher)?,
        launcher,
        directory: None,
        profile: arguments.profile.into(),
        shape,
        lab: None,
    };
    // Who has which address in a lab does not depend on the block.
    let mut layout = Layout::on(Ground::Lab, 0, options.profile, &options.shape, options.store.clone());
    layout.cluster = arguments.name.clone();
    let claim = Register::default().claim(&arguments.name, &layout)?;
    let lab = Lab::up(&layout)?;
    // This thread, and all that the runtime starts.
    lab.enter()?;
    let namespaces: Vec<_> = lab.hosts().iter().map(|host| host.namespace.clone()).collect();
    let options =
        ClusterOptions { directory: Some(claim.found().files()), lab: Some(Arc::clone(&lab)), ..options };
    let runtime = runtime()?;
    let ended = runtime.block_on(attend(options, &claim, &lab, listener));
    runtime.shutdown_timeout(std::time::Duration::from_millis(200));
    // Shells that somebody has opened there, and what they left running.
    let left = leftovers::end_inhabitants(&namespaces);
    if !left.is_empty() {
        tracing::warn!(?left, "these processes in the lab cannot be ended");
    }
    drop(lab);
    drop(claim);
    ended
}

/// Starts the cluster, says so, and does what it is asked to until the end.
async fn attend(
    options: ClusterOptions,
    claim: &Claim,
    lab: &Arc<Lab>,
    listener: &mut Listener,
) -> Result<Exit, CliError> {
    let found = claim.found();
    let gone = listener.gone();
    let start = async {
        let mut tell = |at: process::Progress| listener.starting(&at);
        let cluster = Cluster::start(options, &mut tell).await?;
        let file = write_client_file(cluster.directory(), cluster.layout(), Some(lab.clients()))?;
        client_file::point_demo_at(&cluster.directory().join(CLIENT_FILE))?;
        drop(local_cluster::watch(&DrillApi::connect(&file, cluster.layout())?).await?);
        Ok::<_, CliError>(cluster)
    };
    let cluster = tokio::select! {
        started = start => started?,
        // Dropped: everything that was started ends.
        () = interrupted() => return Ok(Exit::Refused),
        () = gone => return Ok(Exit::Refused),
    };
    let mut keeper = Keeper::new(cluster, Arc::clone(lab), claim)?;
    let control = ControlSocket::listen(&found.control());
    let mut control =
        control.map_err(|source| CliError::System { what: "listen for `twinsite lab`", source })?;
    let layout = keeper.layout();
    listener.ready(Ready {
        name: found.name.clone(),
        pid: std::process::id(),
        what: local_cluster::in_words(layout),
        floating: layout.floating,
        client_file: found.client_file(),
        directory: found.files(),
        clients: lab.clients(),
        a_node: layout.nodes.first().map(|node| node.name.clone()),
        sites: layout.sites.clone(),
        elsewhere: local_cluster::elsewhere(layout).to_owned(),
    })?;
    tokio::select! {
        () = keeper.keep(&mut control) => {}
        () = interrupted() => {}
    }
    drop(control);
    client_file::forget_demo(&found.client_file());
    keeper.stop().await;
    Ok(Exit::Done)
}
