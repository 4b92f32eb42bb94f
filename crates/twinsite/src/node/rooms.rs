//! Session placement, wired to this node: the store, the other nodes, and the proxy that asks.

use super::Raft;
use crate::cli::CliError;
use crate::config::Loaded;
use crate::peer::Peers;
use futures_util::stream::{FuturesUnordered, StreamExt};
use std::collections::BTreeMap;
use std::pin::Pin as Pinned;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use twinsite_agents::{Machine, Peers as _};
use twinsite_consensus::TokioRuntime;
use twinsite_model::spec::SessionStoreKind;
use twinsite_model::{Applied, Command, NodeId, NodeName, Proposal, RoomKey, State, UpstreamName};
use twinsite_proxy::{RoomRefused, Rooms};
use twinsite_sessions::{
    BoxFuture, Credentials, EmbeddedStore, Gossip, PeersAnswer, Pin, ProposeFailed, Proposer, RedisConfig,
    RedisStore, Refused, SecretSource, Sessions, Spread, Store,
};

/// Messages to one other node under way at once: enough for all pins of a full memory. Above it, what is still in use
/// is told again at the next keeping interval.
const SPREADING_MAX: usize = 512;
/// How long one message to one node may take.
const SPREAD_TIMEOUT: Duration = Duration::from_millis(500);

/// The store that the specification names.
pub fn store(loaded: &Loaded, raft: &Raft, peers: &Peers) -> Result<Arc<dyn Store>, CliError> {
    let spec = &loaded.spec;
    if spec.sessions.store == SessionStoreKind::Embedded {
        let proposer = LogProposer {
            me: loaded.me.id,
            name: loaded.me.name.clone(),
            raft: raft.clone(),
            peers: peers.clone(),
        };
        return Ok(Arc::new(EmbeddedStore::new(proposer)));
    }
    let own = &loaded.node.sessions;
    let url = spec.sessions.url.as_deref().unwrap_or_default();
    let mut config = RedisConfig::new(spec.cluster.clone(), loaded.me.id, url, own.ca_file.as_deref())
        .map_err(|error| CliError::Usage(format!("{}: {error}", loaded.node.cluster_file.display())))?;
    config.dial = loaded.node.dial.clone();
    config.audit = spec.sessions.audit;
    config.credentials = Credentials {
        username: SecretSource::file_or_environment(own.username_file.as_deref(), "TWINSITE_REDIS_USERNAME"),
        password: SecretSource::file_or_environment(own.password_file.as_deref(), "TWINSITE_REDIS_PASSWORD"),
    };
    Ok(Arc::new(RedisStore::start(config)))
}

/// Puts session commands into the log, wherever the leader is.
struct LogProposer {
    me: NodeId,
    name: NodeName,
    raft: Raft,
    peers: Peers,
}

impl Proposer for LogProposer {
    fn propose(&self, command: Command) -> BoxFuture<'_, Result<Applied, ProposeFailed>> {
        Box::pin(async move {
            let leader = self.raft.status().borrow().leader.ok_or(ProposeFailed::NoLeader)?;
            let proposal = Proposal {
                at: TokioRuntime::wall_now(),
                by: format!("node {}", self.name),
                request: None,
                expected_revision: None,
                command,
            };
            if leader == self.me {
                return self.raft.propose(&proposal).await.map_err(|_| ProposeFailed::NoLeader);
            }
            let asked = self.peers.propose_session(leader, &proposal, SPREAD_TIMEOUT).await;
            asked.map_err(|_| ProposeFailed::NoLeader)
        })
    }

    fn state(&self) -> Arc<State> {
        self.raft.state()
    }
}

/// News of rooms to and from the other nodes.
pub struct PeerSpread {
    peers: Peers,
    /// For each node, so that a silent one takes nothing from the others.
    room_for: Mutex<BTreeMap<NodeId, Arc<Semaphore>>>,
}

impl PeerSpread {
    /// Over these connections.
    pub fn new(peers: Peers) -> Self {
        Self { peers, room_for: Mutex::default() }
    }
}

/// A place among the messages under way to each of these nodes; those that have none left are passed over.
fn places(
    room_for: &mut BTreeMap<NodeId, Arc<Semaphore>>,
    nodes: &[NodeId],
) -> Vec<(NodeId, OwnedSemaphorePermit)> {
    room_for.retain(|node, _| nodes.contains(node));
    let mut place = |node: NodeId| {
        let room = room_for.entry(node).or_insert_with(|| Arc::new(Semaphore::new(SPREADING_MAX)));
        Some((node, Arc::clone(room).try_acquire_owned().ok()?))
    };
    nodes.iter().filter_map(|node| place(*node)).collect()
}

/// The best of the answers, and whether there was one from everybody. Each comes or fails within its own time.
async fn gather_answers<E>(
    mut answers: FuturesUnordered<impl Future<Output = Result<Option<Pin>, E>>>,
) -> PeersAnswer {
    let mut all = PeersAnswer { pin: None, complete: true };
    while let Some(answer) = answers.next().await {
        match answer {
            Ok(Some(pin)) if all.pin.as_ref().is_none_or(|best| pin.outranks(best)) => all.pin = Some(pin),
            Ok(_) => {}
            Err(_) => all.complete = false,
        }
    }
    all
}

impl Spread for PeerSpread {
    fn broadcast(&self, gossip: Gossip) {
        let gossip = Arc::new(gossip);
        let mut room_for = self.room_for.lock().unwrap_or_else(PoisonError::into_inner);
        for (node, place) in places(&mut room_for, &self.peers.others()) {
            let (peers, gossip) = (self.peers.clone(), Arc::clone(&gossip));
            tokio::spawn(async move {
                drop(peers.spread(node, &gossip, SPREAD_TIMEOUT).await); // repeated while it is in use
                drop(place);
            });
        }
    }

    fn ask_peers(&self, room: RoomKey, within: Duration) -> BoxFuture<'_, PeersAnswer> {
        Box::pin(async move {
            let asked = self.peers.others().into_iter().map(|node| self.peers.ask(node, room, within));
            gather_answers(asked.collect()).await
        })
    }
}

/// What the proxy asks.
pub struct ProxyRooms(pub Sessions);

impl Rooms for ProxyRooms {
    fn remembered(&self, room: RoomKey) -> Option<UpstreamName> {
        self.0.remembered(room)
    }

    fn place<'a>(
        &'a self,
        room: RoomKey,
        proposal: UpstreamName,
        replace: Option<UpstreamName>,
    ) -> Pinned<Box<dyn Future<Output = Result<UpstreamName, RoomRefused>> + Send + 'a>> {
        Box::pin(async move {
            let placed = self.0.place(room, proposal, replace).await;
            placed.map(|placed| placed.upstream).map_err(|refused| match refused {
                Refused::QuorumUnknown => RoomRefused::QuorumUnknown,
                Refused::TooManyNewRooms => RoomRefused::TooManyNew,
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};
    use twinsite_model::Token;

    fn pin_at(upstream: &str, version: u64) -> Pin {
        Pin { upstream: UpstreamName::new(upstream).unwrap(), version, token: Token::new(1, 1) }
    }

    fn now<T>(future: impl Future<Output = T>) -> T {
        match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(value) => value,
            Poll::Pending => panic!("it waits"),
        }
    }

    #[test]
    fn the_best_answer_counts_though_a_node_is_silent_and_the_silence_is_told() {
        type Answer = Result<Option<Pin>, &'static str>;
        let gathered =
            |answers: Vec<Answer>| now(gather_answers(answers.into_iter().map(std::future::ready).collect()));
        let best =
            gathered(vec![Ok(Some(pin_at("one", 5))), Err("silent"), Ok(Some(pin_at("two", 7))), Ok(None)]);
        assert_eq!(best, PeersAnswer { pin: Some(pin_at("two", 7)), complete: false });
        assert_eq!(gathered(vec![Ok(None), Ok(None)]), PeersAnswer { pin: None, complete: true });
        assert_eq!(gathered(vec![Ok(None), Err("silent")]), PeersAnswer { pin: None, complete: false });
        assert_eq!(gathered(vec![]), PeersAnswer { pin: None, complete: true }, "there is nobody else");
    }

    #[test]
    fn a_silent_node_takes_no_place_from_the_others() {
        let (silent, healthy) = (NodeId(1), NodeId(2));
        let mut room_for = BTreeMap::new();
        let mut held = Vec::new();
        for _ in 0..=SPREADING_MAX {
            let reached = places(&mut room_for, &[silent, healthy]);
            assert!(reached.iter().any(|(node, _)| *node == healthy));
            held.extend(reached.into_iter().filter(|(node, _)| *node == silent));
        }
        assert_eq!(held.len(), SPREADING_MAX, "bounded for each");
        assert!(places(&mut room_for, &[healthy]).len() == 1 && room_for.len() == 1, "who left is forgotten");
    }
}
