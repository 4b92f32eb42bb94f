//! Running a drill on this node: the scenario is read, the guards are asked, the leader is told, and the rest goes on by
//! itself, whoever listens.

use super::answers::millis;
use super::drill_desk::{DrillDesk, DrillWish, EndedDrill, ToLeader};
use super::run::Shared;
use crate::drill_api::DrillApi;
use crate::identity::server_name;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc;
use twinsite_agents::Machine;
use twinsite_api::convert::drill_record_to_pb;
use twinsite_api::v1::{self, run_drill_response::Message};
use twinsite_api::{ApiError, Client, ClientOptions, ClientTls, DrillCall, DrillMessages, Reason};
use twinsite_consensus::TokioRuntime;
use twinsite_drill::engine::ClusterApi;
use twinsite_drill::live::{
    self, Finished, Guard, HttpProbes, Mandate, NotReady, Phase, Preview, Progress, admissible, prepare,
    summary,
};
use twinsite_drill::scenario::{Scenario, ScenarioError};
use twinsite_model::dial::DialMap;
use twinsite_model::spec::FloatingIpSpec;
use twinsite_model::{ClusterName, ClusterSpec, DrillId, FloatingIpName, RequestId};

/// Messages that wait for whoever listens. Progress beyond it is not told.
const QUEUE: usize = 64;
/// How long the leader may take to let a drill begin.
const BEGIN_MAX: Duration = Duration::from_secs(10);
/// How long the end of a drill is told to whoever leads. Without it the drill is abandoned when its time is over.
const END_MAX: Duration = Duration::from_mins(2);
/// How long this node may take to apply what the leader agreed on.
const APPLY_MAX: Duration = Duration::from_secs(2);

/// How a node asks its own cluster over the public API.
pub struct Access {
    /// The cluster.
    pub cluster: ClusterName,
    /// The node's certificates.
    pub tls: ClientTls,
    /// Translations of addresses.
    pub dial: DialMap,
}

/// Runs drills, one at a time: the agreed state sees to that.
pub struct DrillRunner {
    shared: Arc<Shared>,
    access: Access,
    /// The newest that was begun here: a repetition of the request that began it must not run it twice.
    newest: Mutex<Option<DrillId>>,
}

/// A drill that has been looked at.
struct Prepared {
    scenario: Scenario,
    spec: ClusterSpec,
    ip: FloatingIpSpec,
    api: DrillApi,
    preview: Preview,
}

impl DrillRunner {
    /// For this node.
    pub fn new(shared: Arc<Shared>, access: Access) -> Self {
        Self { shared, access, newest: Mutex::default() }
    }

    /// Says what a drill would do, and runs it unless that was all that is wanted.
    pub async fn run(&self, caller: &str, call: DrillCall) -> Result<DrillMessages, ApiError> {
        if call.mutation.expected_revision.is_some() {
            let problem =
                "mutation.expected_revision: a drill begins when its guards hold, at whatever revision";
            return Err(ApiError::new(Reason::InvalidArgument, problem));
        }
        let mut prepared = self.prepare(&call).await?;
        let to_leader = self.to_leader();
        let wish = DrillWish {
            name: prepared.scenario.name().to_owned(),
            person: caller.to_owned(),
            runner: self.shared.me,
            incarnation: self.shared.incarnation,
            within: prepared.preview.lasts_at_most.0,
            request: call.mutation.request.clone().map_or_else(random_request, Ok)?,
        };
        let allowed = to_leader.begin(&wish, true, BEGIN_MAX).await;
        let (messages, receiver) = mpsc::channel(QUEUE);
        if call.dry_run {
            prepared.preview.guards.push(cluster_allows(&allowed));
            tell(&messages, Message::Preview(self.preview(&prepared)));
            return Ok(receiver);
        }
        allowed?;
        if let Some(why) = not_begun(&prepared.preview) {
            return Err(ApiError::new(Reason::RuleForbids, why));
        }
        prepared.preview.guards.push(cluster_allows(&Ok(None)));
        let begun = to_leader.begin(&wish, false, BEGIN_MAX).await?;
        let drill = begun.ok_or_else(|| ApiError::new(Reason::Unavailable, "the leader gave no id"))?;
        let before = self.newest.lock().unwrap_or_else(PoisonError::into_inner).replace(drill);
        if before == Some(drill) {
            let problem =
                format!("this request has begun drill {drill}; `twinsite drill history --live` shows it");
            return Err(ApiError::new(Reason::DrillRunning, problem));
        }
        let until = TokioRuntime::wall_now().plus(wish.within);
        tell(&messages, Message::Preview(self.preview(&prepared)));
        tell(&messages, Message::Accepted(v1::DrillAccepted { drill: drill.0, until_ms: until.0 }));
        let dial = self.access.dial.clone();
        // Its own task: whatever becomes of a drill, the node goes on, and an end that nobody tells is told by time.
        drop(tokio::spawn(rehearse(Arc::clone(&self.shared), to_leader, prepared, drill, dial, messages)));
        Ok(receiver)
    }

    async fn prepare(&self, call: &DrillCall) -> Result<Prepared, ApiError> {
        let invalid = |errors: Vec<ScenarioError>| {
            let lines: Vec<_> = errors.iter().map(ToString::to_string).collect();
            ApiError::new(Reason::InvalidArgument, lines.join("\n"))
        };
        let scenario = Scenario::parse(&call.file, &call.scenario).map_err(invalid)?;
        let findings = admissible(&call.file, &call.scenario, &scenario);
        if !findings.is_empty() {
            return Err(invalid(findings));
        }
        let no_spec = || ApiError::new(Reason::NoSpec, "the cluster has no specification yet");
        let known = self.shared.raft.state().spec.clone().ok_or_else(no_spec)?;
        let client = self.client(&known)?;
        // As the cluster has agreed on it now, not as this node last heard.
        let named = call.ip.clone();
        let first = named.clone().or_else(|| known.floating_ips.first().map(|ip| ip.name.clone()));
        let first = first.ok_or_else(|| unknown_ip("the specification has no floating IP"))?;
        let spec = DrillApi::of(client.clone(), &known, first).spec().await.map_err(of_cluster)?;
        let ip = floating_ip(&spec, named.as_ref())?.clone();
        let api = DrillApi::of(client, &spec, ip.name.clone());
        let preview = prepare(&scenario, &spec, &ip, &api).await.map_err(|error| match error {
            NotReady::Api(error) => of_cluster(error),
            NotReady::Cluster(_) => ApiError::new(Reason::DrillBlocked, error.to_string()),
            NotReady::TooLong(_) | NotReady::Step { .. } => {
                ApiError::new(Reason::InvalidArgument, format!("{}: {error}", call.file))
            }
        })?;
        Ok(Prepared { scenario, spec, ip, api, preview })
    }

    /// A client of this very cluster, as this node.
    fn client(&self, spec: &ClusterSpec) -> Result<Client, ApiError> {
        let endpoints = spec.nodes.iter().map(|node| node.api).collect();
        let domain = server_name(&self.access.cluster);
        let mut options = ClientOptions::new(endpoints, self.access.tls.clone(), domain);
        options.dial = self.access.dial.clone();
        Client::new(options)
    }

    fn to_leader(&self) -> ToLeader {
        let shared = &self.shared;
        ToLeader {
            desk: DrillDesk::new(shared.me, shared.brain.clone(), shared.raft.clone()),
            peers: shared.peers.clone(),
        }
    }

    fn preview(&self, prepared: &Prepared) -> v1::DrillPreview {
        let preview = &prepared.preview;
        v1::DrillPreview {
            name: preview.name.clone(),
            floating_ip: prepared.ip.name.to_string(),
            runner: self.shared.name.to_string(),
            owner: preview.owner.to_string(),
            owner_site: preview.owner_site.to_string(),
            steps: preview
                .steps
                .iter()
                .map(|step| v1::DrillStep { what: step.what.clone(), moves: step.moves_to.is_some() })
                .collect(),
            guards: preview
                .guards
                .iter()
                .map(|guard| v1::DrillGuard {
                    name: guard.name.clone(),
                    holds: guard.holds,
                    detail: guard.detail.clone(),
                })
                .collect(),
            lasts_at_most_ms: millis(preview.lasts_at_most.0),
            predicted_outage_ms: millis(preview.predicted_outage),
            rooms: preview.rooms,
            tunnels: preview.tunnels,
            not_measured: preview.not_measured.iter().map(|name| (*name).to_owned()).collect(),
        }
    }
}

/// The drill itself, and its end.
async fn rehearse(
    shared: Arc<Shared>,
    to_leader: ToLeader,
    prepared: Prepared,
    drill: DrillId,
    dial: DialMap,
    messages: mpsc::Sender<Result<v1::RunDrillResponse, ApiError>>,
) {
    let Prepared { scenario, spec, ip, api, .. } = prepared;
    let port = ip.probe_port().unwrap_or(80);
    let probes = HttpProbes::start(dial.resolve(SocketAddr::new(ip.address, port)));
    let mandate = Mandate { drill, me: format!("node {}", shared.me), spec, ip };
    let listener = messages.clone();
    let mut listen = move |progress: Progress| tell(&listener, Message::Progress(progress_to_pb(progress)));
    let finished = live::run(&scenario, &mandate, &api, &probes, &mut listen).await;
    drop(probes);
    let Finished { outcome, report } = finished;
    tracing::info!(%drill, outcome = outcome.as_str(), broken = %report.broken.join("; "), "the drill has ended");
    let ended = match random_request() {
        Ok(request) => EndedDrill { drill, runner: shared.me, outcome, summary: summary(&report), request },
        Err(error) => return drop(messages.send(Err(error)).await),
    };
    if let Err(error) = to_leader.end(&ended, END_MAX).await {
        tracing::warn!(%drill, %error, "how the drill ended could not be recorded");
        return drop(messages.send_timeout(Err(error), END_MAX).await);
    }
    let record = recorded(&shared, &ended).await;
    let message =
        v1::RunDrillResponse { message: Some(Message::Finished(v1::DrillFinished { drill: record })) };
    drop(messages.send_timeout(Ok(message), END_MAX).await);
}

/// The record, as this node has it a moment later.
async fn recorded(shared: &Shared, ended: &EndedDrill) -> Option<v1::Drill> {
    let (_, mut changes) = shared.raft.subscribe();
    let known = || {
        let state = shared.raft.state();
        let record = state.drills.iter().find(|record| record.id == ended.drill)?;
        Some(drill_record_to_pb(&state, record, true))
    };
    let wait = async {
        loop {
            if let Some(record) = known() {
                return Some(record);
            }
            changes.next().await.ok()?;
        }
    };
    tokio::time::timeout(APPLY_MAX, wait).await.ok().flatten()
}

/// Tells whoever listens, if there is anybody who can keep up.
fn tell(messages: &mpsc::Sender<Result<v1::RunDrillResponse, ApiError>>, message: Message) {
    drop(messages.try_send(Ok(v1::RunDrillResponse { message: Some(message) })));
}

fn progress_to_pb(progress: Progress) -> v1::DrillProgress {
    let phase = match progress.phase {
        Phase::Before => v1::DrillPhase::Before,
        Phase::Steps => v1::DrillPhase::Steps,
        Phase::Settling => v1::DrillPhase::Settling,
        Phase::WayBack => v1::DrillPhase::WayBack,
    };
    v1::DrillProgress {
        phase: phase.into(),
        what: progress.what,
        gap_ms: millis(progress.seen.gap),
        probes_ok: progress.seen.ok,
        probes_failed: progress.seen.failed,
        aborting: progress.aborting.unwrap_or_default(),
    }
}

fn cluster_allows(allowed: &Result<Option<DrillId>, ApiError>) -> Guard {
    let (holds, detail) = match allowed {
        Ok(_) => (true, "no window, pause, move, alarm or other drill is in the way".to_owned()),
        Err(error) => (false, error.message.clone()),
    };
    Guard { name: "cluster-allows".to_owned(), holds, detail }
}

/// Why guards forbid it, if they do.
fn not_begun(preview: &Preview) -> Option<String> {
    let failing: Vec<_> =
        preview.failing().map(|guard| format!("{}: {}", guard.name, guard.detail)).collect();
    (!failing.is_empty()).then(|| format!("the drill was not begun: {}", failing.join("; ")))
}

fn floating_ip<'a>(
    spec: &'a ClusterSpec,
    named: Option<&FloatingIpName>,
) -> Result<&'a FloatingIpSpec, ApiError> {
    match (named, spec.floating_ips.as_slice()) {
        (Some(name), _) => {
            spec.floating_ip(name).ok_or_else(|| unknown_ip(&format!("there is no floating IP `{name}`")))
        }
        (None, [only]) => Ok(only),
        (None, []) => Err(unknown_ip("the specification has no floating IP")),
        (None, several) => {
            let names: Vec<_> = several.iter().map(|ip| ip.name.as_str()).collect();
            let problem = format!("floating_ip: name one of {}", names.join(", "));
            Err(ApiError::new(Reason::InvalidArgument, problem))
        }
    }
}

fn unknown_ip(problem: &str) -> ApiError {
    ApiError::new(Reason::UnknownFloatingIp, problem)
}

fn of_cluster(error: twinsite_drill::engine::ApiError) -> ApiError {
    let reason = match (error.forbidden, error.retryable) {
        (true, _) => Reason::RuleForbids,
        (false, true) => Reason::NoQuorum,
        (false, false) => Reason::Refused,
    };
    ApiError::new(reason, error.message)
}

fn random_request() -> Result<RequestId, ApiError> {
    let drawn = getrandom::u64().ok().and_then(|number| RequestId::new(format!("drill-{number:016x}")));
    drawn.ok_or_else(|| ApiError::new(Reason::Unavailable, "the system gives no random numbers"))
}
