//! Floating IPs on an interface of this host, in a network that several hosts share.
//!
//! Every host could put the address on its interface, so what keeps two from answering is that each goes dark by its
//! own kernel's clock when its lease ends, whatever has become of the process. Three layers see to it, each enough by
//! itself within its granularity:
//!
//! 1. an element of a set of the packet filter, with a timeout of a fraction of a second, begun anew many times a
//!    second while the lease runs (milliseconds);
//! 2. a deadline on the wall clock in the rule behind it, written in the same transaction: it holds even if the
//!    process stands still between looking at the lease and writing the element (milliseconds);
//! 3. the lifetime of the address itself (seconds): it holds even if somebody flushes the packet filter.
//!
//! While dark the address is not on the interface, and nothing of it is said or heard: no packet from or to it, no
//! ARP with it as the sender, no advertisement, no question whether it is a duplicate.
//!
//! What it trusts: the kernel's monotonic clock runs as fast as everybody's within the bound on drift. A hypervisor
//! that stops a whole guest stops that clock too.

mod address;
mod announce;
mod conflict;
mod examine;
mod firewall;
mod keeper;
mod layers;
mod orphans;
mod presence;
mod rules;
mod socket;
mod tickle;

pub use examine::{HostFinding, examine};
pub use keeper::LIT_AT_MOST;
pub use layers::Layer;

use crate::clock::Lease;
use crate::connection::Connection;
use crate::listen::Listening;
use crate::provider::{Accepted, Fencing, Observation, Provider, ProviderError, Work};
use keeper::{Earlier, Keeper, Place};
use layers::Layers;
use rustix::io::Errno;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use twinsite_model::{BootTime, FloatingIpName, InterfaceName, Token};

/// One floating IP on an interface, with its ports.
pub struct Netlink {
    place: Place,
    layers: Layers,
    addresses: Vec<SocketAddr>,
    accepted: Arc<dyn Fn(Lease) -> Arc<dyn Accepted> + Send + Sync>,
    earlier: Earlier,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// None while the place could not be taken over: it is tried again with every grant.
    keeper: Option<Arc<Keeper>>,
    /// Why not.
    not_taken: Option<String>,
    lease: Option<Lease>,
    listening: Vec<Listening>,
}

impl Netlink {
    /// An address that nobody holds here yet. Nothing is done before it is held: another holder of this process may
    /// only just be letting it go. Then whatever an earlier life has left of it is made dark and taken away first.
    /// `accepted` makes a taker of connections for each new lease; `earlier` knows the connections that were open under
    /// earlier tokens than one, whose clients are told when the address is light under that one (`tickle.rs`).
    ///
    /// Needs `CAP_NET_ADMIN` for the rules and the address, `CAP_NET_RAW` to tell the network, and
    /// `CAP_NET_BIND_SERVICE` for ports below 1024.
    pub fn new(
        name: &FloatingIpName,
        ip: IpAddr,
        interface: &InterfaceName,
        ports: &[u16],
        accepted: impl Fn(Lease) -> Arc<dyn Accepted> + Send + Sync + 'static,
        earlier: impl Fn(Token) -> Vec<Connection> + Send + Sync + 'static,
    ) -> Self {
        Self {
            place: place(name, ip, interface),
            layers: Layers::ALL,
            addresses: ports.iter().map(|port| SocketAddr::new(ip, *port)).collect(),
            accepted: Arc::new(accepted),
            earlier: Arc::new(earlier),
            state: Mutex::default(),
        }
    }

    /// The same, ended by some of its layers only: for the proof that each is needed, and enough by itself. Nothing else may
    /// call it, and clippy.toml sees to that.
    #[doc(hidden)]
    #[must_use]
    pub fn with_layers_only(mut self, layers: &[Layer]) -> Self {
        self.layers = Layers::only(layers);
        self
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Who keeps the address, once the place could be taken over.
    fn keeper(&self) -> Result<Arc<Keeper>, ProviderError> {
        let mut state = self.state();
        if let Some(keeper) = state.keeper.as_ref().filter(|keeper| !keeper.has_ended()) {
            return Ok(Arc::clone(keeper));
        }
        let started = Keeper::start(self.place.clone(), self.layers, Arc::clone(&self.earlier))
            .map_err(|error| self.refused(&error));
        state.not_taken = started.as_ref().err().map(ToString::to_string);
        let keeper = Arc::new(started?);
        state.keeper = Some(Arc::clone(&keeper));
        Ok(keeper)
    }

    fn started(&self) -> Option<Arc<Keeper>> {
        self.state().keeper.clone()
    }

    fn refused(&self, error: &io::Error) -> ProviderError {
        refused(&self.place, error)
    }

    /// Extends the lease if it is this one; whether everything else is as it should be already.
    fn extend(&self, token: Token, until: BootTime) -> bool {
        let state = self.state();
        // One that has run out is not revived: what belongs to it has ended, and everything begins anew.
        let running = |lease: &&Lease| lease.token() == token && lease.holds();
        let Some(lease) = state.lease.as_ref().filter(running) else { return false };
        lease.extend(until);
        !state.listening.is_empty()
    }

    async fn attach(&self, token: Token, until: BootTime) -> Result<(), ProviderError> {
        let keeper = self.keeper()?;
        if self.extend(token, until) {
            return keeper.error().map_or(Ok(()), |why| Err(self.refused(&io::Error::other(why))));
        }
        // What listens under another lease would serve under that one.
        self.stop_listening().await;
        let lease = Lease::new(token, until);
        // Known before anything is done, so that `end` ends it, whatever is under way.
        self.state().lease = Some(lease.clone());
        let lit = self.light(&keeper, lease).await;
        if lit.is_err() {
            // The next grant begins anew.
            keeper.begin_to_darken();
            self.stop_listening().await;
            if let Some(lease) = self.state().lease.take() {
                lease.end();
            }
        }
        lit
    }

    async fn light(&self, keeper: &Keeper, lease: Lease) -> Result<(), ProviderError> {
        keeper.prepare(lease.clone()).await.map_err(|error| self.refused(&error))?;
        // Before it is light: who comes first finds somebody who listens, and is not refused.
        let taker = (self.accepted)(lease.clone());
        let listening = self.addresses.iter().map(|address| Listening::start(*address, Arc::clone(&taker)));
        self.state().listening = listening.collect::<Result<_, _>>()?;
        keeper.light(lease).await.map_err(|error| self.refused(&error))
    }

    async fn stop_listening(&self) {
        let listening = std::mem::take(&mut self.state().listening);
        for listening in listening {
            listening.stop().await;
        }
    }

    fn is_over(&self) -> bool {
        self.state().lease.as_ref().is_none_or(|lease| !lease.holds())
    }
}

impl Provider for Netlink {
    fn fencing(&self) -> Fencing {
        Fencing::KernelDeadline
    }

    fn hold(&self, token: Token, until: BootTime) -> Work<'_, Result<(), ProviderError>> {
        Box::pin(self.attach(token, until))
    }

    fn end(&self, token: Token) {
        let state = self.state();
        if let Some(lease) = state.lease.as_ref().filter(|lease| lease.token() == token) {
            lease.end();
            if let Some(keeper) = &state.keeper {
                keeper.begin_to_darken();
            }
        }
    }

    fn until(&self, token: Token) -> Option<BootTime> {
        let state = self.state();
        let lease = state.lease.as_ref().filter(|lease| lease.token() == token && lease.holds());
        lease.map(Lease::until)
    }

    fn close(&self) -> Work<'_, ()> {
        Box::pin(async move {
            if let Some(keeper) = self.started().filter(|_| self.is_over()) {
                // The connections that end now must say nothing any more: another host may answer already.
                if let Err(error) = keeper.darken().await {
                    tracing::error!(ip = %self.place.address, %error, "a floating IP could not be darkened at once");
                    tokio::time::sleep(LIT_AT_MOST).await; // so long at most it is light by itself
                }
            }
            self.stop_listening().await;
        })
    }

    fn release(&self) -> Work<'_, Result<(), ProviderError>> {
        Box::pin(async move {
            self.close().await;
            if let Some(lease) = self.state().lease.take() {
                lease.end();
            }
            let removed = match self.started() {
                Some(keeper) if keeper.has_ended() => keeper::clear(&self.place),
                Some(keeper) => keeper.remove().await,
                None => Ok(()), // nothing was ever held
            };
            removed.map_err(|error| self.refused(&error))
        })
    }

    fn observe(&self) -> Observation {
        let state = self.state();
        let listens = !state.listening.is_empty() && state.listening.iter().all(Listening::is_listening);
        let answers = listens && state.keeper.as_ref().is_some_and(|keeper| keeper.is_lit());
        let error =
            state.keeper.as_ref().and_then(|keeper| keeper.error()).or_else(|| state.not_taken.clone());
        let is_held = |lease: &&Lease| answers && error.is_none() && lease.holds();
        let attached = state.lease.as_ref().filter(is_held).map(Lease::token);
        let stranger = state.keeper.as_ref().and_then(|keeper| keeper.stranger());
        Observation { attached, error, stranger }
    }
}

impl Drop for Netlink {
    fn drop(&mut self) {
        // Whoever keeps it lit, or on its interface, looks at the lease.
        if let Some(lease) = self.state().lease.take() {
            lease.end();
        }
    }
}

/// Makes this host ready to hold the address one day: its rules are there, dark, and what an earlier life has left is
/// taken away. Says what is missing: the interface, a capability, nftables.
pub fn take_over(name: &FloatingIpName, ip: IpAddr, interface: &InterfaceName) -> Result<(), ProviderError> {
    let place = place(name, ip, interface);
    // Looked at first: an address that nobody is told of would leave the clients with the earlier owner.
    let ready = announce::may_tell(ip).and_then(|()| keeper::take_over(&place).map(drop));
    ready.map_err(|error| refused(&place, &error))
}

/// Clears away what a process has left that is gone: dark, and without the address; read back.
pub fn clear(name: &FloatingIpName, ip: IpAddr, interface: &InterfaceName) -> Result<(), ProviderError> {
    let place = place(name, ip, interface);
    keeper::clear(&place).map_err(|error| refused(&place, &error))
}

fn place(name: &FloatingIpName, address: IpAddr, interface: &InterfaceName) -> Place {
    Place { name: name.to_string(), address, interface: interface.to_string() }
}

fn refused(place: &Place, error: &io::Error) -> ProviderError {
    let Place { address, interface, .. } = place;
    let why = match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::PERM | Errno::ACCESS) => {
            "not allowed: give this program CAP_NET_ADMIN and CAP_NET_RAW".to_owned()
        }
        Some(Errno::NODEV) => {
            format!("this host has no interface `{interface}`; `ip link` lists what it has")
        }
        Some(Errno::OPNOTSUPP | Errno::AFNOSUPPORT | Errno::PROTONOSUPPORT) => {
            format!(
                "this kernel has no nftables ({error}), which keeps the address dark: load the module `nf_tables` \
                 (CONFIG_NF_TABLES, CONFIG_NF_TABLES_INET); the program `nft` is not needed"
            )
        }
        _ => error.to_string(),
    };
    ProviderError::Interface { ip: *address, interface: interface.clone(), why }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_refuses_is_said_with_what_to_do() {
        let place = Place {
            name: "public".to_owned(),
            address: "192.0.2.7".parse().unwrap(),
            interface: "eth0".to_owned(),
        };
        let said = |errno: Errno| refused(&place, &errno.into()).to_string();
        // Without `nfnetlink` there is no such socket, and without `nf_tables` nobody takes the batch.
        for errno in [Errno::PROTONOSUPPORT, Errno::OPNOTSUPP, Errno::AFNOSUPPORT] {
            let said = said(errno);
            assert!(said.starts_with("192.0.2.7 on `eth0`: this kernel has no nftables ("), "{said}");
            assert!(said.contains("load the module `nf_tables`"), "{said}");
        }
        assert!(said(Errno::PERM).contains("CAP_NET_ADMIN and CAP_NET_RAW"), "{}", said(Errno::PERM));
        assert!(said(Errno::NODEV).contains("no interface `eth0`"), "{}", said(Errno::NODEV));
    }
}
