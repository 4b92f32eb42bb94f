//! The listeners of a node, beside the proxy's: other nodes, the public API, Prometheus.

use super::DrillDesk;
use super::api::NodeBackend;
use super::drill_runner::Access;
use super::metrics::{self, Readiness};
use super::run::Shared;
use crate::cli::CliError;
use crate::config::Loaded;
use crate::identity::{Credentials, caller};
use crate::peer::{self, Local};
use metrics_exporter_prometheus::PrometheusHandle;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use twinsite_agents::Desk;
use twinsite_api::{ClientTls, WatchHub};
use twinsite_consensus::grpc::{PeerCheck, service};

/// How soon a silent connection is probed, and how long the answer may take.
const KEEP_ALIVE: Duration = Duration::from_secs(2);
/// Requests at once on one connection.
const CONCURRENCY_MAX: usize = 256;

/// Bound before anything else is done: an address that is in use is found at once.
pub struct Listeners {
    peer: TcpListener,
    api: TcpListener,
    metrics: Option<(TcpListener, PrometheusHandle)>,
}

impl Listeners {
    /// Takes the addresses.
    pub async fn bind(loaded: &Loaded) -> Result<Self, CliError> {
        let peer = bind("node.peer", loaded.me.peer).await?;
        let api = bind("node.api", loaded.me.api).await?;
        let metrics = match &loaded.node.metrics {
            Some(config) => {
                let listener = bind("metrics.listen", config.listen).await?;
                // Before anything counts: what is counted earlier would be lost.
                metrics::install().map(|handle| (listener, handle))
            }
            None => None,
        };
        Ok(Self { peer, api, metrics })
    }
}

async fn bind(key: &'static str, address: SocketAddr) -> Result<TcpListener, CliError> {
    TcpListener::bind(address).await.map_err(|source| CliError::Bind { key, address, source })
}

/// Serves until cancelled.
#[allow(clippy::too_many_arguments)] // everything of a node comes together here
pub async fn start(
    tasks: &mut JoinSet<()>,
    listeners: Listeners,
    loaded: &Loaded,
    credentials: &Credentials,
    shared: &Arc<Shared>,
    hub: WatchHub,
    readiness: &Readiness,
    stop: &CancellationToken,
) -> Result<(), CliError> {
    let cluster = loaded.spec.cluster.clone();
    let supervisor = &shared.supervisor;
    let local = Local {
        cluster: cluster.clone(),
        desk: Desk {
            me: shared.me,
            peers: shared.peers.clone(),
            brain: shared.brain.clone(),
            raft: shared.raft.clone(),
        },
        sessions: shared.sessions.clone(),
        connections: shared.connections.clone(),
        drills: DrillDesk::new(shared.me, shared.brain.clone(), shared.raft.clone()),
    };
    let peers = server(credentials)?
        .add_service(service(shared.raft.inbound(), PeerCheck::Certificate(cluster.clone())))
        .add_service(peer::serve(local));
    let incoming = TcpIncoming::from(listeners.peer).with_nodelay(Some(true));
    let stopped = stop.clone().cancelled_owned();
    tasks.spawn(supervisor.lasting("the peers' server", async move {
        if let Err(error) = peers.serve_with_incoming_shutdown(incoming, stopped).await {
            tracing::error!(%error, "the peers' server ended");
        }
    }));

    let access = Access {
        cluster: cluster.clone(),
        tls: ClientTls {
            ca: credentials.ca().to_vec(),
            cert: credentials.cert().to_vec(),
            key: credentials.key().to_vec(),
        },
        dial: loaded.node.dial.clone(),
    };
    let backend = Arc::new(NodeBackend::new(Arc::clone(shared), access));
    let routes =
        twinsite_api::services(backend, hub, Arc::new(move |certificates| caller(&cluster, certificates)));
    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_service_status("", tonic_health::ServingStatus::Serving).await;
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(twinsite_api::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()
        .map_err(|error| CliError::System {
            what: "describe the API",
            source: std::io::Error::other(error),
        })?;
    let api = server(credentials)?.add_routes(routes).add_service(health_service).add_service(reflection);
    let incoming = TcpIncoming::from(listeners.api).with_nodelay(Some(true));
    let stopped = stop.clone().cancelled_owned();
    tasks.spawn(supervisor.lasting("the API server", async move {
        if let Err(error) = api.serve_with_incoming_shutdown(incoming, stopped).await {
            tracing::error!(%error, "the API server ended");
        }
    }));

    if let Some((listener, handle)) = listeners.metrics {
        let (proxy, readiness, stop) = (shared.proxy.clone(), readiness.clone(), stop.clone());
        tasks.spawn(supervisor.lasting("the metrics listener", async move {
            if let Err(error) = metrics::serve(listener, handle, proxy, readiness, stop).await {
                tracing::error!(%error, "the metrics listener ended");
            }
        }));
    }
    Ok(())
}

/// A server that only peers with a certificate of the cluster's authority reach.
fn server(credentials: &Credentials) -> Result<Server, CliError> {
    Server::builder()
        .tcp_nodelay(true)
        .http2_keepalive_interval(Some(KEEP_ALIVE))
        .http2_keepalive_timeout(Some(KEEP_ALIVE))
        .concurrency_limit_per_connection(CONCURRENCY_MAX)
        .tls_config(credentials.server())
        .map_err(|error| CliError::Usage(format!("tls: {error}; check tls.cert and tls.key")))
}
