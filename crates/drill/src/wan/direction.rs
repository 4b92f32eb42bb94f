//! What one direction between two sites does to bytes at the moment.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// What a link with a limited rate holds back before it drops.
const BUFFER: Duration = Duration::from_millis(500);

/// So many of a hundred.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub struct Percent(u8);

/// More than all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0} is more than 100 percent")]
pub struct TooMuch(u8);

impl TryFrom<u8> for Percent {
    type Error = TooMuch;

    fn try_from(percent: u8) -> Result<Self, TooMuch> {
        if percent <= 100 { Ok(Self(percent)) } else { Err(TooMuch(percent)) }
    }
}

impl From<Percent> for u8 {
    fn from(percent: Percent) -> Self {
        percent.0
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} %", self.0)
    }
}

impl Percent {
    /// Nothing.
    pub const ZERO: Self = Self(0);

    /// Whether the next of so many is among them.
    fn hits(self) -> bool {
        self.0 > 0 && fastrand::u8(..100) < self.0
    }
}

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
    /// So many packets are lost; only where there are packets, in a lab.
    pub loss: Percent,
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let duration = |what: &str, duration: Duration| {
            (!duration.is_zero()).then(|| format!("{what} {}", humantime::format_duration(duration)))
        };
        let parts = [
            self.cut.then(|| "cut".to_owned()),
            duration("later by", self.delay),
            duration("and up to", self.jitter),
            self.rate.map(|rate| format!("{rate} bytes a second")),
            (self.loss != Percent::ZERO).then(|| format!("{} lost", self.loss)),
        ];
        let parts: Vec<_> = parts.into_iter().flatten().collect();
        f.write_str(if parts.is_empty() { "whole" } else { "" })?;
        f.write_str(&parts.join(", "))
    }
}

/// One direction, shared by all connections that use it.
#[derive(Debug)]
pub(crate) struct Direction {
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
    pub(crate) fn set(&self, shape: Shape) {
        let before = self.shape.send_replace(shape);
        if before.rate != shape.rate {
            // What was held back by the former rate is not owed to the new one.
            *self.busy_until.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
    }

    pub(crate) fn shape(&self) -> Shape {
        *self.shape.borrow()
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<Shape> {
        self.shape.subscribe()
    }

    /// When a packet that is sent now arrives, if it does.
    pub(crate) fn packet(&self, now: Instant, bytes: usize) -> Option<Instant> {
        let shape = self.shape();
        let busy_until = *self.busy_until.lock().unwrap_or_else(PoisonError::into_inner);
        let is_full = shape.rate.is_some() && busy_until.is_some_and(|busy| busy > now + BUFFER);
        let is_lost = shape.cut || is_full || shape.loss.hits();
        (!is_lost).then(|| self.arrival(&shape, now, bytes))
    }

    /// When a piece that is sent now arrives at the other end.
    pub(crate) fn arrival(&self, shape: &Shape, now: Instant, bytes: usize) -> Instant {
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
