//! Reports as files: a folder for each drill, with the report as JSON, as JUnit XML and as a page, and the scenario; what
//! the nodes and guardians wrote last too, if it failed.
//!
//! A report is written under another name and renamed, so that it is there whole or not at all. The newest
//! [`ENTRIES_MAX`] are kept. Who runs a drill holds the archive's [`Claim`], by which it is found and can be aborted.

mod claim;
mod junit;
mod markup;
mod page;
mod picture;
mod scale;
#[cfg(test)]
mod tests;

pub use claim::{Claim, Running};
pub use junit::junit;
pub use page::page;

use crate::engine::{REPORT_VERSION, Report};
use crate::lab::life::Life;
use serde::Deserialize;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

/// How many reports are kept; older ones are removed.
pub const ENTRIES_MAX: usize = 200;
/// The longest report that is read or written, in bytes.
pub const REPORT_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// The file with the page, for those who look.
pub const PAGE: &str = "report.html";
const JSON: &str = "report.json";
const JUNIT: &str = "report.xml";
const SCENARIO: &str = "scenario.toml";
const LOGS: &str = "logs";
/// What is not whole yet has this at the beginning of its name, then whose it is.
const NEW: &str = ".new-";
/// As much of a scenario's name as goes into that of an entry.
const NAME_MAX: usize = 64;
/// Drills of one name that begin in the same second.
const SAME_SECOND_MAX: u32 = 99;
/// The last second that has a year of four digits, in milliseconds since 1970.
const LAST_MS: u64 = 253_402_300_799_000;

/// Why a report cannot be kept, found or read.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The system refused.
    #[error("archive of drills: {}: {source}; --reports DIR or TWINSITE_REPORTS names another folder", path.display())]
    Io {
        /// What.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// There is no such report.
    #[error("there is no report `{id}` in {}; `twinsite drill history` lists them", root.display())]
    Unknown {
        /// What was asked for.
        id: String,
        /// Where.
        root: PathBuf,
    },
    /// There is no report.
    #[error("there is no report in {} yet; `twinsite drill run` makes one", root.display())]
    Empty {
        /// Where.
        root: PathBuf,
    },
    /// A report cannot be understood.
    #[error("{}: {problem}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// Somebody runs a drill.
    #[error(
        "a drill runs already: `{}`, process {}; wait for its end, or end it with `twinsite drill abort`",
        running.scenario,
        running.life.pid
    )]
    Taken {
        /// Which.
        running: Running,
    },
}

/// A report in the archive.
#[derive(Debug)]
pub struct Entry {
    /// Its name: when it began, in UTC, and the scenario's name.
    pub id: String,
    /// Its folder.
    pub folder: PathBuf,
    /// What is in it, or why that cannot be read.
    pub report: Result<Report, ArchiveError>,
}

/// A folder with reports.
#[derive(Debug, Clone)]
pub struct Archive {
    root: PathBuf,
}

impl Archive {
    /// The archive in this folder, which need not be there yet.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Where it is.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Keeps a report, with the text of its scenario if there is one, and says in which folder. The oldest beyond the bound go.
    pub fn keep(&self, report: &Report, scenario: Option<&str>) -> Result<PathBuf, ArchiveError> {
        self.make_root()?;
        self.forget_unfinished();
        let failed = |path: &Path, source| ArchiveError::Io { path: path.to_owned(), source };
        let json = report.to_json().map_err(|error| failed(&self.root.join(JSON), error.into()))?;
        if json.len() as u64 > REPORT_BYTES_MAX {
            let source = io::Error::other(format!("the report is longer than {REPORT_BYTES_MAX} bytes"));
            return Err(failed(&self.root.join(JSON), source));
        }
        let own = Life::own().map_err(|error| failed(&self.root, error))?;
        let new = self.root.join(format!("{NEW}{}-{}", own.pid, own.started));
        let written = DirBuilder::new().create(&new).and_then(|()| {
            write(&new.join(JSON), &json)?;
            write(&new.join(JUNIT), &junit(report))?;
            write(&new.join(PAGE), &page(report))?;
            write_logs(&new.join(LOGS), report)?;
            scenario.map_or(Ok(()), |text| write(&new.join(SCENARIO), text))
        });
        let kept = written.and_then(|()| self.name(&new, report));
        if kept.is_err() {
            // What is left of it goes with the next one.
            fs::remove_dir_all(&new).ok();
        }
        let kept = kept.map_err(|error| failed(&new, error))?;
        self.prune()?;
        Ok(kept)
    }

    /// Gives a whole entry its name.
    fn name(&self, new: &Path, report: &Report) -> io::Result<PathBuf> {
        let id = id(report);
        for number in 1..=SAME_SECOND_MAX {
            let folder = self.root.join(if number == 1 { id.clone() } else { format!("{id}-{number}") });
            match fs::rename(new, &folder) {
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists
                    ) => {}
                renamed => return renamed.map(|()| folder),
            }
        }
        Err(io::Error::other("too many drills in one second"))
    }

    /// Every report, the oldest first. One that cannot be read is among them, with the reason.
    pub fn entries(&self) -> Result<Vec<Entry>, ArchiveError> {
        let entry = |id: String| {
            let folder = self.root.join(&id);
            let report = read(&folder.join(JSON));
            Entry { id, folder, report }
        };
        Ok(self.ids()?.into_iter().map(entry).collect())
    }

    /// The report of this name, or the newest one.
    pub fn find(&self, id: Option<&str>) -> Result<(String, Report), ArchiveError> {
        let ids = self.ids()?;
        let id = match id {
            // Only what is listed is opened, whatever was typed.
            Some(wanted) => ids
                .into_iter()
                .find(|id| id == wanted)
                .ok_or_else(|| ArchiveError::Unknown { id: wanted.to_owned(), root: self.root.clone() })?,
            None => ids.into_iter().next_back().ok_or(ArchiveError::Empty { root: self.root.clone() })?,
        };
        let report = read(&self.root.join(&id).join(JSON))?;
        Ok((id, report))
    }

    /// The names of all entries, the oldest first.
    fn ids(&self) -> Result<Vec<String>, ArchiveError> {
        let failed = |source| ArchiveError::Io { path: self.root.clone(), source };
        let entries = match fs::read_dir(&self.root) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(failed)?,
        };
        let mut ids = Vec::new();
        for entry in entries {
            let entry = entry.map_err(failed)?;
            let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
            ids.extend(entry.file_name().into_string().ok().filter(|id| is_folder && is_id(id)));
        }
        ids.sort_unstable();
        Ok(ids)
    }

    /// Removes the oldest beyond the bound, and nothing that is not named as entries are.
    fn prune(&self) -> Result<(), ArchiveError> {
        let ids = self.ids()?;
        for id in ids.iter().take(ids.len().saturating_sub(ENTRIES_MAX)) {
            let path = self.root.join(id);
            match fs::remove_dir_all(&path) {
                Err(source) if source.kind() != io::ErrorKind::NotFound => {
                    return Err(ArchiveError::Io { path, source });
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Removes what killed processes had begun to write. That this fails now is no reason to keep nothing.
    fn forget_unfinished(&self) {
        let Ok(entries) = fs::read_dir(&self.root) else { return };
        for entry in entries.flatten() {
            let name = entry.file_name();
            let Some(life) = name.to_str().and_then(|name| life_of(name.strip_prefix(NEW)?)) else {
                continue;
            };
            if !life.goes_on() || Life::own().is_ok_and(|own| own == life) {
                fs::remove_dir_all(entry.path()).ok();
            }
        }
    }

    fn make_root(&self) -> Result<(), ArchiveError> {
        let made = DirBuilder::new().recursive(true).create(&self.root);
        made.map_err(|source| ArchiveError::Io { path: self.root.clone(), source })
    }
}

/// Reads a report, if it is one that this program understands.
pub fn read(path: &Path) -> Result<Report, ArchiveError> {
    #[derive(Deserialize)]
    struct Head {
        version: u32,
    }
    let unreadable = |problem: String| ArchiveError::Unreadable { path: path.to_owned(), problem };
    let mut json = Vec::new();
    let file = File::open(path).map_err(|error| unreadable(error.to_string()))?;
    file.take(REPORT_BYTES_MAX + 1).read_to_end(&mut json).map_err(|error| unreadable(error.to_string()))?;
    if json.len() as u64 > REPORT_BYTES_MAX {
        return Err(unreadable(format!("longer than {REPORT_BYTES_MAX} bytes: that is no report")));
    }
    let is_none = |error: serde_json::Error| unreadable(format!("it is no report of a drill: {error}"));
    let Head { version } = serde_json::from_slice(&json).map_err(is_none)?;
    if version != REPORT_VERSION {
        let problem = format!(
            "a report of version {version}, and this program reads version {REPORT_VERSION}; use the twinsite that wrote it"
        );
        return Err(unreadable(problem));
    }
    serde_json::from_slice(&json).map_err(is_none)
}

/// `logs/1/node-gra-1.log`: of each run that has some.
fn write_logs(folder: &Path, report: &Report) -> io::Result<()> {
    for run in report.runs.iter().filter(|run| !run.logs.is_empty()) {
        let folder = folder.join(run.run.to_string());
        DirBuilder::new().recursive(true).create(&folder)?;
        for log in &run.logs {
            File::create_new(folder.join(format!("{}.log", log.name)))?.write_all(&log.end)?;
        }
    }
    Ok(())
}

fn write(path: &Path, text: &str) -> io::Result<()> {
    let mut file = File::create_new(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

/// `20261128T104421Z-site-loss`.
fn id(report: &Report) -> String {
    let moment: String = utc(report.began_ms).chars().filter(|c| !matches!(c, '-' | ':')).collect();
    let plain = |c: char| if c.is_ascii_lowercase() || c.is_ascii_digit() { c } else { '-' };
    let name: String = report.scenario.chars().map(plain).take(NAME_MAX).collect();
    format!("{moment}-{name}")
}

/// Whether a name is that of an entry.
fn is_id(name: &str) -> bool {
    let Some((moment, scenario)) = name.split_once('-') else { return false };
    let digits = |part: &str, count| part.len() == count && part.bytes().all(|byte| byte.is_ascii_digit());
    let is_moment = moment
        .strip_suffix('Z')
        .and_then(|moment| moment.split_once('T'))
        .is_some_and(|(day, time)| digits(day, 8) && digits(time, 6));
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    is_moment && !scenario.is_empty() && scenario.bytes().all(is_plain)
}

/// `PID-STARTED`, as it is in names of files.
fn life_of(text: &str) -> Option<Life> {
    let (pid, started) = text.split_once('-')?;
    Some(Life { pid: pid.parse().ok()?, started: started.parse().ok()? })
}

/// A moment in UTC, to the second: `2026-11-28T10:44:21Z`.
pub fn utc(unix_ms: u64) -> String {
    let since = Duration::from_millis(unix_ms.min(LAST_MS));
    humantime::format_rfc3339_seconds(UNIX_EPOCH + since).to_string()
}
