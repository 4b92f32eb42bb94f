//! The listener of one address: a task that hands every connection on.

use crate::provider::{Accepted, ProviderError};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpSocket};
use tokio::task::JoinHandle;

/// Connections that the kernel completes ahead of us.
const BACKLOG: u32 = 1_024;
/// How long to leave the kernel alone when it is out of descriptors or memory.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(20);

/// A listener and its task.
#[derive(Debug)]
pub(super) struct Listening {
    task: JoinHandle<()>,
}

impl Listening {
    /// Listens, and gives what arrives to `taker`.
    pub(super) fn start(address: SocketAddr, taker: Arc<dyn Accepted>) -> Result<Self, ProviderError> {
        let listener =
            bind(address).map_err(|error| ProviderError::Refused { address, why: error.to_string() })?;
        Ok(Self { task: tokio::spawn(accept(listener, taker)) })
    }

    /// Closes the listener; done when it is closed.
    pub(super) async fn stop(mut self) {
        self.task.abort();
        drop((&mut self.task).await); // cancelled, and with it the listener is dropped
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // Connections of an earlier holder in TIME_WAIT must not keep the address from the new one.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

async fn accept(listener: TcpListener, taker: Arc<dyn Accepted>) {
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream.into_std(),
            Err(error) => Err(error),
        };
        match stream {
            Ok(stream) => taker.accept(stream),
            Err(error) => {
                // A client that went away while it waited costs nothing; being out of descriptors must not make this
                // loop burn a core.
                if !matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset)
                {
                    tracing::warn!(%error, "cannot accept on a floating IP");
                    tokio::time::sleep(EXHAUSTED_PAUSE).await;
                }
            }
        }
    }
}
