//! Delivers an address to the meeting servers of this node: a file for each, replaced whole.

use crate::decide::Announcement;
use std::fs::{self, File};
use std::io::{self, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use twinsite_model::{Token, UpstreamName};

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
    #[error("{path} was written under token {written}, which is newer than {given}")]
    Stale {
        /// The file.
        path: PathBuf,
        /// The token of what is there.
        written: Token,
        /// The token that was refused.
        given: Token,
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
    let token_path = token_path(path);
    let written: Option<Token> = read(&token_path)?.and_then(|text| text.trim().parse().ok());
    if let Some(written) = written.filter(|written| *written > wanted.token) {
        return Err(AnnounceError::Stale { path: path.to_owned(), written, given: wanted.token });
    }
    // The token first: killed between the two, the file is repaired next time and no older token gets in meanwhile.
    if written != Some(wanted.token) {
        replace(&token_path, &format!("{}\n", wanted.token))?;
    }
    let there: Option<IpAddr> = read(path)?.and_then(|text| text.trim().parse().ok());
    if there == Some(wanted.address) {
        return Ok(false);
    }
    replace(path, &format!("{}\n", wanted.address))?;
    Ok(true)
}

/// Beside the announcement, the token that it follows from.
fn token_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".token");
    PathBuf::from(name)
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
    let mut name = path.as_os_str().to_owned();
    // Of its own for each process: several nodes of a site may keep the same file right.
    name.push(format!(".new-{}", std::process::id()));
    let new = PathBuf::from(name);
    let write = || {
        let mut file = File::create(&new)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&new, path)?;
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
    };
    write().map_err(|source| AnnounceError::File { what: "write", path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
