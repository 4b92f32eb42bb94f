//! The journal of a move: which commands come next, given where it stands. Level-triggered, so that a new leader
//! resumes at the recorded step as if it had been there from the start.

use crate::errands::{self, Route};
use crate::placement::{self, Preference};
use crate::rules::{self, Urgency};
use crate::view::View;
use std::net::IpAddr;
use std::time::Duration;
use twinsite_model::spec::{AnnounceMode, FloatingIpSpec};
use twinsite_model::{
    BootTime, Command, Fence, FloatingIpName, Incarnation, NodeId, Operation, OperationKind, Outcome, Owner,
    Reason, SafetyRule, SiteName, Step, StepResult,
};

/// How long the target may take to be seen with the address before the journal goes on without.
pub(crate) fn observe_limit(view: &View<'_>, routed: bool) -> Duration {
    let held = (2 * view.timing.lease).max(Duration::from_secs(2));
    // A provider's tasks take about a minute, and sometimes several (see its documentation); a call takes seconds.
    if routed { held.max(12 * view.timing.provider_call) } else { held }
}

/// How long announcements may take to settle before the journal goes on without.
pub(crate) fn announce_limit(view: &View<'_>) -> Duration {
    (2 * view.timing.lease).max(Duration::from_secs(2))
}

/// How long the proof from outside may take before the move ends without it.
pub(crate) fn verify_limit(view: &View<'_>) -> Duration {
    (2 * view.timing.lease).max(Duration::from_secs(5))
}

/// What a running operation needs now.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Next {
    /// Commands to propose, in this order. Each is refused by the model if it comes before its turn.
    pub(crate) commands: Vec<Command>,
    /// When time alone makes the next one due.
    pub(crate) wake: Option<BootTime>,
    /// What is being waited for.
    pub(crate) waiting_for: String,
}

impl Next {
    pub(crate) fn propose(commands: impl Into<Vec<Command>>) -> Self {
        Self { commands: commands.into(), wake: None, waiting_for: "the log".to_owned() }
    }

    pub(crate) fn wait(wake: Option<BootTime>, waiting_for: impl Into<String>) -> Self {
        Self { commands: Vec::new(), wake, waiting_for: waiting_for.into() }
    }
}

/// What a running operation needs now.
pub(crate) fn next(view: &View<'_>, ip: &FloatingIpSpec, operation: &Operation) -> Next {
    let journal = Journal { view, ip, operation };
    if operation.token.is_some() { journal.after_assignment() } else { journal.before_assignment() }
}

struct Journal<'a> {
    view: &'a View<'a>,
    ip: &'a FloatingIpSpec,
    operation: &'a Operation,
}

impl Journal<'_> {
    fn before_assignment(&self) -> Next {
        let target = self.target_fit();
        if let Fitness::Gone(why) = &target
            && let Some(commands) = self.other_way(why)
        {
            return Next::propose([commands]);
        }
        match self.operation.current() {
            Some(Step::Drain) => self.drain(),
            Some(Step::Fence) => self.fence(&target),
            _ if self.operation.fence.is_none() => Next::propose([self.start(Step::Fence)]),
            _ => self.assign(&target),
        }
    }

    fn after_assignment(&self) -> Next {
        if let Some(why) = self.new_owner_gone() {
            let finish = self.operation.current().map(|step| self.finish(step, StepResult::TimedOut, &why));
            return Next::propose(
                finish.into_iter().chain([self.close(Outcome::Unverified)]).collect::<Vec<_>>(),
            );
        }
        match self.operation.current() {
            Some(Step::Observe) => self.observe(),
            Some(Step::Announce) => self.announce(),
            Some(Step::Verify) => self.verify(),
            Some(step) => Next::propose([self.finish(step, StepResult::Skipped, "not part of this move")]),
            None if self.operation.step(Step::Announce).is_none() => {
                Next::propose([self.start(Step::Announce)])
            }
            None => match self.operation.step(Step::Verify).and_then(|verify| verify.finished) {
                None => Next::propose([self.start(Step::Verify)]),
                Some((_, StepResult::Done)) => Next::propose([self.close(Outcome::Verified)]),
                Some(_) => Next::propose([self.close(Outcome::Unverified)]),
            },
        }
    }

    /// Planned moves: the old owner finishes what runs, under its lease.
    fn drain(&self) -> Next {
        let begin_fence = |result, detail: &str| {
            Next::propose([self.finish(Step::Drain, result, detail), self.start(Step::Fence)])
        };
        let Some(from) = &self.operation.from else {
            return begin_fence(StepResult::Skipped, "there was no owner");
        };
        let silent_at = match placement::owner_gone(self.view, self.ip, from) {
            Ok(gone) => return begin_fence(StepResult::Skipped, &gone.evidence.join("; ")),
            Err(silent_at) => silent_at,
        };
        let report = self.view.heard(from.node).and_then(|report| report.floating_ips.get(&self.ip.name));
        if report.is_some_and(|view| view.drained == Some(from.token)) {
            return begin_fence(StepResult::Done, "nothing runs at the old owner any more");
        }
        let limit = self.since() + self.view.spec.policy.drain_timeout.0;
        if self.view.now >= limit {
            return begin_fence(StepResult::TimedOut, "something was still running at the old owner");
        }
        let owner = self.view.name(from.node);
        Next::wait(Some(limit.min(silent_at)), format!("{owner} to finish what runs"))
    }

    fn fence(&self, target: &Fitness) -> Next {
        let (fence, detail) = match fenced(self.view, &self.ip.name, self.operation) {
            Ok(fenced) => fenced,
            Err((at, waiting_for)) => return Next::wait(Some(at), waiting_for),
        };
        let complete =
            Command::CompleteFence { ip: self.ip.name.clone(), operation: self.operation.id, fence, detail };
        match target {
            Fitness::Fit => Next::propose([complete, self.assign_command()]),
            Fitness::Unheard(_) | Fitness::Gone(_) => Next::propose([complete]),
        }
    }

    fn assign(&self, target: &Fitness) -> Next {
        match target {
            Fitness::Fit => Next::propose([self.assign_command()]),
            Fitness::Unheard(at) => Next::wait(Some(*at), "the target to be heard by the new leader"),
            Fitness::Gone(why) => Next::wait(None, format!("a node that can take the address ({why})")),
        }
    }

    fn observe(&self) -> Next {
        let seen = self.view.heard(self.operation.target);
        let held = seen.and_then(|report| report.floating_ips.get(&self.ip.name)).and_then(|view| view.held);
        let target = self.view.name(self.operation.target);
        let routed = self.ip.provider.is_routed();
        let limit = observe_limit(self.view, routed);
        self.settle(Step::Observe, Some(Step::Announce), limit, || {
            if held != self.operation.token {
                Err(format!("{target} to hold the address"))
            } else if !routed {
                Ok(format!("{target} is seen to hold the address"))
            } else if errands::route(self.view, &self.ip.name) == Route::To(self.operation.target) {
                Ok(format!("{target} is seen to hold the address, and the provider to route it there"))
            } else {
                Err(format!("the provider to route the address to {target}"))
            }
        })
    }

    fn announce(&self) -> Next {
        self.settle(Step::Announce, Some(Step::Verify), announce_limit(self.view), || {
            match misannounced(self.view).first() {
                None => Ok("every meeting instance that is read back announces what it should".to_owned()),
                Some(line) => Err(line.clone()),
            }
        })
    }

    /// Another node reached the address from outside and saw the new token.
    fn verify(&self) -> Next {
        let target = self.operation.target;
        self.settle(Step::Verify, None, verify_limit(self.view), || {
            let saw = |node: NodeId| {
                let outside = self.view.heard(node)?.floating_ips.get(&self.ip.name)?.outside.as_ref()?;
                (outside.token() == self.operation.token).then_some(())
            };
            let others = self.view.spec.nodes.iter().filter(|node| node.id != target);
            match others.into_iter().find(|node| saw(node.id).is_some()) {
                Some(node) => Ok(format!("{} reached the address and saw the new token", node.name)),
                None => Err("another node to see the new token through the address".to_owned()),
            }
        })
    }

    /// Ends a step when what it is for is seen, or when its time is over; then begins the next one, or closes.
    fn settle(
        &self,
        step: Step,
        then: Option<Step>,
        limit: Duration,
        seen: impl FnOnce() -> Result<String, String>,
    ) -> Next {
        let limit = self.since() + limit;
        let (result, detail) = match seen() {
            Ok(detail) => (StepResult::Done, detail),
            Err(missing) if self.view.now >= limit => {
                (StepResult::TimedOut, format!("waited in vain for {missing}"))
            }
            Err(missing) => return Next::wait(Some(limit), missing),
        };
        let after = match (then, result) {
            (Some(next), _) => self.start(next),
            (None, StepResult::Done) => self.close(Outcome::Verified),
            (None, _) => self.close(Outcome::Unverified),
        };
        Next::propose([self.finish(step, result, &detail), after])
    }

    /// Whether the target can still take the address.
    fn target_fit(&self) -> Fitness {
        let Some(node) = self.view.node(self.operation.target) else {
            return Fitness::Gone("the target is not in the specification any more".to_owned());
        };
        let life = self.view.state.nodes.get(&node.id).map(|life| life.incarnation);
        if life != Some(self.operation.target_incarnation) {
            return Fitness::Gone(format!("{} lives another life", node.name));
        }
        let ended = self.view.tenure.has_ended(node.id, self.operation.target_incarnation);
        match rules::unfit(self.view, node) {
            None => Fitness::Fit,
            Some(_) if self.operation.overrides.contains(&SafetyRule::TargetReady) && !ended => Fitness::Fit,
            Some(_) if !self.view.settled() && !ended && self.view.tenure.report(node.id).is_none() => {
                Fitness::Unheard(self.view.settled_at())
            }
            Some(why) => Fitness::Gone(why),
        }
    }

    /// What to do when the target is gone before it had the token: call a move off whose owner is well, and find
    /// another target for one whose owner is not.
    fn other_way(&self, why: &str) -> Option<Command> {
        let drains = self.operation.current() == Some(Step::Drain);
        if !self.view.settled() {
            return None; // nobody knows yet who else is there
        }
        let other = self.other_target(OldSite::Left);
        if drains || (other.is_none() && self.owner_is_well()) {
            return Some(Command::AbortOperation {
                ip: self.ip.name.clone(),
                operation: self.operation.id,
                detail: format!("the target is gone before the owner was touched: {why}"),
            });
        }
        // Dark, and nobody anywhere else: the site that it left may be well again, and if not, nothing is lost.
        let (target, target_incarnation) = other.or_else(|| self.other_target(OldSite::Allowed))?;
        Some(Command::Retarget {
            ip: self.ip.name.clone(),
            operation: self.operation.id,
            target,
            target_incarnation,
            detail: why.to_owned(),
        })
    }

    /// Whether the old owner could go on if the move were called off.
    fn owner_is_well(&self) -> bool {
        let Some(from) = &self.operation.from else { return false };
        self.operation.fence.is_none() && placement::owner_gone(self.view, self.ip, from).is_err()
    }

    /// The best node that could take the address instead: one that every rule allows, or, since the address is dark
    /// already, one that is fit at all.
    fn other_target(&self, old_site: OldSite) -> Option<(NodeId, Incarnation)> {
        let view = self.view;
        let old = self.operation.from.as_ref();
        let leaves = self.operation.reason == Reason::SiteUnhealthy && old_site == OldSite::Left;
        let old_site = old.and_then(|old| view.site_of(old.node));
        let preference = Preference {
            near: view.site_of(self.operation.target),
            first: None,
            last: old.map(|old| old.node),
        };
        let urgency = Urgency { automatic: false, dark: true };
        let fit = placement::ranked(view, self.ip, preference).into_iter().filter(|node| {
            let wrong_site = leaves && Some(&node.site) == old_site;
            rules::unfit(view, node).is_none() && !wrong_site
        });
        let candidates = fit.filter_map(|node| {
            placement::candidate(
                view,
                self.ip,
                node,
                OperationKind::Placement,
                urgency,
                &self.operation.overrides,
            )
        });
        let candidates: Vec<_> = candidates.collect();
        let best = candidates.iter().find(|candidate| candidate.passes()).or_else(|| candidates.first())?;
        Some((best.node, best.incarnation))
    }

    /// The owner under the new token is gone in its turn: this move ends, so that the next can begin.
    fn new_owner_gone(&self) -> Option<String> {
        let owner: Option<&Owner> = self.view.owner(&self.ip.name);
        let Some(owner) = owner.filter(|owner| Some(owner.token) == self.operation.token) else {
            return Some("the new owner is not the owner any more".to_owned());
        };
        let gone = placement::owner_gone(self.view, self.ip, owner).ok()?;
        Some(gone.evidence.join("; "))
    }

    /// When this tenure first saw the present step.
    fn since(&self) -> BootTime {
        self.view.tenure.step_since(&self.ip.name).unwrap_or(self.view.now)
    }

    fn start(&self, step: Step) -> Command {
        Command::StartStep { ip: self.ip.name.clone(), operation: self.operation.id, step }
    }

    fn assign_command(&self) -> Command {
        Command::Assign { ip: self.ip.name.clone(), operation: self.operation.id }
    }

    fn finish(&self, step: Step, result: StepResult, detail: &str) -> Command {
        assert!(!matches!(step, Step::Fence | Step::Move), "{step} ends by a command of its own");
        Command::FinishStep {
            ip: self.ip.name.clone(),
            operation: self.operation.id,
            step,
            result,
            detail: detail.to_owned(),
        }
    }

    fn close(&self, outcome: Outcome) -> Command {
        Command::CloseOperation { ip: self.ip.name.clone(), operation: self.operation.id, outcome }
    }
}

/// What becomes of the site that an address leaves because its upstreams are sick.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum OldSite {
    /// It is left.
    Left,
    /// The address may stay there, on whichever node.
    Allowed,
}

/// Whether a target can still take the address.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Fitness {
    Fit,
    /// This leader is young and has not heard it; until then it is waited for.
    Unheard(BootTime),
    Gone(String),
}

/// How the old owner of an address is fenced, or when it will be and what that waits for.
pub(crate) fn fenced(
    view: &View<'_>,
    ip: &FloatingIpName,
    operation: &Operation,
) -> Result<(Fence, String), (BootTime, String)> {
    let Some(from) = &operation.from else {
        return Ok((Fence::NoOwner, "there was no owner".to_owned()));
    };
    let grantor = &view.tenure.grantor;
    if grantor.is_released(ip, from) {
        return Ok((Fence::Released, format!("token {} was released", from.token)));
    }
    if view.tenure.attested.get(ip) == Some(&operation.id) {
        return Ok((Fence::Attested, format!("{} attested that the machine is off", operation.by)));
    }
    let at = grantor.fence_at(ip);
    if view.now < at {
        let what = format!("{} to release token {}, or its lease to end", view.name(from.node), from.token);
        return Err((at, what));
    }
    if !view.tenure.caught_up {
        // An entry that is not applied yet may have allowed a longer lease.
        return Err((at, "this leader to have applied what was agreed before its election".to_owned()));
    }
    Ok((Fence::LeaseEnded, format!("every lease of token {} has ended", from.token)))
}

/// Whether a command takes the owner's right to renew.
pub(crate) fn revokes(command: &Command) -> bool {
    matches!(command, Command::BeginOperation { .. } | Command::StartStep { step: Step::Fence, .. })
}

/// The address that the upstreams of a site should announce, by the agreed owners. The nodes themselves derive it from what they
/// observe; this is what they should arrive at. `None`: there is no telling.
fn expected_announcement(view: &View<'_>, site: &SiteName) -> Option<IpAddr> {
    let site = view.spec.site(site)?;
    let owned = view.spec.floating_ips.iter().find(|ip| {
        let owner = view.owner(&ip.name).and_then(|owner| view.site_of(owner.node));
        site.announce == AnnounceMode::Floating && owner == Some(&site.name)
    });
    owned.map(|ip| ip.address).or(site.announced_ip)
}

/// Instances that are read back to announce something else than they should, a line each.
pub(crate) fn misannounced(view: &View<'_>) -> Vec<String> {
    let heard = view.tenure.reports().filter_map(|(_, report)| view.heard(report.node));
    let announced = heard.flat_map(|report| &report.announced);
    let wrong = announced.filter_map(|seen| {
        let expected = expected_announcement(view, view.index.upstream_site(&seen.upstream)?)?;
        (expected != seen.address)
            .then(|| format!("{} to announce {expected} (it announces {})", seen.upstream, seen.address))
    });
    wrong.collect()
}
