//! Real Socket.IO: the programs in `tests/socketio`, with their packages from npm.

use crate::{left_out, program};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The programs, ready to be run with `node`.
#[derive(Debug, Clone)]
pub struct SocketIo {
    folder: PathBuf,
}

impl SocketIo {
    /// Their folder, with the packages that `cargo xtask test` installs there; else it is said what is missing.
    ///
    /// # Panics
    /// If the programs cannot be copied there.
    pub fn installed(what: &str) -> Option<Self> {
        if Command::new("node").arg("--version").output().is_err() {
            left_out(what, "node is not installed");
            return None;
        }
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("socketio");
        let target = program().ancestors().nth(2).map(Path::to_owned).unwrap_or_default();
        let folder = target.join("socketio");
        let read = |folder: &Path| fs::read(folder.join("package-lock.json")).ok();
        // npm writes this last.
        let whole = folder.join("node_modules/.package-lock.json").is_file();
        if !whole || read(&folder) != read(&source) {
            left_out(what, "the packages of npm are not installed; `cargo xtask test` does that");
            return None;
        }
        // A module's packages are looked for where it lies.
        for script in ["meeting.mjs", "participants.mjs"] {
            let copied = fs::copy(source.join(script), folder.join(script));
            copied.unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        }
        Some(Self { folder })
    }

    /// The meeting instance, as `twinsite lab up --meeting-program` takes it.
    pub fn meeting(&self) -> String {
        format!("node '{}'", self.folder.join("meeting.mjs").display())
    }

    /// The program of the participants.
    pub fn participants(&self) -> PathBuf {
        self.folder.join("participants.mjs")
    }
}
