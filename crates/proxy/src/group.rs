//! The connections that came in at one address, which are drained and closed together.

use crate::authority::Authority;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;
use tokio::sync::watch;

/// How connections are closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Closing {
    /// A move: clients are told to come again.
    Planned,
    /// The right to answer is lost or about to be: nothing more is said.
    Involuntary,
}

/// What is open.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Load {
    /// Client connections, tunnels included.
    pub connections: u32,
    /// Requests in flight, to the last byte of the answer.
    pub requests: u32,
    /// Tunnels: what became a WebSocket.
    pub tunnels: u32,
    /// Those of them that began while everything was being drained. They stay until all is closed: to be sent away again
    /// and again helps nobody.
    pub late_tunnels: u32,
}

/// How far a group is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Serves.
    Open,
    /// Finishes what runs; the tunnels that there are end one after the other within this time.
    Draining(Duration),
    /// Ends now.
    Closed(Closing),
}

/// A group of connections.
pub(crate) struct Group {
    /// The right to answer; none at a node's own addresses.
    pub(crate) authority: Option<Arc<dyn Authority>>,
    phase: watch::Sender<Phase>,
    /// Whether answers should tell clients to connect anew. Beside the phase, because reading that takes a lock.
    leaving: AtomicBool,
    connections: AtomicU32,
    requests: AtomicU32,
    tunnels: AtomicU32,
    late_tunnels: AtomicU32,
    /// Told whenever something ends while the group is being closed.
    ended: tokio::sync::Notify,
}

impl Group {
    pub(crate) fn new(authority: Option<Arc<dyn Authority>>) -> Arc<Self> {
        Arc::new(Self {
            authority,
            phase: watch::Sender::new(Phase::Open),
            leaving: AtomicBool::new(false),
            connections: AtomicU32::new(0),
            requests: AtomicU32::new(0),
            tunnels: AtomicU32::new(0),
            late_tunnels: AtomicU32::new(0),
            ended: tokio::sync::Notify::new(),
        })
    }

    /// Whether anything may still be said.
    pub(crate) fn holds(&self) -> bool {
        self.authority.as_ref().is_none_or(|authority| authority.holds())
    }

    pub(crate) fn set_phase(&self, phase: Phase) {
        self.leaving.store(phase != Phase::Open, Ordering::Release);
        self.phase.send_replace(phase);
    }

    pub(crate) fn phases(&self) -> watch::Receiver<Phase> {
        self.phase.subscribe()
    }

    pub(crate) fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// Whether a client should come again on another connection.
    pub(crate) fn is_leaving(&self) -> bool {
        self.leaving.load(Ordering::Acquire)
    }

    pub(crate) fn load(&self) -> Load {
        Load {
            connections: self.connections.load(Ordering::Acquire),
            requests: self.requests.load(Ordering::Acquire),
            tunnels: self.tunnels.load(Ordering::Acquire),
            late_tunnels: self.late_tunnels.load(Ordering::Acquire),
        }
    }

    /// Ends when every connection has.
    pub(crate) async fn empty(&self) {
        loop {
            let ended = self.ended.notified();
            tokio::pin!(ended);
            ended.as_mut().enable();
            if self.connections.load(Ordering::Acquire) == 0 {
                return;
            }
            ended.await;
        }
    }

    pub(crate) fn count(self: &Arc<Self>, what: What) -> Counted {
        self.counter(what).fetch_add(1, Ordering::AcqRel);
        Counted { group: Arc::clone(self), what }
    }

    const fn counter(&self, what: What) -> &AtomicU32 {
        match what {
            What::Connection => &self.connections,
            What::Request => &self.requests,
            What::Tunnel => &self.tunnels,
            What::LateTunnel => &self.late_tunnels,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum What {
    Connection,
    Request,
    Tunnel,
    LateTunnel,
}

/// Counts something while it lives.
pub(crate) struct Counted {
    group: Arc<Group>,
    what: What,
}

impl Drop for Counted {
    fn drop(&mut self) {
        let before = self.group.counter(self.what).fetch_sub(1, Ordering::AcqRel);
        if before == 1 && self.what == What::Connection {
            self.group.ended.notify_waiters();
        }
    }
}
