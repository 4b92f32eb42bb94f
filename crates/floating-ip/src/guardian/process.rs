//! The guardian's side: it watches the node's process, ends it in time when it hangs, and says what ended with it.

use super::protocol::{FRAME_BYTES_MAX, Frame, decode};
use super::watched::Watched;
use super::{Ended, GuardianError, socket_path};
use crate::clock::boot_now;
use crate::loopback::address_is_free;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fd::OwnedFd;
use rustix::fs::{FlockOperation, flock};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::collections::BTreeMap;
use std::fs::{File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::{UnixListener, UnixStream};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use twinsite_model::Incarnation;

/// How often it is looked at whether an ended process's addresses are free.
const FREE_EVERY: Duration = Duration::from_millis(1);
/// When it is said that they are not.
const FREE_WITHIN: Duration = Duration::from_secs(1);
/// How long a process may take to say who it is.
const HELLO_WITHIN: Duration = Duration::from_secs(2);

/// Where a guardian works.
#[derive(Debug, Clone)]
pub struct GuardianConfig {
    /// The data directory of the node that it guards.
    pub data: PathBuf,
}

/// Hears what ended.
pub trait Releases: Send + Sync + 'static {
    /// The process that held an address is gone, and the address was read back free. Told once for each token.
    fn ended(&self, ended: Ended);
}

/// Guards until it is told to stop.
pub async fn run(
    config: &GuardianConfig,
    releases: Arc<dyn Releases>,
    stop: CancellationToken,
) -> Result<(), GuardianError> {
    protect_this_process();
    let _lock = lock(&config.data)?;
    let listener = listen(&config.data)?;
    let lives = Lives::default();
    tracing::info!(data = %config.data.display(), "guarding");
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                let (releases, lives) = (Arc::clone(&releases), lives.clone());
                tokio::spawn(async move {
                    if let Err(error) = guard(stream, &*releases, &lives).await {
                        tracing::warn!(%error, "a process came that cannot be guarded");
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a node");
                sleep(Duration::from_millis(20)).await; // out of descriptors, most likely
            }
        }
    }
}

/// Memory locked, and the last choice of the out-of-memory killer. Both need a capability; without it the guardian
/// works, and is as mortal as others.
fn protect_this_process() {
    if let Err(error) =
        rustix::mm::mlockall(rustix::mm::MlockAllFlags::CURRENT | rustix::mm::MlockAllFlags::FUTURE)
    {
        tracing::info!(%error, "memory is not locked (needs CAP_IPC_LOCK)");
    }
    if let Err(error) = std::fs::write("/proc/self/oom_score_adj", "-1000") {
        tracing::info!(%error, "no protection from the out-of-memory killer (needs CAP_SYS_RESOURCE)");
    }
}

/// One guardian for a data directory; the kernel gives the lock back when the process ends.
fn lock(data: &Path) -> Result<File, GuardianError> {
    let path = data.join("guardian.lock");
    let file = File::options().create(true).truncate(false).write(true).open(&path);
    let file = file.map_err(|source| GuardianError::Setup { what: "open", path, source })?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(_) => Err(GuardianError::AlreadyGuarded { path: data.to_owned() }),
    }
}

fn listen(data: &Path) -> Result<UnixListener, GuardianError> {
    let path = socket_path(data);
    let failed = |what| {
        let path = path.clone();
        move |source| GuardianError::Setup { what, path, source }
    };
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed("replace")(error)),
        _ => {} // left by an earlier guardian, which the lock proves gone
    }
    let listener = UnixListener::bind(&path).map_err(failed("listen on"))?;
    std::fs::set_permissions(&path, Permissions::from_mode(0o600)).map_err(failed("protect"))?;
    Ok(listener)
}

/// The line that speaks for each life; a later line of the same life takes over from an earlier one.
#[derive(Clone, Default)]
struct Lives(Arc<Mutex<BTreeMap<Incarnation, CancellationToken>>>);

impl Lives {
    fn take_over(&self, incarnation: Incarnation) -> CancellationToken {
        let mut lives = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mine = CancellationToken::new();
        if let Some(earlier) = lives.insert(incarnation, mine.clone()) {
            earlier.cancel();
        }
        mine
    }

    fn over(&self, incarnation: Incarnation) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&incarnation);
    }
}

/// Guards the process at the other end.
async fn guard(stream: UnixStream, releases: &dyn Releases, lives: &Lives) -> io::Result<()> {
    let process = Process::behind(&stream)?;
    let mut line = FrameReader { stream, buffer: Vec::new() };
    let hello =
        tokio::time::timeout(HELLO_WITHIN, line.next()).await.map_err(|_| io::ErrorKind::TimedOut)??;
    let Some(Frame::Hello { incarnation }) = hello else { return Err(io::ErrorKind::InvalidData.into()) };
    let superseded = lives.take_over(incarnation);
    let mut watched = Watched::default();
    watched.alive(boot_now());
    tracing::info!(%incarnation, "a node is guarded");

    let mut line_open = true;
    loop {
        let quiet = watched.quiet_for(boot_now());
        tokio::select! {
            biased;
            () = superseded.cancelled() => return Ok(()),
            () = process.exited() => break,
            frame = line.next(), if line_open => match frame {
                Ok(Some(frame)) => take(&mut watched, frame),
                // The process has closed the line; it may be ending, and is watched until it has.
                Ok(None) | Err(_) => line_open = false,
            },
            () = sleep(quiet.unwrap_or_default()), if quiet.is_some() => {}
        }
        // What the process said and what waits unread comes before judgement: the guardian may have been slow itself.
        while let Ok(Some(frame)) = line.ready() {
            take(&mut watched, frame);
        }
        if watched.must_end(boot_now()) {
            tracing::error!(%incarnation, "the node's lease ends and it does not let go: ending it");
            process.kill()?;
            process.exited().await;
            break;
        }
    }
    lives.over(incarnation);
    let held = watched.into_held();
    tracing::info!(%incarnation, held = held.len(), "the node's process has ended");
    for holding in held {
        all_free(&holding.addresses).await;
        releases.ended(Ended { ip: holding.ip, token: holding.token, incarnation });
    }
    Ok(())
}

fn take(watched: &mut Watched, frame: Frame) {
    let now = boot_now();
    watched.alive(now);
    match frame {
        Frame::Holding { holding, until, slack } => watched.holding(holding, until, slack),
        Frame::Released { ip, token } => watched.released(&ip, token),
        Frame::Alive | Frame::Hello { .. } => {}
    }
}

/// Reads back that nothing of an address is left.
async fn all_free(addresses: &[std::net::SocketAddr]) {
    let warn_at = Instant::now() + FREE_WITHIN;
    let mut warned = false;
    while let Some(taken) = addresses.iter().find(|address| !address_is_free(**address)) {
        if !warned && Instant::now() >= warn_at {
            tracing::error!(address = %taken, "the node's process is gone, yet its address is still held: not released");
            warned = true;
        }
        sleep(if warned { FREE_WITHIN } else { FREE_EVERY }).await;
    }
}

/// A process, held by a descriptor that can never come to mean another one.
struct Process {
    pidfd: Arc<OwnedFd>,
    exited: CancellationToken,
}

impl Process {
    /// The process at the other end of a line.
    fn behind(stream: &UnixStream) -> io::Result<Self> {
        let pid = stream.peer_cred()?.pid().and_then(Pid::from_raw).ok_or(io::ErrorKind::NotFound)?;
        let pidfd = Arc::new(pidfd_open(pid, PidfdFlags::empty())?);
        let exited = CancellationToken::new();
        let (waits_for, told) = (Arc::clone(&pidfd), exited.clone());
        // A thread of its own, so that nothing else in this process can delay the news.
        std::thread::Builder::new().name("exit".to_owned()).spawn(move || {
            let mut polled = [PollFd::new(&waits_for, PollFlags::IN)];
            while poll(&mut polled, None) != Ok(1) {}
            told.cancel();
        })?;
        Ok(Self { pidfd, exited })
    }

    /// Ends when the process has exited: a signal sent is not an exit.
    async fn exited(&self) {
        self.exited.cancelled().await;
    }

    fn kill(&self) -> io::Result<()> {
        match pidfd_send_signal(&self.pidfd, Signal::KILL) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// Frames from a line; safe to stop waiting for one at any time.
struct FrameReader {
    stream: UnixStream,
    buffer: Vec<u8>,
}

impl FrameReader {
    /// The next frame; none when the line was closed.
    async fn next(&mut self) -> io::Result<Option<Frame>> {
        loop {
            if let Some(frame) = self.decoded()? {
                return Ok(Some(frame));
            }
            self.stream.readable().await?;
            match self.fill() {
                Ok(0) => return Ok(None),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// A frame that is there already.
    fn ready(&mut self) -> io::Result<Option<Frame>> {
        drop(self.fill()); // what it says about the line, `next` says too
        self.decoded()
    }

    fn decoded(&mut self) -> io::Result<Option<Frame>> {
        decode(&mut self.buffer).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    }

    fn fill(&mut self) -> io::Result<usize> {
        let mut bytes = [0; FRAME_BYTES_MAX];
        let read = self.stream.try_read(&mut bytes)?;
        self.buffer.extend_from_slice(&bytes[..read]);
        Ok(read)
    }
}
