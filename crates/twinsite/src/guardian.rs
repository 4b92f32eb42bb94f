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
use twinsite_controller::{Release, ReleasedBy};
use twinsite_floating_ip::guardian::{self, Ended, GuardianConfig, Releases};
use twinsite_model::NodeId;

/// How long one node may take to hear of a release.
const TELL_TIMEOUT: Duration = Duration::from_millis(500);
/// The pause before a release is told again, at first and at most.
const AGAIN_MIN: Duration = Duration::from_millis(10);
const AGAIN_MAX: Duration = Duration::from_secs(1);
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
        tokio::spawn(tell(self.peers.clone(), release));
    }
}

/// Tells every node, again and again, until one of them knows a later token: only the leader acts on it, and who that
/// is may just be changing. Its own node is told too, which may live again by then and even lead, and which passes it on
/// to a leader that the guardian's file does not name.
async fn tell(peers: Peers, release: Release) {
    let mut pause = AGAIN_MIN;
    loop {
        let nodes = peers.everybody().into_iter();
        let mut told: FuturesUnordered<_> =
            nodes.map(|node| peers.release(node, &release, TELL_TIMEOUT)).collect();
        let mut taken = false;
        while let Some(answer) = told.next().await {
            let Ok((leads, current)) = answer else { continue };
            if current.is_some_and(|current| current > release.token) {
                return;
            }
            taken |= leads;
            if taken {
                break; // the others need not be waited for
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(AGAIN_MAX);
    }
}

async fn keep_warm(peers: Peers, stop: CancellationToken) {
    loop {
        let nodes = peers.everybody().into_iter();
        let pinged: FuturesUnordered<_> = nodes.map(|node| peers.ping(node, TELL_TIMEOUT)).collect();
        drop(pinged.collect::<Vec<_>>().await);
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(WARM_EVERY) => {}
        }
    }
}
