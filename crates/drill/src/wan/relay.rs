//! One relayed address, and the connections through it.

use super::direction::{Direction, Shape};
use super::{Holder, Pair};
use bytes::{Bytes, BytesMut};
use socket2::{Domain, SockFilter, SockRef, Socket, Type};
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};
use twinsite_model::SiteName;

/// Connections through one relayed address at once; further ones wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 1_024;
/// Bytes on their way in one direction of one connection; a sender with more waits, as for a full window.
const IN_FLIGHT_MAX: usize = 256 * 1024;
const READ_SIZE: usize = 16 * 1024;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// `ret #0`: keep zero bytes of every packet, which drops it. On a listening socket this leaves connection
/// attempts without any answer.
const DROP_ALL: [SockFilter; 1] = [SockFilter::new(0x06, 0, 0, 0)];

/// Over which directions a connection goes, there and back.
pub(super) enum Route {
    /// Always the same.
    Fixed(Arc<Direction>, Arc<Direction>),
    /// To whatever site holds the address at that moment.
    ToHolder {
        /// The site that dials.
        from: SiteName,
        /// All directions.
        directions: Arc<BTreeMap<Pair, Arc<Direction>>>,
        /// Who holds it.
        holder: Holder,
    },
}

impl Route {
    async fn directions(&self) -> (Arc<Direction>, Arc<Direction>) {
        match self {
            Self::Fixed(there, back) => (Arc::clone(there), Arc::clone(back)),
            Self::ToHolder { from, directions, holder } => {
                let holder = Arc::clone(holder);
                // It reads files of the kernel, and the runtime has clients to serve meanwhile.
                let to = tokio::task::spawn_blocking(move || holder()).await.ok().flatten();
                let between = |from: &SiteName, to: &SiteName| {
                    directions.get(&(from.clone(), to.clone())).map(Arc::clone)
                };
                let found = to.and_then(|to| Some((between(from, &to)?, between(&to, from)?)));
                // Within a site, and to nobody, there is no link to cut.
                found.unwrap_or_default()
            }
        }
    }
}

pub(super) struct Relay {
    listener: TcpListener,
    target: SocketAddr,
    route: Arc<Route>,
    dark: AtomicBool,
}

impl fmt::Debug for Relay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Relay")
            .field("listener", &self.listener)
            .field("target", &self.target)
            .finish_non_exhaustive()
    }
}

impl Relay {
    pub(super) fn listen(via: SocketAddr, target: SocketAddr, route: Route) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(via), Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&via.into())?;
        socket.listen(512)?;
        let listener = TcpListener::from_std(socket.into())?;
        Ok(Self { listener, target, route: Arc::new(route), dark: AtomicBool::new(false) })
    }

    #[cfg(test)]
    pub(super) fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Lets connection attempts go unanswered, or answers them again.
    pub(super) fn set_dark(&self, dark: bool) -> io::Result<()> {
        if self.dark.swap(dark, Ordering::AcqRel) == dark {
            return Ok(());
        }
        let socket = SockRef::from(&self.listener);
        if dark { socket.attach_filter(&DROP_ALL) } else { socket.detach_filter() }
    }

    pub(super) async fn serve(&self) {
        let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        // Dropped with the relay, which ends its connections.
        let mut connections = JoinSet::new();
        loop {
            let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
            let near = tokio::select! {
                accepted = self.listener.accept() => accepted,
                Some(_) = connections.join_next() => continue,
            };
            let near = match near {
                Ok((near, _)) => near,
                Err(error) => {
                    tracing::warn!(%error, "accept failed");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            let (route, target) = (Arc::clone(&self.route), self.target);
            connections.spawn(async move {
                let (there, back) = route.directions().await;
                connection(near, target, &there, &back).await;
                drop(permit);
            });
        }
    }
}

async fn connection(mut near: TcpStream, target: SocketAddr, there: &Direction, back: &Direction) {
    let far = timeout(CONNECT_TIMEOUT, TcpStream::connect(target)).await;
    let Ok(Ok(mut far)) = far else {
        reset(&near);
        return;
    };
    near.set_nodelay(true).ok();
    far.set_nodelay(true).ok();
    let (near_read, near_write) = near.split();
    let (far_read, far_write) = far.split();
    let whole =
        tokio::try_join!(pump(near_read, far_write, there, back), pump(far_read, near_write, back, there));
    if whole.is_err() {
        reset(&near);
        reset(&far);
    }
}

/// Makes the close of a socket a reset instead of an orderly end.
fn reset(stream: &TcpStream) {
    SockRef::from(stream).set_linger(Some(Duration::ZERO)).ok();
}

/// The connection cannot go on: an end is gone, or it lost bytes and the path works again.
struct Broken;

impl From<io::Error> for Broken {
    fn from(_: io::Error) -> Self {
        Self
    }
}

/// Carries the bytes of one direction of one connection until they end in order.
async fn pump(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    direction: &Direction,
    opposite: &Direction,
) -> Result<(), Broken> {
    let mut changes = direction.subscribe();
    let mut on_the_way: VecDeque<(Instant, Bytes)> = VecDeque::new();
    let mut in_flight = 0;
    let mut buffer = BytesMut::with_capacity(READ_SIZE);
    let mut lost = false;
    let mut ended = false;
    loop {
        let shape = *changes.borrow_and_update();
        if shape.cut {
            lost |= !on_the_way.is_empty();
            on_the_way.clear();
            in_flight = 0;
        } else if lost {
            return Err(Broken);
        } else if ended && on_the_way.is_empty() {
            to.shutdown().await?;
            return Ok(());
        }
        let due = on_the_way.front().map(|(due, _)| *due);
        buffer.reserve(READ_SIZE);
        tokio::select! {
            changed = changes.changed() => changed.map_err(|_| Broken)?,
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                if let Some((_, piece)) = on_the_way.pop_front() {
                    in_flight -= piece.len();
                    deliver(&mut to, &piece, opposite).await?;
                }
            }
            read = from.read_buf(&mut buffer), if !ended && in_flight < IN_FLIGHT_MAX => {
                // Bytes and errors that come in while the path is cut say nothing to the other end.
                let read = match read {
                    Ok(read) => read,
                    Err(_) if shape.cut => 0,
                    Err(error) => return Err(error.into()),
                };
                ended = read == 0;
                let piece = buffer.split().freeze();
                if shape.cut {
                    lost = true;
                } else if read > 0 {
                    let now = Instant::now();
                    let due = arrival_in_order(direction, &shape, now, read, &on_the_way);
                    if due <= now && on_the_way.is_empty() {
                        deliver(&mut to, &piece, opposite).await?;
                    } else {
                        in_flight += piece.len();
                        on_the_way.push_back((due, piece));
                    }
                }
            }
        }
    }
}

fn arrival_in_order(
    direction: &Direction,
    shape: &Shape,
    now: Instant,
    bytes: usize,
    on_the_way: &VecDeque<(Instant, Bytes)>,
) -> Instant {
    let due = direction.arrival(shape, now, bytes);
    on_the_way.back().map_or(due, |(last, _)| due.max(*last))
}

/// Writes a piece that has arrived. A receiver that takes nothing holds up its own connection only.
async fn deliver(to: &mut WriteHalf<'_>, piece: &Bytes, opposite: &Direction) -> Result<(), Broken> {
    if to.write_all(piece).await.is_ok() {
        return Ok(());
    }
    // The receiver is gone. That news travels the other way, and waits while that way is cut.
    let mut changes = opposite.subscribe();
    changes.wait_for(|shape| !shape.cut).await.ok();
    Err(Broken)
}
