//! What a node answers to its peers, once it is known who asks.

use crate::brain::{Brain, Busy};
use crate::machine::Machine;
use crate::peers::{Heard, Noted, Peers};
use std::time::Duration;
use twinsite_consensus::Consensus;
use twinsite_controller::{NodeReport, Release, ReleasedBy, Renewal, RenewalAnswer, RenewalRefusal};
use twinsite_model::{NodeId, Profile, Timing};

/// How long the leader may take to hear of a release that is passed on. The guardian repeats it.
const PASS_ON_WITHIN: Duration = Duration::from_millis(500);

/// The answering side of [`Peers`].
pub struct Desk<M: Machine, P: Peers> {
    /// This node.
    pub me: NodeId,
    /// The other nodes.
    pub peers: P,
    /// The controller.
    pub brain: Brain,
    /// The consensus.
    pub raft: Consensus<M>,
}

impl<M: Machine, P: Peers> Clone for Desk<M, P> {
    fn clone(&self) -> Self {
        Self { me: self.me, peers: self.peers.clone(), brain: self.brain.clone(), raft: self.raft.clone() }
    }
}

impl<M: Machine, P: Peers> Desk<M, P> {
    /// A node gives its observations.
    pub fn report(&self, report: NodeReport) -> Result<Heard, Busy> {
        self.brain.report(report)?;
        let leads = self.leads();
        let fresh = 2 * self.timing().lease;
        let has_quorum = leads && self.raft.quorum_ack_age().is_some_and(|age| age < fresh);
        Ok(Heard { leads, has_quorum })
    }

    /// An owner asks for more time.
    pub async fn renew(&self, renewal: Renewal) -> RenewalAnswer {
        let busy = RenewalAnswer::Refused { seq: renewal.seq, why: RenewalRefusal::Busy };
        self.brain.renew(renewal).await.unwrap_or(busy)
    }

    /// A token has ended.
    pub async fn release(&self, release: Release) -> Result<Noted, Busy> {
        self.pass_on(release.clone());
        let current = self.raft.state().owner(&release.ip).map(|owner| owner.token);
        self.brain.released(release).await?;
        Ok(Noted { leads: self.leads(), current })
    }

    /// A guardian knows only the nodes of its file. Its own node, alive again, knows who leads.
    fn pass_on(&self, release: Release) {
        let leader = self.raft.status().borrow().leader.filter(|leader| *leader != self.me);
        if let Some(leader) = leader
            && release.by == ReleasedBy::Guardian
            && release.node == self.me
        {
            let peers = self.peers.clone();
            drop(M::spawn(async move { drop(peers.release(leader, &release, PASS_ON_WITHIN).await) }));
        }
    }

    fn leads(&self) -> bool {
        self.raft.status().borrow().is_leader
    }

    fn timing(&self) -> Timing {
        let state = self.raft.state();
        state.spec.as_ref().map_or_else(|| Timing::of(Profile::default()), |spec| spec.timing())
    }
}
