//! What really holds a floating IP here: the guardian is told first, then the provider listens, and the proxy serves
//! what arrives; letting go runs the other way round.
//!
//! Everything about one address is done by one task, one thing after the other, so that a late grant can never
//! overtake a stop.

use super::guard::Guard;
use super::leases::Hands;
use super::supervise::Supervisor;
use futures_util::future::BoxFuture;
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, oneshot, watch};
use twinsite_controller::StopReason;
use twinsite_floating_ip::guardian::{GuardianError, Holding};
use twinsite_floating_ip::{Accepted, Lease, Loopback, Observation, Provider, ProviderError, boot_now};
use twinsite_model::spec::FloatingIpSpec;
use twinsite_model::{BootTime, FloatingIpName, Timing, Token};
use twinsite_proxy::{Authority, Closing, Proxy};

/// How soon letting go is tried again when something of the address is still there.
const RELEASE_AGAIN: Duration = Duration::from_millis(20);

/// The holder of one address on this node.
pub struct FloatingHands {
    orders: Arc<Orders>,
    provider: Arc<Loopback>,
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
    pub fn start(
        spec: &FloatingIpSpec,
        timing: Timing,
        proxy: Proxy,
        guard: Guard,
        changed: Arc<Notify>,
        supervisor: &Supervisor,
    ) -> Arc<Self> {
        let (ip, taker) = (spec.name.clone(), proxy.clone());
        let provider = Arc::new(Loopback::new(spec.address, &spec.ports, move |lease| {
            let authority = Arc::new(Floating { ip: ip.clone(), lease });
            Arc::new(Taker { proxy: taker.clone(), authority }) as Arc<dyn Accepted>
        }));
        let orders = Arc::new(Orders::default());
        let timing = watch::Sender::new(timing);
        let (failing, failed) = watch::channel(None);
        let worker = Worker {
            ip: spec.name.clone(),
            addresses: spec.ports.iter().map(|port| SocketAddr::new(spec.address, *port)).collect(),
            timing: timing.subscribe(),
            provider: Arc::clone(&provider),
            proxy,
            guard,
            changed,
            held: None,
            orders: Arc::clone(&orders),
            failing_since: None,
            failing,
        };
        tokio::spawn(supervisor.passing("a floating IP's worker", worker.run()));
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
            if let Some(lease) = self.provider.lease().filter(|lease| lease.token() == token) {
                lease.end();
            }
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
    provider: Arc<Loopback>,
    proxy: Proxy,
    guard: Guard,
    changed: Arc<Notify>,
    held: Option<Token>,
    orders: Arc<Orders>,
    /// Since when a token could not be held though it was granted.
    failing_since: Option<(Token, BootTime)>,
    failing: watch::Sender<Option<Token>>,
}

impl Worker {
    async fn run(mut self) {
        loop {
            match self.orders.next().await {
                Order::Hold { token, until, void } => {
                    let held = self.hold(token, until, void).await;
                    self.note(token, held);
                }
                Order::Stop(Stop { token, why, done }) => {
                    self.stop(token, why).await;
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
        let holding = Holding { ip: self.ip.clone(), addresses: self.addresses.clone(), token };
        let slack = self.timing.borrow().slack;
        self.guard.holding(holding, until, slack)?;
        let held = self.provider.hold(token, until).await;
        if overtaken()
            && let Some(lease) = self.provider.lease()
        {
            lease.end();
        }
        held?;
        if self.held != Some(token) {
            tracing::info!(ip = %self.ip, %token, "holding a floating IP");
            self.held = Some(token);
            self.changed.notify_one();
        }
        Ok(())
    }

    /// Granted and not held: the address is dark here, or will be, and nobody else may take it. A moment of that is
    /// waited out (a guardian that restarts, an earlier holder that is just being ended); then the token is given up
    /// while there is still something left of the lease.
    fn note(&mut self, token: Token, held: Result<(), HoldError>) {
        let Err(error) = held else {
            self.failing_since = None;
            return;
        };
        let now = boot_now();
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

    async fn stop(&mut self, token: Token, why: StopReason) {
        self.provider.close().await;
        let closing = match why {
            StopReason::Planned => Closing::Planned,
            StopReason::Involuntary => Closing::Involuntary,
        };
        tracing::debug!(ip = %self.ip, load = ?self.proxy.in_flight(&self.ip), "closing connections");
        self.proxy.close_floating(&self.ip, closing, self.goodbye(token)).await;
        tracing::debug!(ip = %self.ip, "connections are closed");
        while let Err(error) = self.provider.release().await {
            tracing::error!(ip = %self.ip, %token, %error, "letting go again");
            tokio::time::sleep(RELEASE_AGAIN).await;
        }
        self.held = None;
        if let Err(error) = self.guard.released(&self.ip, token) {
            // It reads the kernel's own list when this process ends, and says the same.
            tracing::debug!(%error, "the guardian was not told of a release");
        }
    }

    /// How long connections may take to end in good order: half of what is left before the guardian would act, so that
    /// breaking off the others and letting go still fit in.
    fn goodbye(&self, token: Token) -> Duration {
        let lease = self.provider.lease().filter(|lease| lease.token() == token && lease.holds());
        let rest = lease.map_or(Duration::ZERO, |lease| lease.until().since(boot_now()));
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

/// Hands accepted connections to the proxy.
struct Taker {
    proxy: Proxy,
    authority: Arc<Floating>,
}

impl Accepted for Taker {
    fn accept(&self, stream: TcpStream) {
        self.proxy.accept_floating(stream, Arc::clone(&self.authority) as Arc<dyn Authority>);
    }
}

/// The right to answer, as the proxy asks for it.
struct Floating {
    ip: FloatingIpName,
    lease: Lease,
}

impl Authority for Floating {
    fn ip(&self) -> &FloatingIpName {
        &self.ip
    }

    fn token(&self) -> Token {
        self.lease.token()
    }

    fn holds(&self) -> bool {
        self.lease.holds()
    }
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
