//! The listener of one address: a task that hands every connection on.

use crate::provider::{Accepted, ProviderError};
use socket2::SockRef;
use std::io;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpSocket};
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

/// Connections that the kernel completes ahead of us.
const BACKLOG: u32 = 1_024;
/// An index that no interface has: the kernel counts them up from one.
const NO_INTERFACE: Option<NonZeroU32> = NonZeroU32::new(i32::MAX.unsigned_abs());
/// How long handshakes that had begun may take to end; on loopback they take microseconds.
const HANDSHAKES_END: Duration = Duration::from_millis(2);
/// How long to leave the kernel alone when it is out of descriptors or memory.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(20);

/// A listener and its task.
pub(crate) struct Listening {
    listener: Arc<TcpListener>,
    taker: Arc<dyn Accepted>,
    task: JoinHandle<()>,
    stop: DropGuard,
}

impl Listening {
    /// Listens, and gives what arrives to `taker`.
    pub(crate) fn start(address: SocketAddr, taker: Arc<dyn Accepted>) -> Result<Self, ProviderError> {
        let listener =
            bind(address).map_err(|error| ProviderError::Refused { address, why: error.to_string() })?;
        let stop = CancellationToken::new();
        let listener = Arc::new(listener);
        let task = tokio::spawn(accept(Arc::clone(&listener), Arc::clone(&taker), stop.clone()));
        Ok(Self { listener, taker, task, stop: stop.drop_guard() })
    }

    /// Whether the kernel still has it as a listener, and somebody accepts.
    pub(crate) fn is_listening(&self) -> bool {
        !self.task.is_finished() && SockRef::from(&*self.listener).is_listener().unwrap_or(false)
    }

    /// Closes the listener; done when it is closed.
    ///
    /// Clients whose connection the kernel has completed believe to be served, and closing a listener resets them. So
    /// new ones are refused first: the kernel looks for a listener on the interface that a SYN came in at (`compute_score`
    /// in `net/ipv4/inet_hashtables.c`), finds none any more, and answers what it answers when nobody listens. Then the
    /// kernel is asked for the last ones (the runtime tells only of those that it has heard of).
    pub(crate) async fn stop(self) {
        let listener = SockRef::from(&*self.listener);
        match listener.bind_device_by_index_v4(NO_INTERFACE) {
            Ok(()) => tokio::time::sleep(HANDSHAKES_END).await,
            // Before Linux 5.7 it takes CAP_NET_RAW. Only who comes in the next microseconds is reset.
            Err(error) => tracing::debug!(%error, "a listener cannot refuse before it closes"),
        }
        drop(self.stop);
        drop(self.task.await); // it never panics, and nobody else ends it
        for _ in 0..BACKLOG {
            match listener.accept() {
                Ok((stream, _)) => self.taker.accept(stream.into()),
                Err(error) if is_the_clients(&error) => {}
                Err(_) => break,
            }
        }
        drop(self.listener);
    }
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // Connections of an earlier holder in TIME_WAIT must not keep the address from the new one.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

async fn accept(listener: Arc<TcpListener>, taker: Arc<dyn Accepted>, stop: CancellationToken) {
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted.and_then(|(stream, _)| stream.into_std()) {
            Ok(stream) => taker.accept(stream),
            // A client that went away while it waited costs nothing; being out of descriptors must not make this loop
            // burn a core.
            Err(error) if is_the_clients(&error) => {}
            Err(error) => {
                tracing::warn!(%error, "cannot accept on a floating IP");
                tokio::time::sleep(EXHAUSTED_PAUSE).await;
            }
        }
    }
}

fn is_the_clients(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset)
}
