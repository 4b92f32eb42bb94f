//! What an upstream's certificate must be.

use crate::pem::pem_problem;
use crate::target::Target;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;
use twinsite_model::spec::UpstreamTlsSpec;

/// How long files of authorities are believed to be as they were read.
const BELIEVED: Duration = Duration::from_secs(60);

/// Configurations of TLS clients, by what was specified.
#[derive(Debug, Default)]
pub(crate) struct Trust(Mutex<HashMap<UpstreamTlsSpec, (Instant, Arc<ClientConfig>)>>);

impl Trust {
    /// How to shake hands with a target, and the name that it must have.
    pub(crate) fn of(&self, target: &Target) -> Result<(Arc<ClientConfig>, ServerName<'static>), String> {
        let host = target.tls.name.as_deref().unwrap_or(target.host());
        let name =
            ServerName::try_from(host.to_owned()).map_err(|_| format!("`{host}` is no name of a server"))?;
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if let Some((since, config)) = known.get(&target.tls)
            && now < *since + BELIEVED
        {
            return Ok((Arc::clone(config), name));
        }
        let config = Arc::new(config(&target.tls)?);
        known.retain(|_, (since, _)| now < *since + BELIEVED);
        known.insert(target.tls.clone(), (now, Arc::clone(&config)));
        Ok((config, name))
    }
}

fn config(spec: &UpstreamTlsSpec) -> Result<ClientConfig, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider));
    let builder = builder.with_safe_default_protocol_versions().map_err(|error| error.to_string())?;
    let mut config = if spec.verify {
        builder.with_root_certificates(roots(spec.authorities.as_ref())?).with_no_client_auth()
    } else {
        builder.dangerous().with_custom_certificate_verifier(anybody(provider)).with_no_client_auth()
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

fn roots(authorities: Option<&PathBuf>) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    let Some(path) = authorities else {
        let found = rustls_native_certs::load_native_certs();
        roots.add_parsable_certificates(found.certs);
        return if roots.is_empty() { Err("this host knows no authorities".to_owned()) } else { Ok(roots) };
    };
    let told = |problem: String| format!("{}: {problem}", path.display());
    let found = CertificateDer::pem_file_iter(path).map_err(|error| told(pem_problem(&error)))?;
    for certificate in found {
        let certificate = certificate.map_err(|error| told(format!("not PEM: {}", pem_problem(&error))))?;
        roots.add(certificate).map_err(|error| told(error.to_string()))?;
    }
    if roots.is_empty() { Err(told("there is no certificate in it".to_owned())) } else { Ok(roots) }
}

/// What takes anybody's certificate.
pub fn anybody(provider: Arc<CryptoProvider>) -> Arc<dyn ServerCertVerifier> {
    Arc::new(Anybody(provider))
}

/// Takes anybody's certificate, as `verify = false` says: what is said is hidden from listeners, and who hears it is not known.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
