//! A file system of a node's own, in memory, that can be filled: for what a full disk does. Slow disks need a device
//! mapper or a controller of the kernel's that not every machine has, so there are none.

use super::{LabError, PREFIX, run};
use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

/// The file that takes all room.
const BALLAST: &str = "ballast";
/// How much of it is written at once: first much, in the end every byte that still fits.
const PIECES: [usize; 3] = [256 * 1024, 4 * 1024, 1];
/// Where the kernel says what is mounted.
const MOUNTS: &str = "/proc/self/mounts";

/// A small file system at a folder, for as long as this value lives.
#[derive(Debug)]
pub(crate) struct Disk(PathBuf);

impl Disk {
    /// Mounts one at an empty folder. Needs root.
    pub(crate) fn mount(at: &Path, mib: u32) -> Result<Self, LabError> {
        let name = format!("{PREFIX}{}-disk", std::process::id());
        let options = format!("size={mib}m,mode=700");
        run("mount", &["-t", "tmpfs", "-o", &options, &name, &at.to_string_lossy()])?;
        Ok(Self(at.to_owned()))
    }

    /// Leaves no room. What a node has freed since, as it does with its log, is taken again.
    pub(crate) fn fill(&self) -> io::Result<()> {
        let mut ballast = File::options().create(true).append(true).open(self.0.join(BALLAST))?;
        for piece in PIECES.map(|length| vec![0; length]) {
            loop {
                match ballast.write_all(&piece) {
                    Ok(()) => {}
                    Err(error) if error.kind() == ErrorKind::StorageFull => break,
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }

    /// Whether it was filled.
    pub(crate) fn is_full(&self) -> bool {
        self.0.join(BALLAST).exists()
    }

    /// Makes room again.
    pub(crate) fn free(&self) -> io::Result<()> {
        match fs::remove_file(self.0.join(BALLAST)) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: who still has a file open there is just being killed.
        drop(run("umount", &["--lazy", &self.0.to_string_lossy()]));
    }
}

/// Unmounts what a lab has left whose process is gone, as `gone` says by the name.
pub(super) fn unmount_leftovers(gone: impl Fn(&str) -> bool) {
    let mounts = fs::read_to_string(MOUNTS).unwrap_or_default();
    let left = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ');
        let (name, at) = (fields.next()?, fields.next()?);
        gone(name).then_some(at)
    });
    for at in left {
        // Blanks and their like are written in octal there; a cluster's folder has none unless its user wanted one.
        drop(run("umount", &["--lazy", at]));
    }
}
