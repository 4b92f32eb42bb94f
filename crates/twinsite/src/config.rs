//! `node.toml`: what one host knows by itself. Everything else is agreed by the cluster.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use twinsite_model::dial::DialMap;
use twinsite_model::spec::{self, SpecError};
use twinsite_model::spec::{FloatingIpSpec, ProviderKind};
use twinsite_model::{ClusterSpec, FloatingIpName, InterfaceName, NodeName, UpstreamName};

/// The largest configuration file that is read, in bytes.
const FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// A node's own configuration. Paths are relative to the file's directory.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeConfig {
    /// This node's name in the cluster specification.
    pub node: NodeName,
    /// The specification with which the cluster begins. The agreed one takes over everything that is decided together;
    /// what a node needs before it hears the others (who it is, where it listens, whom to call, the timing of
    /// elections, the session store) is read from here at every start.
    pub cluster_file: PathBuf,
    /// Exactly one node of a new cluster brings it to life, with all voters of `cluster_file`.
    #[serde(default)]
    pub bootstrap: bool,
    /// Where this node keeps its log and state, and the guardian's socket.
    pub data: PathBuf,
    /// Certificates.
    pub tls: TlsConfig,
    /// How addresses of other sites are reached, where a network between them translates.
    #[serde(default)]
    pub dial: DialMap,
    /// Where an address of provider `netlink` is put, if this host calls the interface otherwise than the specification.
    #[serde(default)]
    pub interfaces: BTreeMap<FloatingIpName, InterfaceName>,
    /// The meeting instances whose `announcedIp` this node delivers.
    #[serde(default, rename = "instance")]
    pub instances: Vec<InstanceConfig>,
    /// Credentials for the session store.
    #[serde(default)]
    pub sessions: SessionsConfig,
    /// Where Prometheus finds this node.
    #[serde(default)]
    pub metrics: Option<MetricsConfig>,
    /// Where a line of JSON is written for each request; none without it. Rooms are not named in it.
    #[serde(default)]
    pub access_log: Option<PathBuf>,
    /// Threads of the proxy; default: one for each core.
    #[serde(default)]
    pub cores: Option<usize>,
    /// For clusters that live and die with a program: the demo, drills, tests.
    #[serde(default)]
    pub lab: LabConfig,
}

/// PEM files: the cluster's authority, and this node's certificate and key.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsConfig {
    /// The certificate authority of the cluster.
    pub ca: PathBuf,
    /// The certificate; its URI name says `twinsite://CLUSTER/node/ID`.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// A meeting instance on this host.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InstanceConfig {
    /// Its name in the cluster specification.
    pub upstream: UpstreamName,
    /// The file from which it reads the address that it announces.
    pub announced_file: PathBuf,
}

/// Credentials for the session store. The environment (`TWINSITE_REDIS_USERNAME`, `TWINSITE_REDIS_PASSWORD`)
/// counts where no file is named.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(clippy::struct_field_names, reason = "the keys say that they name files")]
pub struct SessionsConfig {
    /// A file that holds the user name.
    pub username_file: Option<PathBuf>,
    /// A file that holds the password.
    pub password_file: Option<PathBuf>,
    /// The certificate authority of a `rediss://` server, if it is not a public one.
    pub ca_file: Option<PathBuf>,
}

/// The metrics listener.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MetricsConfig {
    /// Where it listens.
    pub listen: SocketAddr,
}

/// Switches of clusters that live and die with a program.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LabConfig {
    /// End when standard input closes, so that nothing outlives a killed demo.
    #[serde(default)]
    pub exit_with_stdin: bool,
}

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file cannot be read.
    #[error("{}: {source}; check that the path is right and that this user may read it", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file is not what it should be.
    #[error("{}: {problem}", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// What and where.
        problem: String,
    },
    /// The specification is unusable; one line, however much is wrong with it.
    #[error("{}: {}", path.display(), source.to_string().replace('\n', "; "))]
    Spec {
        /// The file.
        path: PathBuf,
        /// What and where.
        source: SpecError,
    },
    /// The two files contradict each other.
    #[error("{}: {key}: {problem}", path.display())]
    Contradiction {
        /// The file.
        path: PathBuf,
        /// The key.
        key: &'static str,
        /// What, and what to do.
        problem: String,
    },
}

impl NodeConfig {
    /// The interface on which this host puts an address, if it puts it on one.
    pub fn interface(&self, ip: &FloatingIpSpec) -> Option<InterfaceName> {
        match ip.provider {
            ProviderKind::Netlink => self.interfaces.get(&ip.name).or(ip.interface.as_ref()).cloned(),
            ProviderKind::Loopback | ProviderKind::Ovh => None,
        }
    }
}

/// A node's configuration and the specification that it names, checked against each other.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The node's own configuration, with absolute paths.
    pub node: NodeConfig,
    /// The specification with which the cluster begins.
    pub spec: ClusterSpec,
    /// The node's entry in it.
    pub me: spec::NodeSpec,
}

/// Reads `node.toml` and the specification that it names.
pub fn load(path: &Path) -> Result<Loaded, ConfigError> {
    let text = read(path)?;
    let mut node: NodeConfig = toml::from_str(&text)
        .map_err(|error| ConfigError::Parse { path: path.to_owned(), problem: one_line(&error, &text) })?;
    let base = path.parent().unwrap_or(Path::new("."));
    absolutize(&mut node, base);

    let cluster_path = node.cluster_file.clone();
    let spec = spec::from_toml(&read(&cluster_path)?)
        .map_err(|source| ConfigError::Spec { path: cluster_path.clone(), source })?;
    let contradiction = |key, problem| ConfigError::Contradiction { path: path.to_owned(), key, problem };
    let me = spec.node_named(&node.node).cloned().ok_or_else(|| {
        let known: Vec<_> = spec.nodes.iter().map(|node| node.name.as_str()).collect();
        let problem = format!(
            "`{}` is not in {}; write one of: {}",
            node.node,
            cluster_path.display(),
            known.join(", ")
        );
        contradiction("node", problem)
    })?;
    for name in node.interfaces.keys() {
        let known = spec.floating_ips.iter().find(|ip| ip.name == *name);
        if known.is_none_or(|ip| ip.provider != ProviderKind::Netlink) {
            let problem = format!(
                "there is no floating IP `{name}` of provider `netlink` in {}",
                cluster_path.display()
            );
            return Err(contradiction("interfaces", problem));
        }
    }
    for instance in &node.instances {
        let upstream = spec.upstream(&instance.upstream).ok_or_else(|| {
            let problem =
                format!("there is no upstream `{}` in {}", instance.upstream, cluster_path.display());
            contradiction("instance.upstream", problem)
        })?;
        if upstream.site != me.site {
            let problem = format!(
                "`{}` is at site `{}`, this node at `{}`; let a node of its own site deliver to it",
                upstream.name, upstream.site, me.site
            );
            return Err(contradiction("instance.upstream", problem));
        }
    }
    Ok(Loaded { node, spec, me })
}

fn absolutize(node: &mut NodeConfig, base: &Path) {
    let paths = [
        Some(&mut node.cluster_file),
        Some(&mut node.data),
        Some(&mut node.tls.ca),
        Some(&mut node.tls.cert),
        Some(&mut node.tls.key),
        node.sessions.username_file.as_mut(),
        node.sessions.password_file.as_mut(),
        node.sessions.ca_file.as_mut(),
    ];
    let instances = node.instances.iter_mut().map(|instance| &mut instance.announced_file);
    for path in paths.into_iter().flatten().chain(instances) {
        *path = base.join(&*path);
    }
}

fn read(path: &Path) -> Result<String, ConfigError> {
    let failed = |source| ConfigError::Read { path: path.to_owned(), source };
    let size = fs::metadata(path).map_err(failed)?.len();
    if size > FILE_BYTES_MAX {
        return Err(failed(io::Error::new(io::ErrorKind::FileTooLarge, "larger than 16 MiB")));
    }
    fs::read_to_string(path).map_err(failed)
}

/// A TOML error in one line, with the place where a person finds it.
pub fn one_line(error: &toml::de::Error, text: &str) -> String {
    let place = error.span().map_or_else(String::new, |span| {
        let before = &text[..span.start.min(text.len())];
        let line = before.matches('\n').count() + 1;
        let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
        format!("line {line}, column {column}: ")
    });
    format!("{place}{}", error.message().replace('\n', " "))
}
