//! Floating IPs of one machine's loopback range: every node could listen on any of them, so something must keep the
//! second one out.
//!
//! `SO_REUSEPORT` would let two processes share the port, the frozen one included. So a holder first binds an abstract
//! Unix socket named after the address, which the kernel gives to one process only and takes back the moment that
//! process is gone, and only then listens.

mod exclusion;
mod kernel;
#[cfg(test)]
mod tests;

pub use exclusion::address_is_free;

use crate::clock::Lease;
use crate::listen::Listening;
use crate::provider::{Accepted, Fencing, Observation, Provider, ProviderError, Work};
use exclusion::Exclusion;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use twinsite_model::{BootTime, Token};

/// How long the kernel may take to forget a socket after its last descriptor was closed.
const GONE_WITHIN: Duration = Duration::from_millis(200);

/// One floating IP on loopback, with its ports.
pub struct Loopback {
    addresses: Vec<SocketAddr>,
    accepted: Arc<dyn Fn(Lease) -> Arc<dyn Accepted> + Send + Sync>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    lease: Option<Lease>,
    /// Held as long as anything may still answer; given up last.
    exclusions: Vec<Exclusion>,
    listening: Vec<Listening>,
    error: Option<String>,
}

impl Loopback {
    /// An address that nobody holds yet. `accepted` makes a taker of connections for each new lease.
    pub fn new(
        ip: IpAddr,
        ports: &[u16],
        accepted: impl Fn(Lease) -> Arc<dyn Accepted> + Send + Sync + 'static,
    ) -> Self {
        let addresses = ports.iter().map(|port| SocketAddr::new(ip, *port)).collect();
        Self { addresses, accepted: Arc::new(accepted), state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn attach(&self, token: Token, until: BootTime) -> Result<(), ProviderError> {
        let mut state = self.state();
        if let Some(lease) = state.lease.as_ref().filter(|lease| lease.token() == token) {
            lease.extend(until);
            if !state.listening.is_empty() {
                return Ok(());
            }
        }
        let result = self.listen(&mut state, token, until);
        state.error = result.as_ref().err().map(ToString::to_string);
        result
    }

    fn listen(&self, state: &mut State, token: Token, until: BootTime) -> Result<(), ProviderError> {
        if state.exclusions.is_empty() {
            state.exclusions =
                self.addresses.iter().map(|address| Exclusion::take(*address)).collect::<Result<_, _>>()?;
        }
        let lease = Lease::new(token, until);
        let taker = (self.accepted)(lease.clone());
        let listening = self.addresses.iter().map(|address| Listening::start(*address, Arc::clone(&taker)));
        match listening.collect::<Result<Vec<_>, _>>() {
            Ok(listening) => {
                state.listening = listening;
                state.lease = Some(lease);
                Ok(())
            }
            Err(error) => {
                state.exclusions.clear();
                Err(error)
            }
        }
    }

    /// Waits until the kernel shows none of the listeners, which dropping them has already closed.
    async fn gone(&self) -> Result<(), ProviderError> {
        let deadline = tokio::time::Instant::now() + GONE_WITHIN;
        loop {
            let mut left = None;
            for address in &self.addresses {
                // What cannot be told is not known to be gone.
                let listens = kernel::any_listener(*address)
                    .map_err(|error| ProviderError::Refused { address: *address, why: error.to_string() })?;
                if listens {
                    left = Some(address);
                    break;
                }
            }
            match left {
                None => return Ok(()),
                Some(address) if tokio::time::Instant::now() >= deadline => {
                    return Err(ProviderError::StillThere(*address));
                }
                Some(_) => tokio::time::sleep(Duration::from_millis(2)).await,
            }
        }
    }
}

impl Provider for Loopback {
    fn fencing(&self) -> Fencing {
        Fencing::ExclusiveByGuardian
    }

    fn hold(&self, token: Token, until: BootTime) -> Work<'_, Result<(), ProviderError>> {
        Box::pin(async move { self.attach(token, until) })
    }

    fn end(&self, token: Token) {
        if let Some(lease) = self.state().lease.as_ref().filter(|lease| lease.token() == token) {
            lease.end();
        }
    }

    fn until(&self, token: Token) -> Option<BootTime> {
        let state = self.state();
        let lease = state.lease.as_ref().filter(|lease| lease.token() == token && lease.holds());
        lease.map(Lease::until)
    }

    fn close(&self) -> Work<'_, ()> {
        Box::pin(async move {
            let listening = std::mem::take(&mut self.state().listening);
            for listening in listening {
                listening.stop().await;
            }
        })
    }

    fn release(&self) -> Work<'_, Result<(), ProviderError>> {
        Box::pin(async move {
            self.close().await;
            if let Some(lease) = self.state().lease.take() {
                lease.end();
            }
            // Without the names nothing was held, and a listener there is somebody else's.
            if !self.state().exclusions.is_empty() {
                self.gone().await?;
                self.state().exclusions.clear();
            }
            Ok(())
        })
    }

    fn observe(&self) -> Observation {
        let state = self.state();
        let listens = !state.listening.is_empty()
            && state.listening.iter().all(Listening::is_listening)
            && self.addresses.iter().all(|address| exclusion::is_taken(*address));
        let attached = state.lease.as_ref().filter(|lease| listens && lease.holds()).map(Lease::token);
        Observation { attached, error: state.error.clone(), stranger: None }
    }
}
