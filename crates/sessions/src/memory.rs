//! The pins in memory. Bounded; every change of a room's place is told to the proxy.
#![allow(
    clippy::disallowed_types,
    reason = "looked up with every request; what is told is told in another order"
)]

use crate::pin::{Pin, PinEvent, PinUpdate, VERSION_PROVISIONAL};
use crate::runtime::{Moment, Runtime};
use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;
use tokio::sync::broadcast;
use twinsite_model::{RoomKey, Token, UpstreamName};

/// Cores look up rooms at the same time; with so many locks they seldom meet.
const SHARDS: usize = 16;

/// How many entries are looked at to find one to give up when a shard is full.
const EVICTION_SAMPLE: usize = 16;

/// A tunnel that was seen so lately counts as open. The program tells of its tunnels about once a second.
const LIVE_LASTS: Duration = Duration::from_secs(30);

struct Entry {
    pin: Pin,
    /// The store, or a peer, said so at this time. Older than the loss of the upstream: the room may have moved.
    vouched: Moment,
    /// When it was last used, here or on a peer.
    touched: Moment,
    /// When use here was last noted for the store and for the other nodes.
    noted: Moment,
    /// When a tunnel of this node was last seen in it.
    live: Option<Moment>,
    /// Whether a tunnel of this node was ever in it: anyone can name a room, and until then nobody is there.
    proven: bool,
    /// The store has acknowledged it.
    confirmed: bool,
}

impl Entry {
    fn is_live(&self, now: Moment) -> bool {
        self.live.is_some_and(|seen| now < seen + LIVE_LASTS)
    }
}

#[derive(Default)]
struct Shard {
    rooms: HashMap<RoomKey, Entry>,
    /// Used here, or decided here, since they were last sent to the store. Apart from the entries, so that finding
    /// them looks at nothing else while requests wait for the lock.
    dirty: BTreeSet<RoomKey>,
    /// The same since they were last spread to the other nodes.
    unspread: BTreeSet<RoomKey>,
}

impl Shard {
    fn note_use(&mut self, room: RoomKey) {
        self.dirty.insert(room);
        self.unspread.insert(room);
    }

    fn remove(&mut self, room: &RoomKey) {
        self.rooms.remove(room);
        self.dirty.remove(room);
        self.unspread.remove(room);
    }
}

/// For how long rooms are kept, and how many.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TableLimits {
    /// Rooms, at most; those with a live tunnel of this node are never given up.
    pub pins_max: usize,
    /// How long a room that nobody uses is kept.
    pub ttl: Duration,
    /// The same for a room that no tunnel has proven.
    pub unproven_ttl: Duration,
    /// How often use of one room is noted, for the store and the other nodes.
    pub note_interval: Duration,
    /// Events that a reader may be behind.
    pub events_max: usize,
}

/// What becomes of a known pin in view of another.
enum Ruling {
    /// The other stands from now on.
    Yields { to: Pin, confirmed: bool },
    /// The known one stands.
    Stands,
    /// The known one stands, and whoever said the other is behind: the store and the other nodes must hear of it, also
    /// if nobody comes to the room here. Else they would never agree.
    Insists,
}

impl Ruling {
    /// By rank alone.
    fn of(known: &Pin, heard: Pin, confirmed: bool) -> Self {
        if heard.outranks(known) {
            Self::Yields { to: heard, confirmed }
        } else if known.upstream == heard.upstream {
            Self::Stands
        } else {
            Self::Insists
        }
    }
}

/// Pins to be confirmed in the store.
#[derive(Debug, Default)]
pub(crate) struct Dirty {
    /// A tunnel was in them.
    pub proven: Vec<PinUpdate>,
    /// Nobody was seen in them yet.
    pub unproven: Vec<PinUpdate>,
}

pub(crate) struct PinTable {
    shards: Vec<Mutex<Shard>>,
    shard_max: usize,
    limits: TableLimits,
    runtime: Arc<dyn Runtime>,
    lost: RwLock<HashMap<UpstreamName, Moment>>,
    events: broadcast::Sender<PinEvent>,
}

/// Every critical section leaves the table whole, so a panic elsewhere in the holder's thread does not spoil it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl PinTable {
    pub(crate) fn new(limits: TableLimits, runtime: Arc<dyn Runtime>) -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            shard_max: limits.pins_max.div_ceil(SHARDS).max(1),
            lost: RwLock::default(),
            events: broadcast::Sender::new(limits.events_max.max(1)),
            limits,
            runtime,
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

    fn alive(&self, entry: &Entry, now: Moment) -> bool {
        let ttl = if entry.proven { self.limits.ttl } else { self.limits.unproven_ttl };
        now < entry.touched + ttl
    }

    /// Whether the upstream was lost after anyone vouched for the pin: the room may have been moved without this node
    /// having heard of it.
    fn suspect(&self, entry: &Entry) -> bool {
        let lost = self.lost.read().unwrap_or_else(PoisonError::into_inner);
        lost.get(&entry.pin.upstream).is_some_and(|at| *at >= entry.vouched)
    }

    /// The room's place, if memory alone may answer; counts as use.
    pub(crate) fn find(&self, room: RoomKey, replace: Option<&UpstreamName>) -> Option<Pin> {
        let now = self.runtime.now();
        let mut shard = self.shard(room);
        let entry = shard.rooms.get_mut(&room)?;
        if !self.alive(entry, now) || Some(&entry.pin.upstream) == replace || self.suspect(entry) {
            return None;
        }
        entry.touched = now;
        let pin = entry.pin.clone();
        if self.is_to_note(entry, now) {
            shard.note_use(room);
        }
        Some(pin)
    }

    /// Whether this use is to be noted: not each of many, or the store would hear of every request.
    fn is_to_note(&self, entry: &mut Entry, now: Moment) -> bool {
        let due = now >= entry.noted + self.limits.note_interval;
        if due {
            entry.noted = now;
        }
        due
    }

    /// What memory has, trusted or not. For peers that ask, and for people.
    pub(crate) fn peek(&self, room: RoomKey) -> Option<Pin> {
        let now = self.runtime.now();
        let shard = self.shard(room);
        shard.rooms.get(&room).filter(|entry| self.alive(entry, now)).map(|entry| entry.pin.clone())
    }

    /// Whether a tunnel of this node was in the room.
    pub(crate) fn is_proven(&self, room: RoomKey) -> bool {
        self.shard(room).rooms.get(&room).is_some_and(|entry| entry.proven)
    }

    /// Takes what the store answered to a placement, and returns the pin that stands.
    ///
    /// Memory is left as it is only where it holds later knowledge. A store that lost data may answer with an older
    /// pin than the one that is to be replaced; it is then taken under a higher version.
    pub(crate) fn adopt_placement(&self, room: RoomKey, answer: Pin, replace: Option<&UpstreamName>) -> Pin {
        self.update(room, answer, true, |known, answer| {
            if known.upstream == answer.upstream {
                let version = answer.version.max(known.version);
                Ruling::Yields { to: Pin { version, ..answer }, confirmed: true }
            } else if Some(&known.upstream) == replace && !answer.outranks(known) {
                let version = known.version.saturating_add(1);
                Ruling::Yields { to: Pin { version, ..answer }, confirmed: false }
            } else {
                Ruling::of(known, answer, true)
            }
        })
    }

    /// Takes the store's word on a pin that was sent to be kept, unless memory has moved on since.
    pub(crate) fn adopt_kept(&self, sent: &PinUpdate, answer: Pin) {
        let mut shard = self.shard(sent.room);
        let Some(entry) = shard.rooms.get_mut(&sent.room) else { return };
        if entry.pin != sent.pin && !answer.outranks(&entry.pin) {
            return;
        }
        let moved = entry.pin.upstream != answer.upstream;
        if moved {
            metrics::counter!("twinsite_sessions_contested_pins_total").increment(1);
            self.tell(PinEvent::Changed { room: sent.room, upstream: answer.upstream.clone() });
        }
        entry.pin = answer;
        entry.vouched = self.runtime.now();
        entry.confirmed = true;
    }

    /// Takes a peer's pin if it outranks what is known, and returns the pin that stands. `to_keep`: this node shall
    /// write it to the store.
    pub(crate) fn adopt_heard(&self, room: RoomKey, heard: Pin, to_keep: bool) -> Pin {
        self.update(room, heard, !to_keep, |known, heard| {
            if *known == heard {
                Ruling::Yields { to: heard, confirmed: !to_keep }
            } else {
                Ruling::of(known, heard, !to_keep)
            }
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
            if decided {
                Ruling::Yields { to: Pin { version, ..fresh }, confirmed: false }
            } else {
                Ruling::Stands
            }
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
            return stray;
        }
        let now = self.runtime.now();
        let mut shard = self.shard(room);
        if let Some(entry) = shard.rooms.get_mut(&room) {
            entry.touched = now;
            entry.live = Some(now);
            let first = !std::mem::replace(&mut entry.proven, true);
            // The first proof goes to the store at once: there the room has only a short life yet.
            if self.is_to_note(entry, now) || first {
                shard.note_use(room);
            }
        }
        stray
    }

    /// The one place where a room's entry changes. A room of which nothing is known gets the candidate; else `against`
    /// compares it with the known pin. `confirmed`: the store has the candidate.
    ///
    /// Only a change of a known place is told: nobody can be elsewhere in a room that was not known, and should a
    /// tunnel be, [`PinTable::touch_live`] finds it.
    fn update(
        &self,
        room: RoomKey,
        candidate: Pin,
        confirmed: bool,
        against: impl FnOnce(&Pin, Pin) -> Ruling,
    ) -> Pin {
        let now = self.runtime.now();
        let mut shard = self.shard(room);
        if let Some(known) = shard.rooms.get_mut(&room) {
            if self.alive(known, now) {
                known.touched = now;
                let (pin, confirmed) = match against(&known.pin, candidate) {
                    Ruling::Yields { to, confirmed } => (to, confirmed),
                    Ruling::Stands => return known.pin.clone(),
                    Ruling::Insists => {
                        let pin = known.pin.clone();
                        shard.note_use(room);
                        return pin;
                    }
                };
                if known.pin.upstream != pin.upstream {
                    self.tell(PinEvent::Changed { room, upstream: pin.upstream.clone() });
                }
                (known.pin, known.vouched, known.confirmed) = (pin.clone(), now, confirmed);
                if !confirmed {
                    shard.note_use(room);
                }
                return pin;
            }
            shard.remove(&room);
        } else if shard.rooms.len() >= self.shard_max {
            self.evict(&mut shard, now);
        }
        let entry = Entry {
            pin: candidate.clone(),
            vouched: now,
            touched: now,
            noted: now,
            live: None,
            proven: false,
            confirmed,
        };
        shard.rooms.insert(room, entry);
        if !confirmed {
            shard.note_use(room);
        }
        candidate
    }

    /// Makes space: of a sample goes a room that nobody was seen in, else one that the store has, which then only
    /// costs a question to the store; of those the least recently used. A room with a live tunnel of this node stays:
    /// its tunnels bound how many there are.
    fn evict(&self, shard: &mut Shard, now: Moment) {
        let idle = shard.rooms.iter().filter(|(_, entry)| !entry.is_live(now)).take(EVICTION_SAMPLE);
        let first = idle.min_by_key(|(_, entry)| (entry.proven, !entry.confirmed, entry.touched));
        if let Some(room) = first.map(|(room, _)| *room) {
            shard.remove(&room);
            metrics::counter!("twinsite_sessions_evicted_pins_total").increment(1);
            self.tell(PinEvent::Removed { room });
        }
    }

    /// The upstream went away: what is known of rooms on it must be asked again before it is used again.
    pub(crate) fn upstream_lost(&self, upstream: &UpstreamName) {
        let mut lost = self.lost.write().unwrap_or_else(PoisonError::into_inner);
        let now = self.runtime.now();
        lost.insert(upstream.clone(), now);
        // Nothing that was vouched for before its time to live is in memory any more.
        lost.retain(|_, at| now.since(*at) <= self.limits.ttl);
    }

    /// Takes all pins that were used since the last call.
    pub(crate) fn take_dirty(&self) -> Dirty {
        let now = self.runtime.now();
        let mut taken = Dirty::default();
        for shard in &self.shards {
            let mut shard = lock(shard);
            for room in std::mem::take(&mut shard.dirty) {
                if let Some(entry) = shard.rooms.get(&room).filter(|entry| self.alive(entry, now)) {
                    let list = if entry.proven { &mut taken.proven } else { &mut taken.unproven };
                    list.push(PinUpdate { room, pin: entry.pin.clone() });
                }
            }
        }
        taken
    }

    /// Takes the pins that were used here since the last call, for the other nodes.
    pub(crate) fn take_unspread(&self) -> Vec<PinUpdate> {
        let now = self.runtime.now();
        let mut taken = Vec::new();
        for shard in &self.shards {
            let mut shard = lock(shard);
            for room in std::mem::take(&mut shard.unspread) {
                if let Some(entry) = shard.rooms.get(&room).filter(|entry| self.alive(entry, now)) {
                    taken.push(PinUpdate { room, pin: entry.pin.clone() });
                }
            }
        }
        taken
    }

    /// Puts back what could not be kept.
    pub(crate) fn mark_dirty(&self, updates: &[PinUpdate]) {
        for update in updates {
            let mut shard = self.shard(update.room);
            if shard.rooms.contains_key(&update.room) {
                shard.dirty.insert(update.room);
            }
        }
    }

    /// Marks every live pin as to be kept: the store may have forgotten them.
    pub(crate) fn mark_all_dirty(&self) {
        for shard in &self.shards {
            let Shard { rooms, dirty, .. } = &mut *lock(shard);
            dirty.extend(rooms.keys());
        }
    }

    /// Forgets rooms that nobody used for their time to live.
    pub(crate) fn sweep(&self) {
        let now = self.runtime.now();
        for shard in &self.shards {
            let Shard { rooms, dirty, unspread } = &mut *lock(shard);
            let over = rooms.iter().filter(|(_, entry)| !self.alive(entry, now)).map(|(room, _)| *room);
            // Told in order, not in that of the table, which is another in each process.
            for room in over.collect::<BTreeSet<_>>() {
                rooms.remove(&room);
                dirty.remove(&room);
                unspread.remove(&room);
                self.tell(PinEvent::Removed { room });
            }
        }
    }

    /// All live pins.
    pub(crate) fn snapshot(&self) -> Vec<PinUpdate> {
        let now = self.runtime.now();
        let mut all = Vec::new();
        for shard in &self.shards {
            let shard = lock(shard);
            let alive = shard.rooms.iter().filter(|(_, entry)| self.alive(entry, now));
            all.extend(alive.map(|(room, entry)| PinUpdate { room: *room, pin: entry.pin.clone() }));
        }
        // Not in the order of the table, which is another in each process.
        all.sort_unstable_by_key(|update| update.room);
        all
    }

    pub(crate) fn len(&self) -> usize {
        self.shards.iter().map(|shard| lock(shard).rooms.len()).sum()
    }
}
