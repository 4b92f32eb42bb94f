//! What a forced recovery leaves for the node's next start: which generation to announce, and what was attested.

use serde::{Deserialize, Serialize};
use std::fs;
use std::io;
use std::path::Path;
use twinsite_model::Generation;

const FILE: &str = "recovery.json";

/// Written by `twinsite recover`, read by every later start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecoveryNote {
    /// The generation that began.
    pub generation: Generation,
    /// The voters that were named as lost.
    pub lost: Vec<String>,
    /// Whether a person attested that they are powered off.
    pub attested: bool,
}

impl RecoveryNote {
    /// Writes it durably.
    pub fn write(&self, data: &Path) -> io::Result<()> {
        let new = data.join("recovery.new");
        fs::write(&new, serde_json::to_vec(self)?)?;
        fs::File::open(&new)?.sync_all()?;
        fs::rename(&new, data.join(FILE))?;
        fs::File::open(data)?.sync_all()
    }

    /// Reads it, if there is one.
    pub fn read(data: &Path) -> io::Result<Option<Self>> {
        match fs::read(data.join(FILE)) {
            Ok(json) => Ok(Some(serde_json::from_slice(&json)?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The sentence for the replicated history.
    pub fn statement(&self) -> String {
        let attested =
            if self.attested { "attested to be powered off" } else { "not attested to be powered off" };
        format!("lost: {} ({attested})", self.lost.join(", "))
    }
}
