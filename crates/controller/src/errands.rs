//! Routed addresses: where a provider routes an address is brought in line with its agreed owner, by errands
//! (see `twinsite_model::errand`). Level-triggered: what nodes see of the provider is compared with the owner, whoever
//! changed it, and a new leader goes on from the journal.
//!
//! At most one call is under way. The next errand is sent when the last one has ended and somebody has looked at the
//! provider since: it may be busy with that call, or with one that somebody made at its console.

use crate::journal::Next;
use crate::report::RoutingView;
use crate::view::View;
use std::time::Duration;
use twinsite_model::spec::FloatingIpSpec;
use twinsite_model::{
    BootTime, Command, Errand, ErrandEnd, ErrandId, Fault, Faults, FloatingIpName, Format, NodeId, Owner,
};

/// The pause between the end of an errand and the next one: a provider that refuses is not asked without end.
fn pause(view: &View<'_>) -> Duration {
    view.timing.provider_call / 4
}

/// What the routing of a routed address needs now.
pub(crate) fn next(view: &View<'_>, ip: &FloatingIpSpec, faults: &Faults) -> Next {
    if view.state.format < Format::ERRANDS || view.spec.policy.observe_only {
        return Next::default();
    }
    let Some(entry) = view.state.floating_ips.get(&ip.name) else { return Next::default() };
    match &entry.errand {
        Some(errand) => under_way(view, &ip.name, errand, faults),
        None => match &entry.owner {
            Some(owner) if !owner.revoked => compare(view, &ip.name, owner, entry.errands),
            Some(_) | None => Next::default(),
        },
    }
}

fn under_way(view: &View<'_>, ip: &FloatingIpName, errand: &Errand, faults: &Faults) -> Next {
    let end = |end| Next::propose([Command::EndErrand { ip: ip.clone(), errand: errand.id, end }]);
    if let Some(said) = said(view, ip, errand) {
        return end(said);
    }
    let since = view.tenure.errand_since(ip).unwrap_or(view.now);
    let over = since + view.timing.outlast(errand.within);
    if errand.recalled {
        // Nobody who asked after the recall began; whoever asked before it has had the time, on any clock.
        if view.now >= over || faults.has(Fault::ErrandNotWaitedFor) {
            return end(ErrandEnd::WaitedOut);
        }
        return Next::wait(Some(over), format!("every call of errand {} to have had its time", errand.id));
    }
    let owned = view.owner(ip).is_some_and(|owner| owner.token == errand.token && !owner.revoked);
    let lives = view.state.nodes.get(&errand.by).is_some_and(|life| life.incarnation == errand.incarnation);
    let silent = view.settled() && view.heard(errand.by).is_none();
    if !owned || !lives || silent || view.now >= over {
        return Next::propose([Command::RecallErrand { ip: ip.clone(), errand: errand.id }]);
    }
    Next::wait(Some(over), format!("{} to call the provider", view.name(errand.by)))
}

/// What the node that was sent says of the end; true whenever it was said.
fn said(view: &View<'_>, ip: &FloatingIpName, errand: &Errand) -> Option<ErrandEnd> {
    let (_, report) = view.tenure.report(errand.by)?;
    let (id, end) = report.floating_ips.get(ip)?.errand?;
    (report.incarnation == errand.incarnation && id == errand.id).then_some(end)
}

/// Everybody who can ask the provider, with what it said since the last errand ended.
fn seen<'a>(
    view: &'a View<'a>,
    ip: &'a FloatingIpName,
) -> impl Iterator<Item = (NodeId, &'a RoutingView)> + use<'a> {
    let nodes = view.spec.nodes.iter().filter_map(|node| view.heard(node.id));
    nodes.filter_map(move |report| Some((report.node, report.floating_ips.get(ip)?.routing.as_ref()?)))
}

/// Where a provider routes an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Route {
    /// To a node.
    To(NodeId),
    /// To something that is no node.
    Elsewhere,
    /// There is no telling: nobody has looked since the last errand, some saw it busy, or they do not say the same.
    Unsettled,
}

/// Where the provider routes an address, by all who have looked since the last errand.
pub(crate) fn route(view: &View<'_>, ip: &FloatingIpName) -> Route {
    let last = view.state.floating_ips.get(ip).map_or(ErrandId(0), |entry| entry.errands);
    let mut current = seen(view, ip).map(|(_, seen)| seen).filter(|seen| seen.after >= last);
    let Some(first) = current.next() else { return Route::Unsettled };
    if first.busy || current.any(|other| other.busy || other.to != first.to) {
        return Route::Unsettled;
    }
    first.to.map_or(Route::Elsewhere, Route::To)
}

fn compare(view: &View<'_>, ip: &FloatingIpName, owner: &Owner, last: ErrandId) -> Next {
    match route(view, ip) {
        Route::To(node) if node == owner.node => return Next::default(),
        Route::To(_) | Route::Elsewhere => {}
        Route::Unsettled => {
            return Next::wait(None, "the provider to be seen, and to have done what it was told before");
        }
    }
    let may_ask = view.tenure.errand_since(ip).map_or(BootTime::default(), |since| since + pause(view));
    if last > ErrandId(0) && view.now < may_ask {
        return Next::wait(Some(may_ask), "a moment to pass since the last errand");
    }
    // In turn, beginning with the owner, so that one that fails again and again is not sent again and again.
    let mut able: Vec<_> = seen(view, ip).map(|(node, _)| node).collect();
    able.sort_by_key(|node| (*node != owner.node, *node));
    let Some(by) = able.get(last.0 as usize % able.len().max(1)).copied() else { return Next::default() };
    let Some(life) = view.state.nodes.get(&by) else { return Next::default() };
    Next::propose([Command::SendErrand {
        ip: ip.clone(),
        by,
        incarnation: life.incarnation,
        token: owner.token,
        to: owner.node,
        within: view.timing.provider_call,
    }])
}
