//! The links between sites, in user space: Ethernet frames are carried from one site's TAP to the others', each direction
//! with a delay, a rate, losses and cuts of its own. Nothing of the kernel's traffic control is needed, so it runs in any
//! virtual machine or container that may make TAPs.
//!
//! They are carried by one thread, in the namespace of the TAPs. What is delayed waits at least as long as it should and
//! up to a millisecond more, which is how often timers tick.

use super::{LabError, enter};
use crate::wan::Direction;
use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, mpsc as threads};
use std::thread::JoinHandle;
use tokio::sync::{mpsc, oneshot};
use tokio::task::consume_budget;
use tokio::time::{Instant, sleep_until};
use tokio_tun::Tun;
use twinsite_model::SiteName;

/// The longest frame: Ethernet's usual one, and a VLAN's tag.
const FRAME_MAX: usize = 1_518;
/// Frames on their way over one direction, at most.
const UNDER_WAY_MAX: usize = 8_192;
/// Hosts of which is known where they are, at most.
const LEARNED_MAX: usize = 4_096;

/// An Ethernet address.
type Mac = [u8; 6];

/// The name of a site's TAP.
pub(super) fn tap(place: usize) -> String {
    format!("wan{place}")
}

/// The thread that carries frames, and what becomes of them. It ends when this is dropped.
#[derive(Debug)]
pub(super) struct Links {
    directions: BTreeMap<(SiteName, SiteName), Arc<Direction>>,
    /// Why nothing is carried any more.
    ended: Arc<OnceLock<String>>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Links {
    /// Makes a TAP for each site in a namespace, and begins to carry.
    pub(super) fn start(namespace: &str, sites: &[SiteName]) -> Result<Self, LabError> {
        let pairs = sites.iter().flat_map(|from| sites.iter().map(move |to| (from, to)));
        let directions: BTreeMap<_, _> = pairs
            .filter(|(from, to)| from != to)
            .map(|(from, to)| ((from.clone(), to.clone()), Arc::<Direction>::default()))
            .collect();
        let way = |from: &SiteName, to: &SiteName| directions.get(&(from.clone(), to.clone())).cloned();
        let ways = sites.iter().map(|from| sites.iter().map(|to| way(from, to)).collect()).collect();
        let (stop, stopped) = oneshot::channel();
        let (tell, told) = threads::sync_channel(1);
        let ended = Arc::<OnceLock<String>>::default();
        let why = Arc::clone(&ended);
        let namespace = namespace.to_owned();
        let run = move || match open(&namespace, ways) {
            Ok((runtime, carrier)) => {
                drop(tell.send(Ok(())));
                if let Some(reason) = runtime.block_on(carrier.run(stopped)) {
                    why.get_or_init(|| reason);
                }
            }
            Err(error) => drop(tell.send(Err(error))),
        };
        let thread = std::thread::Builder::new().name("lab-links".to_owned()).spawn(run);
        let thread = thread.map_err(|error| LabError::Link(error.to_string()))?;
        told.recv().unwrap_or_else(|_| Err(LabError::Link("its thread ended".to_owned())))?;
        Ok(Self { directions, ended, stop: Some(stop), thread: Some(thread) })
    }

    /// Why nothing is carried any more, if that is so.
    pub(super) fn ended(&self) -> Option<&str> {
        self.ended.get().map(String::as_str)
    }

    /// What becomes of what one site sends to another.
    pub(super) fn direction(&self, from: &SiteName, to: &SiteName) -> Result<&Direction, LabError> {
        if let Some(why) = self.ended.get() {
            return Err(LabError::Link(why.clone()));
        }
        let direction = self.directions.get(&(from.clone(), to.clone())).map(Arc::as_ref);
        direction.ok_or_else(|| LabError::NoLink { from: from.clone(), to: to.clone() })
    }
}

impl Drop for Links {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

fn open(
    namespace: &str,
    ways: Vec<Vec<Option<Arc<Direction>>>>,
) -> Result<(tokio::runtime::Runtime, Carrier), LabError> {
    enter(namespace)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| LabError::Link(error.to_string()))?;
    let entered = runtime.enter();
    let taps = (0..ways.len()).map(|place| {
        let made = Tun::builder().name(&tap(place)).tap().build();
        let made = made.map_err(|error| LabError::Link(error.to_string()))?;
        made.into_iter().next().map(Arc::new).ok_or_else(|| LabError::Link("no queue".to_owned()))
    });
    let taps = taps.collect::<Result<Vec<_>, _>>()?;
    drop(entered);
    Ok((runtime, Carrier { taps, ways, learned: Arc::default() }))
}

struct Carrier {
    taps: Vec<Arc<Tun>>,
    /// From and to, by the places of the sites.
    ways: Vec<Vec<Option<Arc<Direction>>>>,
    /// At which site a host was last heard.
    learned: Arc<Mutex<BTreeMap<Mac, usize>>>,
}

/// One direction, as who sends sees it.
struct Way {
    direction: Arc<Direction>,
    to: usize,
    queue: mpsc::Sender<(Instant, Vec<u8>)>,
}

impl Carrier {
    /// Carries until stopped. Says why it ended before that.
    async fn run(self, stopped: oneshot::Receiver<()>) -> Option<String> {
        let mut tasks = tokio::task::JoinSet::new();
        for (place, ways) in self.ways.iter().enumerate() {
            let mut open = Vec::new();
            for (to, direction) in ways.iter().enumerate() {
                let Some(direction) = direction else { continue };
                let (queue, queued) = mpsc::channel(UNDER_WAY_MAX);
                tasks.spawn(deliver(queued, Arc::clone(&self.taps[to])));
                open.push(Way { direction: Arc::clone(direction), to, queue });
            }
            tasks.spawn(carry(place, Arc::clone(&self.taps[place]), open, Arc::clone(&self.learned)));
        }
        tokio::select! {
            _ = stopped => None,
            ended = tasks.join_next() => Some(match ended {
                Some(Ok(Err(error))) => error.to_string(),
                Some(Err(error)) => error.to_string(),
                Some(Ok(Ok(()))) | None => "a queue is gone".to_owned(),
            }),
        }
    }
}

/// Takes what a site sends elsewhere, and puts it on its way.
async fn carry(
    here: usize,
    tap: Arc<Tun>,
    ways: Vec<Way>,
    learned: Arc<Mutex<BTreeMap<Mac, usize>>>,
) -> io::Result<()> {
    let mut buffer = [0; FRAME_MAX];
    loop {
        // A TAP that always has something must not keep the thread from everybody else.
        consume_budget().await;
        let length = tap.recv(&mut buffer).await?;
        let frame = &buffer[..length];
        let Some((to, by)) = addresses(frame) else { continue };
        let place = {
            let mut learned = learned.lock().unwrap_or_else(PoisonError::into_inner);
            if learned.len() >= LEARNED_MAX {
                learned.clear();
            }
            learned.insert(by, here);
            // To a group, or to somebody who has not been heard yet: everywhere.
            learned.get(&to).copied().filter(|_| to[0] & 1 == 0)
        };
        let now = Instant::now();
        for way in ways.iter().filter(|way| place.is_none_or(|place| place == way.to)) {
            if let Some(arrival) = way.direction.packet(now, frame.len()) {
                // More than fits is lost, as on any link.
                drop(way.queue.try_send((arrival, frame.to_vec())));
            }
        }
    }
}

/// What is under way arrives, in order.
async fn deliver(mut queue: mpsc::Receiver<(Instant, Vec<u8>)>, tap: Arc<Tun>) -> io::Result<()> {
    while let Some((arrival, frame)) = queue.recv().await {
        if arrival > Instant::now() {
            sleep_until(arrival).await;
        }
        // What a port does not take, because it is not up, is lost; that a TAP is gone, its reader finds.
        drop(tap.send_all(&frame).await);
    }
    Ok(())
}

/// For whom a frame is, and from whom.
fn addresses(frame: &[u8]) -> Option<(Mac, Mac)> {
    let (to, rest) = frame.split_first_chunk()?;
    Some((*to, *rest.first_chunk()?))
}
