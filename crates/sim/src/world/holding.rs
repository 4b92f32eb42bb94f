//! The owner's side: the holder of each address on each process, the hands that answer, and the guardian.

use super::World;
use crate::clock::nanos;
use crate::event::{Event, Packet, Timer, Work};
use crate::host::{Guarded, Order, StillKind};
use twinsite_controller::{HolderInput, HolderOutput, Release, ReleasedBy, RenewalAnswer, StopReason};
use twinsite_model::{BootTime, Incarnation, Token};

/// How often a guardian repeats its word, at most.
const GUARDIAN_TRIES: u32 = 60;

impl World {
    /// The leader's answer reaches the life that asked.
    pub(super) fn renewal_answered(
        &mut self,
        node: usize,
        ip: usize,
        token: Token,
        life: Incarnation,
        answer: RenewalAnswer,
    ) {
        if self.hosts[node].incarnation() != Some(life) {
            return;
        }
        let input = match answer {
            RenewalAnswer::Granted { seq, lease } => HolderInput::Granted { token, seq, lease },
            RenewalAnswer::Refused { seq, why } => HolderInput::Refused { token, seq, why },
        };
        self.hold(node, ip, input);
    }

    /// Tells a holder something, and does what it wants.
    pub(super) fn hold(&mut self, node: usize, ip: usize, input: HolderInput) {
        let now = self.now;
        let host = &mut self.hosts[node];
        let boot = host.clock.boot(now);
        let Some(process) = &mut host.process else { return };
        let seat = &mut process.seats[ip];
        let outputs = seat.holder.step(boot, input);
        if let Some(at) = seat.holder.next_wake() {
            let when = self.hosts[node].clock.when(now, at);
            self.set_timer(node, Timer::Holder(ip), when.max(now + 1));
        }
        for output in outputs {
            match output {
                HolderOutput::SendRenew(renewal) => {
                    let sent = self.hosts[node].clock.undisturbed(now);
                    if let Some(leader) = self.known_leader(node) {
                        self.send(node, leader, Packet::Renew { renewal, sent });
                    }
                }
                HolderOutput::Hold { token, until } => self.order(node, ip, Order::Hold { token, until }),
                HolderOutput::Stop { token, number, why } => {
                    let planned = why == StopReason::Planned;
                    self.coverage.leases_expired += u64::from(!planned);
                    let (id, name) = (self.hosts[node].id, &self.ips[ip]);
                    self.trace.note(now, || format!("node {id} stops {name} {token} ({why:?})"));
                    self.order(node, ip, Order::Stop { token, number, planned });
                }
                HolderOutput::SendReleased(release) => {
                    if let Some(leader) = self.known_leader(node) {
                        self.send(node, leader, Packet::Released(release));
                    }
                }
            }
        }
    }

    /// Holders follow the timings that are agreed.
    pub(super) fn follow_spec(&mut self, node: usize) {
        let host = &mut self.hosts[node];
        let (Some(spec), Some(process)) = (&host.state.spec, &mut host.process) else { return };
        let timing = spec.timing();
        for seat in &mut process.seats {
            seat.holder.set_timing(timing);
        }
    }

    /// An order for the hands. They do one thing after the other; only an involuntary end is immediate.
    fn order(&mut self, node: usize, ip: usize, order: Order) {
        let Some(process) = &mut self.hosts[node].process else { return };
        let hands = &mut process.seats[ip].hands;
        if let Order::Stop { token, planned: false, .. } = order
            && hands.held.is_some_and(|(held, _)| held == token)
        {
            hands.held = None;
        }
        if let Order::Stop { token, planned: false, .. } = order {
            // What is being taken hold of just now is let go of as soon as it is held.
            for earlier in hands.orders.iter_mut().chain(&mut hands.busy) {
                if let Order::Hold { token: held, until } = earlier
                    && *held == token
                {
                    *until = BootTime::default();
                }
            }
        }
        hands.orders.push_back(order);
        self.next_order(node, ip);
    }

    fn next_order(&mut self, node: usize, ip: usize) {
        let now = self.now;
        loop {
            let host = &mut self.hosts[node];
            let Some(process) = &mut host.process else { return };
            let incarnation = process.incarnation;
            let hands = &mut process.seats[ip].hands;
            if hands.busy.is_some() {
                return;
            }
            let Some(order) = hands.orders.pop_front() else { return };
            if let Order::Hold { token, until } = order {
                host.guarded.insert(ip, Guarded { token, incarnation, until });
                if let Some((held, end)) = &mut hands.held
                    && *held == token
                {
                    *end = until;
                    continue;
                }
            }
            hands.busy = Some(order);
            let delay = match order {
                Order::Hold { .. } => self.draw(|scenario| scenario.to_attach),
                Order::Stop { planned: true, .. } => self.draw(|scenario| scenario.to_stop),
                Order::Stop { planned: false, .. } => self.draw(|scenario| scenario.to_attach),
            };
            self.trace.mix(&[2, now, node as u64, ip as u64, delay]);
            self.later(node, delay, Work::Hands(ip));
        }
    }

    /// The hands have done what they were told.
    pub(super) fn hands_done(&mut self, node: usize, ip: usize) {
        let now = self.now;
        let host = &mut self.hosts[node];
        let boot = host.clock.boot(now);
        let Some(process) = &mut host.process else { return };
        let hands = &mut process.seats[ip].hands;
        let Some(order) = hands.busy.take() else { return };
        process.report_at_once = true;
        match order {
            Order::Hold { token, until } => {
                if boot < until {
                    hands.held = Some((token, until));
                    let (id, name) = (host.id, &self.ips[ip]);
                    self.trace.note(now, || format!("node {id} answers for {name} under {token}"));
                }
            }
            Order::Stop { token, number, .. } => {
                hands.held = None;
                if host.guarded.get(&ip).is_some_and(|guarded| guarded.token == token) {
                    host.guarded.remove(&ip);
                }
                self.hold(node, ip, HolderInput::Stopped { token, number });
            }
        }
        self.next_order(node, ip);
        self.report_soon(node);
    }

    /// The process is gone: its guardian will look whether what it held has ended.
    pub(super) fn begin_guarding(&mut self, node: usize) {
        let guarded = std::mem::take(&mut self.hosts[node].guarded);
        for (ip, Guarded { token, incarnation: life, .. }) in guarded {
            let delay = self.draw(|scenario| scenario.to_detect);
            self.agenda.put(self.now + delay, Event::Guardian { node, ip, token, life, tries: 0 });
        }
    }

    /// The guardian reads back whether the address is free, and says so to whoever may lead.
    pub(super) fn guardian(&mut self, node: usize, ip: usize, token: Token, life: Incarnation, tries: u32) {
        let host = &self.hosts[node];
        if !host.up || tries > GUARDIAN_TRIES {
            return;
        }
        let again = Event::Guardian { node, ip, token, life, tries: tries + 1 };
        self.agenda.put(self.now + nanos(self.timing().renew), again);
        let stands_still = host.still.as_ref().is_some_and(|still| still.kind != StillKind::Process);
        let process = host.process.as_ref();
        let taken = process.is_some_and(|process| process.seats[ip].hands.held.is_some());
        let moved =
            process.is_some() && host.state.owner(&self.ips[ip]).is_some_and(|owner| owner.token > token);
        if stands_still || taken || moved {
            return;
        }
        let release = Release {
            ip: self.ips[ip].clone(),
            node: host.id,
            incarnation: life,
            token,
            by: ReleasedBy::Guardian,
        };
        for to in 0..self.hosts.len() {
            if to != node || self.hosts[node].process.is_some() {
                self.send(node, to, Packet::Released(release.clone()));
            }
        }
    }

    /// A process stands still: its guardian ends it before it could go on under a lease that is over.
    pub(super) fn watch_out(&mut self, node: usize) {
        let slack = nanos(self.timing().slack);
        let since = self.now;
        let held: Vec<_> = self.hosts[node].guarded.values().map(|guarded| guarded.until).collect();
        for until in held {
            let early = std::time::Duration::from_nanos(slack);
            let late = std::time::Duration::from_nanos(self.rng.u64(0..=slack + slack / 2));
            let at = self.hosts[node].clock.when(since, until - early + late);
            self.agenda.put(at, Event::Kill { node, since });
        }
    }
}
