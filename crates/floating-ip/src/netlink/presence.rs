//! The address on its interface, which is there only while its rules are there to keep it dark.

use super::address::{Address, Interface};
use super::layers::Layers;
use crate::clock::{Lease, boot_now};
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// How long is waited for the kernel to route an address to this host that was put there.
const DELIVERED_WITHIN: Duration = Duration::from_millis(500);
/// How often that is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// Whoever has it (there is a lock around it) may put the address there or take it away.
pub(super) struct Presence {
    address: Address,
    layers: Layers,
    /// The interface for which the rules are there; none: the address must not be.
    guarded: Option<u32>,
    /// The same for who does not want to wait for the lock.
    is_guarded: Arc<AtomicBool>,
    /// Under which the address is there.
    lease: Option<Lease>,
}

impl Presence {
    /// The address is not there, and its rules are.
    pub(super) fn new(mut address: Address, layers: Layers, is_guarded: Arc<AtomicBool>) -> io::Result<Self> {
        let index = address.interface()?.index;
        is_guarded.store(true, Ordering::Release);
        Ok(Self { address, layers, guarded: Some(index), is_guarded, lease: None })
    }

    /// The rules are there.
    pub(super) fn guard(&mut self) -> io::Result<Interface> {
        let interface = self.address.interface()?;
        if !interface.is_up {
            return Err(io::Error::new(io::ErrorKind::NetworkDown, "the interface is down"));
        }
        self.guarded = Some(interface.index);
        self.is_guarded.store(true, Ordering::Release);
        Ok(interface)
    }

    /// The rules are not there, or that cannot be told: so the address must not be.
    pub(super) fn unguard(&mut self) -> io::Result<()> {
        self.guarded = None;
        self.is_guarded.store(false, Ordering::Release);
        self.address.remove()
    }

    /// Puts the address there under this lease.
    pub(super) fn begin(&mut self, lease: Lease) -> io::Result<()> {
        self.lease = Some(lease);
        self.keep().map(drop)
    }

    /// Begins the address's own lifetime anew; false when its lease is over. In the end the kernel takes it away.
    pub(super) fn keep(&mut self) -> io::Result<bool> {
        let Some(lease) = self.lease.clone() else { return Ok(false) };
        let Some(guarded) = self.guarded else { return Ok(lease.holds()) };
        let interface = self.address.interface()?;
        if interface.index != guarded || !interface.is_up {
            // Made anew under the same name: what held the address back there went with the old one.
            self.unguard()?;
            return Ok(lease.holds());
        }
        let rest = rest(&lease);
        if rest.is_zero() {
            return Ok(false);
        }
        self.address.put(self.layers.lifetime(rest))?;
        if !lease.holds() {
            // This process stood still meanwhile, and the address would be there for longer than it may.
            self.address.remove()?;
        }
        Ok(true)
    }

    /// Waits until packets to it are this host's own: before, it would be announced and answer nothing. Rules of its own
    /// for routes may hide that from us, so in the end it is announced all the same, and the proof from outside tells.
    pub(super) fn wait_delivered(&mut self) -> io::Result<()> {
        let until = Instant::now() + DELIVERED_WITHIN;
        while !self.address.is_delivered_here()? {
            if Instant::now() >= until {
                tracing::warn!(ip = %self.address.ip(), "the kernel does not route the address to this host");
                break;
            }
            thread::sleep(LOOK_EVERY);
        }
        Ok(())
    }

    /// Takes it away for good, and reads back that it is.
    pub(super) fn clear(&mut self) -> io::Result<()> {
        self.lease = None;
        self.address.clear()
    }

    pub(super) fn ip(&self) -> IpAddr {
        self.address.ip()
    }
}

/// What is left of a lease.
pub(super) fn rest(lease: &Lease) -> Duration {
    if lease.holds() { lease.until().since(boot_now()) } else { Duration::ZERO }
}
