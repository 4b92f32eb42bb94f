//! Who should own an address, and why a move should begin.

use crate::grantor::ReleasedBy;
use crate::notice::Decision;
use crate::rules::{self, RuleResult, Urgency};
use crate::view::View;
use std::cmp::Reverse;
use std::time::Duration;
use twinsite_model::spec::{Failback, FloatingIpSpec, NodeSpec};
use twinsite_model::{
    BootTime, Command, Incarnation, NodeId, OperationKind, Owner, Reason, SafetyRule, SiteName, Verdict,
};

/// For how long what does not press is left alone after a person called a move off.
pub(crate) const CALLED_OFF: Duration = Duration::from_mins(10);

/// A reason to move, with what was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cause {
    pub(crate) reason: Reason,
    pub(crate) evidence: Vec<String>,
}

impl Cause {
    fn new(reason: Reason, line: String) -> Self {
        Self { reason, evidence: vec![line] }
    }

    /// Whether nobody answers for the address, or soon nobody will.
    pub(crate) fn dark(&self) -> bool {
        !matches!(
            self.reason,
            Reason::SiteUnhealthy | Reason::Preference | Reason::OwnerIneligible | Reason::Operator
        )
    }
}

/// A node that may own an address and is fit to, in this life, by a move of this kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Candidate {
    pub(crate) node: NodeId,
    pub(crate) incarnation: Incarnation,
    pub(crate) site: SiteName,
    pub(crate) kind: OperationKind,
    pub(crate) rules: Vec<RuleResult>,
}

impl Candidate {
    /// Whether no rule forbids it.
    pub(crate) fn passes(&self) -> bool {
        self.rules.iter().all(RuleResult::holds)
    }
}

/// A move to begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Move {
    pub(crate) cause: Cause,
    pub(crate) target: Candidate,
}

/// A reason to move that cannot be followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Blocked {
    pub(crate) cause: Cause,
    /// What the rules said about the best candidate; empty if there is none.
    pub(crate) rules: Vec<RuleResult>,
    /// Why the other nodes are no candidates.
    pub(crate) unfit: Vec<String>,
}

/// What should be done about an address that nothing is moving.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outlook {
    /// Nothing, until then at the earliest (if time alone can change it).
    Stay(Option<BootTime>),
    /// There is a reason, and the leader has not heard everybody yet.
    Listen(BootTime),
    /// There is a reason that does not press, and a person called the last move off.
    CalledOff(BootTime),
    /// Move.
    Move(Box<Move>),
    /// There is a reason, and nothing can be done.
    Blocked(Box<Blocked>),
}

/// In which order candidates are preferred.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Preference<'a> {
    /// The site to stay at.
    pub(crate) near: Option<&'a SiteName>,
    /// The node that comes before all others.
    pub(crate) first: Option<NodeId>,
    /// The node that comes after all others.
    pub(crate) last: Option<NodeId>,
}

/// Decides about one address that nothing is moving.
pub(crate) fn decide(view: &View<'_>, ip: &FloatingIpSpec) -> Outlook {
    let owner = view.owner(&ip.name);
    let cause = match cause(view, ip, owner) {
        Ok(cause) => cause,
        Err(wake) => return Outlook::Stay(wake),
    };
    if !view.settled() && !everybody_heard(view, ip) {
        return Outlook::Listen(view.settled_at());
    }
    if !cause.dark()
        && let Some(at) = view.tenure.called_off.get(&ip.name)
        && view.now < *at + CALLED_OFF
    {
        return Outlook::CalledOff(*at + CALLED_OFF);
    }
    match choose(view, ip, owner, &cause) {
        Ok(target) => Outlook::Move(Box::new(Move { cause, target })),
        Err((rules, unfit)) => Outlook::Blocked(Box::new(Blocked { cause, rules, unfit })),
    }
}

/// Whether every node that may own the address has reported, or is known to have ended: nobody waits for that one.
fn everybody_heard(view: &View<'_>, ip: &FloatingIpSpec) -> bool {
    let sites = view.spec.owner_sites(ip);
    let mut nodes = view.spec.nodes.iter().filter(|node| node.kind.may_own() && sites.contains(&&node.site));
    nodes.all(|node| view.heard(node.id).is_some() || view.has_ended(node.id))
}

/// Why the address should move, or when time alone may give a reason.
fn cause(view: &View<'_>, ip: &FloatingIpSpec, owner: Option<&Owner>) -> Result<Cause, Option<BootTime>> {
    let Some(owner) = owner else {
        let reason = if view.state.generation.0 > 1 && view.state.history.is_empty() {
            Reason::Recovery
        } else {
            Reason::NoOwner
        };
        return Ok(Cause::new(reason, "nobody owns the address".to_owned()));
    };
    let silent_at = match owner_gone(view, ip, owner) {
        Ok(cause) => return Ok(cause),
        Err(silent_at) => silent_at,
    };
    if let Some(cause) = owner_ineligible(view, ip, owner) {
        return Ok(cause);
    }
    if let Some(cause) = site_unhealthy(view, ip, owner).or_else(|| preference(view, ip, owner)) {
        return Ok(cause);
    }
    let attached_by = view.tenure.unattached.get(&ip.name).map(|(_, since)| *since + unattached_limit(view));
    Err(Some(attached_by.map_or(silent_at, |limit| silent_at.min(limit))))
}

/// Why the owner can no longer act, or when it will count as silent.
pub(crate) fn owner_gone(view: &View<'_>, ip: &FloatingIpSpec, owner: &Owner) -> Result<Cause, BootTime> {
    let name = view.name(owner.node);
    match view.tenure.grantor.released_by(&ip.name, owner) {
        Some(ReleasedBy::Holder) => {
            let line = format!("{name} has let go of token {}", owner.token);
            return Ok(Cause::new(Reason::OwnerStopped, line));
        }
        Some(ReleasedBy::Guardian) => {
            let line = format!("the guardian of {name} saw the holder of token {} end", owner.token);
            return Ok(Cause::new(Reason::OwnerReleased, line));
        }
        None => {}
    }
    let life = view.state.nodes.get(&owner.node).map(|life| life.incarnation);
    if life.is_some_and(|life| life > owner.incarnation) {
        return Ok(Cause::new(Reason::OwnerRestarted, format!("{name} lives a later life")));
    }
    let silent_at = view.silent_at(&ip.name, owner);
    if view.now >= silent_at {
        let line = format!("no grant to {name} can be valid any more: it is silent, or hears nothing");
        return Ok(Cause::new(Reason::OwnerSilent, line));
    }
    Err(silent_at)
}

/// How long an owner may hold a lease without the address before it is replaced.
pub(crate) fn unattached_limit(view: &View<'_>) -> Duration {
    5 * view.timing.lease
}

fn owner_ineligible(view: &View<'_>, ip: &FloatingIpSpec, owner: &Owner) -> Option<Cause> {
    let name = view.name(owner.node);
    let node = view.node(owner.node);
    let eligible =
        node.is_some_and(|node| node.kind.may_own() && view.spec.owner_sites(ip).contains(&&node.site));
    if !eligible {
        let line = format!("the specification does not let {name} own the address");
        return Some(Cause::new(Reason::OwnerIneligible, line));
    }
    let (_, since) = view.tenure.unattached.get(&ip.name)?;
    (view.now >= *since + unattached_limit(view))
        .then(|| Cause::new(Reason::OwnerIneligible, format!("{name} holds the lease and not the address")))
}

/// Every upstream of the owner's site is bad by agreed verdict, and another site is demonstrably better.
fn site_unhealthy(view: &View<'_>, ip: &FloatingIpSpec, owner: &Owner) -> Option<Cause> {
    let site = view.site_of(owner.node)?;
    if !view.health(site).all_bad() {
        return None;
    }
    let better = better_site(view, ip, site)?;
    let line = format!(
        "all {} upstreams of site {site} are unhealthy; site {better} has {} healthy ones",
        view.health(site).upstreams,
        view.health(better).healthy
    );
    Some(Cause::new(Reason::SiteUnhealthy, line))
}

/// A site that is demonstrably better than one without healthy upstreams.
pub(crate) fn better_site<'a>(
    view: &View<'a>,
    ip: &'a FloatingIpSpec,
    than: &SiteName,
) -> Option<&'a SiteName> {
    let wanted = view.healthy_min().max(1);
    view.spec.owner_sites(ip).into_iter().find(|site| *site != than && view.health(site).healthy >= wanted)
}

/// The preferred site has been entirely well for the agreed time. Wall-clock time: nothing safe hangs on it.
fn preference(view: &View<'_>, ip: &FloatingIpSpec, owner: &Owner) -> Option<Cause> {
    let Failback::After(stable) = ip.failback else { return None };
    let preferred = *view.spec.owner_sites(ip).first()?;
    if view.site_of(owner.node)? == preferred {
        return None;
    }
    let long_ago = |since| view.wall().since(since) >= stable.0;
    if !long_ago(owner.since) {
        return None;
    }
    let mut upstreams = view.spec.upstreams.iter().filter(|upstream| upstream.site == *preferred);
    let well = upstreams.all(|upstream| {
        view.state.verdict(&upstream.name) == Verdict::Healthy
            && view.state.verdicts.get(&upstream.name).is_some_and(|record| long_ago(record.since))
    });
    let mut nodes = view.spec.nodes.iter().filter(|node| node.site == *preferred && node.kind.may_own());
    let node_well = nodes.any(|node| {
        rules::unfit(view, node).is_none()
            && view.state.nodes.get(&node.id).is_some_and(|life| long_ago(life.since))
    });
    (well && node_well).then(|| {
        Cause::new(Reason::Preference, format!("the preferred site {preferred} has been well for {stable}"))
    })
}

/// Nodes that may own the address, in the order in which they are preferred: the best first.
pub(crate) fn ranked<'a>(
    view: &View<'a>,
    ip: &FloatingIpSpec,
    preference: Preference<'_>,
) -> Vec<&'a NodeSpec> {
    let sites = view.spec.owner_sites(ip);
    let rank = |node: &NodeSpec| {
        let listed = sites.iter().position(|site| **site == node.site)?;
        let away = preference.near.is_some_and(|near| *near != node.site);
        let store = !matches!(
            view.heard(node.id).map(|report| &report.store),
            Some(crate::report::StoreView::Unreachable { .. })
        );
        Some((
            preference.last == Some(node.id),
            Reverse(preference.first == Some(node.id)),
            away,
            listed,
            Reverse(store),
            node.id,
        ))
    };
    let owners = view.spec.nodes.iter().filter(|node| node.kind.may_own());
    let mut ranked: Vec<_> = owners.filter_map(|node| Some((rank(node)?, node))).collect();
    ranked.sort_by_key(|(rank, _)| *rank);
    ranked.into_iter().map(|(_, node)| node).collect()
}

/// The best node for a move with this cause, or what the rules say about the best candidate and why the others are
/// none.
fn choose(
    view: &View<'_>,
    ip: &FloatingIpSpec,
    owner: Option<&Owner>,
    cause: &Cause,
) -> Result<Candidate, (Vec<RuleResult>, Vec<String>)> {
    let owner_node = owner.map(|owner| owner.node);
    let owner_site = owner_node.and_then(|node| view.site_of(node));
    let leaves = cause.reason == Reason::SiteUnhealthy;
    let preferred = view.spec.owner_sites(ip).first().copied();
    let preference = Preference {
        near: owner_site.filter(|_| !leaves && cause.reason != Reason::Preference),
        // A node that only lives anew gets its address back; one that was seen to end is the last choice.
        first: owner_node.filter(|_| cause.reason == Reason::OwnerRestarted),
        last: owner_node.filter(|_| cause.reason != Reason::OwnerRestarted),
    };
    let mut unfit = Vec::new();
    let mut best = None;
    for node in ranked(view, ip, preference) {
        if (leaves && Some(&node.site) == owner_site)
            || (cause.reason == Reason::Preference && Some(&node.site) != preferred)
            || (cause.reason == Reason::OwnerIneligible && Some(node.id) == owner_node)
        {
            continue;
        }
        if let Some(why) = rules::unfit(view, node).or_else(|| same_life(view, owner, cause.reason, node)) {
            unfit.push(why);
            continue;
        }
        let kind = kind_of(cause.reason, owner_node == Some(node.id));
        let urgency = Urgency { automatic: true, dark: cause.dark() };
        let Some(candidate) = candidate(view, ip, node, kind, urgency, &[]) else { continue };
        if candidate.passes() {
            return Ok(candidate);
        }
        best.get_or_insert(candidate.rules);
    }
    Err((best.unwrap_or_default(), unfit))
}

/// A life that hears nothing is no candidate for the address that it lost by that, however well it is heard.
fn same_life(view: &View<'_>, owner: Option<&Owner>, reason: Reason, node: &NodeSpec) -> Option<String> {
    let owner = owner.filter(|owner| owner.node == node.id && reason == Reason::OwnerSilent)?;
    let report = view.heard(node.id)?;
    (report.incarnation == owner.incarnation).then(|| format!("{} does not hear the leader", node.name))
}

fn kind_of(reason: Reason, same_node: bool) -> OperationKind {
    match reason {
        Reason::NoOwner => OperationKind::Placement,
        Reason::Recovery => OperationKind::Forced,
        Reason::Preference => OperationKind::Failback,
        // A node that gets its own address back is no failover: pause and breaker have no say.
        _ if same_node => OperationKind::Placement,
        _ => OperationKind::Failover,
    }
}

/// A node as the target of a move; `None` if its life is not recorded.
pub(crate) fn candidate(
    view: &View<'_>,
    ip: &FloatingIpSpec,
    node: &NodeSpec,
    kind: OperationKind,
    urgency: Urgency,
    overrides: &[SafetyRule],
) -> Option<Candidate> {
    Some(Candidate {
        node: node.id,
        incarnation: view.state.nodes.get(&node.id)?.incarnation,
        site: node.site.clone(),
        kind,
        rules: rules::ask(view, ip, node, kind, urgency, overrides),
    })
}

impl Move {
    /// What people are told.
    pub(crate) fn decision(&self, ip: &FloatingIpSpec, owner: Option<&Owner>) -> Decision {
        Decision {
            ip: ip.name.clone(),
            kind: self.target.kind,
            reason: self.cause.reason,
            from: owner.map(|owner| owner.token),
            target: self.target.node,
            evidence: self.cause.evidence.clone(),
        }
    }

    /// The command that begins it.
    pub(crate) fn command(
        &self,
        ip: &FloatingIpSpec,
        owner: Option<&Owner>,
        overrides: Vec<SafetyRule>,
    ) -> Command {
        Command::BeginOperation {
            ip: ip.name.clone(),
            kind: self.target.kind,
            reason: self.cause.reason,
            evidence: self.cause.evidence.clone(),
            from: owner.map(|owner| owner.token),
            target: self.target.node,
            target_incarnation: self.target.incarnation,
            overrides,
        }
    }
}
