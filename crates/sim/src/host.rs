//! One machine: its clocks, its disk, its guardian, and the process that lives on it for a while.

use crate::clock::{HostClock, TrueTime};
use crate::event::{Event, Timer};
use crate::raft::Raft;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use twinsite_controller::{CallId, Controller, Holder, RoundId, Ticket};
use twinsite_model::spec::NodeKind;
use twinsite_model::{BootTime, FloatingIpName, Incarnation, NodeId, SiteName, State, Token};

/// A machine.
pub(crate) struct Host {
    pub(crate) id: NodeId,
    pub(crate) site: SiteName,
    pub(crate) kind: NodeKind,
    pub(crate) clock: HostClock,
    /// Has power.
    pub(crate) up: bool,
    pub(crate) still: Option<Still>,
    /// What reached a process that stands still.
    pub(crate) waiting: VecDeque<Event>,
    /// On disk: terms, votes and the log; of the rest only what follows from them.
    pub(crate) raft: Raft,
    pub(crate) state: State,
    pub(crate) applied: u64,
    /// Lives so far.
    pub(crate) lives: u32,
    pub(crate) process: Option<Process>,
    /// What the guardian watches over, by the place of the address.
    pub(crate) guarded: BTreeMap<usize, Guarded>,
}

/// A process, or everything, stands still.
#[derive(Debug, Clone)]
pub(crate) struct Still {
    pub(crate) kind: StillKind,
    pub(crate) since: TrueTime,
    /// The addresses that it was about to answer for.
    pub(crate) answering: BTreeSet<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StillKind {
    /// The process only.
    Process,
    /// The machine; the boot clock goes on.
    Machine,
    /// The machine and its clocks.
    Guest,
}

/// A token that the guardian will see ended if the process ends.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Guarded {
    pub(crate) token: Token,
    pub(crate) incarnation: Incarnation,
    pub(crate) until: BootTime,
}

/// One life.
pub(crate) struct Process {
    pub(crate) incarnation: Incarnation,
    pub(crate) controller: Controller,
    /// The term in which the controller was told to lead.
    pub(crate) leads: Option<u64>,
    /// A process takes part in consensus only after the longest election timeout.
    pub(crate) votes_from: TrueTime,
    pub(crate) seats: Vec<Seat>,
    pub(crate) timers: BTreeMap<Timer, TrueTime>,
    /// Proposals in the log whose fate is open, by index.
    pub(crate) proposals: BTreeMap<u64, (Ticket, u64)>,
    pub(crate) rounds: Vec<Round>,
    pub(crate) calls: BTreeMap<CallId, Caller>,
    pub(crate) calls_so_far: u64,
    /// Whether an application is on its way.
    pub(crate) applies: bool,
    /// When the last proposal so far enters the log.
    pub(crate) to_log_until: TrueTime,
    pub(crate) reports: u64,
    pub(crate) report_at_once: bool,
    pub(crate) reported_to: Option<usize>,
    /// Being stopped in good order, since when.
    pub(crate) leaving: Option<TrueTime>,
    pub(crate) known: Knowledge,
}

/// What the checks know that this process must have taken to heart.
#[derive(Debug, Default)]
pub(crate) struct Knowledge {
    /// Releases that the controller was told of in this tenure.
    pub(crate) released: BTreeSet<(FloatingIpName, Token, Incarnation)>,
    /// Revocations handed out whose fate is open.
    pub(crate) revoking: BTreeMap<Ticket, FloatingIpName>,
    /// When the round began that the controller is being told of, if it succeeded.
    pub(crate) round_began: Option<TrueTime>,
    /// Steps of the controller at one instant.
    pub(crate) steps: (TrueTime, u32),
}

/// A quorum round under way.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Round {
    pub(crate) id: RoundId,
    pub(crate) term: u64,
    pub(crate) number: u64,
    pub(crate) index: u64,
    pub(crate) began: TrueTime,
    pub(crate) deadline: TrueTime,
    pub(crate) confirmed: bool,
}

/// Who waits for the controller's answer.
#[derive(Debug, Clone)]
pub(crate) enum Caller {
    /// An owner.
    Owner { node: usize, ip: usize, incarnation: Incarnation, token: Token, sent: u64, arrived: TrueTime },
    /// A person.
    Person,
}

/// One floating IP on one process: the holder and its hands.
pub(crate) struct Seat {
    pub(crate) holder: Holder,
    pub(crate) hands: Hands,
    /// Since when the present owner has been draining here.
    pub(crate) drains_since: Option<(Token, TrueTime)>,
}

/// What answers for an address.
#[derive(Debug, Default)]
pub(crate) struct Hands {
    /// The token under which it answers, and until when at most.
    pub(crate) held: Option<(Token, BootTime)>,
    pub(crate) orders: VecDeque<Order>,
    /// The order that is being carried out.
    pub(crate) busy: Option<Order>,
}

/// What a holder wants of the hands.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Order {
    Hold { token: Token, until: BootTime },
    Stop { token: Token, number: u64, planned: bool },
}

impl Host {
    /// Whether a process lives here and moves.
    pub(crate) fn is_running(&self) -> bool {
        self.up && self.still.is_none() && self.process.is_some()
    }

    /// The token under which this machine answers for an address now.
    pub(crate) fn answers(&self, now: TrueTime, ip: usize) -> Option<Token> {
        if !self.is_running() {
            return None;
        }
        self.could_answer(now, ip)
    }

    /// The token under which it answers or, while it stands still, would if it went on now.
    pub(crate) fn could_answer(&self, now: TrueTime, ip: usize) -> Option<Token> {
        let (token, until) = self.process.as_ref()?.seats[ip].hands.held?;
        (self.clock.boot(now) < until).then_some(token)
    }

    pub(crate) fn incarnation(&self) -> Option<Incarnation> {
        self.process.as_ref().map(|process| process.incarnation)
    }
}
