//! Between openraft's types and the generated ones, for the wire and for the disk.

use crate::pb;
use crate::raft_types::{
    Address, Command, Entry, LogId, Membership, Payload, SnapshotMeta, StoredMembership, Vote, log_id, vote,
};
use bytes::Bytes;
use prost::Message;
use std::collections::{BTreeMap, BTreeSet};

/// Why bytes are not what they should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum WireError {
    #[error("it is not well-formed")]
    Malformed,
    #[error("it lacks `{0}`")]
    Missing(&'static str),
    #[error("its membership is contradictory")]
    Membership,
}

/// Encodes for the disk.
pub(crate) fn encode<M: Message>(message: &M) -> Vec<u8> {
    message.encode_to_vec()
}

/// Decodes from the disk.
pub(crate) fn decode<M: Message + Default>(bytes: &[u8]) -> Result<M, WireError> {
    M::decode(bytes).map_err(|_| WireError::Malformed)
}

pub(crate) fn from_log_id(id: &LogId) -> pb::LogId {
    pb::LogId { term: **id.committed_leader_id(), index: id.index }
}

pub(crate) fn to_log_id(id: pb::LogId) -> LogId {
    log_id(id.term, id.index)
}

pub(crate) fn from_vote(vote: &Vote) -> pb::Vote {
    pb::Vote { term: vote.leader_id.term, node: vote.leader_id.voted_for, committed: vote.committed }
}

pub(crate) fn to_vote(given: Option<pb::Vote>) -> Result<Vote, WireError> {
    let given = given.ok_or(WireError::Missing("vote"))?;
    Ok(vote(given.term, given.node, given.committed))
}

pub(crate) fn from_membership(membership: &Membership) -> pb::Membership {
    pb::Membership {
        configurations: membership
            .get_joint_config()
            .iter()
            .map(|voters| pb::Configuration { voters: voters.iter().copied().collect() })
            .collect(),
        members: membership
            .nodes()
            .map(|(node, address)| pb::Member { node: *node, address: address.0.clone() })
            .collect(),
    }
}

pub(crate) fn to_membership(given: pb::Membership) -> Result<Membership, WireError> {
    let configurations: Vec<BTreeSet<u64>> =
        given.configurations.into_iter().map(|c| c.voters.into_iter().collect()).collect();
    let members: BTreeMap<u64, Address> =
        given.members.into_iter().map(|m| (m.node, Address(m.address))).collect();
    Membership::new(configurations, members).map_err(|_| WireError::Membership)
}

pub(crate) fn from_stored_membership(stored: &StoredMembership) -> pb::StoredMembership {
    pb::StoredMembership {
        id: stored.log_id().as_ref().map(from_log_id),
        membership: Some(from_membership(stored.membership())),
    }
}

pub(crate) fn to_stored_membership(
    given: Option<pb::StoredMembership>,
) -> Result<StoredMembership, WireError> {
    let given = given.ok_or(WireError::Missing("membership"))?;
    let membership = to_membership(given.membership.ok_or(WireError::Missing("membership"))?)?;
    Ok(StoredMembership::new(given.id.map(to_log_id), membership))
}

pub(crate) fn from_entry(entry: &Entry) -> pb::Entry {
    let payload = match &entry.payload {
        Payload::Blank => pb::entry::Payload::Blank(pb::Blank {}),
        Payload::Normal(command) => pb::entry::Payload::Command(command.0.clone()),
        Payload::Membership(membership) => pb::entry::Payload::Membership(from_membership(membership)),
    };
    pb::Entry { id: Some(from_log_id(&entry.log_id)), payload: Some(payload) }
}

pub(crate) fn to_entry(given: pb::Entry) -> Result<Entry, WireError> {
    let id = to_log_id(given.id.ok_or(WireError::Missing("id"))?);
    let payload = match given.payload.ok_or(WireError::Missing("payload"))? {
        pb::entry::Payload::Blank(_) => Payload::Blank,
        pb::entry::Payload::Command(bytes) => Payload::Normal(Command(bytes)),
        pb::entry::Payload::Membership(membership) => Payload::Membership(to_membership(membership)?),
    };
    Ok(Entry { log_id: id, payload })
}

pub(crate) fn from_snapshot(meta: &SnapshotMeta, content: &Bytes) -> pb::SnapshotHeader {
    pb::SnapshotHeader {
        last: meta.last_log_id.as_ref().map(from_log_id),
        membership: Some(from_stored_membership(&meta.last_membership)),
        length: content.len() as u64,
        crc: crc32c::crc32c(content),
    }
}

/// The meaning of a snapshot's header, after checking the content against it.
pub(crate) fn to_snapshot(header: pb::SnapshotHeader, content: &Bytes) -> Result<SnapshotMeta, WireError> {
    if header.length != content.len() as u64 || header.crc != crc32c::crc32c(content) {
        return Err(WireError::Malformed);
    }
    Ok(SnapshotMeta {
        last_log_id: header.last.map(to_log_id),
        last_membership: to_stored_membership(header.membership)?,
    })
}

/// Roughly how many bytes an entry takes on the wire; at least one.
pub(crate) fn entry_size(entry: &Entry) -> usize {
    match &entry.payload {
        Payload::Blank => 16,
        Payload::Normal(command) => command.0.len() + 32,
        Payload::Membership(membership) => {
            64 + membership.nodes().map(|(_, address)| address.0.len() + 32).sum::<usize>()
        }
    }
}

#[cfg(test)]
mod fuzz {
    use super::*;
    use proptest::prelude::*;
    use twinsite_fuzz::{config, mutated};

    fn members() -> pb::Membership {
        let member = |node: u64| pb::Member { node, address: format!("10.0.0.{node}:7100") };
        let configuration = |voters: &[u64]| pb::Configuration { voters: voters.to_vec() };
        pb::Membership {
            configurations: vec![configuration(&[1, 2, 3]), configuration(&[2, 3, 4])],
            members: (1..=5).map(member).collect(),
        }
    }

    fn entries() -> Vec<Vec<u8>> {
        let id = Some(pb::LogId { term: 7, index: 300 });
        let payloads = [
            pb::entry::Payload::Blank(pb::Blank {}),
            pb::entry::Payload::Command(b"a command".to_vec().into()),
            pb::entry::Payload::Membership(members()),
        ];
        payloads.map(|payload| encode(&pb::Entry { id, payload: Some(payload) })).into()
    }

    fn headers() -> Vec<Vec<u8>> {
        let last = Some(pb::LogId { term: 7, index: 300 });
        let membership = pb::StoredMembership { id: last, membership: Some(members()) };
        vec![encode(&pb::SnapshotHeader { last, membership: Some(membership), length: 0, crc: 0 })]
    }

    proptest! {
        #![proptest_config(config())]

        /// Whatever the bytes: an error, or an entry that is written and read the same again.
        #[test]
        fn fuzz_raft_entry(bytes in mutated(entries())) {
            if let Ok(entry) = decode::<pb::Entry>(&bytes).and_then(to_entry) {
                let again = decode::<pb::Entry>(&encode(&from_entry(&entry))).and_then(to_entry);
                prop_assert_eq!(again.unwrap(), entry);
            }
        }

        #[test]
        fn fuzz_vote(bytes in mutated(vec![encode(&pb::Vote { term: 7, node: 2, committed: true })])) {
            if let Ok(vote) = decode::<pb::Vote>(&bytes).and_then(|vote| to_vote(Some(vote))) {
                prop_assert_eq!(to_vote(Some(from_vote(&vote))).unwrap(), vote);
            }
        }

        #[test]
        fn fuzz_snapshot_header(bytes in mutated(headers())) {
            if let Ok(header) = decode::<pb::SnapshotHeader>(&bytes) {
                let _whatever_it_means = to_snapshot(header, &Bytes::new());
            }
        }
    }
}
