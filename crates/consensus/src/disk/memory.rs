//! A disk in memory, for tests and as the model that a simulated disk is compared with.

use super::{Contents, Disk, DiskError, Done, Urgency, Write};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use twinsite_model::Generation;

/// A disk in memory. Clones share the content, so a node can be "restarted" on it.
#[derive(Debug, Clone)]
pub struct MemoryDisk(Arc<Mutex<Stored>>);

#[derive(Debug)]
struct Stored {
    log: BTreeMap<u64, Vec<u8>>,
    rest: Contents,
    failure: Option<DiskError>,
}

impl MemoryDisk {
    /// An empty disk with the given number (see [`super::Identity::new_disk`]).
    pub fn new(disk: u64) -> Self {
        let rest = Contents { disk, generation: Generation(1), ..Contents::default() };
        Self(Arc::new(Mutex::new(Stored { log: BTreeMap::new(), rest, failure: None })))
    }

    /// Lets every later write fail, as a broken or full disk does; `None` repairs it.
    pub fn fail(&self, failure: Option<DiskError>) {
        self.stored(|stored| stored.failure = failure);
    }

    fn stored<R>(&self, work: impl FnOnce(&mut Stored) -> R) -> R {
        // A panic while holding the lock leaves whole batches only: `apply` does not panic.
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Stored {
    fn apply(&mut self, write: Write) {
        match write {
            Write::Entry { index, bytes } => {
                self.log.insert(index, bytes);
            }
            Write::TruncateFrom(index) => {
                self.log.split_off(&index);
            }
            Write::PurgeThrough(index) => self.log = self.log.split_off(&index.saturating_add(1)),
            Write::Vote(bytes) => self.rest.vote = Some(bytes),
            Write::Committed(bytes) => self.rest.committed = Some(bytes),
            Write::Purged(bytes) => self.rest.purged = Some(bytes),
            Write::Generation(generation) => self.rest.generation = generation,
            Write::SupersededBy(generation) => self.rest.superseded_by = Some(generation),
            Write::Peers(bytes) => self.rest.peers = Some(bytes),
            Write::Snapshot { header, content } => self.rest.snapshot = Some((header, content)),
        }
    }
}

impl Disk for MemoryDisk {
    fn load(&self) -> Result<Contents, DiskError> {
        Ok(self.stored(|stored| Contents {
            log: stored.log.iter().map(|(index, bytes)| (*index, bytes.clone())).collect(),
            ..stored.rest.clone()
        }))
    }

    fn submit(&self, batch: Vec<Write>, _: Urgency, done: Done) {
        let result = self.stored(|stored| {
            if let Some(failure) = &stored.failure {
                return Err(failure.clone());
            }
            for write in batch {
                stored.apply(write);
            }
            Ok(())
        });
        done(result);
    }

    fn close(&self) {}
}
