//! When a person, or a service manager, wants the process to end.

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Told when the process shall end: Ctrl-C, SIGTERM, or the end of its terminal.
pub async fn interrupted() {
    Interrupts::new().next().await;
}

/// The same, again and again: what comes while nobody waits is not lost.
pub struct Interrupts([Option<Signal>; 3]);

impl Interrupts {
    /// From now on. Needs a tokio runtime.
    pub fn new() -> Self {
        let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
        Self(kinds.map(|kind| signal(kind).ok()))
    }

    /// Waits for the next one.
    pub async fn next(&mut self) {
        let Self([interrupt, terminate, hangup]) = self;
        tokio::select! {
            () = received(interrupt) => {}
            () = received(terminate) => {}
            () = received(hangup) => {}
        }
    }
}

/// One that cannot be listened for never comes.
async fn received(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => drop(signal.recv().await),
        None => std::future::pending().await,
    }
}
