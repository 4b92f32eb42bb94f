//! The kernels of the machines: who answers for an address, until which deadline, whatever becomes of the processes.

use crate::clock::{TrueTime, nanos};
use crate::runtime::{Executor, MachineId};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use twinsite_model::{BootTime, FloatingIpName, Token};

/// One machine's kernel. It answers for an address under a token until the machine's boot clock shows the deadline.
#[derive(Clone)]
pub(super) struct Kernel {
    machine: MachineId,
    rules: Arc<Mutex<Rules>>,
}

#[derive(Default)]
struct Rules {
    held: BTreeMap<FloatingIpName, (Token, BootTime)>,
    /// The newest token under which each address was ever answered for.
    answered: BTreeMap<FloatingIpName, Token>,
    /// Until when nothing here is held against anybody: the machine stood still together with its clock, which nothing
    /// on it can know (what a hypervisor may do, design section 5).
    excused: TrueTime,
}

impl Kernel {
    pub(super) fn new(machine: MachineId) -> Self {
        Self { machine, rules: Arc::default() }
    }

    /// The machine below it.
    pub(super) const fn machine(&self) -> MachineId {
        self.machine
    }

    fn rules(&self) -> MutexGuard<'_, Rules> {
        self.rules.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Answers under this token until then; a deadline only moves later.
    pub(super) fn hold(&self, ip: &FloatingIpName, token: Token, until: BootTime) {
        let mut rules = self.rules();
        let known = rules.held.get(ip).filter(|(known, _)| *known == token).map(|(_, until)| *until);
        rules.held.insert(ip.clone(), (token, known.map_or(until, |known| known.max(until))));
        if Executor::boot(self.machine).is_some_and(|now| now < until) {
            let newest = rules.answered.entry(ip.clone()).or_insert(token);
            *newest = token.max(*newest);
        }
    }

    /// The newest token under which it has ever answered.
    pub(super) fn has_answered(&self, ip: &FloatingIpName) -> Option<Token> {
        self.rules().answered.get(ip).copied()
    }

    /// Says nothing more under this token, or under any.
    pub(super) fn silence(&self, ip: &FloatingIpName, token: Option<Token>) {
        let mut rules = self.rules();
        if token.is_none_or(|token| rules.held.get(ip).is_some_and(|(held, _)| *held == token)) {
            rules.held.remove(ip);
        }
    }

    /// The power is cut.
    pub(super) fn power_off(&self) {
        self.rules().held.clear();
    }

    /// Its clock stopped for a while, and the leases of this length that it knows of are longer than they should be.
    pub(super) fn excuse(&self, lease: Duration) {
        self.rules().excused = Executor::now() + 3 * nanos(lease);
    }

    /// Under which token it answers now, and until when.
    pub(super) fn answers(&self, ip: &FloatingIpName) -> Option<(Token, BootTime)> {
        let now = Executor::boot(self.machine)?;
        self.rules().held.get(ip).copied().filter(|(_, until)| now < *until)
    }

    /// Whether what it answers is held against anybody.
    pub(super) fn is_excused(&self) -> bool {
        Executor::now() < self.rules().excused
    }
}
