//! Who a certificate speaks for.

use rustls_pki_types::CertificateDer;
use std::collections::VecDeque;
use std::fmt;
use std::str::FromStr;
use std::sync::{Mutex, PoisonError};
use twinsite_model::{ClusterName, NodeId};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// A node of a cluster, as a certificate names it: `twinsite://CLUSTER/node/ID` among its alternative names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerIdentity {
    /// The cluster.
    pub cluster: ClusterName,
    /// The node.
    pub node: NodeId,
}

/// Why a certificate speaks for nobody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// There is none.
    #[error("there is no certificate")]
    Missing,
    /// It cannot be read.
    #[error("the certificate cannot be read")]
    Unreadable,
    /// It names no node, or more than one.
    #[error("the certificate does not name exactly one node (`twinsite://CLUSTER/node/ID`)")]
    NotOneNode,
}

impl PeerIdentity {
    /// The identity in a certificate. Who calls has checked, or lets TLS check, that a trusted authority signed it.
    pub fn from_certificate(certificate: &[u8]) -> Result<Self, IdentityError> {
        let (_, certificate) =
            X509Certificate::from_der(certificate).map_err(|_| IdentityError::Unreadable)?;
        let names = certificate.subject_alternative_name().map_err(|_| IdentityError::Unreadable)?;
        let names = names.map(|names| names.value.general_names.as_slice()).unwrap_or_default();
        let mut nodes = names.iter().filter_map(|name| match name {
            GeneralName::URI(uri) => uri.parse::<Self>().ok(),
            _ => None,
        });
        match (nodes.next(), nodes.next()) {
            (Some(identity), None) => Ok(identity),
            _ => Err(IdentityError::NotOneNode),
        }
    }

    /// The identity of the peer of a TLS connection: what `tonic::Request::peer_certs` gives.
    pub fn from_peer_certs(certificates: Option<&[CertificateDer<'_>]>) -> Result<Self, IdentityError> {
        let own = certificates.and_then(<[_]>::first).ok_or(IdentityError::Missing)?;
        Self::from_certificate(own)
    }
}

/// Whom certificates speak for that were read before: reading one takes longer than answering a heartbeat.
#[derive(Debug, Default)]
pub struct KnownCertificates(Mutex<VecDeque<(Vec<u8>, PeerIdentity)>>);

/// More certificates than a cluster has nodes; the oldest are forgotten.
const KNOWN_MAX: usize = 32;

impl KnownCertificates {
    /// Nobody yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Like [`PeerIdentity::from_peer_certs`].
    pub fn identify(
        &self,
        certificates: Option<&[CertificateDer<'_>]>,
    ) -> Result<PeerIdentity, IdentityError> {
        let own = certificates.and_then(<[_]>::first).ok_or(IdentityError::Missing)?;
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, identity)) = known.iter().find(|(certificate, _)| **certificate == **own) {
            return Ok(identity.clone());
        }
        let identity = PeerIdentity::from_certificate(own)?;
        known.push_back((own.to_vec(), identity.clone()));
        if known.len() > KNOWN_MAX {
            known.pop_front();
        }
        Ok(identity)
    }
}

impl fmt::Display for PeerIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "twinsite://{}/node/{}", self.cluster, self.node)
    }
}

impl FromStr for PeerIdentity {
    type Err = IdentityError;
    fn from_str(uri: &str) -> Result<Self, IdentityError> {
        let parts = uri.strip_prefix("twinsite://").and_then(|rest| rest.split_once("/node/"));
        let (cluster, node) = parts.ok_or(IdentityError::NotOneNode)?;
        let identity = Self {
            cluster: ClusterName::new(cluster).map_err(|_| IdentityError::NotOneNode)?,
            node: NodeId(node.parse().map_err(|_| IdentityError::NotOneNode)?),
        };
        // One spelling only: `+7` and `007` are not node 7.
        if identity.to_string() == uri { Ok(identity) } else { Err(IdentityError::NotOneNode) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_has_one_spelling() {
        let identity: PeerIdentity = "twinsite://demo/node/3".parse().unwrap();
        assert_eq!(identity, PeerIdentity { cluster: ClusterName::new("demo").unwrap(), node: NodeId(3) });
        assert_eq!(identity.to_string(), "twinsite://demo/node/3");
        for bad in [
            "twinsite://demo/node/+3",
            "twinsite://demo/node/03",
            "twinsite://demo/node/",
            "twinsite://Demo/node/3",
            "twinsite://demo/node/3/",
            "twinsite://demo/operator/eva",
            "http://demo/node/3",
        ] {
            assert!(bad.parse::<PeerIdentity>().is_err(), "{bad}");
        }
        assert_eq!(PeerIdentity::from_certificate(b"no"), Err(IdentityError::Unreadable));
        assert_eq!(PeerIdentity::from_peer_certs(None), Err(IdentityError::Missing));
    }

    #[test]
    fn a_certificate_is_read_once_and_what_cannot_be_read_never_known() {
        let named = |uri: &str| {
            let mut parameters = rcgen::CertificateParams::default();
            parameters.subject_alt_names = vec![rcgen::SanType::URI(uri.try_into().unwrap())];
            let key = rcgen::KeyPair::generate().unwrap();
            parameters.self_signed(&key).unwrap().der().clone()
        };
        let known = KnownCertificates::new();
        let count = || known.0.lock().unwrap().len();
        for node in 0..KNOWN_MAX + 3 {
            let certificate = [named(&format!("twinsite://demo/node/{node}"))];
            for _ in 0..2 {
                let identity = known.identify(Some(&certificate)).unwrap();
                assert_eq!(identity.node, NodeId(node as u64));
            }
            assert_eq!(count(), (node + 1).min(KNOWN_MAX));
        }
        assert_eq!(known.identify(None), Err(IdentityError::Missing));
        assert_eq!(known.identify(Some(&[])), Err(IdentityError::Missing));
        assert_eq!(known.identify(Some(&[b"no".as_slice().into()])), Err(IdentityError::Unreadable));
        assert_eq!(known.identify(Some(&[named("http://demo")])), Err(IdentityError::NotOneNode));
        assert_eq!(count(), KNOWN_MAX);
    }
}
