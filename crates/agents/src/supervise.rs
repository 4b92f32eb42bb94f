//! No task of a node may end unnoticed: a node without its brain would go on leading and answer no renewal, one
//! without its peers' server would hold the cluster with heartbeats and hear nobody.

use futures_util::FutureExt;
use std::any::Any;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// A task ended that a node cannot be without.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} {how}: the node cannot go on without it and ends; start it again")]
pub struct TaskEnded {
    what: &'static str,
    how: String,
}

/// Watches over the tasks of a node. Clones share it.
#[derive(Clone)]
pub struct Supervisor {
    /// From here on tasks may end.
    stop: CancellationToken,
    ended: watch::Sender<Option<TaskEnded>>,
}

impl Supervisor {
    /// Watches until `stop`.
    pub fn new(stop: CancellationToken) -> Self {
        Self { stop, ended: watch::Sender::new(None) }
    }

    /// A task that lives as long as the node.
    pub fn lasting<F>(&self, what: &'static str, task: F) -> impl Future<Output = ()> + Send + use<F>
    where
        F: Future<Output = ()> + Send,
    {
        let this = self.clone();
        async move {
            let end = AssertUnwindSafe(task).catch_unwind().await;
            if !this.stop.is_cancelled() {
                this.tell(what, end.err().map_or_else(|| "ended".to_owned(), |panic| panicked(&*panic)));
            }
        }
    }

    /// A task that ends when it is done, but not by a panic.
    pub fn passing<F>(&self, what: &'static str, task: F) -> impl Future<Output = ()> + Send + use<F>
    where
        F: Future<Output = ()> + Send,
    {
        let this = self.clone();
        async move {
            if let Err(panic) = AssertUnwindSafe(task).catch_unwind().await {
                this.tell(what, panicked(&*panic));
            }
        }
    }

    /// Resolves when a task has ended that must not have.
    pub async fn failed(&self) -> TaskEnded {
        let mut ended = self.ended.subscribe();
        let first = ended.wait_for(Option::is_some).await.ok().and_then(|first| first.clone());
        match first {
            Some(first) => first,
            None => std::future::pending().await, // never: this holds a sender
        }
    }

    fn tell(&self, what: &'static str, how: String) {
        tracing::error!(task = what, how, "a task ended that must not end");
        self.ended.send_if_modified(|first| {
            let is_first = first.is_none();
            first.get_or_insert(TaskEnded { what, how });
            is_first
        });
    }
}

fn panicked(panic: &(dyn Any + Send)) -> String {
    let said = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(|s| &**s));
    format!("panicked ({})", said.unwrap_or("no message"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    async fn soon(supervisor: &Supervisor) -> Option<String> {
        let failed = tokio::time::timeout(Duration::from_secs(5), supervisor.failed()).await.ok()?;
        Some(failed.to_string())
    }

    #[tokio::test]
    async fn an_end_and_a_panic_are_told_and_the_first_one_counts() {
        for (task, said) in [
            (async { panic!("the sky fell") }.boxed(), "the brain panicked (the sky fell)"),
            (async {}.boxed(), "the brain ended"),
        ] {
            let supervisor = Supervisor::new(CancellationToken::new());
            tokio::spawn(supervisor.lasting("the brain", task)).await.unwrap();
            supervisor.lasting("another", async {}).await;
            let told = soon(&supervisor).await.unwrap();
            assert!(told.starts_with(said), "{told}");
        }
    }

    #[tokio::test]
    async fn a_task_that_is_done_or_told_to_stop_ends_in_peace() {
        let stop = CancellationToken::new();
        let supervisor = Supervisor::new(stop.clone());
        supervisor.passing("a drain", async {}).await;
        stop.cancel();
        supervisor.lasting("the brain", async {}).await;
        assert_eq!(*supervisor.ended.borrow(), None);
        supervisor.passing("a drain", async { panic!("{}", "never") }).await;
        assert!(soon(&supervisor).await.unwrap().starts_with("a drain panicked (never)"));
    }
}
