//! The lives of processes and machines: start, end, standing still, going on.

use super::World;
use crate::clock::nanos;
use crate::event::{Event, Timer, Work};
use crate::host::{Hands, Knowledge, Process, Seat, Still, StillKind};
use crate::violation::Rule;
use std::collections::BTreeMap;
use twinsite_controller::{Controller, Holder, HolderInput};
use twinsite_model::Incarnation;

impl World {
    /// A process begins its life.
    pub(super) fn start(&mut self, node: usize) {
        if self.hosts[node].process.is_some() {
            return;
        }
        if self.hosts[node].applied > 0 && self.rng.f64() < 0.3 {
            self.replay(node);
        }
        let votes_from = self.now + self.pace.election_max;
        let timing = self.hosts[node].state.spec.as_ref().map_or(self.timing(), |spec| spec.timing());
        let random = self.rng.u32(..);
        let host = &mut self.hosts[node];
        host.up = true;
        host.still = None;
        host.waiting.clear();
        host.lives += 1;
        let incarnation = Incarnation(u64::from(host.lives) << 32 | u64::from(random));
        host.raft.restart(votes_from, self.pace, &mut self.rng);
        #[allow(unused_mut, reason = "mistakes are seeded in some builds only")]
        let mut controller = Controller::new(host.id);
        #[cfg(feature = "seeded-faults")]
        controller.seed_faults(self.settings.faults.clone());
        let seats = self.ips.iter().map(|ip| {
            #[allow(unused_mut, reason = "mistakes are seeded in some builds only")]
            let mut holder = Holder::new(ip.clone(), host.id, incarnation, timing);
            #[cfg(feature = "seeded-faults")]
            holder.seed_faults(self.settings.faults.clone());
            Seat { holder, hands: Hands::default(), drains_since: None }
        });
        host.process = Some(Process {
            incarnation,
            controller,
            leads: None,
            votes_from,
            seats: seats.collect(),
            timers: BTreeMap::new(),
            proposals: BTreeMap::new(),
            rounds: Vec::new(),
            calls: BTreeMap::new(),
            calls_so_far: 0,
            applies: false,
            to_log_until: 0,
            reports: 0,
            report_at_once: false,
            reported_to: None,
            leaving: None,
            known: Knowledge::default(),
        });
        let (id, wake) = (host.id, host.raft.wake());
        self.trace.mix(&[3, self.now, id.0, incarnation.0]);
        self.trace.note(self.now, || format!("node {id} starts as {incarnation}"));
        self.set_timer(node, Timer::Raft, wake);
        let first_report = self.rng.u64(0..nanos(timing.renew));
        self.set_timer(node, Timer::Report, self.now + first_report);
        for ip in 0..self.ips.len() {
            let owner = self.hosts[node].state.owner(&self.ips[ip]).cloned();
            self.hold(node, ip, HolderInput::State { owner });
        }
    }

    /// A process ends, and will be started again.
    pub(super) fn crash(&mut self, node: usize) {
        if !self.end_process(node) {
            return;
        }
        self.begin_guarding(node);
        self.start_again(node);
    }

    /// A machine ends, with its guardian.
    pub(super) fn crash_host(&mut self, node: usize) {
        if !self.hosts[node].up {
            return;
        }
        self.end_process(node);
        let host = &mut self.hosts[node];
        host.up = false;
        host.guarded.clear();
        self.coverage.host_crashes += 1;
        let id = host.id;
        self.trace.note(self.now, || format!("the machine of node {id} is lost"));
        self.start_again(node);
    }

    fn end_process(&mut self, node: usize) -> bool {
        let host = &mut self.hosts[node];
        let Some(process) = host.process.take() else { return false };
        host.still = None;
        host.waiting.clear();
        let id = host.id;
        self.trace.mix(&[4, self.now, id.0]);
        self.trace.note(self.now, || format!("node {id} ends ({})", process.incarnation));
        true
    }

    fn start_again(&mut self, node: usize) {
        let delay = if self.healed.is_some() {
            self.pace.election_max
        } else {
            self.draw(|scenario| scenario.to_restart)
        };
        self.agenda.put(self.now + delay, Event::Start { node });
    }

    /// The guardian's patience is over.
    pub(super) fn kill(&mut self, node: usize, since: u64) {
        if self.hosts[node].still.as_ref().is_some_and(|still| still.since == since) {
            self.coverage.killed_by_guardian += 1;
            self.trace.note(self.now, || format!("the guardian of node {} kills it", node + 1));
            self.crash(node);
        }
    }

    /// A process, a machine, or a guest with its clocks stands still from now on.
    pub(super) fn stand_still(&mut self, node: usize, kind: StillKind, lasting: u64) {
        if !self.hosts[node].is_running() {
            return;
        }
        let now = self.now;
        let answering: std::collections::BTreeSet<_> =
            (0..self.ips.len()).filter(|ip| self.hosts[node].answers(now, *ip).is_some()).collect();
        let answers = u64::from(!answering.is_empty());
        match kind {
            StillKind::Process => {
                self.coverage.freezes += 1;
                self.coverage.freezes_while_answering += answers;
                self.watch_out(node);
            }
            StillKind::Machine => self.coverage.suspensions += 1,
            StillKind::Guest => {
                self.coverage.guest_pauses += 1;
                self.coverage.guest_pauses_while_answering += answers;
                self.hosts[node].clock.stand_still(now);
            }
        }
        let host = &mut self.hosts[node];
        host.still = Some(Still { kind, since: now, answering });
        let id = host.id;
        self.trace.mix(&[5, now, id.0, kind as u64]);
        self.trace.note(now, || format!("node {id} stands still ({kind:?})"));
        self.agenda.put(now + lasting, Event::GoOn { node, since: now });
    }

    /// What stood still goes on.
    pub(super) fn go_on(&mut self, node: usize, since: u64) {
        let now = self.now;
        let host = &mut self.hosts[node];
        let Some(still) = host.still.take_if(|still| still.since == since) else { return };
        let id = host.id;
        self.trace.mix(&[6, now, id.0]);
        self.trace.note(now, || format!("node {id} goes on"));
        match still.kind {
            StillKind::Process => self.last_answers(node, &still),
            StillKind::Machine => {}
            StillKind::Guest => {
                let gap = self.hosts[node].clock.go_on(now);
                for ip in 0..self.ips.len() {
                    self.hold(node, ip, HolderInput::Suspended { gap });
                }
            }
        }
        let waiting = std::mem::take(&mut self.hosts[node].waiting);
        for event in waiting {
            self.happen(event);
        }
    }

    /// Who looked at the lease and then stood still sends what it was about to send, whatever the lease says now.
    fn last_answers(&mut self, node: usize, still: &Still) {
        for ip in &still.answering {
            if self.rng.bool() {
                continue;
            }
            self.coverage.last_answers_after_a_freeze += 1;
            let other = (0..self.hosts.len())
                .find(|other| *other != node && self.hosts[*other].answers(self.now, *ip).is_some());
            if let Some(other) = other {
                let name = self.ips[*ip].clone();
                self.violate(Rule::OneAnswer, || {
                    format!("node {} sends a late answer for {name}, held by node {}", node + 1, other + 1)
                });
            }
        }
    }

    /// Stops a process in good order.
    pub(super) fn restart_in_good_order(&mut self, node: usize) {
        let (now, lease) = (self.now, nanos(self.timing().lease));
        let running = self.hosts[node].is_running();
        let Some(process) = &mut self.hosts[node].process else { return };
        if !running || process.leaving.is_some() {
            return;
        }
        process.leaving = Some(now);
        self.coverage.restarts_in_good_order += 1;
        self.trace.note(now, || format!("node {} is being stopped in good order", node + 1));
        for ip in 0..self.ips.len() {
            self.hold(node, ip, HolderInput::Shutdown);
        }
        self.report(node);
        let patience = self.rng.u64(lease / 2..2 * lease);
        self.later(node, patience, Work::Leave);
    }

    /// Stopping in good order has had its time.
    pub(super) fn leave(&mut self, node: usize) {
        let stopping = self.hosts[node].process.as_ref().is_some_and(|process| {
            process.seats.iter().any(|seat| seat.hands.busy.is_some() || seat.hands.held.is_some())
        });
        if stopping {
            self.later(node, nanos(self.timing().renew), Work::Leave);
        } else {
            self.crash(node);
        }
    }
}
