//! What the leading node keeps in order beside what the controller decides: the first specification, the generation
//! after a forced recovery, and the membership.

use crate::brain::Brain;
use crate::machine::Machine;
use crate::recovery::{RecoveryNote, unfinished};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use twinsite_consensus::{Consensus, MemberRole, RaftStatus};
use twinsite_controller::{MoveKind, MoveRequest, MoveTarget, OperatorAction, OperatorRequest};
use twinsite_model::{ClusterSpec, Command, Fault, Faults, NodeId, NodeName, Proposal};

/// How often the membership is compared with the specification.
const COMPARE_EVERY: Duration = Duration::from_secs(1);
/// How soon after an election it is first looked at.
const SOON: Duration = Duration::from_millis(10);
/// How far behind a learner may be when it gets its vote, in log entries.
const CAUGHT_UP: u64 = 20;

/// What the first start of a cluster, or of a survivor, brings along.
pub struct Luggage {
    /// The specification with which a cluster begins.
    pub spec: ClusterSpec,
    /// What a forced recovery left.
    pub recovery: Option<RecoveryNote>,
}

/// Keeps a cluster in order while its node leads.
pub struct Keeper<M: Machine> {
    /// This node.
    pub me: NodeId,
    /// Its name.
    pub name: NodeName,
    /// The consensus.
    pub raft: Consensus<M>,
    /// The controller.
    pub brain: Brain,
    /// What the first start brought along.
    pub luggage: Luggage,
}

impl<M: Machine> Keeper<M> {
    /// Looks after all of it until cancelled.
    pub async fn run(self, stop: CancellationToken) {
        let mut complaints = BTreeSet::new();
        let mut status = self.raft.status();
        loop {
            let leads = status.borrow_and_update().is_leader;
            if leads && let Err(why) = self.look_after(&mut complaints).await {
                tracing::debug!(%why, "the cluster could not be brought in order yet");
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = leadership_changes(&mut status, leads) => M::sleep(SOON).await,
                () = M::sleep(if leads { COMPARE_EVERY } else { Duration::from_mins(1) }) => {}
            }
        }
    }

    async fn look_after(&self, complaints: &mut BTreeSet<NodeId>) -> Result<(), String> {
        // A new leader first applies everything that was ever agreed.
        let index = self.raft.read_index().await.map_err(|error| error.to_string())?;
        self.raft.wait_applied(index, COMPARE_EVERY).await.map_err(|error| error.to_string())?;
        let state = self.raft.state();
        if state.spec.is_none() {
            self.propose(Command::ApplySpec { spec: Arc::new(self.luggage.spec.clone()) }).await?;
            return Ok(());
        }
        self.finish_recovery().await?;
        let state = self.raft.state();
        if let Some(spec) = &state.spec {
            let status = self.raft.status().borrow().clone();
            self.compare_members(spec, &status, complaints).await;
        }
        Ok(())
    }

    async fn propose(&self, command: Command) -> Result<(), String> {
        let proposal = Proposal {
            at: M::wall_now(),
            by: format!("node {}", self.name),
            request: None,
            expected_revision: None,
            command,
        };
        let applied = self.raft.propose(&proposal).await.map_err(|error| error.to_string())?;
        applied.result.map(drop).map_err(|refusal| refusal.to_string())
    }

    /// After a forced recovery: the generation grows, the lost nodes are gone for good, and if a person attested that they
    /// are off, their addresses need not be waited for. What fails is tried again with the next look.
    async fn finish_recovery(&self) -> Result<(), String> {
        let note = self.luggage.recovery.as_ref();
        let left = unfinished(note, self.raft.generation(), &self.raft.state());
        if let Some((generation, statement)) = left.generation {
            self.propose(Command::RaiseGeneration { generation, statement: statement.clone() }).await?;
            tracing::warn!(%generation, %statement, "a forced recovery took place");
        }
        let left = unfinished(note, self.raft.generation(), &self.raft.state());
        for ip in left.moves {
            let request = OperatorRequest {
                by: "recovery".to_owned(),
                request: None,
                expected_revision: None,
                action: OperatorAction::Move(MoveRequest {
                    ip: ip.clone(),
                    kind: MoveKind::Forced { attested: true },
                    to: MoveTarget::Best,
                    overrides: Vec::new(),
                }),
            };
            if let Ok(Err(refusal)) = self.brain.operator(request).await {
                tracing::warn!(%ip, %refusal, "not moved at once");
            }
        }
        for node in left.retire {
            self.propose(Command::RetireNode { node }).await?;
        }
        Ok(())
    }

    /// Nobody else changes anything while this node leads: what is half done was left by an earlier leader, or by a call
    /// that took too long.
    async fn finish_change(&self) {
        match self.raft.finish_change().await {
            Ok(()) => tracing::info!("a change of the membership that was left half done is finished"),
            Err(error) => tracing::debug!(%error, "a change of the membership is still half done"),
        }
    }

    /// Brings the members in line with the specification, one change at a time.
    async fn compare_members(
        &self,
        spec: &ClusterSpec,
        status: &RaftStatus,
        complaints: &mut BTreeSet<NodeId>,
    ) {
        if status.is_changing {
            if !Faults::here().has(Fault::HalfDoneChangeStays) {
                self.finish_change().await;
            }
            return;
        }
        let wanted: BTreeMap<NodeId, _> = spec.nodes.iter().map(|node| (node.id, node)).collect();
        for (id, node) in &wanted {
            let address = node.peer.to_string();
            let changed = match status.members.get(id) {
                None => self.raft.add_learner(*id, &address).await,
                Some(member) if member.address != address => self.raft.change_address(*id, &address).await,
                Some(member) if member.role == MemberRole::Learner && node.kind.votes() => {
                    let known = member.matched.map(|index| index.0);
                    let newest = status.last_log.map_or(0, |index| index.0);
                    if known.is_none_or(|known| known + CAUGHT_UP < newest) {
                        continue;
                    }
                    self.raft.promote(*id).await
                }
                Some(_) => continue,
            };
            match changed {
                Ok(()) => {
                    complaints.remove(id);
                    tracing::info!(node = %node.name, "membership brought in line with the specification");
                    return;
                }
                // One that cannot be changed (a retired id, say) must not keep the others from being changed.
                Err(error) if complaints.insert(*id) => {
                    tracing::warn!(node = %node.name, %error, "membership not changed yet; tried again");
                }
                Err(error) => tracing::debug!(node = %node.name, %error, "membership not changed yet"),
            }
        }
        let gone = status.members.keys().find(|id| !wanted.contains_key(id) && **id != self.me);
        if let Some(id) = gone {
            match self.raft.remove(*id).await {
                Ok(()) => tracing::info!(node = %id, "member removed"),
                Err(error) => tracing::debug!(node = %id, %error, "member not removed yet"),
            }
        }
    }
}

async fn leadership_changes(status: &mut watch::Receiver<RaftStatus>, leads: bool) {
    if status.wait_for(|status| status.is_leader != leads).await.is_err() {
        std::future::pending::<()>().await; // the consensus has ended, and so will this task
    }
}
