//! The real disk: one redb file per node.
//!
//! * Checked as a whole at every open (redb verifies its page checksums only then), then value by value.
//! * Written by one thread, which commits everything that is waiting at once (group commit), in two phases:
//!   after a crash redb then opens the newest commit or nothing, never quietly the one before.
//! * After the first failure nothing is written any more.

use super::seal::{seal, unseal};
use super::watermark::Watermark;
use super::{Contents, Disk, DiskError, Done, FORMAT, Identity, Urgency, Write};
use bytes::Bytes;
use redb::{
    Builder, Database, Durability, ReadableDatabase, ReadableTable, ReadableTableMetadata, StorageBackend,
    TableDefinition,
};
use std::fs::{File, Permissions};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;
use twinsite_model::{Generation, NodeId};

const LOG: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("log");
const META: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("meta");
const SNAPSHOT: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("snapshot");

/// The keys of `META`. Numbers, because they are part of each value's checksum.
mod key {
    pub(super) const FORMAT: u64 = 1;
    pub(super) const CLUSTER: u64 = 2;
    pub(super) const NODE: u64 = 3;
    pub(super) const DISK: u64 = 4;
    pub(super) const COMMIT: u64 = 5;
    pub(super) const VOTE: u64 = 6;
    pub(super) const COMMITTED: u64 = 7;
    pub(super) const PURGED: u64 = 8;
    pub(super) const GENERATION: u64 = 9;
    pub(super) const PEERS: u64 = 10;
    pub(super) const LOG_LENGTH: u64 = 11;
    pub(super) const SUPERSEDED_BY: u64 = 12;
}

/// In `SNAPSHOT`, key 0 is the header and the content follows in pieces of this size.
const PIECE: usize = 1 << 20;
/// How long a write that nobody waits for may stay in memory.
const EVENTUALLY: Duration = Duration::from_millis(100);
/// A node's whole data is a few megabytes; redb's default would reserve a gigabyte.
const CACHE_BYTES: usize = 16 << 20;

/// A data directory.
pub struct RedbDisk {
    contents: Mutex<Option<Contents>>,
    writer: Mutex<Option<Writer>>,
}

struct Writer {
    jobs: Sender<Job>,
    thread: JoinHandle<()>,
}

struct Job {
    batch: Vec<Write>,
    urgency: Urgency,
    done: Done,
}

/// Read and written by the node's own user alone.
const PRIVATE: u32 = 0o600;

impl RedbDisk {
    /// The name of the database in its directory.
    pub const FILE: &'static str = "consensus.redb";
    /// The name of the file that holds the number of the newest commit.
    pub const WATERMARK_FILE: &'static str = "consensus.commits";

    /// Opens the data directory, making it if it is missing or empty.
    pub fn open(directory: &Path, identity: &Identity) -> Result<Self, DiskError> {
        Self::open_by(directory, identity, |path| {
            let mut options = File::options();
            options.read(true).write(true).create(true).truncate(false).mode(PRIVATE);
            let file = options.open(path)?;
            // One that an earlier program made, too: it may hold what TLS session tickets are made with now.
            if let Err(error) = file.set_permissions(Permissions::from_mode(PRIVATE)) {
                tracing::warn!(path = %path.display(), %error, "it holds secrets, and cannot be made this user's alone");
            }
            redb::backends::FileBackend::new(file).map_err(as_redb)
        })
    }

    /// Opens a data directory that must exist.
    pub fn open_existing(directory: &Path, identity: &Identity) -> Result<Self, DiskError> {
        if !directory.join(Self::FILE).exists() {
            return Err(DiskError::Missing { path: directory.display().to_string() });
        }
        Self::open(directory, identity)
    }

    /// Makes the directory look like one of another version.
    #[cfg(test)]
    #[allow(clippy::unwrap_used)]
    pub(crate) fn set_format_for_test(directory: &Path, format: u64) {
        let database = Database::open(directory.join(Self::FILE)).unwrap();
        let writing = database.begin_write().unwrap();
        let sealed = seal(key::FORMAT, &format.to_le_bytes());
        writing.open_table(META).unwrap().insert(key::FORMAT, &*sealed).unwrap();
        writing.commit().unwrap();
    }

    /// Opens with another way to reach the file; tests make it fail.
    pub(crate) fn open_by<B: StorageBackend>(
        directory: &Path,
        identity: &Identity,
        backend: impl FnOnce(&Path) -> Result<B, redb::Error>,
    ) -> Result<Self, DiskError> {
        let place = Place(directory.to_owned());
        // redb promises errors, not panics, but has `unreachable!` in places that only damage can reach.
        let opened = catch_unwind(AssertUnwindSafe(|| place.open(identity, backend)));
        let (database, watermark, contents, commit) =
            opened.unwrap_or_else(|_| Err(place.damaged("its structure makes no sense")))?;

        let (jobs, waiting) = channel();
        let mut committer = Committer { place, database, watermark, commit, failure: None };
        let thread = std::thread::Builder::new()
            .name("consensus-disk".to_owned())
            .spawn(move || committer.run(&waiting))
            .map_err(|error| DiskError::Io {
                path: directory.display().to_string(),
                why: error.to_string(),
            })?;
        Ok(Self { contents: Mutex::new(Some(contents)), writer: Mutex::new(Some(Writer { jobs, thread })) })
    }
}

impl Disk for RedbDisk {
    fn load(&self) -> Result<Contents, DiskError> {
        self.contents.lock().unwrap_or_else(PoisonError::into_inner).take().ok_or(DiskError::Closed)
    }

    fn submit(&self, batch: Vec<Write>, urgency: Urgency, done: Done) {
        let job = Job { batch, urgency, done };
        let refused = match self.writer.lock().unwrap_or_else(PoisonError::into_inner).as_ref() {
            Some(writer) => writer.jobs.send(job).err().map(|refused| refused.0),
            None => Some(job),
        };
        if let Some(job) = refused {
            (job.done)(Err(DiskError::Closed));
        }
    }

    fn close(&self) {
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(Writer { jobs, thread }) = writer {
            drop(jobs); // the thread ends when it has written everything
            if thread.join().is_err() {
                tracing::error!("the disk's thread panicked");
            }
        }
    }
}

impl Drop for RedbDisk {
    fn drop(&mut self) {
        self.close();
    }
}

/// The directory, for opening it and for naming it in errors.
struct Place(PathBuf);

impl Place {
    fn open<B: StorageBackend>(
        &self,
        identity: &Identity,
        backend: impl FnOnce(&Path) -> Result<B, redb::Error>,
    ) -> Result<(Database, Watermark, Contents, u64), DiskError> {
        let file = self.0.join(RedbDisk::FILE);
        let watermark_file = self.0.join(RedbDisk::WATERMARK_FILE);
        std::fs::create_dir_all(&self.0).map_err(|error| self.error(&error.into()))?;
        // The watermark is made last, so a directory without one was never in use: whatever a crash left in it
        // was never acknowledged. A directory that has one must also have the database.
        let is_new = !watermark_file.exists();
        if is_new && file.exists() && self.was_in_use(&file)? {
            return Err(self.damaged("consensus.commits is missing"));
        }
        if is_new && file.exists() {
            std::fs::remove_file(&file).map_err(|error| self.error(&error.into()))?;
        }
        if !is_new && std::fs::metadata(&file).map_or(0, |metadata| metadata.len()) == 0 {
            return Err(self.damaged("consensus.redb is missing or empty"));
        }

        let backend = backend(&file).map_err(|error| self.error(&error))?;
        let mut builder = Builder::new();
        builder.set_cache_size(CACHE_BYTES);
        let mut database = builder.create_with_backend(backend).map_err(|error| self.error(&error.into()))?;
        let intact = database.check_integrity().map_err(|error| self.error(&error.into()))?;
        if !intact {
            return Err(self.damaged("a page of consensus.redb is not what was written"));
        }
        if is_new {
            Self::format(&database, identity).map_err(|error| self.error(&error))?;
            let watermark = Watermark::create(&watermark_file).map_err(|error| self.error(&error.into()))?;
            // The names of the files are in the directory, and its own name is in its parent.
            let parent = self.0.parent().filter(|parent| !parent.as_os_str().is_empty());
            for directory in [&*self.0, parent.unwrap_or(Path::new("."))] {
                let synced = File::open(directory).and_then(|directory| directory.sync_all());
                synced.map_err(|error| self.error(&error.into()))?;
            }
            let contents =
                Contents { disk: identity.new_disk, generation: Generation(1), ..Contents::default() };
            return Ok((database, watermark, contents, 0));
        }
        let (watermark, newest) =
            Watermark::open(&watermark_file).map_err(|error| self.error(&error.into()))?;
        let newest = newest.ok_or_else(|| self.damaged("consensus.commits holds no number"))?;
        let (contents, commit) = self.read(&database, identity)?;
        if commit < newest {
            return Err(self.damaged("the newest commits are missing"));
        }
        Ok((database, watermark, contents, commit))
    }

    /// Whether a database without a watermark holds anything that may have been acknowledged.
    fn was_in_use(&self, file: &Path) -> Result<bool, DiskError> {
        if !begun(file).map_err(|error| self.error(&error.into()))? {
            return Ok(false);
        }
        match Database::open(file) {
            Ok(database) => {
                let reading = database.begin_read().map_err(|error| self.error(&error.into()))?;
                let meta = match reading.open_table(META) {
                    Ok(meta) => meta,
                    Err(redb::TableError::TableDoesNotExist(_)) => return Ok(false),
                    Err(error) => return Err(self.error(&error.into())),
                };
                let commit = meta.get(key::COMMIT).map_err(|error| self.error(&error.into()))?;
                Ok(commit.is_some())
            }
            Err(redb::DatabaseError::DatabaseAlreadyOpen) => {
                Err(DiskError::Locked { path: self.0.display().to_string() })
            }
            Err(error) => Err(self.damaged(&format!(
                "consensus.commits is missing and consensus.redb cannot be opened: {error}"
            ))),
        }
    }

    fn format(database: &Database, identity: &Identity) -> Result<(), redb::Error> {
        let mut writing = database.begin_write()?;
        writing.set_durability(Durability::Immediate).map_err(as_redb)?;
        writing.set_two_phase_commit(true);
        {
            writing.open_table(LOG)?;
            writing.open_table(SNAPSHOT)?;
            let mut meta = writing.open_table(META)?;
            let mut put = |key, value: &[u8]| meta.insert(key, &*seal(key, value)).map(drop);
            put(key::FORMAT, &FORMAT.to_le_bytes())?;
            put(key::CLUSTER, identity.cluster.as_str().as_bytes())?;
            put(key::NODE, &identity.node.0.to_le_bytes())?;
            put(key::DISK, &identity.new_disk.to_le_bytes())?;
            put(key::GENERATION, &1_u64.to_le_bytes())?;
            put(key::LOG_LENGTH, &0_u64.to_le_bytes())?;
        }
        writing.commit()?;
        Ok(())
    }

    fn read(&self, database: &Database, identity: &Identity) -> Result<(Contents, u64), DiskError> {
        let reading = database.begin_read().map_err(|error| self.error(&error.into()))?;
        let meta = reading.open_table(META).map_err(|error| self.error(&error.into()))?;
        let get = |key: u64, what: &str| -> Result<Option<Vec<u8>>, DiskError> {
            let Some(sealed) = meta.get(key).map_err(|error| self.error(&error.into()))? else {
                return Ok(None);
            };
            let value = unseal(key, sealed.value()).ok_or_else(|| self.damaged(what))?;
            Ok(Some(value.to_vec()))
        };
        let number = |key: u64, what: &str| -> Result<u64, DiskError> {
            let bytes = get(key, what)?.ok_or_else(|| self.damaged(what))?;
            let bytes = bytes.try_into().map_err(|_| self.damaged(what))?;
            Ok(u64::from_le_bytes(bytes))
        };

        // The format comes first: the rest may look different in a newer one.
        let path = self.0.display().to_string();
        let found = number(key::FORMAT, "its format")?;
        if found > FORMAT {
            return Err(DiskError::NewerFormat { path, found, newest: FORMAT });
        }
        let found = get(key::CLUSTER, "its cluster")?.unwrap_or_default();
        if found != identity.cluster.as_str().as_bytes() {
            let found = String::from_utf8_lossy(&found).into_owned();
            let expected = identity.cluster.to_string();
            return Err(DiskError::OtherCluster { path, found, expected });
        }
        let found = NodeId(number(key::NODE, "its node id")?);
        if found != identity.node {
            return Err(DiskError::OtherNode { path, found, expected: identity.node });
        }

        let log_table = reading.open_table(LOG).map_err(|error| self.error(&error.into()))?;
        let mut log: Vec<(u64, Vec<u8>)> = Vec::new();
        for row in log_table.iter().map_err(|error| self.error(&error.into()))? {
            let (index, sealed) = row.map_err(|error| self.error(&error.into()))?;
            let index = index.value();
            if log.last().is_some_and(|(last, _)| last + 1 != index) {
                return Err(self.damaged(&format!("the log has a gap before entry {index}")));
            }
            let entry =
                unseal(index, sealed.value()).ok_or_else(|| self.damaged(&format!("log entry {index}")))?;
            log.push((index, entry.to_vec()));
        }
        if number(key::LOG_LENGTH, "the length of its log")? != log.len() as u64 {
            return Err(self.damaged("the log has another length"));
        }
        let contents = Contents {
            disk: number(key::DISK, "its number")?,
            generation: Generation(number(key::GENERATION, "its generation")?),
            superseded_by: match get(key::SUPERSEDED_BY, "the newer generation")? {
                Some(_) => Some(Generation(number(key::SUPERSEDED_BY, "the newer generation")?)),
                None => None,
            },
            vote: get(key::VOTE, "the vote")?,
            committed: get(key::COMMITTED, "the committed place")?,
            purged: get(key::PURGED, "the purged place")?,
            peers: get(key::PEERS, "the peers")?,
            log,
            snapshot: self.read_snapshot(&reading)?,
        };
        let commit = if meta.get(key::COMMIT).map_err(|error| self.error(&error.into()))?.is_some() {
            number(key::COMMIT, "the number of its commit")?
        } else {
            0
        };
        Ok((contents, commit))
    }

    fn read_snapshot(&self, reading: &redb::ReadTransaction) -> Result<Option<(Vec<u8>, Bytes)>, DiskError> {
        let table = reading.open_table(SNAPSHOT).map_err(|error| self.error(&error.into()))?;
        let mut header = None;
        let mut content = Vec::new();
        for (row, expected) in table.iter().map_err(|error| self.error(&error.into()))?.zip(0..) {
            let (piece, sealed) = row.map_err(|error| self.error(&error.into()))?;
            let value = unseal(piece.value(), sealed.value()).filter(|_| piece.value() == expected);
            let value = value.ok_or_else(|| self.damaged("the snapshot"))?;
            if expected == 0 {
                header = Some(value.to_vec());
            } else {
                content.extend_from_slice(value);
            }
        }
        // The header carries length and checksum of the content; who decodes it compares them.
        Ok(header.map(|header| (header, content.into())))
    }

    fn damaged(&self, what: &str) -> DiskError {
        DiskError::Damaged { path: self.0.display().to_string(), what: what.to_owned() }
    }

    fn error(&self, error: &redb::Error) -> DiskError {
        let path = self.0.display().to_string();
        match error {
            redb::Error::DatabaseAlreadyOpen => DiskError::Locked { path },
            redb::Error::Io(io) if matches!(io.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded) => {
                DiskError::Full { path }
            }
            // What a damaged header or a shortened file looks like to redb.
            redb::Error::Io(io) if matches!(io.kind(), ErrorKind::InvalidData | ErrorKind::UnexpectedEof) => {
                DiskError::Damaged { path, what: io.to_string() }
            }
            redb::Error::Io(io) => DiskError::Io { path, why: io.to_string() },
            other => DiskError::Damaged { path, what: other.to_string() },
        }
    }
}

/// Whether a database was ever begun in this file: redb writes the first bytes last, after everything else of an
/// empty database is on the disk.
fn begun(file: &Path) -> std::io::Result<bool> {
    let mut first = Vec::new();
    File::open(file)?.take(8).read_to_end(&mut first)?;
    Ok(first.iter().any(|byte| *byte != 0))
}

fn as_redb<E: Into<redb::Error>>(error: E) -> redb::Error {
    error.into()
}

/// What the writing thread works with.
struct Committer {
    place: Place,
    database: Database,
    watermark: Watermark,
    commit: u64,
    failure: Option<DiskError>,
}

impl Committer {
    fn run(&mut self, waiting: &Receiver<Job>) {
        let mut jobs: Vec<Job> = Vec::new();
        loop {
            let next = if jobs.is_empty() {
                waiting.recv().map_err(|_| RecvTimeoutError::Disconnected)
            } else {
                waiting.recv_timeout(EVENTUALLY)
            };
            let ends = match next {
                Ok(job) => {
                    let hurry = job.urgency == Urgency::Now;
                    jobs.push(job);
                    if !hurry {
                        continue;
                    }
                    false
                }
                Err(RecvTimeoutError::Timeout) => false,
                Err(RecvTimeoutError::Disconnected) => true,
            };
            jobs.extend(waiting.try_iter());
            if !jobs.is_empty() {
                self.commit(std::mem::take(&mut jobs));
            }
            if ends {
                break;
            }
        }
        if self.failure.is_none() {
            // Closed in peace: from now on even a power failure leaves the exact number.
            if let Err(error) = self.watermark.sync() {
                tracing::warn!(%error, "the number of the newest commit could not be made durable");
            }
        }
    }

    fn commit(&mut self, jobs: Vec<Job>) {
        let (batches, dones): (Vec<_>, Vec<_>) = jobs.into_iter().map(|job| (job.batch, job.done)).unzip();
        let result = match &self.failure {
            Some(_) => Err(DiskError::Closed),
            None => self.write(batches).map_err(|error| self.place.error(&error)),
        };
        if let Err(error) = &result
            && self.failure.is_none()
        {
            tracing::error!(%error, "the log cannot be written");
            self.failure = Some(error.clone());
        }
        for done in dones {
            done(result.clone());
        }
    }

    fn write(&mut self, batches: Vec<Vec<Write>>) -> Result<(), redb::Error> {
        let commit = self.commit + 1;
        let mut writing = self.database.begin_write()?;
        writing.set_durability(Durability::Immediate).map_err(as_redb)?;
        writing.set_two_phase_commit(true);
        {
            let mut log = writing.open_table(LOG)?;
            let mut meta = writing.open_table(META)?;
            let mut snapshot = writing.open_table(SNAPSHOT)?;
            let mut put = |key: u64, value: &[u8]| meta.insert(key, &*seal(key, value)).map(drop);
            for write in batches.into_iter().flatten() {
                match write {
                    Write::Entry { index, bytes } => {
                        log.insert(index, &*seal(index, &bytes))?;
                    }
                    Write::TruncateFrom(first) => log.retain_in(first.., |_, _| false)?,
                    Write::PurgeThrough(last) => log.retain_in(..=last, |_, _| false)?,
                    Write::Vote(bytes) => put(key::VOTE, &bytes)?,
                    Write::Committed(bytes) => put(key::COMMITTED, &bytes)?,
                    Write::Purged(bytes) => put(key::PURGED, &bytes)?,
                    Write::Generation(generation) => put(key::GENERATION, &generation.0.to_le_bytes())?,
                    Write::SupersededBy(by) => put(key::SUPERSEDED_BY, &by.0.to_le_bytes())?,
                    Write::Peers(bytes) => put(key::PEERS, &bytes)?,
                    Write::Snapshot { header, content } => {
                        snapshot.retain(|_, _| false)?;
                        snapshot.insert(0, &*seal(0, &header))?;
                        for (piece, key) in content.chunks(PIECE).zip(1..) {
                            snapshot.insert(key, &*seal(key, piece))?;
                        }
                    }
                }
            }
            put(key::LOG_LENGTH, &log.len()?.to_le_bytes())?;
            put(key::COMMIT, &commit.to_le_bytes())?;
        }
        writing.commit()?;
        self.commit = commit;
        // Only a bound for the next opening: a failure to write it loses nothing that is acknowledged.
        if let Err(error) = self.watermark.note(commit) {
            tracing::warn!(%error, "the number of the newest commit could not be noted");
        }
        Ok(())
    }
}
