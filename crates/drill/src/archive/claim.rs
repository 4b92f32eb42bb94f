//! Who runs a drill: one at a time for each archive, found and asked to end by others.
//!
//! The claim is a lock on a file, which the kernel takes from whoever dies. What is in the file is for people, and for
//! those who want the drill to end: they leave a file with the runner's number and start time as its name, which the
//! runner looks for.

use super::{Archive, ArchiveError};
use crate::lab::life::Life;
use serde::{Deserialize, Serialize};
use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

const LOCK: &str = "running.json";
const ABORT: &str = ".abort-";
/// What is noted of a running drill is far shorter.
const RUNNING_BYTES_MAX: u64 = 4 * 1024;

/// A drill that runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Running {
    /// The process.
    pub life: Life,
    /// The scenario's name.
    pub scenario: String,
}

/// The right to run a drill, until it is dropped.
#[derive(Debug)]
pub struct Claim {
    lock: File,
    abort: PathBuf,
}

impl Archive {
    /// Claims the archive for a drill of this process.
    pub fn claim(&self, scenario: &str) -> Result<Claim, ArchiveError> {
        self.make_root()?;
        let path = self.root().join(LOCK);
        let failed = |source| ArchiveError::Io { path: path.clone(), source };
        let opened = File::options().create(true).truncate(false).read(true).write(true).open(&path);
        let mut lock = opened.map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                // One that has the lock and has noted nothing yet, or no more, is just beginning or ending.
                let unknown = || Running { life: Life { pid: 0, started: 0 }, scenario: "?".to_owned() };
                return Err(ArchiveError::Taken { running: noted(&path).unwrap_or_else(unknown) });
            }
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
        let life = Life::own().map_err(failed)?;
        self.forget_wishes();
        let running = Running { life, scenario: scenario.to_owned() };
        let text = serde_json::to_vec(&running).map_err(|error| failed(error.into()))?;
        lock.set_len(0).and_then(|()| lock.write_all(&text)).map_err(failed)?;
        Ok(Claim { lock, abort: self.wish(life) })
    }

    /// The drill that runs, if one does.
    pub fn running(&self) -> Option<Running> {
        noted(&self.root().join(LOCK)).filter(|running| running.life.goes_on())
    }

    /// Asks a running drill to end and to go its way back. Asking twice is asking once.
    pub fn ask_to_abort(&self, running: &Running) -> Result<(), ArchiveError> {
        let path = self.wish(running.life);
        let left = File::options().create(true).truncate(false).write(true).open(&path);
        left.map(drop).map_err(|source| ArchiveError::Io { path, source })
    }

    fn wish(&self, life: Life) -> PathBuf {
        self.root().join(format!("{ABORT}{}-{}", life.pid, life.started))
    }

    /// Removes what was wished of drills that have ended. It is never taken for a wish to another one.
    fn forget_wishes(&self) {
        for entry in fs::read_dir(self.root()).into_iter().flatten().flatten() {
            if entry.file_name().to_str().is_some_and(|name| name.starts_with(ABORT)) {
                fs::remove_file(entry.path()).ok();
            }
        }
    }
}

impl Claim {
    /// Whether somebody wants this drill to end.
    pub fn abort_is_wanted(&self) -> bool {
        self.abort.exists()
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        // The file stays: were it removed, two could hold locks on two files of the same name.
        let forgotten = self.lock.seek(SeekFrom::Start(0)).and_then(|_| self.lock.set_len(0));
        if let Err(error) = forgotten {
            tracing::warn!(%error, "the end of the drill cannot be noted in its archive");
        }
        fs::remove_file(&self.abort).ok();
    }
}

fn noted(path: &Path) -> Option<Running> {
    let mut text = Vec::new();
    File::open(path).ok()?.take(RUNNING_BYTES_MAX).read_to_end(&mut text).ok()?;
    serde_json::from_slice(&text).map_err(io::Error::from).ok()
}
