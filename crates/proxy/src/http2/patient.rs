//! A limit on how long a client may take nothing of one answer. HTTP/2 lets it close the window of a stream while the
//! connection goes on: nobody would ask for the body again, and its upstream would wait for ever.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::{Instant, Sleep, sleep_until};

/// How long one stream waits for its client.
#[derive(Debug, Default)]
pub(crate) struct StreamPatience {
    /// When a part of the answer was given that nobody has asked for more after.
    waiting_since: Cell<Option<Instant>>,
    limit: Cell<Duration>,
}

impl StreamPatience {
    /// The client may take nothing for so long.
    pub(crate) fn set_limit(&self, limit: Duration) {
        self.limit.set(limit);
    }

    /// A part of the body was given out.
    pub(crate) fn gave(&self) {
        self.waiting_since.set(Some(Instant::now()));
    }

    /// More is asked for.
    pub(crate) fn asked(&self) {
        self.waiting_since.set(None);
    }

    fn over_at(&self) -> Option<Instant> {
        Some(self.waiting_since.get()? + self.limit.get())
    }
}

thread_local! {
    static CURRENT: RefCell<Option<Rc<StreamPatience>>> = const { RefCell::new(None) };
}

/// That of the request being answered right now; none on HTTP/1.1, where the connection has it.
pub(crate) fn current_stream() -> Option<Rc<StreamPatience>> {
    CURRENT.with_borrow(Clone::clone)
}

/// Runs a future until its client takes nothing any more.
pub(crate) struct Patient<F> {
    /// Boxed by its task anyway.
    future: Pin<Box<F>>,
    patience: Rc<StreamPatience>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl<F: Future> Patient<F> {
    pub(crate) fn new(future: F) -> Self {
        Self { future: Box::pin(future), patience: Rc::default(), timer: None }
    }
}

impl<F: Future> Future for Patient<F> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        CURRENT.set(Some(Rc::clone(&this.patience)));
        let polled = this.future.as_mut().poll(cx);
        CURRENT.set(None);
        if polled.is_ready() {
            return Poll::Ready(());
        }
        let Some(over) = this.patience.over_at() else {
            this.timer = None;
            return Poll::Pending;
        };
        let timer = this.timer.get_or_insert_with(|| Box::pin(sleep_until(over)));
        if timer.deadline() != over {
            timer.as_mut().reset(over);
        }
        // What is dropped unfinished resets its stream.
        timer.as_mut().poll(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use tokio::time::timeout;

    #[tokio::test]
    async fn only_who_has_something_to_take_and_does_not_is_given_up() {
        let limit = Duration::from_millis(50);
        let given = |asks: bool| {
            let mut first = true;
            Patient::new(poll_fn(move |_| {
                let stream = current_stream().unwrap();
                stream.set_limit(limit);
                if std::mem::take(&mut first) {
                    stream.gave();
                    if asks {
                        stream.asked();
                    }
                }
                Poll::<()>::Pending
            }))
        };
        let begun = Instant::now();
        timeout(Duration::from_secs(60), given(false)).await.unwrap();
        assert!(begun.elapsed() >= limit);
        assert!(timeout(4 * limit, given(true)).await.is_err(), "its upstream is slow");
        assert!(current_stream().is_none());
    }
}
