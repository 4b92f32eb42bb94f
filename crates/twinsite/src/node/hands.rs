//! What really holds a floating IP here: the guardian is told first, then the provider listens, and the proxy serves
//! what arrives; letting go runs the other way round.
//!
//! Everything about one address is done by one task, one thing after the other, so that a late grant can never
//! overtake a stop.

use super::guard::Guard;
use super::leases::Hands;
use futures_util::future::BoxFuture;
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, mpsc, oneshot};
use twinsite_controller::StopReason;
use twinsite_floating_ip::guardian::Holding;
use twinsite_floating_ip::{Accepted, Lease, Loopback, Observation, Provider};
use twinsite_model::spec::FloatingIpSpec;
use twinsite_model::{BootTime, FloatingIpName, Token};
use twinsite_proxy::{Authority, Closing, Proxy};

/// How soon letting go is tried again when something of the address is still there.
const RELEASE_AGAIN: Duration = Duration::from_millis(20);

/// The holder of one address on this node.
pub struct FloatingHands {
    orders: mpsc::UnboundedSender<Order>,
    provider: Arc<Loopback>,
    drained: Mutex<Option<Token>>,
    /// Orders given so far, and the newest that was overtaken by a stop at any price.
    given: AtomicU64,
    void: Arc<AtomicU64>,
}

enum Order {
    Hold { token: Token, until: BootTime, number: u64 },
    Stop { token: Token, why: StopReason, done: oneshot::Sender<()> },
}

impl FloatingHands {
    /// Holds nothing yet. `changed` is told whenever what is held may have changed.
    pub fn start(
        spec: &FloatingIpSpec,
        slack: Duration,
        proxy: Proxy,
        guard: Guard,
        changed: Arc<Notify>,
    ) -> Arc<Self> {
        let (orders, inbox) = mpsc::unbounded_channel();
        let (ip, taker) = (spec.name.clone(), proxy.clone());
        let provider = Arc::new(Loopback::new(spec.address, &spec.ports, move |lease| {
            let authority = Arc::new(Floating { ip: ip.clone(), lease });
            Arc::new(Taker { proxy: taker.clone(), authority }) as Arc<dyn Accepted>
        }));
        let void = Arc::new(AtomicU64::new(0));
        let worker = Worker {
            ip: spec.name.clone(),
            addresses: spec.ports.iter().map(|port| SocketAddr::new(spec.address, *port)).collect(),
            slack,
            provider: Arc::clone(&provider),
            proxy,
            guard,
            changed,
            held: None,
            failed: None,
            void: Arc::clone(&void),
        };
        tokio::spawn(worker.run(inbox));
        Arc::new(Self { orders, provider, drained: Mutex::default(), given: AtomicU64::new(0), void })
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

impl Hands for FloatingHands {
    fn hold(&self, token: Token, until: BootTime) {
        let number = self.given.fetch_add(1, Ordering::AcqRel) + 1;
        drop(self.orders.send(Order::Hold { token, until, number })); // the worker ends only with the process
    }

    fn stop(&self, token: Token, why: StopReason) -> BoxFuture<'static, ()> {
        if why == StopReason::Involuntary {
            // Nothing more is said from here on, whatever the worker is busy with.
            self.void.store(self.given.load(Ordering::Acquire), Ordering::Release);
            if let Some(lease) = self.provider.lease().filter(|lease| lease.token() == token) {
                lease.end();
            }
        }
        let (done, stopped) = oneshot::channel();
        drop(self.orders.send(Order::Stop { token, why, done }));
        Box::pin(async move {
            if stopped.await.is_err() {
                std::future::pending::<()>().await; // never say that something is gone that may not be
            }
        })
    }
}

struct Worker {
    ip: FloatingIpName,
    addresses: Vec<SocketAddr>,
    slack: Duration,
    provider: Arc<Loopback>,
    proxy: Proxy,
    guard: Guard,
    changed: Arc<Notify>,
    held: Option<Token>,
    /// Why the last try to hold it failed, if it did.
    failed: Option<(Token, String)>,
    void: Arc<AtomicU64>,
}

impl Worker {
    async fn run(mut self, mut inbox: mpsc::UnboundedReceiver<Order>) {
        while let Some(order) = inbox.recv().await {
            match order {
                Order::Hold { token, until, number } => self.hold(token, until, number).await,
                Order::Stop { token, why, done } => {
                    self.stop(token, why).await;
                    let _gone = done.send(());
                    self.changed.notify_one();
                }
            }
        }
    }

    /// The guardian hears of it before anything can answer: a hung holder that nobody watches could answer for ever.
    async fn hold(&mut self, token: Token, until: BootTime, number: u64) {
        let overtaken = || self.void.load(Ordering::Acquire) >= number;
        if overtaken() {
            return;
        }
        let holding = Holding { ip: self.ip.clone(), addresses: self.addresses.clone(), token };
        if let Err(error) = self.guard.holding(holding, until, self.slack) {
            tracing::warn!(ip = %self.ip, %error, "not holding a floating IP that no guardian watches");
            return;
        }
        let held = self.provider.hold(token, until).await;
        if overtaken()
            && let Some(lease) = self.provider.lease()
        {
            lease.end();
        }
        match held {
            Ok(()) if self.held != Some(token) => {
                tracing::info!(ip = %self.ip, %token, "holding a floating IP");
                self.held = Some(token);
                self.failed = None;
                self.changed.notify_one();
            }
            // It is tried again at every renewal, many times a second: said once, until it changes.
            Err(error) if self.failed.as_ref() != Some(&(token, error.to_string())) => {
                tracing::warn!(
                    ip = %self.ip, %token, %error,
                    "cannot hold a floating IP: end whatever else listens there, and it is held at the next try"
                );
                self.failed = Some((token, error.to_string()));
            }
            Ok(()) => self.failed = None,
            Err(_) => {}
        }
    }

    async fn stop(&mut self, token: Token, why: StopReason) {
        self.provider.close().await;
        let closing = match why {
            StopReason::Planned => Closing::Planned,
            StopReason::Involuntary => Closing::Involuntary,
        };
        tracing::debug!(ip = %self.ip, load = ?self.proxy.in_flight(&self.ip), "closing connections");
        self.proxy.close_floating(&self.ip, closing).await;
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
