//! The safety rules that guard every move (design section 6).

use crate::breaker;
use crate::report::StoreView;
use crate::view::View;
use twinsite_model::spec::{FloatingIpSpec, NodeSpec};
use twinsite_model::{OperationKind, SafetyRule};

/// What came of asking one rule about one move.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleResult {
    /// The rule.
    pub rule: SafetyRule,
    /// Whether it is satisfied.
    pub satisfied: bool,
    /// Whether the person overrode it by name.
    pub overridden: bool,
    /// One line: what was found.
    pub detail: String,
}

impl RuleResult {
    /// Whether the move may go on as far as this rule is concerned.
    pub fn holds(&self) -> bool {
        self.satisfied || self.overridden
    }
}

/// Whether a move that is asked about presses, and who wants it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Urgency {
    /// The controller's own decision, not a person's.
    pub(crate) automatic: bool,
    /// Nobody answers for the address: where every place is equally bad, a bad place is better than none.
    pub(crate) dark: bool,
}

/// Asks every rule about a move of this kind to this node.
pub(crate) fn ask(
    view: &View<'_>,
    ip: &FloatingIpSpec,
    target: &NodeSpec,
    kind: OperationKind,
    urgency: Urgency,
    overrides: &[SafetyRule],
) -> Vec<RuleResult> {
    let answer = |rule| match rule {
        SafetyRule::TargetHealthy => target_healthy(view, ip, target, urgency),
        SafetyRule::TargetReachesStore => target_reaches_store(view, target),
        SafetyRule::TargetReady => match unfit(view, target) {
            None => (true, format!("{} is heard and ready", target.name)),
            Some(why) => (false, why),
        },
        SafetyRule::NotPaused => not_paused(view, kind, urgency),
        SafetyRule::BreakerClosed => breaker_closed(view, kind, urgency),
    };
    let result = |rule| {
        let (satisfied, detail) = answer(rule);
        RuleResult { rule, satisfied, overridden: !satisfied && overrides.contains(&rule), detail }
    };
    SafetyRule::ALL.into_iter().map(result).collect()
}

fn target_healthy(
    view: &View<'_>,
    ip: &FloatingIpSpec,
    target: &NodeSpec,
    urgency: Urgency,
) -> (bool, String) {
    let (site, wanted) = (&target.site, view.healthy_min());
    let healthy = view.health(site).healthy;
    if healthy >= wanted {
        return (true, format!("site {site} has {healthy} healthy upstreams; {wanted} are needed"));
    }
    let nobody_better =
        view.spec.owner_sites(ip).into_iter().all(|other| view.health(other).healthy < wanted);
    if urgency.dark && nobody_better {
        return (true, format!("site {site} has {healthy} healthy upstreams, and no site has more to offer"));
    }
    (false, format!("site {site} has {healthy} healthy upstreams; {wanted} are needed"))
}

fn target_reaches_store(view: &View<'_>, target: &NodeSpec) -> (bool, String) {
    let store = |node: &NodeSpec| view.heard(node.id).map(|report| &report.store);
    match store(target) {
        Some(StoreView::Embedded) => (true, "the session store is embedded".to_owned()),
        Some(StoreView::Reachable) => (true, format!("{} reaches the session store", target.name)),
        Some(StoreView::Unreachable { detail }) => {
            let anybody = view.spec.nodes.iter().any(|node| store(node) == Some(&StoreView::Reachable));
            if anybody {
                (false, format!("{} does not reach the session store: {detail}", target.name))
            } else {
                (true, "no node reaches the session store: it is the store that is away".to_owned())
            }
        }
        None => (false, format!("{} is not heard", target.name)),
    }
}

/// Why a node cannot take an address now.
pub(crate) fn unfit(view: &View<'_>, node: &NodeSpec) -> Option<String> {
    let name = &node.name;
    if !node.kind.may_own() {
        return Some(format!("{name} may not own addresses"));
    }
    let used = view.state.format;
    if let Some((_, report)) = view.tenure.report(node.id).filter(|(_, report)| report.format_max < used) {
        let reads = report.format_max.0;
        return Some(format!(
            "{name} reads format {reads} at most, and the cluster uses {}: upgrade it",
            used.0
        ));
    }
    let Some(report) = view.heard(node.id) else { return Some(format!("{name} is not heard")) };
    if report.draining {
        return Some(format!("{name} is being emptied"));
    }
    report.not_ready.as_ref().map(|why| format!("{name} is not ready: {why}"))
}

fn not_paused(view: &View<'_>, kind: OperationKind, urgency: Urgency) -> (bool, String) {
    match &view.state.pause {
        Some(pause) if view.wall() < pause.until => {
            let detail = format!("paused by {} until {}: {}", pause.by, pause.until, pause.reason);
            if !urgency.automatic || kind == OperationKind::Placement {
                (true, format!("{detail} (which concerns automatic moves only)"))
            } else {
                (false, detail)
            }
        }
        _ => (true, "not paused".to_owned()),
    }
}

fn breaker_closed(view: &View<'_>, kind: OperationKind, urgency: Urgency) -> (bool, String) {
    let policy = &view.spec.policy;
    let counted = breaker::counted(view.state, policy, view.wall()) + view.tenure.failovers_under_way();
    let detail = format!(
        "{counted} automatic failovers within {}; {} are allowed",
        policy.failover_window, policy.failovers_max
    );
    let open = counted >= policy.failovers_max as usize;
    (!(open && urgency.automatic && kind == OperationKind::Failover), detail)
}
