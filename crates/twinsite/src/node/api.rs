//! The public API, answered by this node: from its own state, its controller and its consensus.

use super::answers;
use super::drill_runner::{Access, DrillRunner};
use super::run::Shared;
use std::sync::Arc;
use std::time::Duration;
use twinsite_agents::{Machine, timing};
use twinsite_api::{
    ApiError, Backend, Destination, DrillCall, DrillMessages, LeaderHint, MoveAnswer, MoveCall, MoveKind,
    Mutation, Reason, RoomPlace, v1,
};
use twinsite_consensus::{MemberRole, ReadError, TokioRuntime, TransferError};
use twinsite_controller::{
    MoveRequest, MoveTarget, NodeReport, OperatorAction, OperatorAnswer, OperatorRefusal, OperatorRequest,
    OutsideView,
};
use twinsite_model::spec::NodeSpec;
use twinsite_model::{
    ClusterSpec, FloatingIpName, NodeId, NodeName, OperationId, Refusal, Revision, State, UpstreamName,
};

/// The longest wait for this node's state to catch up with a quorum.
const APPLY_MAX: Duration = Duration::from_secs(2);

/// This node, as the services see it.
pub struct NodeBackend {
    shared: Arc<Shared>,
    drills: DrillRunner,
}

impl NodeBackend {
    /// Answers for this node; `access` is how it asks the cluster when it runs a drill.
    pub fn new(shared: Arc<Shared>, access: Access) -> Self {
        let drills = DrillRunner::new(Arc::clone(&shared), access);
        Self { shared, drills }
    }

    fn not_leader(&self, leader: Option<NodeId>) -> ApiError {
        let state = self.shared.raft.state();
        let hint = leader.and_then(|leader| {
            let node = state.spec.as_ref()?.node(leader)?;
            Some(LeaderHint { node: leader, name: node.name.to_string(), api: node.api })
        });
        ApiError::not_leader(hint)
    }

    fn leader(&self) -> Option<NodeId> {
        self.shared.raft.status().borrow().leader
    }

    /// Only a leader can carry out what a person asks; any other node says who leads.
    fn leads(&self) -> Result<(), ApiError> {
        let (leads, leader) = {
            let status = self.shared.raft.status();
            let status = status.borrow();
            (status.is_leader, status.leader)
        };
        if leads { Ok(()) } else { Err(self.not_leader(leader)) }
    }

    async fn operate(
        &self,
        caller: &str,
        mutation: Mutation,
        action: OperatorAction,
    ) -> Result<OperatorAnswer, ApiError> {
        self.leads()?;
        let request = OperatorRequest {
            by: caller.to_owned(),
            request: mutation.request,
            expected_revision: mutation.expected_revision,
            action,
        };
        // A leader that was cut off cannot commit anything; the caller is not kept waiting for it.
        let patience = 2 * timing(&self.shared.raft).lease + Duration::from_secs(1);
        match tokio::time::timeout(patience, self.shared.brain.operator(request)).await {
            Err(_) => Err(ApiError::new(Reason::OutcomeUnknown, OperatorRefusal::OutcomeUnknown.to_string())),
            Ok(Err(busy)) => Err(ApiError::new(Reason::Busy, busy.to_string())),
            Ok(Ok(Ok(answer))) => Ok(answer),
            Ok(Ok(Err(refusal))) => Err(self.refused(&refusal)),
        }
    }

    async fn change(
        &self,
        caller: &str,
        mutation: Mutation,
        action: OperatorAction,
    ) -> Result<Revision, ApiError> {
        Ok(match self.operate(caller, mutation, action).await? {
            OperatorAnswer::Done { revision }
            | OperatorAnswer::Unchanged { revision }
            | OperatorAnswer::Repeated { revision }
            | OperatorAnswer::Began { revision, .. } => revision,
        })
    }

    fn refused(&self, refusal: &OperatorRefusal) -> ApiError {
        if *refusal == OperatorRefusal::NotLeader {
            return self.not_leader(self.leader().filter(|leader| *leader != self.shared.me));
        }
        ApiError::new(reason(refusal), refusal.to_string())
    }

    async fn reports(&self) -> Vec<NodeReport> {
        let state = self.shared.raft.state();
        let look = move |controller: &twinsite_controller::Controller| {
            controller.reports(TokioRuntime::boot_now(), TokioRuntime::wall_now(), &state)
        };
        self.shared.brain.look(look).await.unwrap_or_default()
    }

    async fn heard(&self) -> Option<std::collections::BTreeSet<NodeId>> {
        let state = self.shared.raft.state();
        let look = move |controller: &twinsite_controller::Controller| {
            controller.heard(TokioRuntime::boot_now(), TokioRuntime::wall_now(), &state)
        };
        self.shared.brain.look(look).await.ok().flatten()
    }
}

/// The reason that a refusal has on the wire.
pub const fn reason(refusal: &OperatorRefusal) -> Reason {
    match refusal {
        OperatorRefusal::NotLeader => Reason::NotLeader,
        OperatorRefusal::NoSpec => Reason::NoSpec,
        OperatorRefusal::UnknownFloatingIp(_) => Reason::UnknownFloatingIp,
        OperatorRefusal::UnknownNode(_) | OperatorRefusal::Refused(Refusal::UnknownNode(_)) => {
            Reason::UnknownNode
        }
        OperatorRefusal::UnknownSite(_) => Reason::UnknownSite,
        OperatorRefusal::OperationRunning(_) | OperatorRefusal::Deciding(_) => Reason::AlreadyMoving,
        OperatorRefusal::NoOperation(_) => Reason::NotMoving,
        OperatorRefusal::AlreadyOwner(_) => Reason::AlreadyOwner,
        OperatorRefusal::NoCandidate(_) => Reason::NoCandidate,
        OperatorRefusal::OwnerNotHeard(_) => Reason::OwnerNotHeard,
        OperatorRefusal::RulesFailed(_) => Reason::RuleForbids,
        OperatorRefusal::NoDrill | OperatorRefusal::Refused(Refusal::NoSuchDrill(_)) => Reason::NoDrill,
        OperatorRefusal::Refused(Refusal::DrillRunning(_)) => Reason::DrillRunning,
        OperatorRefusal::Unwell(_)
        | OperatorRefusal::LeaderYoung
        | OperatorRefusal::Refused(Refusal::DrillBlocked(_)) => Reason::DrillBlocked,
        OperatorRefusal::NotDone => Reason::Unavailable,
        OperatorRefusal::OutcomeUnknown => Reason::OutcomeUnknown,
        OperatorRefusal::Refused(Refusal::RevisionMismatch { .. }) => Reason::RevisionMismatch,
        OperatorRefusal::Refused(Refusal::UnknownUpstream(_)) => Reason::UnknownUpstream,
        OperatorRefusal::Refused(_)
        | OperatorRefusal::NotRecovered
        | OperatorRefusal::AttestedNodeHeard(_) => Reason::Refused,
    }
}

fn move_request(state: &State, call: &MoveCall) -> Result<MoveRequest, ApiError> {
    let to = match &call.to {
        Destination::Best => MoveTarget::Best,
        Destination::Site(site) => MoveTarget::Site(site.clone()),
        Destination::Node(name) => {
            let node = state.spec.as_ref().and_then(|spec| spec.node_named(name));
            let unknown = || ApiError::new(Reason::UnknownNode, format!("there is no node `{name}`"));
            MoveTarget::Node(node.ok_or_else(unknown)?.id)
        }
    };
    let kind = match call.kind {
        MoveKind::Switchover => twinsite_controller::MoveKind::Switchover,
        MoveKind::Failover => twinsite_controller::MoveKind::Failover,
    };
    Ok(MoveRequest { ip: call.ip.clone(), kind, to, overrides: call.overrides.clone() })
}

#[tonic::async_trait]
impl Backend for NodeBackend {
    fn me(&self) -> (NodeId, NodeName) {
        (self.shared.me, self.shared.name.clone())
    }

    fn local_state(&self) -> Arc<State> {
        self.shared.raft.state()
    }

    async fn linearizable(&self) -> Result<Arc<State>, ApiError> {
        let index = self.shared.raft.read_index().await.map_err(|error| match error {
            ReadError::NotLeader { leader } => self.not_leader(leader),
            ReadError::NoQuorum => {
                ApiError::new(Reason::NoQuorum, "no quorum answered; --local shows what this node knows")
            }
            ReadError::Stopped(why) => ApiError::new(Reason::Unavailable, why.to_string()),
        })?;
        let caught_up = self.shared.raft.wait_applied(index, APPLY_MAX).await;
        caught_up.map_err(|error| ApiError::new(Reason::Unavailable, error.to_string()))?;
        Ok(self.shared.raft.state())
    }

    async fn health(&self) -> v1::ClusterHealth {
        let (reports, heard) = (self.reports().await, self.heard().await);
        let state = self.shared.raft.state();
        let status = self.shared.raft.status().borrow().clone();
        let name = |node: NodeId| answers::node_name(&state, node);
        let members = status.members.iter().map(|(node, member)| v1::Member {
            id: node.0,
            name: name(*node),
            address: member.address.clone(),
            votes: member.role == MemberRole::Voter,
            leads: status.leader == Some(*node),
            heard: heard.as_ref().map(|heard| heard.contains(node)),
            matched: member.matched.map(|index| index.0),
        });
        let voters: Vec<_> = status.voters().collect();
        let tolerated = heard.as_ref().map(|heard| {
            let alive = voters.iter().filter(|voter| heard.contains(voter)).count();
            u32::try_from(alive.saturating_sub(voters.len() / 2 + 1)).unwrap_or(u32::MAX)
        });
        let leader = status.leader.and_then(|leader| state.spec.as_ref()?.node(leader).cloned());
        v1::ClusterHealth {
            node: self.shared.me.0,
            node_name: self.shared.name.to_string(),
            leader: status.leader.map(|leader| leader.0),
            leader_name: status.leader.map(name).unwrap_or_default(),
            leader_address: leader.map(|leader| leader.api.to_string()).unwrap_or_default(),
            term: status.term,
            members: members.collect(),
            tolerated_failures: tolerated,
            truths: truths(&state, &reports),
        }
    }

    fn quorum(&self) -> (bool, Option<Duration>) {
        let timing = timing(&self.shared.raft);
        (self.shared.quorum.is_known::<TokioRuntime>(&timing), self.shared.quorum.age::<TokioRuntime>())
    }

    async fn explain(&self, ip: FloatingIpName) -> Result<v1::Explanation, ApiError> {
        self.leads()?;
        let state = self.shared.raft.state();
        let (looked_at, wanted) = (Arc::clone(&state), ip.clone());
        let look = move |controller: &twinsite_controller::Controller| {
            controller.explain(TokioRuntime::boot_now(), TokioRuntime::wall_now(), &looked_at, &wanted)
        };
        let explained = self.shared.brain.look(look).await;
        let explained = explained.map_err(|busy| ApiError::new(Reason::Busy, busy.to_string()))?;
        let unknown = || ApiError::new(Reason::UnknownFloatingIp, format!("there is no floating IP `{ip}`"));
        Ok(answers::explanation(&state, &explained.ok_or_else(unknown)?))
    }

    async fn move_ip(&self, caller: &str, call: MoveCall) -> Result<MoveAnswer, ApiError> {
        self.leads()?;
        let state = self.shared.raft.state();
        let request = move_request(&state, &call)?;
        if call.plan_only {
            let looked_at = Arc::clone(&state);
            let look = move |controller: &twinsite_controller::Controller| {
                controller.plan(TokioRuntime::boot_now(), TokioRuntime::wall_now(), &looked_at, &request)
            };
            let planned = self.shared.brain.look(look).await;
            let planned = planned.map_err(|busy| ApiError::new(Reason::Busy, busy.to_string()))?;
            let plan = planned.map_err(|refusal| self.refused(&refusal))?;
            let plan = Some(answers::plan(&state, &plan));
            return Ok(MoveAnswer { operation: None, revision: state.revision, plan });
        }
        let answer = self.operate(caller, call.mutation, OperatorAction::Move(request)).await?;
        Ok(match answer {
            OperatorAnswer::Began { operation, revision } => {
                MoveAnswer { operation: Some(operation), revision, plan: None }
            }
            // The request began a move then, and a move's id is the revision at which it began.
            OperatorAnswer::Repeated { revision } => {
                MoveAnswer { operation: Some(OperationId(revision.0)), revision, plan: None }
            }
            OperatorAnswer::Done { revision } | OperatorAnswer::Unchanged { revision } => {
                MoveAnswer { operation: None, revision, plan: None }
            }
        })
    }

    async fn abort(
        &self,
        caller: &str,
        mutation: Mutation,
        ip: FloatingIpName,
        reason: String,
    ) -> Result<Revision, ApiError> {
        self.change(caller, mutation, OperatorAction::Abort { ip, detail: reason }).await
    }

    async fn pause(
        &self,
        caller: &str,
        mutation: Mutation,
        duration: Option<Duration>,
        reason: String,
    ) -> Result<Revision, ApiError> {
        self.change(caller, mutation, OperatorAction::Pause { duration, reason }).await
    }

    async fn resume(&self, caller: &str, mutation: Mutation) -> Result<Revision, ApiError> {
        self.change(caller, mutation, OperatorAction::Resume).await
    }

    async fn set_drain(
        &self,
        caller: &str,
        mutation: Mutation,
        upstream: UpstreamName,
        draining: bool,
        within: Option<Duration>,
    ) -> Result<Revision, ApiError> {
        self.change(caller, mutation, OperatorAction::SetDrain { upstream, draining, within }).await
    }

    async fn reset_breaker(&self, caller: &str, mutation: Mutation) -> Result<Revision, ApiError> {
        self.change(caller, mutation, OperatorAction::ResetBreaker).await
    }

    async fn apply_spec(
        &self,
        caller: &str,
        mutation: Mutation,
        spec: ClusterSpec,
    ) -> Result<Revision, ApiError> {
        self.change(caller, mutation, OperatorAction::ApplySpec(Arc::new(spec))).await
    }

    async fn put_node(&self, caller: &str, mutation: Mutation, node: NodeSpec) -> Result<Revision, ApiError> {
        self.change(caller, mutation, OperatorAction::PutNode(node)).await
    }

    async fn retire_node(
        &self,
        caller: &str,
        mutation: Mutation,
        node: NodeId,
    ) -> Result<Revision, ApiError> {
        self.change(caller, mutation, OperatorAction::RetireNode(node)).await
    }

    async fn transfer_leadership(&self, caller: &str, node: NodeId) -> Result<(), ApiError> {
        self.leads()?;
        if node == self.shared.me {
            return Ok(());
        }
        tracing::info!(%node, by = caller, "leadership is to be handed over");
        self.shared.raft.transfer_leadership(node).await.map_err(|error| match error {
            TransferError::NotLeader { leader } => self.not_leader(leader),
            TransferError::NotVoter(_) => ApiError::new(Reason::UnknownNode, error.to_string()),
            other => ApiError::new(Reason::Unavailable, other.to_string()),
        })
    }

    async fn run_drill(&self, caller: &str, call: DrillCall) -> Result<DrillMessages, ApiError> {
        self.drills.run(caller, call).await
    }

    async fn abort_drill(
        &self,
        caller: &str,
        mutation: Mutation,
        reason: String,
    ) -> Result<Revision, ApiError> {
        self.change(caller, mutation, OperatorAction::StopDrill { reason }).await
    }

    fn pins(&self) -> Vec<RoomPlace> {
        let known = self.shared.sessions.snapshot().into_iter().map(|update| RoomPlace {
            room: update.room,
            upstream: update.pin.upstream,
            token: update.pin.token,
        });
        let mut places: Vec<_> = known.collect();
        places.sort_by_key(|place| place.room);
        places
    }

    fn connections(&self) -> v1::ListConnectionsResponse {
        let state = self.shared.raft.state();
        let nodes =
            self.shared.sessions.connections().into_iter().map(|(node, counts)| v1::NodeConnections {
                node: node.0,
                node_name: answers::node_name(&state, node),
                rooms: u32::try_from(counts.rooms.len()).unwrap_or(u32::MAX),
                upstreams: counts
                    .upstreams
                    .into_iter()
                    .map(|(upstream, connections)| v1::UpstreamConnections {
                        upstream: upstream.to_string(),
                        connections,
                    })
                    .collect(),
            });
        v1::ListConnectionsResponse { nodes: nodes.collect() }
    }
}

/// Who holds each address, by each node's own kernel and by whoever asked from outside.
fn truths(state: &State, reports: &[NodeReport]) -> Vec<v1::FloatingIpTruth> {
    let pb = twinsite_api::convert::token_to_pb;
    let truth = |ip: &FloatingIpName| {
        let views = || reports.iter().filter_map(move |report| Some((report, report.floating_ips.get(ip)?)));
        let held_by = views().filter_map(|(report, view)| {
            let node_name = answers::node_name(state, report.node);
            Some(v1::Holder { node: report.node.0, node_name, token: Some(pb(view.held?)) })
        });
        let outside = views().filter_map(|(report, view)| {
            let asked_by = answers::node_name(state, report.node);
            Some(match view.outside.as_ref()? {
                OutsideView::Answered { node, token } => v1::OutsideProbe {
                    asked_by,
                    node: Some(node.0),
                    node_name: answers::node_name(state, *node),
                    token: Some(pb(*token)),
                    silent: String::new(),
                },
                OutsideView::Silent { detail } => {
                    v1::OutsideProbe { asked_by, silent: detail.clone(), ..v1::OutsideProbe::default() }
                }
            })
        });
        v1::FloatingIpTruth {
            floating_ip: ip.to_string(),
            held_by: held_by.collect(),
            outside: outside.collect(),
            stranger: views()
                .find_map(|(_, view)| view.stranger)
                .map_or_else(String::new, |hardware| hardware.to_string()),
        }
    };
    state.floating_ips.keys().map(truth).collect()
}
