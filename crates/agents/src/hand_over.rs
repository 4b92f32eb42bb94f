//! The last thing that a leader does before it ends.

use crate::machine::Machine;
use std::collections::BTreeSet;
use twinsite_consensus::Consensus;
use twinsite_model::NodeId;

/// A leader that just ended would leave the cluster without one for an election.
pub async fn hand_leadership_over<M: Machine>(me: NodeId, raft: &Consensus<M>) {
    let status = raft.status().borrow().clone();
    if !status.is_leader {
        return;
    }
    let state = raft.state();
    let owner_sites: BTreeSet<_> =
        state.floating_ips.keys().filter_map(|ip| state.owner_site(ip).cloned()).collect();
    let site = |node: &NodeId| state.spec.as_ref().and_then(|spec| Some(spec.node(*node)?.site.clone()));
    let mut heirs: Vec<_> = status.voters().filter(|node| *node != me).collect();
    heirs.sort_by_key(|node| {
        let lag = status.members.get(node).and_then(|member| member.matched).map(|index| index.0);
        (std::cmp::Reverse(lag), site(node).is_some_and(|site| owner_sites.contains(&site)), *node)
    });
    for heir in heirs {
        if raft.transfer_leadership(heir).await.is_ok() {
            return;
        }
    }
}
