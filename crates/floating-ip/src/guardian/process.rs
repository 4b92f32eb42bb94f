//! The guardian's side: it watches the node's process, ends it in time when it hangs, and says what ended with it.

use super::exit::Process;
use super::protocol::{FRAME_BYTES_MAX, Frame, WATCHED, decode};
use super::record::{Life, Record};
use super::watched::Watched;
use super::{Ended, GuardianError, Holding, socket_path};
use crate::clock::boot_now;
use crate::loopback::address_is_free;
use crate::netlink;
use rustix::fs::{FlockOperation, flock};
use std::collections::BTreeMap;
use std::fs::{File, Permissions};
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use twinsite_model::{FloatingIpName, Incarnation, InterfaceName};

/// How often it is looked at whether an ended process's addresses are free.
const FREE_EVERY: Duration = Duration::from_millis(1);
/// When it is said that they are not.
const FREE_WITHIN: Duration = Duration::from_secs(1);
/// How often an address is taken away again that could not be.
const CLEAR_EVERY: Duration = Duration::from_millis(100);
/// How long a process that an earlier guardian watched may take to find this one. It looks every few tens of
/// milliseconds.
const FOUND_AGAIN_WITHIN: Duration = Duration::from_millis(250);
/// After this one that was not heard is taken for hung: it may hold what the earlier guardian did not come to read.
const HEARD_WITHIN: Duration = Duration::from_secs(1);
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
    let (record, before) = Record::open(&config.data).map_err(|source| GuardianError::Setup {
        what: "read what the guardian before this one watched in",
        path: config.data.clone(),
        source,
    })?;
    let keeper = Keeper { releases, lives: Lives::default(), record };
    let mut watching: JoinSet<()> = JoinSet::new();
    for life in before {
        // Before a line of its own can come.
        let speaker = keeper.lives.enter(life.incarnation);
        watching.spawn(said(resume(life, speaker, keeper.clone())));
    }
    let listener = listen(&config.data)?;
    tracing::info!(data = %config.data.display(), "guarding");
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            Some(ended) = watching.join_next() => match ended {
                Ok(()) => continue,
                // A process is watched by nobody now: the next guardian reads in the record whom to watch.
                Err(_) => return Err(GuardianError::Broken),
            },
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => drop(watching.spawn(said(guard(stream, keeper.clone())))),
            Err(error) => {
                tracing::warn!(%error, "cannot accept a node");
                sleep(Duration::from_millis(20)).await; // out of descriptors, most likely
            }
        }
    }
}

/// Says it when a process could not be watched.
async fn said(watch: impl Future<Output = io::Result<()>>) {
    if let Err(error) = watch.await {
        tracing::warn!(%error, "there is a process that cannot be guarded");
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

/// What all the lines of a guardian share.
#[derive(Clone)]
struct Keeper {
    releases: Arc<dyn Releases>,
    lives: Lives,
    record: Record,
}

/// Asks the line that speaks for a life for what it knows.
type Successor = oneshot::Sender<oneshot::Sender<Watched>>;

/// What a line gets that speaks for a life.
struct Speaker {
    /// The number of this line among those of its life.
    number: u64,
    /// Whoever comes after it.
    successor: oneshot::Receiver<oneshot::Sender<Watched>>,
    /// Whoever came before it.
    earlier: Option<Successor>,
}

impl Speaker {
    /// What the line before this one knew.
    async fn inherit(&mut self) -> Watched {
        let Some(earlier) = self.earlier.take() else { return Watched::default() };
        let (give, given) = oneshot::channel();
        drop(earlier.send(give)); // an earlier line that has ended holds nothing any more
        given.await.unwrap_or_default()
    }
}

/// The line that speaks for each life; a later line of the same life takes over from an earlier one.
#[derive(Clone, Default)]
struct Lives(Arc<Mutex<BTreeMap<Incarnation, (u64, Successor)>>>);

impl Lives {
    /// Speaks for a life from here on.
    fn enter(&self, incarnation: Incarnation) -> Speaker {
        let (successor, told) = oneshot::channel();
        let mut lives = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let number = lives.get(&incarnation).map_or(0, |(number, _)| number + 1);
        let earlier = lives.insert(incarnation, (number, successor)).map(|(_, earlier)| earlier);
        Speaker { number, successor: told, earlier }
    }

    fn over(&self, incarnation: Incarnation, number: u64) {
        let mut lives = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if lives.get(&incarnation).is_some_and(|(newest, _)| *newest == number) {
            lives.remove(&incarnation);
        }
    }
}

/// Guards the process at the other end.
async fn guard(stream: UnixStream, keeper: Keeper) -> io::Result<()> {
    let process = Process::behind(&stream)?;
    let mut line = FrameReader { stream, buffer: Vec::new() };
    let hello =
        tokio::time::timeout(HELLO_WITHIN, line.next()).await.map_err(|_| io::ErrorKind::TimedOut)??;
    let Some(Frame::Hello { incarnation }) = hello else { return Err(io::ErrorKind::InvalidData.into()) };
    let mut speaker = keeper.lives.enter(incarnation);
    let mut watched = speaker.inherit().await;
    watched.alive(boot_now());
    watched.speaks_anew();
    // From here on it is known to whichever guardian comes after this one, and may begin to hold something.
    let (pid, started) = (process.pid, process.started);
    keeper.record.put(Life { incarnation, pid, started, held: watched.held() });
    line.acknowledge()?;
    tracing::info!(%incarnation, "a node is guarded");
    Watch { incarnation, speaker, process, line: Some(line), watched, keeper }.run().await;
    Ok(())
}

/// Goes on with what an earlier guardian began. A process that lives is expected to come with a line of its own.
async fn resume(life: Life, speaker: Speaker, keeper: Keeper) -> io::Result<()> {
    let Life { incarnation, pid, started, held } = life;
    let Some(process) = Process::recorded(pid, started)? else {
        tracing::info!(%incarnation, held = held.len(), "the node's process ended while nobody watched");
        keeper.lives.over(incarnation, speaker.number);
        release(held.into_iter().map(|(holding, _, _)| holding).collect(), incarnation, &keeper).await;
        return Ok(());
    };
    tracing::info!(%incarnation, held = held.len(), "a node is guarded again");
    let watched = Watched::recorded(held, boot_now(), FOUND_AGAIN_WITHIN, HEARD_WITHIN);
    Watch { incarnation, speaker, process, line: None, watched, keeper }.run().await;
    Ok(())
}

/// One process under watch.
struct Watch {
    incarnation: Incarnation,
    speaker: Speaker,
    process: Process,
    /// None once it is closed.
    line: Option<FrameReader>,
    watched: Watched,
    keeper: Keeper,
}

impl Watch {
    async fn run(mut self) {
        let incarnation = self.incarnation;
        loop {
            let quiet = self.watched.quiet_for(boot_now());
            tokio::select! {
                biased;
                Ok(successor) = &mut self.speaker.successor => {
                    self.read_all();
                    let _gone = successor.send(self.watched);
                    return;
                }
                () = self.process.exited() => break,
                frame = next(&mut self.line) => match frame {
                    Ok(Some(frame)) => self.take(frame),
                    // The process has closed the line; it may be ending, and is watched until it has.
                    Ok(None) | Err(_) => self.line = None,
                },
                () = sleep(quiet.unwrap_or_default()), if quiet.is_some() => {}
            }
            // What the process said and what waits unread comes before judgement: the guardian may have been slow itself.
            self.read_all();
            if self.watched.must_end(boot_now()) {
                tracing::error!(%incarnation, "the node's lease ends and it does not let go: ending it");
                self.process.end().await;
                break;
            }
        }
        self.read_all();
        self.keeper.lives.over(incarnation, self.speaker.number);
        let held = self.watched.into_held();
        tracing::info!(%incarnation, held = held.len(), "the node's process has ended");
        release(held, incarnation, &self.keeper).await;
    }

    fn read_all(&mut self) {
        while let Some(Ok(Some(frame))) = self.line.as_mut().map(FrameReader::ready) {
            self.take(frame);
        }
    }

    fn take(&mut self, frame: Frame) {
        self.watched.alive(boot_now());
        match frame {
            Frame::Holding { holding, until, slack } => self.watched.holding(holding, until, slack),
            Frame::Released { ip, token } => self.watched.released(&ip, token),
            Frame::Complete => self.watched.complete(),
            Frame::Alive | Frame::Hello { .. } => return,
        }
        let (incarnation, pid, started) = (self.incarnation, self.process.pid, self.process.started);
        self.keeper.record.put(Life { incarnation, pid, started, held: self.watched.held() });
    }
}

/// The next frame of a line that is open.
async fn next(line: &mut Option<FrameReader>) -> io::Result<Option<Frame>> {
    match line {
        Some(line) => line.next().await,
        None => std::future::pending().await,
    }
}

/// Says of every address that an ended process held that it is free, as soon as it is. None waits for another.
async fn release(held: Vec<Holding>, incarnation: Incarnation, keeper: &Keeper) {
    let mut freed = JoinSet::new();
    for Holding { ip, addresses, interface, token } in held {
        let releases = Arc::clone(&keeper.releases);
        freed.spawn(async move {
            match interface {
                None => all_free(&addresses).await,
                Some(interface) => cleared(&ip, &addresses, &interface).await,
            }
            releases.ended(Ended { ip, token, incarnation });
        });
    }
    freed.join_all().await;
    keeper.record.remove(incarnation);
}

/// Takes an address away that nobody holds any more. The kernel lets nothing of it through already, or will in a moment.
async fn cleared(ip: &FloatingIpName, addresses: &[SocketAddr], interface: &InterfaceName) {
    let Some(address) = addresses.first().map(SocketAddr::ip) else { return };
    let mut told = None;
    loop {
        let (name, interface) = (ip.clone(), interface.clone());
        // It may wait in the kernel, and other processes are watched meanwhile.
        let cleared = tokio::task::spawn_blocking(move || netlink::clear(&name, address, &interface)).await;
        let error = match cleared {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error.to_string(),
            Err(error) => error.to_string(),
        };
        if told.as_ref() != Some(&error) {
            tracing::error!(%ip, %error, "the node's process is gone, yet its address is not cleared away: not released");
        }
        told = Some(error);
        sleep(CLEAR_EVERY).await;
    }
}

/// Why an address cannot be called free.
fn not_free(address: SocketAddr) -> Option<String> {
    match address_is_free(address) {
        Ok(true) => None,
        Ok(false) => Some("it is held".to_owned()),
        Err(error) => Some(format!("it cannot be told: {error}")),
    }
}

/// Reads back that nothing of an address is left.
async fn all_free(addresses: &[SocketAddr]) {
    let warn_at = Instant::now() + FREE_WITHIN;
    let mut warned = false;
    while let Some((taken, why)) = addresses.iter().find_map(|address| Some((address, not_free(*address)?))) {
        if !warned && Instant::now() >= warn_at {
            tracing::error!(address = %taken, %why, "the node's process is gone, yet its address is not free: not released");
            warned = true;
        }
        sleep(if warned { FREE_WITHIN } else { FREE_EVERY }).await;
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

    /// Says that the process is watched.
    fn acknowledge(&self) -> io::Result<()> {
        self.stream.try_write(&[WATCHED]).map(drop)
    }

    fn fill(&mut self) -> io::Result<usize> {
        let mut bytes = [0; FRAME_BYTES_MAX];
        let read = self.stream.try_read(&mut bytes)?;
        self.buffer.extend_from_slice(&bytes[..read]);
        Ok(read)
    }
}
