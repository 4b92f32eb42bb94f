//! The addresses as nodes see them from outside: a question and an answer have their way, and nothing comes from where
//! a node is cut off.

use super::net::Net;
use super::process::Raft;
use super::sight::Sight;
use crate::runtime::{Executor, SimRuntime};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, watch};
use twinsite_agents::{Outside, timing};
use twinsite_consensus::AsyncRuntime;
use twinsite_controller::OutsideView;
use twinsite_model::{ClusterName, FloatingIpName, NodeId};

/// How long a question, or an answer, is on its way, at most.
const WAY_MAX: Duration = Duration::from_millis(20);
/// While an address is silent, probes come so many times as often.
const SILENCE_FACTOR: u32 = 4;

/// What each address answered last.
pub(super) type Answers = BTreeMap<FloatingIpName, OutsideView>;

/// Probes until the node's process ends; at once when told so.
pub(super) fn probe(
    me: NodeId,
    sight: Sight,
    net: Net,
    raft: Raft,
    soon: Arc<Notify>,
) -> watch::Receiver<Answers> {
    let known = watch::Sender::default();
    let answers = known.subscribe();
    let mut random = Executor::random();
    drop(SimRuntime::spawn(async move {
        let mut way = move || Duration::from_nanos(random.u64(..=WAY_MAX.as_nanos() as u64));
        loop {
            SimRuntime::sleep(way()).await;
            let state = raft.state();
            let asked = state.spec.iter().flat_map(|spec| &spec.floating_ips);
            let now: Answers = asked
                .map(|ip| {
                    let answered = sight.answers(&ip.name, |holder| net.is_open(me, holder));
                    let silent = || OutsideView::Silent { detail: "nobody answers".to_owned() };
                    let answered = answered.map(|(node, token)| OutsideView::Answered { node, token });
                    (ip.name.clone(), answered.unwrap_or_else(silent))
                })
                .collect();
            drop(state);
            SimRuntime::sleep(way()).await;
            let silent = now.values().any(|answer| answer.token().is_none());
            known.send_if_modified(|known| {
                let changed = *known != now;
                *known = now;
                changed
            });
            let lease = timing(&raft).lease;
            let every = (lease / 4).clamp(Duration::from_millis(50), Duration::from_secs(1));
            tokio::select! {
                biased;
                () = soon.notified() => {}
                () = SimRuntime::sleep(if silent { every / SILENCE_FACTOR } else { every }) => {}
            }
        }
    }));
    answers
}

/// What these probes found.
pub(super) struct Probed(pub(super) watch::Receiver<Answers>);

impl Outside for Probed {
    fn answers(&mut self, _: &ClusterName) -> Answers {
        self.0.borrow_and_update().clone()
    }

    async fn changed(&mut self) {
        if self.0.changed().await.is_err() {
            std::future::pending::<()>().await; // it ends with its process
        }
    }
}
