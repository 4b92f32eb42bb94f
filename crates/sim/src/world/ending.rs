//! Everything becomes well; then everything must be as it should, before long.

use super::World;
use crate::event::Event;
use crate::violation::Rule;
use twinsite_controller::{OperatorAction, OperatorRequest};
use twinsite_model::Verdict;
use twinsite_model::spec::Failback;

const MS: u64 = 1_000_000;
/// How often it is looked.
const LOOK_EVERY: u64 = 20 * MS;
/// How long nodes that start take to be heard, in the longest election timeouts.
const SETTLE: u64 = 6;
/// How long it stays quiet, where that is looked at.
const QUIET: u64 = 1_000 * MS;
/// Commands at most while it is quiet.
const QUIET_COMMANDS: u64 = 12;

impl World {
    /// Everything becomes well.
    pub(super) fn heal(&mut self) {
        self.healed = Some(self.now);
        self.trace.note(self.now, || "everything becomes well".to_owned());
        let cuts: Vec<_> = self.cuts.keys().copied().collect();
        for cut in cuts {
            self.mend(cut);
        }
        let scenario = &mut self.scenario;
        (scenario.loss, scenario.duplication, scenario.noise) = (0.0, 0.0, 0.0);
        for span in [
            &mut scenario.near,
            &mut scenario.far,
            &mut scenario.to_log,
            &mut scenario.to_notice,
            &mut scenario.to_round_notice,
            &mut scenario.to_apply,
            &mut scenario.to_lead,
            &mut scenario.to_attach,
            &mut scenario.to_stop,
            &mut scenario.to_detect,
        ] {
            span.tail_chance = 0.0;
        }
        self.upstreams.fill(true);
        for node in 0..self.hosts.len() {
            self.hosts[node].clock.set_wall_error(0);
            if let Some(still) = &self.hosts[node].still {
                let since = still.since;
                self.go_on(node, since);
            }
            if self.hosts[node].process.is_none() {
                self.agenda.put(self.now + self.pace.election_max, Event::Start { node });
            }
        }
        self.agenda.put(self.now + LOOK_EVERY, Event::Look);
    }

    /// Is everything as it should be by now?
    pub(super) fn look(&mut self) {
        let Some(healed) = self.healed else { return };
        self.agenda.put(self.now + LOOK_EVERY, Event::Look);
        if let Some((since, commands)) = self.recovered {
            if self.now >= since + QUIET {
                let more = self.reference.commands - commands;
                if more > QUIET_COMMANDS {
                    self.violate(Rule::Recovers, || {
                        format!("{more} commands in a second in which nothing happened")
                    });
                }
                self.done = true;
            }
            return;
        }
        match self.not_yet_well() {
            None => {
                let seconds = (self.now - healed) as f64 / 1e9;
                self.trace.note(self.now, || format!("everything is as it should be, {seconds:.3} s later"));
                self.recovered = Some((self.now, self.reference.commands));
                // Looking at quiet costs time; every eighth seed does.
                self.done = self.rng.u32(0..8) != 0 || self.goes_back();
            }
            Some(why) => {
                let patience = 20 * LOOK_EVERY * 50 + 100 * self.pace.election_max;
                if self.now > healed + patience {
                    self.violate(Rule::Recovers, || why);
                }
                if self.rng.u32(0..10) == 0 {
                    self.help_out();
                }
            }
        }
    }

    fn goes_back(&self) -> bool {
        self.agreed_ips().iter().any(|ip| matches!(ip.failback, Failback::After(_)))
    }

    /// Why it is not as it should be.
    fn not_yet_well(&self) -> Option<String> {
        // Nodes that start only now have opinions of their own before long.
        if self.healed.is_none_or(|healed| self.now < healed + SETTLE * self.pace.election_max) {
            return Some("it has only just become well".to_owned());
        }
        if self.agreed_ips().is_empty() {
            return Some("there is no specification".to_owned());
        }
        for (place, ip) in self.ips.iter().enumerate() {
            let Some(entry) = self.reference.state.floating_ips.get(ip) else { continue };
            let Some(owner) = &entry.owner else { return Some(format!("{ip} has no owner")) };
            if let Some(operation) = &entry.operation {
                return Some(format!("{ip} is still being moved: {operation:?}"));
            }
            let node = super::place(owner.node)?;
            let granted = self.grants.get(&(place, owner.token));
            let renewed = |since| granted.is_some_and(|granted| granted.at >= since);
            if !self.healed.is_some_and(renewed) {
                return Some(format!("the lease of {ip} has not been renewed since"));
            }
            if self.hosts[node].answers(self.now, place) != Some(owner.token) {
                return Some(format!(
                    "{ip} is owned by node {} under {} and not answered for",
                    owner.node, owner.token
                ));
            }
        }
        let unwell =
            self.reference.state.verdicts.iter().find(|(_, record)| record.health != Verdict::Healthy);
        if let Some((upstream, _)) = unwell {
            return Some(format!("{upstream} is still thought to be unwell"));
        }
        let behind = self.hosts.iter().find(|host| host.state != self.reference.state);
        behind.map(|host| format!("node {} is behind", host.id))
    }

    /// What a person would do by now: end the pause, close the breaker, end the drains.
    fn help_out(&mut self) {
        let Some(leader) = self.newest_leader() else { return };
        let state = &self.reference.state;
        let mut actions = Vec::new();
        if state.pause.is_some() {
            actions.push(OperatorAction::Resume);
        }
        if !state.automatic_failovers.is_empty() {
            self.coverage.breaker_open_at_the_end += 1;
            actions.push(OperatorAction::ResetBreaker);
        }
        for upstream in state.drains.keys() {
            let upstream = upstream.clone();
            actions.push(OperatorAction::SetDrain { upstream, draining: false, within: None });
        }
        for action in actions {
            let by = "ada".to_owned();
            self.ask(leader, OperatorRequest { by, request: None, expected_revision: None, action });
        }
    }
}
