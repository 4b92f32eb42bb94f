//! What goes wrong, and when.

use super::{World, clock_rate};
use crate::event::Event;
use crate::host::StillKind;
use crate::scenario::{Misfortune, NODES};

impl World {
    /// The next misfortune happens, and the one after it is planned.
    pub(super) fn misfortune(&mut self) {
        if self.healed.is_some() {
            return;
        }
        let which = self.scenario.misfortunes[self.rng.usize(0..self.scenario.misfortunes.len())];
        let lasting = self.draw(|scenario| scenario.lasting);
        let victim = self.victim();
        self.trace.mix(&[8, self.now, which as u64, victim as u64]);
        match which {
            Misfortune::Crash => {
                self.coverage.crashes += u64::from(self.hosts[victim].process.is_some());
                self.crash(victim);
            }
            Misfortune::HostCrash => self.crash_host(victim),
            Misfortune::Freeze => self.stand_still(victim, StillKind::Process, lasting),
            Misfortune::Suspend => self.stand_still(victim, StillKind::Machine, lasting),
            Misfortune::GuestPause => self.stand_still(victim, StillKind::Guest, lasting),
            Misfortune::Partition => {
                self.coverage.partitions += 1;
                let side: Vec<_> = (0..NODES).filter(|_| self.rng.bool()).collect();
                let side = if side.is_empty() { vec![victim] } else { side };
                self.isolate(&side, lasting);
            }
            Misfortune::OneWayCut => self.cut_one_way(victim, lasting),
            Misfortune::SiteIsolation => {
                self.coverage.sites_isolated += 1;
                let side = self.site_of(victim);
                self.isolate(&side, lasting);
            }
            Misfortune::SiteLoss => {
                self.coverage.sites_lost += 1;
                for node in self.site_of(victim) {
                    self.crash_host(node);
                }
            }
            Misfortune::Clocks => self.disturb_clock(victim),
            Misfortune::Upstreams => self.fail_upstreams(lasting),
            Misfortune::Restart => self.restart_in_good_order(victim),
        }
        let pause = self.draw(|scenario| scenario.pace);
        self.agenda.put(self.now + pause, Event::Misfortune);
    }

    /// Mostly somebody who matters: an owner, or the leader.
    fn victim(&mut self) -> usize {
        let any = self.rng.usize(0..NODES);
        match self.rng.u32(0..10) {
            0..4 => {
                let ip = &self.ips[self.rng.usize(0..self.ips.len())];
                let owner = self.reference.state.owner(ip).and_then(|owner| super::place(owner.node));
                owner.unwrap_or(any)
            }
            4..7 => self.newest_leader().unwrap_or(any),
            _ => any,
        }
    }

    fn site_of(&self, node: usize) -> Vec<usize> {
        (0..NODES).filter(|other| self.hosts[*other].site == self.hosts[node].site).collect()
    }

    fn isolate(&mut self, side: &[usize], lasting: u64) {
        let mut pairs = Vec::new();
        for from in 0..NODES {
            for to in 0..NODES {
                if side.contains(&from) != side.contains(&to) {
                    pairs.push((from, to));
                }
            }
        }
        self.sever(pairs, lasting);
    }

    fn cut_one_way(&mut self, victim: usize, lasting: u64) {
        self.coverage.one_way_cuts += 1;
        let outwards = self.rng.bool();
        let others: Vec<_> = (0..NODES).filter(|other| *other != victim && self.rng.f64() < 0.7).collect();
        let pair = |other| if outwards { (victim, other) } else { (other, victim) };
        self.sever(others.into_iter().map(pair).collect(), lasting);
    }

    fn disturb_clock(&mut self, victim: usize) {
        if self.rng.bool() {
            self.coverage.clock_rates_changed += 1;
            let timing = self.timing();
            let rate = clock_rate(&mut self.rng, &self.scenario, &timing);
            self.hosts[victim].clock.set_rate(self.now, rate);
        } else {
            self.coverage.wall_clock_jumps += 1;
            let wrong = self.rng.i64(-7_200_000..7_200_000);
            self.hosts[victim].clock.set_wall_error(wrong);
        }
    }

    fn fail_upstreams(&mut self, lasting: u64) {
        let first = self.rng.usize(0..self.upstreams.len());
        let whole_site = self.rng.bool();
        let site = self.scenario.spec.upstreams[first].site.clone();
        for upstream in 0..self.upstreams.len() {
            let same_site = whole_site && self.scenario.spec.upstreams[upstream].site == site;
            if (upstream == first || same_site) && self.upstreams[upstream] {
                self.coverage.upstreams_failed += 1;
                self.upstreams[upstream] = false;
                self.agenda.put(self.now + lasting, Event::UpstreamBack { upstream });
            }
        }
    }
}
