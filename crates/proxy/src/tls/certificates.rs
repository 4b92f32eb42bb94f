//! The certificates of a node, chosen by the name that a client asks for (SNI, RFC 6066 section 3).

use arc_swap::ArcSwapOption;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{fmt, fs, io};
use twinsite_model::spec::CertificateSpec;
use twinsite_upstream::pem_problem;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// The longest file that is read, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Why a certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum CertificateError {
    #[error("{}: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{}: {problem}", path.display())]
    Content { path: PathBuf, problem: String },
    #[error("{} is not the key of {}: write the files of one certificate", key.display(), chain.display())]
    Mismatch { chain: PathBuf, key: PathBuf },
}

/// One certificate with its key, as read.
#[derive(Debug, Clone)]
pub(super) struct Loaded {
    certified: Arc<CertifiedKey>,
    /// The names that it is for, in lower case.
    pub(super) hosts: Vec<String>,
    /// When it ends, in seconds since 1970.
    pub(super) expires: i64,
}

impl Loaded {
    pub(super) fn read(spec: &CertificateSpec, provider: &CryptoProvider) -> Result<Self, CertificateError> {
        let content =
            |path: &Path, problem: String| CertificateError::Content { path: path.to_owned(), problem };
        let (chain_path, key_path) = (&*spec.chain, &*spec.key);
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&read(chain_path)?).collect();
        let chain =
            chain.map_err(|error| content(chain_path, format!("not PEM: {}", pem_problem(&error))))?;
        let Some(own) = chain.first() else {
            return Err(content(
                chain_path,
                "there is no certificate in it; write the whole chain as PEM".to_owned(),
            ));
        };
        let (hosts, expires) = names_and_end(own).map_err(|problem| content(chain_path, problem))?;
        let key = PrivateKeyDer::from_pem_slice(&read(key_path)?)
            .map_err(|error| content(key_path, format!("no private key in PEM: {}", pem_problem(&error))))?;
        let certified = CertifiedKey::from_der(chain, key, provider).map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => {
                CertificateError::Mismatch { chain: spec.chain.clone(), key: spec.key.clone() }
            }
            other => content(key_path, format!("the key cannot be used: {other}")),
        })?;
        Ok(Self { certified: Arc::new(certified), hosts, expires })
    }
}

fn read(path: &Path) -> Result<Vec<u8>, CertificateError> {
    let read = || {
        let length = fs::metadata(path)?.len();
        if length > FILE_BYTES_MAX {
            return Err(io::Error::other(format!("longer than {FILE_BYTES_MAX} bytes")));
        }
        fs::read(path)
    };
    read().map_err(|source| CertificateError::Read { path: path.to_owned(), source })
}

/// The host names of a certificate, and when it ends.
fn names_and_end(certificate: &CertificateDer<'_>) -> Result<(Vec<String>, i64), String> {
    let (_, parsed) =
        X509Certificate::from_der(certificate).map_err(|error| format!("no certificate: {error}"))?;
    let names =
        parsed.subject_alternative_name().map_err(|error| format!("its names make no sense: {error}"))?;
    // Browsers have not looked at the subject's common name for years (RFC 9525 section 2).
    let hosts = names.iter().flat_map(|names| &names.value.general_names).filter_map(|name| match name {
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
        _ => None,
    });
    Ok((hosts.collect(), parsed.validity().not_after.timestamp()))
}

/// All certificates of a node, by name.
pub(super) struct Certificates {
    exact: HashMap<String, Arc<CertifiedKey>>,
    /// By what is behind `*.`.
    below: HashMap<String, Arc<CertifiedKey>>,
    /// For clients that name nobody, or somebody unknown: the first.
    first: Option<Arc<CertifiedKey>>,
}

impl Certificates {
    /// The first that has a name is given for it.
    pub(super) fn new<'a>(all: impl Iterator<Item = &'a Loaded>) -> Self {
        let mut by_name = Self { exact: HashMap::new(), below: HashMap::new(), first: None };
        for loaded in all {
            for name in &loaded.hosts {
                let (names, name) = match name.strip_prefix("*.") {
                    Some(below) => (&mut by_name.below, below),
                    None => (&mut by_name.exact, name.as_str()),
                };
                names.entry(name.to_owned()).or_insert_with(|| Arc::clone(&loaded.certified));
            }
            by_name.first.get_or_insert_with(|| Arc::clone(&loaded.certified));
        }
        by_name
    }

    /// The one for a name; a `*` stands for one label (RFC 9525 section 6.3).
    fn of(&self, name: Option<&str>) -> Option<Arc<CertifiedKey>> {
        let named = name.and_then(|name| {
            let name = name.trim_end_matches('.').to_ascii_lowercase();
            let below = || self.below.get(name.split_once('.')?.1);
            self.exact.get(&name).or_else(below)
        });
        named.or(self.first.as_ref()).cloned()
    }
}

/// The certificates in force. They are swapped whole: a handshake sees the old or the new ones.
#[derive(Default)]
pub(super) struct Resolver(ArcSwapOption<Certificates>);

impl Resolver {
    /// Puts certificates in force.
    pub(super) fn set(&self, certificates: Certificates) {
        self.0.store(Some(Arc::new(certificates)));
    }
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resolver").finish_non_exhaustive()
    }
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.load().as_ref()?.of(hello.server_name())
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use rcgen::{CertifiedKey as Generated, generate_simple_self_signed};
    use rustls::crypto::ring::default_provider;

    /// A certificate for these names, in files of a folder.
    pub(crate) fn written(folder: &tempfile::TempDir, name: &str, hosts: &[&str]) -> CertificateSpec {
        let hosts: Vec<String> = hosts.iter().map(|name| (*name).to_owned()).collect();
        let Generated { cert, signing_key } = generate_simple_self_signed(hosts).unwrap();
        let path = |ending: &str| folder.path().join(format!("{name}.{ending}"));
        let spec = CertificateSpec { name: name.parse().unwrap(), chain: path("pem"), key: path("key") };
        fs::write(&spec.chain, cert.pem()).unwrap();
        fs::write(&spec.key, signing_key.serialize_pem()).unwrap();
        spec
    }

    fn loaded(spec: &CertificateSpec) -> Result<Loaded, CertificateError> {
        Loaded::read(spec, &default_provider())
    }

    #[test]
    fn each_name_gets_its_certificate_and_any_other_the_first() {
        let folder = tempfile::tempdir().unwrap();
        let all = [
            loaded(&written(&folder, "one", &["meet.example.org", "also.example.org"])).unwrap(),
            loaded(&written(&folder, "two", &["*.example.net", "Example.NET"])).unwrap(),
        ];
        let certificates = Certificates::new(all.iter());
        for (name, expected) in [
            (Some("meet.example.org"), 0),
            (Some("ALSO.example.org."), 0),
            (Some("a.example.net"), 1),
            (Some("example.net"), 1),
            (Some("a.b.example.net"), 0),
            (Some("unknown.example.com"), 0),
            (None, 0),
        ] {
            assert!(Arc::ptr_eq(&certificates.of(name).unwrap(), &all[expected].certified), "{name:?}");
        }
        assert!(Certificates::new([].iter()).of(Some("meet.example.org")).is_none());
    }

    #[test]
    fn what_cannot_be_used_is_told_with_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let (one, two) = (written(&folder, "one", &["a.example"]), written(&folder, "two", &["b.example"]));
        let error = |spec: CertificateSpec| loaded(&spec).unwrap_err().to_string();
        let wrong = CertificateSpec { key: two.key.clone(), ..one.clone() };
        assert!(error(wrong).contains("two.key is not the key of "));
        let missing = CertificateSpec { chain: folder.path().join("none.pem"), ..one.clone() };
        assert!(error(missing).contains("none.pem: No such file"));
        let swapped = CertificateSpec { chain: one.key.clone(), key: one.chain.clone(), ..one.clone() };
        assert!(error(swapped).contains("one.key: there is no certificate in it"));
        fs::write(&one.chain, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
        assert!(error(one).contains("one.pem: no certificate: "));
    }
}
