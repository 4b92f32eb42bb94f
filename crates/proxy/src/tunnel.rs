//! What became a WebSocket: bytes in both directions, until one side ends, both fall silent, or this node must let go.

use crate::connection::{Context, Place, cut_off};
use crate::edge::Edge;
use crate::frames::{FrameBoundary, GOING_AWAY, SERVICE_RESTART};
use crate::group::{Closing, Counted, Phase, What};
use crate::live_rooms::LiveRoom;
use crate::table::{Opened, Upstream};
use crate::worker::Core;
use bytes::Bytes;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context as Waker, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};
use twinsite_model::RoomKey;
use twinsite_upstream::Stream;

/// What is read at a time, in bytes. One buffer for all tunnels of a core: most are idle most of the time, and keep only what
/// their writer did not take.
const READ_BYTES: usize = 64 * 1024;
/// Reads and writes in one direction before it is the other's turn. Both together stay well below what tokio lets a task
/// do at a time, so that a stream without a pause hides neither timers nor what this node must do.
const STEPS_MAX: usize = 8;
/// How long to wait for the end of a frame before a tunnel is closed in the middle of it.
const FRAME_PATIENCE: Duration = Duration::from_millis(100);
/// How long a client may take to answer a close.
const GOODBYE: Duration = Duration::from_millis(50);

/// Why a tunnel ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    /// One side closed, and the other then too.
    Closed,
    /// A side broke off.
    Broken,
    /// Nothing came for too long.
    Idle,
    /// The address moves in good order.
    Moved,
    /// The right to answer is gone.
    Lost,
    /// The upstream is given up.
    UpstreamLost,
    /// The room was given another place.
    RoomMoved,
}

impl Ended {
    /// The close frame that says so, where this node may and must say it.
    const fn goodbye(self) -> Option<[u8; 4]> {
        match self {
            Self::Moved => Some(SERVICE_RESTART),
            Self::UpstreamLost | Self::RoomMoved => Some(GOING_AWAY),
            Self::Closed | Self::Broken | Self::Idle | Self::Lost => None,
        }
    }

    const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Broken => "broken",
            Self::Idle => "idle",
            Self::Moved => "moved",
            Self::Lost => "lost",
            Self::UpstreamLost => "upstream_lost",
            Self::RoomMoved => "room_moved",
        }
    }
}

/// A tunnel about to begin. It counts from now on, so that there is no moment at which nobody knows of it.
pub(crate) struct Tunnel {
    idle: Duration,
    phases: watch::Receiver<Phase>,
    given_up: watch::Receiver<bool>,
    _place: Rc<Place>,
    _as_open: Counted,
    /// That it began during a drain.
    as_late: Option<Counted>,
    _opened: Opened,
    live: Option<LiveRoom>,
}

impl Tunnel {
    pub(crate) fn new(
        core: &Core,
        context: &Context,
        upstream: &Upstream,
        room: Option<RoomKey>,
        idle: Duration,
    ) -> Self {
        Self {
            idle,
            phases: context.group.phases(),
            given_up: upstream.load.given_up.subscribe(),
            _place: Rc::clone(&context.place),
            as_late: context.group.is_leaving().then(|| context.group.count(What::LateTunnel)),
            _as_open: context.group.count(What::Tunnel),
            _opened: upstream.load.open(true),
            live: room.map(|room| core.live.note(room, &upstream.name)),
        }
    }

    /// Carries bytes until it ends.
    pub(crate) async fn run(mut self, client: OnUpgrade, upstream: OnUpgrade) {
        let joined = tokio::select! {
            biased;
            joined = futures_util::future::try_join(client, upstream) => joined,
            () = cut_off(&mut self.phases) => return,
        };
        let Ok((client, upstream)) = joined else { return };
        let (Some((client, from_client)), Some((upstream, from_upstream))) =
            (parts::<Edge>(client), parts::<Stream>(upstream))
        else {
            tracing::error!("a WebSocket on an unknown kind of connection");
            return;
        };
        let mut copy = Copy {
            client,
            upstream,
            to_upstream: Direction::new(from_client),
            to_client: Direction::new(from_upstream),
            boundary: FrameBoundary::default(),
            active: Instant::now(),
            holding_back: false,
            upwards_first: true,
        };
        let ended = self.carry(&mut copy).await;
        if let Some(goodbye) = ended.goodbye() {
            tokio::select! {
                biased;
                () = cut_off(&mut self.phases) => {}
                () = copy.say_goodbye(goodbye) => {}
            }
        }
        drop(copy); // both sockets, before they cease to count
        metrics::counter!("twinsite_tunnels_ended_total", "why" => ended.as_str()).increment(1);
    }

    async fn carry(&mut self, copy: &mut Copy) -> Ended {
        let mut leave_at = None;
        if let Some(ended) = self.phase_now(&mut leave_at) {
            return ended;
        }
        if self.as_late.is_some() {
            leave_at = None; // it comes from where it was just sent away, and goes when all go
        }
        if *self.given_up.borrow_and_update() {
            return Ended::UpstreamLost; // while its handshake was on its way
        }
        loop {
            let idle_at = copy.active + self.idle;
            let wake_at = leave_at.map_or(idle_at, |leave_at: Instant| leave_at.min(idle_at));
            tokio::select! {
                biased;
                done = poll_fn(|cx| copy.poll(cx)) => {
                    return if done.is_ok() { Ended::Closed } else { Ended::Broken };
                }
                Ok(()) = self.phases.changed() => {
                    if let Some(ended) = self.phase_now(&mut leave_at) {
                        return ended;
                    }
                }
                Ok(()) = self.given_up.changed() => return Ended::UpstreamLost,
                () = room_moved(self.live.as_ref()) => return Ended::RoomMoved,
                () = sleep_until(wake_at) => {
                    if leave_at.is_some_and(|leave_at| Instant::now() >= leave_at) {
                        return Ended::Moved;
                    }
                    if Instant::now() >= copy.active + self.idle {
                        return Ended::Idle;
                    }
                }
            }
        }
    }

    /// What the group's phase means for this tunnel. Tunnels leave one after the other, not all at once: each comes back
    /// at the new owner with a handshake.
    fn phase_now(&mut self, leave_at: &mut Option<Instant>) -> Option<Ended> {
        match *self.phases.borrow_and_update() {
            Phase::Open => *leave_at = None,
            Phase::Draining(within) => *leave_at = Some(Instant::now() + within.mul_f64(fastrand::f64())),
            Phase::Closed(Closing::Planned) => return Some(Ended::Moved),
            Phase::Closed(Closing::Involuntary) => return Some(Ended::Lost),
        }
        None
    }
}

async fn room_moved(live: Option<&LiveRoom>) {
    match live {
        Some(live) => live.moved.cancelled().await,
        None => std::future::pending().await,
    }
}

/// The connection below, and what was read ahead of it.
fn parts<T: AsyncRead + AsyncWrite + Unpin + Send + 'static>(upgraded: Upgraded) -> Option<(T, Bytes)> {
    let parts = upgraded.downcast::<TokioIo<T>>().ok()?;
    Some((parts.io.into_inner(), parts.read_buf))
}

/// Two connections and what is under way between them.
struct Copy {
    client: Edge,
    upstream: Stream,
    to_upstream: Direction,
    to_client: Direction,
    /// Where the client is in the stream of frames.
    boundary: FrameBoundary,
    /// When anything last came, from either side.
    active: Instant,
    /// Nothing more is taken from the upstream once the client is between two frames.
    holding_back: bool,
    /// Which direction has the first turn.
    upwards_first: bool,
}

impl Copy {
    /// Carries what can be carried; ready when both directions are done.
    fn poll(&mut self, cx: &mut Waker<'_>) -> Poll<io::Result<()>> {
        let mut moved = false;
        self.upwards_first = !self.upwards_first;
        let (up, down) = if self.upwards_first {
            let up = self.poll_up(cx, &mut moved);
            (up, self.poll_down(cx, &mut moved))
        } else {
            let down = self.poll_down(cx, &mut moved);
            (self.poll_up(cx, &mut moved), down)
        };
        if moved {
            self.active = Instant::now();
        }
        match (up, down) {
            (Poll::Ready(Err(error)), _) | (_, Poll::Ready(Err(error))) => Poll::Ready(Err(error)),
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => Poll::Ready(Ok(())),
            _ => Poll::Pending,
        }
    }

    fn poll_up(&mut self, cx: &mut Waker<'_>, moved: &mut bool) -> Poll<io::Result<()>> {
        self.to_upstream.poll(cx, &mut self.client, &mut self.upstream, moved, |_| true)
    }

    fn poll_down(&mut self, cx: &mut Waker<'_>, moved: &mut bool) -> Poll<io::Result<()>> {
        let (boundary, holding_back) = (&mut self.boundary, self.holding_back);
        self.to_client.poll(cx, &mut self.upstream, &mut self.client, moved, |bytes| {
            boundary.take(bytes);
            !holding_back || !boundary.is_between_frames()
        })
    }

    /// Tells the client to come again, by this close frame between two others, and waits a moment for it to hang up,
    /// because a reset would overtake the message.
    async fn say_goodbye(&mut self, close: [u8; 4]) {
        self.holding_back = true;
        let between = poll_fn(|cx| {
            if self.boundary.is_between_frames() && self.to_client.is_empty() {
                return Poll::Ready(true);
            }
            match self.poll(cx) {
                Poll::Ready(_) => Poll::Ready(false),
                Poll::Pending if self.boundary.is_between_frames() && self.to_client.is_empty() => {
                    Poll::Ready(true)
                }
                Poll::Pending => Poll::Pending,
            }
        });
        if !matches!(timeout(FRAME_PATIENCE, between).await, Ok(true)) {
            return;
        }
        let goodbye = async {
            self.client.write_all(&close).await?;
            self.client.flush().await?;
            self.client.shutdown().await?;
            let mut sink = [0; 512];
            while self.client.read(&mut sink).await? > 0 {}
            io::Result::Ok(())
        };
        let _unanswered = timeout(GOODBYE, goodbye).await;
    }
}

thread_local! {
    static READ_INTO: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_BYTES].into_boxed_slice());
}

/// One direction: from a reader to a writer.
struct Direction {
    /// What was read, and the writer did not take yet.
    rest: Bytes,
    read_ended: bool,
    /// Something was written that TLS may still have.
    unflushed: bool,
    done: bool,
}

impl Direction {
    /// `first` was read ahead during the handshake.
    fn new(first: Bytes) -> Self {
        // Nothing of a handshake's buffer still is that buffer, and would keep it for as long as the tunnel.
        let rest = if first.is_empty() { Bytes::new() } else { first };
        Self { rest, read_ended: false, unflushed: false, done: false }
    }

    fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Carries bytes as far as both sides allow. `wrote` sees what was written, and says whether to go on.
    fn poll(
        &mut self,
        cx: &mut Waker<'_>,
        reader: &mut (impl AsyncRead + Unpin),
        writer: &mut (impl AsyncWrite + Unpin),
        moved: &mut bool,
        mut wrote: impl FnMut(&[u8]) -> bool,
    ) -> Poll<io::Result<()>> {
        for _ in 0..STEPS_MAX {
            if self.done {
                return Poll::Ready(Ok(()));
            }
            if !self.is_empty() {
                let count = ready!(write(cx, writer, &self.rest))?;
                (*moved, self.unflushed) = (true, true);
                let taken = self.rest.split_to(count);
                if !wrote(&taken) && self.is_empty() {
                    return Poll::Pending; // asked for by the caller, who looks itself
                }
                continue;
            }
            if self.unflushed {
                ready!(Pin::new(&mut *writer).poll_flush(cx))?;
                self.unflushed = false;
            }
            if self.read_ended {
                ready!(Pin::new(&mut *writer).poll_shutdown(cx))?;
                self.done = true;
                continue;
            }
            let goes_on = READ_INTO.with_borrow_mut(|buffer| {
                let mut buffer = ReadBuf::new(buffer);
                ready!(Pin::new(&mut *reader).poll_read(cx, &mut buffer))?;
                self.pass_on(cx, buffer.filled(), writer, moved, &mut wrote)
            });
            if !ready!(goes_on)? && self.is_empty() {
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Writes what was just read, and keeps what is not taken. Whether to go on.
    fn pass_on(
        &mut self,
        cx: &mut Waker<'_>,
        mut read: &[u8],
        writer: &mut (impl AsyncWrite + Unpin),
        moved: &mut bool,
        wrote: &mut impl FnMut(&[u8]) -> bool,
    ) -> Poll<io::Result<bool>> {
        self.read_ended = read.is_empty();
        *moved |= !read.is_empty();
        let mut goes_on = true;
        while !read.is_empty() {
            let Poll::Ready(written) = write(cx, writer, read) else {
                self.rest = Bytes::copy_from_slice(read);
                return Poll::Pending;
            };
            let (taken, left) = read.split_at(written?);
            self.unflushed = true;
            goes_on = wrote(taken);
            read = left;
        }
        Poll::Ready(Ok(goes_on))
    }
}

/// Writes a part at least.
fn write(
    cx: &mut Waker<'_>,
    writer: &mut (impl AsyncWrite + Unpin),
    bytes: &[u8],
) -> Poll<io::Result<usize>> {
    match ready!(Pin::new(writer).poll_write(cx, bytes))? {
        0 => Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
        count => Poll::Ready(Ok(count)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Always has something to say, and can always be told something.
    struct Endless;

    impl AsyncRead for Endless {
        fn poll_read(self: Pin<&mut Self>, _: &mut Waker<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            let room = buf.remaining();
            buf.initialize_unfilled().fill(0x5a);
            buf.advance(room);
            Poll::Ready(Ok(()))
        }
    }

    impl AsyncWrite for Endless {
        fn poll_write(self: Pin<&mut Self>, _: &mut Waker<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
            Poll::Ready(Ok(buf.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Waker<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Waker<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    struct Woken(std::sync::atomic::AtomicBool);

    impl std::task::Wake for Woken {
        fn wake(self: std::sync::Arc<Self>) {
            self.0.store(true, std::sync::atomic::Ordering::Relaxed);
        }
    }

    #[test]
    fn a_stream_without_a_pause_lets_others_have_a_turn() {
        let woken = std::sync::Arc::new(Woken(false.into()));
        let waker = std::sync::Arc::clone(&woken).into();
        let mut direction = Direction::new(Bytes::from_static(b"read ahead"));
        let (mut moved, mut written) = (false, 0);
        let turn =
            direction.poll(&mut Waker::from_waker(&waker), &mut Endless, &mut Endless, &mut moved, |bytes| {
                written += bytes.len();
                true
            });
        assert!(turn.is_pending() && moved);
        assert!(written > READ_BYTES && written < STEPS_MAX * READ_BYTES, "{written}");
        assert!(woken.0.load(std::sync::atomic::Ordering::Relaxed), "there is more to do");
    }
}
