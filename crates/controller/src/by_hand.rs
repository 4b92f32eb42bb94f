//! A move that a person wants: who the target would be, and what forbids it.

use crate::operator::{MoveKind, MoveRequest, MoveTarget, OperatorRefusal};
use crate::placement::{self, Candidate, Preference};
use crate::rules::{self, Urgency};
use crate::tenure::Subject;
use crate::view::View;
use twinsite_model::spec::{FloatingIpSpec, NodeSpec};
use twinsite_model::{Command, OperationKind, Owner, Reason, SafetyRule};

/// What came of looking for a target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Choice {
    pub(crate) kind: OperationKind,
    /// The best candidate, forbidden or not.
    pub(crate) target: Option<Candidate>,
    pub(crate) refusal: Option<OperatorRefusal>,
}

/// The command that begins the move.
pub(crate) fn begin(view: &View<'_>, request: &MoveRequest) -> Result<Command, OperatorRefusal> {
    let ip = known(view, request)?;
    let choice = choose(view, ip, request)?;
    if let Some(refusal) = choice.refusal {
        return Err(refusal);
    }
    let target = choice.target.ok_or(OperatorRefusal::NoCandidate(Vec::new()))?;
    Ok(Command::BeginOperation {
        ip: ip.name.clone(),
        kind: choice.kind,
        reason: if choice.kind == OperationKind::Forced { Reason::Recovery } else { Reason::Operator },
        evidence: vec!["a person asked for it".to_owned()],
        from: view.owner(&ip.name).map(|owner| owner.token),
        target: target.node,
        target_incarnation: target.incarnation,
        overrides: request.overrides.clone(),
    })
}

/// The address, if nothing is moving it.
fn known<'a>(view: &View<'a>, request: &MoveRequest) -> Result<&'a FloatingIpSpec, OperatorRefusal> {
    let ip = view.ip(&request.ip);
    let ip = ip.ok_or_else(|| OperatorRefusal::UnknownFloatingIp(request.ip.clone()))?;
    if let Some(running) = view.operation(&ip.name) {
        return Err(OperatorRefusal::OperationRunning(running.id));
    }
    if view.tenure.is_busy(&Subject::Journal(ip.name.clone())) {
        return Err(OperatorRefusal::Deciding(ip.name.clone()));
    }
    Ok(ip)
}

/// The target, and what forbids the move. An error: there is nothing to plan.
pub(crate) fn choose(
    view: &View<'_>,
    ip: &FloatingIpSpec,
    request: &MoveRequest,
) -> Result<Choice, OperatorRefusal> {
    let owner = view.owner(&ip.name);
    let wanted = wanted(view, ip, request, owner)?;
    let gone = owner.is_none_or(|owner| placement::owner_gone(view, ip, owner).is_ok());
    let kind = match request.kind {
        MoveKind::Switchover => OperationKind::Switchover,
        MoveKind::Failover => OperationKind::Failover,
        MoveKind::Forced { .. } => OperationKind::Forced,
    };
    let mut choice = Choice { kind, target: None, refusal: forbidden(view, owner, request.kind) };
    let urgency = Urgency { automatic: false, dark: gone };
    let mut unfit = Vec::new();
    for node in wanted {
        let ready = request.overrides.contains(&SafetyRule::TargetReady);
        if let Some(why) = rules::unfit(view, node).filter(|_| !ready) {
            unfit.push(why);
            continue;
        }
        let candidate = placement::candidate(view, ip, node, kind, urgency, &request.overrides);
        let Some(candidate) = candidate else {
            unfit.push(format!("{} has never been heard", node.name));
            continue;
        };
        if candidate.passes() {
            choice.target = Some(candidate);
            return Ok(choice);
        }
        choice.target.get_or_insert(candidate);
    }
    choice.refusal = choice.refusal.or_else(|| {
        Some(match &choice.target {
            Some(best) => OperatorRefusal::RulesFailed(best.rules.clone()),
            None => OperatorRefusal::NoCandidate(unfit),
        })
    });
    Ok(choice)
}

/// The nodes that the person means, the best first; never the owner.
fn wanted<'a>(
    view: &View<'a>,
    ip: &FloatingIpSpec,
    request: &MoveRequest,
    owner: Option<&Owner>,
) -> Result<Vec<&'a NodeSpec>, OperatorRefusal> {
    let sites = view.spec.owner_sites(ip);
    let owner = owner.map(|owner| owner.node);
    let ranked = placement::ranked(view, ip, Preference { near: None, first: None, last: owner });
    let others = ranked.into_iter().filter(|node| Some(node.id) != owner);
    match &request.to {
        MoveTarget::Node(id) => {
            let node = view.node(*id).ok_or(OperatorRefusal::UnknownNode(*id))?;
            if Some(*id) == owner {
                return Err(OperatorRefusal::AlreadyOwner(*id));
            }
            if !sites.contains(&&node.site) {
                return Err(OperatorRefusal::UnknownSite(node.site.clone()));
            }
            Ok(vec![node])
        }
        MoveTarget::Site(site) if sites.contains(&site) => {
            Ok(others.filter(|node| node.site == *site).collect())
        }
        MoveTarget::Site(site) => Err(OperatorRefusal::UnknownSite(site.clone())),
        MoveTarget::Best => {
            // Who asks for a move without saying where means the other site, if it can.
            let site = owner.and_then(|owner| view.site_of(owner));
            let (here, away): (Vec<_>, Vec<_>) = others.partition(|node| Some(&node.site) == site);
            Ok(away.into_iter().chain(here).collect())
        }
    }
}

/// What forbids a move of this kind, whoever the target is.
fn forbidden(view: &View<'_>, owner: Option<&Owner>, kind: MoveKind) -> Option<OperatorRefusal> {
    let owner = owner?;
    let heard = view.heard(owner.node).is_some();
    match kind {
        MoveKind::Switchover => (!heard).then_some(OperatorRefusal::OwnerNotHeard(owner.node)),
        MoveKind::Forced { .. } if owner.token.generation >= view.state.generation => {
            Some(OperatorRefusal::NotRecovered)
        }
        MoveKind::Forced { attested: true } if heard => Some(OperatorRefusal::AttestedNodeHeard(owner.node)),
        MoveKind::Failover | MoveKind::Forced { .. } => None,
    }
}
