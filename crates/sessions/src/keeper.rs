//! The background work: spreading news, confirming rooms in use, and filling a store that has forgotten.

use crate::pin::{Gossip, PIN_BATCH_MAX, PinUpdate};
use crate::sessions::{Inner, lock};
use crate::store::{StoreError, StoreStatus, Why};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tokio_util::task::AbortOnDropHandle;

/// How long news is gathered before it is written, so that a burst of new rooms is a few large writes.
const GATHER: Duration = Duration::from_millis(20);
/// The pause after a refused or failed write.
const RETRY: Duration = Duration::from_millis(200);

/// The tasks; they end when this is dropped.
pub(crate) struct Keeper {
    _tasks: [AbortOnDropHandle<()>; 3],
}

impl Keeper {
    pub(crate) fn start(
        inner: &Arc<Inner>,
        news: mpsc::Receiver<PinUpdate>,
        lives: Option<watch::Receiver<u64>>,
    ) -> Self {
        let spread = tokio::spawn(spread_news(Arc::clone(inner), news));
        let keep = tokio::spawn(keep(Arc::clone(inner), lives));
        let token = tokio::spawn(assert_tokens(Arc::clone(inner)));
        Self { _tasks: [spread, keep, token].map(AbortOnDropHandle::new) }
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

async fn keep(inner: Arc<Inner>, mut lives: Option<watch::Receiver<u64>>) {
    let mut tick = interval(inner.options.keep_interval);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut status = inner.store.status();
    let mut loaded = false;
    loop {
        let mut due = false;
        tokio::select! {
            biased;
            () = changed(&mut lives) => {}
            _ = status.changed() => {}
            _ = tick.tick() => due = true,
            () = inner.keep_soon.notified() => sleep(GATHER).await,
        }
        if due {
            inner.table.sweep();
            spread_used(&inner);
        }
        if !matches!(*status.borrow_and_update(), StoreStatus::Up { .. }) {
            continue;
        }
        if !loaded {
            loaded = load(&inner).await;
        }
        let life = lives.as_mut().map(|lives| *lives.borrow_and_update());
        let refill = life.is_some_and(|life| life != inner.kept_life.load(Ordering::Acquire));
        if refill {
            inner.table.mark_all_dirty();
        }
        let mut written = write_dirty(&inner).await;
        if written.is_ok() && (due || refill) {
            written = write_registry(&inner).await;
        }
        match (written, life) {
            (Ok(()), Some(life)) if refill => {
                *lock(&inner.kept_since) = Instant::now();
                inner.kept_life.store(life, Ordering::Release);
            }
            (Ok(()), _) => {}
            (Err(error), _) => {
                tracing::debug!(%error, "session pins are kept in memory until the store takes them");
                if !due {
                    sleep(RETRY).await;
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

/// A node that has just started learns the rooms from the store.
async fn load(inner: &Inner) -> bool {
    let loading = inner.store.load(inner.options.pins_max);
    let Ok(Ok(pins)) = timeout(inner.options.write_timeout * 10, loading).await else { return false };
    for PinUpdate { room, pin } in pins {
        inner.table.adopt_heard(room, pin, false);
    }
    true
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

async fn write_dirty(inner: &Inner) -> Result<(), StoreError> {
    loop {
        let batch = inner.table.take_dirty(PIN_BATCH_MAX);
        if batch.is_empty() {
            return Ok(());
        }
        let keeping = inner.store.keep(batch.clone(), inner.token(), inner.options.room_ttl);
        let answer = timeout(inner.options.write_timeout, keeping).await;
        let answer = answer.unwrap_or(Err(StoreError::Away(Why::ResponseTimeout)));
        match answer {
            Ok(stored) => {
                for (sent, stored) in batch.iter().zip(stored) {
                    inner.table.adopt_kept(sent, stored);
                }
            }
            Err(error) => {
                inner.table.mark_dirty(&batch);
                return Err(error);
            }
        }
    }
}

async fn write_registry(inner: &Inner) -> Result<(), StoreError> {
    let (token, ttl) = (inner.token(), inner.connections_ttl());
    let counts = lock(&inner.own_connections).clone();
    let drains = lock(&inner.drains).clone();
    let writing = async {
        inner.store.put_connections(counts, token, ttl).await?;
        inner.store.put_drains(drains, token, ttl).await
    };
    timeout(inner.options.write_timeout, writing).await.unwrap_or(Err(StoreError::Away(Why::ResponseTimeout)))
}
