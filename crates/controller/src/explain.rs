//! `explain`: why things are as they are, with structured reasons.

use crate::alarms;
use crate::journal;
use crate::placement::{self, Blocked, Outlook, Preference};
use crate::prediction::{self, Prediction};
use crate::rules::{self, RuleResult, Urgency};
use crate::tenure::Subject;
use crate::view::View;
use std::time::Duration;
use twinsite_model::spec::FloatingIpSpec;
use twinsite_model::{
    FloatingIpName, Ledger, NodeId, NodeName, OperationId, OperationKind, Owner, Reason, SiteName, Step,
    Token, WallTime,
};

/// Everything that can be said about one address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// The address.
    pub ip: FloatingIpName,
    /// Whether the node that explains leads. If not, it knows the agreed state and no reports.
    pub by_leader: bool,
    /// The owner, and why it is the owner.
    pub owner: Option<OwnerExplanation>,
    /// The move under way.
    pub moving: Option<MovingExplanation>,
    /// Why nothing is being moved; empty while something is.
    pub quiet: Vec<QuietReason>,
    /// Whether the address could fail over now, if its owner died.
    pub failover: Forecast,
    /// Every node that may own, and whether it could own the address.
    pub candidates: Vec<CandidateExplanation>,
    /// How many more voters may fail with a quorum left. `None` when this node does not lead.
    pub tolerated_failures: Option<u32>,
}

/// The owner, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnerExplanation {
    /// The node.
    pub node: NodeId,
    /// Its name, if it is in the specification.
    pub name: Option<NodeName>,
    /// Its site.
    pub site: Option<SiteName>,
    /// Its token.
    pub token: Token,
    /// Since when.
    pub since: WallTime,
    /// Whether its right to renew was taken away.
    pub revoked: bool,
    /// The operation that made it the owner, if it is remembered, with its kind and reason.
    pub made_by: Option<(OperationId, OperationKind, Reason)>,
    /// How long ago this leader last granted it time. `None`: not in this leader's term.
    pub last_grant_age: Option<Duration>,
    /// Whether its reports are fresh.
    pub heard: bool,
}

/// The move under way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MovingExplanation {
    /// The operation.
    pub operation: OperationId,
    /// What kind.
    pub kind: OperationKind,
    /// Why.
    pub reason: Reason,
    /// Who shall own the address.
    pub target: NodeId,
    /// The step under way.
    pub step: Option<Step>,
    /// What is being waited for.
    pub waiting_for: String,
}

/// Why nothing is being moved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum QuietReason {
    /// This node does not lead: it decides nothing.
    NotLeader,
    /// The owner renews its lease, and its site has healthy upstreams.
    OwnerWell,
    /// The owner has been silent, and its lease may still hold for so long.
    LeaseMayHold {
        /// The longest that it may.
        remaining: Duration,
    },
    /// This leader is so young that it has not heard everybody.
    LeaderYoung {
        /// For how long it still waits.
        remaining: Duration,
    },
    /// The owner's site has no healthy upstream, and no other site is demonstrably better.
    NoSiteBetter,
    /// There is a reason to move, and a rule forbids it.
    RulesForbid {
        /// The reason to move.
        reason: Reason,
        /// The rules.
        rules: Vec<RuleResult>,
    },
    /// There is a reason to move, and nobody to move to.
    NoCandidate {
        /// The reason to move.
        reason: Reason,
    },
    /// Moves are only logged.
    ObserveOnly,
    /// A person called the last move off a short while ago.
    AbortedByHand,
    /// A proposal is under way.
    Proposing,
}

/// Whether, to whom and how fast an address could fail over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Forecast {
    /// Yes.
    Possible {
        /// To whom.
        target: NodeId,
        /// If the owner's process crashed and its guardian said so.
        after_crash: Prediction,
        /// If the owner's whole machine fell silent.
        after_silence: Prediction,
    },
    /// No.
    Impossible {
        /// The rules that forbid it, asked of the best candidate; empty when there is none.
        rules: Vec<RuleResult>,
        /// Why, a line each.
        why: Vec<String>,
    },
    /// Only the leader can tell.
    Unknown,
}

/// One node as a possible owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CandidateExplanation {
    /// The node.
    pub node: NodeId,
    /// Its rank among the candidates, 0 the best; `None` when it is none.
    pub rank: Option<u32>,
    /// Why it is none.
    pub unfit: Option<String>,
}

/// Everything that can be said about one address. `None`: there is no such address.
pub(crate) fn explain(
    view: &View<'_>,
    me: NodeId,
    leads: bool,
    name: &FloatingIpName,
) -> Option<Explanation> {
    let ip = view.ip(name)?;
    let moving = moving(view, ip);
    let tolerated = || {
        let (heard, missing) = alarms::voters(view, me);
        alarms::tolerated(heard.len(), heard.len() + missing.len())
    };
    Some(Explanation {
        ip: name.clone(),
        by_leader: leads,
        owner: view.owner(name).map(|owner| explain_owner(view, ip, owner)),
        quiet: if moving.is_some() { Vec::new() } else { quiet(view, leads, ip) },
        moving,
        failover: if leads { forecast(view, ip) } else { Forecast::Unknown },
        candidates: candidates(view, ip),
        tolerated_failures: leads.then(tolerated),
    })
}

fn explain_owner(view: &View<'_>, ip: &FloatingIpSpec, owner: &Owner) -> OwnerExplanation {
    let running = view.operation(&ip.name);
    let mut operations = running.into_iter().chain(view.state.history.iter().rev());
    let made_by =
        operations.find(|operation| operation.ip == ip.name && operation.token == Some(owner.token));
    let node = view.node(owner.node);
    OwnerExplanation {
        node: owner.node,
        name: node.map(|node| node.name.clone()),
        site: node.map(|node| node.site.clone()),
        token: owner.token,
        since: owner.since,
        revoked: owner.revoked,
        made_by: made_by.map(|operation| (operation.id, operation.kind, operation.reason)),
        last_grant_age: view.tenure.grantor.last_grant(&ip.name, owner.token).map(|at| view.now.since(at)),
        heard: view.heard(owner.node).is_some(),
    }
}

fn moving(view: &View<'_>, ip: &FloatingIpSpec) -> Option<MovingExplanation> {
    let operation = view.operation(&ip.name)?;
    Some(MovingExplanation {
        operation: operation.id,
        kind: operation.kind,
        reason: operation.reason,
        target: operation.target,
        step: operation.current(),
        waiting_for: journal::next(view, ip, operation).waiting_for,
    })
}

/// Why nothing is being moved.
fn quiet(view: &View<'_>, leads: bool, ip: &FloatingIpSpec) -> Vec<QuietReason> {
    if !leads {
        return vec![QuietReason::NotLeader];
    }
    if view.tenure.is_busy(&Subject::Journal(ip.name.clone())) {
        return vec![QuietReason::Proposing];
    }
    match placement::decide(view, ip) {
        Outlook::Stay(_) => stays(view, ip),
        Outlook::Listen(at) => vec![QuietReason::LeaderYoung { remaining: at.since(view.now) }],
        Outlook::CalledOff(_) => vec![QuietReason::AbortedByHand],
        Outlook::Move(_) if view.spec.policy.observe_only => vec![QuietReason::ObserveOnly],
        Outlook::Move(_) => vec![QuietReason::Proposing],
        Outlook::Blocked(blocked) => {
            let Blocked { cause, rules, .. } = *blocked;
            vec![if rules.is_empty() {
                QuietReason::NoCandidate { reason: cause.reason }
            } else {
                QuietReason::RulesForbid { reason: cause.reason, rules }
            }]
        }
    }
}

fn stays(view: &View<'_>, ip: &FloatingIpSpec) -> Vec<QuietReason> {
    let Some(owner) = view.owner(&ip.name) else { return Vec::new() };
    let mut quiet = Vec::new();
    if let Some(site) = view.site_of(owner.node)
        && view.health(site).all_bad()
    {
        quiet.push(QuietReason::NoSiteBetter);
    }
    let last = view.tenure.grantor.last_grant(&ip.name, owner.token);
    let renews = last.is_some_and(|last| view.now.since(last) < 4 * view.timing.renew);
    if !renews {
        let remaining = view.silent_at(&ip.name, owner).max(view.now).since(view.now);
        quiet.push(QuietReason::LeaseMayHold { remaining });
    } else if quiet.is_empty() {
        quiet.push(QuietReason::OwnerWell);
    }
    quiet
}

/// Whether the address could fail over now, if its owner died.
fn forecast(view: &View<'_>, ip: &FloatingIpSpec) -> Forecast {
    let owner = view.owner(&ip.name).map(|owner| owner.node);
    let near = owner.and_then(|owner| view.site_of(owner));
    let ranked = placement::ranked(view, ip, Preference { near, first: None, last: owner });
    let urgency = Urgency { automatic: true, dark: true };
    let (mut forbidden, mut why) = (Vec::new(), Vec::new());
    if view.spec.policy.observe_only {
        why.push("observe_only is set: moves are only logged".to_owned());
    }
    for node in ranked.into_iter().filter(|node| Some(node.id) != owner) {
        if let Some(unfit) = rules::unfit(view, node) {
            why.push(unfit);
            continue;
        }
        let candidate = placement::candidate(view, ip, node, OperationKind::Failover, urgency, &[]);
        match candidate {
            Some(candidate) if candidate.passes() && !view.spec.policy.observe_only => {
                let ledger = Ledger::of(view.state);
                return Forecast::Possible {
                    target: node.id,
                    after_crash: prediction::after_crash(view, &ledger),
                    after_silence: prediction::after_silence(view, &ledger),
                };
            }
            Some(candidate) => {
                if forbidden.is_empty() {
                    forbidden = candidate.rules;
                }
            }
            None => why.push(format!("the life of {} is not recorded yet", node.name)),
        }
    }
    why.extend(forbidden.iter().filter(|rule| !rule.holds()).map(|rule| rule.detail.clone()));
    if why.is_empty() {
        why.push("no other node may own the address".to_owned());
    }
    Forecast::Impossible { rules: forbidden, why }
}

/// Every node that may own, ranked.
fn candidates(view: &View<'_>, ip: &FloatingIpSpec) -> Vec<CandidateExplanation> {
    let owner = view.owner(&ip.name).map(|owner| owner.node);
    let near = owner.and_then(|owner| view.site_of(owner));
    let ranked = placement::ranked(view, ip, Preference { near, first: owner, last: None });
    let mut rank = 0;
    let explained = ranked.into_iter().map(|node| {
        let unfit = rules::unfit(view, node);
        let own_rank = unfit.is_none().then_some(rank);
        rank += u32::from(unfit.is_none());
        CandidateExplanation { node: node.id, rank: own_rank, unfit }
    });
    explained.collect()
}
