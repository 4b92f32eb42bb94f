//! Who belongs to the cluster. Every change goes through the leader and is bounded in time.

use crate::consensus::Consensus;
use crate::error::MembershipError;
use crate::raft_types::{Address, Membership, Types};
use openraft::async_runtime::watch::WatchReceiver;
use openraft::error::{ChangeMembershipError, ClientWriteError, InitializeError, RaftError};
use openraft::{AsyncRuntime, ChangeMembers};
use std::collections::{BTreeMap, BTreeSet};
use twinsite_model::NodeId;

/// How far behind a learner may be when it gets a vote: a voter that must first catch up is a failure that the
/// cluster no longer tolerates.
const BEHIND_MAX: u64 = 100;

impl<RT: AsyncRuntime> Consensus<RT> {
    /// Founds the cluster with these voters, this node among them. Once, on one of them.
    pub async fn initialize(&self, members: &BTreeMap<NodeId, String>) -> Result<(), MembershipError> {
        if !members.contains_key(&self.node()) {
            return Err(MembershipError::NotAmongMembers);
        }
        let members: BTreeMap<_, _> =
            members.iter().map(|(node, address)| (node.0, Address(address.clone()))).collect();
        let timeout = self.shared.options.propose_timeout;
        match RT::timeout(timeout + self.shared.options.start_delay, self.raft.initialize(members)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(RaftError::APIError(InitializeError::NotAllowed(_)))) => {
                Err(MembershipError::AlreadyInitialised)
            }
            Ok(Err(RaftError::APIError(InitializeError::NotInMembers(_)))) => {
                Err(MembershipError::NotAmongMembers)
            }
            Ok(Err(RaftError::Fatal(fatal))) => Err(self.stop_reason(&fatal).into()),
            Err(_) => Err(MembershipError::OutcomeUnknown),
        }
    }

    /// Adds a node that receives the log and has no vote. Its id must never have been used before.
    pub async fn add_learner(&self, node: NodeId, address: &str) -> Result<(), MembershipError> {
        if self.shared.published.is_retired(node) {
            return Err(MembershipError::Retired(node));
        }
        if self.membership().get_node(&node.0).is_some() {
            return Err(MembershipError::AlreadyMember(node));
        }
        let added = BTreeMap::from([(node.0, Address(address.to_owned()))]);
        self.change(ChangeMembers::AddNodes(added), true).await
    }

    /// Gives a learner that has caught up a vote.
    pub async fn promote(&self, node: NodeId) -> Result<(), MembershipError> {
        if self.membership().get_node(&node.0).is_none() {
            return Err(MembershipError::NotMember(node));
        }
        let behind = self.behind(node);
        if behind > BEHIND_MAX {
            return Err(MembershipError::NotCaughtUp { node, behind });
        }
        self.change(ChangeMembers::AddVoterIds(BTreeSet::from([node.0])), true).await
    }

    /// Takes a node out for good; its id never comes back.
    pub async fn remove(&self, node: NodeId) -> Result<(), MembershipError> {
        let membership = self.membership();
        if membership.get_node(&node.0).is_none() {
            return Err(MembershipError::NotMember(node));
        }
        let voters: BTreeSet<_> = membership.voter_ids().collect();
        if voters == BTreeSet::from([node.0]) {
            return Err(MembershipError::LastVoter);
        }
        let gone = BTreeSet::from([node.0]);
        let change = if voters.contains(&node.0) {
            ChangeMembers::RemoveVoters(gone)
        } else {
            ChangeMembers::RemoveNodes(gone)
        };
        self.change(change, false).await
    }

    /// Brings a change to its end that a former leader left half done: both sets of voters must agree on everything
    /// until then, and no other change is possible. (Raft section 6: joint consensus; openraft takes both steps in the
    /// task that asked for the change, so they end with it.) Whoever loses the vote stays as a learner.
    pub async fn finish_change(&self) -> Result<(), MembershipError> {
        self.change(ChangeMembers::AddVoterIds(BTreeSet::new()), true).await
    }

    /// Changes where a member is reached. A wrong address does no harm: whoever answers there must prove who it is.
    pub async fn change_address(&self, node: NodeId, address: &str) -> Result<(), MembershipError> {
        if self.membership().get_node(&node.0).is_none() {
            return Err(MembershipError::NotMember(node));
        }
        let moved = BTreeMap::from([(node.0, Address(address.to_owned()))]);
        self.change(ChangeMembers::SetNodes(moved), true).await
    }

    fn membership(&self) -> Membership {
        self.raft.metrics().borrow_watched().membership_config.membership().clone()
    }

    /// How many entries a peer lacks, as far as this leader knows.
    pub(crate) fn behind(&self, node: NodeId) -> u64 {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let next = metrics.last_log_index.map_or(0, |last| last + 1);
        let matched = metrics.replication.as_ref().and_then(|all| all.get(&node.0).copied().flatten());
        next.saturating_sub(matched.map_or(0, |matched| matched.index + 1))
    }

    async fn change(&self, change: ChangeMembers<u64, Address>, retain: bool) -> Result<(), MembershipError> {
        if !self.status().borrow().started {
            return Err(MembershipError::NotLeader { leader: None });
        }
        let changing = self.raft.change_membership(change, retain);
        match RT::timeout(self.shared.options.propose_timeout, changing).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(RaftError::APIError(error))) => Err(Self::decline(error)),
            Ok(Err(RaftError::Fatal(fatal))) => Err(self.stop_reason(&fatal).into()),
            Err(_) => Err(MembershipError::OutcomeUnknown),
        }
    }

    fn decline(error: ClientWriteError<Types<RT>>) -> MembershipError {
        use ChangeMembershipError as Change;
        match error {
            ClientWriteError::ForwardToLeader(forward) => {
                MembershipError::NotLeader { leader: forward.leader_id.map(NodeId) }
            }
            ClientWriteError::LogEntryDiscarded(_) => MembershipError::OutcomeUnknown,
            ClientWriteError::ChangeMembershipError(
                Change::InProgress(_) | Change::UncommittedLeaderLog(_),
            ) => MembershipError::InProgress,
            ClientWriteError::ChangeMembershipError(Change::EmptyMembership(_)) => MembershipError::LastVoter,
            ClientWriteError::ChangeMembershipError(Change::LearnerNotFound(missing)) => {
                MembershipError::NotMember(NodeId(missing.node_id))
            }
            other => MembershipError::Declined(other.to_string()),
        }
    }
}
