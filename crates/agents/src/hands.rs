//! What really holds a floating IP here: the guardian is told first, then the provider listens, and the proxy serves
//! what arrives; letting go runs the other way round.
//!
//! Everything about one address is done by one task, one thing after the other, so that a late grant can never
//! overtake a stop.

use crate::leases::Hands;
use crate::machine::Machine;
use crate::supervise::Supervisor;
use futures_util::future::BoxFuture;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, oneshot, watch};
use twinsite_controller::StopReason;
use twinsite_floating_ip::guardian::{GuardianError, Holding};
use twinsite_floating_ip::{Observation, Provider, ProviderError, Work};
use twinsite_model::{BootTime, Fault, Faults, FloatingIpName, InterfaceName, Timing, Token};

/// How soon letting go is tried again when something of the address is still there.
const RELEASE_AGAIN: Duration = Duration::from_millis(20);

/// Whoever ends this process if it hangs while it holds an address.
pub trait Guarded: Send + Sync {
    /// Hears that an address is held until then. What it has not heard of must not be held.
    fn holding(&self, holding: Holding, until: BootTime, slack: Duration) -> Result<(), GuardianError>;

    /// Hears that an address was let go.
    fn released(&self, ip: &FloatingIpName, token: Token) -> Result<(), GuardianError>;
}

/// What serves the connections that come in at an address.
pub trait DataPlane: Send + Sync {
    /// Closes them all; what has not ended in good order within this time is broken off. Done when no socket is left.
    fn close<'a>(&'a self, ip: &'a FloatingIpName, why: StopReason, within: Duration) -> Work<'a, ()>;
}

/// With what one address is held.
#[derive(Clone)]
pub struct Tools {
    /// How the address itself is held.
    pub provider: Arc<dyn Provider>,
    /// Who serves there.
    pub data_plane: Arc<dyn DataPlane>,
    /// Who watches.
    pub guard: Arc<dyn Guarded>,
    /// The interface that the address is put on, if it is: whoever watches clears it away there.
    pub interface: Option<InterfaceName>,
}

/// The holder of one address on this node.
pub struct FloatingHands {
    orders: Arc<Orders>,
    provider: Arc<dyn Provider>,
    drained: Mutex<Option<Token>>,
    timing: watch::Sender<Timing>,
    failed: watch::Receiver<Option<Token>>,
}

/// What is to be done, newest first in importance: of several grants only the last one counts, and a stop makes those
/// before it void. So nothing piles up, however busy the worker is.
#[derive(Default)]
struct Orders {
    waiting: Mutex<Waiting>,
    changed: Notify,
}

#[derive(Default)]
struct Waiting {
    stop: Option<Stop>,
    /// Given after the stop.
    hold: Option<(Token, BootTime)>,
    /// Stops at any price so far: whoever was busy with a grant meanwhile has been overtaken.
    void: u64,
    over: bool,
}

struct Stop {
    token: Token,
    why: StopReason,
    done: Vec<oneshot::Sender<()>>,
}

enum Order {
    Hold { token: Token, until: BootTime, void: u64 },
    Stop(Stop),
    End,
}

impl Orders {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hold(&self, token: Token, until: BootTime) {
        self.waiting().hold = Some((token, until));
        self.changed.notify_one();
    }

    fn stop(&self, token: Token, why: StopReason, done: oneshot::Sender<()>) {
        let mut waiting = self.waiting();
        waiting.hold = None;
        if why == StopReason::Involuntary {
            waiting.void += 1;
        }
        let stop = waiting.stop.get_or_insert_with(|| Stop { token, why, done: Vec::new() });
        stop.token = stop.token.max(token);
        if why == StopReason::Involuntary {
            stop.why = why;
        }
        stop.done.push(done);
        drop(waiting);
        self.changed.notify_one();
    }

    fn take(&self) -> Option<Order> {
        let mut waiting = self.waiting();
        if let Some(stop) = waiting.stop.take() {
            return Some(Order::Stop(stop));
        }
        if let Some((token, until)) = waiting.hold.take() {
            return Some(Order::Hold { token, until, void: waiting.void });
        }
        waiting.over.then_some(Order::End)
    }

    async fn next(&self) -> Order {
        loop {
            if let Some(order) = self.take() {
                return order;
            }
            self.changed.notified().await;
        }
    }
}

impl FloatingHands {
    /// Holds nothing yet. `changed` is told whenever what is held may have changed.
    pub fn start<M: Machine>(
        ip: FloatingIpName,
        addresses: Vec<SocketAddr>,
        timing: Timing,
        tools: Tools,
        changed: Arc<Notify>,
        supervisor: &Supervisor,
    ) -> Arc<Self> {
        let orders = Arc::new(Orders::default());
        let timing = watch::Sender::new(timing);
        let (failing, failed) = watch::channel(None);
        let provider = Arc::clone(&tools.provider);
        let worker = Worker {
            ip,
            addresses,
            timing: timing.subscribe(),
            tools,
            changed,
            held: None,
            orders: Arc::clone(&orders),
            failing_since: None,
            failing,
        };
        drop(M::spawn(supervisor.passing("a floating IP's worker", worker.run::<M>())));
        Arc::new(Self { orders, provider, drained: Mutex::default(), timing, failed })
    }

    /// Uses other timings from the next grant on.
    pub fn set_timing(&self, timing: Timing) {
        self.timing.send_replace(timing);
    }

    /// What is really there, read back.
    pub fn observe(&self) -> Observation {
        self.provider.observe()
    }

    /// The token under which everything has been drained.
    pub fn drained(&self) -> Option<Token> {
        *self.drained.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that everything is drained, or is not any more.
    pub fn set_drained(&self, token: Option<Token>) {
        *self.drained.lock().unwrap_or_else(PoisonError::into_inner) = token;
    }
}

impl Drop for FloatingHands {
    fn drop(&mut self) {
        self.orders.waiting().over = true;
        self.orders.changed.notify_one();
    }
}

impl Hands for FloatingHands {
    fn hold(&self, token: Token, until: BootTime) {
        self.orders.hold(token, until);
    }

    fn stop(&self, token: Token, why: StopReason) -> BoxFuture<'static, ()> {
        let (done, stopped) = oneshot::channel();
        self.orders.stop(token, why, done);
        if why == StopReason::Involuntary {
            // Nothing more is said from here on, whatever the worker is busy with.
            self.provider.end(token);
        }
        if Faults::here().has(Fault::StopNotWaitedFor) {
            return Box::pin(std::future::ready(()));
        }
        Box::pin(async move {
            if stopped.await.is_err() {
                std::future::pending::<()>().await; // never say that something is gone that may not be
            }
        })
    }

    fn failed(&self) -> watch::Receiver<Option<Token>> {
        self.failed.clone()
    }
}

struct Worker {
    ip: FloatingIpName,
    addresses: Vec<SocketAddr>,
    timing: watch::Receiver<Timing>,
    tools: Tools,
    changed: Arc<Notify>,
    held: Option<Token>,
    orders: Arc<Orders>,
    /// Since when a token could not be held though it was granted.
    failing_since: Option<(Token, BootTime)>,
    failing: watch::Sender<Option<Token>>,
}

impl Worker {
    async fn run<M: Machine>(mut self) {
        loop {
            match self.orders.next().await {
                Order::Hold { token, until, void } => {
                    let held = self.hold(token, until, void).await;
                    self.note(M::boot_now(), token, held);
                }
                Order::Stop(Stop { token, why, done }) => {
                    self.stop::<M>(token, why).await;
                    for done in done {
                        let _gone = done.send(());
                    }
                    self.changed.notify_one();
                }
                Order::End => return,
            }
        }
    }

    /// The guardian hears of it before anything can answer: a hung holder that nobody watches could answer for ever.
    async fn hold(&mut self, token: Token, until: BootTime, void: u64) -> Result<(), HoldError> {
        let overtaken = || self.orders.waiting().void > void;
        if overtaken() {
            return Ok(());
        }
        let too_late = Faults::here().has(Fault::HoldBeforeGuardian);
        if !too_late {
            self.tell_guardian(token, until)?;
        }
        let held = self.tools.provider.hold(token, until).await;
        if overtaken() {
            self.tools.provider.end(token);
        }
        held?;
        if too_late {
            self.tell_guardian(token, until)?;
        }
        if self.held != Some(token) {
            tracing::info!(ip = %self.ip, %token, "holding a floating IP");
            self.held = Some(token);
            self.changed.notify_one();
        }
        Ok(())
    }

    fn tell_guardian(&self, token: Token, until: BootTime) -> Result<(), GuardianError> {
        let (addresses, interface) = (self.addresses.clone(), self.tools.interface.clone());
        let holding = Holding { ip: self.ip.clone(), addresses, interface, token };
        let slack = self.timing.borrow().slack;
        self.tools.guard.holding(holding, until, slack)
    }

    /// Granted and not held: the address is dark here, or will be, and nobody else may take it. A moment of that is
    /// waited out (a guardian that restarts, an earlier holder that is just being ended); then the token is given up
    /// while there is still something left of the lease.
    fn note(&mut self, now: BootTime, token: Token, held: Result<(), HoldError>) {
        let Err(error) = held else {
            self.failing_since = None;
            return;
        };
        let since = match self.failing_since {
            Some((failing, since)) if failing == token => since,
            _ => {
                // It is tried again at every renewal, many times a second: said once.
                tracing::warn!(
                    ip = %self.ip, %token, %error,
                    "cannot hold a floating IP: end whatever else listens there, and it is held at the next try"
                );
                now
            }
        };
        self.failing_since = Some((token, since));
        if now.since(since) >= self.timing.borrow().lease / 2 {
            tracing::error!(ip = %self.ip, %token, %error, "giving a floating IP up that cannot be held here");
            self.failing_since = None;
            self.failing.send_replace(Some(token));
        }
    }

    async fn stop<M: Machine>(&mut self, token: Token, why: StopReason) {
        self.tools.provider.close().await;
        tracing::debug!(ip = %self.ip, ?why, "closing connections");
        self.tools.data_plane.close(&self.ip, why, self.goodbye(M::boot_now(), token)).await;
        tracing::debug!(ip = %self.ip, "connections are closed");
        while let Err(error) = self.tools.provider.release().await {
            tracing::error!(ip = %self.ip, %token, %error, "letting go again");
            M::sleep(RELEASE_AGAIN).await;
        }
        self.held = None;
        if let Err(error) = self.tools.guard.released(&self.ip, token) {
            // It reads the kernel's own list when this process ends, and says the same.
            tracing::debug!(%error, "the guardian was not told of a release");
        }
    }

    /// How long connections may take to end in good order: half of what is left before the guardian would act, so that
    /// breaking off the others and letting go still fit in.
    fn goodbye(&self, now: BootTime, token: Token) -> Duration {
        let rest = self.tools.provider.until(token).map_or(Duration::ZERO, |until| until.since(now));
        rest.saturating_sub(self.timing.borrow().slack) / 2
    }
}

/// Why an address that was granted is not held.
#[derive(Debug, thiserror::Error)]
enum HoldError {
    #[error("no guardian watches: {0}")]
    Unguarded(#[from] GuardianError),
    #[error(transparent)]
    Provider(#[from] ProviderError),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(epoch: u64) -> Token {
        Token::new(1, epoch)
    }

    fn until(millis: u64) -> BootTime {
        BootTime(Duration::from_millis(millis))
    }

    /// However many grants come while the worker is busy, one waits, and a stop voids it.
    #[test]
    fn the_newest_order_counts_and_nothing_piles_up() {
        let orders = Orders::default();
        for number in 1..=1_000 {
            orders.hold(token(1), until(number));
        }
        let Some(Order::Hold { until: end, void, .. }) = orders.take() else { panic!("no grant waits") };
        assert_eq!((end, void), (until(1_000), 0));
        assert!(orders.take().is_none());

        orders.hold(token(1), until(2_000));
        let (first, second) = (oneshot::channel(), oneshot::channel());
        orders.stop(token(1), StopReason::Involuntary, first.0);
        orders.stop(token(2), StopReason::Planned, second.0);
        orders.hold(token(3), until(3_000));
        let Some(Order::Stop(stop)) = orders.take() else { panic!("the stop comes first") };
        assert_eq!((stop.token, stop.why, stop.done.len()), (token(2), StopReason::Involuntary, 2));
        let Some(Order::Hold { token: granted, void, .. }) = orders.take() else { panic!("no grant waits") };
        assert_eq!((granted, void), (token(3), 1), "a grant before the stop must not come after it");
        orders.waiting().over = true;
        assert!(matches!(orders.take(), Some(Order::End)));
    }
}
