//! Where the Raft leader should live: away from the owner's site, so that the owner's death needs no election.

use crate::view::View;
use std::time::Duration;
use twinsite_model::spec::{NodeKind, NodeSpec};
use twinsite_model::{BootTime, NodeId, State};

/// The order in which voters stand for election. Every node that has applied the same state computes the same; nothing but
/// speed depends on that. Empty without a spec.
pub fn election_order(state: &State) -> Vec<NodeId> {
    let Some(spec) = &state.spec else { return Vec::new() };
    let owned = |node: &NodeSpec| {
        let sites = spec.floating_ips.iter().filter_map(|ip| state.owner_site(&ip.name));
        sites.filter(|site| **site == node.site).count()
    };
    let mut voters: Vec<_> = spec.nodes.iter().filter(|node| node.kind.votes()).collect();
    // A witness has the least to offer: it would hand leadership on at once.
    voters.sort_by_key(|node| (node.kind == NodeKind::Witness, owned(node), node.id));
    voters.iter().map(|voter| voter.id).collect()
}

/// How long a tenure must have lasted, and how long lies between two attempts. A transfer that fails costs an
/// election.
pub(crate) fn patience(view: &View<'_>) -> Duration {
    (5 * view.timing.lease).max(Duration::from_secs(5))
}

/// A better place for leadership, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Transfer {
    pub(crate) to: NodeId,
    pub(crate) why: String,
}

/// How unsuited a node is: by the addresses owned at its site, then by being a witness (which has the least to
/// offer), the smaller the better.
fn unsuited(view: &View<'_>, node: &NodeSpec) -> (u32, bool) {
    (view.index.owned(&node.site), node.kind == NodeKind::Witness)
}

/// The node to which leadership should go now, if any; or when to look again.
pub(crate) fn transfer(
    view: &View<'_>,
    me: NodeId,
    tried: Option<BootTime>,
) -> Result<Transfer, Option<BootTime>> {
    let timing = view.timing;
    // A failed transfer leaves a hole of up to two elections; it must fit into a lease.
    let worst_hole = 2 * timing.election_max + timing.renew + timing.slack;
    if worst_hole >= timing.lease {
        return Err(None);
    }
    let since = tried.map_or(view.tenure.elected_at, |tried| tried.max(view.tenure.elected_at));
    if view.now < since + patience(view) {
        return Err(Some(since + patience(view)));
    }
    let mine = unsuited(view, view.node(me).ok_or(None)?);
    if !view.tenure.is_idle() || !owners_are_well(view) {
        return Err(None);
    }
    let others = view.spec.nodes.iter().filter(|node| node.id != me && node.kind.votes());
    let better = others.filter(|node| unsuited(view, node) < mine && can_lead(view, me, node.id));
    let best = better.min_by_key(|node| (unsuited(view, node), node.id)).ok_or(None)?;
    let why = format!(
        "{} addresses are owned at the leader's site, {} at the site of {}",
        mine.0,
        unsuited(view, best).0,
        best.name
    );
    Ok(Transfer { to: best.id, why })
}

/// Every address has an owner with a fresh grant, and nothing is being moved. One that the specification does not name
/// any more has nobody who renews.
fn owners_are_well(view: &View<'_>) -> bool {
    let named = view.spec.floating_ips.iter().map(|ip| &ip.name);
    named.filter_map(|ip| Some((ip, view.state.floating_ips.get(ip)?))).all(|(ip, entry)| {
        let recently = |owner: &twinsite_model::Owner| {
            let last = view.tenure.grantor.last_grant(ip, owner.token);
            last.is_some_and(|last| view.now.since(last) < 4 * view.timing.renew)
        };
        entry.operation.is_none() && entry.owner.as_ref().is_none_or(recently)
    })
}

/// Heard, caught up, itself in touch with a quorum, and with everybody with whom this leader is: over a network that is
/// cut in part, a leader that hears less would take those for dead whom it cannot hear.
fn can_lead(view: &View<'_>, me: NodeId, node: NodeId) -> bool {
    let Some(report) = view.heard(node) else { return false };
    let hears = |other: NodeId| other == node || report.peers_heard.contains(&other);
    let mut voters = view.spec.nodes.iter().filter(|node| node.kind.votes());
    let of = voters.clone().count();
    let heard = voters.clone().filter(|voter| hears(voter.id)).count();
    let heard_here = |other: &NodeSpec| other.id == me || view.heard(other.id).is_some();
    let hears_no_less = voters.all(|voter| !heard_here(voter) || hears(voter.id));
    !report.draining && report.applied >= view.state.revision && heard > of / 2 && hears_no_less
}
