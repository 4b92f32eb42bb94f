//! Instants and waiting, by the clock of the machine on which the waiting task runs.

use super::executor::{self, TimerKey};
use std::future::Future;
use std::ops::{Add, AddAssign, Sub, SubAssign};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use twinsite_model::BootTime;

/// What a machine's boot clock showed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SimInstant(pub(crate) BootTime);

impl twinsite_consensus::runtime::traits::Instant for SimInstant {
    fn now() -> Self {
        Self(executor::boot_now())
    }
}

impl Add<Duration> for SimInstant {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(BootTime(self.0.0.saturating_add(duration)))
    }
}

impl AddAssign<Duration> for SimInstant {
    fn add_assign(&mut self, duration: Duration) {
        *self = *self + duration;
    }
}

impl Sub<Duration> for SimInstant {
    type Output = Self;

    fn sub(self, duration: Duration) -> Self {
        Self(BootTime(self.0.0.saturating_sub(duration)))
    }
}

impl Sub for SimInstant {
    type Output = Duration;

    /// Zero if the other one is later, as with the standard library's.
    fn sub(self, earlier: Self) -> Duration {
        self.0.0.saturating_sub(earlier.0.0)
    }
}

impl SubAssign<Duration> for SimInstant {
    fn sub_assign(&mut self, duration: Duration) {
        *self = *self - duration;
    }
}

/// Waits until the machine's boot clock shows an instant.
#[derive(Debug)]
pub(crate) struct Sleep {
    deadline: SimInstant,
    timer: Option<TimerKey>,
}

impl Sleep {
    pub(super) fn until(deadline: SimInstant) -> Self {
        Self { deadline, timer: None }
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        self.timer = None;
        if executor::boot_now() >= self.deadline.0 {
            return Poll::Ready(());
        }
        // Anew at each poll: the clock may have changed since, and so may the task that waits.
        self.timer = Some(executor::wake_at(self.deadline.0));
        Poll::Pending
    }
}

/// Time ran out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("time ran out")]
pub(crate) struct Elapsed;

/// A future, for a time.
pub(crate) struct Timeout<F> {
    future: Pin<Box<F>>,
    sleep: Sleep,
}

impl<F> Timeout<F> {
    pub(super) fn new(future: F, sleep: Sleep) -> Self {
        Self { future: Box::pin(future), sleep }
    }
}

impl<F: Future> Future for Timeout<F> {
    type Output = Result<F::Output, Elapsed>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if let Poll::Ready(value) = self.future.as_mut().poll(context) {
            return Poll::Ready(Ok(value));
        }
        Pin::new(&mut self.sleep).poll(context).map(|()| Err(Elapsed))
    }
}
