//! Certificates for clients.

use crate::ids::CertificateName;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// A certificate that each serving node has in files of its own; what is in them the cluster does not know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CertificateSpec {
    /// Its name.
    pub name: CertificateName,
    /// Where its chain is on every node: the certificate, then those that lead to its authority; PEM.
    pub chain: PathBuf,
    /// Where its private key is on every node; PEM.
    pub key: PathBuf,
}
