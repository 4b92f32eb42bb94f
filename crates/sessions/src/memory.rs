//! The pins in memory. Bounded; every change of a room's place is told to the proxy.

use crate::pin::{Pin, PinEvent, PinUpdate, VERSION_PROVISIONAL};
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;
use tokio::sync::broadcast;
use tokio::time::Instant;
use twinsite_model::{RoomKey, Token, UpstreamName};

/// Cores look up rooms at the same time; with so many locks they seldom meet.
const SHARDS: usize = 16;

/// How many entries are looked at to find one to give up when a shard is full.
const EVICTION_SAMPLE: usize = 16;

struct Entry {
    pin: Pin,
    /// The store, or a peer, said so at this time. Older than the loss of the upstream: the room may have moved.
    vouched: Instant,
    /// When it was last used, here or on a peer.
    touched: Instant,
    /// Used here, or decided here, since it was last sent to the store.
    dirty: bool,
    /// The same since it was last spread to the other nodes.
    unspread: bool,
    /// The store has acknowledged it.
    confirmed: bool,
}

type Shard = HashMap<RoomKey, Entry>;

pub(crate) struct PinTable {
    shards: Vec<Mutex<Shard>>,
    shard_max: usize,
    ttl: Duration,
    lost: RwLock<HashMap<UpstreamName, Instant>>,
    events: broadcast::Sender<PinEvent>,
}

/// Every critical section leaves the table whole, so a panic elsewhere in the holder's thread does not spoil it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl PinTable {
    pub(crate) fn new(pins_max: usize, ttl: Duration, events_max: usize) -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            shard_max: pins_max.div_ceil(SHARDS).max(1),
            ttl,
            lost: RwLock::default(),
            events: broadcast::Sender::new(events_max.max(1)),
        }
    }

    pub(crate) fn subscribe(&self) -> broadcast::Receiver<PinEvent> {
        self.events.subscribe()
    }

    fn shard(&self, room: RoomKey) -> MutexGuard<'_, Shard> {
        // Room keys are hashes already: any byte spreads them evenly.
        lock(&self.shards[usize::from(room.0[0]) % SHARDS])
    }

    fn tell(&self, event: PinEvent) {
        // No proxy listening is no error.
        let _ = self.events.send(event);
    }

    fn alive(&self, entry: &Entry, now: Instant) -> bool {
        now < entry.touched + self.ttl
    }

    /// Whether the upstream was lost after anyone vouched for the pin: the room may have been moved without this node
    /// having heard of it.
    fn suspect(&self, entry: &Entry) -> bool {
        let lost = self.lost.read().unwrap_or_else(PoisonError::into_inner);
        lost.get(&entry.pin.upstream).is_some_and(|at| *at >= entry.vouched)
    }

    /// The room's place, if memory alone may answer; counts as use.
    pub(crate) fn find(&self, room: RoomKey, replace: Option<&UpstreamName>) -> Option<Pin> {
        let now = Instant::now();
        let mut shard = self.shard(room);
        let entry = shard.get_mut(&room)?;
        if !self.alive(entry, now) || Some(&entry.pin.upstream) == replace || self.suspect(entry) {
            return None;
        }
        entry.touched = now;
        entry.dirty = true;
        entry.unspread = true;
        Some(entry.pin.clone())
    }

    /// What memory has, trusted or not. For peers that ask, and for people.
    pub(crate) fn peek(&self, room: RoomKey) -> Option<Pin> {
        let now = Instant::now();
        self.shard(room).get(&room).filter(|entry| self.alive(entry, now)).map(|entry| entry.pin.clone())
    }

    /// Takes what the store answered to a placement, and returns the pin that stands.
    ///
    /// Memory is left as it is only where it holds later knowledge. A store that lost data may answer with an older
    /// pin than the one that is to be replaced; it is then taken under a higher version.
    pub(crate) fn adopt_placement(&self, room: RoomKey, answer: Pin, replace: Option<&UpstreamName>) -> Pin {
        self.update(room, answer, true, |known, answer| {
            if known.upstream == answer.upstream {
                let version = answer.version.max(known.version);
                Some((Pin { version, ..answer }, true))
            } else if Some(&known.upstream) == replace && !answer.outranks(known) {
                Some((Pin { version: known.version.saturating_add(1), ..answer }, false))
            } else {
                answer.outranks(known).then_some((answer, true))
            }
        })
    }

    /// Takes the store's word on a pin that was sent to be kept, unless memory has moved on since.
    pub(crate) fn adopt_kept(&self, sent: &PinUpdate, answer: Pin) {
        let mut shard = self.shard(sent.room);
        let Some(entry) = shard.get_mut(&sent.room) else { return };
        if entry.pin != sent.pin && !answer.outranks(&entry.pin) {
            return;
        }
        let moved = entry.pin.upstream != answer.upstream;
        if moved {
            metrics::counter!("twinsite_sessions_contested_pins_total").increment(1);
            self.tell(PinEvent::Changed { room: sent.room, upstream: answer.upstream.clone() });
        }
        entry.pin = answer;
        entry.vouched = Instant::now();
        entry.confirmed = true;
    }

    /// Takes a peer's pin if it outranks what is known, and returns the pin that stands. `to_keep`: this node shall
    /// write it to the store.
    pub(crate) fn adopt_heard(&self, room: RoomKey, heard: Pin, to_keep: bool) -> Pin {
        self.update(room, heard, !to_keep, |known, heard| {
            (*known == heard || heard.outranks(known)).then_some((heard, !to_keep))
        })
    }

    /// Decides without the store: what is known stays, else the proposal. Returns the pin that stands and whether it
    /// was decided now.
    pub(crate) fn decide(
        &self,
        room: RoomKey,
        proposal: UpstreamName,
        replace: Option<&UpstreamName>,
        token: Token,
    ) -> (Pin, bool) {
        let mut decided = true;
        let fresh = Pin { upstream: proposal, version: VERSION_PROVISIONAL, token };
        let pin = self.update(room, fresh, false, |known, fresh| {
            decided = Some(&known.upstream) == replace;
            let version = known.version.saturating_add(1);
            decided.then_some((Pin { version, ..fresh }, false))
        });
        (pin, decided)
    }

    /// A live tunnel of the room to this upstream. Returns whether it contradicts the pin: the proxy is then told
    /// again where the room is.
    pub(crate) fn touch_live(&self, room: RoomKey, upstream: &UpstreamName, token: Token) -> bool {
        let (pin, _) = self.decide(room, upstream.clone(), None, token);
        let stray = pin.upstream != *upstream;
        if stray {
            self.tell(PinEvent::Changed { room, upstream: pin.upstream });
        } else if let Some(entry) = self.shard(room).get_mut(&room) {
            entry.touched = Instant::now();
            entry.dirty = true;
            entry.unspread = true;
        }
        stray
    }

    /// The one place where a room's entry changes. A room of which nothing is known gets the candidate; else `against`
    /// compares it with the known pin and returns what shall stand, and whether the store has it; `None`: the known
    /// one.
    fn update(
        &self,
        room: RoomKey,
        candidate: Pin,
        confirmed: bool,
        against: impl FnOnce(&Pin, Pin) -> Option<(Pin, bool)>,
    ) -> Pin {
        let now = Instant::now();
        let mut shard = self.shard(room);
        let (pin, confirmed, was_dirty) = match shard.get_mut(&room) {
            Some(known) if self.alive(known, now) => {
                known.touched = now;
                let Some((pin, confirmed)) = against(&known.pin, candidate) else { return known.pin.clone() };
                (pin, confirmed, known.dirty)
            }
            Some(_) => (candidate, confirmed, false),
            None => {
                if shard.len() >= self.shard_max {
                    self.evict(&mut shard);
                }
                (candidate, confirmed, false)
            }
        };
        let dirty = was_dirty || !confirmed;
        let entry = Entry { pin: pin.clone(), vouched: now, touched: now, dirty, unspread: dirty, confirmed };
        let before = shard.insert(room, entry);
        if before.is_none_or(|before| before.pin.upstream != pin.upstream) {
            self.tell(PinEvent::Changed { room, upstream: pin.upstream.clone() });
        }
        pin
    }

    /// Makes space: the least recently used of a sample goes, one that the store has where possible: then it only costs a
    /// question to the store.
    fn evict(&self, shard: &mut Shard) {
        let sample = shard.iter().take(EVICTION_SAMPLE);
        let oldest = sample.min_by_key(|(_, entry)| (!entry.confirmed, entry.touched));
        if let Some(room) = oldest.map(|(room, _)| *room) {
            shard.remove(&room);
            metrics::counter!("twinsite_sessions_evicted_pins_total").increment(1);
            self.tell(PinEvent::Removed { room });
        }
    }

    /// The upstream went away: what is known of rooms on it must be asked again before it is used again.
    pub(crate) fn upstream_lost(&self, upstream: &UpstreamName) {
        let mut lost = self.lost.write().unwrap_or_else(PoisonError::into_inner);
        lost.insert(upstream.clone(), Instant::now());
        // Nothing that was vouched for before its time to live is in memory any more.
        lost.retain(|_, at| at.elapsed() <= self.ttl);
    }

    /// Takes the pins that were used since the last call, at most `limit`.
    pub(crate) fn take_dirty(&self, limit: usize) -> Vec<PinUpdate> {
        let now = Instant::now();
        let mut taken = Vec::new();
        for shard in &self.shards {
            for (room, entry) in lock(shard).iter_mut().filter(|(_, entry)| entry.dirty) {
                if taken.len() == limit {
                    return taken;
                }
                if self.alive(entry, now) {
                    entry.dirty = false;
                    taken.push(PinUpdate { room: *room, pin: entry.pin.clone() });
                }
            }
        }
        taken
    }

    /// Takes the pins that were used here since the last call, for the other nodes.
    pub(crate) fn take_unspread(&self) -> Vec<PinUpdate> {
        self.collect(|entry| std::mem::take(&mut entry.unspread))
    }

    /// Puts back what could not be kept.
    pub(crate) fn mark_dirty(&self, updates: &[PinUpdate]) {
        for update in updates {
            if let Some(entry) = self.shard(update.room).get_mut(&update.room) {
                entry.dirty = true;
            }
        }
    }

    /// Marks every live pin as to be kept: the store may have forgotten them.
    pub(crate) fn mark_all_dirty(&self) {
        for shard in &self.shards {
            lock(shard).values_mut().for_each(|entry| entry.dirty = true);
        }
    }

    /// Forgets rooms that nobody used for their time to live.
    pub(crate) fn sweep(&self) {
        let now = Instant::now();
        for shard in &self.shards {
            lock(shard).retain(|room, entry| {
                let keep = self.alive(entry, now);
                if !keep {
                    self.tell(PinEvent::Removed { room: *room });
                }
                keep
            });
        }
    }

    /// All live pins.
    pub(crate) fn snapshot(&self) -> Vec<PinUpdate> {
        self.collect(|_| true)
    }

    fn collect(&self, which: impl Fn(&mut Entry) -> bool) -> Vec<PinUpdate> {
        let now = Instant::now();
        let mut all = Vec::new();
        for shard in &self.shards {
            for (room, entry) in lock(shard).iter_mut() {
                if self.alive(entry, now) && which(entry) {
                    all.push(PinUpdate { room: *room, pin: entry.pin.clone() });
                }
            }
        }
        all
    }

    pub(crate) fn len(&self) -> usize {
        self.shards.iter().map(|shard| lock(shard).len()).sum()
    }
}
