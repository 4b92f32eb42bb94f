//! HTTP/2 on one connection (RFC 9113): its bounds, and what keeps a client from making work at no cost of its own.

mod flood;
mod patient;

pub(crate) use flood::Guarded;
pub(crate) use patient::{StreamPatience, current_stream};

use patient::patiently;
use std::future::Future;
use std::time::Duration;

/// Requests that one connection may have at once. Browsers ask for some dozens.
pub(crate) const STREAMS_MAX: u32 = 128;
/// Streams that a client opened and reset before anybody looked at them (CVE-2023-44487).
pub(crate) const RESETS_MAX: usize = 32;
/// How often a silent client is asked whether it is there, and how long it has for the answer.
pub(crate) const PING_EVERY: Duration = Duration::from_secs(30);
/// See [`PING_EVERY`].
pub(crate) const PONG_WITHIN: Duration = Duration::from_secs(10);

/// Runs on this core what HTTP/2 runs beside a connection.
#[derive(Clone)]
pub(crate) struct OnThisCore;

impl<F: Future + 'static> hyper::rt::Executor<F> for OnThisCore {
    fn execute(&self, future: F) {
        drop(tokio::task::spawn_local(async move { drop(future.await) }));
    }
}

/// The same; each request among it with a limit on how long its client may take nothing of the answer.
#[derive(Clone)]
pub(crate) struct PatientlyOnThisCore;

impl<F: Future + 'static> hyper::rt::Executor<F> for PatientlyOnThisCore {
    fn execute(&self, future: F) {
        drop(tokio::task::spawn_local(patiently(future)));
    }
}
