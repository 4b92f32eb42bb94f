//! A disk that keeps what was synced, and of the rest what chance lets it keep.

use crate::runtime::{Executor, ProcessId, SimRuntime, spawn};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use twinsite_consensus::{AsyncRuntime, Contents, Disk, DiskError, Done, MemoryDisk, Urgency, Write};

/// How long a batch that nobody waits for may stay where a crash loses it.
const EVENTUALLY: Duration = Duration::from_millis(100);

/// How a disk behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Health {
    /// How long a sync takes at least.
    pub(super) sync_min: Duration,
    /// And at most.
    pub(super) sync_max: Duration,
    /// Nothing more fits.
    pub(super) is_full: bool,
    /// What it says is synced it may lose all the same: a mistake, to see that it is noticed.
    pub(super) lies: bool,
    /// It forgets votes: another mistake.
    pub(super) loses_votes: bool,
    /// What is damaged is cut off, and the rest is used: another one.
    pub(super) guesses: bool,
}

struct Batch {
    writes: Vec<Write>,
    urgency: Urgency,
    done: Option<Done>,
}

struct State {
    synced: MemoryDisk,
    waiting: Vec<Batch>,
    health: Health,
    syncing: bool,
    /// Which process it serves; what an earlier one left behind is nobody's any more.
    life: u64,
    random: fastrand::Rng,
    closed: Option<DiskError>,
    /// A bit of what it kept has flipped.
    is_damaged: bool,
}

/// A machine's disk, across the lives of its node.
#[derive(Clone)]
pub(super) struct SimDisk(Arc<Mutex<State>>);

impl SimDisk {
    pub(super) fn new(number: u64, health: Health) -> Self {
        let synced = MemoryDisk::new(number);
        let random = Executor::random();
        let state = State {
            synced,
            waiting: Vec::new(),
            health,
            syncing: false,
            life: 0,
            random,
            closed: None,
            is_damaged: false,
        };
        Self(Arc::new(Mutex::new(state)))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes how it behaves.
    pub(super) fn set_health(&self, change: impl FnOnce(&mut Health)) {
        change(&mut self.state().health);
    }

    /// A bit of what it keeps flips. (That every such bit is noticed is shown where the real file is written.)
    pub(super) fn damage(&self) {
        let mut state = self.state();
        let Ok(contents) = state.synced.load() else { return };
        match contents.log.get(contents.log.len() / 2) {
            Some((index, _)) if state.health.guesses => state.keep(vec![Write::TruncateFrom(*index)]),
            _ => state.is_damaged = true,
        }
    }

    /// Whether a bit of it has flipped.
    pub(super) fn is_damaged(&self) -> bool {
        self.state().is_damaged
    }

    /// The node's process ends without a word. Batches are kept or lost from some point on, each as a whole; what
    /// was synced is kept. Says how many were lost.
    pub(super) fn crash(&self) -> usize {
        let mut state = self.state();
        let waiting = std::mem::take(&mut state.waiting);
        let kept = state.random.usize(..=waiting.len());
        let lost = waiting.len() - kept;
        for batch in waiting.into_iter().take(kept) {
            state.keep(batch.writes);
        }
        state.life += 1;
        state.syncing = false;
        state.closed = None;
        lost
    }

    /// Syncs what waits now; what comes meanwhile goes with the next sync.
    fn begin_sync(&self, state: &mut State) {
        if state.syncing || state.waiting.is_empty() {
            return;
        }
        state.syncing = true;
        let (life, count) = (state.life, state.waiting.len());
        let Health { sync_min, sync_max, .. } = state.health;
        let span = u64::try_from(sync_max.saturating_sub(sync_min).as_nanos()).unwrap_or(u64::MAX);
        let takes = sync_min + Duration::from_nanos(state.random.u64(..=span));
        let disk = self.clone();
        drop(spawn(ProcessId::WORLD, async move {
            SimRuntime::sleep(takes).await;
            disk.end_sync(life, count);
        }));
    }

    fn end_sync(&self, life: u64, count: usize) {
        let mut state = self.state();
        if state.life != life {
            return;
        }
        state.syncing = false;
        if state.health.is_full {
            state.closed = Some(DiskError::Full { path: "simulated".to_owned() });
        }
        let failure = state.closed.clone();
        // After one that failed none may be kept: it would leave a gap.
        let over = if failure.is_some() { state.waiting.len() } else { count };
        let batches: Vec<_> = state.waiting.drain(..over).collect();
        let mut done = Vec::new();
        for batch in batches {
            if failure.is_none() {
                state.keep(batch.writes);
            }
            done.extend(batch.done);
        }
        if state.waiting.iter().any(|batch| batch.urgency == Urgency::Now) {
            self.begin_sync(&mut state);
        }
        drop(state);
        for done in done {
            done(failure.clone().map_or(Ok(()), Err));
        }
    }
}

impl State {
    fn keep(&self, mut writes: Vec<Write>) {
        if self.health.loses_votes {
            writes.retain(|write| !matches!(write, Write::Vote(_)));
        }
        self.synced.submit(writes, Urgency::Now, Box::new(drop));
    }
}

impl Disk for SimDisk {
    fn load(&self) -> Result<Contents, DiskError> {
        let state = self.state();
        if state.is_damaged {
            return Err(DiskError::Damaged { path: "simulated".to_owned(), what: "an entry".to_owned() });
        }
        state.synced.load()
    }

    fn submit(&self, writes: Vec<Write>, urgency: Urgency, done: Done) {
        let mut state = self.state();
        if let Some(error) = state.closed.clone() {
            drop(state);
            return done(Err(error));
        }
        let lies = state.health.lies && urgency == Urgency::Now;
        let (early, late) = if lies { (Some(done), None) } else { (None, Some(done)) };
        state.waiting.push(Batch { writes, urgency, done: late });
        match urgency {
            Urgency::Now => self.begin_sync(&mut state),
            Urgency::Eventually => {
                let (disk, life) = (self.clone(), state.life);
                drop(spawn(ProcessId::WORLD, async move {
                    SimRuntime::sleep(EVENTUALLY).await;
                    let mut state = disk.state();
                    if state.life == life {
                        disk.begin_sync(&mut state);
                    }
                }));
            }
        }
        drop(state);
        if let Some(early) = early {
            early(Ok(()));
        }
    }

    fn close(&self) {}
}
