//! The calling side.

use super::drill_wire;
use super::pb::{self, node_service_client::NodeServiceClient};
use super::wire::{self, Malformed};
use crate::node::{DrillWish, EndedDrill};
use arc_swap::ArcSwap;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Response, Status};
use twinsite_agents::{Heard, Noted, RollCall, TellRolls};
use twinsite_api::ApiError;
use twinsite_consensus::LogIndex;
use twinsite_consensus::grpc::{PeerIdentity, PeerTls};
use twinsite_controller::{NodeReport, Release, Renewal, RenewalAnswer};
use twinsite_model::dial::DialMap;
use twinsite_model::{Applied, ClusterName, ClusterSpec, NodeId, Proposal, RoomKey, encoding};
use twinsite_sessions::{Gossip, Pin};

/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// How soon a silent connection is probed, and how long the answer may take.
const KEEP_ALIVE: Duration = Duration::from_secs(1);

/// A connection on which nothing came back for so long is made anew: TCP may wait for minutes after a partition. One call
/// that took too long is no reason: many are given up long before an answer could come.
const STALE_AFTER: Duration = Duration::from_millis(500);

/// What travels apart, so that neither waits for the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Lane {
    /// What a lease depends on; pings keep it warm.
    Urgent,
    /// Everything else.
    Ordinary,
}

/// One lane to one node.
#[derive(Default)]
struct Connection {
    channel: Option<Channel>,
    /// Since when calls have gone unanswered.
    unanswered_since: Option<Instant>,
}

/// Why a call to a peer came to nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PeerError {
    /// It is not in the specification.
    #[error("node {0} is not known")]
    Unknown(NodeId),
    /// It did not answer.
    #[error("node {0} does not answer")]
    Unreachable(NodeId),
    /// It answered that it cannot now, or not at all.
    #[error("node {node}: {why}")]
    Refused {
        /// The node.
        node: NodeId,
        /// What it said.
        why: String,
    },
    /// Its answer makes no sense.
    #[error(transparent)]
    Malformed(#[from] Malformed),
}

/// Connections to the other nodes.
#[derive(Clone)]
pub struct Peers(Arc<Inner>);

struct Inner {
    me: NodeId,
    cluster: ClusterName,
    tls: PeerTls,
    dial: DialMap,
    addresses: ArcSwap<BTreeMap<NodeId, SocketAddr>>,
    connections: Mutex<BTreeMap<(NodeId, Lane), Connection>>,
}

impl Peers {
    /// Connections as the specification names them; made when they are needed.
    pub fn new(me: NodeId, spec: &ClusterSpec, tls: PeerTls, dial: DialMap) -> Self {
        let inner = Inner {
            me,
            cluster: spec.cluster.clone(),
            tls,
            dial,
            addresses: ArcSwap::from_pointee(addresses(spec)),
            connections: Mutex::default(),
        };
        Self(Arc::new(inner))
    }

    /// Follows a new specification.
    pub fn update(&self, spec: &ClusterSpec) {
        let new = addresses(spec);
        let old = self.0.addresses.load_full();
        if *old == new {
            return;
        }
        self.connections().retain(|(node, _), _| old.get(node) == new.get(node));
        self.0.addresses.store(Arc::new(new));
    }

    /// Whether a node is in the specification.
    pub fn knows(&self, node: NodeId) -> bool {
        self.0.addresses.load().contains_key(&node)
    }

    /// Has a session command proposed.
    pub async fn propose_session(
        &self,
        to: NodeId,
        proposal: &Proposal,
        within: Duration,
    ) -> Result<Applied, PeerError> {
        let request = pb::ProposeSessionRequest { proposal: encoding::encode_proposal(proposal) };
        let answer = self
            .call(to, Lane::Ordinary, within, async |mut client| client.propose_session(request).await)
            .await?;
        Ok(wire::applied(&proposal.command, answer)?)
    }

    /// Tells a node where rooms are.
    pub async fn spread(&self, to: NodeId, gossip: &Gossip, within: Duration) -> Result<(), PeerError> {
        let request = wire::gossip_to_pb(gossip);
        self.call(to, Lane::Ordinary, within, async |mut client| client.spread_pins(request).await).await?;
        Ok(())
    }

    /// Asks a node where a room is.
    pub async fn ask(&self, to: NodeId, room: RoomKey, within: Duration) -> Result<Option<Pin>, PeerError> {
        let request = pb::AskPinRequest { room: room.0.to_vec() };
        let answer =
            self.call(to, Lane::Ordinary, within, async |mut client| client.ask_pin(request).await).await?;
        Ok(answer.pin.map(wire::pin).transpose()?.map(|update| update.pin))
    }

    /// Has the leader begin a drill that this node runs, or asks whether it would. Zero: it would.
    pub async fn begin_drill(
        &self,
        to: NodeId,
        wish: &DrillWish,
        dry_run: bool,
        within: Duration,
    ) -> Result<Result<u64, ApiError>, PeerError> {
        let request = drill_wire::drill_wish_to_pb(wish, dry_run);
        let answer = self
            .call(to, Lane::Ordinary, within, async |mut client| client.begin_drill(request).await)
            .await?;
        Ok(answer.refused.map_or(Ok(answer.drill), |refused| Err(drill_wire::refused(refused))))
    }

    /// Tells the leader how a drill of this node ended.
    pub async fn end_drill(
        &self,
        to: NodeId,
        ended: &EndedDrill,
        within: Duration,
    ) -> Result<Result<(), ApiError>, PeerError> {
        let request = drill_wire::drill_ended_to_pb(ended);
        let answer =
            self.call(to, Lane::Ordinary, within, async |mut client| client.end_drill(request).await).await?;
        Ok(answer.refused.map_or(Ok(()), |refused| Err(drill_wire::refused(refused))))
    }

    async fn call<R>(
        &self,
        to: NodeId,
        lane: Lane,
        within: Duration,
        call: impl AsyncFnOnce(NodeServiceClient<Channel>) -> Result<Response<R>, Status>,
    ) -> Result<R, PeerError> {
        let client = NodeServiceClient::new(self.channel(to, lane)?);
        let result = match tokio::time::timeout(within, call(client)).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status))
                if matches!(status.code(), Code::Unavailable | Code::Unknown | Code::Cancelled) =>
            {
                Err(PeerError::Unreachable(to))
            }
            Ok(Err(status)) => Err(PeerError::Refused { node: to, why: status.message().to_owned() }),
            Err(_) => return Err(PeerError::Unreachable(to)),
        };
        // An answer, be it that there is nobody: the channel dials anew by itself. Only silence leaves its mark.
        if let Some(connection) = self.connections().get_mut(&(to, lane)) {
            connection.unanswered_since = None;
        }
        result
    }

    fn connections(&self) -> MutexGuard<'_, BTreeMap<(NodeId, Lane), Connection>> {
        self.0.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn channel(&self, to: NodeId, lane: Lane) -> Result<Channel, PeerError> {
        let address = self.0.addresses.load().get(&to).copied().ok_or(PeerError::Unknown(to))?;
        let mut connections = self.connections();
        let connection = connections.entry((to, lane)).or_default();
        if let Some(channel) = connection.take_turn(Instant::now()) {
            return Ok(channel);
        }
        let address = self.0.dial.resolve(address);
        let refused = |why: String| PeerError::Refused { node: to, why };
        let endpoint = Endpoint::from_shared(format!("https://{address}"))
            .map_err(|error| refused(error.to_string()))?
            .tcp_nodelay(true)
            .connect_timeout(CONNECT_TIMEOUT)
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE);
        // Whatever listens at that address: only the node that is meant may answer.
        let expected = PeerIdentity { cluster: self.0.cluster.clone(), node: to };
        let endpoint = self.0.tls.secure(endpoint, expected).map_err(|error| refused(error.to_string()))?;
        let channel = endpoint.connect_lazy();
        connection.channel = Some(channel.clone());
        Ok(channel)
    }
}

impl twinsite_agents::Peers for Peers {
    type Error = PeerError;

    fn others(&self) -> Vec<NodeId> {
        self.0.addresses.load().keys().copied().filter(|node| *node != self.0.me).collect()
    }

    fn everybody(&self) -> Vec<NodeId> {
        self.0.addresses.load().keys().copied().collect()
    }

    async fn report(&self, to: NodeId, report: NodeReport, within: Duration) -> Result<Heard, PeerError> {
        let request = wire::report_to_pb(report);
        let answer =
            self.call(to, Lane::Ordinary, within, async |mut client| client.report(request).await).await?;
        Ok(Heard { leads: answer.leads, has_quorum: answer.has_quorum })
    }

    async fn ping(&self, to: NodeId, within: Duration) -> Result<(), PeerError> {
        self.call(to, Lane::Urgent, within, async |mut client| client.ping(pb::PingRequest {}).await).await?;
        Ok(())
    }

    async fn renew(
        &self,
        to: NodeId,
        renewal: Renewal,
        within: Duration,
    ) -> Result<RenewalAnswer, PeerError> {
        let request = wire::renewal_to_pb(renewal);
        let answer =
            self.call(to, Lane::Urgent, within, async |mut client| client.renew(request).await).await?;
        Ok(wire::answer(answer)?)
    }

    async fn read_index(&self, to: NodeId, within: Duration) -> Result<LogIndex, PeerError> {
        let request = pb::ReadIndexRequest {};
        let answer =
            self.call(to, Lane::Urgent, within, async |mut client| client.read_index(request).await).await?;
        Ok(LogIndex(answer.index))
    }

    async fn release(&self, to: NodeId, release: &Release, within: Duration) -> Result<Noted, PeerError> {
        let request = wire::release_to_pb(release);
        let answer =
            self.call(to, Lane::Urgent, within, async |mut client| client.release(request).await).await?;
        Ok(Noted { leads: answer.leads, current: answer.current.map(wire::token) })
    }
}

impl TellRolls for Peers {
    type Error = PeerError;

    async fn tell(&self, to: NodeId, call: RollCall, within: Duration) -> Result<u64, PeerError> {
        let request = wire::roll_call_to_pb(call);
        let answer =
            self.call(to, Lane::Ordinary, within, async |mut client| client.call_roll(request).await).await?;
        Ok(answer.has)
    }
}

impl Connection {
    /// The channel to use, if there is one to go on with. A caller that gives up leaves `unanswered_since` behind.
    fn take_turn(&mut self, now: Instant) -> Option<Channel> {
        let since = *self.unanswered_since.get_or_insert(now);
        if now - since > STALE_AFTER {
            self.channel = None;
            self.unanswered_since = Some(now);
        }
        self.channel.clone()
    }
}

fn addresses(spec: &ClusterSpec) -> BTreeMap<NodeId, SocketAddr> {
    spec.nodes.iter().map(|node| (node.id, node.peer)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_silence_makes_a_connection_anew() {
        let channel = Endpoint::from_static("http://127.0.0.1:1").connect_lazy();
        let mut connection = Connection { channel: Some(channel), unanswered_since: None };
        let began = Instant::now();
        for millis in [0, 20, 100, 500] {
            let at = began + Duration::from_millis(millis);
            assert!(connection.take_turn(at).is_some(), "calls given up early say nothing: {millis} ms");
        }
        connection.unanswered_since = None; // one of them was answered
        let later = began + Duration::from_secs(3_600);
        assert!(connection.take_turn(later).is_some(), "nobody asked anything meanwhile");
        assert!(connection.take_turn(later + STALE_AFTER).is_some());
        assert!(connection.take_turn(later + STALE_AFTER + Duration::from_millis(1)).is_none());
    }
}
