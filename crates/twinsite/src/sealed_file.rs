//! Small files that are written whole, durably, with a checksum: a flipped bit must not pass for another value.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

/// Why a file cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum SealedError {
    /// The system refused.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It does not hold what was written.
    #[error("{0}")]
    Damaged(String),
}

/// Replaces a file of a directory, durably. The content is one line.
pub fn write(directory: &Path, name: &str, content: &str) -> io::Result<()> {
    let new = directory.join(format!("{name}.new"));
    let mut file = fs::File::create(&new)?;
    write!(file, "{content}\n{}\n", checksum(content))?;
    file.sync_all()?;
    fs::rename(&new, directory.join(name))?;
    fs::File::open(directory)?.sync_all()
}

/// What the file holds; none if there is none.
pub fn read(directory: &Path, name: &str) -> Result<Option<String>, SealedError> {
    let bytes = match fs::read(directory.join(name)) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let damaged = |what: &str| SealedError::Damaged(format!("{name}: {what}"));
    let text = String::from_utf8(bytes).map_err(|_| damaged("it is no text"))?;
    let parts = text.strip_suffix('\n').and_then(|text| text.split_once('\n'));
    let (content, sum) = parts.ok_or_else(|| damaged("its checksum is missing"))?;
    if sum != checksum(content) {
        return Err(damaged("its checksum does not fit"));
    }
    Ok(Some(content.to_owned()))
}

fn checksum(content: &str) -> String {
    format!("crc32c {:08x}", crc32c::crc32c(content.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flipped_bit_and_every_cut_is_found() {
        let folder = tempfile::tempdir().unwrap();
        assert!(read(folder.path(), "count").unwrap().is_none());
        write(folder.path(), "count", "1234").unwrap();
        assert_eq!(read(folder.path(), "count").unwrap().as_deref(), Some("1234"));
        let path = folder.path().join("count");
        let whole = fs::read(&path).unwrap();
        for at in 0..whole.len() {
            for bit in 0..8 {
                let mut flipped = whole.clone();
                flipped[at] ^= 1 << bit;
                fs::write(&path, flipped).unwrap();
                assert!(matches!(read(folder.path(), "count"), Err(SealedError::Damaged(_))), "{at}.{bit}");
            }
            fs::write(&path, &whole[..at]).unwrap();
            assert!(matches!(read(folder.path(), "count"), Err(SealedError::Damaged(_))), "cut at {at}");
        }
    }
}
