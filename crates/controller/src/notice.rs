//! What people should know: decisions, and alarms with their end.

use crate::rules::RuleResult;
use std::time::Duration;
use twinsite_model::{
    FloatingIpName, HardwareAddress, NodeId, OperationId, OperationKind, Reason, SiteName, Token, WallTime,
};

/// A decision to move an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// The address.
    pub ip: FloatingIpName,
    /// What kind of move.
    pub kind: OperationKind,
    /// Why.
    pub reason: Reason,
    /// The token that is revoked.
    pub from: Option<Token>,
    /// Who shall hold it.
    pub target: NodeId,
    /// What was seen.
    pub evidence: Vec<String>,
}

/// Something that people should know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// A move was decided and proposed.
    Decided(Decision),
    /// A move would have been decided, were the policy not `observe_only`. Said once for each decision.
    WouldHave(Decision),
    /// There is a reason to move an address, and something forbids it. Said once for each change of it.
    Blocked {
        /// The address.
        ip: FloatingIpName,
        /// The reason to move.
        reason: Reason,
        /// The rules that were asked of the best candidate; empty when there is no candidate.
        rules: Vec<RuleResult>,
        /// One line for each node that is no candidate.
        unfit: Vec<String>,
    },
    /// The owner was silent for more than half of a lease, and renewed in time: it was nearly replaced.
    NearlyMoved {
        /// The address.
        ip: FloatingIpName,
        /// The owner.
        owner: NodeId,
        /// Its token.
        token: Token,
        /// From the last grant before the silence to the first one after it.
        silent_for: Duration,
        /// After how long it would have been replaced.
        lease: Duration,
    },
    /// Leadership is handed over.
    LeadershipMoves {
        /// To whom.
        to: NodeId,
        /// Why.
        why: String,
    },
    /// An alarm began.
    AlarmRaised(Alarm),
    /// An alarm ended.
    AlarmCleared(Alarm),
}

/// A condition that needs a person.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Alarm {
    /// No further failure of a voter is tolerated, or a voter is missing.
    RedundancyLost {
        /// Voters that are not heard.
        missing: Vec<NodeId>,
        /// How many more may fail.
        tolerated: u32,
    },
    /// No other node could take this address.
    NoStandby {
        /// The address.
        ip: FloatingIpName,
    },
    /// Too many automatic failovers: from here on only by hand.
    BreakerOpen {
        /// When it closes by itself.
        until: WallTime,
    },
    /// A move was not seen to work from outside.
    NotVerified {
        /// The address.
        ip: FloatingIpName,
        /// The operation.
        operation: OperationId,
    },
    /// What is agreed, held, seen from outside and announced do not fit together.
    Drift {
        /// The address.
        ip: FloatingIpName,
        /// Where.
        what: Drift,
    },
    /// A host that is no node answers for an address too.
    AddressConflict {
        /// The address.
        ip: FloatingIpName,
        /// The host.
        hardware: HardwareAddress,
    },
    /// No upstream of a site is healthy.
    SiteUnhealthy {
        /// The site.
        site: SiteName,
    },
}

impl Alarm {
    /// Its name in metrics, logs and messages.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::RedundancyLost { .. } => "redundancy-lost",
            Self::NoStandby { .. } => "no-standby",
            Self::BreakerOpen { .. } => "breaker-open",
            Self::NotVerified { .. } => "not-verified",
            Self::Drift { .. } => "drift",
            Self::AddressConflict { .. } => "address-conflict",
            Self::SiteUnhealthy { .. } => "site-unhealthy",
        }
    }
}

/// Two of the four truths about an address that differ.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Drift {
    /// The agreed owner does not hold it.
    OwnerDoesNotHold {
        /// The owner.
        owner: NodeId,
    },
    /// A node that is not the owner holds it.
    HeldByOther {
        /// The node.
        node: NodeId,
        /// Its token.
        token: Token,
    },
    /// From outside another node answers.
    OutsideSeesOther {
        /// The node that answers.
        node: NodeId,
        /// Its token.
        token: Token,
    },
    /// From outside nothing answers.
    OutsideSilent,
    /// A meeting instance announces an address that the owner's place does not explain.
    AnnouncedDiffers {
        /// How many instances.
        instances: u32,
    },
}
