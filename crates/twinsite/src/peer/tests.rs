//! Who may say what to whom: over real connections, with certificates of one authority.

use super::client::PeerError;
use super::{Local, Peers, serve};
use crate::node::{DrillDesk, Raft};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, SanType};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use twinsite_agents::{
    Brain, Connections, Desk, PIECE_MAX, Peers as _, Piece, RollCall, Supervisor, TellRolls as _,
};
use twinsite_consensus::grpc::{GrpcTransport, PeerTls};
use twinsite_consensus::{Consensus, MemoryDisk, Options, TokioRuntime};
use twinsite_controller::{Release, ReleasedBy, Renewal};
use twinsite_floating_ip::Connection;
use twinsite_model::dial::DialMap;
use twinsite_model::{
    Applied, ClusterSpec, Command, FloatingIpName, Incarnation, NodeId, Profile, Proposal, RoomKey, State,
    Timing, Token, WallTime,
};
use twinsite_sessions::{
    BoxFuture, ClusterView, EmbeddedStore, Gossip, PeersAnswer, ProposeFailed, Proposer, Sessions,
    SessionsOptions, Spread,
};

const WITHIN: Duration = Duration::from_secs(5);

/// An authority for tests.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    /// A new one.
    pub fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn tls(&self, uri: &str) -> PeerTls {
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::URI(uri.try_into().unwrap())];
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap().pem();
        PeerTls::from_pem(self.0.pem().as_bytes(), certificate.as_bytes(), key.serialize_pem().as_bytes())
            .unwrap()
    }

    /// A node's certificate.
    pub fn node(&self, spec: &ClusterSpec, node: NodeId) -> PeerTls {
        self.tls(&crate::identity::node_uri(&spec.cluster, node))
    }
}

struct Nobody(Raft);

impl Proposer for Nobody {
    fn propose(&self, _: Command) -> BoxFuture<'_, Result<Applied, ProposeFailed>> {
        Box::pin(async { Err(ProposeFailed::NoLeader) })
    }

    fn state(&self) -> Arc<State> {
        self.0.state()
    }
}

impl Spread for Nobody {
    fn broadcast(&self, _: Gossip) {}

    fn ask_peers(&self, _: RoomKey, _: Duration) -> BoxFuture<'_, PeersAnswer> {
        Box::pin(async { PeersAnswer { pin: None, complete: true } })
    }
}

/// The first node of a cluster, alone in it and leading, and what the others need to reach it.
struct Served {
    authority: Authority,
    spec: ClusterSpec,
    raft: Raft,
    connections: Connections,
    _stop: tokio_util::sync::DropGuard,
}

impl Served {
    async fn start() -> Self {
        let text = include_str!("../../../../deploy/example/cluster.toml");
        let mut spec = twinsite_model::spec::from_toml(text).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        // Every name leads to the one server there is: whoever is meant, the first node answers.
        let address: SocketAddr = listener.local_addr().unwrap();
        for node in &mut spec.nodes {
            node.peer = address;
        }
        let (authority, me) = (Authority::new(), spec.nodes[0].id);

        let options = Options::new(spec.cluster.clone(), me, Timing::of(Profile::Lan));
        let transport = GrpcTransport::new(spec.cluster.clone(), DialMap::default(), None);
        let disk = Arc::new(MemoryDisk::new(1));
        let raft = Consensus::<TokioRuntime>::start(options, disk, transport).await.unwrap();
        raft.initialize(&[(me, address.to_string())].into()).await.unwrap();
        let mut status = raft.status();
        let leading = status.wait_for(|status| status.is_leader);
        tokio::time::timeout(WITHIN, leading).await.unwrap().unwrap();

        let stop = CancellationToken::new();
        let brain = Brain::start(me, raft.clone(), &Supervisor::new(stop.clone()), stop.clone());
        let peers = Peers::new(me, &spec, authority.node(&spec, me), DialMap::default());
        let store = Arc::new(EmbeddedStore::new(Nobody(raft.clone())));
        let view = tokio::sync::watch::Sender::new(ClusterView::default());
        let sessions = Sessions::start(
            SessionsOptions::new(me),
            store,
            Arc::new(Nobody(raft.clone())),
            view.subscribe(),
        );
        let cluster = spec.cluster.clone();
        let connections = Connections::default();
        let server = Server::builder().tls_config(authority.node(&spec, me).server()).unwrap().add_service(
            serve(Local {
                cluster,
                drills: DrillDesk::new(me, brain.clone(), raft.clone()),
                desk: Desk { me, peers, brain, raft: raft.clone() },
                sessions,
                connections: connections.clone(),
            }),
        );
        let incoming = TcpIncoming::from(listener);
        let stopped = stop.clone().cancelled_owned();
        tokio::spawn(async move { server.serve_with_incoming_shutdown(incoming, stopped).await });
        Self { authority, spec, raft, connections, _stop: stop.drop_guard() }
    }

    fn id(&self, place: usize) -> NodeId {
        self.spec.nodes[place].id
    }

    /// The connections of whoever has this certificate.
    fn peers(&self, certificate: PeerTls) -> Peers {
        Peers::new(self.id(1), &self.spec, certificate, DialMap::default())
    }

    fn peers_of(&self, node: NodeId) -> Peers {
        self.peers(self.authority.node(&self.spec, node))
    }

    async fn agree(&self, command: Command) {
        let by = "test".to_owned();
        let proposal =
            Proposal { at: WallTime::default(), by, request: None, expected_revision: None, command };
        let deadline = tokio::time::Instant::now() + WITHIN;
        while let Err(error) = self.raft.propose(&proposal).await {
            assert!(tokio::time::Instant::now() < deadline, "{error}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

fn is_refused(result: &Result<impl Sized, PeerError>, why: &str) -> bool {
    matches!(result, Err(PeerError::Refused { why: said, .. }) if said.contains(why))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_members_are_heard_and_only_for_themselves() {
    let served = Served::start().await;
    let (first, second, third) = (served.id(0), served.id(1), served.id(2));
    served.peers_of(second).ping(first, WITHIN).await.unwrap();

    let stranger = served.peers_of(NodeId(99)).ping(first, WITHIN).await;
    assert!(is_refused(&stranger, "not in the specification"), "{stranger:?}");
    let foreign = served.peers(served.authority.tls("twinsite://other/node/2")).ping(first, WITHIN).await;
    assert!(is_refused(&foreign, "no node of this cluster"), "{foreign:?}");
    let operator = format!("twinsite://{}/operator/eva", served.spec.cluster);
    let operator = served.peers(served.authority.tls(&operator)).ping(first, WITHIN).await;
    assert!(is_refused(&operator, "no node of this cluster"), "{operator:?}");
    let ip = served.spec.floating_ips[0].name.clone();
    let renewal = Renewal {
        ip: ip.clone(),
        node: third,
        incarnation: Incarnation(1),
        token: Token::new(1, 1),
        seq: 1,
        holding: true,
    };
    let borrowed = served.peers_of(second).renew(first, renewal, WITHIN).await;
    assert!(is_refused(&borrowed, "another node's"), "{:?}", borrowed.err());

    served.peers_of(third).ping(first, WITHIN).await.unwrap();
    served.agree(Command::ApplySpec { spec: Arc::new(served.spec.clone()) }).await;
    served.agree(Command::RetireNode { node: third }).await;
    let retired = served.peers_of(third).ping(first, WITHIN).await;
    assert!(is_refused(&retired, "removed for good"), "{retired:?}");
    // What it lets go is heard all the same: others may wait for it.
    let (incarnation, token) = (Incarnation(1), Token::new(1, 1));
    let release = Release { ip, node: third, incarnation, token, by: ReleasedBy::Holder };
    assert!(served.peers_of(third).release(first, &release, WITHIN).await.unwrap().leads);
    let borrowed = served.peers_of(second).release(first, &release, WITHIN).await;
    assert!(is_refused(&borrowed, "another node's"), "{borrowed:?}");
}

/// The connections of one node, told to another over the real thing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_roll_is_told_as_it_is_and_only_of_addresses_that_there_are() {
    let served = Served::start().await;
    let (first, ip) = (served.id(0), served.spec.floating_ips[0].name.clone());
    let connection = |client: &str, port| Connection::new(client.parse().unwrap(), port);
    let (v4, v6) = (connection("192.0.2.9:50000", 443), connection("[2001:db8::9]:65535", 80));
    let call = |ip: &FloatingIpName, piece| RollCall { ip: ip.clone(), token: Token::new(1, 4), piece };
    let tell = async |by: NodeId, call| served.peers_of(by).tell(first, call, WITHIN).await;

    let all = |connections| Piece::Part { at: 7, number: 0, connections, until: 7, last: true };
    let unknown = tell(served.id(1), call(&ip, all(vec![v4]))).await;
    assert!(is_refused(&unknown, "no such floating IP"), "nothing is agreed yet: {unknown:?}");
    served.agree(Command::ApplySpec { spec: Arc::new(served.spec.clone()) }).await;
    assert_eq!(tell(served.id(1), call(&ip, all(vec![v4, v6]))).await, Ok(7));
    assert_eq!(served.connections.before(&ip, Token::new(1, 5)), [v4, v6]);
    assert_eq!(served.connections.before(&ip, Token::new(1, 4)), []);

    let wrong_sum = Piece::Changes { from: 7, changes: vec![(v4, false)], sum: 1 };
    assert_eq!(tell(served.id(1), call(&ip, wrong_sum)).await, Ok(0), "it must be told anew");
    let borrowed = tell(served.id(2), call(&ip, all(vec![v4]))).await;
    assert!(is_refused(&borrowed, "another node's"), "{borrowed:?}");
    let too_long = tell(served.id(1), call(&ip, all(vec![v4; PIECE_MAX + 1]))).await;
    assert!(is_refused(&too_long, "too long"), "{too_long:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_the_node_that_is_meant_may_answer() {
    let served = Served::start().await;
    let peers = served.peers_of(served.id(1));
    peers.ping(served.id(0), WITHIN).await.unwrap();
    // The same server, reached under another node's address.
    let other = peers.ping(served.id(2), WITHIN).await;
    assert_eq!(other, Err(PeerError::Unreachable(served.id(2))));
    let foreign =
        ClusterSpec { cluster: twinsite_model::ClusterName::new("other").unwrap(), ..served.spec.clone() };
    let certificate = served.authority.node(&served.spec, served.id(1));
    let peers = Peers::new(served.id(1), &foreign, certificate, DialMap::default());
    assert_eq!(peers.ping(served.id(0), WITHIN).await, Err(PeerError::Unreachable(served.id(0))));
}
