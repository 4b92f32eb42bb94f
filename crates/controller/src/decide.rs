//! What follows from what is known now. Looked at anew after every input; what is not due yet says when it will be.

use crate::alarms;
use crate::controller::{Affected, Controller};
use crate::drills;
use crate::errands;
use crate::input::Effect;
use crate::journal;
use crate::leadership;
use crate::notice::Notice;
use crate::placement::{self, Outlook};
use crate::report::report_freshness;
use crate::tenure::Subject;
use crate::upkeep;
use crate::view::View;
use crate::withdrawal;
use std::collections::BTreeSet;
use std::time::Duration;
use twinsite_model::spec::FloatingIpSpec;
use twinsite_model::{BootTime, ClusterSpec, Command, State, Verdict, WallTime};

impl Controller {
    /// Looks at everything that may have changed.
    pub(crate) fn decide(
        &mut self,
        now: BootTime,
        wall: WallTime,
        state: &State,
        affected: &Affected,
        effects: &mut Vec<Effect>,
    ) {
        let (Some(spec), Some(_)) = (&state.spec, &self.tenure) else { return };
        let mut round = Round { controller: self, now, wall, state, spec, effects, wake: None };
        match affected {
            Affected::Nothing => {}
            Affected::Addresses(seen) => {
                for ip in &spec.floating_ips {
                    let moving = state.floating_ips.get(&ip.name).is_some_and(|ip| ip.operation.is_some());
                    if moving || seen.contains(&ip.name) {
                        round.address(ip);
                        round.routing(ip);
                    }
                }
                round.withdrawals();
                round.verdicts();
            }
            Affected::Everything => {
                for ip in &spec.floating_ips {
                    round.address(ip);
                    round.routing(ip);
                }
                round.withdrawals();
                round.verdicts();
                round.upkeep();
                round.alarms();
                round.leadership();
            }
        }
        let wake = round.wake;
        self.note_wake(now, matches!(affected, Affected::Everything), wake);
    }

    /// A look at everything replaces what was due; one at a part of it only brings it forward.
    fn note_wake(&mut self, now: BootTime, everything: bool, wake: Option<BootTime>) {
        let freshness = report_freshness(&self.timing);
        let lost_round = 2 * self.timing.lease;
        let Some(tenure) = &mut self.tenure else { return };
        if !everything {
            tenure.wake = earliest([tenure.wake, wake, tenure.next_retry(now)]);
            return;
        }
        // Reports that grow stale change who is heard; a round that never ends is given up.
        let stale = tenure.reports().map(|(at, _)| at + freshness).filter(|at| *at > now).min();
        tenure.wake = earliest([wake, stale, tenure.next_retry(now), Some(now + lost_round)]);
    }
}

fn earliest(times: impl IntoIterator<Item = Option<BootTime>>) -> Option<BootTime> {
    times.into_iter().flatten().min()
}

/// One look.
struct Round<'a> {
    controller: &'a mut Controller,
    now: BootTime,
    wall: WallTime,
    state: &'a State,
    spec: &'a ClusterSpec,
    effects: &'a mut Vec<Effect>,
    wake: Option<BootTime>,
}

impl Round<'_> {
    fn view(&self) -> Option<View<'_>> {
        let controller = &*self.controller;
        Some(View {
            tenure: controller.tenure.as_ref()?,
            index: &controller.index,
            state: self.state,
            spec: self.spec,
            timing: &controller.timing,
            now: self.now,
            wall: self.wall,
        })
    }

    fn wake_at(&mut self, at: Option<BootTime>) {
        self.wake = earliest([self.wake, at.filter(|at| *at > self.now)]);
    }

    fn propose(&mut self, subject: &Subject, commands: Vec<Command>) -> bool {
        self.controller.propose_own(self.now, self.wall, subject, commands, self.effects)
    }

    /// The journal of an address, or whether one should begin.
    fn address(&mut self, ip: &FloatingIpSpec) {
        let subject = Subject::Journal(ip.name.clone());
        if self.controller.tenure.as_ref().is_none_or(|tenure| tenure.is_busy(&subject)) {
            return; // its fate is told, and then this is looked at again
        }
        let Some(view) = self.view() else { return };
        if let Some(operation) = view.operation(&ip.name) {
            let next = journal::next(&view, ip, operation);
            self.wake_at(next.wake);
            self.propose(&subject, next.commands);
            return;
        }
        let outlook = placement::decide(&view, ip);
        self.follow(ip, &subject, outlook);
    }

    /// Where a provider routes an address.
    fn routing(&mut self, ip: &FloatingIpSpec) {
        if !ip.provider.is_routed() {
            return;
        }
        let subject = Subject::Routing(ip.name.clone());
        let Some(view) = self.view().filter(|view| !view.tenure.is_busy(&subject)) else { return };
        let next = errands::next(&view, ip, &self.controller.faults);
        self.wake_at(next.wake);
        if !next.commands.is_empty() {
            self.propose(&subject, next.commands);
        }
    }

    /// What is held and no longer wanted is taken back.
    fn withdrawals(&mut self) {
        let Some(view) = self.view() else { return };
        let due: Vec<_> = withdrawal::due(&view)
            .map(|(ip, entry)| (Subject::Journal(ip.clone()), withdrawal::next(&view, ip, entry)))
            .collect();
        for (subject, next) in due {
            self.wake_at(next.wake);
            if !next.commands.is_empty() {
                self.propose(&subject, next.commands);
            }
        }
    }

    fn follow(&mut self, ip: &FloatingIpSpec, subject: &Subject, outlook: Outlook) {
        let owner = self.state.owner(&ip.name);
        match outlook {
            Outlook::Stay(at) => {
                self.wake_at(at);
                if let Some(tenure) = &mut self.controller.tenure {
                    tenure.nothing_to_say(&ip.name);
                }
            }
            Outlook::Listen(at) | Outlook::CalledOff(at) => self.wake_at(Some(at)),
            Outlook::Move(wanted) => {
                let decision = wanted.decision(ip, owner);
                if self.spec.policy.observe_only {
                    self.say(ip, format!("{decision:?}"), Notice::WouldHave(decision));
                    return;
                }
                if self.propose(subject, vec![wanted.command(ip, owner, Vec::new())]) {
                    self.effects.push(Effect::Notice(Notice::Decided(decision)));
                }
            }
            Outlook::Blocked(blocked) => {
                let said =
                    format!("{:?} {:?} {:?}", blocked.cause.reason, failing(&blocked.rules), blocked.unfit);
                let notice = Notice::Blocked {
                    ip: ip.name.clone(),
                    reason: blocked.cause.reason,
                    rules: blocked.rules,
                    unfit: blocked.unfit,
                };
                self.say(ip, said, notice);
                // A breaker or a pause ends by wall-clock time, which no input announces.
                self.wake_at(Some(self.now + LOOK_AGAIN));
            }
        }
    }

    fn say(&mut self, ip: &FloatingIpSpec, what: String, notice: Notice) {
        let new = self.controller.tenure.as_mut().is_some_and(|tenure| tenure.say_once(&ip.name, what));
        if new {
            self.effects.push(Effect::Notice(notice));
        }
    }

    /// Verdicts that differ from the agreed ones. A young leader first hears everybody out.
    fn verdicts(&mut self) {
        let Some(view) = self.view() else { return };
        let observers = view.observers();
        let serving = self.spec.nodes.iter().filter(|node| node.kind.serves()).count();
        if !view.settled() && observers.len() < serving {
            let settled = view.settled_at();
            self.wake_at(Some(settled));
            return;
        }
        if !view.tenure.may_propose(self.now, &Subject::Verdicts) {
            return;
        }
        let due = {
            let controller = &mut *self.controller;
            let (index, state, spec) = (&controller.index, self.state, self.spec);
            let Some(tenure) = &mut controller.tenure else { return };
            let known = |upstream: &twinsite_model::UpstreamName| {
                index.upstream_site(upstream)?;
                Some(state.verdicts.get(upstream).map_or(Verdict::Unknown, |record| record.health))
            };
            let name =
                |node| index.node(spec, node).map_or_else(|| format!("node {node}"), |n| n.name.to_string());
            tenure.opinions.due(&observers, known, name)
        };
        if !due.is_empty() {
            self.propose(&Subject::Verdicts, vec![Command::SetVerdicts { verdicts: due }]);
        }
    }

    /// Pauses, drills, the encoding, rooms, and the fate of revocations that is unknown.
    fn upkeep(&mut self) {
        let Some(view) = self.view() else { return };
        let wakes = [upkeep::pause_wake(&view), drills::wake(&view)];
        let ends = upkeep::pause(&view).into_iter().chain(drills::over(&view));
        let due: Vec<_> = ends.chain(upkeep::format(&view)).collect();
        let barrier = view.tenure.needs_barrier().then(upkeep::barrier);
        for wake in wakes {
            self.wake_at(wake);
        }
        for (subject, command) in due.into_iter().chain(barrier) {
            self.propose(&subject, vec![command]);
        }
        self.rooms();
    }

    fn rooms(&mut self) {
        let Some(view) = self.view() else { return };
        let Some(interval) = upkeep::rooms_interval(&view) else { return };
        let next = view.tenure.rooms_tended + interval;
        if self.now < next {
            self.wake_at(Some(next));
            return;
        }
        let commands: Vec<_> = upkeep::rooms(&view).into_iter().map(|(_, command)| command).collect();
        if let Some(tenure) = &mut self.controller.tenure {
            tenure.rooms_tended = self.now;
            tenure.rooms_in_use.clear(); // whatever is in use is reported again
        }
        self.wake_at(Some(self.now + interval));
        if !commands.is_empty() {
            self.propose(&Subject::Rooms, commands);
        }
    }

    /// Conditions that last become alarms; those that end are cleared.
    fn alarms(&mut self) {
        let Some(view) = self.view() else { return };
        if !view.settled() {
            let settled = view.settled_at();
            self.wake_at(Some(settled));
            return;
        }
        let delay = alarms::delay(&view);
        let pause = delay / 4;
        if let Some(weighed) = view.tenure.weighed.filter(|weighed| self.now < *weighed + pause) {
            self.wake_at(Some(weighed + pause));
            return;
        }
        let conditions = alarms::conditions(&view, self.controller.me);
        let now = self.now;
        let Some(tenure) = &mut self.controller.tenure else { return };
        tenure.weighed = Some(now);
        tenure.brewing.retain(|alarm, _| conditions.contains(alarm));
        let over: Vec<_> = tenure.alarms.difference(&conditions).cloned().collect();
        let mut raised = BTreeSet::new();
        for alarm in conditions {
            let since = *tenure.brewing.entry(alarm.clone()).or_insert(now);
            if now >= since + delay && tenure.alarms.insert(alarm.clone()) {
                raised.insert(alarm);
            }
        }
        for alarm in over {
            tenure.alarms.remove(&alarm);
            self.effects.push(Effect::Notice(Notice::AlarmCleared(alarm)));
        }
        self.effects.extend(raised.into_iter().map(|alarm| Effect::Notice(Notice::AlarmRaised(alarm))));
        self.wake_at(Some(now + pause));
    }

    fn leadership(&mut self) {
        let Some(view) = self.view() else { return };
        match leadership::transfer(&view, self.controller.me, self.controller.transfer_tried) {
            Err(wake) => self.wake_at(wake),
            Ok(transfer) => {
                self.controller.transfer_tried = Some(self.now);
                let notice = Notice::LeadershipMoves { to: transfer.to, why: transfer.why };
                self.effects.push(Effect::Notice(notice));
                self.effects.push(Effect::TransferLeadership { to: transfer.to });
            }
        }
    }
}

/// How soon a move that is forbidden now is thought about again without any news.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

fn failing(rules: &[crate::rules::RuleResult]) -> Vec<twinsite_model::SafetyRule> {
    rules.iter().filter(|rule| !rule.holds()).map(|rule| rule.rule).collect()
}
