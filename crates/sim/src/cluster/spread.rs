//! What the sessions of a node stand on here: the clock of its machine, the network to the other nodes, the log.

use super::net::End;
use super::process::Raft;
use crate::runtime::{ProcessId, SimInstant, SimRuntime, spawn};
use futures_util::future::join_all;
use std::sync::Arc;
use std::time::Duration;
use twinsite_agents::{Machine, Peers};
use twinsite_consensus::AsyncRuntime;
use twinsite_consensus::runtime::traits::Instant;
use twinsite_model::{Applied, Command, Proposal, RoomKey, State};
use twinsite_sessions::{BoxFuture, Gossip, Moment, PeersAnswer, ProposeFailed, Proposer, Runtime, Spread};

/// How long one message to one node may take.
const SPREAD_TIMEOUT: Duration = Duration::from_millis(500);

/// Time and tasks of a process.
pub(super) struct OnProcess(pub(super) ProcessId);

impl Runtime for OnProcess {
    fn now(&self) -> Moment {
        Moment(SimInstant::now().0.0)
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        Box::pin(SimRuntime::sleep(duration))
    }

    fn spawn(&self, work: BoxFuture<'static, ()>) {
        drop(spawn(self.0, work));
    }
}

/// News of rooms to and from the other nodes.
pub(super) struct PeerSpread(pub(super) End);

impl Spread for PeerSpread {
    fn broadcast(&self, gossip: Gossip) {
        let gossip = Arc::new(gossip);
        for node in self.0.others() {
            let (end, gossip) = (self.0.clone(), Arc::clone(&gossip));
            drop(SimRuntime::spawn(async move {
                let told = end.ask_rooms(node, SPREAD_TIMEOUT, move |sessions| {
                    sessions.receive(Gossip::clone(&gossip));
                });
                drop(told.await); // repeated while it is in use
            }));
        }
    }

    fn ask_peers(&self, room: RoomKey, within: Duration) -> BoxFuture<'_, PeersAnswer> {
        Box::pin(async move {
            let ask = |node| self.0.ask_rooms(node, within, move |sessions| sessions.answer(room));
            let mut all = PeersAnswer { pin: None, complete: true };
            for answer in join_all(self.0.others().into_iter().map(ask)).await {
                match answer {
                    Ok(Some(pin)) if all.pin.as_ref().is_none_or(|best| pin.outranks(best)) => {
                        all.pin = Some(pin);
                    }
                    Ok(_) => {}
                    Err(_) => all.complete = false,
                }
            }
            all
        })
    }
}

/// Puts session commands into the log, wherever the leader is.
pub(super) struct LogProposer {
    pub(super) end: End,
    pub(super) raft: Raft,
}

impl Proposer for LogProposer {
    fn propose(&self, command: Command) -> BoxFuture<'_, Result<Applied, ProposeFailed>> {
        Box::pin(async move {
            let leader = self.raft.status().borrow().leader.ok_or(ProposeFailed::NoLeader)?;
            let proposal = Proposal {
                at: SimRuntime::wall_now(),
                by: format!("node {}", self.end.node),
                request: None,
                expected_revision: None,
                command,
            };
            if leader == self.end.node {
                return self.raft.propose(&proposal).await.map_err(|_| ProposeFailed::NoLeader);
            }
            let asked = self.end.propose(leader, proposal, SPREAD_TIMEOUT).await;
            asked.map_err(|_| ProposeFailed::NoLeader)
        })
    }

    fn state(&self) -> Arc<State> {
        self.raft.state()
    }
}
