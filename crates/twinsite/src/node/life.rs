//! Which life of this node's disk this process is.

use std::fs;
use std::io::{self, Write};
use std::path::Path;
use twinsite_model::Incarnation;

/// Counts the lives of a data directory.
const FILE: &str = "lives";

/// Begins a new life: counts it, durably, before anything else is done with it.
pub fn begin(data: &Path) -> io::Result<Incarnation> {
    let path = data.join(FILE);
    let before: u32 = match fs::read_to_string(&path) {
        Ok(text) => text.trim().parse().map_err(|_| {
            let problem = format!(
                "{} does not hold a number; remove it only together with the whole directory",
                path.display()
            );
            io::Error::new(io::ErrorKind::InvalidData, problem)
        })?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
        Err(error) => return Err(error),
    };
    let count = before.checked_add(1).ok_or_else(|| io::Error::other("too many lives"))?;
    let new = data.join("lives.new");
    let mut file = fs::File::create(&new)?;
    writeln!(file, "{count}")?;
    file.sync_all()?;
    fs::rename(&new, &path)?;
    fs::File::open(data)?.sync_all()?;
    let random = getrandom::u32().map_err(io::Error::other)?;
    Ok(Incarnation(u64::from(count) << 32 | u64::from(random)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_lives_are_larger() {
        let folder = tempfile::tempdir().unwrap();
        let first = begin(folder.path()).unwrap();
        let second = begin(folder.path()).unwrap();
        assert!(second > first);
        fs::write(folder.path().join(FILE), "x").unwrap();
        assert!(begin(folder.path()).is_err());
    }
}
