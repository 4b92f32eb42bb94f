//! The labs of this machine, by name: a folder for each, with a record of whose it is and what it is made of.
//!
//! The folder goes when the lab is down, so a folder whose process has ended is what a killed one has left. What changes
//! folders has the register's lock, so that of two who want the same name one gets it.

use super::LabName;
use crate::lab::life::Life;
use crate::lab::{HostPlace, leftovers, places};
use crate::layout::Layout;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};
use twinsite_model::Profile;

/// Where all labs of a machine are noted. It is gone after a restart of the machine, as they are.
const ROOT: &str = "/run/twinsite-lab";
const LOCK: &str = ".lock";
const RECORD: &str = "lab.json";
const CONTROL: &str = "control";
const FILES: &str = "cluster";
/// The version of the record.
const VERSION: u32 = 1;
/// A record of the greatest lab is far shorter.
const RECORD_BYTES_MAX: u64 = 256 * 1024;

/// Why a lab cannot be noted or found.
#[derive(Debug, thiserror::Error)]
pub enum RegisterError {
    /// The name is taken.
    #[error(
        "a lab called `{name}` is up already, kept by process {pid}: end it with `twinsite lab down --name {name}`, or choose \
         another --name"
    )]
    Taken {
        /// The name.
        name: LabName,
        /// Whose it is.
        pid: u32,
    },
    /// There is no such lab.
    #[error("there is no lab called `{name}`{}", others(known))]
    Unknown {
        /// The name.
        name: LabName,
        /// Those that there are.
        known: Vec<LabName>,
    },
    /// A record cannot be understood.
    #[error(
        "{}: {problem}; it is damaged, or of another version of twinsite: take that lab down with the program that made it, \
         or end its process and remove the folder",
        path.display()
    )]
    Damaged {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// The system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// What.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

fn others(known: &[LabName]) -> String {
    if known.is_empty() {
        return ", and no other".to_owned();
    }
    format!("; there are: {}", known.iter().map(LabName::as_str).collect::<Vec<_>>().join(", "))
}

/// What is noted of a lab before anything of it is made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// The version of this format.
    version: u32,
    /// The process that keeps it.
    pub keeper: Life,
    /// When it was begun, in milliseconds since 1970.
    pub began_unix_ms: u64,
    /// The timings of its cluster.
    pub profile: Profile,
    /// The floating address.
    pub floating: SocketAddr,
    /// Its hosts, the clients' last.
    pub hosts: Vec<HostPlace>,
}

impl Record {
    /// A host by its name.
    pub fn host(&self, name: &str) -> Option<&HostPlace> {
        self.hosts.iter().find(|host| host.name == name)
    }
}

/// A lab that is noted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Its name.
    pub name: LabName,
    /// What is noted of it; none if whoever began it was killed before it noted anything.
    pub record: Option<Record>,
    register: Register,
}

/// What was removed of a lab whose process has ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Removed {
    /// How many namespaces.
    pub namespaces: usize,
    /// Processes that still live there, and cannot be ended.
    pub left: BTreeSet<u32>,
}

/// The labs of a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Register {
    root: PathBuf,
}

impl Default for Register {
    fn default() -> Self {
        Self::at(ROOT)
    }
}

impl Register {
    /// One that lies elsewhere.
    pub(super) fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Opens a file for what the process that keeps a lab has to say; what it says is added at the end.
    pub fn open_log(&self, name: &LabName) -> Result<File, RegisterError> {
        self.make_root()?;
        let path = self.log(name);
        let opened = File::options().create(true).append(true).mode(0o600).open(&path);
        opened.map_err(|source| RegisterError::Io { path, source })
    }

    fn log(&self, name: &LabName) -> PathBuf {
        self.root.join(format!("{name}.log"))
    }

    fn folder(&self, name: &LabName) -> PathBuf {
        self.root.join(name.as_str())
    }

    /// All that are noted, by name.
    pub fn labs(&self) -> Result<Vec<Found>, RegisterError> {
        let failed = |source| RegisterError::Io { path: self.root.clone(), source };
        let entries = match fs::read_dir(&self.root) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(failed)?,
        };
        let mut names = BTreeSet::new();
        for entry in entries {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name().to_str().and_then(|name| LabName::new(name).ok());
            names.extend(name.filter(|_| entry.file_type().is_ok_and(|kind| kind.is_dir())));
        }
        names.into_iter().map(|name| self.read(name)).collect()
    }

    /// The lab of this name.
    pub fn find(&self, name: &LabName) -> Result<Found, RegisterError> {
        if self.folder(name).is_dir() {
            return self.read(name.clone());
        }
        let known = self.labs()?.into_iter().map(|found| found.name).collect();
        Err(RegisterError::Unknown { name: name.clone(), known })
    }

    fn read(&self, name: LabName) -> Result<Found, RegisterError> {
        let path = self.folder(&name).join(RECORD);
        let record = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(source) => return Err(RegisterError::Io { path, source }),
            Ok(file) => {
                let mut text = String::new();
                let damaged = |problem: String| RegisterError::Damaged { path: path.clone(), problem };
                file.take(RECORD_BYTES_MAX)
                    .read_to_string(&mut text)
                    .map_err(|error| damaged(error.to_string()))?;
                let record: Record =
                    serde_json::from_str(&text).map_err(|error| damaged(error.to_string()))?;
                if record.version != VERSION {
                    return Err(damaged(format!("version {}, not {VERSION}", record.version)));
                }
                Some(record)
            }
        };
        Ok(Found { name, record, register: self.clone() })
    }

    /// Takes a name for the lab of this process, and what a killed one has left under it away.
    pub fn claim(&self, name: &LabName, layout: &Layout) -> Result<Claim, RegisterError> {
        let lock = self.lock()?;
        match self.find(name) {
            Ok(found) if found.is_kept() => {
                let pid = found.record.map_or(0, |record| record.keeper.pid);
                return Err(RegisterError::Taken { name: name.clone(), pid });
            }
            Ok(found) => {
                found.remove_locked()?;
            }
            Err(RegisterError::Unknown { .. }) => {}
            Err(error) => return Err(error),
        }
        let folder = self.folder(name);
        let failed = |source| RegisterError::Io { path: folder.clone(), source };
        DirBuilder::new().mode(0o700).create(&folder).map_err(failed)?;
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let record = Record {
            version: VERSION,
            keeper: Life::own().map_err(failed)?,
            began_unix_ms: u64::try_from(since.as_millis()).unwrap_or(u64::MAX),
            profile: layout.profile,
            floating: layout.floating,
            hosts: places(layout),
        };
        let noted = serde_json::to_vec(&record).map_err(io::Error::from);
        let noted = noted.and_then(|text| write_whole(&folder.join(RECORD), &text));
        if let Err(source) = noted {
            self.forget(name)?;
            return Err(failed(source));
        }
        drop(lock);
        let found = Found { name: name.clone(), record: Some(record.clone()), register: self.clone() };
        Ok(Claim { found, record })
    }

    fn make_root(&self) -> Result<(), RegisterError> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&self.root);
        made.map_err(|source| RegisterError::Io { path: self.root.clone(), source })
    }

    /// Nobody else changes the register until this is dropped.
    fn lock(&self) -> Result<File, RegisterError> {
        self.make_root()?;
        let path = self.root.join(LOCK);
        let opened = File::options().create(true).truncate(false).write(true).mode(0o600).open(&path);
        let locked = opened.and_then(|file| file.lock().map(|()| file));
        locked.map_err(|source| RegisterError::Io { path, source })
    }

    fn forget(&self, name: &LabName) -> Result<(), RegisterError> {
        let folder = self.folder(name);
        for (path, removed) in
            [(folder.clone(), fs::remove_dir_all(&folder)), (self.log(name), fs::remove_file(self.log(name)))]
        {
            match removed {
                Err(source) if source.kind() != io::ErrorKind::NotFound => {
                    return Err(RegisterError::Io { path, source });
                }
                _ => {}
            }
        }
        Ok(())
    }
}

impl Found {
    /// Whether the process that keeps it lives.
    pub fn is_kept(&self) -> bool {
        self.record.as_ref().is_some_and(|record| record.keeper.goes_on())
    }

    /// Its folder.
    pub fn folder(&self) -> PathBuf {
        self.register.folder(&self.name)
    }

    /// Where the process that keeps it listens.
    pub fn control(&self) -> PathBuf {
        self.folder().join(CONTROL)
    }

    /// The file by which commands reach its cluster.
    pub fn client_file(&self) -> PathBuf {
        self.files().join("client.toml")
    }

    /// The folder with the cluster's files and logs.
    pub fn files(&self) -> PathBuf {
        self.folder().join(FILES)
    }

    /// Where the process that keeps it says what it has to, unless that is on a terminal.
    pub fn log(&self) -> PathBuf {
        self.register.log(&self.name)
    }

    /// Those of its namespaces that are there.
    pub fn namespaces(&self) -> Vec<String> {
        self.record.as_ref().map_or_else(Vec::new, |record| leftovers::namespaces(record.keeper.pid))
    }

    /// Takes away what a lab has left whose process has ended; nothing of one whose process lives.
    pub fn remove(&self) -> Result<Removed, RegisterError> {
        let _lock = self.register.lock()?;
        // It may have been taken down meanwhile, and another one up.
        match self.register.find(&self.name) {
            Ok(now) if now == *self && !now.is_kept() => now.remove_locked(),
            Ok(_) | Err(RegisterError::Unknown { .. }) => Ok(Removed::default()),
            Err(error) => Err(error),
        }
    }

    fn remove_locked(&self) -> Result<Removed, RegisterError> {
        // Nobody has its number now, unless it was given anew, perhaps to a process with a lab: then these are that one's.
        let is_free = self.record.as_ref().is_some_and(|record| Life::of(record.keeper.pid).is_none());
        let namespaces = if is_free { self.namespaces() } else { Vec::new() };
        let left = leftovers::end_inhabitants(&namespaces);
        for namespace in &namespaces {
            leftovers::remove(namespace);
        }
        self.register.forget(&self.name)?;
        Ok(Removed { namespaces: namespaces.len(), left })
    }
}

/// A name that is this process's. It and everything in its folder go when this is dropped.
#[derive(Debug)]
pub struct Claim {
    found: Found,
    record: Record,
}

impl Claim {
    /// Where everything of the lab is.
    pub fn found(&self) -> &Found {
        &self.found
    }

    /// What is noted of it.
    pub fn record(&self) -> &Record {
        &self.record
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let register = &self.found.register;
        let forgotten = register.lock().and_then(|_lock| register.forget(&self.found.name));
        if let Err(error) = forgotten {
            tracing::warn!(%error, "what the lab has written cannot be removed");
        }
    }
}

/// Writes a file that is there whole or not at all.
fn write_whole(path: &Path, text: &[u8]) -> io::Result<()> {
    let new = path.with_extension("new");
    let mut file = File::options().create(true).write(true).truncate(true).mode(0o600).open(&new)?;
    file.write_all(text)?;
    fs::rename(&new, path)
}
