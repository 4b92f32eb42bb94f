//! The node's side: it says what it holds, and that it lives.

use super::protocol::{Frame, WATCHED, encode};
use super::{GuardianError, Holding, socket_path};
use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio_util::sync::{CancellationToken, DropGuard};
use twinsite_model::{BootTime, FloatingIpName, Incarnation, Token};

/// How long the guardian may take to begin its watch.
const WATCHED_WITHIN: Duration = Duration::from_millis(500);
/// How often life is shown while nothing is held.
const IDLE_BEAT: Duration = Duration::from_millis(100);
/// The shortest beat: a tick of the runtime's timer and something for the scheduler.
const BEAT_MIN: Duration = Duration::from_millis(2);
/// Signs of life within one slack: the guardian takes half a slack of silence for death.
const BEATS_IN_SLACK: u32 = 5;

/// What is held, until when, and the slack of its lease.
pub type Held = (Holding, BootTime, Duration);

/// The line to the guardian. Dropping it closes the line.
#[derive(Debug)]
pub struct GuardianClient {
    line: Arc<Said>,
    _task: DropGuard,
}

/// A line to a guardian that watches this process and has not been told yet what it holds.
#[derive(Debug)]
pub struct Line(UnixStream);

impl Line {
    /// Says what this process holds already: the guardian may have watched it before, or be another one by now.
    pub fn begin(self, holds: impl IntoIterator<Item = Held>) -> Result<GuardianClient, GuardianError> {
        let lost = CancellationToken::new();
        let line = Arc::new(Said { stream: self.0, held: Mutex::default(), lost });
        {
            let mut held = line.held();
            for (holding, until, slack) in holds {
                held.insert(holding.ip.clone(), (holding.token, slack));
                line.send(&held, &Frame::Holding { holding, until, slack })?;
            }
            line.send(&held, &Frame::Complete)?;
        }
        let stop = CancellationToken::new();
        tokio::spawn(beat(Arc::clone(&line), stop.clone()));
        Ok(GuardianClient { line, _task: stop.drop_guard() })
    }
}

#[derive(Debug)]
struct Said {
    stream: UnixStream,
    /// What is held, and the slack of its lease. Held while a frame is written, so that frames never mix.
    held: Mutex<BTreeMap<FloatingIpName, (Token, Duration)>>,
    lost: CancellationToken,
}

impl GuardianClient {
    /// Finds the guardian of this data directory and says who this is, and that it holds nothing.
    pub async fn connect(data: &Path, incarnation: Incarnation) -> Result<Self, GuardianError> {
        Self::dial(data, incarnation).await?.begin([])
    }

    /// Finds the guardian of this data directory, says who this is, and waits until it watches.
    pub async fn dial(data: &Path, incarnation: Incarnation) -> Result<Line, GuardianError> {
        let path = socket_path(data);
        let stream = UnixStream::connect(&path).await;
        let mut stream = stream.map_err(|source| GuardianError::Absent { path, source })?;
        let introduced = async {
            stream.write_all(&encode(&Frame::Hello { incarnation })).await?;
            stream.read_u8().await
        };
        match tokio::time::timeout(WATCHED_WITHIN, introduced).await {
            Ok(Ok(WATCHED)) => Ok(Line(stream)),
            _ => Err(GuardianError::Lost),
        }
    }

    /// Says that an address is held until then. Before anything listens on it, so that there is no moment at which a
    /// hung holder is unknown to the guardian.
    pub fn holding(&self, holding: Holding, until: BootTime, slack: Duration) -> Result<(), GuardianError> {
        let mut held = self.line.held();
        held.insert(holding.ip.clone(), (holding.token, slack));
        self.line.send(&held, &Frame::Holding { holding, until, slack })
    }

    /// Says that an address was let go and read back absent.
    pub fn released(&self, ip: &FloatingIpName, token: Token) -> Result<(), GuardianError> {
        let mut held = self.line.held();
        held.retain(|name, (held, _)| name != ip || *held != token);
        self.line.send(&held, &Frame::Released { ip: ip.clone(), token })
    }

    /// Ends when the guardian is gone.
    pub async fn lost(&self) {
        self.line.lost.cancelled().await;
    }
}

impl Said {
    fn held(&self) -> MutexGuard<'_, BTreeMap<FloatingIpName, (Token, Duration)>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes a frame whole or gives the line up: half a frame would turn all that follows into nonsense.
    fn send<T>(&self, _whole: &MutexGuard<'_, T>, frame: &Frame) -> Result<(), GuardianError> {
        let bytes = encode(frame);
        match self.stream.try_write(&bytes) {
            Ok(written) if written == bytes.len() => Ok(()),
            _ => {
                self.lost.cancel();
                Err(GuardianError::Lost)
            }
        }
    }
}

/// Shows life, and notices when the guardian goes.
async fn beat(line: Arc<Said>, stop: CancellationToken) {
    loop {
        let slack = line.held().values().map(|(_, slack)| *slack).min();
        let every = slack.map_or(IDLE_BEAT, |slack| (slack / BEATS_IN_SLACK).max(BEAT_MIN).min(IDLE_BEAT));
        tokio::select! {
            () = stop.cancelled() => return,
            () = closed(&line.stream) => {
                line.lost.cancel();
                return;
            }
            () = tokio::time::sleep(every) => {}
        }
        let held = line.held();
        if line.send(&held, &Frame::Alive).is_err() {
            return;
        }
    }
}

/// Ends when the other side has closed. It never sends anything.
async fn closed(stream: &UnixStream) {
    loop {
        if stream.readable().await.is_err() {
            return;
        }
        match stream.try_read(&mut [0; 64]) {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => return,
        }
    }
}
