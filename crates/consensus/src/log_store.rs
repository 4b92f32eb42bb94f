//! The log: in memory for reading, on disk for keeping. It is short, because snapshots let it be.

use crate::changes::Published;
use crate::disk::{self, Contents, Disk, DiskError, Urgency, Write};
use crate::error::StopReason;
use crate::pb;
use crate::raft_types::{Entry, LogId, Types, Vote};
use crate::wire::{self, WireError};
use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};
use openraft::{AsyncRuntime, OptionalSend};
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::io;
use std::ops::RangeBounds;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Entries read at once for a peer; more bytes than this go in another message.
const READ_BYTES: usize = 1 << 20;

/// The log of one node. Clones share it.
#[derive(Clone)]
pub(crate) struct LogStore {
    log: Arc<Mutex<Log>>,
    disk: Arc<dyn Disk>,
    published: Arc<Published>,
}

#[derive(Default)]
struct Log {
    vote: Option<Vote>,
    committed: Option<LogId>,
    purged: Option<LogId>,
    entries: BTreeMap<u64, Entry>,
}

impl LogStore {
    /// The log that a disk holds.
    pub(crate) fn new(
        disk: Arc<dyn Disk>,
        published: Arc<Published>,
        contents: &Contents,
    ) -> Result<Self, DiskError> {
        let log = Log::read(contents).map_err(|error| DiskError::Damaged {
            path: "of this node".to_owned(),
            what: format!("the log: {error}"),
        })?;
        Ok(Self { log: Arc::new(Mutex::new(log)), disk, published })
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        // Nothing below panics while it holds the lock.
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn write(&self, batch: Vec<Write>) -> io::Result<()> {
        disk::write(&*self.disk, batch).await.map_err(|error| stop(&self.published, error))
    }
}

fn stop(published: &Published, error: DiskError) -> io::Error {
    published.stop(StopReason::Disk(error.clone()));
    io::Error::other(error)
}

impl Log {
    fn read(contents: &Contents) -> Result<Self, WireError> {
        let place = |bytes: &Option<Vec<u8>>| -> Result<Option<LogId>, WireError> {
            let id = bytes.as_deref().map(wire::decode::<pb::LogId>).transpose()?;
            Ok(id.map(wire::to_log_id))
        };
        let mut log = Self {
            committed: place(&contents.committed)?,
            purged: place(&contents.purged)?,
            ..Self::default()
        };
        if let Some(bytes) = &contents.vote {
            log.vote = Some(wire::to_vote(Some(wire::decode(bytes)?))?);
        }
        for (index, bytes) in &contents.log {
            let entry = wire::to_entry(wire::decode(bytes)?)?;
            if entry.log_id.index != *index {
                return Err(WireError::Malformed);
            }
            log.entries.insert(*index, entry);
        }
        Ok(log)
    }

    fn last(&self) -> Option<LogId> {
        self.entries.last_key_value().map(|(_, entry)| entry.log_id).or(self.purged)
    }
}

impl<RT: AsyncRuntime> RaftLogReader<Types<RT>> for LogStore {
    async fn try_get_log_entries<Range: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: Range,
    ) -> io::Result<Vec<Entry>> {
        Ok(self.log().entries.range(range).map(|(_, entry)| entry.clone()).collect())
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        Ok(self.log().vote)
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<Entry>> {
        let log = self.log();
        let mut bytes = 0;
        let within = log.entries.range(start..end).take_while(|(_, entry)| {
            let is_first = bytes == 0;
            bytes += wire::entry_size(entry);
            is_first || bytes <= READ_BYTES
        });
        Ok(within.map(|(_, entry)| entry.clone()).collect())
    }
}

impl<RT: AsyncRuntime> RaftLogStorage<Types<RT>> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> io::Result<LogState<Types<RT>>> {
        let log = self.log();
        Ok(LogState { last_purged_log_id: log.purged, last_log_id: log.last() })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        self.log().vote = Some(*vote);
        self.write(vec![Write::Vote(wire::encode(&wire::from_vote(vote)))]).await
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        self.log().committed = committed;
        if let Some(committed) = committed {
            let published = Arc::clone(&self.published);
            // Nobody waits: a lost one only means that some entries are applied a little later after a restart.
            self.disk.submit(
                vec![Write::Committed(wire::encode(&wire::from_log_id(&committed)))],
                Urgency::Eventually,
                Box::new(move |result| {
                    if let Err(error) = result {
                        stop(&published, error);
                    }
                }),
            );
        }
        Ok(())
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        Ok(self.log().committed)
    }

    async fn append<Entries>(&mut self, entries: Entries, flushed: IOFlushed<Types<RT>>) -> io::Result<()>
    where
        Entries: IntoIterator<Item = Entry> + OptionalSend,
        Entries::IntoIter: OptionalSend,
    {
        let mut batch = Vec::new();
        {
            let mut log = self.log();
            for entry in entries {
                let index = entry.log_id.index;
                batch.push(Write::Entry { index, bytes: wire::encode(&wire::from_entry(&entry)) });
                log.entries.insert(index, entry);
            }
        }
        let published = Arc::clone(&self.published);
        let done = move |result: Result<(), DiskError>| {
            flushed.io_completed(result.map_err(|error| stop(&published, error)));
        };
        self.disk.submit(batch, Urgency::Now, Box::new(done));
        Ok(())
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> io::Result<()> {
        let first_gone = last.map_or(0, |last| last.index + 1);
        self.log().entries.split_off(&first_gone);
        self.write(vec![Write::TruncateFrom(first_gone)]).await
    }

    async fn purge(&mut self, through: LogId) -> io::Result<()> {
        {
            let mut log = self.log();
            log.purged = log.purged.max(Some(through));
            log.entries = log.entries.split_off(&(through.index + 1));
        }
        let purged = wire::encode(&wire::from_log_id(&through));
        self.write(vec![Write::PurgeThrough(through.index), Write::Purged(purged)]).await
    }
}
