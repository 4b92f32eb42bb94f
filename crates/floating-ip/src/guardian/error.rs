//! What can go wrong between node and guardian.

use super::protocol::BadFrame;
use std::io;
use std::path::PathBuf;

/// Why there is no guardian, or why it cannot work.
#[derive(Debug, thiserror::Error)]
pub enum GuardianError {
    /// Nobody listens there.
    #[error("no guardian answers at {path}: {source}; start `twinsite guardian` with the same configuration")]
    Absent {
        /// The socket.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The line to it broke.
    #[error("the guardian does not listen any more")]
    Lost,
    /// Another guardian runs already.
    #[error("another guardian already guards {path}; stop it first")]
    AlreadyGuarded {
        /// The data directory.
        path: PathBuf,
    },
    /// The socket cannot be made.
    #[error("cannot {what} {path}: {source}")]
    Setup {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// Watching a process failed on a broken invariant.
    #[error(
        "the watch over a node's process broke; start the guardian again: it goes on where this one ended"
    )]
    Broken,
    /// The other side says what makes no sense.
    #[error(transparent)]
    Nonsense(#[from] BadFrame),
}

impl GuardianError {
    /// Whether trying again may help.
    pub const fn retryable(&self) -> bool {
        matches!(self, Self::Absent { .. } | Self::Lost)
    }
}
