//! An errand at a provider: one call that changes where it routes a floating IP.
//!
//! A provider has no compare-and-swap: whoever calls last wins, however old its reason. So a call is journaled like
//! everything else. The leader sends one node on an errand; that node makes sure, through a quorum, that the errand
//! still stands, calls, and says what came of it. At most one errand for an address is under way. One that gets no
//! end is first recalled, which nobody who asks afterwards can miss, and then waited out: a node calls only for
//! [`Errand::within`] of its own clock, counted from before it asked.

use crate::ids::{ErrandId, Incarnation, NodeId, Token};
use crate::time::WallTime;
use std::time::Duration;

/// A call that one node is to make, or is making.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Errand {
    /// Counts the errands for this address; never used twice.
    pub id: ErrandId,
    /// Who calls.
    pub by: NodeId,
    /// The life of it that calls: another one knows nothing of it.
    pub incarnation: Incarnation,
    /// Under which token.
    pub token: Token,
    /// Where the provider shall route the address.
    pub to: NodeId,
    /// How long the call may be under way, on the clock of whoever makes it.
    pub within: Duration,
    /// Since when.
    pub since: WallTime,
    /// Nobody may begin it any more; that it is not under way is a matter of time.
    pub recalled: bool,
}

/// How an errand ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ErrandEnd {
    /// The provider took the call. What it then does takes its time, and is looked at.
    Accepted,
    /// The provider refused it.
    Refused,
    /// There was no answer; whether the provider took it, nobody knows.
    Unanswered,
    /// It was not made: its node saw that it does not stand any more.
    NotMade,
    /// Its node says nothing, and every call of it has had its time.
    WaitedOut,
}

impl ErrandEnd {
    /// The word for people and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Refused => "refused",
            Self::Unanswered => "unanswered",
            Self::NotMade => "not-made",
            Self::WaitedOut => "waited-out",
        }
    }
}
