//! The number of the newest commit, in a file of its own.
//!
//! The database keeps two commits and one bit that says which is the newer. Should that bit flip, it would open
//! perfectly well one commit ago, and an acknowledged entry would be gone without a sound. So the number of each
//! commit is also written here, without waiting for the disk: after a crash of the process it is exact, after a
//! power failure it may lag, and lagging is harmless because only a database *older* than it is refused.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// The two places are in one sector, so that a power failure leaves each either old or new.
const PLACES: [u64; 2] = [0, 64];
const SIZE: usize = 12;

/// The file.
pub(super) struct Watermark(File);

impl Watermark {
    /// Makes the file, with the number zero. The caller makes it durable together with its directory.
    pub(super) fn create(path: &Path) -> io::Result<Self> {
        let file = File::options().read(true).write(true).create(true).truncate(true).open(path)?;
        let watermark = Self(file);
        watermark.write_at(PLACES[0], 0)?;
        watermark.write_at(PLACES[1], 0)?;
        watermark.0.sync_all()?;
        Ok(watermark)
    }

    /// Opens the file and reads the number; none if neither place holds one.
    pub(super) fn open(path: &Path) -> io::Result<(Self, Option<u64>)> {
        let file = File::options().read(true).write(true).open(path)?;
        let watermark = Self(file);
        let newest = PLACES.iter().filter_map(|place| watermark.read_at(*place)).max();
        Ok((watermark, newest))
    }

    /// Notes a commit. Not synchronised, see above.
    pub(super) fn note(&self, commit: u64) -> io::Result<()> {
        self.write_at(PLACES[(commit % 2) as usize], commit)
    }

    /// Makes the number durable, when there is time for it.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn write_at(&self, place: u64, commit: u64) -> io::Result<()> {
        let mut bytes = [0; SIZE];
        bytes[..8].copy_from_slice(&commit.to_le_bytes());
        bytes[8..].copy_from_slice(&crc32c::crc32c(&commit.to_le_bytes()).to_le_bytes());
        self.0.write_all_at(&bytes, place)
    }

    fn read_at(&self, place: u64) -> Option<u64> {
        let mut bytes = [0; SIZE];
        self.0.read_exact_at(&mut bytes, place).ok()?;
        let (number, sum) = bytes.split_first_chunk::<8>()?;
        (crc32c::crc32c(number).to_le_bytes() == *sum).then_some(u64::from_le_bytes(*number))
    }
}
