//! Frames that cost a client nothing and a server something: a connection may send some, and more only over time. Whoever
//! floods is hung up on (CVE-2019-9512, -9514, -9515, -9518; CVE-2023-44487; CVE-2024-27316).

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

/// What a client sends before its first frame (RFC 9113 section 3.4).
const PREFACE_BYTES: u32 = 24;
const HEAD_BYTES: usize = 9;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// What a frame costs that makes work and carries nothing, and one that makes little.
const COSTLY: u32 = 16;
const CHEAP: u32 = 1;
/// A thousand costly frames at once, a hundred in each second.
const CREDIT_MAX: u32 = 1_000 * COSTLY;
const CREDIT_PER_SECOND: u32 = 100 * COSTLY;
/// Who takes an answer says so with a cheap frame now and then.
const BYTES_PER_CREDIT: usize = 1_024;

/// The client makes work without asking for anything.
#[derive(Debug, thiserror::Error)]
#[error("more control frames than any client needs")]
pub(crate) struct TooManyFrames;

/// Follows the frames of a client without looking into them.
#[derive(Debug)]
struct Follower {
    head: [u8; HEAD_BYTES],
    head_read: usize,
    payload_left: u32,
    credit: u32,
    refilled: Instant,
}

impl Follower {
    fn new() -> Self {
        Self {
            head: [0; HEAD_BYTES],
            head_read: 0,
            payload_left: PREFACE_BYTES,
            credit: CREDIT_MAX,
            refilled: Instant::now(),
        }
    }

    /// Takes the bytes that follow.
    fn take(&mut self, mut bytes: &[u8]) -> Result<(), TooManyFrames> {
        while !bytes.is_empty() {
            if self.payload_left > 0 {
                let skipped = bytes.len().min(self.payload_left as usize);
                self.payload_left -= skipped as u32;
                bytes = &bytes[skipped..];
                continue;
            }
            let part = bytes.len().min(HEAD_BYTES - self.head_read);
            self.head[self.head_read..self.head_read + part].copy_from_slice(&bytes[..part]);
            self.head_read += part;
            bytes = &bytes[part..];
            if self.head_read == HEAD_BYTES {
                self.head_read = 0;
                self.payload_left = u32::from_be_bytes([0, self.head[0], self.head[1], self.head[2]]);
                self.pay(cost(self.head[3], self.head[4], self.payload_left))?;
            }
        }
        Ok(())
    }

    fn pay(&mut self, cost: u32) -> Result<(), TooManyFrames> {
        if self.credit < cost {
            let gone = self.refilled.elapsed();
            if gone >= Duration::from_millis(10) {
                let earned = gone.as_millis().min(10_000) as u32 * CREDIT_PER_SECOND / 1_000;
                self.credit = (self.credit + earned).min(CREDIT_MAX);
                self.refilled = Instant::now();
            }
        }
        self.credit = self.credit.checked_sub(cost).ok_or(TooManyFrames)?;
        Ok(())
    }

    fn wrote(&mut self, bytes: usize) {
        // Some say twice of each piece, however short, that they took it: for the stream, and for the connection.
        let earned = (bytes / BYTES_PER_CREDIT).max(2 * usize::from(bytes > 0));
        self.credit = (self.credit + earned as u32 * CHEAP).min(CREDIT_MAX);
    }
}

const fn cost(kind: u8, flags: u8, length: u32) -> u32 {
    match kind {
        // An empty one that ends nothing carries nothing. Bodies and whole heads are what a connection is for.
        DATA if length > 0 || flags & END_STREAM != 0 => 0,
        HEADERS if flags & END_HEADERS != 0 => 0,
        CONTINUATION if length >= 1_024 => CHEAP,
        WINDOW_UPDATE => CHEAP,
        // RST_STREAM, SETTINGS, PING, PRIORITY, heads in pieces, and what has no meaning.
        _ => COSTLY,
    }
}

/// A connection whose client cannot flood it.
pub(crate) struct Guarded<T> {
    inner: T,
    follower: Follower,
}

impl<T> Guarded<T> {
    pub(crate) fn new(inner: T) -> Self {
        Self { inner, follower: Follower::new() }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Guarded<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let this = &mut *self;
        ready!(Pin::new(&mut this.inner).poll_read(cx, buf))?;
        if let Err(error) = this.follower.take(&buf.filled()[before..]) {
            metrics::counter!("twinsite_proxy_floods_total").increment(1);
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionAborted, error)));
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> Guarded<T> {
    fn count(&mut self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(bytes)) = &written {
            self.follower.wrote(*bytes);
        }
        written
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Guarded<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write(cx, buf);
        self.count(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write_vectored(cx, bufs);
        self.count(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const RST_STREAM: u8 = 3;
    const SETTINGS: u8 = 4;
    const PING: u8 = 6;

    fn frame(kind: u8, flags: u8, length: u32) -> Vec<u8> {
        let mut bytes = length.to_be_bytes()[1..].to_vec();
        bytes.extend([kind, flags, 0, 0, 0, 1]);
        bytes.extend(vec![0; length as usize]);
        bytes
    }

    fn begun() -> Follower {
        let mut follower = Follower::new();
        follower.take(&[b'P'; PREFACE_BYTES as usize]).unwrap();
        follower
    }

    #[test]
    fn requests_cost_nothing() {
        let mut follower = begun();
        let request =
            [frame(HEADERS, END_HEADERS, 40), frame(DATA, 0, 100), frame(DATA, END_STREAM, 0)].concat();
        for _ in 0..100_000 {
            follower.take(&request).unwrap();
        }
        assert_eq!(follower.credit, CREDIT_MAX);
    }

    #[test]
    fn control_frames_are_allowed_for_a_while_and_then_slowly() {
        for frame in [
            frame(PING, 0, 8),
            frame(SETTINGS, 0, 0),
            frame(RST_STREAM, 0, 4),
            frame(DATA, 0, 0),
            frame(CONTINUATION, 0, 0),
            frame(0xfa, 0, 3),
        ] {
            let mut follower = begun();
            let sent = (0..2_000).take_while(|_| follower.take(&frame).is_ok()).count();
            assert!((1_000..1_020).contains(&sent), "{sent}");
            follower.payload_left = 0; // of the frame that was one too many
            follower.refilled = Instant::now().checked_sub(Duration::from_secs(1)).unwrap();
            let sent = (0..2_000).take_while(|_| follower.take(&frame).is_ok()).count();
            // What the loop itself lasts earns a few more.
            assert!((100..120).contains(&sent), "{sent}");
        }
    }

    #[test]
    fn who_takes_a_long_answer_may_say_so_often() {
        let mut follower = begun();
        for _ in 0..100_000 {
            follower.wrote(4_096);
            follower.take(&[frame(WINDOW_UPDATE, 0, 4), frame(WINDOW_UPDATE, 0, 4)].concat()).unwrap();
        }
    }

    proptest! {
        #[test]
        fn pieces_make_no_difference(kinds in prop::collection::vec((0_u8..11, any::<u8>(), 0_u32..40), 0..60), cut in 1_usize..30) {
            let bytes: Vec<u8> = kinds.iter().flat_map(|(kind, flags, length)| frame(*kind, *flags, *length)).collect();
            let (mut whole, mut pieces) = (begun(), begun());
            whole.take(&bytes).unwrap();
            for piece in bytes.chunks(cut) {
                pieces.take(piece).unwrap();
            }
            let costs: u32 = kinds.iter().map(|(kind, flags, length)| cost(*kind, *flags, *length)).sum();
            prop_assert_eq!((whole.credit, whole.head_read, whole.payload_left), (CREDIT_MAX - costs, 0, 0));
            prop_assert_eq!((pieces.credit, pieces.head_read, pieces.payload_left), (CREDIT_MAX - costs, 0, 0));
        }
    }
}
