//! What goes into the controller and what comes out of it.

use crate::grantor::{Release, Renewal, RenewalAnswer};
use crate::notice::Notice;
use crate::operator::{OperatorAnswer, OperatorRefusal, OperatorRequest};
use crate::report::NodeReport;
use twinsite_model::{Applied, NodeId, Proposal};

/// A question that waits for its answer. Drawn by the driver; never used twice in the life of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallId(pub u64);

/// A quorum round. Drawn by the controller; never used twice in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RoundId(pub u64);

/// A proposal under way. Drawn by the controller; never used twice in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// A quorum round did not succeed: no quorum, or not the leader. Nothing follows from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no quorum confirmed this leader")]
pub struct RoundFailed;

/// Why the fate of a proposal is not "applied".
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProposeFailed {
    /// It certainly was not and will not be carried out.
    #[error("the command was not carried out")]
    NotDone,
    /// It may be carried out, now or later.
    #[error("it is unknown whether the command was carried out")]
    Unknown,
}

/// What the controller is told.
#[derive(Debug, Clone)]
pub enum Input {
    /// This node leads from here on, in this term. A leader that was re-elected is told so again.
    BecameLeader {
        /// The term; larger than every one before.
        term: u64,
    },
    /// This node does not lead any more, as far as it knows.
    LostLeadership,
    /// The state has changed. Told on every node, leader or not.
    Applied,
    /// What a node observed, this one included.
    Report(NodeReport),
    /// An owner asks for more time.
    Renew {
        /// For the answer.
        call: CallId,
        /// What it asks.
        renewal: Renewal,
    },
    /// A quorum round ended. If it succeeded, the `state` given along is applied at least up to its read index.
    RoundDone {
        /// Which one.
        round: RoundId,
        /// How.
        outcome: Result<(), RoundFailed>,
    },
    /// A holder, or its guardian, has let go for good.
    Released(Release),
    /// A proposal's fate is known. If it was applied, the `state` given along has it.
    ProposalDone {
        /// Which one.
        ticket: Ticket,
        /// Its fate.
        outcome: Result<Applied, ProposeFailed>,
    },
    /// A person asks for something.
    Operator {
        /// For the answer.
        call: CallId,
        /// What.
        request: OperatorRequest,
    },
    /// Time has passed: [`crate::Controller::next_wake`] is due.
    Tick,
}

/// What the controller wants done.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Write a command to the log. Each is answered by one [`Input::ProposalDone`]. Those of one step should enter
    /// the log in the order given; where they do not, the model refuses the early one and it is repeated.
    Propose {
        /// For the answer.
        ticket: Ticket,
        /// The term in which it was decided. The log must refuse it in any other (openraft: `with_leader`): a
        /// decision rests on evidence of one term, and this node may have lost and regained the lead unnoticed.
        term: u64,
        /// The command.
        proposal: Proposal,
    },
    /// Begin a quorum round *now*, and answer with [`Input::RoundDone`].
    StartRound {
        /// For the answer.
        round: RoundId,
    },
    /// Answer a renewal.
    AnswerRenewal {
        /// Which.
        call: CallId,
        /// The answer.
        answer: RenewalAnswer,
    },
    /// Answer a person.
    AnswerOperator {
        /// Which.
        call: CallId,
        /// The answer.
        answer: Result<OperatorAnswer, OperatorRefusal>,
    },
    /// Hand leadership to another voter. Whether that worked shows in who leads.
    TransferLeadership {
        /// To whom.
        to: NodeId,
    },
    /// Something that people should know.
    Notice(Notice),
}
