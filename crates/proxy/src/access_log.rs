//! One line of JSON for each request, for those who look at what went wrong. It names no room: of paths, which may be names of
//! rooms, and of queries only a number is written that is the same for the same path.

use crate::client_address::Origin;
use crate::facts::scheme_name;
use crate::wall::wall_clock;
use http::{Method, Version};
use serde::Serialize;
use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;
use twinsite_model::{ClusterName, RouteName, UpstreamName};

/// Lines that wait for a slow disk; more are left out, and counted.
const LINES_MAX: usize = 8_192;
/// How long a line may wait to be written.
const FLUSH_EVERY: Duration = Duration::from_millis(200);
/// How often it is looked whether the file was moved away.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What is written of a request.
#[derive(Debug, Serialize)]
pub(crate) struct Record {
    /// When it came, in milliseconds since 1970.
    time_ms: u64,
    client: IpAddr,
    scheme: &'static str,
    version: &'static str,
    method: String,
    host: String,
    /// The same for the same path.
    path_key: String,
    route: RouteName,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) upstream: Option<UpstreamName>,
    pub(crate) status: u16,
    pub(crate) duration_us: u64,
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
}

impl Record {
    pub(crate) fn new(
        origin: Origin,
        version: Version,
        method: &Method,
        host: &str,
        path: &str,
        cluster: &ClusterName,
        route: &RouteName,
    ) -> Self {
        let key = twinsite_model::RoomKey::of(cluster, path).0;
        Self {
            time_ms: wall_clock().0,
            client: origin.client,
            scheme: scheme_name(origin.scheme),
            version: match version {
                Version::HTTP_2 => "2",
                Version::HTTP_10 => "1.0",
                _ => "1.1",
            },
            method: method.to_string(),
            host: host.chars().take(255).collect(),
            path_key: format!(
                "{:012x}",
                key[..6].iter().fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte))
            ),
            route: route.clone(),
            upstream: None,
            status: 0,
            duration_us: 0,
            bytes_in: 0,
            bytes_out: 0,
        }
    }
}

/// The log. Clones write to the same file.
#[derive(Debug, Clone)]
pub(crate) struct AccessLog {
    lines: SyncSender<Vec<u8>>,
    left_out: Arc<AtomicU64>,
}

impl AccessLog {
    /// Opens the file, and starts what writes to it. It ends when the last clone is dropped.
    pub(crate) fn start(path: &Path) -> io::Result<Self> {
        let file = Destination::open(path)?;
        let (lines, inbox) = sync_channel(LINES_MAX);
        std::thread::Builder::new().name("access-log".to_owned()).spawn(move || file.run(&inbox))?;
        Ok(Self { lines, left_out: Arc::default() })
    }

    /// Writes a line, unless too many wait already: a slow disk must not slow requests down.
    pub(crate) fn write(&self, record: &Record) {
        let Ok(mut line) = serde_json::to_vec(record) else { return };
        line.push(b'\n');
        if self.lines.try_send(line).is_err() {
            self.left_out.fetch_add(1, Ordering::Relaxed);
            metrics::counter!("twinsite_access_log_left_out_total").increment(1);
        }
    }
}

/// A file that somebody may move away (`logrotate` does), after which a new one is begun.
struct Destination {
    path: PathBuf,
    file: BufWriter<File>,
    inode: u64,
}

impl Destination {
    fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        let inode = file.metadata()?.ino();
        Ok(Self { path: path.to_owned(), file: BufWriter::new(file), inode })
    }

    fn run(mut self, inbox: &Receiver<Vec<u8>>) {
        let mut looked = std::time::Instant::now();
        let mut complained = false;
        loop {
            let written = match inbox.recv_timeout(FLUSH_EVERY) {
                Ok(line) => self.file.write_all(&line),
                Err(RecvTimeoutError::Timeout) => self.file.flush(),
                Err(RecvTimeoutError::Disconnected) => {
                    drop(self.file.flush()); // nobody is left who could be told
                    return;
                }
            };
            if let Err(error) = &written
                && !complained
            {
                tracing::warn!(path = %self.path.display(), %error, "the access log cannot be written; requests go on");
            }
            complained = written.is_err();
            if looked.elapsed() >= LOOK_EVERY {
                looked = std::time::Instant::now();
                self.begin_anew_if_moved();
            }
        }
    }

    fn begin_anew_if_moved(&mut self) {
        if std::fs::metadata(&self.path).is_ok_and(|there| there.ino() == self.inode) {
            return;
        }
        drop(self.file.flush()); // to the old one, as far as it goes
        if let Ok(new) = Self::open(&self.path) {
            *self = new;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;
    use twinsite_model::spec::Scheme;

    fn record(path: &str) -> Record {
        let cluster = ClusterName::new("test").unwrap();
        let client = "192.0.2.7".parse().unwrap();
        let origin = Origin { client, port: 443, is_trusted: false, scheme: Scheme::Https };
        Record::new(
            origin,
            Version::HTTP_2,
            &Method::GET,
            "meet.example.org",
            path,
            &cluster,
            &"rooms".parse().unwrap(),
        )
    }

    fn lines(path: &Path, count: usize) -> Vec<String> {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let text = std::fs::read_to_string(path).unwrap_or_default();
            if text.lines().count() >= count {
                return text.lines().map(str::to_owned).collect();
            }
            assert!(Instant::now() < deadline, "{text}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    #[test]
    fn a_line_says_what_happened_and_names_no_room() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.log");
        let log = AccessLog::start(&path).unwrap();
        let mut one = record("/secret-room");
        (one.status, one.upstream) = (200, Some("one".parse().unwrap()));
        log.write(&one);
        log.write(&record("/secret-room"));
        log.write(&record("/other"));
        let lines = lines(&path, 3);
        let parsed: Vec<serde_json::Value> =
            lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert!(!lines.concat().contains("secret-room"), "{lines:?}");
        assert_eq!(parsed[0]["path_key"], parsed[1]["path_key"]);
        assert_ne!(parsed[0]["path_key"], parsed[2]["path_key"]);
        assert_eq!((parsed[0]["status"].as_u64(), parsed[0]["upstream"].as_str()), (Some(200), Some("one")));
        assert_eq!(parsed[0]["client"], "192.0.2.7");
    }

    #[test]
    fn a_file_that_was_moved_away_is_begun_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.log");
        let log = AccessLog::start(&path).unwrap();
        log.write(&record("/a"));
        lines(&path, 1);
        std::fs::rename(&path, folder.path().join("access.log.1")).unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        while !path.exists() {
            assert!(Instant::now() < deadline, "no new file");
            std::thread::sleep(Duration::from_millis(10));
        }
        log.write(&record("/b"));
        assert_eq!(lines(&path, 1).len(), 1);
    }
}
