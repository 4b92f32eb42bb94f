//! How a guardian tells the cluster that a token has ended with its node's process.

use crate::machine::Machine;
use crate::peers::Peers;
use futures_util::stream::{FuturesUnordered, StreamExt};
use std::time::Duration;
use twinsite_controller::Release;
use twinsite_model::NodeId;

/// How long one node may take to hear of a release.
const TELL_TIMEOUT: Duration = Duration::from_millis(500);
/// The pause before a release is told again, at first and at most.
const AGAIN_MIN: Duration = Duration::from_millis(10);
const AGAIN_MAX: Duration = Duration::from_secs(1);

/// Tells every node, again and again, until one of them knows a later token: only the leader acts on it, and who that
/// is may just be changing. Its own node is told too, which may live again by then and even lead, and which passes it on
/// to a leader that the guardian's file does not name.
///
/// Each is told at its own pace: one that is silent, like the leader that died with the owner, keeps nobody waiting.
pub async fn tell<M: Machine, P: Peers>(peers: P, release: Release) {
    let nodes = peers.everybody().into_iter();
    let mut told: FuturesUnordered<_> =
        nodes.map(|node| tell_until_known::<M, P>(&peers, node, &release)).collect();
    told.next().await;
}

async fn tell_until_known<M: Machine, P: Peers>(peers: &P, node: NodeId, release: &Release) {
    let mut pause = AGAIN_MIN;
    loop {
        let noted = peers.release(node, release, TELL_TIMEOUT).await;
        if noted.is_ok_and(|noted| noted.current.is_some_and(|current| current > release.token)) {
            return;
        }
        M::sleep(pause).await;
        // About an eighth of the time that has passed: by so little a new leader hears of it later than it could.
        pause = (pause * 9 / 8).min(AGAIN_MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alone::{NobodyElse, WITHIN};
    use crate::peers::{Heard, Noted};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};
    use twinsite_consensus::{LogIndex, TokioRuntime};
    use twinsite_controller::{NodeReport, ReleasedBy, Renewal, RenewalAnswer};
    use twinsite_model::{FloatingIpName, Incarnation, Token};

    const SILENT: NodeId = NodeId(1);
    const REFUSING: NodeId = NodeId(2);
    const NEXT_LEADER: NodeId = NodeId(3);

    /// One node says nothing, one cannot be reached, and one comes to lead after it was told a few times.
    #[derive(Clone, Default)]
    struct AfterALoss {
        told_next_leader: Arc<AtomicU32>,
    }

    impl Peers for AfterALoss {
        type Error = NobodyElse;

        fn others(&self) -> Vec<NodeId> {
            self.everybody()
        }

        fn everybody(&self) -> Vec<NodeId> {
            vec![SILENT, REFUSING, NEXT_LEADER]
        }

        async fn report(&self, _: NodeId, _: NodeReport, _: Duration) -> Result<Heard, NobodyElse> {
            Err(NobodyElse)
        }

        async fn ping(&self, _: NodeId, _: Duration) -> Result<(), NobodyElse> {
            Err(NobodyElse)
        }

        async fn renew(&self, _: NodeId, _: Renewal, _: Duration) -> Result<RenewalAnswer, NobodyElse> {
            Err(NobodyElse)
        }

        async fn read_index(&self, _: NodeId, _: Duration) -> Result<LogIndex, NobodyElse> {
            Err(NobodyElse)
        }

        async fn release(&self, to: NodeId, release: &Release, _: Duration) -> Result<Noted, NobodyElse> {
            match to {
                SILENT => std::future::pending().await,
                REFUSING => Err(NobodyElse),
                _ => {
                    let told = self.told_next_leader.fetch_add(1, Ordering::Relaxed);
                    // It leads from the third time on, and has acted on it at the fifth.
                    let current = if told < 4 { release.token } else { Token::new(1, 2) };
                    Ok(Noted { leads: told >= 2, current: Some(current) })
                }
            }
        }
    }

    #[tokio::test]
    async fn who_is_silent_keeps_nobody_from_hearing_of_it() {
        let peers = AfterALoss::default();
        let release = Release {
            ip: FloatingIpName::new("public").unwrap(),
            node: SILENT,
            incarnation: Incarnation(1),
            token: Token::new(1, 1),
            by: ReleasedBy::Guardian,
        };
        let told = tell::<TokioRuntime, _>(peers.clone(), release);
        tokio::time::timeout(WITHIN, told).await.unwrap();
        assert_eq!(peers.told_next_leader.load(Ordering::Relaxed), 5, "until it knows a later token");
    }
}
