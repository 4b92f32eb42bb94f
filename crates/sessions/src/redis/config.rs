//! Which Redis, and how this node proves itself to it.

use redis::{ConnectionAddr, IntoConnectionInfo};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore, crypto};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use twinsite_model::dial::DialMap;
use twinsite_model::{ClusterName, NodeId};

/// The longest credential that is read, in bytes.
const SECRET_LENGTH_MAX: u64 = 4_096;

/// Where a credential is found. It is read anew at every connection, so that a changed one takes effect, and never
/// kept or shown.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum SecretSource {
    /// There is none.
    #[default]
    None,
    /// The whole content of a file, without a trailing line break.
    File(PathBuf),
    /// An environment variable; unset or empty means none.
    Environment(String),
}

impl SecretSource {
    /// The file if one is named, else the environment variable.
    pub fn file_or_environment(file: Option<&Path>, variable: &str) -> Self {
        file.map_or_else(|| Self::Environment(variable.to_owned()), |file| Self::File(file.to_owned()))
    }

    /// The secret; an error when a named file cannot be used.
    pub(super) async fn read(&self) -> std::io::Result<Option<String>> {
        match self {
            Self::None => Ok(None),
            Self::Environment(variable) => {
                Ok(std::env::var(variable).ok().filter(|secret| !secret.is_empty()))
            }
            Self::File(path) => {
                if tokio::fs::metadata(path).await?.len() > SECRET_LENGTH_MAX {
                    return Err(std::io::ErrorKind::FileTooLarge.into());
                }
                let secret = tokio::fs::read_to_string(path).await?;
                Ok(Some(secret.trim_end_matches(['\r', '\n']).to_owned()))
            }
        }
    }
}

/// User name and password.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Credentials {
    /// The user; none: Redis' default user.
    pub username: SecretSource,
    /// The password.
    pub password: SecretSource,
}

/// A Redis and how to use it.
#[derive(Clone)]
pub struct RedisConfig {
    pub(super) cluster: ClusterName,
    pub(super) node: NodeId,
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) database: i64,
    pub(super) tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
    /// How this node proves itself.
    pub credentials: Credentials,
    /// How addresses are reached from this node.
    pub dial: DialMap,
    /// Whether accepted writes are noted in a bounded stream.
    pub audit: bool,
    /// How long resolving, connecting and the handshakes may take, each address.
    pub connect_timeout: Duration,
    /// How long an answer may take before the connection is examined.
    pub response_timeout: Duration,
    /// How often the connection is examined.
    pub beat_interval: Duration,
    /// The longest pause between attempts to connect; the first is 20 ms.
    pub backoff_max: Duration,
    /// How long an emptied store counts as young: it creates a place only after the peers were asked.
    pub settle: Duration,
}

/// Why a Redis configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RedisConfigError {
    /// Not a URL of the right form.
    #[error("sessions.url: write `redis://HOST:PORT/DB` or `rediss://HOST:PORT/DB`")]
    Url,
    /// Credentials in the URL, which everybody can read in the specification.
    #[error(
        "sessions.url must not hold credentials: put them into a file (`password_file` in node.toml) or into \
         TWINSITE_REDIS_PASSWORD"
    )]
    CredentialsInUrl,
    /// The certificate authority cannot be read.
    #[error("{}: no certificate can be read from it; it must hold PEM certificates", .0.display())]
    CaFile(PathBuf),
    /// The machine has no certificate authorities and none was named.
    #[error("`rediss://` needs certificate authorities: this machine has none; name one with `ca_file`")]
    NoRoots,
    /// TLS cannot be set up.
    #[error("TLS towards Redis cannot be set up: {0}")]
    Tls(#[from] rustls::Error),
}

impl RedisConfig {
    /// Reads the URL. `ca_file` is for `rediss://`; without it the machine's own authorities count.
    pub fn new(
        cluster: ClusterName,
        node: NodeId,
        url: &str,
        ca_file: Option<&Path>,
    ) -> Result<Self, RedisConfigError> {
        if !url.starts_with("redis://") && !url.starts_with("rediss://") {
            return Err(RedisConfigError::Url);
        }
        if url.contains('@') || url.contains('?') {
            return Err(RedisConfigError::CredentialsInUrl);
        }
        // The library's own words on a bad URL may repeat it; ours do not.
        let info = url.into_connection_info().map_err(|_| RedisConfigError::Url)?;
        let (host, port, secured) = match info.addr() {
            ConnectionAddr::Tcp(host, port) => (host.clone(), *port, false),
            ConnectionAddr::TcpTls { host, port, .. } => (host.clone(), *port, true),
            _ => return Err(RedisConfigError::Url),
        };
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let tls = if secured {
            let name = ServerName::try_from(host.clone()).map_err(|_| RedisConfigError::Url)?;
            Some((Arc::new(client_config(ca_file)?), name))
        } else {
            None
        };
        Ok(Self {
            cluster,
            node,
            host,
            port,
            database: info.redis_settings().db(),
            tls,
            credentials: Credentials::default(),
            dial: DialMap::default(),
            audit: false,
            connect_timeout: Duration::from_millis(500),
            response_timeout: Duration::from_millis(500),
            beat_interval: Duration::from_millis(500),
            backoff_max: Duration::from_secs(2),
            settle: Duration::from_secs(5),
        })
    }
}

fn client_config(ca_file: Option<&Path>) -> Result<ClientConfig, RedisConfigError> {
    let mut roots = RootCertStore::empty();
    if let Some(path) = ca_file {
        let unreadable = || RedisConfigError::CaFile(path.to_owned());
        for certificate in CertificateDer::pem_file_iter(path).map_err(|_| unreadable())? {
            let certificate = certificate.map_err(|_| unreadable())?;
            roots.add(certificate).map_err(|_| unreadable())?;
        }
        if roots.is_empty() {
            return Err(unreadable());
        }
    } else {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if roots.is_empty() {
            return Err(RedisConfigError::NoRoots);
        }
    }
    let provider = Arc::new(crypto::ring::default_provider());
    Ok(ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(url: &str) -> Result<RedisConfig, RedisConfigError> {
        RedisConfig::new(ClusterName::new("demo").unwrap(), NodeId(1), url, None)
    }

    #[test]
    fn reads_host_port_and_database() {
        let read = config("redis://127.0.0.1:7000/3").unwrap();
        assert_eq!((read.host.as_str(), read.port, read.database), ("127.0.0.1", 7_000, 3));
        let read = config("redis://[::1]").unwrap();
        assert_eq!((read.host.as_str(), read.port, read.database), ("::1", 6_379, 0));
    }

    #[test]
    fn refuses_credentials_and_nonsense_without_repeating_them() {
        for bad in ["redis://:hunter2@h:1", "redis://u:hunter2@h", "redis://h?password=hunter2"] {
            let error = config(bad).err().unwrap();
            assert!(matches!(error, RedisConfigError::CredentialsInUrl));
            assert!(!error.to_string().contains("hunter2"));
        }
        for bad in ["", "http://h", "redis://", "redis://h:99999", "redis://h/x", "unix:///tmp/s"] {
            assert!(matches!(config(bad), Err(RedisConfigError::Url)), "{bad:?}");
        }
    }

    #[test]
    fn a_bad_authority_is_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "not pem").unwrap();
        let cluster = ClusterName::new("demo").unwrap();
        let error = RedisConfig::new(cluster, NodeId(1), "rediss://h:1", Some(file.path())).err().unwrap();
        assert!(error.to_string().contains(file.path().to_str().unwrap()));
    }
}
