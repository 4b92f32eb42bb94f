//! The sample meeting instance: a small real server with the contract of the meeting service, for demos and drills.
//!
//! * `GET /health`: `{"status":"ok","timestamp":…,"rooms":N,"peers":N}`, as the meeting service answers it.
//! * `GET /announced`: `{"announcedIp":…}`, read anew each time.
//! * `GET /rooms`: who is where, by hashed room key (room names may be secrets).
//! * `GET /socket.io/?roomId=R&peerId=P` (or `/ws`): a WebSocket in a room. The first message from the server is
//!   `{"type":"welcome","instance":…,"room":R,"announcedIp":…,"peers":[…]}`; then every text message of a
//!   participant goes to all in the room, itself included, as
//!   `{"type":"message","instance":…,"from":P,"data":…}`.
//! * anything else: one static page.
//!
//! It can be told to answer as broken servers do ([`Answers`]), by a file; `/announced` and `/rooms` are never broken.
//!
//! Rooms live in the memory of the instance and nowhere else; that is what makes room affinity necessary.

mod answers;
mod room_socket;
mod rooms;
mod routes;

pub use answers::Answers;
pub use rooms::{PEERS_PER_ROOM_MAX, ROOMS_MAX};

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rooms::Rooms;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use twinsite_model::UpstreamName;

/// Connections that one instance serves at once; further ones wait in the kernel's queue.
pub const CONNECTIONS_MAX: usize = 4_096;
/// The longest wait for a request head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// The longest announced-ip file that is believed, in bytes; an address is shorter.
const ANNOUNCED_BYTES_MAX: u64 = 256;

/// What an instance needs to know.
#[derive(Debug, Clone)]
pub struct MeetingConfig {
    /// Where it listens.
    pub listen: SocketAddr,
    /// Its name; it says so in every message.
    pub name: UpstreamName,
    /// The file from which it reads the address that it announces, at each join anew.
    pub announced_file: PathBuf,
    /// The file from which it reads how it answers ([`Answers`]), at each request anew; without one it answers well.
    pub answers_file: Option<PathBuf>,
}

/// Why an instance cannot run.
#[derive(Debug, thiserror::Error)]
pub enum MeetingError {
    /// The address cannot be listened on.
    #[error("cannot listen on {listen}: {source}; choose a free address of this machine")]
    Listen {
        /// The address.
        listen: SocketAddr,
        /// Why.
        source: io::Error,
    },
}

/// An instance that listens and does not serve yet.
#[derive(Debug)]
pub struct Meeting {
    listener: TcpListener,
    instance: Arc<Instance>,
}

/// What all connections share.
#[derive(Debug)]
struct Instance {
    name: UpstreamName,
    announced_file: PathBuf,
    answers_file: Option<PathBuf>,
    rooms: Rooms,
}

/// Listens and serves until the process ends.
pub async fn run(config: MeetingConfig) -> Result<(), MeetingError> {
    Meeting::bind(config).await?.serve().await;
    Ok(())
}

impl Meeting {
    /// Takes the address. Port 0 gives a free one: see [`Meeting::address`].
    pub async fn bind(config: MeetingConfig) -> Result<Self, MeetingError> {
        let listener = TcpListener::bind(config.listen)
            .await
            .map_err(|source| MeetingError::Listen { listen: config.listen, source })?;
        let MeetingConfig { name, announced_file, answers_file, .. } = config;
        let instance = Instance { name, announced_file, answers_file, rooms: Rooms::default() };
        Ok(Self { listener, instance: Arc::new(instance) })
    }

    /// Where it listens.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves for ever.
    pub async fn serve(self) {
        let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        loop {
            // The semaphore is never closed, so the only outcome is a permit.
            let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
            let stream = match self.listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Out of descriptors, or a connection that died in the queue: neither is a reason to stop.
                    tracing::warn!(%error, "accept failed");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            stream.set_nodelay(true).ok();
            let instance = Arc::clone(&self.instance);
            tokio::spawn(async move {
                let service = service_fn(move |request| routes::answer(Arc::clone(&instance), request));
                let served = http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(HEAD_TIMEOUT)
                    .max_buf_size(32 * 1024)
                    .serve_connection(TokioIo::new(stream), service)
                    .with_upgrades()
                    .await;
                if let Err(error) = served {
                    tracing::debug!(%error, "connection ended");
                }
                drop(permit);
            });
        }
    }
}

impl Instance {
    /// The address to announce, as the file says at this moment; none if there is no readable address in it.
    async fn announced(&self) -> Option<IpAddr> {
        let size = tokio::fs::metadata(&self.announced_file).await.ok()?.len();
        if size > ANNOUNCED_BYTES_MAX {
            return None;
        }
        tokio::fs::read_to_string(&self.announced_file).await.ok()?.trim().parse().ok()
    }
}

#[cfg(test)]
mod tests;
