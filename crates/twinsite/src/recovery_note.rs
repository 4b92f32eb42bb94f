//! What a forced recovery leaves for the node's next start, as a file.
//!
//! It is written before the disk is rewritten, so that no recovery is without it. One whose recovery did not come to
//! pass speaks of a generation that the disk does not have, and says nothing.

use crate::sealed_file::{self, SealedError};
use std::io;
use std::path::Path;
use twinsite_agents::RecoveryNote;

const FILE: &str = "recovery.json";

/// Writes it durably.
pub fn write(note: &RecoveryNote, data: &Path) -> io::Result<()> {
    sealed_file::write(data, FILE, &serde_json::to_string(note)?)
}

/// Reads it, if there is one.
pub fn read(data: &Path) -> Result<Option<RecoveryNote>, SealedError> {
    let Some(json) = sealed_file::read(data, FILE)? else { return Ok(None) };
    let note = serde_json::from_str(&json);
    note.map(Some).map_err(|error| SealedError::Damaged(format!("{FILE}: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use twinsite_agents::LostNode;
    use twinsite_model::{Generation, NodeId};

    fn note(generation: u64) -> RecoveryNote {
        let lost = vec![LostNode { id: NodeId(2), name: "two".to_owned() }];
        RecoveryNote { generation: Generation(generation), lost, attested: true }
    }

    #[test]
    fn it_is_read_back_and_damage_is_told_from_absence() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(read(folder.path()).unwrap(), None);
        write(&note(2), folder.path()).unwrap();
        assert_eq!(read(folder.path()).unwrap(), Some(note(2)));
        let path = folder.path().join(FILE);
        let other = std::fs::read_to_string(&path).unwrap().replace("true", "null");
        std::fs::write(&path, other).unwrap();
        assert!(matches!(read(folder.path()), Err(SealedError::Damaged(_))));
    }
}
