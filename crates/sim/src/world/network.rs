//! The network: delay, loss, duplication, reordering, and cuts in one direction or both.

use super::World;
use crate::event::{Event, Packet};
use crate::host::StillKind;

/// What the buffers of a process that stands still hold at most, in messages.
const BUFFERED_MAX: usize = 4_000;

impl World {
    /// Sends a packet. To oneself it is a call within the process.
    pub(super) fn send(&mut self, from: usize, to: usize, packet: Packet) {
        let packet = Box::new(packet);
        if from == to {
            let delay = self.rng.u64(500..20_000);
            self.agenda.put(self.now + delay, Event::Packet { from, to, packet });
            return;
        }
        let lost = self.chance(self.scenario.loss);
        if self.cut[from][to] > 0 || lost {
            self.coverage.messages_lost += 1;
            return;
        }
        if self.chance(self.scenario.duplication) {
            self.coverage.messages_duplicated += 1;
            let delay = self.delay(from, to);
            self.agenda.put(self.now + delay, Event::Packet { from, to, packet: packet.clone() });
        }
        let delay = self.delay(from, to);
        self.agenda.put(self.now + delay, Event::Packet { from, to, packet });
    }

    fn delay(&mut self, from: usize, to: usize) -> u64 {
        let near = self.hosts[from].site == self.hosts[to].site;
        self.draw(|scenario| if near { scenario.near } else { scenario.far })
    }

    /// A packet reaches its machine.
    pub(super) fn arrive(&mut self, from: usize, to: usize, packet: Box<Packet>) {
        let cut = self.cut[from][to] > 0 && !self.scenario.stragglers;
        let buffers = self.scenario.buffers;
        let host = &mut self.hosts[to];
        if cut || !host.up || host.process.is_none() {
            self.coverage.messages_lost += u64::from(cut);
            return;
        }
        if let Some(still) = &host.still {
            let kept = still.kind == StillKind::Process && buffers && host.waiting.len() < BUFFERED_MAX;
            if kept {
                host.waiting.push_back(Event::Packet { from, to, packet });
            }
            return;
        }
        match *packet {
            Packet::Raft(message) => self.hear(to, from, message),
            Packet::Renew { renewal, sent } => self.renewal_arrived(to, from, renewal, sent),
            Packet::RenewAnswered { ip, token, to: life, answer } => {
                self.renewal_answered(to, ip, token, life, answer);
            }
            Packet::Report(report) => self.control(to, twinsite_controller::Input::Report(report)),
            Packet::Released(release) => self.release_arrived(to, release),
        }
    }

    /// Whether messages pass from one node to the other.
    pub(super) fn passes(&self, from: usize, to: usize) -> bool {
        from == to || self.cut[from][to] == 0
    }

    /// Cuts connections, and says when they are mended.
    pub(super) fn sever(&mut self, pairs: Vec<(usize, usize)>, lasting: u64) {
        self.cuts_so_far += 1;
        let cut = self.cuts_so_far;
        for (from, to) in &pairs {
            self.cut[*from][*to] += 1;
        }
        self.trace.note(self.now, || format!("cut {cut}: {pairs:?} (0 = node 1)"));
        self.cuts.insert(cut, pairs);
        self.agenda.put(self.now + lasting, Event::Mend { cut });
    }

    /// A cut ends.
    pub(super) fn mend(&mut self, cut: u64) {
        let Some(pairs) = self.cuts.remove(&cut) else { return };
        for (from, to) in pairs {
            self.cut[from][to] -= 1;
        }
        self.trace.note(self.now, || format!("cut {cut} is mended"));
    }
}
