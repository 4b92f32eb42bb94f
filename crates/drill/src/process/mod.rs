//! The process backend: a whole cluster as processes of this machine, on loopback addresses or in a lab.
//!
//! Nothing outlives the runner. All processes are in one group whose leader, the reaper, ends the group when its
//! standard input closes, which the kernel does however the runner dies; so it works for kill -9 of the runner, and
//! for frozen children too.

mod block;
mod certificates;
mod children;
mod cluster;
mod files;
mod keepalived;
mod launcher;
mod meeting_program;
mod readiness;

pub use block::{Block, NoBlock};
pub use certificates::{Authority, CertificateError};
pub use children::{PidTable, ProcessName};
pub use cluster::{Cluster, ClusterOptions, Log, Restarted};
pub use files::FilesError;
pub use keepalived::Keepalived;
pub use launcher::Launcher;
pub use meeting_program::{MeetingProgram, Words, WordsError};
pub use readiness::Progress;

use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// Why the cluster cannot be started or changed.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// No free block of loopback addresses.
    #[error(transparent)]
    NoBlock(#[from] NoBlock),
    /// Its files cannot be written.
    #[error(transparent)]
    Files(#[from] FilesError),
    /// The WAN relay cannot be set up.
    #[error(transparent)]
    Wan(#[from] crate::wan::WanError),
    /// The lab's network cannot be changed.
    #[error(transparent)]
    Lab(#[from] crate::lab::LabError),
    /// A fault was asked for that only a lab has.
    #[error("{0} is possible in a lab only; run the drill with --lab, as root")]
    NoLab(&'static str),
    /// A fault was asked for that needs a disk of the node's own.
    #[error("{0} has no disk of its own; set topology.disk_mib in the scenario")]
    NoDisk(twinsite_model::NodeName),
    /// A disk cannot be filled or emptied.
    #[error("the disk of {node}: {source}")]
    Disk {
        /// Whose.
        node: twinsite_model::NodeName,
        /// Why.
        source: io::Error,
    },
    /// A program cannot be started.
    #[error("cannot start {process} ({program}): {source}; check that the program exists and may be run")]
    Spawn {
        /// Which process.
        process: ProcessName,
        /// The program.
        program: String,
        /// Why.
        source: io::Error,
    },
    /// The process that ends all others with the runner cannot be started.
    #[error("cannot start /bin/sh, which ends the cluster's processes when this one dies: {0}")]
    Reaper(io::Error),
    /// A process that should run has ended.
    #[error("{process} ended ({status}) while the cluster was starting; its last words are in {}:\n{tail}", log.display())]
    Ended {
        /// Which process.
        process: ProcessName,
        /// How.
        status: String,
        /// Its output.
        log: PathBuf,
        /// The last lines of it.
        tail: String,
    },
    /// Something did not become ready in time.
    #[error("not ready after {}: {waiting_for}; see the logs below {}", humantime::format_duration(*after), logs.display())]
    NotReady {
        /// How long was waited.
        after: Duration,
        /// For what.
        waiting_for: String,
        /// Where the logs are.
        logs: PathBuf,
    },
    /// A signal could not be sent or a process could not be waited for.
    #[error("{process}: {source}")]
    Signal {
        /// Which process.
        process: ProcessName,
        /// Why.
        source: io::Error,
    },
    /// There is no such process in this cluster.
    #[error("there is no {0} in this cluster")]
    Unknown(ProcessName),
    /// A fault was asked of a Redis that is not the cluster's own.
    #[error("this cluster does not run a Redis of its own; run the drill without --redis and --embedded")]
    NotOurRedis,
    /// Redis refused.
    #[error("redis: {0}")]
    Redis(#[from] redis::RedisError),
    /// The offline recovery failed.
    #[error("recover on {node} failed ({status}):\n{output}")]
    Recover {
        /// The survivor.
        node: twinsite_model::NodeName,
        /// How it ended.
        status: String,
        /// What it said.
        output: String,
    },
}

#[cfg(test)]
mod tests;
