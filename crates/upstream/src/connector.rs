//! Makes connections.

use crate::discovery::{Discovered, speaks_http2};
use crate::names::Names;
use crate::stream::Stream;
use crate::target::Target;
use crate::trust::Trust;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;
use twinsite_model::dial::DialMap;
use twinsite_model::spec::UpstreamProtocol;

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Requests and their answers.
    Requests,
    /// A request that becomes something else: always in HTTP/1.1.
    Upgrade,
}

/// What is to be spoken on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spoken {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2.
    Http2,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The name stands for nothing.
    #[error("{host} is not known: {why}")]
    Unresolved {
        /// The name.
        host: String,
        /// What the resolver said.
        why: String,
    },
    /// Nobody takes it.
    #[error("{0}")]
    Refused(#[from] io::Error),
    /// It took too long.
    #[error("not connected within {0:?}")]
    Late(Duration),
    /// There is no trust, or nobody who speaks TLS.
    #[error("TLS: {0}")]
    Tls(String),
}

/// Makes connections, and remembers what it found out.
#[derive(Debug, Default)]
pub struct Connector {
    dial: DialMap,
    names: Names,
    trust: Trust,
    discovered: Discovered,
}

impl Connector {
    /// With translations of addresses.
    pub fn new(dial: DialMap) -> Self {
        Self { dial, ..Self::default() }
    }

    /// Whether HTTP/2 may be spoken there, as far as is known.
    pub fn may_speak_http2(&self, target: &Target) -> bool {
        target.protocol == UpstreamProtocol::H2c && self.discovered.known(&target.address) != Some(false)
    }

    /// What was found out about somebody may not be so any more.
    pub fn doubt(&self, target: &Target) {
        self.names.doubt(&target.address);
        self.discovered.forget(&target.address);
    }

    /// A new connection, everything within `within`, and what is to be spoken on it.
    ///
    /// # Errors
    ///
    /// See [`ConnectError`]. The last one, where there are several addresses.
    pub async fn connect(
        &self,
        target: &Target,
        purpose: Purpose,
        within: Duration,
    ) -> Result<(Stream, Spoken), ConnectError> {
        let connected = timeout(within, self.connect_in_time(target, purpose, within)).await;
        let connected = connected.unwrap_or(Err(ConnectError::Late(within)));
        if connected.is_err() {
            // It may have moved, or become another program.
            self.doubt(target);
        }
        connected
    }

    async fn connect_in_time(
        &self,
        target: &Target,
        purpose: Purpose,
        within: Duration,
    ) -> Result<(Stream, Spoken), ConnectError> {
        let stream = self.reach(target, within).await?;
        match target.protocol {
            UpstreamProtocol::Http => Ok((Stream::Left(stream), Spoken::Http1)),
            UpstreamProtocol::Https => {
                let (config, name) = self.trust.of(target).map_err(ConnectError::Tls)?;
                let shaken = TlsConnector::from(config).connect(name, stream).await;
                let stream = shaken.map_err(|error| ConnectError::Tls(error.to_string()))?;
                Ok((Stream::Right(Box::new(stream)), Spoken::Http1))
            }
            UpstreamProtocol::H2c if purpose == Purpose::Upgrade => Ok((Stream::Left(stream), Spoken::Http1)),
            UpstreamProtocol::H2c => match self.discovered.known(&target.address) {
                Some(speaks) => Ok((Stream::Left(stream), spoken(speaks))),
                None => self.discover(target, stream, within).await,
            },
        }
    }

    /// Asks whether HTTP/2 is spoken at all; the connection that was used for it is given up.
    async fn discover(
        &self,
        target: &Target,
        asked: TcpStream,
        within: Duration,
    ) -> Result<(Stream, Spoken), ConnectError> {
        // The rest of the time is for the connection that is used.
        let said = speaks_http2(asked, within / 2).await?;
        if let Some(speaks) = said
            && self.discovered.note(&target.address, speaks)
            && !speaks
        {
            tracing::warn!(
                upstream = target.address,
                "it is to speak HTTP/2 in clear (`protocol = \"h2c\"`) and does not: HTTP/1.1 is used"
            );
        }
        // Who says nothing is spoken to in HTTP/1.1 this time, and asked again the next.
        Ok((Stream::Left(self.reach(target, within).await?), spoken(said == Some(true))))
    }

    async fn reach(&self, target: &Target, within: Duration) -> Result<TcpStream, ConnectError> {
        let found = self.names.addresses(&target.address).await;
        let addresses =
            found.map_err(|why| ConnectError::Unresolved { host: target.host().to_owned(), why })?;
        first_that_takes(&self.dial, &addresses, within).await
    }
}

/// Connects to the first of the addresses that takes it. None may use up the time of those after it.
async fn first_that_takes(
    dial: &DialMap,
    addresses: &[SocketAddr],
    within: Duration,
) -> Result<TcpStream, ConnectError> {
    let deadline = Instant::now() + within;
    let mut error = ConnectError::Late(within);
    for (tried, address) in addresses.iter().enumerate() {
        let left = u32::try_from(addresses.len() - tried).unwrap_or(u32::MAX);
        let share = deadline.saturating_duration_since(Instant::now()) / left;
        match timeout(share, TcpStream::connect(dial.resolve(*address))).await {
            Ok(Ok(stream)) => {
                drop(stream.set_nodelay(true)); // only a matter of speed
                return Ok(stream);
            }
            Ok(Err(refused)) => error = ConnectError::Refused(refused),
            Err(_) => error = ConnectError::Late(within),
        }
    }
    Err(error)
}

const fn spoken(http2: bool) -> Spoken {
    if http2 { Spoken::Http2 } else { Spoken::Http1 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertifiedKey, generate_simple_self_signed};
    use rustls::ServerConfig;
    use rustls::pki_types::PrivateKeyDer;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio_rustls::TlsAcceptor;
    use twinsite_model::spec::UpstreamTlsSpec;

    const SOON: Duration = Duration::from_secs(10);

    /// A server with a certificate for this name; its certificate as PEM.
    async fn tls_server(name: &str) -> (String, String) {
        let CertifiedKey { cert, signing_key } = generate_simple_self_signed([name.to_owned()]).unwrap();
        let key = PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![cert.der().clone()], key)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                if let Ok(mut stream) = acceptor.accept(stream).await {
                    drop(stream.write_all(b"hello").await);
                    drop(stream.shutdown().await);
                }
            }
        });
        (address, cert.pem())
    }

    fn https(address: &str, tls: UpstreamTlsSpec) -> Target {
        Target { protocol: UpstreamProtocol::Https, tls, ..Target::in_clear(address) }
    }

    #[tokio::test]
    async fn a_certificate_is_verified_unless_that_is_not_wanted() {
        let (address, pem) = tls_server("meet.internal").await;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ca.pem");
        std::fs::write(&path, pem).unwrap();
        let connector = Connector::default();
        let trusting = UpstreamTlsSpec {
            name: Some("meet.internal".to_owned()),
            authorities: Some(path.clone()),
            ..UpstreamTlsSpec::default()
        };
        let other_name = UpstreamTlsSpec { name: Some("other.internal".to_owned()), ..trusting.clone() };
        let by_address = UpstreamTlsSpec { name: None, ..trusting.clone() };
        let anybody = UpstreamTlsSpec { verify: false, ..UpstreamTlsSpec::default() };
        let no_file = UpstreamTlsSpec { authorities: Some("/none.pem".into()), ..trusting.clone() };
        for (tls, works) in
            [(trusting, true), (other_name, false), (by_address, false), (anybody, true), (no_file, false)]
        {
            let connected = connector.connect(&https(&address, tls.clone()), Purpose::Requests, SOON).await;
            match connected {
                Ok((mut stream, Spoken::Http1)) => {
                    assert!(works, "{tls:?}");
                    let mut said = Vec::new();
                    stream.read_to_end(&mut said).await.unwrap();
                    assert_eq!(said, b"hello");
                }
                Err(ConnectError::Tls(_)) => assert!(!works, "{tls:?}"),
                other => panic!("{other:?}"),
            }
        }
    }

    #[tokio::test]
    async fn who_does_not_speak_http_2_is_asked_once_and_spoken_to_in_http_1() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let asked = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&asked);
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let counted = Arc::clone(&counted);
                tokio::spawn(async move {
                    let mut first = [0; 3];
                    if stream.read_exact(&mut first).await.is_ok() && first == *b"PRI" {
                        counted.fetch_add(1, Ordering::Relaxed);
                        drop(stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await);
                    }
                });
            }
        });
        let target = Target { protocol: UpstreamProtocol::H2c, ..Target::in_clear(&*address) };
        let connector = Connector::default();
        for _ in 0..3 {
            let (_, spoken) = connector.connect(&target, Purpose::Requests, SOON).await.unwrap();
            assert_eq!(spoken, Spoken::Http1);
        }
        assert_eq!(asked.load(Ordering::Relaxed), 1);
        let (_, spoken) = connector.connect(&target, Purpose::Upgrade, SOON).await.unwrap();
        assert_eq!(spoken, Spoken::Http1);
    }

    #[tokio::test]
    async fn nobody_there_is_told_at_once() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        drop(listener);
        let connected =
            Connector::default().connect(&Target::in_clear(address), Purpose::Requests, SOON).await;
        assert!(matches!(connected, Err(ConnectError::Refused(_))), "{connected:?}");
    }

    #[tokio::test]
    async fn every_address_of_a_name_is_tried() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let good = listener.local_addr().unwrap();
        // Bound and not listening: refused.
        let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let bad = closed.local_addr().unwrap();
        drop(closed);
        let within = Duration::from_secs(5);
        let stream = first_that_takes(&DialMap::default(), &[bad, good], within).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), good);
        let error = first_that_takes(&DialMap::default(), &[bad, bad], within).await.unwrap_err();
        assert!(matches!(error, ConnectError::Refused(_)), "{error}");
    }

    #[tokio::test]
    async fn a_silent_address_leaves_time_for_the_next() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let good = listener.local_addr().unwrap();
        // A listener whose queue is full answers no more connection attempts.
        let silent = socket_with_full_queue();
        let within = Duration::from_secs(2);
        let begun = Instant::now();
        let stream = first_that_takes(&DialMap::default(), &[silent.address, good], within).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), good);
        assert!(begun.elapsed() >= within / 4, "the first one answered: {:?}", begun.elapsed());
    }

    struct Silent {
        address: SocketAddr,
        _listener: std::net::TcpListener,
        _waiting: Vec<std::net::TcpStream>,
    }

    fn socket_with_full_queue() -> Silent {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = socket.listen(1).unwrap().into_std().unwrap();
        let address = listener.local_addr().unwrap();
        let mut waiting = Vec::new();
        // Each attempt that is still taken is kept; the first that is not shows that the queue is full.
        while let Ok(stream) = std::net::TcpStream::connect_timeout(&address, Duration::from_millis(300)) {
            waiting.push(stream);
            assert!(waiting.len() < 64, "the queue is never full");
        }
        Silent { address, _listener: listener, _waiting: waiting }
    }
}
