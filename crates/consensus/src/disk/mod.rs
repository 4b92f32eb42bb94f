//! The disk as the consensus sees it: a small ordered store with atomic, durable batches.
//!
//! [`RedbDisk`] is the real one. [`MemoryDisk`] forgets nothing and never fails; the simulation brings its own.

mod memory;
mod redb_disk;
mod seal;
mod watermark;

pub use memory::MemoryDisk;
pub use redb_disk::RedbDisk;

use bytes::Bytes;
use twinsite_model::{ClusterName, Generation, NodeId};

/// The version of the layout on disk.
pub(crate) const FORMAT: u64 = 1;

/// Whose data a directory holds. Checked at every open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The cluster.
    pub cluster: ClusterName,
    /// The node.
    pub node: NodeId,
    /// A number drawn at random by the caller, recorded when the directory is new and ignored otherwise. It lets
    /// the peers tell this disk from another one under the same node id.
    pub new_disk: u64,
}

/// Why a disk cannot be used, or no longer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DiskError {
    /// Another process uses it.
    #[error("data directory {path} is used by another process: stop that one first")]
    Locked {
        /// The directory.
        path: String,
    },
    /// Its content is not what was written.
    #[error(
        "data directory {path} is damaged ({what}) and must not be used: move it away and let this machine join \
         again under a new node id"
    )]
    Damaged {
        /// The directory.
        path: String,
        /// Which part.
        what: String,
    },
    /// It belongs to another cluster.
    #[error(
        "data directory {path} belongs to cluster `{found}`, not to `{expected}`: name another directory"
    )]
    OtherCluster {
        /// The directory.
        path: String,
        /// Whose it is.
        found: String,
        /// Whose it should be.
        expected: String,
    },
    /// It belongs to another node.
    #[error("data directory {path} belongs to node {found}, not to node {expected}: name another directory")]
    OtherNode {
        /// The directory.
        path: String,
        /// Whose it is.
        found: NodeId,
        /// Whose it should be.
        expected: NodeId,
    },
    /// A newer version of the program wrote it.
    #[error(
        "data directory {path} has format {found}; this program reads up to {newest}: install the newer version"
    )]
    NewerFormat {
        /// The directory.
        path: String,
        /// Its format.
        found: u64,
        /// The newest that this program reads.
        newest: u64,
    },
    /// There is no data directory, where one is required.
    #[error("there is no data directory at {path}")]
    Missing {
        /// The directory.
        path: String,
    },
    /// There is no room left.
    #[error("the disk of {path} is full: make room, then start again; nothing acknowledged is lost")]
    Full {
        /// The directory.
        path: String,
    },
    /// It failed.
    #[error("data directory {path} cannot be used: {why}")]
    Io {
        /// The directory.
        path: String,
        /// What the system said.
        why: String,
    },
    /// An earlier write failed; nothing is written after that.
    #[error("the disk was closed after an earlier failure")]
    Closed,
}

impl DiskError {
    /// Whether starting again can never help: what is there is damaged, or somebody else's. A supervisor must not
    /// restart into it.
    pub const fn is_lasting(&self) -> bool {
        matches!(
            self,
            Self::Damaged { .. }
                | Self::OtherCluster { .. }
                | Self::OtherNode { .. }
                | Self::NewerFormat { .. }
        )
    }
}

/// Everything that a disk holds, as of its opening.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Contents {
    /// The random number of the directory.
    pub disk: u64,
    /// How many forced recoveries it knows of, plus one.
    pub generation: Generation,
    /// The newest generation that went on without this node, as far as it has heard.
    pub superseded_by: Option<Generation>,
    /// The encoded vote.
    pub vote: Option<Vec<u8>>,
    /// The encoded place up to which entries are known to be committed.
    pub committed: Option<Vec<u8>>,
    /// The encoded place up to which entries were removed after a snapshot.
    pub purged: Option<Vec<u8>>,
    /// The encoded data directories of the peers.
    pub peers: Option<Vec<u8>>,
    /// The encoded entries by index, without gaps.
    pub log: Vec<(u64, Vec<u8>)>,
    /// The newest snapshot: encoded header and content.
    pub snapshot: Option<(Vec<u8>, Bytes)>,
}

/// One change of a disk's content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    /// Adds or replaces an entry.
    Entry {
        /// Its index.
        index: u64,
        /// Its encoding.
        bytes: Vec<u8>,
    },
    /// Removes the entries from this index on.
    TruncateFrom(u64),
    /// Removes the entries up to this index, inclusive.
    PurgeThrough(u64),
    /// Records the vote.
    Vote(Vec<u8>),
    /// Records how far entries are known to be committed.
    Committed(Vec<u8>),
    /// Records how far entries were removed.
    Purged(Vec<u8>),
    /// Records the generation.
    Generation(Generation),
    /// Records that a newer generation went on without this node.
    SupersededBy(Generation),
    /// Records the peers' data directories.
    Peers(Vec<u8>),
    /// Replaces the snapshot.
    Snapshot {
        /// The encoded header.
        header: Vec<u8>,
        /// The content.
        content: Bytes,
    },
}

/// When a batch must be durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Urgency {
    /// As soon as possible: somebody waits.
    Now,
    /// With the next batch that somebody waits for, or after a moment. Losing it in a crash is harmless.
    Eventually,
}

/// Called once the batch is durable, or will never be. From any thread.
pub type Done = Box<dyn FnOnce(Result<(), DiskError>) + Send>;

/// A store for one node's log, vote and snapshot.
///
/// Batches become durable in the order of their submission, each as a whole. After a failure every later batch
/// fails too, so that no gap can arise.
pub trait Disk: Send + Sync + 'static {
    /// What it holds. Called once, before the first [`Self::submit`].
    fn load(&self) -> Result<Contents, DiskError>;

    /// Hands over a batch and returns at once.
    fn submit(&self, batch: Vec<Write>, urgency: Urgency, done: Done);

    /// Waits until everything submitted is durable, and releases the directory.
    fn close(&self);
}

/// Submits a batch and waits until it is durable.
pub(crate) async fn write(disk: &dyn Disk, batch: Vec<Write>) -> Result<(), DiskError> {
    let (done, is_done) = tokio::sync::oneshot::channel();
    disk.submit(
        batch,
        Urgency::Now,
        Box::new(move |result| {
            let _nobody_waits_any_more = done.send(result);
        }),
    );
    is_done.await.unwrap_or(Err(DiskError::Closed))
}
