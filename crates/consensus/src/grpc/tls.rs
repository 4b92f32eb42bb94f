//! Mutual TLS between peers.

use super::identity::PeerIdentity;
use rustls::RootCertStore;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{WebPkiSupportedAlgorithms, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use std::sync::Arc;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity, ServerTlsConfig};

/// Why key material cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TlsError {
    /// The authority's certificate cannot be read.
    #[error("the authority's certificate cannot be read: {0}")]
    Authority(String),
    /// A connection cannot be prepared with it.
    #[error("the certificate or key cannot be used: {0}")]
    Own(String),
}

/// A node's own certificate and the authority that all nodes trust.
#[derive(Clone)]
pub struct PeerTls {
    authority: Certificate,
    roots: Arc<RootCertStore>,
    own: Identity,
}

impl PeerTls {
    /// From PEM: the authority's certificate, this node's certificate (chain) and its key.
    pub fn from_pem(authority: &[u8], certificate: &[u8], key: &[u8]) -> Result<Self, TlsError> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(authority) {
            let certificate = certificate.map_err(|error| TlsError::Authority(error.to_string()))?;
            roots.add(certificate).map_err(|error| TlsError::Authority(error.to_string()))?;
        }
        if roots.is_empty() {
            return Err(TlsError::Authority("there is none".to_owned()));
        }
        Ok(Self {
            authority: Certificate::from_pem(authority),
            roots: Arc::new(roots),
            own: Identity::from_pem(certificate, key),
        })
    }

    /// For the server that offers [`super::service`]: clients must show a certificate of the same authority.
    pub fn server(&self) -> ServerTlsConfig {
        ServerTlsConfig::new().identity(self.own.clone()).client_ca_root(self.authority.clone())
    }

    /// For a connection to a peer: its certificate must be of the same authority and name exactly that peer. Its
    /// address plays no part, because addresses are translated and change.
    pub fn secure(&self, endpoint: Endpoint, expected: PeerIdentity) -> Result<Endpoint, TlsError> {
        let verifier = PeerVerifier {
            roots: Arc::clone(&self.roots),
            algorithms: ring::default_provider().signature_verification_algorithms,
            expected,
        };
        let config = ClientTlsConfig::new().identity(self.own.clone()).domain_name("peer.twinsite.invalid");
        endpoint
            .tls_config_with_verifier(config, Arc::new(verifier))
            .map_err(|error| TlsError::Own(error.to_string()))
    }
}

#[derive(Debug)]
struct PeerVerifier {
    roots: Arc<RootCertStore>,
    algorithms: WebPkiSupportedAlgorithms,
    expected: PeerIdentity,
}

impl ServerCertVerifier for PeerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let parsed = ParsedCertificate::try_from(end_entity)?;
        verify_server_cert_signed_by_trust_anchor(
            &parsed,
            &self.roots,
            intermediates,
            now,
            self.algorithms.all,
        )?;
        if PeerIdentity::from_certificate(end_entity).as_ref() == Ok(&self.expected) {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(CertificateError::NotValidForName.into())
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
