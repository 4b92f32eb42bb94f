//! `twinsite guardian`: watches one node, and tells the cluster what ended with it.

use crate::cli::CliError;
use crate::cli::arguments::NodeArguments;
use crate::config;
use crate::identity::Credentials;
use crate::node::{ended_by_signal, exit_with_stdin};
use crate::peer::Peers;
use crate::telemetry;
use futures_util::stream::{FuturesUnordered, StreamExt};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use twinsite_agents::{Peers as _, tell};
use twinsite_consensus::TokioRuntime;
use twinsite_controller::{Release, ReleasedBy};
use twinsite_floating_ip::guardian::{self, Ended, GuardianConfig, Releases};
use twinsite_model::NodeId;

/// How long one node may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_millis(500);
/// How often connections are kept warm, so that a release costs no handshake.
const WARM_EVERY: Duration = Duration::from_secs(1);

/// Runs until it is told to end.
pub fn run(arguments: &NodeArguments) -> Result<(), CliError> {
    let loaded = config::load(&arguments.config)?;
    let credentials = Credentials::load(&loaded.node.tls)?;
    credentials.check_node(&loaded.node.tls.cert, &loaded.spec.cluster, loaded.me.id)?;
    telemetry::start(arguments.log);
    let data = loaded.node.data.clone();
    std::fs::create_dir_all(&data).map_err(|source| CliError::Data { path: data.clone(), source })?;
    exit_with_stdin(loaded.node.lab.exit_with_stdin);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| CliError::System { what: "start the runtime", source })?;
    runtime.block_on(async {
        let peers = Peers::new(loaded.me.id, &loaded.spec, credentials.peer_tls()?, loaded.node.dial.clone());
        let stop = ended_by_signal()?;
        tokio::spawn(keep_warm(peers.clone(), stop.clone()));
        let releases = Arc::new(ToCluster { me: loaded.me.id, peers });
        guardian::run(&GuardianConfig { data }, releases, stop).await?;
        Ok(())
    })
}

/// Tells the cluster.
struct ToCluster {
    me: NodeId,
    peers: Peers,
}

impl Releases for ToCluster {
    fn ended(&self, ended: Ended) {
        let release = Release {
            ip: ended.ip,
            node: self.me,
            incarnation: ended.incarnation,
            token: ended.token,
            by: ReleasedBy::Guardian,
        };
        tracing::warn!(ip = %release.ip, token = %release.token, "the node's process has ended; telling the cluster");
        tokio::spawn(tell::<TokioRuntime, _>(self.peers.clone(), release));
    }
}

async fn keep_warm(peers: Peers, stop: CancellationToken) {
    loop {
        let nodes = peers.everybody().into_iter();
        let pinged: FuturesUnordered<_> = nodes.map(|node| peers.ping(node, ANSWER_WITHIN)).collect();
        drop(pinged.collect::<Vec<_>>().await);
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(WARM_EVERY) => {}
        }
    }
}
