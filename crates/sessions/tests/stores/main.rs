//! What every store must do, asked of both; and what only a real Redis can go through.
#![allow(clippy::disallowed_methods, reason = "tests live by the real clock")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test's helpers end the test")]

mod access;
mod contract;
mod embedded;
mod redis_server;
mod retold;
mod trouble;

use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};
use twinsite_model::{RoomKey, Token, UpstreamName};
use twinsite_sessions::{PlaceRequest, Store, StoreStatus};

/// How long anything may take here that takes some time.
const PATIENCE: Duration = Duration::from_secs(20);
const ROOM_TTL: Duration = Duration::from_hours(1);

fn room(number: u8) -> RoomKey {
    RoomKey([number; 16])
}

fn name(upstream: &str) -> UpstreamName {
    UpstreamName::new(upstream).unwrap()
}

fn wish(number: u8, proposal: &str, token: Token) -> PlaceRequest {
    PlaceRequest {
        room: room(number),
        proposal: name(proposal),
        replace: None,
        token,
        ttl: ROOM_TTL,
        peers_asked: true,
    }
}

/// Waits until the store's status is as wanted.
async fn status(store: &dyn Store, wanted: impl FnMut(&StoreStatus) -> bool) -> StoreStatus {
    let mut status = store.status();
    let last = store.status();
    let reached = timeout(PATIENCE, status.wait_for(wanted)).await;
    let Ok(reached) = reached else { panic!("the status stays {:?}", *last.borrow()) };
    *reached.unwrap()
}

async fn up(store: &dyn Store) {
    status(store, StoreStatus::is_up).await;
}

/// Asks again and again until the answer is there.
async fn eventually<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(begun.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        sleep(Duration::from_millis(10)).await;
    }
}
