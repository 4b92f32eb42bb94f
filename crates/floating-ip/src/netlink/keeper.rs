//! The thread that keeps an address light: a moment at a time, as long as its lease runs.
//!
//! It is a thread of its own, and not a task, because the moments are short: whatever else the process is busy with, the
//! address is lit in time, and goes dark when this thread does not run. What may wait in the kernel for long (for the
//! lock over all interfaces, for a grace period when a raw socket is closed: seconds were seen on a busy machine) is
//! done by other threads, one for the address's lifetime and one for the announcements.

use super::address::Address;
use super::announce::Announcing;
use super::firewall::{Firewall, NotLit};
use super::layers::Layers;
use super::orphans;
use super::presence::Presence;
use crate::clock::Lease;
use crate::connection::Connection;
use std::io;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;
use twinsite_model::{HardwareAddress, Token};

/// The longest moment for which an address is lit at a time: so long does a frozen holder's kernel go on answering.
pub const LIT_AT_MOST: Duration = Duration::from_millis(160);
/// How often the moment is begun anew: several may come late before one is missed.
const LIT_EVERY: Duration = Duration::from_millis(40);
/// How often the address's own lifetime is begun anew.
const ADDRESS_EVERY: Duration = Duration::from_millis(500);

/// Where an address is held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) name: String,
    pub(super) address: IpAddr,
    pub(super) interface: String,
}

/// The connections that were open at an address under earlier tokens than this one.
pub(super) type Earlier = Arc<dyn Fn(Token) -> Vec<Connection> + Send + Sync>;

type Done = oneshot::Sender<io::Result<()>>;

enum Order {
    /// The rules, dark, and then the address, as long as this lease runs.
    Prepare(Lease, Done),
    /// Light from now on, as long as this lease runs.
    Light(Lease, Done),
    /// Dark from now on.
    Darken(Done),
    /// Dark, and without the address.
    Remove(Done),
}

/// The line to the thread. When it is dropped, the address is let go; its rules stay, dark.
pub(super) struct Keeper {
    orders: Sender<Order>,
    shared: Arc<Shared>,
}

/// What is known of an address that is kept.
#[derive(Default)]
struct Shared {
    lit: AtomicBool,
    /// Its rules are there.
    guarded: Arc<AtomicBool>,
    /// The thread has ended, whyever.
    ended: AtomicBool,
    /// Why it is not lit, and why it is not on its interface: each is over when that has come right.
    errors: Mutex<[Option<String>; 2]>,
    /// What the present holding has heard of other hosts.
    strangers: Mutex<Strangers>,
}

/// Another host that answers for the address too, as far as one holding has heard.
#[derive(Default)]
struct Strangers {
    /// Which holding: what an earlier one had heard says nothing of now, and its thread may be held up in the kernel, which
    /// takes its time to close a socket.
    holding: u64,
    known: Option<HardwareAddress>,
}

/// What an error is about.
#[derive(Clone, Copy)]
enum About {
    Light,
    Address,
}

/// Makes a place dark and takes the address away, whatever an earlier life has left there.
pub(super) fn take_over(place: &Place) -> io::Result<(Address, Firewall)> {
    let mut address = Address::open(place.address, &place.interface)?;
    address.interface()?;
    let firewall = Firewall::establish(&place.name, place.address, &place.interface)?;
    address.clear()?;
    Ok((address, firewall))
}

/// Clears away what a process has left that is gone: dark, and without the address; read back.
pub(super) fn clear(place: &Place) -> io::Result<()> {
    let darkened = Firewall::over(&place.name, place.address, &place.interface)
        .and_then(|mut firewall| firewall.darken());
    // Taken away, whatever became of the rules.
    Address::open(place.address, &place.interface)?.clear()?;
    darkened
}

impl Keeper {
    /// Takes the place over and waits for orders.
    pub(super) fn start(place: Place, layers: Layers, earlier: Earlier) -> io::Result<Self> {
        let (address, firewall) = take_over(&place)?;
        let (orders, given) = channel();
        let shared = Arc::new(Shared::default());
        let presence = Presence::new(address, layers, Arc::clone(&shared.guarded))?;
        let presence = Arc::new(Mutex::new(presence));
        let (holding, announcing) = (None, None);
        let of_worker = Arc::clone(&shared);
        let worker =
            Worker { place, layers, earlier, presence, firewall, shared: of_worker, holding, announcing };
        thread::Builder::new().name("floating-ip".to_owned()).spawn(move || worker.run(&given))?;
        Ok(Self { orders, shared })
    }

    pub(super) async fn prepare(&self, lease: Lease) -> io::Result<()> {
        self.order(|done| Order::Prepare(lease, done)).await
    }

    pub(super) async fn light(&self, lease: Lease) -> io::Result<()> {
        self.order(|done| Order::Light(lease, done)).await
    }

    pub(super) async fn darken(&self) -> io::Result<()> {
        self.order(Order::Darken).await
    }

    /// Darkens, and does not wait for it.
    pub(super) fn begin_to_darken(&self) {
        let (done, _) = oneshot::channel();
        drop(self.orders.send(Order::Darken(done)));
    }

    pub(super) async fn remove(&self) -> io::Result<()> {
        self.order(Order::Remove).await
    }

    /// Whether it was lit at the last try.
    pub(super) fn is_lit(&self) -> bool {
        self.shared.lit.load(Ordering::Acquire)
    }

    /// Whether nobody keeps the address any more: its thread has ended by a defect.
    pub(super) fn has_ended(&self) -> bool {
        self.shared.ended.load(Ordering::Acquire)
    }

    /// Another host that answers for the address too.
    pub(super) fn stranger(&self) -> Option<HardwareAddress> {
        self.shared.strangers().known
    }

    /// Why it is not as it should be.
    pub(super) fn error(&self) -> Option<String> {
        self.shared.errors().iter().flatten().next().cloned()
    }

    async fn order(&self, order: impl FnOnce(Done) -> Order) -> io::Result<()> {
        let (done, answered) = oneshot::channel();
        let gone = || io::Error::other("the thread that keeps the address has ended");
        self.orders.send(order(done)).map_err(|_| gone())?;
        answered.await.map_err(|_| gone())?
    }
}

struct Worker {
    place: Place,
    layers: Layers,
    earlier: Earlier,
    presence: Arc<Mutex<Presence>>,
    firewall: Firewall,
    shared: Arc<Shared>,
    holding: Option<Holding>,
    announcing: Option<JoinHandle<()>>,
}

/// What is lit, and since when.
struct Holding {
    lease: Lease,
    lit_at: Instant,
}

/// Says that the thread has ended, however it did.
struct Ended(Arc<Shared>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.lit.store(false, Ordering::Release);
        self.0.ended.store(true, Ordering::Release);
    }
}

impl Worker {
    fn run(mut self, orders: &Receiver<Order>) {
        let _ended = Ended(Arc::clone(&self.shared));
        loop {
            let due = self.holding.as_ref().map(|holding| holding.lit_at + LIT_EVERY);
            let order = match due {
                Some(due) => orders.recv_timeout(due.saturating_duration_since(Instant::now())),
                None => orders.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            match order {
                Ok(order) => self.carry_out(order),
                Err(RecvTimeoutError::Timeout) => self.keep(),
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        if let Err(error) = self.remove() {
            tracing::error!(ip = %self.place.address, %error, "a floating IP could not be cleared away");
        }
    }

    fn carry_out(&mut self, order: Order) {
        let (done, result) = match order {
            Order::Prepare(lease, done) => (done, self.prepare(lease)),
            Order::Light(lease, done) => (done, self.light(lease)),
            Order::Darken(done) => (done, self.darken()),
            Order::Remove(done) => (done, self.remove()),
        };
        if let Err(error) = &result {
            self.say(About::Light, Some(error.to_string()));
        }
        let _gone = done.send(result);
    }

    /// The rules come before the address.
    fn prepare(&mut self, lease: Lease) -> io::Result<()> {
        if !self.firewall.is_complete()? {
            locked(&self.presence).unguard()?;
            self.firewall.rebuild()?;
        }
        let mut presence = locked(&self.presence);
        presence.guard()?;
        match orphans::break_off(self.place.address) {
            Ok(0) => {}
            Ok(count) => {
                tracing::info!(ip = %self.place.address, count, "connections of an earlier life were broken off");
            }
            // Not to answer at all would be worse than an answer that comes late.
            Err(error) => tracing::warn!(
                ip = %self.place.address, %error,
                "connections of an earlier life may still say something: this kernel does not break them off"
            ),
        }
        presence.begin(lease)?;
        presence.wait_delivered()
    }

    fn light(&mut self, lease: Lease) -> io::Result<()> {
        if !self.lit(&lease)? {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "its lease was over before it could be lit"));
        }
        let interface = locked(&self.presence).guard()?;
        self.holding = Some(Holding { lease: lease.clone(), lit_at: Instant::now() });
        let (presence, shared) = (Arc::clone(&self.presence), Arc::clone(&self.shared));
        let lifetime = lease.clone();
        thread::Builder::new()
            .name("address".to_owned())
            .spawn(move || keep_address(&presence, &lifetime, &shared))?;
        let announcing = Announcing::new(self.place.address, &self.place.interface, &interface);
        let (earlier, token) = (Arc::clone(&self.earlier), lease.token());
        let orphans = Arc::new(move || earlier(token));
        let (shared, noted, ip) = (Arc::clone(&self.shared), Arc::clone(&self.shared), self.place.address);
        let holding = self.shared.listen_anew();
        let is_lit = move || lease.holds().then(|| shared.lit.load(Ordering::Acquire));
        let announcing = thread::Builder::new().name("announcements".to_owned()).spawn(move || {
            announcing.run(is_lit, orphans, |stranger| noted.note_stranger(holding, stranger, ip));
        })?;
        self.announcing = Some(announcing);
        Ok(())
    }

    /// Lights the address for another moment, if its lease still runs; whether it was.
    fn lit(&mut self, lease: &Lease) -> io::Result<bool> {
        if !self.shared.guarded.load(Ordering::Acquire) {
            self.protect_again()?;
        }
        let layers = self.layers;
        let lit = match self.firewall.lighten(|| layers.moment(lease)) {
            Err(NotLit::Unprotected) => {
                self.shared.lit.store(false, Ordering::Release);
                self.protect_again()?;
                self.firewall.lighten(|| layers.moment(lease))
            }
            lit => lit,
        };
        self.shared.lit.store(matches!(lit, Ok(true)), Ordering::Release);
        let lit = lit.map_err(io::Error::other)?;
        self.say(About::Light, None);
        Ok(lit)
    }

    /// Without its rules nothing would darken the address if this process froze now: the address goes first.
    fn protect_again(&mut self) -> io::Result<()> {
        let mut presence = locked(&self.presence);
        presence.unguard()?;
        tracing::error!(
            ip = %self.place.address, interface = %self.place.interface,
            "{}: the address was taken away until they were there again; let nothing flush them \
             (`nft flush ruleset`, a firewall's restart)",
            NotLit::Unprotected
        );
        self.firewall.rebuild()?;
        presence.guard()?;
        presence.keep().map(drop)
    }

    /// Begins the moment anew, or ends it when the lease is over: what was over once stays so.
    fn keep(&mut self) {
        let Some(holding) = &mut self.holding else { return };
        holding.lit_at = Instant::now();
        let lease = holding.lease.clone();
        let kept = if lease.holds() { self.lit(&lease).map(drop) } else { self.darken() };
        if let Err(error) = kept {
            self.say(About::Light, Some(error.to_string()));
        }
    }

    /// Dark by the rules; and where that cannot be, or the rules are not all there, dark without the address.
    fn darken(&mut self) -> io::Result<()> {
        if let Some(holding) = self.holding.take() {
            holding.lease.end();
            self.shared.listen_anew();
        }
        self.shared.lit.store(false, Ordering::Release);
        let darkened = self.firewall.darken().and_then(|()| self.firewall.is_complete());
        match darkened {
            Ok(true) => Ok(()),
            Ok(false) => {
                locked(&self.presence).unguard()?;
                // What is closed now would otherwise say so: an IPv6 socket does, with its address gone too.
                self.firewall.rebuild()
            }
            Err(error) => {
                locked(&self.presence).unguard()?;
                tracing::warn!(ip = %self.place.address, %error, "dark without its rules: the address was taken away");
                Ok(())
            }
        }
    }

    /// Dark first, then without the address, whatever becomes of the first; read back.
    fn remove(&mut self) -> io::Result<()> {
        let darkened = self.darken();
        locked(&self.presence).clear()?;
        darkened?;
        if let Some(announcing) = self.announcing.take().filter(|_| !self.firewall.holds_frames_back()) {
            // Nothing but its own look at the lease holds back what it is about to say.
            drop(announcing.join());
        }
        self.say(About::Light, None);
        self.say(About::Address, None);
        Ok(())
    }

    fn say(&self, about: About, error: Option<String>) {
        self.shared.say(about, error, self.place.address);
    }
}

impl Shared {
    fn errors(&self) -> MutexGuard<'_, [Option<String>; 2]> {
        self.errors.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn strangers(&self) -> MutexGuard<'_, Strangers> {
        self.strangers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A holding begins or ends: nothing has been heard of others yet. The number of the holding.
    fn listen_anew(&self) -> u64 {
        let mut strangers = self.strangers();
        *strangers = Strangers { holding: strangers.holding + 1, known: None };
        strangers.holding
    }

    /// Notes who else answers for the address, and says it when it is news.
    fn note_stranger(&self, holding: u64, stranger: Option<HardwareAddress>, ip: IpAddr) {
        let mut strangers = self.strangers();
        if strangers.holding != holding || strangers.known == stranger {
            return;
        }
        strangers.known = stranger;
        drop(strangers);
        match stranger {
            Some(hardware) => tracing::error!(
                %ip, %hardware,
                "another host answers for a floating IP: find the one with this hardware address (the switch knows its \
                 port) and take the address off it; until then clients reach either"
            ),
            None => tracing::info!(%ip, "no other host answers for a floating IP any more"),
        }
    }

    /// Notes what is wrong, and says it when it is news.
    fn say(&self, about: About, error: Option<String>, ip: IpAddr) {
        let mut errors = self.errors();
        let known = &mut errors[about as usize];
        if *known != error {
            if let Some(error) = &error {
                tracing::error!(%ip, %error, "a floating IP is not as it should be");
            }
            *known = error;
        }
    }
}

/// Begins the address's own lifetime anew as long as the lease runs.
fn keep_address(presence: &Mutex<Presence>, lease: &Lease, shared: &Shared) {
    while lease.holds() {
        thread::sleep(ADDRESS_EVERY);
        let mut presence = locked(presence);
        // Another lease has its own thread.
        if !lease.holds() {
            return;
        }
        let error = presence.keep().err().map(|error| error.to_string());
        shared.say(About::Address, error, presence.ip());
    }
}

fn locked(presence: &Mutex<Presence>) -> MutexGuard<'_, Presence> {
    presence.lock().unwrap_or_else(PoisonError::into_inner)
}
