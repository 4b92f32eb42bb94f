//! Bodies on their way through: bounded in size, and in silence.

use crate::access_log::{AccessLog, Record};
use crate::compress::Encoder;
use crate::group::Counted;
use crate::http2::StreamPatience;
use crate::pool::Returning;
use crate::table::Opened;
use crate::tally::{Counts, Tally};
use bytes::Bytes;
use http::StatusCode;
use http_body::{Body, Frame, SizeHint};
use http_body_util::Full;
use hyper::body::Incoming;
use std::cell::Cell;
use std::error::Error as StdError;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::{Instant, Sleep, sleep_until};

/// Why a body was cut off.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BodyError {
    #[error("the body is larger than {0} bytes")]
    TooLarge(u64),
    #[error("nothing came for {0:?}")]
    Silent(Duration),
    #[error(transparent)]
    Broken(#[from] hyper::Error),
}

/// A timer that runs only while something is waited for.
struct Patience {
    limit: Duration,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Patience {
    const fn new(limit: Duration) -> Self {
        Self { limit, timer: None }
    }

    fn came(&mut self) {
        self.timer = None;
    }

    fn poll_over(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let limit = self.limit;
        self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit))).as_mut().poll(cx)
    }
}

/// Whose turn it is while a request is on its way.
#[derive(Debug, Clone, Copy)]
enum Turn {
    /// More of the body is waited for.
    Clients,
    /// It has everything that there was, since then.
    Upstreams(Instant),
    /// Nobody's: the body was too large, fell silent, or broke off.
    Fault,
}

/// How far a body has come, for those who wait for the answer, and those who count.
#[derive(Debug, Clone)]
pub(crate) struct Upload(Rc<Progress>);

#[derive(Debug)]
struct Progress {
    turn: Cell<Turn>,
    bytes: Cell<u64>,
}

impl Upload {
    /// Whether the request failed by its own body.
    pub(crate) fn is_at_fault(&self) -> bool {
        matches!(self.0.turn.get(), Turn::Fault)
    }

    fn bytes(&self) -> u64 {
        self.0.bytes.get()
    }

    /// Ends when it has been the upstream's turn for so long. An upload takes its time, as long as it moves.
    pub(crate) async fn unanswered(upload: Option<Self>, limit: Duration) {
        let begun = Instant::now();
        loop {
            let now = Instant::now();
            let over = match upload.as_ref().map_or(Turn::Upstreams(begun), |upload| upload.0.turn.get()) {
                // Whatever begins meanwhile ends later; a fault ends the request by itself.
                Turn::Clients | Turn::Fault => now + limit,
                Turn::Upstreams(since) => since.max(begun) + limit,
            };
            if over <= now {
                return;
            }
            sleep_until(over).await;
        }
    }
}

/// A client's body on its way to an upstream.
pub(crate) struct RequestBody {
    inner: Option<Incoming>,
    left: u64,
    max: u64,
    patience: Patience,
    /// None if there is nothing to upload.
    upload: Option<Upload>,
}

impl RequestBody {
    /// `max` zero means without limit.
    pub(crate) fn new(inner: Incoming, max: u64, silence: Duration) -> Self {
        let left = if max == 0 { u64::MAX } else { max };
        let progress = || Progress { turn: Cell::new(Turn::Upstreams(Instant::now())), bytes: Cell::new(0) };
        let upload = (!inner.is_end_stream()).then(|| Upload(Rc::new(progress())));
        Self { inner: Some(inner), left, max, patience: Patience::new(silence), upload }
    }

    /// A request without one.
    pub(crate) const fn none() -> Self {
        Self { inner: None, left: 0, max: 0, patience: Patience::new(Duration::ZERO), upload: None }
    }

    pub(crate) fn upload(&self) -> Option<Upload> {
        self.upload.clone()
    }

    fn turn(&self, turn: Turn) {
        if let Some(upload) = &self.upload {
            upload.0.turn.set(turn);
        }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        let Some(inner) = &mut this.inner else { return Poll::Ready(None) };
        let Poll::Ready(frame) = Pin::new(inner).poll_frame(cx) else {
            this.turn(Turn::Clients);
            ready!(this.patience.poll_over(cx));
            this.turn(Turn::Fault);
            return Poll::Ready(Some(Err(BodyError::Silent(this.patience.limit))));
        };
        this.turn(Turn::Upstreams(Instant::now()));
        this.patience.came();
        let frame = frame.transpose().inspect_err(|_| this.turn(Turn::Fault))?;
        let Some(frame) = frame else { return Poll::Ready(None) };
        let size = frame.data_ref().map_or(0, |data| data.len() as u64);
        if let Some(upload) = &this.upload {
            upload.0.bytes.set(upload.bytes() + size);
        }
        match this.left.checked_sub(size) {
            Some(left) => this.left = left,
            None => {
                this.turn(Turn::Fault);
                return Poll::Ready(Some(Err(BodyError::TooLarge(this.max))));
            }
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(Incoming::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.as_ref().map_or_else(|| SizeHint::with_exact(0), Incoming::size_hint)
    }
}

/// What is counted of a request once it is over.
pub(crate) struct Counting {
    pub(crate) tally: Arc<Tally>,
    pub(crate) core: usize,
    pub(crate) began: std::time::Instant,
    pub(crate) status: u16,
    /// What is uploaded, if anything is.
    pub(crate) upload: Option<Upload>,
    pub(crate) bytes_out: u64,
    /// What is written of it, and where, if anything is.
    pub(crate) logged: Option<Box<(Record, AccessLog)>>,
}

impl Drop for Counting {
    fn drop(&mut self) {
        let bytes_in = self.upload.as_ref().map_or(0, Upload::bytes);
        let (status, duration, bytes_out) = (self.status, self.began.elapsed(), self.bytes_out);
        self.tally.count(self.core, Counts { status, duration, bytes_in, bytes_out });
        if let Some(logged) = self.logged.take() {
            let (mut record, log) = *logged;
            record.duration_us = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
            (record.status, record.bytes_in, record.bytes_out) = (status, bytes_in, bytes_out);
            log.write(&record);
        }
    }
}

/// Lives as long as an answer does.
pub(crate) struct Attached {
    /// None before a route is found.
    pub(crate) counting: Option<Counting>,
    pub(crate) request: Option<Counted>,
    pub(crate) upstream: Option<Opened>,
    pub(crate) waiting: Arc<crate::client_io::Waiting>,
    /// With HTTP/2, how long its client may take nothing.
    pub(crate) stream: Option<Rc<StreamPatience>>,
}

impl Drop for Attached {
    fn drop(&mut self) {
        self.waiting.idle();
        // Said, because both are there only to be dropped: first the upstream, then the request that waited for it.
        drop(self.upstream.take());
        drop(self.request.take());
    }
}

/// An answer on its way to a client.
pub(crate) struct AnswerBody {
    source: Source,
    encoding: Option<Box<Encoding>>,
    attached: Attached,
}

/// An answer that is compressed as it goes.
struct Encoding {
    /// None when all of the body has gone out.
    encoder: Option<Encoder>,
    /// What comes after it.
    trailers: Option<Frame<Bytes>>,
}

enum Source {
    Own(Full<Bytes>),
    Upstream { inner: Incoming, patience: Patience, returning: Option<Returning> },
}

impl AnswerBody {
    pub(crate) fn own(bytes: Bytes, attached: Attached) -> Self {
        Self { source: Source::Own(Full::new(bytes)), encoding: None, attached }
    }

    /// `returning` gives the connection back to the pool when the body has come to its end.
    pub(crate) fn upstream(
        inner: Incoming,
        silence: Duration,
        returning: Option<Returning>,
        attached: Attached,
    ) -> Self {
        let mut returning = returning;
        if inner.is_end_stream()
            && let Some(returning) = returning.take()
        {
            returning.give_back();
        }
        let patience = Patience::new(silence);
        Self { source: Source::Upstream { inner, patience, returning }, encoding: None, attached }
    }
}

/// Why an answer was cut off.
type AnswerError = Box<dyn StdError + Send + Sync>;

impl AnswerBody {
    /// What the answer is, for whoever counts it.
    pub(crate) fn answered(&mut self, status: StatusCode) {
        if let Some(counting) = &mut self.attached.counting {
            counting.status = status.as_u16();
        }
    }

    /// The same, compressed.
    pub(crate) fn through(mut self, encoder: Encoder) -> Self {
        self.encoding = Some(Box::new(Encoding { encoder: Some(encoder), trailers: None }));
        self
    }

    fn poll_source(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, AnswerError>>> {
        match &mut self.source {
            Source::Own(full) => Pin::new(full).poll_frame(cx).map_err(|never| match never {}),
            Source::Upstream { inner, patience, returning } => {
                let Poll::Ready(frame) = Pin::new(&mut *inner).poll_frame(cx) else {
                    ready!(patience.poll_over(cx));
                    return Poll::Ready(Some(Err(BodyError::Silent(patience.limit).into())));
                };
                patience.came();
                let ended = frame.is_none() || inner.is_end_stream();
                if ended && let Some(returning) = returning.take() {
                    returning.give_back();
                }
                Poll::Ready(frame.map(|frame| frame.map_err(|error| BodyError::Broken(error).into())))
            }
        }
    }

    /// What the source gives, compressed. What it gives goes out when it has no more for the moment, so that nobody waits
    /// for what is there.
    fn poll_encoded(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, AnswerError>>> {
        loop {
            let is_over = self.encoding.as_ref().is_none_or(|encoding| encoding.encoder.is_none());
            if is_over {
                let trailers = self.encoding.as_mut().and_then(|encoding| encoding.trailers.take());
                return Poll::Ready(trailers.map(Ok));
            }
            let polled = self.poll_source(cx);
            let Some(encoding) = self.encoding.as_mut() else { return polled };
            let Some(encoder) = encoding.encoder.as_mut() else { return polled };
            let out = match polled {
                Poll::Pending => match encoder.flush()? {
                    Some(out) => out,
                    None => return Poll::Pending,
                },
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(error))),
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => match encoder.write(&data)? {
                        Some(out) => out,
                        None => continue,
                    },
                    Err(trailers) => {
                        encoding.trailers = Some(trailers);
                        encoding.finish()?
                    }
                },
                Poll::Ready(None) => encoding.finish()?,
            };
            return Poll::Ready(Some(Ok(Frame::data(out))));
        }
    }
}

impl Encoding {
    fn finish(&mut self) -> std::io::Result<Bytes> {
        self.encoder.take().map_or(Ok(Bytes::new()), Encoder::finish)
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = AnswerError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, AnswerError>>> {
        let this = &mut *self;
        if let Some(stream) = &this.attached.stream {
            stream.asked();
        }
        let frame = if this.encoding.is_some() { this.poll_encoded(cx) } else { this.poll_source(cx) };
        if let Poll::Ready(Some(Ok(frame))) = &frame {
            if let (Some(counting), Some(data)) = (&mut this.attached.counting, frame.data_ref()) {
                counting.bytes_out += data.len() as u64;
            }
            if let Some(stream) = &this.attached.stream {
                stream.gave();
            }
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        if let Some(encoding) = &self.encoding {
            return encoding.encoder.is_none() && encoding.trailers.is_none();
        }
        match &self.source {
            Source::Own(full) => full.is_end_stream(),
            Source::Upstream { inner, .. } => inner.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        if self.encoding.is_some() {
            return SizeHint::default();
        }
        match &self.source {
            Source::Own(full) => full.size_hint(),
            Source::Upstream { inner, .. } => inner.size_hint(),
        }
    }
}
