//! The cluster, as a drill uses it: over the public API, like any other caller.

use crate::cli::CliError;
use crate::cli::connect;
use crate::client_file::ClientFile;
use futures_util::future::BoxFuture;
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::sync::mpsc;
use twinsite_api::client::Wanted;
use twinsite_api::{Client, Destination, MoveKind, WatchMessage, convert, v1};
use twinsite_drill::engine::{ApiError, ClusterApi, ClusterStatus, WatchItem};
use twinsite_drill::layout::Layout;
use twinsite_drill::live::{LiveCluster, LiveStatus, PlannedMove, RuleSeen};
use twinsite_model::{
    ClusterSpec, DrillId, FloatingIpName, Generation, NodeId, NodeName, Revision, SiteName, UpstreamName,
    Verdict,
};

/// Changes that wait for the drill.
const QUEUE: usize = 4_096;

/// The API of a demo's cluster.
#[derive(Clone)]
pub struct DrillApi {
    client: Client,
    nodes: Vec<(NodeName, NodeId)>,
    /// The address; none for the only one.
    ip: Option<FloatingIpName>,
}

impl DrillApi {
    /// Connects by a client file. Call it on a tokio runtime.
    pub fn connect(file: &ClientFile, layout: &Layout) -> Result<Self, CliError> {
        let nodes = layout.nodes.iter().map(|node| (node.name.clone(), node.id)).collect();
        Ok(Self { client: connect::client(file)?, nodes, ip: None })
    }

    /// Of a cluster with this specification, for one of its addresses.
    pub fn of(client: Client, spec: &ClusterSpec, ip: FloatingIpName) -> Self {
        let nodes = spec.nodes.iter().map(|node| (node.name.clone(), node.id)).collect();
        Self { client, nodes, ip: Some(ip) }
    }

    /// The state and what the leader hears, as of now.
    async fn answer(&self) -> Result<v1::GetStateResponse, ApiError> {
        self.client.state().await.map_err(refused)
    }

    fn named(&self) -> Option<String> {
        self.ip.as_ref().map(ToString::to_string)
    }

    fn status_of(&self, answer: v1::GetStateResponse) -> Result<ClusterStatus, ApiError> {
        let (state, health) = (answer.state.unwrap_or_default(), answer.health.unwrap_or_default());
        let wanted = self.ip.as_ref().map(FloatingIpName::as_str);
        let ip = state.floating_ips.iter().find(|ip| wanted.is_none_or(|wanted| ip.name == wanted));
        let owner = match ip.and_then(|ip| ip.owner.as_ref()) {
            Some(owner) => {
                let token = owner.token.map(convert::token).unwrap_or_default();
                Some((name(NodeName::new(owner.node_name.as_str()))?, token))
            }
            None => None,
        };
        let verdicts = state.upstreams.iter().map(|upstream| {
            let verdict = convert::verdict(upstream.verdict()).unwrap_or(Verdict::Unknown);
            Ok((name(UpstreamName::new(upstream.name.as_str()))?, verdict))
        });
        let heard = health.members.iter().filter(|member| member.heard == Some(true));
        Ok(ClusterStatus {
            revision: Revision(answer.revision),
            generation: Generation(state.generation),
            leader: NodeName::new(health.leader_name.as_str()).ok(),
            owner,
            moving: ip.is_some_and(|ip| ip.operation.is_some()),
            verdicts: verdicts.collect::<Result<_, _>>()?,
            heard: heard
                .filter_map(|member| NodeName::new(member.name.as_str()).ok())
                .collect::<BTreeSet<_>>(),
        })
    }

    /// The names of the cluster's nodes, for lines that people read.
    pub async fn names(&self) -> crate::cli::events::Names {
        let state = self.client.state().await.ok().and_then(|answer| answer.state);
        state.as_ref().map(crate::cli::events::Names::of).unwrap_or_default()
    }

    async fn move_to(&self, kind: MoveKind, to: &SiteName) -> Result<(), ApiError> {
        let wanted = Wanted {
            ip: self.named(),
            kind,
            to: Destination::Site(to.clone()),
            overrides: Vec::new(),
            plan_only: false,
        };
        self.client.move_ip(&wanted).await.map(drop).map_err(refused)
    }
}

fn refused(error: twinsite_api::ApiError) -> ApiError {
    let forbidden = error.reason == twinsite_api::Reason::RuleForbids;
    ApiError { retryable: error.retryable(), forbidden, message: error.message }
}

/// What no later attempt changes.
fn nonsense(message: String) -> ApiError {
    ApiError { message, retryable: false, forbidden: false }
}

fn name<T>(made: Result<T, twinsite_model::NameError>) -> Result<T, ApiError> {
    made.map_err(|error| nonsense(error.to_string()))
}

impl ClusterApi for DrillApi {
    fn status(&self) -> BoxFuture<'_, Result<ClusterStatus, ApiError>> {
        Box::pin(async move { self.status_of(self.answer().await?) })
    }

    fn watch(&self) -> BoxFuture<'_, Result<mpsc::Receiver<WatchItem>, ApiError>> {
        Box::pin(async move {
            let now = self.client.state().await.map_err(refused)?;
            let mut messages = self.client.watch(Some(Revision(now.revision))).await.map_err(refused)?;
            let (sender, receiver) = mpsc::channel(QUEUE);
            tokio::spawn(async move {
                while let Some(message) = messages.recv().await {
                    let WatchMessage::Change { revision, at, events } = message else { continue };
                    for event in events {
                        if sender.send(WatchItem { revision, at, event }).await.is_err() {
                            return;
                        }
                    }
                }
            });
            Ok(receiver)
        })
    }

    fn switchover<'a>(&'a self, to: &'a SiteName) -> BoxFuture<'a, Result<(), ApiError>> {
        Box::pin(self.move_to(MoveKind::Switchover, to))
    }

    fn failover<'a>(&'a self, to: &'a SiteName) -> BoxFuture<'a, Result<(), ApiError>> {
        Box::pin(self.move_to(MoveKind::Failover, to))
    }

    fn pause(&self, duration: Duration) -> BoxFuture<'_, Result<(), ApiError>> {
        Box::pin(async move { self.client.pause(Some(duration), "drill").await.map(drop).map_err(refused) })
    }

    fn resume(&self) -> BoxFuture<'_, Result<(), ApiError>> {
        Box::pin(async move { self.client.resume().await.map(drop).map_err(refused) })
    }

    fn reset_breaker(&self) -> BoxFuture<'_, Result<(), ApiError>> {
        Box::pin(async move { self.client.reset_breaker().await.map(drop).map_err(refused) })
    }

    fn spec(&self) -> BoxFuture<'_, Result<ClusterSpec, ApiError>> {
        Box::pin(async move {
            let answer = self.client.state().await.map_err(refused)?;
            let json = answer.state.unwrap_or_default().spec_json;
            let spec = twinsite_model::spec::from_json(json.as_bytes());
            spec.map_err(|error| nonsense(error.to_string()))
        })
    }

    fn apply<'a>(&'a self, spec: &'a ClusterSpec) -> BoxFuture<'a, Result<(), ApiError>> {
        Box::pin(async move {
            let json = String::from_utf8_lossy(&twinsite_model::spec::to_json(spec)).into_owned();
            self.client.apply_spec(json, None).await.map(drop).map_err(refused)
        })
    }

    fn lead<'a>(&'a self, node: &'a NodeName) -> BoxFuture<'a, Result<(), ApiError>> {
        Box::pin(async move {
            let id = self.nodes.iter().find(|(name, _)| name == node).map(|(_, id)| *id);
            let unknown = || nonsense(format!("there is no node {node}"));
            self.client.transfer_leadership(id.ok_or_else(unknown)?).await.map_err(refused)
        })
    }
}

impl LiveCluster for DrillApi {
    fn look(&self) -> BoxFuture<'_, Result<LiveStatus, ApiError>> {
        Box::pin(async move {
            let answer = self.answer().await?;
            let state = answer.state.as_ref();
            let drill = state.and_then(|state| state.drill.as_ref());
            let stopped = drill.filter(|drill| !drill.stopped_by.is_empty());
            Ok(LiveStatus {
                paused_by: state.and_then(|state| state.pause.as_ref()).map(|pause| pause.by.clone()),
                drill: drill.map(|drill| DrillId(drill.id)),
                stop: stopped.map(|drill| (drill.stopped_by.clone(), drill.stop_reason.clone())),
                cluster: self.status_of(answer)?,
            })
        })
    }

    fn plan<'a>(&'a self, to: &'a SiteName) -> BoxFuture<'a, Result<PlannedMove, ApiError>> {
        Box::pin(async move {
            let wanted = Wanted {
                ip: self.named(),
                kind: MoveKind::Switchover,
                to: Destination::Site(to.clone()),
                overrides: Vec::new(),
                plan_only: true,
            };
            let plan = self.client.move_ip(&wanted).await.map_err(refused)?.plan;
            let plan = plan.ok_or_else(|| nonsense("the answer holds no plan".to_owned()))?;
            Ok(PlannedMove {
                target: NodeName::new(plan.target_name.as_str()).ok(),
                refusal: (!plan.refusal.is_empty()).then_some(plan.refusal),
                outage: Duration::from_millis(plan.predicted_outage_ms),
                rooms: plan.rooms,
                tunnels: plan.tunnels,
                rules: plan
                    .rules
                    .into_iter()
                    .map(|rule| RuleSeen { name: rule.rule, holds: rule.satisfied, detail: rule.detail })
                    .collect(),
            })
        })
    }

    fn call_off<'a>(&'a self, why: &'a str) -> BoxFuture<'a, Result<(), ApiError>> {
        Box::pin(
            async move { self.client.abort(self.named().as_deref(), why).await.map(drop).map_err(refused) },
        )
    }
}
