//! A limit on how long a client may take nothing of one answer. HTTP/2 lets it close the window of a stream while the
//! connection goes on: nobody would ask for the body again, and its upstream would wait for ever.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::Poll;
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

/// Runs a future until its client takes nothing any more. What is dropped unfinished resets its stream.
pub(super) async fn patiently<F: Future>(future: F) {
    let mut future = pin!(future);
    let (patience, mut timer) = (Rc::<StreamPatience>::default(), None::<Pin<Box<Sleep>>>);
    let answered = poll_fn(|cx| {
        CURRENT.set(Some(Rc::clone(&patience)));
        let polled = future.as_mut().poll(cx);
        CURRENT.set(None);
        if polled.is_ready() {
            return Poll::Ready(());
        }
        let Some(over) = patience.over_at() else {
            timer = None;
            return Poll::Pending;
        };
        let timer = timer.get_or_insert_with(|| Box::pin(sleep_until(over)));
        if timer.deadline() != over {
            timer.as_mut().reset(over);
        }
        timer.as_mut().poll(cx)
    });
    answered.await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::timeout;

    #[tokio::test]
    async fn only_who_has_something_to_take_and_does_not_is_given_up() {
        let limit = Duration::from_millis(50);
        let given = |asks: bool| {
            let mut first = true;
            patiently(poll_fn(move |_| {
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
