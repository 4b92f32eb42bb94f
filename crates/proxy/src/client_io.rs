//! A client's connection, on which nothing is read or written without the right to.

use crate::group::{Closing, Group, Phase};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Instant;

/// What a connection waits for, and since when; shared between its reader and its watchdog.
#[derive(Debug)]
pub(crate) struct Waiting {
    born: Instant,
    /// How long a head may take, and how long nothing may be asked.
    head: Duration,
    idle: Duration,
    /// Milliseconds since birth, shifted by two, with the kind below.
    since: AtomicU64,
    /// Requests under way: with HTTP/2 several.
    requests: AtomicU32,
    /// Whether a head can only be told from the rest by looking into frames, as with HTTP/2: then what comes is no sign of
    /// one, and a connection without requests has the time of an idle one.
    is_framed: AtomicBool,
    /// Since when the client takes nothing of what is to be written, in milliseconds since birth; [`FLOWING`] if it
    /// does.
    stalled_since: AtomicU64,
    /// How long it may take nothing, in milliseconds: as its request's route says, at least `stall_min`.
    stall: AtomicU64,
    stall_min: Duration,
}

const KIND_HEAD: u64 = 0;
const KIND_IDLE: u64 = 1;
const KIND_BUSY: u64 = 2;
const FLOWING: u64 = u64::MAX;

impl Waiting {
    fn new(head: Duration, idle: Duration, stall_min: Duration) -> Self {
        Self {
            born: Instant::now(),
            head,
            idle,
            since: AtomicU64::new(KIND_HEAD),
            requests: AtomicU32::new(0),
            is_framed: AtomicBool::new(false),
            stalled_since: AtomicU64::new(FLOWING),
            stall: AtomicU64::new(idle.as_millis() as u64),
            stall_min,
        }
    }

    fn set(&self, kind: u64, at: Duration) {
        self.since.store((at.as_millis() as u64) << 2 | kind, Ordering::Relaxed);
    }

    /// A request has come in whole.
    pub(crate) fn busy(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.set(KIND_BUSY, self.born.elapsed());
    }

    /// An answer has gone out.
    pub(crate) fn idle(&self) {
        if self.requests.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.set(KIND_IDLE, self.born.elapsed());
        }
    }

    /// HTTP/2 is spoken from here on.
    pub(crate) fn set_framed(&self) {
        self.is_framed.store(true, Ordering::Relaxed);
    }

    fn bytes_came(&self, at: Duration) {
        if self.since.load(Ordering::Relaxed) & 3 == KIND_IDLE && !self.is_framed.load(Ordering::Relaxed) {
            self.set(KIND_HEAD, at);
        }
    }

    /// Whether nothing has come since the last answer.
    pub(crate) fn is_idle(&self) -> bool {
        self.since.load(Ordering::Relaxed) & 3 == KIND_IDLE
    }

    /// How long the client may take nothing of the answer.
    pub(crate) fn set_stall(&self, limit: Duration) {
        self.stall.store(limit.as_millis() as u64, Ordering::Relaxed);
    }

    fn wrote(&self, stalls: bool) {
        if !stalls {
            self.stalled_since.store(FLOWING, Ordering::Relaxed);
        } else if !self.is_stalled() {
            self.stalled_since.store(self.born.elapsed().as_millis() as u64, Ordering::Relaxed);
        }
    }

    fn is_stalled(&self) -> bool {
        self.stalled_since.load(Ordering::Relaxed) != FLOWING
    }

    /// Whether the client has had its time.
    pub(crate) fn is_over(&self) -> bool {
        self.over_at().is_some_and(|over| self.born.elapsed() >= over)
    }

    /// When to look whether it has: no later than what is waited for now ends, or anything that begins meanwhile.
    pub(crate) fn look_at(&self) -> Instant {
        let now = self.born.elapsed();
        let soonest = now + self.head.min(self.idle).min(self.stall_min);
        self.born + self.over_at().map_or(soonest, |over| over.min(soonest))
    }

    /// When the client has had its time, counted from birth.
    fn over_at(&self) -> Option<Duration> {
        let since = self.since.load(Ordering::Relaxed);
        let asked = Duration::from_millis(since >> 2);
        let asking = match since & 3 {
            KIND_HEAD => Some(asked + self.head),
            KIND_IDLE => Some(asked + self.idle),
            _ => None,
        };
        let stalled = Duration::from_millis(self.stalled_since.load(Ordering::Relaxed));
        let taking = self.is_stalled().then(|| stalled + self.stall_limit());
        asking.into_iter().chain(taking).min()
    }

    fn stall_limit(&self) -> Duration {
        Duration::from_millis(self.stall.load(Ordering::Relaxed))
    }
}

/// The connection.
pub(crate) struct ClientIo {
    stream: TcpStream,
    group: Arc<Group>,
    pub(crate) waiting: Arc<Waiting>,
}

impl ClientIo {
    /// A new connection, and how long a head may take, nothing may be asked, and at least nothing may be taken.
    pub(crate) fn new(
        stream: TcpStream,
        group: Arc<Group>,
        head: Duration,
        idle: Duration,
        stall_min: Duration,
    ) -> Self {
        Self { stream, group, waiting: Arc::new(Waiting::new(head, idle, stall_min)) }
    }

    fn check(&self) -> io::Result<()> {
        if self.group.holds() {
            return Ok(());
        }
        Err(io::Error::new(io::ErrorKind::PermissionDenied, "the right to answer here has ended"))
    }
}

impl Drop for ClientIo {
    /// What the kernel still holds of earlier writes must not go out when the right to answer is gone, and is not kept
    /// for a client that takes nothing.
    fn drop(&mut self) {
        let silenced = !self.group.holds() || self.group.phase() == Phase::Closed(Closing::Involuntary);
        if silenced || self.waiting.is_stalled() {
            drop(self.stream.set_zero_linger()); // a socket that refuses this is broken already
        }
    }
}

impl AsyncRead for ClientIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        std::task::ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        self.check()?;
        if buf.filled().len() > before {
            self.waiting.bytes_came(self.waiting.born.elapsed());
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for ClientIo {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.check()?;
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.waiting.wrote(written.is_pending());
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check()?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.check()?;
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.waiting.wrote(written.is_pending());
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_head_and_an_idle_connection_have_limits_of_their_own() {
        let at = Duration::from_secs;
        let waiting = Waiting::new(at(10), at(75), at(5));
        let is_over = |waiting: &Waiting, now| waiting.over_at().is_some_and(|over| at(now) >= over);
        assert!(!is_over(&waiting, 9));
        assert!(is_over(&waiting, 10), "a new connection must send a head");
        waiting.set(KIND_BUSY, at(10));
        assert!(!is_over(&waiting, 1_010), "a request takes its time");
        waiting.set(KIND_IDLE, at(1_010));
        assert!(!is_over(&waiting, 1_084));
        assert!(is_over(&waiting, 1_085));
        waiting.bytes_came(at(1_080));
        assert!(!is_over(&waiting, 1_089));
        waiting.bytes_came(at(1_089));
        assert!(is_over(&waiting, 1_090), "dripping bytes wins no time");
    }

    #[tokio::test]
    async fn of_several_requests_the_last_one_makes_a_connection_idle() {
        let at = Duration::from_secs;
        let waiting = Waiting::new(at(10), at(75), at(5));
        waiting.set_framed();
        waiting.busy();
        waiting.busy();
        waiting.idle();
        assert_eq!(waiting.over_at(), None, "one is under way");
        waiting.idle();
        let over = waiting.over_at();
        assert!(over.is_some_and(|over| over >= at(75)));
        waiting.bytes_came(at(70));
        assert_eq!(waiting.over_at(), over, "a frame is no request");
    }

    #[tokio::test]
    async fn a_client_that_takes_nothing_has_had_its_time_from_its_first_refusal() {
        let at = Duration::from_secs;
        let waiting = Waiting::new(at(3_600), at(3_600), at(3));
        waiting.busy();
        waiting.set_stall(at(5));
        assert_eq!(waiting.over_at(), None, "a request takes its time");
        assert!(waiting.look_at() <= Instant::now() + at(3), "a shorter stall may begin at once");
        waiting.wrote(true);
        let over = waiting.over_at().unwrap();
        assert!(over <= waiting.born.elapsed() + at(5));
        waiting.stalled_since.store(0, Ordering::Relaxed);
        waiting.wrote(true);
        assert_eq!(waiting.over_at(), Some(at(5)), "the next refusal begins nothing");
        waiting.wrote(false);
        assert_eq!(waiting.over_at(), None);
    }
}
