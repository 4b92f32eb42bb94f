//! What must never happen.

use std::fmt;

/// Which rule was broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rule {
    /// At most one node answers for an address.
    OneAnswer,
    /// An address is given away only when its former holder can no longer answer.
    FencedFirst,
    /// Tokens only grow, and each has one owner.
    TokensGrow,
    /// The same log gives the same state everywhere, and what is committed stays.
    SameState,
    /// Not more automatic failovers than allowed.
    Breaker,
    /// What is announced, and the session token, never go back to an older token.
    AnnouncedGrows,
    /// A grant follows a quorum round that began after the renewal arrived, goes to the recorded life of the owner,
    /// and is never given after a revocation was proposed or a release was heard of.
    GrantContract,
    /// One input leads to few effects, and one instant to few inputs.
    Bounded,
    /// When everything is well again, every address is answered for before long, and then it is quiet.
    Recovers,
    /// A term has one leader.
    OneLeader,
    /// What was acknowledged stays, and is what was asked for.
    Acknowledged,
    /// A read sees whatever was acknowledged before it began.
    FreshRead,
    /// A room is placed under the newest token only.
    SessionTokens,
    /// Who watches sees every change, as everybody else sees it.
    WatchIsComplete,
    /// Of one address, one call is made at a time.
    OneCall,
    /// A node meets nothing in the log that it cannot read.
    Readable,
    /// A floating address is announced only where it was seen to be answered for, as freshly as was agreed.
    AnnouncedFollows,
    /// A new room is placed only where a quorum is known to exist.
    QuorumFirst,
    /// A session store that was emptied a moment ago gives a place only to who has asked all other nodes.
    PeersFirst,
    /// No assertion fails.
    NoPanic,
}

/// A broken rule.
#[derive(Debug, Clone, PartialEq)]
pub struct Violation {
    /// Which.
    pub rule: Rule,
    /// When, in seconds of true time.
    pub at_seconds: f64,
    /// What was seen.
    pub detail: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} at {:.6} s: {}", self.rule, self.at_seconds, self.detail)
    }
}
