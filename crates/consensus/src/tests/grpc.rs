//! The real transport: certificates, sizes, reconnection, and a whole cluster over it.

use super::harness::{DEADLINE, Node, cluster_name, has, options, proposal, remembers, wait_for};
use super::storage::identity;
use crate::grpc::{GrpcTransport, PeerCheck, PeerIdentity, PeerTls, service};
use crate::pb::{self, raft_service_client::RaftServiceClient};
use crate::{Destination, Lane, MemoryDisk, Options, RedbDisk, Transport, TransportError};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, SanType};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Server};
use twinsite_model::dial::{DialMap, DialRule};
use twinsite_model::{ClusterName, NodeId};

/// An authority for tests.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        Self { issuer }
    }

    fn tls(&self, uri: &str) -> PeerTls {
        let (certificate, key) = self.certificate(uri);
        PeerTls::from_pem(self.issuer.pem().as_bytes(), certificate.as_bytes(), key.as_bytes()).unwrap()
    }

    fn node(&self, node: u64) -> PeerTls {
        self.tls(&PeerIdentity { cluster: cluster_name(), node: NodeId(node) }.to_string())
    }

    fn certificate(&self, uri: &str) -> (String, String) {
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::URI(uri.try_into().unwrap())];
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (certificate.pem(), key.serialize_pem())
    }
}

/// A node with a server of its own.
struct Served {
    node: Node,
    address: SocketAddr,
    stop: CancellationToken,
    server: tokio::task::JoinHandle<()>,
}

impl Served {
    async fn start(
        options: Options,
        disk: Arc<dyn crate::Disk>,
        tls: PeerTls,
        listener: TcpListener,
    ) -> Self {
        let transport = GrpcTransport::new(cluster_name(), DialMap::default(), Some(tls.clone()));
        let node = Node::start(options, disk, transport).await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let server = Server::builder()
            .tcp_nodelay(true)
            .tls_config(tls.server())
            .unwrap()
            .add_service(service(node.inbound(), PeerCheck::Certificate(cluster_name())))
            .serve_with_incoming_shutdown(TcpListenerStream::new(listener), stop.clone().cancelled_owned());
        let server = tokio::spawn(async move {
            let _ = server.await;
        });
        wait_for(&node, "taking part", |status| status.started).await;
        Self { node, address, stop, server }
    }

    async fn end(self) {
        self.node.shutdown().await;
        self.stop.cancel();
        self.server.abort();
        let _ = self.server.await;
    }
}

async fn listener() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.unwrap()
}

fn small_log(node: u64) -> Options {
    Options { snapshot_after: 50, keep_after_snapshot: 5, ..options(node) }
}

async fn cluster(authority: &Authority, directories: &[TempDir]) -> BTreeMap<u64, Served> {
    let mut nodes = BTreeMap::new();
    for (node, directory) in (1..).zip(directories) {
        let disk = Arc::new(RedbDisk::open(directory.path(), &identity(node)).unwrap());
        let served = Served::start(small_log(node), disk, authority.node(node), listener().await).await;
        nodes.insert(node, served);
    }
    let members = nodes.iter().map(|(node, served)| (NodeId(*node), served.address.to_string())).collect();
    nodes[&1].node.initialize(&members).await.unwrap();
    nodes
}

async fn leader(nodes: &BTreeMap<u64, Served>) -> Node {
    let looking = async {
        loop {
            for served in nodes.values() {
                if served.node.read_index().await.is_ok() {
                    return served.node.clone();
                }
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(DEADLINE, looking).await.expect("no leader in time")
}

async fn propose(nodes: &BTreeMap<u64, Served>, request: &str) {
    let trying = async { while leader(nodes).await.propose(&proposal(request)).await.is_err() {} };
    tokio::time::timeout(DEADLINE, trying).await.expect("no commit in time");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_over_mutual_tls_and_real_disks_survives_its_nodes() {
    let authority = Authority::new();
    let directories = [TempDir::new().unwrap(), TempDir::new().unwrap(), TempDir::new().unwrap()];
    let mut nodes = cluster(&authority, &directories).await;
    propose(&nodes, "first").await;

    let dead = leader(&nodes).await.node().0;
    let address = nodes[&dead].address;
    nodes.remove(&dead).unwrap().end().await;
    for request in 0..150 {
        propose(&nodes, &format!("r{request}")).await;
    }
    let now = leader(&nodes).await;
    wait_for(&now, "a purged log", |status| status.purged.is_some()).await;

    // Back on the same disk and address; it has missed so much that it needs the snapshot, in several pieces or one.
    let listener = TcpListener::bind(address).await.unwrap();
    let disk = Arc::new(RedbDisk::open(directories[dead as usize - 1].path(), &identity(dead)).unwrap());
    let back = Served::start(small_log(dead), disk, authority.node(dead), listener).await;
    assert!(remembers(&back.node, "first"));
    has(&back.node, "r149").await;
    assert!(back.node.status().borrow().snapshot.is_some());
    nodes.insert(dead, back);

    for served in std::mem::take(&mut nodes).into_values() {
        served.end().await;
    }
}

async fn one(authority: &Authority) -> Served {
    Served::start(options(1), Arc::new(MemoryDisk::new(1)), authority.node(1), listener().await).await
}

fn message(from: u64, to: u64) -> pb::ExchangeRequest {
    pb::ExchangeRequest {
        header: Some(pb::Header { cluster: "test".into(), protocol: 1, generation: 1, from, to, disk: from }),
        body: Some(pb::exchange_request::Body::PreVote(pb::Ballot {
            vote: Some(pb::Vote { term: 1, node: from, committed: false }),
            last: None,
            transfer: false,
        })),
    }
}

async fn ask(
    tls: Option<PeerTls>,
    to: u64,
    address: SocketAddr,
    message: pb::ExchangeRequest,
) -> Result<pb::ExchangeResponse, TransportError> {
    let transport = GrpcTransport::new(cluster_name(), DialMap::default(), tls);
    let to = Destination { node: NodeId(to), address: address.to_string() };
    transport.exchange(&to, Lane::Urgent, message, DEADLINE).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_must_prove_cluster_and_node() {
    let authority = Authority::new();
    let served = one(&authority).await;
    let address = served.address;
    assert!(ask(Some(authority.node(2)), 1, address, message(2, 1)).await.is_ok());

    let refused = |result: Result<_, TransportError>| match result {
        Err(TransportError::Refused(why)) => why,
        other => panic!("{other:?}"),
    };
    let why = refused(ask(Some(authority.node(3)), 1, address, message(2, 1)).await);
    assert!(why.contains("does not belong to node 2"), "{why}");
    let other_cluster = authority.tls("twinsite://other/node/2");
    refused(ask(Some(other_cluster), 1, address, message(2, 1)).await);
    refused(ask(Some(authority.tls("twinsite://test/operator/eva")), 1, address, message(2, 1)).await);

    let unreachable = |result: Result<_, TransportError>| {
        assert!(matches!(result, Err(TransportError::Unreachable(_))), "{result:?}");
    };
    // No certificate, and one of an authority that this cluster does not know.
    unreachable(ask(None, 1, address, message(2, 1)).await);
    unreachable(ask(Some(Authority::new().node(2)), 1, address, message(2, 1)).await);
    // The dialler is as strict: whoever answers at the address must be the node that was meant.
    unreachable(ask(Some(authority.node(2)), 3, address, message(2, 3)).await);

    let in_tls_without_certificate = tonic::transport::Endpoint::from_shared(format!("https://{address}"))
        .unwrap()
        .tls_config(
            tonic::transport::ClientTlsConfig::new()
                .ca_certificate(tonic::transport::Certificate::from_pem(authority.issuer.pem())),
        )
        .unwrap();
    let channel: Channel = in_tls_without_certificate.connect_lazy();
    assert!(RaftServiceClient::new(channel).exchange(message(2, 1)).await.is_err());
    served.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_wrong_cluster_is_refused_even_with_the_right_certificate() {
    let authority = Authority::new();
    let served = one(&authority).await;
    let mut wrong = message(2, 1);
    wrong.header.as_mut().unwrap().cluster = "other".into();
    let refused = ask(Some(authority.node(2)), 1, served.address, wrong).await;
    assert!(
        matches!(&refused, Err(TransportError::Refused(why)) if why.contains("another cluster")),
        "{refused:?}"
    );
    served.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_oversized_message_is_refused() {
    let authority = Authority::new();
    let served = one(&authority).await;
    let mut large = message(2, 1);
    let entry = pb::Entry {
        id: Some(pb::LogId { term: 1, index: 1 }),
        payload: Some(pb::entry::Payload::Command(vec![0; 5 << 20].into())),
    };
    large.body = Some(pb::exchange_request::Body::Append(pb::Append {
        vote: Some(pb::Vote { term: 1, node: 2, committed: true }),
        entries: vec![entry],
        ..pb::Append::default()
    }));
    let refused = ask(Some(authority.node(2)), 1, served.address, large).await;
    assert!(refused.is_err());
    assert!(ask(Some(authority.node(2)), 1, served.address, message(2, 1)).await.is_ok());
    served.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_dial_goes_through_the_dial_map() {
    let authority = Authority::new();
    let served = one(&authority).await;
    let agreed = SocketAddr::new("10.20.30.40".parse().unwrap(), served.address.port());
    let rule = DialRule { prefix: "10.20.30.40/32".parse().unwrap(), via: "127.0.0.1/32".parse().unwrap() };
    let transport = GrpcTransport::new(cluster_name(), DialMap(vec![rule]), Some(authority.node(2)));
    let to = Destination { node: NodeId(1), address: agreed.to_string() };
    assert!(transport.exchange(&to, Lane::Urgent, message(2, 1), DEADLINE).await.is_ok());
    served.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_is_made_again_with_pauses_and_silence_is_not_waited_for() {
    let authority = Authority::new();
    // Nobody accepts here, but the kernel does: a peer that hangs.
    let silent = listener().await;
    let transport = GrpcTransport::new(cluster_name(), DialMap::default(), Some(authority.node(2)));
    let to = Destination { node: NodeId(1), address: silent.local_addr().unwrap().to_string() };
    let began = Instant::now();
    let ttl = Duration::from_millis(100);
    let answer = tokio::time::timeout(ttl, transport.exchange(&to, Lane::Urgent, message(2, 1), ttl)).await;
    assert!(answer.is_err() || answer.unwrap().is_err());
    assert!(began.elapsed() < Duration::from_secs(2));

    let address = silent.local_addr().unwrap();
    drop(silent);
    let mut refused = 0;
    let listener = loop {
        let answer = transport.exchange(&to, Lane::Urgent, message(2, 1), ttl).await;
        refused += u32::from(matches!(answer, Err(TransportError::Unreachable(_))));
        if refused > 20 {
            break TcpListener::bind(address).await.unwrap();
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    };
    let served = Served::start(options(1), Arc::new(MemoryDisk::new(1)), authority.node(1), listener).await;
    let reconnecting = async {
        while transport.exchange(&to, Lane::Urgent, message(2, 1), DEADLINE).await.is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(DEADLINE, reconnecting).await.expect("no connection in time");
    served.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn snapshots_travel_in_bounded_checked_pieces() {
    let authority = Authority::new();
    let served = one(&authority).await;
    let transport = GrpcTransport::new(cluster_name(), DialMap::default(), Some(authority.node(2)));
    let to = Destination { node: NodeId(1), address: served.address.to_string() };
    let content: bytes::Bytes = vec![7_u8; 3_000_000].into();
    let snapshot = |crc: u32| crate::SnapshotTransfer {
        opening: pb::SnapshotOpening {
            header: message(2, 1).header,
            vote: Some(pb::Vote { term: 1, node: 2, committed: true }),
            snapshot: Some(pb::SnapshotHeader {
                last: Some(pb::LogId { term: 1, index: 9 }),
                membership: Some(pb::StoredMembership {
                    id: None,
                    membership: Some(pb::Membership::default()),
                }),
                length: content.len() as u64,
                crc,
            }),
        },
        content: content.clone(),
    };
    // All pieces arrive and the whole is compared; what it decodes to is another matter, see `traps`.
    let wrong = transport.install_snapshot(&to, snapshot(1), DEADLINE).await;
    assert!(matches!(&wrong, Err(TransportError::Refused(why)) if why.contains("malformed")), "{wrong:?}");
    let undecodable = transport.install_snapshot(&to, snapshot(crc32c::crc32c(&content)), DEADLINE).await;
    assert!(undecodable.is_err());
    let reason = served.node.stopped().await;
    assert!(reason.to_string().contains("snapshot"), "{reason}");
    served.end().await;
}

/// Not a limit, a measurement: `TWINSITE_MEASURE=1 cargo nextest run -p twinsite-consensus measure --no-capture`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn measure_the_latency_of_a_proposal() {
    let rounds = if std::env::var_os("TWINSITE_MEASURE").is_some() { 2_000 } else { 50 };
    let authority = Authority::new();
    let directories = [TempDir::new().unwrap(), TempDir::new().unwrap(), TempDir::new().unwrap()];
    let nodes = cluster(&authority, &directories).await;
    propose(&nodes, "warm").await;
    let leader = leader(&nodes).await;
    let mut times = Vec::new();
    for round in 0..rounds {
        let began = Instant::now();
        if leader.propose(&proposal(&format!("m{round}"))).await.is_ok() {
            times.push(began.elapsed());
        }
    }
    times.sort();
    assert!(times.len() > rounds / 2, "the leader changed");
    let (p50, p99) = (times[times.len() / 2], times[times.len() * 99 / 100]);
    println!("propose over TLS with fsync, 3 nodes on one disk: p50 {p50:?} p99 {p99:?} of {}", times.len());
    assert!(p50 < Duration::from_secs(1), "{p50:?}");
    for served in nodes.into_values() {
        served.end().await;
    }
}

#[test]
fn key_material_that_makes_no_sense_is_refused() {
    let authority = Authority::new();
    let (certificate, key) = authority.certificate("twinsite://test/node/1");
    assert!(PeerTls::from_pem(b"", certificate.as_bytes(), key.as_bytes()).is_err());
    let identity = PeerIdentity { cluster: ClusterName::new("test").unwrap(), node: NodeId(1) };
    let der = <rustls_pki_types::CertificateDer<'_> as rustls_pki_types::pem::PemObject>::from_pem_slice(
        certificate.as_bytes(),
    );
    assert_eq!(PeerIdentity::from_certificate(&der.unwrap()), Ok(identity));
}
