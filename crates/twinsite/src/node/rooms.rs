//! Session placement, wired to this node: the store, the other nodes, and the proxy that asks.

use super::Raft;
use super::clock::wall_now;
use crate::cli::CliError;
use crate::config::Loaded;
use crate::peer::Peers;
use futures_util::stream::{FuturesUnordered, StreamExt};
use std::pin::Pin as Pinned;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use twinsite_model::spec::SessionStoreKind;
use twinsite_model::{Applied, Command, NodeId, NodeName, Proposal, RoomKey, State, UpstreamName};
use twinsite_proxy::{RoomRefused, Rooms};
use twinsite_sessions::{
    BoxFuture, Credentials, EmbeddedStore, Gossip, Pin, ProposeFailed, Proposer, RedisConfig, RedisStore,
    SecretSource, Sessions, Spread, Store,
};

/// Messages to other nodes under way at once; above it, news waits for the next keeping interval.
const SPREADING_MAX: usize = 256;
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
                at: wall_now(),
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
    room_for: Arc<Semaphore>,
}

impl PeerSpread {
    /// Over these connections.
    pub fn new(peers: Peers) -> Self {
        Self { peers, room_for: Arc::new(Semaphore::new(SPREADING_MAX)) }
    }
}

impl Spread for PeerSpread {
    fn broadcast(&self, gossip: Gossip) {
        let gossip = Arc::new(gossip);
        for node in self.peers.others() {
            let Ok(place) = Arc::clone(&self.room_for).try_acquire_owned() else { return };
            let (peers, gossip) = (self.peers.clone(), Arc::clone(&gossip));
            tokio::spawn(async move {
                drop(peers.spread(node, &gossip, SPREAD_TIMEOUT).await); // repeated at the next interval
                drop(place);
            });
        }
    }

    /// The best answer of all that come in time.
    fn ask_peers(&self, room: RoomKey, within: Duration) -> BoxFuture<'_, Option<Pin>> {
        Box::pin(async move {
            let asked = self.peers.others().into_iter().map(|node| self.peers.ask(node, room, within));
            let mut answers: FuturesUnordered<_> = asked.collect();
            let mut best: Option<Pin> = None;
            while let Some(answer) = answers.next().await {
                if let Ok(Some(pin)) = answer
                    && best.as_ref().is_none_or(|best| pin.outranks(best))
                {
                    best = Some(pin);
                }
            }
            best
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
            placed.map(|placed| placed.upstream).map_err(|_| RoomRefused)
        })
    }
}
