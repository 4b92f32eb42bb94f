//! A throw-away certificate authority: identities that live as long as the cluster's folder.

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use std::net::IpAddr;
use twinsite_model::{ClusterName, NodeId};

/// Why a certificate could not be made.
#[derive(Debug, thiserror::Error)]
#[error("cannot make a certificate: {0}")]
pub struct CertificateError(#[from] rcgen::Error);

/// The authority of one cluster. Its key never leaves this value.
pub struct Authority {
    cluster: ClusterName,
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key, in PEM.
pub struct Identity {
    /// The certificate.
    pub certificate: String,
    /// The private key.
    pub key: String,
}

impl Authority {
    /// A new authority.
    pub fn new(cluster: &ClusterName) -> Result<Self, CertificateError> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, format!("twinsite {cluster} (throw-away)"));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let pem = params.self_signed(&key)?.pem();
        Ok(Self { cluster: cluster.clone(), pem, issuer: Issuer::new(params, key) })
    }

    /// The authority's certificate, in PEM.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// The identity of a node that is reached at these addresses.
    pub fn node(&self, node: NodeId, addresses: &[IpAddr]) -> Result<Identity, CertificateError> {
        self.issue(&format!("node/{node}"), addresses)
    }

    /// The identity of a person or program that uses the API.
    pub fn operator(&self, name: &str) -> Result<Identity, CertificateError> {
        self.issue(&format!("operator/{name}"), &[])
    }

    /// What clients of a host are shown.
    pub fn server(&self, host: &str) -> Result<Identity, CertificateError> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new([host.to_owned()])?;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok(Identity { certificate: certificate.pem(), key: key.serialize_pem() })
    }

    fn issue(&self, who: &str, addresses: &[IpAddr]) -> Result<Identity, CertificateError> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, format!("{} {who}", self.cluster));
        let uri = format!("twinsite://{}/{who}", self.cluster);
        params.subject_alt_names = vec![
            SanType::URI(uri.try_into()?),
            SanType::DnsName(format!("{}.twinsite.internal", self.cluster).try_into()?),
        ];
        params.subject_alt_names.extend(addresses.iter().copied().map(SanType::IpAddress));
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok(Identity { certificate: certificate.pem(), key: key.serialize_pem() })
    }
}
