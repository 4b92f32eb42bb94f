//! What can happen in a simulation, and when.

use crate::clock::TrueTime;
use crate::raft::Message;
use std::cmp::Ordering;
use std::collections::BinaryHeap;
use twinsite_controller::{
    NodeReport, OperatorRequest, ProposeFailed, Release, Renewal, RenewalAnswer, RoundId, Ticket,
};
use twinsite_model::{Applied, Incarnation, Proposal, Token};

/// What one node sends to another.
#[derive(Debug, Clone)]
pub(crate) enum Packet {
    Raft(Message),
    /// `sent` is when, on the sender's undisturbed clock: for the checks.
    Renew {
        renewal: Renewal,
        sent: u64,
    },
    /// Goes back over the connection of the question, so only to the life that asked.
    RenewAnswered {
        ip: usize,
        token: Token,
        to: Incarnation,
        answer: RenewalAnswer,
    },
    Report(NodeReport),
    Released(Release),
}

/// What becomes due on a process by time alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Timer {
    Raft,
    Controller,
    Holder(usize),
    Report,
    Rounds,
}

/// What goes on within a process and takes its time.
#[derive(Debug, Clone)]
pub(crate) enum Work {
    /// A timer that was set for this time, if it still is.
    Timer(Timer, TrueTime),
    /// The driver looks at who leads.
    Leadership,
    Propose {
        ticket: Ticket,
        term: u64,
        proposal: Box<Proposal>,
    },
    ProposalDone {
        ticket: Ticket,
        outcome: Box<Result<Applied, ProposeFailed>>,
    },
    /// Whoever waits for the fate of the proposal at this index waits no longer.
    GiveUp {
        index: u64,
        ticket: Ticket,
    },
    RoundDone {
        round: RoundId,
        began: TrueTime,
        confirmed: bool,
    },
    Apply,
    /// The hands have done what they were told.
    Hands(usize),
    Operator(Box<OperatorRequest>),
    /// Stopping in good order has had its time.
    Leave,
}

/// Anything that can happen.
#[derive(Debug, Clone)]
pub(crate) enum Event {
    Packet {
        from: usize,
        to: usize,
        packet: Box<Packet>,
    },
    Work {
        node: usize,
        life: Incarnation,
        work: Work,
    },
    /// The guardian of this machine looks whether a token has ended, for the so-many-th time.
    Guardian {
        node: usize,
        ip: usize,
        token: Token,
        life: Incarnation,
        tries: u32,
    },
    /// The guardian's patience with a process that stands still since then is over.
    Kill {
        node: usize,
        since: TrueTime,
    },
    Start {
        node: usize,
    },
    /// What stands still since then goes on.
    GoOn {
        node: usize,
        since: TrueTime,
    },
    /// The next misfortune.
    Misfortune,
    /// A cut ends.
    Mend {
        cut: u64,
    },
    UpstreamBack {
        upstream: usize,
    },
    /// People want something.
    People,
    /// Everything becomes well.
    Heal,
    /// Is everything as it should be by now?
    Look,
}

struct Scheduled {
    at: TrueTime,
    order: u64,
    event: Event,
}

impl PartialEq for Scheduled {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Scheduled {}

impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Scheduled {
    /// The earliest is the greatest, because the heap gives the greatest first.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.order).cmp(&(self.at, self.order))
    }
}

/// Everything that is going to happen.
#[derive(Default)]
pub(crate) struct Agenda {
    heap: BinaryHeap<Scheduled>,
    scheduled: u64,
}

impl Agenda {
    /// Events of one instant happen in the order in which they were put here.
    pub(crate) fn put(&mut self, at: TrueTime, event: Event) {
        self.scheduled += 1;
        self.heap.push(Scheduled { at, order: self.scheduled, event });
    }

    pub(crate) fn next(&mut self) -> Option<(TrueTime, Event)> {
        let Scheduled { at, event, .. } = self.heap.pop()?;
        Some((at, event))
    }
}
