//! Which life of this node's disk this process is.

use crate::sealed_file::{self, SealedError};
use std::io;
use std::path::Path;
use twinsite_model::Incarnation;

/// Counts the lives of a data directory.
const FILE: &str = "lives";

/// Begins a new life: counts it, durably, before anything else is done with it. `used`: the directory has been used
/// before, so that a count must be there: without it this life might pass for an earlier one.
pub fn begin(data: &Path, used: bool) -> Result<Incarnation, SealedError> {
    let before: u32 = match sealed_file::read(data, FILE)? {
        Some(text) => {
            text.parse().map_err(|_| SealedError::Damaged(format!("{FILE}: it holds no number")))?
        }
        None if used => return Err(SealedError::Damaged(format!("{FILE} is missing"))),
        None => 0,
    };
    let count = before.checked_add(1).ok_or_else(|| io::Error::other("too many lives"))?;
    sealed_file::write(data, FILE, &count.to_string())?;
    let random = getrandom::u32().map_err(io::Error::other)?;
    Ok(Incarnation(u64::from(count) << 32 | u64::from(random)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_lives_are_larger_and_a_damaged_count_begins_none() {
        let folder = tempfile::tempdir().unwrap();
        let first = begin(folder.path(), false).unwrap();
        let second = begin(folder.path(), true).unwrap();
        assert!(second > first);
        let path = folder.path().join(FILE);
        let whole = std::fs::read_to_string(&path).unwrap();
        for damaged in [whole.replacen('2', "1", 1), "2\n".to_owned(), String::new()] {
            std::fs::write(&path, damaged).unwrap();
            assert!(matches!(begin(folder.path(), true), Err(SealedError::Damaged(_))));
        }
        std::fs::remove_file(&path).unwrap();
        assert!(matches!(begin(folder.path(), true), Err(SealedError::Damaged(_))));
    }
}
