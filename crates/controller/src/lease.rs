//! The owner's side of the lease: a pure machine that says when a node may act for a floating IP, and when it must
//! stop (design section 5).

use crate::faults::Faults;
use crate::grantor::{Release, Renewal, RenewalRefusal};
use std::time::Duration;
use twinsite_model::{BootTime, FloatingIpName, Incarnation, NodeId, Owner, Timing, Token};

/// What a holder is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HolderInput {
    /// The state's owner of the address, whenever the state changed.
    State {
        /// The owner, whoever it is.
        owner: Option<Owner>,
    },
    /// The leader granted a renewal.
    Granted {
        /// The renewal's token.
        token: Token,
        /// Its number.
        seq: u64,
        /// How long, from its send time.
        lease: Duration,
    },
    /// The leader refused a renewal.
    Refused {
        /// The renewal's token.
        token: Token,
        /// Its number.
        seq: u64,
        /// Why.
        why: RenewalRefusal,
    },
    /// The process (or the machine) stood still for so long just now.
    Suspended {
        /// How long, as far as can be told.
        gap: Duration,
    },
    /// Everything of this token is gone: listeners closed, address read back absent. Answers [`HolderOutput::Stop`].
    Stopped {
        /// The token.
        token: Token,
    },
    /// The node is being shut down: let go of what is held.
    Shutdown,
    /// Time has passed: [`Holder::next_wake`] is due.
    Tick,
}

/// What a holder wants done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HolderOutput {
    /// Send this to the leader, at once: its lease counts from now.
    SendRenew(Renewal),
    /// Act for the address under this token, until then at most.
    Hold {
        /// The token.
        token: Token,
        /// The end, on this machine's clock.
        until: BootTime,
    },
    /// Stop acting, and answer with [`HolderInput::Stopped`] when everything is gone.
    Stop {
        /// The token.
        token: Token,
        /// Why.
        why: StopReason,
    },
    /// Tell the leader. Comes again until the state shows another owner.
    SendReleased(Release),
}

/// Why a holder stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StopReason {
    /// The cluster took the address away, or the node shuts down: there is time for a clean end.
    Planned,
    /// The lease is over: now, at any price.
    Involuntary,
}

/// The owner's side of one floating IP's lease on one node, for one life of the process.
#[derive(Debug, Clone)]
pub struct Holder {
    ip: FloatingIpName,
    node: NodeId,
    incarnation: Incarnation,
    timing: Timing,
    faults: Faults,
}

impl Holder {
    /// A holder that holds nothing.
    pub fn new(ip: FloatingIpName, node: NodeId, incarnation: Incarnation, timing: Timing) -> Self {
        Self { ip, node, incarnation, timing, faults: Faults::default() }
    }

    /// Makes deliberate mistakes from here on.
    #[cfg(feature = "seeded-faults")]
    pub fn seed_faults(&mut self, faults: Faults) {
        self.faults = faults;
    }

    /// Uses other timings from here on. What was granted stays as it was granted.
    pub fn set_timing(&mut self, timing: Timing) {
        self.timing = timing;
    }

    /// Something happened. `now` is this machine's clock, and never goes back.
    pub fn step(&mut self, now: BootTime, input: HolderInput) -> Vec<HolderOutput> {
        let _ = (now, input, &self.ip, self.node, self.incarnation, &self.timing, &self.faults);
        Vec::new()
    }

    /// When [`HolderInput::Tick`] is due at the latest.
    pub fn next_wake(&self) -> Option<BootTime> {
        None
    }

    /// The token under which this node may act at this instant, and the end of that right.
    pub fn holding(&self, now: BootTime) -> Option<(Token, BootTime)> {
        let _ = now;
        None
    }
}
