//! What one direction between two sites does to bytes at the moment.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// The properties of one direction. The default lets everything pass at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Shape {
    /// Nothing passes.
    pub cut: bool,
    /// How long each byte is on its way.
    pub delay: Duration,
    /// Up to so much is added to the delay, drawn anew for each piece; the order is kept.
    pub jitter: Duration,
    /// Bytes per second, all connections together; none for no limit.
    pub rate: Option<u64>,
}

/// One direction, shared by all connections that use it.
#[derive(Debug)]
pub(super) struct Direction {
    shape: watch::Sender<Shape>,
    /// When the last byte that was let through has left a link with a limited rate.
    busy_until: Mutex<Option<Instant>>,
}

impl Default for Direction {
    fn default() -> Self {
        Self { shape: watch::Sender::new(Shape::default()), busy_until: Mutex::new(None) }
    }
}

impl Direction {
    pub(super) fn set(&self, shape: Shape) {
        self.shape.send_replace(shape);
    }

    pub(super) fn shape(&self) -> Shape {
        *self.shape.borrow()
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<Shape> {
        self.shape.subscribe()
    }

    /// When a piece that is sent now arrives at the other end.
    pub(super) fn arrival(&self, shape: &Shape, now: Instant, bytes: usize) -> Instant {
        let sent = match shape.rate {
            None => now,
            Some(rate) => {
                let mut busy_until = self.busy_until.lock().unwrap_or_else(PoisonError::into_inner);
                let start = busy_until.map_or(now, |busy| busy.max(now));
                let takes = Duration::from_secs_f64(bytes as f64 / rate.max(1) as f64);
                *busy_until.insert(start + takes)
            }
        };
        let jitter = shape.jitter.mul_f64(if shape.jitter.is_zero() { 0.0 } else { fastrand::f64() });
        sent + shape.delay + jitter
    }
}
