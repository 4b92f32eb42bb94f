//! TLS towards clients.

use crate::bench::{Bench, SOON, until, upstream};
use futures_util::{SinkExt, StreamExt};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, HandshakeKind, RootCertStore, SupportedProtocolVersion};
use std::collections::VecDeque;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::tungstenite::protocol::Message;
use twinsite_model::spec::CertificateSpec;
use twinsite_model::{TicketKey, TicketSecret, WallTime};
use twinsite_proxy::Closing;

pub(crate) const HOST: &str = "meet.example.org";

/// A certificate for one name, in files that a proxy reads.
pub(crate) struct Certificate {
    folder: TempDir,
    name: &'static str,
    der: CertificateDer<'static>,
}

impl Certificate {
    pub(crate) fn new(name: &'static str, host: &str) -> Self {
        let mut made = Self { folder: TempDir::new().unwrap(), name, der: CertificateDer::from(Vec::new()) };
        made.renew(host);
        made
    }

    /// Writes another one in its place.
    pub(crate) fn renew(&mut self, host: &str) {
        let CertifiedKey { cert, signing_key } = generate_simple_self_signed([host.to_owned()]).unwrap();
        let spec = self.spec();
        fs::write(&spec.key, signing_key.serialize_pem()).unwrap();
        fs::write(&spec.chain, cert.pem()).unwrap();
        self.der = cert.der().clone();
    }

    pub(crate) fn spec(&self) -> CertificateSpec {
        let path = |ending: &str| self.folder.path().join(ending);
        CertificateSpec { name: self.name.parse().unwrap(), chain: path("pem"), key: path("key") }
    }

    /// What trusts it alone, and speaks this, in the newest version.
    pub(crate) fn trusted(&self, protocols: &[&[u8]]) -> Arc<ClientConfig> {
        let mut config = self.client(rustls::DEFAULT_VERSIONS);
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        Arc::new(config)
    }

    /// What trusts it alone, in one version of TLS.
    fn trusted_in(&self, version: &'static SupportedProtocolVersion) -> Arc<ClientConfig> {
        Arc::new(self.client(&[version]))
    }

    fn client(&self, versions: &[&'static SupportedProtocolVersion]) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(self.der.clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(versions).unwrap();
        builder.with_root_certificates(roots).with_no_client_auth()
    }
}

impl Bench {
    /// Speaks TLS at the floating address from here on.
    pub(crate) async fn speak_tls(&mut self, certificates: &[&Certificate]) {
        let port = self.floating.port();
        let specs: Vec<_> = certificates.iter().map(|certificate| certificate.spec()).collect();
        let count = specs.len();
        self.change(|spec, _| {
            (spec.certificates, spec.floating_ips[0].tls_ports) = (specs, vec![port]);
        });
        let proxy = self.proxy.clone();
        until("certificates", || {
            let state = proxy.certificates();
            state.certificates.len() == count && state.is_complete()
        })
        .await;
    }
}

pub(crate) async fn shake_hands(
    to: SocketAddr,
    config: &Arc<ClientConfig>,
    host: &'static str,
) -> io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(to).await?;
    let name = ServerName::try_from(host).unwrap();
    timeout(SOON, TlsConnector::from(Arc::clone(config)).connect(name, stream)).await.unwrap()
}

async fn exchange(stream: &mut TlsStream<TcpStream>, path: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    timeout(SOON, stream.read_to_end(&mut answer)).await.unwrap().unwrap();
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn requests_and_websockets_come_by_tls() {
    let certificate = Certificate::new("meet", HOST);
    let mut bench = Bench::new(&[("one", upstream("one").await)]).await;
    bench.speak_tls(&[&certificate]).await;
    let config = certificate.trusted(&[b"http/1.1"]);

    for version in [&rustls::version::TLS13, &rustls::version::TLS12] {
        let config = certificate.trusted_in(version);
        let mut stream = shake_hands(bench.floating, &config, HOST).await.unwrap();
        assert_eq!(stream.get_ref().1.protocol_version(), Some(version.version));
        let answer = exchange(&mut stream, "/web/").await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        assert!(answer.contains("x-forwarded-proto: https\r\n"), "{answer}");
    }

    let stream = shake_hands(bench.floating, &config, HOST).await.unwrap();
    let url = format!("wss://{HOST}/rooms/?roomId=a");
    let (mut socket, _) = timeout(SOON, tokio_tungstenite::client_async(url, stream)).await.unwrap().unwrap();
    assert_eq!(socket.next().await.unwrap().unwrap().into_text().unwrap().as_str(), "one");
    // More than any buffer on the way holds: what TLS has not yet written must not be forgotten.
    let long = "x".repeat(3_000_000);
    socket.send(Message::text(long.clone())).await.unwrap();
    let echo = timeout(SOON, socket.next()).await.unwrap().unwrap().unwrap();
    assert!(echo.into_text().unwrap().as_str() == long);

    bench.proxy.close_floating(&crate::bench::public(), Closing::Planned, SOON).await;
    let close = timeout(SOON, socket.next()).await.unwrap().unwrap().unwrap();
    assert!(matches!(&close, Message::Close(Some(frame)) if u16::from(frame.code) == 1012), "{close:?}");
}

#[tokio::test]
async fn each_name_is_given_its_certificate() {
    let (one, two) = (Certificate::new("one", "one.example"), Certificate::new("two", "two.example"));
    let mut bench = Bench::new(&[("one", upstream("one").await)]).await;
    bench.speak_tls(&[&one, &two]).await;
    let (trusts_one, trusts_two) = (one.trusted(&[]), two.trusted(&[]));
    assert!(shake_hands(bench.floating, &trusts_one, "one.example").await.is_ok());
    assert!(shake_hands(bench.floating, &trusts_two, "two.example").await.is_ok());
    assert!(
        shake_hands(bench.floating, &trusts_two, "one.example").await.is_err(),
        "the certificate of another"
    );
}

#[tokio::test]
async fn a_new_certificate_is_given_to_new_connections_and_ends_none() {
    let mut certificate = Certificate::new("meet", HOST);
    let mut bench = Bench::new(&[("one", upstream("one").await)]).await;
    bench.speak_tls(&[&certificate]).await;
    let stream = shake_hands(bench.floating, &certificate.trusted(&[]), HOST).await.unwrap();
    let url = format!("wss://{HOST}/rooms/?roomId=a");
    let (mut socket, _) = timeout(SOON, tokio_tungstenite::client_async(url, stream)).await.unwrap().unwrap();
    assert!(socket.next().await.unwrap().is_ok());

    certificate.renew(HOST);
    let trusted = certificate.trusted(&[]);
    let deadline = tokio::time::Instant::now() + SOON;
    while shake_hands(bench.floating, &trusted, HOST).await.is_err() {
        assert!(tokio::time::Instant::now() < deadline, "the new one is not given");
        socket.send(Message::text("still there?")).await.unwrap();
        assert!(timeout(SOON, socket.next()).await.unwrap().unwrap().unwrap().is_text());
    }
    socket.send(Message::text("and now?")).await.unwrap();
    assert!(timeout(SOON, socket.next()).await.unwrap().unwrap().unwrap().is_text());
}

/// A failover: the client comes back to another node.
#[tokio::test]
async fn a_session_is_resumed_with_another_node() {
    let certificate = Certificate::new("meet", HOST);
    let keys = |bytes: &[u8]| -> VecDeque<TicketKey> {
        let key = |byte: &u8| TicketKey { secret: TicketSecret::new([*byte; 32]), since: WallTime(0) };
        bytes.iter().map(key).collect()
    };
    let mut nodes = Vec::new();
    for bytes in [&[1, 2][..], &[2, 3], &[3, 4]] {
        let mut bench = Bench::new(&[("one", upstream("one").await)]).await;
        bench.change(|_, state| state.ticket_keys = keys(bytes));
        bench.speak_tls(&[&certificate]).await;
        nodes.push(bench);
    }
    let config = certificate.trusted(&[]);
    let mut kinds = Vec::new();
    // With the first anew, then with the second by the ticket of the first, then with the third by that of the second.
    for node in [0, 1, 2, 0] {
        let mut stream = shake_hands(nodes[node].floating, &config, HOST).await.unwrap();
        kinds.push(stream.get_ref().1.handshake_kind().unwrap());
        exchange(&mut stream, "/web/").await; // tickets come after the handshake
    }
    let full = |kind: &HandshakeKind| *kind != HandshakeKind::Resumed;
    let was_full: Vec<_> = kinds.iter().map(full).collect();
    // The first does not know the key that the third makes tickets with.
    assert_eq!(was_full, [true, false, false, true], "{kinds:?}");
}

#[tokio::test]
async fn without_the_right_to_answer_tls_says_nothing_either() {
    let certificate = Certificate::new("meet", HOST);
    let mut bench = Bench::new(&[("one", upstream("one").await)]).await;
    bench.speak_tls(&[&certificate]).await;
    let config = certificate.trusted(&[]);
    let mut stream = shake_hands(bench.floating, &config, HOST).await.unwrap();
    bench.authority.holds.store(false, Ordering::Relaxed);
    let request = format!("GET /web/ HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let ended = timeout(SOON, stream.read_to_end(&mut answer)).await.unwrap();
    assert!(ended.is_err() && answer.is_empty(), "{ended:?}");
    assert!(shake_hands(bench.floating, &config, HOST).await.is_err());
}

#[tokio::test]
async fn who_does_not_shake_hands_is_let_go() {
    let certificate = Certificate::new("meet", HOST);
    let mut bench = Bench::new(&[("one", upstream("one").await)]).await;
    bench.speak_tls(&[&certificate]).await;
    for said in [&b""[..], b"\x16\x03\x01", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"] {
        let mut stream = TcpStream::connect(bench.floating).await.unwrap();
        stream.write_all(said).await.unwrap();
        let mut answer = Vec::new();
        drop(timeout(SOON, stream.read_to_end(&mut answer)).await.unwrap());
        assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
    }
    until("its places are free again", || bench.proxy.load().connections == 0).await;
}
