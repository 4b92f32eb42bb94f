//! Conditions that need a person: raised when they last, cleared when they end.

use crate::breaker;
use crate::journal;
use crate::notice::{Alarm, Drift};
use crate::report::OutsideView;
use crate::rules;
use crate::view::View;
use std::collections::BTreeSet;
use std::time::Duration;
use twinsite_model::spec::FloatingIpSpec;
use twinsite_model::{NodeId, Outcome};

/// How long a condition must last before it is an alarm: a failover in good order raises none.
pub(crate) fn delay(view: &View<'_>) -> Duration {
    (2 * view.timing.lease).max(Duration::from_secs(2))
}

/// Voters that are heard, this node included, and those that are not.
pub(crate) fn voters(view: &View<'_>, me: NodeId) -> (Vec<NodeId>, Vec<NodeId>) {
    let voters = view.spec.nodes.iter().filter(|node| node.kind.votes()).map(|node| node.id);
    voters.partition(|node| *node == me || view.heard(*node).is_some())
}

/// How many more voters may fail with a quorum left.
pub(crate) fn tolerated(heard: usize, voters: usize) -> u32 {
    heard.saturating_sub(voters / 2 + 1) as u32
}

/// The conditions that hold now.
pub(crate) fn conditions(view: &View<'_>, me: NodeId) -> BTreeSet<Alarm> {
    let mut alarms = BTreeSet::new();
    let (heard, missing) = voters(view, me);
    let tolerated = tolerated(heard.len(), heard.len() + missing.len());
    if !missing.is_empty() {
        alarms.insert(Alarm::RedundancyLost { missing, tolerated });
    }
    if let Some(until) = breaker::open_until(view.state, &view.spec.policy, view.wall()) {
        alarms.insert(Alarm::BreakerOpen { until });
    }
    for site in view.spec.sites.iter().filter(|site| view.health(&site.name).all_bad()) {
        alarms.insert(Alarm::SiteUnhealthy { site: site.name.clone() });
    }
    let fit: BTreeSet<_> = view
        .spec
        .nodes
        .iter()
        .filter(|node| rules::unfit(view, node).is_none())
        .map(|node| node.id)
        .collect();
    let misannounced = journal::misannounced(view).len() as u32;
    for ip in &view.spec.floating_ips {
        let owner = view.owner(&ip.name).map(|owner| owner.node);
        if !fit.iter().any(|node| Some(*node) != owner) {
            alarms.insert(Alarm::NoStandby { ip: ip.name.clone() });
        }
        let seen = view.spec.nodes.iter().filter_map(|node| view.heard(node.id)?.floating_ips.get(&ip.name));
        let strangers = seen.filter_map(|seen| seen.stranger);
        alarms.extend(strangers.map(|hardware| Alarm::AddressConflict { ip: ip.name.clone(), hardware }));
        if let Some(operation) = unverified(view, ip) {
            alarms.insert(Alarm::NotVerified { ip: ip.name.clone(), operation });
        }
        if view.operation(&ip.name).is_none() {
            let drifts = drifts(view, ip, misannounced);
            alarms.extend(drifts.into_iter().map(|what| Alarm::Drift { ip: ip.name.clone(), what }));
        }
    }
    alarms
}

/// The last move of an address, if it ended without proof and the proof is still missing.
fn unverified(view: &View<'_>, ip: &FloatingIpSpec) -> Option<twinsite_model::OperationId> {
    let last = view.state.history.iter().rev().find(|operation| operation.ip == ip.name)?;
    let (_, outcome) = last.ended?;
    let owner = view.owner(&ip.name)?;
    let seen = view.tenure.reports().any(|(_, report)| {
        report.node != owner.node
            && view
                .heard(report.node)
                .and_then(|report| report.floating_ips.get(&ip.name)?.outside.as_ref()?.token())
                == Some(owner.token)
    });
    (outcome == Outcome::Unverified && last.token == Some(owner.token) && !seen).then_some(last.id)
}

/// Where the agreed owner, the kernels, the view from outside and the announcements differ.
fn drifts(view: &View<'_>, ip: &FloatingIpSpec, misannounced: u32) -> Vec<Drift> {
    let Some(owner) = view.owner(&ip.name) else { return Vec::new() };
    let mut drifts = Vec::new();
    let (mut seen_outside, mut silent_outside) = (false, false);
    for (_, report) in view.tenure.reports() {
        let Some(report) = view.heard(report.node) else { continue };
        let seen = report.floating_ips.get(&ip.name);
        let held = seen.and_then(|seen| seen.held);
        if report.node == owner.node && held != Some(owner.token) {
            drifts.push(Drift::OwnerDoesNotHold { owner: owner.node });
        }
        if let Some(token) = held
            && report.node != owner.node
        {
            drifts.push(Drift::HeldByOther { node: report.node, token });
        }
        match seen.and_then(|seen| seen.outside.as_ref()) {
            Some(OutsideView::Answered { node, token }) if (*node, *token) != (owner.node, owner.token) => {
                drifts.push(Drift::OutsideSeesOther { node: *node, token: *token });
            }
            Some(OutsideView::Answered { .. }) => seen_outside = true,
            Some(OutsideView::Silent { .. }) if report.node != owner.node => silent_outside = true,
            Some(OutsideView::Silent { .. }) | None => {}
        }
    }
    if silent_outside && !seen_outside {
        drifts.push(Drift::OutsideSilent);
    }
    if misannounced > 0 {
        drifts.push(Drift::AnnouncedDiffers { instances: misannounced });
    }
    drifts
}
