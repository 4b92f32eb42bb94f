//! Who a certificate speaks for.

use rustls_pki_types::CertificateDer;
use std::fmt;
use std::str::FromStr;
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
}
