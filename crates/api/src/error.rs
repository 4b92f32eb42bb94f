//! Errors of the API: one table of reasons, each with its canonical code, and what a caller can do.

use std::net::SocketAddr;
use std::time::Duration;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};
use twinsite_model::NodeId;

/// The domain of the reasons in `google.rpc.ErrorInfo`.
pub const DOMAIN: &str = "twinsite";

macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $name:ident = $text:literal, $code:ident, $retryable:literal;)+) => {
        /// Why a call failed.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Reason { $($(#[doc = $doc])+ $name,)+ }

        impl Reason {
            /// All reasons.
            pub const ALL: &'static [Self] = &[$(Self::$name),+];

            /// The reason as it is on the wire.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)+ }
            }

            /// Its canonical code.
            pub const fn code(self) -> Code {
                match self { $(Self::$name => Code::$code,)+ }
            }

            /// Whether the same call may succeed later, or at another node.
            pub const fn retryable(self) -> bool {
                match self { $(Self::$name => $retryable,)+ }
            }
        }
    };
}

reasons! {
    /// Another node leads; the metadata names it where it is known.
    NotLeader = "NOT_LEADER", Unavailable, true;
    /// No quorum can be reached.
    NoQuorum = "NO_QUORUM", Unavailable, true;
    /// The node cannot answer just now.
    Unavailable = "UNAVAILABLE", Unavailable, true;
    /// Too much is waiting already.
    Busy = "BUSY", ResourceExhausted, true;
    /// A watcher did not read fast enough and was closed.
    SlowReader = "SLOW_READER", ResourceExhausted, true;
    /// It is unknown whether the change was made: look, or repeat it with the same request id.
    OutcomeUnknown = "OUTCOME_UNKNOWN", DeadlineExceeded, true;
    /// The state is at another revision than the caller expected.
    RevisionMismatch = "REVISION_MISMATCH", Aborted, false;
    /// A watch cannot resume there any more: begin with the present state.
    RevisionCompacted = "REVISION_COMPACTED", OutOfRange, false;
    /// There is no specification yet.
    NoSpec = "NO_SPEC", FailedPrecondition, true;
    /// No such floating IP.
    UnknownFloatingIp = "UNKNOWN_FLOATING_IP", NotFound, false;
    /// No such node.
    UnknownNode = "UNKNOWN_NODE", NotFound, false;
    /// No such site, or it may not own the address.
    UnknownSite = "UNKNOWN_SITE", NotFound, false;
    /// No such upstream.
    UnknownUpstream = "UNKNOWN_UPSTREAM", NotFound, false;
    /// No such operation, or it is not remembered any more.
    UnknownOperation = "UNKNOWN_OPERATION", NotFound, false;
    /// The address is being moved already.
    AlreadyMoving = "ALREADY_MOVING", FailedPrecondition, true;
    /// Nothing is moving the address.
    NotMoving = "NOT_MOVING", FailedPrecondition, false;
    /// The target owns the address already.
    AlreadyOwner = "ALREADY_OWNER", FailedPrecondition, false;
    /// No node can take the address.
    NoCandidate = "NO_CANDIDATE", FailedPrecondition, true;
    /// Safety rules forbid it.
    RuleForbids = "RULE_FORBIDS", FailedPrecondition, true;
    /// The owner is not heard, so that it cannot drain.
    OwnerNotHeard = "OWNER_NOT_HEARD", FailedPrecondition, true;
    /// No such drill, or it is not remembered any more.
    UnknownDrill = "UNKNOWN_DRILL", NotFound, false;
    /// A drill runs already.
    DrillRunning = "DRILL_RUNNING", FailedPrecondition, true;
    /// No drill may begin now: not allowed, in a blocked window, or something is going on.
    DrillBlocked = "DRILL_BLOCKED", FailedPrecondition, true;
    /// No drill runs.
    NoDrill = "NO_DRILL", FailedPrecondition, false;
    /// The change was refused by the agreed state.
    Refused = "REFUSED", FailedPrecondition, false;
    /// The request makes no sense.
    InvalidArgument = "INVALID_ARGUMENT", InvalidArgument, false;
    /// The caller's certificate does not allow it.
    PermissionDenied = "PERMISSION_DENIED", PermissionDenied, false;
}

/// Where the leader is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaderHint {
    /// Its id.
    pub node: NodeId,
    /// Its name.
    pub name: String,
    /// Where its API answers.
    pub api: SocketAddr,
}

/// Why a call failed, for programs and for people.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// Why.
    pub reason: Reason,
    /// One line for people.
    pub message: String,
    /// When the same call may be tried again.
    pub retry_after: Option<Duration>,
    /// Who leads, where that helps.
    pub leader: Option<LeaderHint>,
}

impl ApiError {
    /// An error with its message.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        let retry_after = reason.retryable().then_some(Duration::from_millis(100));
        Self { reason, message: message.into(), retry_after, leader: None }
    }

    /// Another node leads.
    pub fn not_leader(leader: Option<LeaderHint>) -> Self {
        let message = match &leader {
            Some(leader) => format!("node {} ({}) leads; ask it", leader.name, leader.api),
            None => "this node does not lead, and does not know who does".to_owned(),
        };
        Self { leader, ..Self::new(Reason::NotLeader, message) }
    }

    /// Whether the same call may succeed later, or at another node.
    pub fn retryable(&self) -> bool {
        self.reason.retryable()
    }
}

impl From<ApiError> for Status {
    fn from(error: ApiError) -> Self {
        let mut metadata = std::collections::HashMap::new();
        if let Some(leader) = &error.leader {
            metadata.insert("leader".to_owned(), leader.name.clone());
            metadata.insert("leader_id".to_owned(), leader.node.to_string());
            metadata.insert("leader_api".to_owned(), leader.api.to_string());
        }
        let mut details = ErrorDetails::with_error_info(error.reason.as_str(), DOMAIN, metadata);
        if let Some(retry_after) = error.retry_after {
            details.set_retry_info(Some(retry_after));
        }
        Self::with_error_details(error.reason.code(), error.message, details)
    }
}

impl From<Status> for ApiError {
    /// What a server said; or, if it was not this API that answered, what that amounts to.
    fn from(status: Status) -> Self {
        let details = status.get_error_details();
        let info = details.error_info().filter(|info| info.domain == DOMAIN);
        let known =
            info.and_then(|info| Reason::ALL.iter().copied().find(|reason| reason.as_str() == info.reason));
        let reason = known.unwrap_or(match status.code() {
            Code::InvalidArgument => Reason::InvalidArgument,
            Code::PermissionDenied | Code::Unauthenticated => Reason::PermissionDenied,
            Code::ResourceExhausted => Reason::Busy,
            _ => Reason::Unavailable,
        });
        let leader = info.and_then(|info| {
            Some(LeaderHint {
                node: NodeId(info.metadata.get("leader_id")?.parse().ok()?),
                name: info.metadata.get("leader")?.clone(),
                api: info.metadata.get("leader_api")?.parse().ok()?,
            })
        });
        let retry_after = details.retry_info().and_then(|info| info.retry_delay);
        Self { reason, message: status.message().to_owned(), retry_after, leader }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_survives_the_wire() {
        for reason in Reason::ALL {
            let leader =
                LeaderHint { node: NodeId(3), name: "sbg-1".to_owned(), api: "[::1]:7101".parse().unwrap() };
            let error = ApiError { leader: Some(leader), ..ApiError::new(*reason, "why") };
            assert_eq!(ApiError::from(Status::from(error.clone())), error);
        }
    }

    #[test]
    fn a_stranger_is_understood_by_its_code() {
        let error = ApiError::from(Status::unavailable("connection refused"));
        assert_eq!(error.reason, Reason::Unavailable);
        assert!(error.retryable());
        assert_eq!(ApiError::from(Status::permission_denied("x")).reason, Reason::PermissionDenied);
    }
}
