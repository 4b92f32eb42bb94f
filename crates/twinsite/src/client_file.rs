//! `client.toml`: how commands reach a cluster.

use crate::cli::CliError;
use crate::config::{ConfigError, TlsConfig};
use serde::{Deserialize, Serialize};
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use twinsite_drill::lab::{self, LabError, leftovers};
use twinsite_model::ClusterName;
use twinsite_model::dial::DialMap;

/// Where commands look if they are told nothing.
const PLACES: [&str; 2] = ["client.toml", "/etc/twinsite/client.toml"];

/// How a cluster is reached. Paths are relative to the file's directory.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClientFile {
    /// The cluster's name.
    pub cluster: ClusterName,
    /// The API addresses of its nodes; any of them leads to the leader.
    pub endpoints: Vec<SocketAddr>,
    /// The network namespace from which they are reached, as `ip netns` knows it: that of a lab on this machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// The caller's certificate.
    pub tls: TlsConfig,
    /// Translations, where the network needs them.
    #[serde(default)]
    pub dial: DialMap,
}

impl ClientFile {
    /// Reads the file that was named, or the first that exists where commands look.
    pub fn find(named: Option<&Path>) -> Result<Self, CliError> {
        if let Some(path) = named {
            return Self::read(path);
        }
        let places = PLACES.iter().map(PathBuf::from).chain([demo_path()]);
        match places.clone().find(|path| path.exists() && (*path != demo_path() || is_mine(path))) {
            Some(path) => Self::read(&path),
            None => {
                let looked: Vec<_> = places.map(|path| path.display().to_string()).collect();
                Err(CliError::Usage(format!(
                    "no cluster to ask: none of {} exists; start `twinsite demo`, or name a file with --client",
                    looked.join(", ")
                )))
            }
        }
    }

    fn read(path: &Path) -> Result<Self, CliError> {
        let text =
            fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        let mut file: Self = toml::from_str(&text).map_err(|error| ConfigError::Parse {
            path: path.to_owned(),
            problem: crate::config::one_line(&error, &text),
        })?;
        // The demo's file is found through a link; what it names lies beside the real one.
        let real = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let base = real.parent().unwrap_or(Path::new("."));
        for path in [&mut file.tls.ca, &mut file.tls.cert, &mut file.tls.key] {
            *path = base.join(&*path);
        }
        if file.endpoints.is_empty() {
            let problem = "endpoints: name at least one API address".to_owned();
            return Err(ConfigError::Parse { path: path.to_owned(), problem }.into());
        }
        Ok(file)
    }

    /// This thread, and all threads that it starts from now on, go to where the nodes are reached.
    pub fn enter(&self) -> Result<(), CliError> {
        let Some(namespace) = &self.namespace else { return Ok(()) };
        if leftovers::own_place(std::slice::from_ref(namespace)).is_some() {
            return Ok(());
        }
        let gone = |why: &str| {
            let cluster = &self.cluster;
            CliError::Unreachable(format!(
                "the cluster `{cluster}` is in a lab, in network namespace {namespace}, {why}"
            ))
        };
        match lab::enter(namespace) {
            Ok(()) => Ok(()),
            Err(LabError::Enter { source, .. }) => match source.kind() {
                std::io::ErrorKind::NotFound => Err(gone("which is gone: the lab is down")),
                std::io::ErrorKind::PermissionDenied => {
                    Err(gone("which only root may enter: run it with sudo"))
                }
                _ => Err(gone(&format!("which cannot be entered: {source}"))),
            },
            Err(error) => Err(error.into()),
        }
    }

    /// Writes the file.
    pub fn write(&self, path: &Path) -> Result<(), CliError> {
        let text = toml::to_string(self)
            .map_err(|error| ConfigError::Parse { path: path.to_owned(), problem: error.to_string() })?;
        fs::write(path, text).map_err(|source| ConfigError::Read { path: path.to_owned(), source }.into())
    }
}

/// Where the running demo's file is found.
pub fn demo_path() -> PathBuf {
    let user = rustix::process::getuid().as_raw();
    std::env::temp_dir().join(format!("twinsite-demo-{user}.toml"))
}

/// The folder of temporary files belongs to everybody: only what this user put there counts.
fn is_mine(path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let user = rustix::process::getuid().as_raw();
    fs::symlink_metadata(path).is_ok_and(|found| found.uid() == user)
        && fs::metadata(path).is_ok_and(|found| found.uid() == user)
}

/// Lets commands that are told nothing find this demo. The newest demo wins.
pub fn point_demo_at(file: &Path) -> Result<(), CliError> {
    let link = demo_path();
    let failed = |source| CliError::from(ConfigError::Read { path: link.clone(), source });
    match fs::remove_file(&link) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    std::os::unix::fs::symlink(file, &link).map_err(failed)
}

/// Takes the link away again, unless a newer demo has put its own there.
pub fn forget_demo(file: &Path) {
    let link = demo_path();
    if fs::read_link(&link).is_ok_and(|target| target == file) {
        // A link that points nowhere does no harm: it is not found by those who look.
        fs::remove_file(&link).ok();
    }
}
