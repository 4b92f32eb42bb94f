//! TLS towards clients: certificates by name, tickets that every node of the cluster understands.

mod certificates;
mod examine;
mod keeper;
mod tickets;

pub use examine::{CertificateFinding, examine_certificates};
pub use keeper::{CertificateState, CertificatesState};

use crate::table::RoutingTable;
use crate::tls::certificates::Resolver;
use crate::tls::keeper::Keeper;
use crate::tls::tickets::Tickets;
use rustls::ServerConfig;
use rustls::server::NoServerSessionStorage;
use std::io;
use std::sync::Arc;
use tokio_rustls::TlsAcceptor;

/// HTTP/2, as ALPN names it (RFC 9113 section 3.2).
pub(crate) const HTTP_2: &[u8] = b"h2";
/// What a connection speaks after its handshake, the preferred first.
const PROTOCOLS: [&[u8]; 2] = [HTTP_2, b"http/1.1"];

/// What all cores need to speak TLS.
pub(crate) struct Tls {
    acceptor: TlsAcceptor,
    tickets: Tickets,
    keeper: Keeper,
}

impl Tls {
    /// TLS 1.3 and 1.2, with what rustls takes for safe. Without certificates, until a table names some.
    pub(crate) fn start() -> io::Result<Self> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let (resolver, tickets) = (Arc::new(Resolver::default()), Tickets::default());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider));
        let builder = builder.with_safe_default_protocol_versions().map_err(io::Error::other)?;
        let mut config = builder.with_no_client_auth().with_cert_resolver(Arc::clone(&resolver) as _);
        config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
        // Resumption by tickets alone: what one node kept in its memory, another does not know.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.ticketer = Arc::new(tickets.clone());
        let keeper = Keeper::start(resolver, provider)?;
        Ok(Self { acceptor: TlsAcceptor::from(Arc::new(config)), tickets, keeper })
    }

    pub(crate) fn acceptor(&self) -> &TlsAcceptor {
        &self.acceptor
    }

    /// Does what a table says from now on.
    pub(crate) fn follow(&self, table: &RoutingTable) {
        self.tickets.set(&table.ticket_secrets);
        self.keeper.want(&table.certificates);
    }

    pub(crate) fn certificates(&self) -> Arc<CertificatesState> {
        self.keeper.state()
    }
}
