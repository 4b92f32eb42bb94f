//! The background work: spreading news, confirming rooms in use, and filling a store that has forgotten.

use crate::pin::{Gossip, PIN_BATCH_MAX, PinUpdate};
use crate::runtime::Turns;
use crate::sessions::{Inner, lock};
use crate::store::{BoxFuture, LoadCursor, StoreError, StoreStatus, Why};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::{CancellationToken, DropGuard};
use twinsite_model::{Fault, Faults};

/// How long news is gathered before it is written, so that a burst of new rooms is a few large writes.
const GATHER: Duration = Duration::from_millis(20);
/// The pause after a refused or failed write.
const RETRY: Duration = Duration::from_millis(200);

/// The tasks; they end when this is dropped.
pub(crate) struct Keeper {
    _tasks: DropGuard,
}

impl Keeper {
    pub(crate) fn start(
        inner: &Arc<Inner>,
        news: mpsc::Receiver<PinUpdate>,
        lives: Option<watch::Receiver<u64>>,
    ) -> Self {
        let stop = CancellationToken::new();
        let start = |work: BoxFuture<'static, ()>| {
            let ended = stop.clone();
            inner.runtime.spawn(Box::pin(async move {
                ended.run_until_cancelled_owned(work).await;
            }));
        };
        start(Box::pin(spread_news(Arc::clone(inner), news)));
        start(Box::pin(keep(Arc::clone(inner), lives)));
        start(Box::pin(assert_tokens(Arc::clone(inner))));
        start(Box::pin(tell_use(Arc::clone(inner))));
        start(Box::pin(load(Arc::clone(inner))));
        Self { _tasks: stop.drop_guard() }
    }
}

/// New pins go to the other nodes at once, as many in one message as have gathered.
async fn spread_news(inner: Arc<Inner>, mut news: mpsc::Receiver<PinUpdate>) {
    let mut pins = Vec::new();
    while news.recv_many(&mut pins, PIN_BATCH_MAX).await > 0 {
        let pins = std::mem::take(&mut pins);
        inner.spread.broadcast(Gossip { from: inner.options.node, pins, connections: None });
    }
}

/// The store hears of a newer token as soon as this node does.
async fn assert_tokens(inner: Arc<Inner>) {
    let mut view = inner.view.clone();
    let mut last = None;
    loop {
        let token = view.borrow_and_update().token;
        if last.replace(token) != Some(token) {
            inner.store.assert_token(inner.token());
        }
        if view.changed().await.is_err() {
            return;
        }
    }
}

/// Forgets what nobody uses and tells the other nodes what is used, however slow the store is.
async fn tell_use(inner: Arc<Inner>) {
    let mut turns = Turns::new(&*inner.runtime, inner.options.keep_interval);
    loop {
        turns.next(&*inner.runtime).await;
        inner.table.sweep();
        spread_used(&inner);
    }
}

async fn keep(inner: Arc<Inner>, mut lives: Option<watch::Receiver<u64>>) {
    let mut turns = Turns::new(&*inner.runtime, inner.options.keep_interval);
    let mut status = inner.store.status();
    loop {
        let mut due = false;
        tokio::select! {
            biased;
            () = changed(&mut lives) => {}
            _ = status.changed() => {}
            () = turns.next(&*inner.runtime) => due = true,
            () = inner.keep_soon.notified() => inner.runtime.sleep(GATHER).await,
        }
        if !matches!(*status.borrow_and_update(), StoreStatus::Up { .. }) {
            continue;
        }
        let life = lives.as_mut().map(|lives| *lives.borrow_and_update());
        let refill = life.is_some_and(|life| life != inner.kept_life.load(Ordering::Acquire));
        if refill && !Faults::here().has(Fault::StoreNotRefilled) {
            inner.table.mark_all_dirty();
        }
        let mut written = write_dirty(&inner).await;
        if written.is_ok() && (due || refill) {
            written = write_registry(&inner).await;
        }
        match (written, life) {
            (Ok(()), Some(life)) if refill => {
                *lock(&inner.kept_since) = inner.now();
                inner.kept_life.store(life, Ordering::Release);
            }
            (Ok(()), _) => {}
            (Err(error), _) => {
                tracing::debug!(%error, "session pins are kept in memory until the store takes them");
                if !due {
                    inner.runtime.sleep(RETRY).await;
                }
                // A refused writer must first learn the newer token; all else is retried soon.
                if error.retryable() && status.borrow().is_up() {
                    inner.keep_soon.notify_one();
                }
            }
        }
    }
}

/// Waits for a new life of the store; for ever if it has none.
async fn changed(lives: &mut Option<watch::Receiver<u64>>) {
    if let Some(lives) = lives
        && lives.changed().await.is_ok()
    {
        return;
    }
    std::future::pending::<()>().await;
}

/// A node that has just started learns the rooms from the store, step by step: the store may hold far more than rooms.
/// A step that fails is repeated, and what was learned stays. A room that the walk misses, because the store lost its
/// data or another took its role meanwhile, is asked for when somebody comes to it.
async fn load(inner: Arc<Inner>) {
    let mut status = inner.store.status();
    let mut from = LoadCursor::default();
    loop {
        if status.wait_for(StoreStatus::is_up).await.is_err() {
            return;
        }
        let loading = inner.store.load(from);
        let Some(Ok(loaded)) = inner.timeout(inner.options.write_timeout, loading).await else {
            inner.runtime.sleep(RETRY).await;
            continue;
        };
        for PinUpdate { room, pin } in loaded.pins {
            if inner.table.len() >= inner.options.pins_max {
                return;
            }
            inner.table.adopt_heard(room, pin, false);
        }
        match loaded.next {
            Some(next) => from = next,
            None => return,
        }
    }
}

/// Rooms in use, and connection counts, go to the other nodes: what a lost message did not tell them, this does.
fn spread_used(inner: &Inner) {
    let used = inner.table.take_unspread();
    let mut connections = Some(lock(&inner.own_connections).clone());
    for pins in used.chunks(PIN_BATCH_MAX) {
        let gossip =
            Gossip { from: inner.options.node, pins: pins.to_vec(), connections: connections.take() };
        inner.spread.broadcast(gossip);
    }
    if connections.is_some() {
        inner.spread.broadcast(Gossip { from: inner.options.node, pins: Vec::new(), connections });
    }
}

/// One pass over what was used until now. What is used meanwhile waits for the next: with a pass that ended only when
/// nothing is left, a busy node's would never end.
async fn write_dirty(inner: &Inner) -> Result<(), StoreError> {
    let dirty = inner.table.take_dirty();
    let options = &inner.options;
    let proven = dirty.proven.chunks(PIN_BATCH_MAX).map(|batch| (batch, options.room_ttl));
    let unproven = dirty.unproven.chunks(PIN_BATCH_MAX).map(|batch| (batch, options.unproven_ttl()));
    let mut written = Ok(());
    for (batch, ttl) in proven.chain(unproven) {
        if written.is_ok() {
            written = write_batch(inner, batch, ttl).await;
        }
        if written.is_err() {
            inner.table.mark_dirty(batch);
        }
    }
    written
}

async fn write_batch(inner: &Inner, batch: &[PinUpdate], ttl: Duration) -> Result<(), StoreError> {
    let keeping = inner.store.keep(batch.to_vec(), inner.token(), ttl);
    let answer = inner.timeout(inner.options.write_timeout, keeping).await;
    let stored = answer.unwrap_or(Err(StoreError::Away(Why::ResponseTimeout)))?;
    for (sent, stored) in batch.iter().zip(stored) {
        inner.table.adopt_kept(sent, stored);
    }
    Ok(())
}

async fn write_registry(inner: &Inner) -> Result<(), StoreError> {
    let (token, ttl) = (inner.token(), inner.connections_ttl());
    let counts = lock(&inner.own_connections).clone();
    let drains = lock(&inner.drains).clone();
    let writing = async {
        inner.store.put_connections(counts, token, ttl).await?;
        inner.store.put_drains(drains, token, ttl).await
    };
    let written = inner.timeout(inner.options.write_timeout, writing).await;
    written.unwrap_or(Err(StoreError::Away(Why::ResponseTimeout)))
}
