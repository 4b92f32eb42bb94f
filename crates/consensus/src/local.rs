//! Who this node is, and with whom it speaks.

use crate::changes::Published;
use crate::disk::{Contents, Disk, DiskError, Urgency, Write};
use crate::error::StopReason;
use crate::pb;
use crate::wire;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use twinsite_model::{ClusterName, Generation, NodeId};

/// The version of the protocol between nodes.
pub(crate) const PROTOCOL: u32 = 1;

/// Why a message was not looked at.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It has no header, or lacks something else.
    #[error("the message is malformed")]
    Malformed,
    /// The sender belongs to another cluster.
    #[error("the message is from another cluster")]
    OtherCluster,
    /// The sender speaks another version of the protocol.
    #[error("the message is of protocol {theirs}, this node speaks {PROTOCOL}")]
    OtherProtocol {
        /// The sender's.
        theirs: u32,
    },
    /// The message was meant for another node.
    #[error("the message is meant for node {meant}: check the addresses of the members")]
    OtherNode {
        /// The node meant.
        meant: NodeId,
    },
    /// A forced recovery divides sender and receiver.
    #[error(
        "the message is of generation {theirs}, this node is of generation {ours}: the older one must join again \
         under a new node id"
    )]
    OtherGeneration {
        /// The sender's.
        theirs: Generation,
        /// The receiver's.
        ours: Generation,
    },
    /// The sender was removed from the cluster.
    #[error("node {0} was removed from the cluster: it must join again under a new node id")]
    Retired(NodeId),
    /// The sender has lost the disk with which it was first met.
    #[error("node {0} has another disk than before: it must join again under a new node id")]
    OtherDisk(NodeId),
    /// The certificate belongs to somebody else.
    #[error("the certificate does not belong to node {claimed} of this cluster")]
    OtherCertificate {
        /// Who the message says it is from.
        claimed: NodeId,
    },
    /// This node is still waiting out the lease that its former life may have granted, or it has stopped.
    #[error("the node does not take part")]
    NotTakingPart,
}

/// This node's identity towards its peers.
pub(crate) struct Local {
    cluster: ClusterName,
    node: NodeId,
    number: u64,
    generation: AtomicU64,
    /// Whether the disk held no log and no vote at the start: such a node may join a cluster of any generation.
    is_new: bool,
    peers: Mutex<BTreeMap<u64, u64>>,
    disk: Arc<dyn Disk>,
    published: Arc<Published>,
}

impl Local {
    pub(crate) fn new(
        cluster: ClusterName,
        node: NodeId,
        disk: Arc<dyn Disk>,
        published: Arc<Published>,
        contents: &Contents,
    ) -> Result<Self, DiskError> {
        let peers: pb::KnownDisks =
            wire::decode(contents.peers.as_deref().unwrap_or_default()).map_err(|error| {
                DiskError::Damaged { path: "of this node".to_owned(), what: format!("the peers: {error}") }
            })?;
        Ok(Self {
            cluster,
            node,
            number: contents.disk,
            generation: AtomicU64::new(contents.generation.0),
            is_new: contents.log.is_empty() && contents.vote.is_none() && contents.snapshot.is_none(),
            peers: Mutex::new(peers.disks.into_iter().map(|known| (known.node, known.disk)).collect()),
            disk,
            published,
        })
    }

    pub(crate) fn generation(&self) -> Generation {
        Generation(self.generation.load(Ordering::SeqCst))
    }

    /// The header of a message to a peer.
    pub(crate) fn header(&self, to: NodeId) -> pb::Header {
        pb::Header {
            cluster: self.cluster.to_string(),
            protocol: PROTOCOL,
            generation: self.generation().0,
            from: self.node.0,
            to: to.0,
            disk: self.number,
        }
    }

    /// Checks the header of a message or an answer, and says from whom it is.
    pub(crate) fn admit(&self, header: Option<&pb::Header>) -> Result<NodeId, Refused> {
        let header = header.ok_or(Refused::Malformed)?;
        if header.protocol != PROTOCOL {
            return Err(Refused::OtherProtocol { theirs: header.protocol });
        }
        if header.cluster != self.cluster.as_str() {
            return Err(Refused::OtherCluster);
        }
        if header.to != self.node.0 {
            return Err(Refused::OtherNode { meant: NodeId(header.to) });
        }
        self.admit_generation(Generation(header.generation))?;
        self.admit_disk(header.from, header.disk)?;
        Ok(NodeId(header.from))
    }

    fn admit_generation(&self, theirs: Generation) -> Result<(), Refused> {
        let ours = self.generation();
        if theirs == ours {
            return Ok(());
        }
        // A node that holds nothing yet cannot bring anything of an old generation with it. The first contact
        // settles it: from then on it holds a generation like everybody else.
        let first_contact = self.peers.lock().unwrap_or_else(PoisonError::into_inner).is_empty();
        if theirs > ours && self.is_new && first_contact {
            self.generation.store(theirs.0, Ordering::SeqCst);
            self.disk.submit(vec![Write::Generation(theirs)], Urgency::Now, Box::new(drop));
            return Ok(());
        }
        self.heard_generation(theirs);
        Err(Refused::OtherGeneration { theirs, ours })
    }

    /// A peer that proved who it is is of another generation. If that is the newer one, this node's time is over: what it
    /// holds was given up, and together with others of its generation it would go on as if nothing had happened.
    pub(crate) fn heard_generation(&self, theirs: Generation) {
        let ours = self.generation();
        if theirs > ours && self.published.stopped().is_none() {
            // Kept, so that a restart that reaches no peer does not forget it; if that fails, the next contact says it again.
            self.disk.submit(vec![Write::SupersededBy(theirs)], Urgency::Now, Box::new(drop));
            self.published.stop(StopReason::Superseded { ours, theirs });
        }
    }

    /// Remembers the disk with which a peer was first met, and refuses it with any other: a voter that comes back
    /// with an empty disk has forgotten what it acknowledged and for whom it voted.
    fn admit_disk(&self, node: u64, disk: u64) -> Result<(), Refused> {
        let mut peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        match peers.get(&node) {
            Some(known) if *known == disk => return Ok(()),
            Some(_) => return Err(Refused::OtherDisk(NodeId(node))),
            None => {}
        }
        peers.insert(node, disk);
        let disks = peers.iter().map(|(node, disk)| pb::KnownDisk { node: *node, disk: *disk }).collect();
        let known = wire::encode(&pb::KnownDisks { disks });
        // A failure of the disk is reported to whoever waits for a write; here it only loses a memory.
        self.disk.submit(vec![Write::Peers(known)], Urgency::Now, Box::new(drop));
        Ok(())
    }
}
