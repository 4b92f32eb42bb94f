//! The files of a cluster: one folder for each process, and the specification and certificates that they share.

use super::certificates::{Authority, CertificateError, Identity};
use crate::layout::{Layout, METRICS_PORT, NodePlace};
use crate::meeting::Answers;
use serde::Serialize;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use twinsite_model::dial::DialRule;
use twinsite_model::{NodeName, UpstreamName};

/// Why a cluster's files cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// A file or folder cannot be written.
    #[error("{}: {source}; check the space and the permissions there", path.display())]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The folder holds something already.
    #[error("{}: not empty; name a new or empty folder, so that no old data is taken for this cluster's", path.display())]
    NotEmpty {
        /// Which.
        path: PathBuf,
    },
    /// A certificate cannot be made.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// A configuration cannot be put into words; a defect of this program.
    #[error("cannot write {what} as TOML: {source}")]
    Toml {
        /// Which.
        what: &'static str,
        /// Why.
        source: toml::ser::Error,
    },
}

/// `node.toml`, as it is written.
#[derive(Serialize)]
struct NodeFile<'a> {
    node: &'a NodeName,
    cluster_file: &'a str,
    bootstrap: bool,
    data: &'a str,
    tls: TlsFile,
    dial: Vec<DialRule>,
    #[serde(rename = "instance")]
    instances: Vec<InstanceFile<'a>>,
    metrics: MetricsFile,
    lab: LabFile,
}

#[derive(Serialize)]
struct TlsFile {
    ca: &'static str,
    cert: &'static str,
    key: &'static str,
}

#[derive(Serialize)]
struct InstanceFile<'a> {
    upstream: &'a UpstreamName,
    announced_file: PathBuf,
}

#[derive(Serialize)]
struct MetricsFile {
    listen: SocketAddr,
}

#[derive(Serialize)]
struct LabFile {
    exit_with_stdin: bool,
}

/// Where everything of a cluster lies.
#[derive(Debug, Clone)]
pub(super) struct Files {
    root: PathBuf,
}

impl Files {
    pub(super) fn new(root: PathBuf) -> Self {
        Self { root }
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    pub(super) fn of(&self, process: &str) -> PathBuf {
        self.root.join(process)
    }

    pub(super) fn node_config(&self, node: &NodeName) -> PathBuf {
        self.of(node.as_str()).join("node.toml")
    }

    /// One file per instance, written by every node of its site: whichever of them lives keeps it right.
    pub(super) fn announced(&self, instance: &UpstreamName) -> PathBuf {
        self.root.join("announced").join(instance.as_str())
    }

    /// Where a node's log and state are.
    pub(super) fn data(&self, node: &NodeName) -> PathBuf {
        self.of(node.as_str()).join("data")
    }

    pub(super) fn answers(&self, instance: &UpstreamName) -> PathBuf {
        self.of(instance.as_str()).join("answers")
    }

    /// Tells an instance how to answer; never half a word.
    pub(super) fn tell_answers(&self, instance: &UpstreamName, answers: Answers) -> Result<(), FilesError> {
        let path = self.answers(instance);
        let new = path.with_extension("new");
        write(&new, &answers.to_string())?;
        fs::rename(&new, &path).map_err(|source| FilesError::Write { path, source })
    }

    pub(super) fn redis(&self) -> PathBuf {
        self.of("redis")
    }

    /// Writes everything a new cluster needs to start.
    pub(super) fn write(&self, layout: &Layout) -> Result<(), FilesError> {
        folder(&self.root)?;
        let mut entries = fs::read_dir(&self.root)
            .map_err(|source| FilesError::Write { path: self.root.clone(), source })?;
        if entries.next().is_some() {
            return Err(FilesError::NotEmpty { path: self.root.clone() });
        }
        folder(&self.root.join("announced"))?;
        folder(&self.redis())?;
        let spec = toml::to_string(&layout.spec())
            .map_err(|source| FilesError::Toml { what: "cluster.toml", source })?;
        write(&self.root.join("cluster.toml"), &spec)?;

        let authority = Authority::new(&layout.cluster)?;
        write(&self.root.join("ca.pem"), authority.pem())?;
        let operator = authority.operator("demo")?;
        write_identity(&self.root, "operator", &operator)?;
        if layout.https.is_some() {
            write_identity(&self.root, "tls", &authority.server("localhost")?)?;
        }
        for node in &layout.nodes {
            self.write_node(layout, node, &spec, &authority)?;
        }
        for instance in &layout.instances {
            folder(&self.of(instance.name.as_str()))?;
        }
        Ok(())
    }

    fn write_node(
        &self,
        layout: &Layout,
        node: &NodePlace,
        spec: &str,
        authority: &Authority,
    ) -> Result<(), FilesError> {
        let home = self.of(node.name.as_str());
        folder(&home)?;
        folder(&self.data(&node.name))?;
        write(&home.join("cluster.toml"), spec)?;
        write(&home.join("ca.pem"), authority.pem())?;
        write_identity(&home, "node", &authority.node(node.id, &layout.addresses_of(node))?)?;
        let instances = layout.instances_at(&node.site).map(|instance| InstanceFile {
            upstream: &instance.name,
            announced_file: Path::new("../announced").join(instance.name.as_str()),
        });
        let file = NodeFile {
            node: &node.name,
            cluster_file: "cluster.toml",
            bootstrap: layout.nodes.first().is_some_and(|first| first.id == node.id),
            data: "data",
            tls: TlsFile { ca: "ca.pem", cert: "node.pem", key: "node.key" },
            dial: layout.dial_rules(&node.site),
            instances: instances.collect(),
            metrics: MetricsFile { listen: SocketAddr::new(node.ip, METRICS_PORT) },
            lab: LabFile { exit_with_stdin: true },
        };
        let text = toml::to_string(&file).map_err(|source| FilesError::Toml { what: "node.toml", source })?;
        write(&self.node_config(&node.name), &text)
    }

    /// Forgets everything that the cluster has written, so that it can begin anew.
    pub(super) fn wipe(&self, layout: &Layout) -> Result<(), FilesError> {
        let data = layout.nodes.iter().map(|node| self.data(&node.name));
        for path in data.chain([self.redis(), self.root.join("announced")]) {
            folder(&path)?;
            empty(&path).map_err(|source| FilesError::Write { path, source })?;
        }
        Ok(())
    }
}

fn folder(path: &Path) -> Result<(), FilesError> {
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|source| FilesError::Write { path: path.to_owned(), source })
}

/// Removes what is in a folder, which stays: something may be mounted there.
fn empty(path: &Path) -> io::Result<()> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            fs::remove_dir_all(entry.path())?;
        } else {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

fn write(path: &Path, text: &str) -> Result<(), FilesError> {
    fs::write(path, text).map_err(|source| FilesError::Write { path: path.to_owned(), source })
}

fn write_identity(home: &Path, name: &str, identity: &Identity) -> Result<(), FilesError> {
    write(&home.join(format!("{name}.pem")), &identity.certificate)?;
    let path = home.join(format!("{name}.key"));
    let mut options = fs::OpenOptions::new();
    let opened = options.write(true).create(true).truncate(true).mode(0o600).open(&path);
    opened
        .and_then(|mut file| io::Write::write_all(&mut file, identity.key.as_bytes()))
        .map_err(|source| FilesError::Write { path, source })
}
