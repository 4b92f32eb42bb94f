//! A client's connection, on which nothing is read or written without the right to.

use crate::group::{Closing, Group, Phase};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Instant;

/// What a connection waits for, and since when; shared between its reader and its watchdog.
#[derive(Debug)]
pub(crate) struct Waiting {
    born: Instant,
    /// Milliseconds since birth, shifted by two, with the kind below.
    since: AtomicU64,
}

const KIND_HEAD: u64 = 0;
const KIND_IDLE: u64 = 1;
const KIND_BUSY: u64 = 2;

impl Waiting {
    fn new() -> Self {
        Self { born: Instant::now(), since: AtomicU64::new(KIND_HEAD) }
    }

    fn set(&self, kind: u64, at: Duration) {
        self.since.store((at.as_millis() as u64) << 2 | kind, Ordering::Relaxed);
    }

    /// A request has come in whole.
    pub(crate) fn busy(&self) {
        self.set(KIND_BUSY, self.born.elapsed());
    }

    /// The answer has gone out.
    pub(crate) fn idle(&self) {
        self.set(KIND_IDLE, self.born.elapsed());
    }

    fn bytes_came(&self, at: Duration) {
        if self.since.load(Ordering::Relaxed) & 3 == KIND_IDLE {
            self.set(KIND_HEAD, at);
        }
    }

    /// Whether nothing has come since the last answer.
    pub(crate) fn is_idle(&self) -> bool {
        self.since.load(Ordering::Relaxed) & 3 == KIND_IDLE
    }

    /// Whether the client has had its time.
    pub(crate) fn is_over(&self, head: Duration, idle: Duration) -> bool {
        self.is_over_at(self.born.elapsed(), head, idle)
    }

    fn is_over_at(&self, at: Duration, head: Duration, idle: Duration) -> bool {
        let since = self.since.load(Ordering::Relaxed);
        let limit = match since & 3 {
            KIND_HEAD => head,
            KIND_IDLE => idle,
            _ => return false,
        };
        at >= Duration::from_millis(since >> 2) + limit
    }
}

/// The connection.
pub(crate) struct ClientIo {
    stream: TcpStream,
    group: Arc<Group>,
    pub(crate) waiting: Arc<Waiting>,
}

impl ClientIo {
    pub(crate) fn new(stream: TcpStream, group: Arc<Group>) -> Self {
        Self { stream, group, waiting: Arc::new(Waiting::new()) }
    }

    fn check(&self) -> io::Result<()> {
        if self.group.holds() {
            return Ok(());
        }
        Err(io::Error::new(io::ErrorKind::PermissionDenied, "the right to answer here has ended"))
    }
}

impl Drop for ClientIo {
    /// What the kernel still holds of earlier writes must not go out when the right to answer is gone.
    fn drop(&mut self) {
        if !self.group.holds() || self.group.phase() == Phase::Closed(Closing::Involuntary) {
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
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.check()?;
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
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
        let waiting = Waiting::new();
        let at = Duration::from_secs;
        let is_over = |waiting: &Waiting, now| waiting.is_over_at(at(now), at(10), at(75));
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
}
