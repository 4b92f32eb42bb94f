//! What comes before HTTP on a connection: whose it is, if a load balancer made it, and the TLS handshake.

use crate::client_io::ClientIo;
use crate::edge::Edge;
use crate::proxy_protocol::{self, ProxyProtocolError};
use crate::tls::{HTTP_2, Tls};
use rustls::HandshakeKind;
use std::io;
use std::net::SocketAddr;
use twinsite_model::spec::Cidr;

/// A connection on which HTTP can begin.
pub(crate) struct Greeted {
    pub(crate) edge: Edge,
    /// The client, as far as it is known: of the load balancer's own connections, the balancer.
    pub(crate) client: SocketAddr,
    /// Whether HTTP/2 was agreed on.
    pub(crate) is_http2: bool,
}

/// Why it cannot. The connection is closed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GreetingError {
    #[error(transparent)]
    ProxyProtocol(#[from] ProxyProtocolError),
    #[error("no TLS: {0}")]
    Tls(io::Error),
}

/// Reads what load balancers say first, and shakes hands where TLS is spoken.
pub(crate) async fn greet(
    mut io: ClientIo,
    peer: SocketAddr,
    balancers: &[Cidr],
    tls: Option<&Tls>,
) -> Result<Greeted, GreetingError> {
    let mut client = peer;
    if balancers.iter().any(|prefix| prefix.contains(peer.ip().to_canonical())) {
        let named = proxy_protocol::read(&mut io).await.inspect_err(|_| counted("proxy_protocol"))?;
        client = named.unwrap_or(peer);
    }
    let Some(tls) = tls else { return Ok(Greeted { edge: Edge::Left(io), client, is_http2: false }) };
    let stream = tls.acceptor().accept(io).await.map_err(|error| {
        counted("tls");
        GreetingError::Tls(error)
    })?;
    let session = stream.get_ref().1;
    let kind = if session.handshake_kind() == Some(HandshakeKind::Resumed) { "resumed" } else { "full" };
    metrics::counter!("twinsite_tls_handshakes_total", "kind" => kind).increment(1);
    let is_http2 = session.alpn_protocol() == Some(HTTP_2);
    Ok(Greeted { edge: Edge::Right(Box::new(stream)), client, is_http2 })
}

fn counted(what: &'static str) {
    metrics::counter!("twinsite_proxy_greetings_failed_total", "what" => what).increment(1);
}
