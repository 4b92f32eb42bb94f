//! The types that openraft is instantiated with.

use bytes::Bytes;
use openraft::entry::EntryPayload;
use openraft::impls::{BoxedErrorSource, InlineBatch, ProgressResponder, leader_id_std};
use openraft::type_config::alias::{LogIdOf, SnapshotMetaOf, SnapshotOf, StoredMembershipOf, VoteOf};
use openraft::vote::RaftLeaderId;
use openraft::{AsyncRuntime, OptionalSend, RaftTypeConfig};
use std::cmp::Ordering;
use std::fmt;
use std::marker::PhantomData;
use twinsite_model::Applied;

/// openraft's types over a runtime.
pub(crate) struct Types<RT>(PhantomData<fn() -> RT>);

// Written out because a derive would ask the same of `RT`, which is never a value here.
impl<RT> Clone for Types<RT> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<RT> Copy for Types<RT> {}
impl<RT> Default for Types<RT> {
    fn default() -> Self {
        Self(PhantomData)
    }
}
impl<RT> fmt::Debug for Types<RT> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Types")
    }
}
impl<RT> PartialEq for Types<RT> {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}
impl<RT> Eq for Types<RT> {}
impl<RT> PartialOrd for Types<RT> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl<RT> Ord for Types<RT> {
    fn cmp(&self, _: &Self) -> Ordering {
        Ordering::Equal
    }
}

/// One leader per term, so that a term can stand for a leader. (openraft's default lets two share one. Fencing
/// tokens do not depend on it: the state machine allocates them.)
type LeaderId = leader_id_std::LeaderId<u64, u64>;

impl<RT: AsyncRuntime> RaftTypeConfig for Types<RT> {
    type D = Command;
    type R = Outcome;
    type NodeId = u64;
    type Node = Address;
    type Term = u64;
    type LeaderId = LeaderId;
    type Vote = openraft::impls::Vote<LeaderId>;
    type Payload = Payload;
    type Entry = Entry;
    type AsyncRuntime = RT;
    type Responder<T>
        = ProgressResponder<Self, T>
    where
        T: OptionalSend + 'static;
    type Batch<T>
        = InlineBatch<T>
    where
        T: OptionalSend + 'static;
    type ErrorSource = BoxedErrorSource;
}

// None of these depends on the runtime.
pub(crate) type Payload = EntryPayload<Command, u64, Address>;
pub(crate) type CommittedLeaderId = <LeaderId as RaftLeaderId>::Committed;
pub(crate) type Entry = openraft::Entry<CommittedLeaderId, Payload>;
pub(crate) type LogId = openraft::LogId<CommittedLeaderId>;
pub(crate) type Vote = openraft::Vote<LeaderId>;
pub(crate) type Membership = openraft::Membership<u64, Address>;
pub(crate) type StoredMembership = openraft::StoredMembership<CommittedLeaderId, u64, Address>;
pub(crate) type SnapshotMeta = openraft::SnapshotMeta<CommittedLeaderId, u64, Address>;
pub(crate) type Snapshot = openraft::Snapshot<CommittedLeaderId, u64, Address, Bytes>;

/// Fails to compile if openraft's own aliases ever mean something else.
const fn _aliases_agree<RT: AsyncRuntime>(
    _: fn(LogIdOf<Types<RT>>) -> LogId,
    _: fn(VoteOf<Types<RT>>) -> Vote,
    _: fn(StoredMembershipOf<Types<RT>>) -> StoredMembership,
    _: fn(SnapshotMetaOf<Types<RT>>) -> SnapshotMeta,
    _: fn(SnapshotOf<Types<RT>, Bytes>) -> Snapshot,
) {
}

pub(crate) fn vote(term: u64, node: u64, committed: bool) -> Vote {
    if committed { Vote::new_committed(term, node) } else { Vote::new(term, node) }
}

pub(crate) fn log_id(term: u64, index: u64) -> LogId {
    LogId::new(LeaderId::new(term, 0).to_committed(), index)
}

/// An encoded proposal. Its content is never printed: it may hold what does not belong in a log.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Command(pub(crate) Bytes);

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// What applying an entry gave; nothing for entries of the protocol's own.
#[derive(Debug, Clone)]
pub(crate) struct Outcome(pub(crate) Option<Applied>);

/// Where a member listens, `host:port`, before any translation by the dialling node.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct Address(pub(crate) String);

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
