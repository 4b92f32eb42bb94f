//! What the service runs on: time, waiting and tasks. The program gives it tokio, the simulation its own.
#![allow(clippy::disallowed_methods, reason = "this is where time comes in")]

use crate::store::BoxFuture;
use std::future::Future;
use std::ops::Add;
use std::pin::pin;
use std::time::Duration;
use tokio::time::Instant;

/// A point on the clock of one [`Runtime`]: how long after its beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Moment(pub Duration);

impl Moment {
    /// How long it has been since `earlier`; zero if that lies ahead.
    pub const fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<Duration> for Moment {
    type Output = Self;

    fn add(self, later: Duration) -> Self {
        Self(self.0.saturating_add(later))
    }
}

/// Time and tasks. Asked for the time with every request, so that must be cheap.
pub trait Runtime: Send + Sync + 'static {
    /// What its clock shows. Never goes back.
    fn now(&self) -> Moment;

    /// Waits. The waiting belongs to whoever called, on whatever runtime that is.
    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()>;

    /// Runs a task to its end, whoever asked for it.
    fn spawn(&self, work: BoxFuture<'static, ()>);
}

/// Tokio, as it was current when the service was started.
pub(crate) struct OnTokio {
    begun: Instant,
    handle: tokio::runtime::Handle,
}

impl OnTokio {
    pub(crate) fn current() -> Self {
        Self { begun: Instant::now(), handle: tokio::runtime::Handle::current() }
    }
}

impl Runtime for OnTokio {
    fn now(&self) -> Moment {
        Moment(self.begun.elapsed())
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep(duration))
    }

    fn spawn(&self, work: BoxFuture<'static, ()>) {
        drop(self.handle.spawn(work));
    }
}

/// What comes of the work, or `None` if its time runs out first.
pub(crate) async fn timeout<T>(
    runtime: &dyn Runtime,
    within: Duration,
    work: impl Future<Output = T>,
) -> Option<T> {
    let mut work = pin!(work);
    let sleep = runtime.sleep(within);
    tokio::select! {
        biased;
        result = &mut work => Some(result),
        () = sleep => None,
    }
}

/// Turns that come at an interval, the first at once. One that comes late puts off those after it.
pub(crate) struct Turns {
    every: Duration,
    next: BoxFuture<'static, ()>,
}

impl Turns {
    pub(crate) fn new(runtime: &dyn Runtime, every: Duration) -> Self {
        Self { every, next: runtime.sleep(Duration::ZERO) }
    }

    /// Waits for the next. Nothing is lost by giving up the wait.
    pub(crate) async fn next(&mut self, runtime: &dyn Runtime) {
        self.next.as_mut().await;
        self.next = runtime.sleep(self.every);
    }
}
