//! An operator whose machine has lost its disk: the machine joins again under a new id, the old one is removed.

use super::node::Raft;
use twinsite_consensus::MembershipError;
use twinsite_model::NodeId;

/// A replacement under way. At most one at a time, as for a careful operator.
#[derive(Debug, Clone, Copy)]
pub(super) struct Replacement {
    pub(super) old: NodeId,
    pub(super) new: NodeId,
}

/// How far a replacement has come, as the leader said that was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Progress {
    /// The new node has the vote of the old one.
    Done,
    /// Not yet: it is asked again.
    NotYet(MembershipError),
}

impl Replacement {
    /// Has a leader take every step that is still to be taken.
    pub(super) async fn go_on(self, raft: &Raft) -> Progress {
        match self.steps(raft).await {
            Ok(()) => Progress::Done,
            Err(error) => Progress::NotYet(error),
        }
    }

    async fn steps(self, raft: &Raft) -> Result<(), MembershipError> {
        match raft.add_learner(self.new, &self.new.to_string()).await {
            Ok(()) | Err(MembershipError::AlreadyMember(_)) => {}
            Err(error) => return Err(error),
        }
        raft.promote(self.new).await?;
        match raft.remove(self.old).await {
            Ok(()) | Err(MembershipError::NotMember(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }
}
