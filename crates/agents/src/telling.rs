//! How a guardian tells the cluster that a token has ended with its node's process.

use crate::machine::Machine;
use crate::peers::Peers;
use futures_util::stream::{FuturesUnordered, StreamExt};
use std::time::Duration;
use twinsite_controller::Release;

/// How long one node may take to hear of a release.
const TELL_TIMEOUT: Duration = Duration::from_millis(500);
/// The pause before a release is told again, at first and at most.
const AGAIN_MIN: Duration = Duration::from_millis(10);
const AGAIN_MAX: Duration = Duration::from_secs(1);

/// Tells every node, again and again, until one of them knows a later token: only the leader acts on it, and who that
/// is may just be changing. Its own node is told too, which may live again by then and even lead, and which passes it on
/// to a leader that the guardian's file does not name.
pub async fn tell<M: Machine, P: Peers>(peers: P, release: Release) {
    let mut pause = AGAIN_MIN;
    loop {
        let nodes = peers.everybody().into_iter();
        let mut told: FuturesUnordered<_> =
            nodes.map(|node| peers.release(node, &release, TELL_TIMEOUT)).collect();
        while let Some(answer) = told.next().await {
            let Ok(noted) = answer else { continue };
            if noted.current.is_some_and(|current| current > release.token) {
                return;
            }
            if noted.leads {
                break; // the others need not be waited for
            }
        }
        drop(told);
        M::sleep(pause).await;
        pause = (pause * 2).min(AGAIN_MAX);
    }
}
