//! Spawned tasks and how they are waited for.

use super::executor::{self, ProcessId};
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::sync::oneshot;

/// The task was ended with its process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the task's process was killed")]
pub(crate) struct JoinError;

/// Waits for a task's value. Dropping it lets the task go on.
#[derive(Debug)]
pub(crate) struct JoinHandle<T>(oneshot::Receiver<T>);

impl<T> Future for JoinHandle<T> {
    type Output = Result<T, JoinError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(context).map_err(|_| JoinError)
    }
}

/// Starts a task in a process. In one that has been killed it never runs.
pub(crate) fn spawn<F>(process: ProcessId, future: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    let (done, is_done) = oneshot::channel();
    executor::add(
        process,
        Box::pin(async move {
            let _nobody_waits = done.send(future.await);
        }),
    );
    JoinHandle(is_done)
}
