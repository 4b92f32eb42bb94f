//! `--plan`: what a move would do, without doing it.

use crate::by_hand;
use crate::journal;
use crate::operator::{MoveKind, MoveRequest, OperatorRefusal};
use crate::placement;
use crate::prediction::{self, Prediction};
use crate::rules::RuleResult;
use crate::view::View;
use std::time::Duration;
use twinsite_model::spec::FloatingIpSpec;
use twinsite_model::{FloatingIpName, Ledger, NodeId, OperationKind, Step};

/// What a move would do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The address.
    pub ip: FloatingIpName,
    /// What kind of move.
    pub kind: OperationKind,
    /// Who owns it now.
    pub from: Option<NodeId>,
    /// Who would own it; `None` when nobody can.
    pub target: Option<NodeId>,
    /// The steps, in order.
    pub steps: Vec<PlannedStep>,
    /// The rules, as asked now.
    pub rules: Vec<RuleResult>,
    /// Why it would be refused; `None` when it would begin.
    pub refusal: Option<OperatorRefusal>,
    /// How long new connections would find nobody, as far as can be told.
    pub predicted_outage: Prediction,
    /// Rooms whose participants would reconnect; `None` when the owner has not reported.
    pub rooms: Option<u32>,
    /// Tunnels that would reconnect; `None` when the owner has not reported.
    pub tunnels: Option<u32>,
}

/// One step of a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedStep {
    /// The step.
    pub step: Step,
    /// What happens in it.
    pub what: String,
    /// The longest that it takes when all goes well.
    pub at_most: Duration,
}

/// What a move would do. An error: there is nothing to plan.
pub(crate) fn plan(view: &View<'_>, request: &MoveRequest) -> Result<Plan, OperatorRefusal> {
    let ip = view.ip(&request.ip);
    let ip = ip.ok_or_else(|| OperatorRefusal::UnknownFloatingIp(request.ip.clone()))?;
    let choice = by_hand::choose(view, ip, request)?;
    let running = view.operation(&ip.name).map(|running| OperatorRefusal::OperationRunning(running.id));
    let owner = view.owner(&ip.name);
    let load = owner.and_then(|owner| view.heard(owner.node)).map(|report| report.load);
    let fence = fence(view, ip, choice.kind, request);
    let commit = commit(view);
    let steps = steps(view, ip, choice.kind, &fence, commit);
    Ok(Plan {
        ip: ip.name.clone(),
        kind: choice.kind,
        from: owner.map(|owner| owner.node),
        target: choice.target.as_ref().map(|target| target.node),
        steps,
        rules: choice.target.map(|target| target.rules).unwrap_or_default(),
        refusal: running.or(choice.refusal),
        predicted_outage: outage(view, choice.kind, fence.at_most + 2 * commit),
        rooms: load.map(|load| load.rooms),
        tunnels: load.map(|load| load.tunnels),
    })
}

/// What past planned moves took tells what the next one takes; one from a silent owner waits for the lease that is left.
fn outage(view: &View<'_>, kind: OperationKind, by_timings: Duration) -> Prediction {
    if kind.drains() {
        prediction::planned(&Ledger::of(view.state), by_timings)
    } else {
        Prediction::by_timings(by_timings)
    }
}

/// How long one command takes to be agreed and noticed, when all goes well.
fn commit(view: &View<'_>) -> Duration {
    view.timing.heartbeat
}

fn fence(view: &View<'_>, ip: &FloatingIpSpec, kind: OperationKind, request: &MoveRequest) -> PlannedStep {
    let step = |what: String, at_most| PlannedStep { step: Step::Fence, what, at_most };
    let Some(owner) = view.owner(&ip.name) else {
        return step("nobody owns the address".to_owned(), Duration::ZERO);
    };
    let name = view.name(owner.node);
    if request.kind == (MoveKind::Forced { attested: true }) {
        return step(format!("{name} was attested to be off"), Duration::ZERO);
    }
    match placement::owner_gone(view, ip, owner) {
        Err(_) if view.heard(owner.node).is_some() => {
            let what = if kind.drains() { "lets go" } else { "loses the right to renew and lets go" };
            step(format!("{name} {what} of token {}", owner.token), commit(view) + view.timing.slack)
        }
        _ => {
            let wait = view.tenure.grantor.fence_at(&ip.name).max(view.now).since(view.now);
            let wait = if view.tenure.grantor.is_released(&ip.name, owner) { Duration::ZERO } else { wait };
            step(format!("every lease of {name} has ended"), wait)
        }
    }
}

fn steps(
    view: &View<'_>,
    ip: &FloatingIpSpec,
    kind: OperationKind,
    fence: &PlannedStep,
    commit: Duration,
) -> Vec<PlannedStep> {
    let observe = journal::observe_limit(view, ip.provider.is_routed());
    let step = |step, what: &str, at_most| PlannedStep { step, what: what.to_owned(), at_most };
    let mut steps = vec![step(Step::Decide, "the rules are asked again, and the decision is agreed", commit)];
    if kind.drains() {
        let limit = view.spec.policy.drain_timeout.0;
        steps.push(step(Step::Drain, "the owner takes nothing new and finishes what runs", limit));
    }
    steps.push(fence.clone());
    steps.push(step(Step::Move, "the target gets the next token and the address", commit));
    steps.push(step(Step::Observe, "the target is seen to hold it", observe));
    steps.push(step(
        Step::Announce,
        "the meeting instances announce the right address",
        journal::announce_limit(view),
    ));
    steps.push(step(
        Step::Verify,
        "another node reaches it and sees the new token",
        journal::verify_limit(view),
    ));
    steps
}
