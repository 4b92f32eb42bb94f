//! The commands that start the cluster's programs.

use super::MeetingProgram;
use crate::layout::InstancePlace;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use tokio::process::Command;
use twinsite_model::NodeName;

/// Which programs are used.
#[derive(Debug, Clone)]
pub struct Launcher {
    /// The `twinsite` program.
    pub twinsite: PathBuf,
    /// The `redis-server` program.
    pub redis_server: PathBuf,
    /// The program of every meeting instance.
    pub meeting: MeetingProgram,
}

impl Launcher {
    /// Uses this `twinsite` and the `redis-server` of the search path.
    pub fn new(twinsite: impl Into<PathBuf>) -> Self {
        let (redis_server, meeting) = (PathBuf::from("redis-server"), MeetingProgram::default());
        Self { twinsite: twinsite.into(), redis_server, meeting }
    }

    /// Whether there is a `redis-server` to start.
    pub fn has_redis(&self) -> bool {
        let paths = std::env::var_os("PATH").unwrap_or_default();
        let candidates = std::env::split_paths(&paths).map(|folder| folder.join(&self.redis_server));
        self.redis_server.is_file() || candidates.into_iter().any(|path| path.is_file())
    }

    pub(super) fn node(&self, config: &Path) -> Command {
        self.with_config("node", config)
    }

    pub(super) fn guardian(&self, config: &Path) -> Command {
        self.with_config("guardian", config)
    }

    fn with_config(&self, subcommand: &str, config: &Path) -> Command {
        let mut command = Command::new(&self.twinsite);
        command.arg(subcommand).arg("--config").arg(config);
        command
    }

    pub(super) fn meeting(
        &self,
        instance: &InstancePlace,
        announced_file: &Path,
        answers_file: &Path,
    ) -> Command {
        let mut command = match &self.meeting {
            MeetingProgram::Sample => {
                let mut command = Command::new(&self.twinsite);
                command.arg("meeting-instance");
                command
            }
            MeetingProgram::Other { words, folder } => {
                let mut command = Command::new(words.first());
                command.args(words.rest()).current_dir(folder);
                command
            }
        };
        command.args(["--exit-with-stdin", "--listen"]);
        command.arg(instance.address.to_string());
        command.arg("--name").arg(instance.name.as_str());
        command.arg("--announced-file").arg(announced_file);
        command.arg("--answers-file").arg(answers_file);
        command
    }

    /// A Redis that keeps its data over restarts, as a real one would, in `folder`.
    pub(crate) fn redis(&self, listen: SocketAddr, folder: &Path) -> Command {
        let mut command = Command::new(&self.redis_server);
        command.arg("--bind").arg(listen.ip().to_string());
        command.arg("--port").arg(listen.port().to_string());
        command.arg("--dir").arg(folder);
        command.args(["--appendonly", "yes", "--appendfsync", "everysec", "--save", ""]);
        command.args(["--protected-mode", "no", "--daemonize", "no", "--maxmemory", "256mb"]);
        command
    }

    pub(super) fn recover(&self, config: &Path, lost: &[NodeName], attest: bool) -> Command {
        let mut command = Command::new(&self.twinsite);
        command.arg("recover").arg("--config").arg(config);
        for node in lost {
            command.arg("--lost").arg(node.as_str());
        }
        if attest {
            let names: Vec<_> = lost.iter().map(NodeName::as_str).collect();
            command.arg("--attest-power-off").arg(names.join(","));
        }
        command
    }
}
