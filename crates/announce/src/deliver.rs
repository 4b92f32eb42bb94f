//! Delivers an address to the meeting servers of this node: a file for each, replaced whole.

use crate::compare::{Missing, Stale, There, compare};
use crate::decide::Announcement;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use twinsite_model::UpstreamName;

/// How long another process is let write first.
const LOCK_PATIENCE: Duration = Duration::from_secs(1);
/// How soon the lock is tried again.
const LOCK_RETRY: Duration = Duration::from_millis(2);

/// Why an announcement was not delivered.
#[derive(Debug, thiserror::Error)]
pub enum AnnounceError {
    /// The file system refused.
    #[error("cannot {what} {path}: {source}")]
    File {
        /// What was tried.
        what: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// What is announced follows from a newer token.
    #[error("cannot write {path}: {why}")]
    Stale {
        /// The file.
        path: PathBuf,
        /// The two tokens.
        #[source]
        why: Stale,
    },
}

impl AnnounceError {
    /// Whether trying again may help.
    pub const fn retryable(&self) -> bool {
        matches!(self, Self::File { .. })
    }
}

/// What came of one instance.
#[derive(Debug)]
pub struct Reconciled {
    /// The instance.
    pub upstream: UpstreamName,
    /// Whether its file had to be written.
    pub result: Result<bool, AnnounceError>,
}

/// Keeps the files of this node's meeting instances as they should be.
#[derive(Debug)]
pub struct Announcer {
    files: Vec<(UpstreamName, PathBuf)>,
}

impl Announcer {
    /// For these instances and their files.
    pub const fn new(files: Vec<(UpstreamName, PathBuf)>) -> Self {
        Self { files }
    }

    /// Compares every file with the announcement and writes what differs. What is there is read, not remembered:
    /// whatever changed a file, it is put right.
    pub fn reconcile(&mut self, wanted: &Announcement) -> Vec<Reconciled> {
        let each = self.files.iter().map(|(upstream, path)| Reconciled {
            upstream: upstream.clone(),
            result: reconcile(path, wanted),
        });
        each.collect()
    }
}

fn reconcile(path: &Path, wanted: &Announcement) -> Result<bool, AnnounceError> {
    // Several nodes of a site may keep the same file right: between one's look at the token and its writing, no other
    // may write.
    let _lock = lock(path)?;
    let token_path = token_path(path);
    let there = There {
        token: read(&token_path)?.and_then(|text| text.trim().parse().ok()),
        address: read(path)?.and_then(|text| text.trim().parse().ok()),
    };
    let stale = |why| AnnounceError::Stale { path: path.to_owned(), why };
    let Missing { token, address } = compare(there, wanted).map_err(stale)?;
    if token {
        replace(&token_path, &format!("{}\n", wanted.token))?;
    }
    if address {
        replace(path, &format!("{}\n", wanted.address))?;
    }
    Ok(address)
}

/// Beside the announcement, the token that it follows from.
fn token_path(path: &Path) -> PathBuf {
    beside(path, ".token")
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    PathBuf::from(name)
}

/// The lock of a file, held until what is returned is dropped; the system frees it at the end of the process.
///
/// `None` after [`LOCK_PATIENCE`]: its holder stands still, and must not keep everybody's address wrong. Should it write
/// something old when it wakes, the next comparison repairs that.
fn lock(path: &Path) -> Result<Option<File>, AnnounceError> {
    let path = beside(path, ".lock");
    let failed = |source: io::Error| AnnounceError::File { what: "lock", path: path.clone(), source };
    let file = OpenOptions::new().create(true).append(true).open(&path).map_err(failed)?;
    let begun = Instant::now();
    loop {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(Some(file)),
            Err(Errno::WOULDBLOCK) if begun.elapsed() < LOCK_PATIENCE => std::thread::sleep(LOCK_RETRY),
            Err(Errno::WOULDBLOCK) => return Ok(None),
            Err(Errno::INTR) => {}
            Err(error) => return Err(failed(error.into())),
        }
    }
}

fn read(path: &Path) -> Result<Option<String>, AnnounceError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(AnnounceError::File { what: "read", path: path.to_owned(), source }),
    }
}

/// A reader sees the old text or the new one, never a part; after a power loss too.
fn replace(path: &Path, text: &str) -> Result<(), AnnounceError> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let write = || {
        // Under a name of its own, and readable by the meeting server as any new file is.
        let permissions = Permissions::from_mode(0o644);
        let mut new = tempfile::Builder::new()
            .prefix(path.file_name().unwrap_or_default())
            .suffix(".new")
            .permissions(permissions)
            .tempfile_in(folder)?;
        new.write_all(text.as_bytes())?;
        new.as_file().sync_all()?;
        new.persist(path).map_err(|error| error.error)?;
        File::open(folder)?.sync_all()
    };
    write().map_err(|source| AnnounceError::File { what: "write", path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::IpAddr;
    use twinsite_model::Token;

    fn announcement(last: u8, epoch: u64) -> Announcement {
        Announcement { address: IpAddr::from([192, 0, 2, last]), token: Token::new(1, epoch) }
    }

    fn announcer(path: &Path) -> Announcer {
        Announcer::new(vec![(UpstreamName::new("one").unwrap(), path.to_owned())])
    }

    fn write(announcer: &mut Announcer, wanted: Announcement) -> Result<bool, AnnounceError> {
        announcer.reconcile(&wanted).pop().unwrap().result
    }

    #[test]
    fn writes_once_repairs_and_refuses_older_tokens() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("announced");
        let mut announcer = announcer(&path);
        assert!(write(&mut announcer, announcement(1, 5)).unwrap());
        assert!(!write(&mut announcer, announcement(1, 5)).unwrap());
        assert_eq!(fs::read_to_string(&path).unwrap(), "192.0.2.1\n");

        fs::write(&path, "somebody's editor was here").unwrap();
        assert!(write(&mut announcer, announcement(1, 5)).unwrap());
        fs::remove_file(&path).unwrap();
        assert!(write(&mut announcer, announcement(1, 5)).unwrap());

        let stale = write(&mut announcer, announcement(2, 4)).unwrap_err();
        assert!(matches!(stale, AnnounceError::Stale { .. }) && !stale.retryable(), "{stale}");
        let mut after_restart = tests::announcer(&path);
        assert!(write(&mut after_restart, announcement(2, 4)).is_err(), "the token outlives the process");
        assert!(write(&mut after_restart, announcement(2, 6)).unwrap());
        assert_eq!(fs::read_to_string(&path).unwrap(), "192.0.2.2\n");
        assert!(!write(&mut after_restart, announcement(2, 7)).unwrap(), "only the token is newer");
        assert!(write(&mut after_restart, announcement(1, 6)).is_err());
    }

    #[test]
    fn a_folder_that_is_not_there_is_an_error_with_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("missing").join("announced");
        let error = write(&mut announcer(&path), announcement(1, 1)).unwrap_err();
        assert!(error.to_string().contains("missing") && error.retryable(), "{error}");
    }

    /// Everybody announces a token of their own at the same time, again and again, as the nodes of a site may.
    #[test]
    fn of_many_writers_the_newest_token_and_its_own_address_stay() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("announced");
        for round in 0..25_u64 {
            let writers = (0..8_u8).map(|last| {
                let path = path.clone();
                std::thread::spawn(move || {
                    let wanted = announcement(last, round * 8 + u64::from(last) + 1);
                    match write(&mut announcer(&path), wanted) {
                        Ok(_) | Err(AnnounceError::Stale { .. }) => {}
                        Err(error) => panic!("{error}"),
                    }
                })
            });
            for writer in writers.collect::<Vec<_>>() {
                writer.join().unwrap();
            }
            let token = fs::read_to_string(token_path(&path)).unwrap();
            assert_eq!(token.trim().parse(), Ok(Token::new(1, round * 8 + 8)));
            assert_eq!(fs::read_to_string(&path).unwrap(), "192.0.2.7\n", "round {round}");
        }
        let mut left: Vec<_> =
            fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["announced", "announced.lock", "announced.token"], "nothing else is left lying");
    }

    #[test]
    fn another_writer_is_waited_for_but_not_for_ever() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("announced");
        let held = lock(&path).unwrap().unwrap();
        let begun = Instant::now();
        assert!(write(&mut announcer(&path), announcement(1, 5)).unwrap());
        assert!(begun.elapsed() >= LOCK_PATIENCE, "it stands still: {:?}", begun.elapsed());
        drop(held);
        let begun = Instant::now();
        assert!(write(&mut announcer(&path), announcement(2, 6)).unwrap());
        assert!(begun.elapsed() < LOCK_PATIENCE, "nobody holds it: {:?}", begun.elapsed());
    }
}
