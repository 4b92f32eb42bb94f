//! The thread that keeps an address light: a moment at a time, as long as its lease runs.
//!
//! It is a thread of its own, and not a task, because the moments are short: whatever else the process is busy with, the
//! address is lit in time, and goes dark when this thread does not run. What may wait in the kernel for long (for the
//! lock over all interfaces, for a grace period when a raw socket is closed: seconds were seen on a busy machine) is
//! done by other threads, one for the address's lifetime and one for the announcements.

use super::address::Address;
use super::announce::Announcing;
use super::firewall::{Firewall, NotLit};
use crate::clock::{Lease, boot_now};
use std::io;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::oneshot;
use twinsite_model::BootTime;

/// The longest moment for which an address is lit at a time: so long does a frozen holder's kernel go on answering.
pub const LIT_AT_MOST: Duration = Duration::from_millis(160);
/// How often the moment is begun anew: several may come late before one is missed.
const LIT_EVERY: Duration = Duration::from_millis(40);
/// With less than this left of the lease it is not lit anew: the kernel counts in ticks of up to ten milliseconds.
const LAST: Duration = Duration::from_millis(20);
/// How often the address's own lifetime is begun anew.
const ADDRESS_EVERY: Duration = Duration::from_millis(500);

/// Where an address is held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) name: String,
    pub(super) address: IpAddr,
    pub(super) interface: String,
}

type Done = oneshot::Sender<io::Result<()>>;

enum Order {
    /// The rules, dark, and then the address.
    Prepare(Duration, Done),
    /// Light from now on, as long as this lease runs.
    Light(Lease, Done),
    /// Dark from now on.
    Darken(Done),
    /// Dark, and without the address.
    Remove(Done),
}

/// The line to the thread. When the last one is dropped, the address is let go and the rules are taken away.
pub(super) struct Keeper {
    orders: Sender<Order>,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    lit: AtomicBool,
    error: Mutex<Option<String>>,
}

/// Makes a place dark and takes the address away, whatever an earlier life has left there.
pub(super) fn take_over(place: &Place) -> io::Result<(Address, Firewall)> {
    let mut address = Address::open(place.address, &place.interface)?;
    address.interface()?;
    let firewall = Firewall::establish(&place.name, place.address, &place.interface)?;
    address.clear()?;
    Ok((address, firewall))
}

impl Keeper {
    /// Takes the place over and waits for orders.
    pub(super) fn start(place: Place) -> io::Result<Self> {
        let (address, firewall) = take_over(&place)?;
        let (orders, given) = channel();
        let shared = Arc::new(Shared::default());
        let address = Arc::new(Mutex::new(address));
        let worker = Worker { place, address, firewall, shared: Arc::clone(&shared), holding: None };
        thread::Builder::new().name("floating-ip".to_owned()).spawn(move || worker.run(&given))?;
        Ok(Self { orders, shared })
    }

    pub(super) async fn prepare(&self, rest: Duration) -> io::Result<()> {
        self.order(|done| Order::Prepare(rest, done)).await
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

    /// Why it is not as it should be.
    pub(super) fn error(&self) -> Option<String> {
        self.shared.error.lock().unwrap_or_else(PoisonError::into_inner).clone()
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
    /// Whoever has it may put the address there or take it away.
    address: Arc<Mutex<Address>>,
    firewall: Firewall,
    shared: Arc<Shared>,
    holding: Option<Holding>,
}

/// What is lit, and since when.
struct Holding {
    lease: Lease,
    lit_at: Instant,
}

impl Worker {
    fn run(mut self, orders: &Receiver<Order>) {
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
        if let Err(error) = self.remove().and_then(|()| self.firewall.remove()) {
            tracing::error!(ip = %self.place.address, %error, "a floating IP could not be cleared away");
        }
    }

    fn carry_out(&mut self, order: Order) {
        let (done, result) = match order {
            Order::Prepare(rest, done) => (done, self.prepare(rest)),
            Order::Light(lease, done) => (done, self.light(lease)),
            Order::Darken(done) => (done, self.darken()),
            Order::Remove(done) => (done, self.remove()),
        };
        if let Err(error) = &result {
            self.shared.say(Some(error.to_string()), self.place.address);
        }
        let _gone = done.send(result);
    }

    /// The rules come before the address.
    fn prepare(&mut self, rest: Duration) -> io::Result<()> {
        if !self.firewall.is_complete()? {
            self.firewall.rebuild()?;
        }
        let mut address = locked(&self.address);
        if !address.interface()?.is_up {
            let problem = format!("the interface `{}` is down", self.place.interface);
            return Err(io::Error::new(io::ErrorKind::NetworkDown, problem));
        }
        address.put(rest)
    }

    fn light(&mut self, lease: Lease) -> io::Result<()> {
        let interface = locked(&self.address).interface()?;
        self.lit(&lease)?;
        self.holding = Some(Holding { lease: lease.clone(), lit_at: Instant::now() });
        let (address, shared) = (Arc::clone(&self.address), Arc::clone(&self.shared));
        let lifetime = lease.clone();
        thread::Builder::new()
            .name("address".to_owned())
            .spawn(move || keep_address(&address, &lifetime, &shared))?;
        let announcing = Announcing::new(self.place.address, &self.place.interface, &interface);
        let shared = Arc::clone(&self.shared);
        let is_lit = move || lease.holds().then(|| shared.lit.load(Ordering::Acquire));
        thread::Builder::new().name("announcements".to_owned()).spawn(move || announcing.run(is_lit))?;
        Ok(())
    }

    /// Lights the address for another moment, if its lease still runs.
    fn lit(&mut self, lease: &Lease) -> io::Result<()> {
        // The wall clock first: if this process stands still between the two, the deadline comes too early.
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let rest = rest(lease, boot_now());
        if rest < LAST {
            self.shared.lit.store(false, Ordering::Release);
            return Ok(());
        }
        let deadline = u64::try_from((wall + rest).as_nanos()).unwrap_or(u64::MAX);
        let lit = self.firewall.lighten(rest.min(LIT_AT_MOST), deadline);
        self.shared.lit.store(lit.is_ok(), Ordering::Release);
        match lit {
            Ok(()) => {
                self.shared.say(None, self.place.address);
                Ok(())
            }
            Err(NotLit::Refused(error)) => Err(error),
            Err(unprotected @ NotLit::Unprotected) => {
                self.protect_again(&unprotected, rest)?;
                self.firewall.lighten(rest.min(LIT_AT_MOST), deadline).map_err(io::Error::other)?;
                self.shared.lit.store(true, Ordering::Release);
                Ok(())
            }
        }
    }

    /// Without its rules nothing would darken the address if this process froze now: the address goes first.
    fn protect_again(&mut self, unprotected: &NotLit, rest: Duration) -> io::Result<()> {
        let mut address = locked(&self.address);
        address.remove()?;
        tracing::error!(
            ip = %self.place.address, interface = %self.place.interface,
            "{unprotected}: the address was taken away until they were there again; let nothing flush them \
             (`nft flush ruleset`, a firewall's restart)"
        );
        self.firewall.rebuild()?;
        address.put(rest)
    }

    /// Begins the moment anew.
    fn keep(&mut self) {
        let Some(mut holding) = self.holding.take() else { return };
        holding.lit_at = Instant::now();
        if let Err(error) = self.lit(&holding.lease) {
            self.shared.say(Some(error.to_string()), self.place.address);
        }
        self.holding = Some(holding);
    }

    fn darken(&mut self) -> io::Result<()> {
        self.holding = None;
        self.shared.lit.store(false, Ordering::Release);
        self.firewall.darken()
    }

    /// Dark first, then without the address; read back.
    fn remove(&mut self) -> io::Result<()> {
        self.darken()?;
        locked(&self.address).clear()?;
        self.shared.say(None, self.place.address);
        Ok(())
    }
}

impl Shared {
    /// Notes what is wrong, and says it when it is news.
    fn say(&self, error: Option<String>, ip: IpAddr) {
        let mut known = self.error.lock().unwrap_or_else(PoisonError::into_inner);
        if *known != error {
            if let Some(error) = &error {
                tracing::error!(%ip, %error, "a floating IP is not as it should be");
            }
            *known = error;
        }
    }
}

/// Begins the address's own lifetime anew as long as the lease runs. In the end the kernel removes the address.
fn keep_address(address: &Mutex<Address>, lease: &Lease, shared: &Shared) {
    loop {
        thread::sleep(ADDRESS_EVERY);
        let mut address = locked(address);
        // Looked at under the lock: who takes the address away ends the lease before.
        let rest = rest(lease, boot_now());
        if rest.is_zero() {
            return;
        }
        if let Err(error) = address.put(rest) {
            shared.say(Some(error.to_string()), address.ip());
        }
    }
}

fn locked(address: &Mutex<Address>) -> MutexGuard<'_, Address> {
    address.lock().unwrap_or_else(PoisonError::into_inner)
}

fn rest(lease: &Lease, now: BootTime) -> Duration {
    if lease.holds() { lease.until().since(now) } else { Duration::ZERO }
}

/// Clears away what a process has left that is gone: dark, and without the address; read back.
pub(super) fn clear(place: &Place) -> io::Result<()> {
    Firewall::over(&place.name, place.address, &place.interface)?.darken()?;
    Address::open(place.address, &place.interface)?.clear()
}
