//! Explanations and plans of the controller, as the public API says them.

use std::time::Duration;
use twinsite_api::convert::{kind_to_pb, owner_to_pb, reason_to_pb, step_to_pb};
use twinsite_api::v1;
use twinsite_controller::{Explanation, Forecast, OwnerExplanation, Plan, QuietReason, RuleResult};
use twinsite_model::{NodeId, State};

/// A node's name for people; its number if it has none any more.
pub fn node_name(state: &State, node: NodeId) -> String {
    let known = state.spec.as_ref().and_then(|spec| spec.node(node));
    known.map_or_else(|| format!("node {node}"), |node| node.name.to_string())
}

/// Why things are as they are.
pub fn explanation(state: &State, explained: &Explanation) -> v1::Explanation {
    v1::Explanation {
        floating_ip: explained.ip.to_string(),
        by_leader: explained.by_leader,
        owner: explained.owner.as_ref().and_then(|owner| {
            let recorded = state.owner(&explained.ip).filter(|recorded| recorded.token == owner.token)?;
            Some(owner_explanation(owner, owner_to_pb(Some(state), recorded)))
        }),
        moving: explained.moving.as_ref().map(|moving| v1::MovingExplanation {
            operation: moving.operation.0,
            kind: kind_to_pb(moving.kind).into(),
            reason: reason_to_pb(moving.reason).into(),
            target: moving.target.0,
            target_name: node_name(state, moving.target),
            step: moving.step.map_or(v1::Step::Unspecified, step_to_pb).into(),
            waiting_for: moving.waiting_for.clone(),
        }),
        quiet: explained.quiet.iter().map(quiet).collect(),
        failover: Some(forecast(state, &explained.failover)),
        candidates: explained
            .candidates
            .iter()
            .map(|candidate| v1::Candidate {
                node: candidate.node.0,
                node_name: node_name(state, candidate.node),
                rank: candidate.rank,
                unfit: candidate.unfit.clone().unwrap_or_default(),
            })
            .collect(),
        tolerated_failures: explained.tolerated_failures,
    }
}

fn owner_explanation(owner: &OwnerExplanation, wire: v1::Owner) -> v1::OwnerExplanation {
    let made_by = owner.made_by;
    v1::OwnerExplanation {
        owner: Some(wire),
        operation: made_by.map_or(0, |(operation, _, _)| operation.0),
        kind: made_by.map_or(v1::OperationKind::Unspecified, |(_, kind, _)| kind_to_pb(kind)).into(),
        reason: made_by.map_or(v1::MoveReason::Unspecified, |(_, _, reason)| reason_to_pb(reason)).into(),
        last_grant_age_ms: owner.last_grant_age.map(millis),
        heard: owner.heard,
    }
}

fn quiet(reason: &QuietReason) -> v1::QuietReason {
    let (code, text, rules): (_, _, &[RuleResult]) = match reason {
        QuietReason::NotLeader => {
            ("not-leader", "this node does not lead: it decides nothing".to_owned(), &[])
        }
        QuietReason::OwnerWell => {
            ("owner-well", "the owner renews its lease, and its site has healthy upstreams".to_owned(), &[])
        }
        QuietReason::LeaseMayHold { remaining } => (
            "lease-may-hold",
            format!("the owner is silent, and its lease may still hold for {} ms", remaining.as_millis()),
            &[],
        ),
        QuietReason::LeaderYoung { remaining } => (
            "leader-young",
            format!("the leader is new and listens to everybody for another {} ms", remaining.as_millis()),
            &[],
        ),
        QuietReason::NoSiteBetter => (
            "no-site-better",
            "the owner's site has no healthy upstream, and no other site is demonstrably better".to_owned(),
            &[],
        ),
        QuietReason::RulesForbid { reason, rules } => (
            "rules-forbid",
            format!("there is a reason to move ({}), and a rule forbids it", reason.as_str()),
            rules,
        ),
        QuietReason::NoCandidate { reason } => (
            "no-candidate",
            format!("there is a reason to move ({}), and nobody to move to", reason.as_str()),
            &[],
        ),
        QuietReason::ObserveOnly => {
            ("observe-only", "observe_only is set: moves are only logged".to_owned(), &[])
        }
        QuietReason::AbortedByHand => {
            ("aborted-by-hand", "a person called the last move off a short while ago".to_owned(), &[])
        }
        QuietReason::Proposing => ("proposing", "a decision is on its way to the log".to_owned(), &[]),
    };
    v1::QuietReason { code: code.to_owned(), text, rules: rules.iter().map(rule).collect() }
}

fn rule(result: &RuleResult) -> v1::RuleResult {
    v1::RuleResult {
        rule: result.rule.as_str().to_owned(),
        satisfied: result.satisfied,
        overridden: result.overridden,
        detail: result.detail.clone(),
    }
}

fn forecast(state: &State, forecast: &Forecast) -> v1::Forecast {
    match forecast {
        Forecast::Unknown => v1::Forecast::default(),
        Forecast::Impossible { why, .. } => {
            v1::Forecast { possible: Some(false), why_not: why.clone(), ..v1::Forecast::default() }
        }
        Forecast::Possible { target, after_crash, after_silence } => v1::Forecast {
            possible: Some(true),
            target: target.0,
            target_name: node_name(state, *target),
            after_crash_ms: millis(after_crash.about),
            after_silence_ms: millis(after_silence.about),
            why_not: Vec::new(),
            after_crash_moves: after_crash.moves,
            after_silence_moves: after_silence.moves,
        },
    }
}

/// What a move would do.
pub fn plan(state: &State, plan: &Plan) -> v1::Plan {
    let name = |node: Option<NodeId>| node.map(|node| node_name(state, node)).unwrap_or_default();
    v1::Plan {
        floating_ip: plan.ip.to_string(),
        kind: kind_to_pb(plan.kind).into(),
        from_name: name(plan.from),
        target_name: name(plan.target),
        steps: plan
            .steps
            .iter()
            .map(|step| v1::PlannedStep {
                step: step_to_pb(step.step).into(),
                what: step.what.clone(),
                at_most_ms: millis(step.at_most),
            })
            .collect(),
        rules: plan.rules.iter().map(rule).collect(),
        refusal: plan.refusal.as_ref().map(ToString::to_string).unwrap_or_default(),
        predicted_outage_ms: millis(plan.predicted_outage.about),
        predicted_from_moves: plan.predicted_outage.moves,
        rooms: plan.rooms,
        tunnels: plan.tunnels,
    }
}

/// Whole milliseconds.
pub fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
