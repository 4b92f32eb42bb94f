//! Forced recovery: the quorum is lost for good, and a person names one survivor.
//!
//! Offline, on the survivor's data directory. The membership becomes that one node, the generation rises, and from
//! then on messages of the old generation are refused in both directions. Entries of the survivor that were never
//! committed are committed by it: nothing that it may have acknowledged is dropped.

use crate::disk::{self, Contents, Disk, DiskError, Identity, RedbDisk, Write};
use crate::pb;
use crate::raft_types::{Address, Membership, Payload, log_id, vote};
use crate::wire::{self, WireError};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use twinsite_model::{ClusterName, Generation, NodeId};

/// Why a recovery was refused. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecoveryError {
    /// The data directory cannot be used.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The new generation is not newer.
    #[error("the data is of generation {current}; name a later one than {given}")]
    GenerationNotNewer {
        /// What the disk holds.
        current: Generation,
        /// What was named.
        given: Generation,
    },
    /// The node was never a voter, so it may lack anything.
    #[error("node {0} is not a voter according to its own data: choose another survivor")]
    NotVoter(NodeId),
}

/// What a recovery did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovered {
    /// The members that are no longer.
    pub lost: Vec<NodeId>,
    /// The generation from now on.
    pub generation: Generation,
    /// Entries in the survivor's log that it did not know to be committed, and now are.
    pub adopted: u64,
}

/// Makes the node with this data directory the only member, in a new generation. The node must not be running.
pub async fn recover(
    directory: &Path,
    cluster: &ClusterName,
    survivor: NodeId,
    generation: Generation,
) -> Result<Recovered, RecoveryError> {
    let identity = Identity { cluster: cluster.clone(), node: survivor, new_disk: 0 };
    let disk = RedbDisk::open_existing(directory, &identity)?;
    let result = recover_disk(&disk, survivor, generation).await;
    disk.close();
    result
}

/// The same on any disk; the simulation uses it too.
pub async fn recover_disk(
    disk: &dyn Disk,
    survivor: NodeId,
    generation: Generation,
) -> Result<Recovered, RecoveryError> {
    let contents = disk.load()?;
    if generation <= contents.generation {
        return Err(RecoveryError::GenerationNotNewer { current: contents.generation, given: generation });
    }
    let before = Before::read(&contents).map_err(|error| DiskError::Damaged {
        path: "of the survivor".to_owned(),
        what: error.to_string(),
    })?;
    let Some(address) = before.membership.get_node(&survivor.0) else {
        return Err(RecoveryError::NotVoter(survivor));
    };
    if !before.membership.voter_ids().any(|voter| voter == survivor.0) {
        return Err(RecoveryError::NotVoter(survivor));
    }
    let alone = Membership::new(
        vec![BTreeSet::from([survivor.0])],
        BTreeMap::from([(survivor.0, Address(address.0.clone()))]),
    )
    .map_err(|_| RecoveryError::NotVoter(survivor))?;

    // A term that nobody used, so that the entry cannot be mistaken for another one at its place.
    let term = before.term + 1;
    let index = before.next_index;
    let entry = openraft::Entry { log_id: log_id(term, index), payload: Payload::Membership(alone) };
    let batch = vec![
        Write::Generation(generation),
        Write::Vote(wire::encode(&wire::from_vote(&vote(term, survivor.0, false)))),
        Write::Entry { index, bytes: wire::encode(&wire::from_entry(&entry)) },
    ];
    disk::write(disk, batch).await?;
    Ok(Recovered {
        lost: before
            .membership
            .nodes()
            .map(|(node, _)| NodeId(*node))
            .filter(|node| *node != survivor)
            .collect(),
        generation,
        adopted: index.saturating_sub(before.committed_next),
    })
}

/// The members as of the end of the log, for before anything runs.
pub(crate) fn members_on_disk(contents: &Contents) -> Result<Vec<(u64, Address)>, WireError> {
    let members = Before::read(contents)?.membership;
    Ok(members.nodes().map(|(node, address)| (*node, address.clone())).collect())
}

/// What a disk says.
struct Before {
    membership: Membership,
    term: u64,
    next_index: u64,
    committed_next: u64,
}

impl Before {
    fn read(contents: &Contents) -> Result<Self, WireError> {
        let mut before =
            Self { membership: Membership::default(), term: 0, next_index: 0, committed_next: 0 };
        if let Some((header, content)) = &contents.snapshot {
            let meta = wire::to_snapshot(wire::decode(header)?, content)?;
            before.membership = meta.last_membership.membership().clone();
            before.see(meta.last_log_id.as_ref().map(wire::from_log_id));
            before.committed_next = before.next_index;
        }
        if let Some(bytes) = &contents.purged {
            before.see(Some(wire::decode(bytes)?));
        }
        if let Some(bytes) = &contents.vote {
            before.term = before.term.max(wire::decode::<pb::Vote>(bytes)?.term);
        }
        for (_, bytes) in &contents.log {
            let entry = wire::to_entry(wire::decode(bytes)?)?;
            before.see(Some(wire::from_log_id(&entry.log_id)));
            if let Payload::Membership(membership) = entry.payload {
                before.membership = membership;
            }
        }
        if let Some(bytes) = &contents.committed {
            let committed: pb::LogId = wire::decode(bytes)?;
            before.committed_next = before.committed_next.max(committed.index + 1);
        }
        Ok(before)
    }

    fn see(&mut self, id: Option<pb::LogId>) {
        if let Some(id) = id {
            self.term = self.term.max(id.term);
            self.next_index = self.next_index.max(id.index + 1);
        }
    }
}
