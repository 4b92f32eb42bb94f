//! Who this node is to others, by its certificate. Every channel between nodes, and of the API, is mutual TLS.

use crate::config::TlsConfig;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tonic::transport::{Certificate, Identity, ServerTlsConfig};
use twinsite_api::{ApiError, Reason};
use twinsite_consensus::grpc::{PeerTls, TlsError};
use twinsite_model::{ClusterName, NodeId};

/// How long a TLS handshake may take: whoever connects and says nothing holds a descriptor.
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(5);

/// The certificates of one process.
#[derive(Clone)]
pub struct Credentials {
    ca: Vec<u8>,
    cert: Vec<u8>,
    key: Vec<u8>,
}

/// Why the certificates cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A file cannot be read.
    #[error("{}: {source}; check tls.ca, tls.cert and tls.key", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file holds no usable certificate or key.
    #[error("{}: {problem}", path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// What is wrong, and what to do.
        problem: String,
    },
    /// The certificate is somebody else's.
    #[error("{}: the certificate belongs to {found}, this node is {expected}; give it its own certificate", path.display())]
    Other {
        /// The file.
        path: PathBuf,
        /// What the certificate says.
        found: String,
        /// What it should say.
        expected: String,
    },
}

/// The URI name in a node's certificate.
pub fn node_uri(cluster: &ClusterName, node: NodeId) -> String {
    format!("twinsite://{cluster}/node/{node}")
}

/// The DNS name under which every node of a cluster can be verified, whatever address it was reached at.
pub fn server_name(cluster: &ClusterName) -> String {
    format!("{cluster}.twinsite.internal")
}

impl Credentials {
    /// Reads the three files.
    pub fn load(tls: &TlsConfig) -> Result<Self, IdentityError> {
        let read = |path: &Path| {
            fs::read(path).map_err(|source| IdentityError::Read { path: path.to_owned(), source })
        };
        let this = Self { ca: read(&tls.ca)?, cert: read(&tls.cert)?, key: read(&tls.key)? };
        for (path, pem) in [(&tls.ca, &this.ca), (&tls.cert, &this.cert)] {
            first_certificate(path, pem)?;
        }
        if rustls_pki_types::PrivateKeyDer::from_pem_slice(&this.key).is_err() {
            let problem = "there is no private key in this PEM file".to_owned();
            return Err(IdentityError::Unusable { path: tls.key.clone(), problem });
        }
        Ok(this)
    }

    /// Checks that the certificate is this node's.
    pub fn check_node(&self, path: &Path, cluster: &ClusterName, node: NodeId) -> Result<(), IdentityError> {
        let names = uri_names(&first_certificate(path, &self.cert)?);
        let expected = node_uri(cluster, node);
        if names.contains(&expected) {
            Ok(())
        } else {
            let found = if names.is_empty() { "nobody (no URI name)".to_owned() } else { names.join(", ") };
            Err(IdentityError::Other { path: path.to_owned(), found, expected })
        }
    }

    /// The authority's certificate, PEM.
    pub fn ca(&self) -> &[u8] {
        &self.ca
    }

    /// This process's certificate, PEM.
    pub fn cert(&self) -> &[u8] {
        &self.cert
    }

    /// Its private key, PEM.
    pub fn key(&self) -> &[u8] {
        &self.key
    }

    /// For servers: only peers with a certificate of the same authority get in.
    pub fn server(&self) -> ServerTlsConfig {
        ServerTlsConfig::new()
            .identity(Identity::from_pem(&self.cert, &self.key))
            .client_ca_root(Certificate::from_pem(&self.ca))
            .timeout(HANDSHAKE_WITHIN)
    }

    /// For connections to one node each, whose certificate must name it.
    pub fn peer_tls(&self) -> Result<PeerTls, TlsError> {
        PeerTls::from_pem(&self.ca, &self.cert, &self.key)
    }
}

fn first_certificate(path: &Path, pem: &[u8]) -> Result<CertificateDer<'static>, IdentityError> {
    CertificateDer::from_pem_slice(pem).map_err(|_| IdentityError::Unusable {
        path: path.to_owned(),
        problem: "there is no certificate in this PEM file".to_owned(),
    })
}

/// The URI names of a certificate.
pub fn uri_names(certificate: &CertificateDer<'_>) -> Vec<String> {
    use x509_parser::extensions::GeneralName;
    use x509_parser::prelude::{FromDer, X509Certificate};
    let Ok((_, parsed)) = X509Certificate::from_der(certificate) else { return Vec::new() };
    let Ok(Some(names)) = parsed.subject_alternative_name() else { return Vec::new() };
    let uris = names.value.general_names.iter().filter_map(|name| match name {
        GeneralName::URI(uri) => Some((*uri).to_owned()),
        _ => None,
    });
    uris.collect()
}

/// The name of whoever calls the public API: a node or an operator of this cluster, by the certificate.
pub fn caller(cluster: &ClusterName, certificates: &[CertificateDer<'_>]) -> Result<String, ApiError> {
    let names = certificates.first().map(uri_names).unwrap_or_default();
    let prefix = format!("twinsite://{cluster}/");
    let known = names.iter().find_map(|name| {
        let (kind, who) = name.strip_prefix(&prefix)?.split_once('/')?;
        (matches!(kind, "node" | "operator") && !who.is_empty()).then(|| format!("{kind} {who}"))
    });
    known.ok_or_else(|| {
        let problem = format!("the certificate names no node or operator of cluster {cluster}");
        ApiError::new(Reason::PermissionDenied, problem)
    })
}
