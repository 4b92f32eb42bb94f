//! Who is let in: names and passwords from files and from the environment, and TLS.

use crate::redis_server::{RedisServer, config, free_port};
use crate::{PATIENCE, name, status, up, wish};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, SanType};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use twinsite_model::Token;
use twinsite_sessions::{Credentials, Placement, RedisStore, SecretSource, Store, StoreStatus, Why};

const PASSWORD: &str = "correct-horse";
/// Set in the process that looks for its credentials in the environment: the port of the server.
const INNER: &str = "TWINSITE_TEST_REDIS_PORT";
const USERNAME_VARIABLE: &str = "TWINSITE_TEST_REDIS_USERNAME";
const PASSWORD_VARIABLE: &str = "TWINSITE_TEST_REDIS_PASSWORD";

/// A server that lets in nobody but `alice`; the list of users is in the folder.
async fn guarded(folder: &Path) -> Option<RedisServer> {
    let users = format!("user default off\nuser alice on >{PASSWORD} ~* &* +@all\n");
    let acl = written(folder, "users.acl", &users);
    RedisServer::start(&["--aclfile", acl.to_str().unwrap()]).await
}

fn written(folder: &Path, name: &str, text: &str) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, text).unwrap();
    path
}

async fn places(store: &dyn Store) {
    let answer = store.place(wish(1, "one", Token::new(1, 1))).await;
    assert!(matches!(&answer, Ok(Placement::At { pin, .. }) if pin.upstream == name("one")), "{answer:?}");
}

async fn refused(store: &dyn Store, wanted: Why) {
    status(store, |status| matches!(status, StoreStatus::Down { why, .. } if *why == wanted)).await;
}

#[tokio::test]
async fn credentials_come_from_files_and_a_changed_one_takes_effect() {
    let folder = tempfile::tempdir().unwrap();
    let Some(server) = guarded(folder.path()).await else { return };
    let username = written(folder.path(), "username", "alice\n");
    let password = written(folder.path(), "password", "wrong\n");
    let mut config = config(&server.url(), None);
    config.credentials = Credentials {
        username: SecretSource::file_or_environment(Some(&username), "UNUSED"),
        password: SecretSource::file_or_environment(Some(&password), "UNUSED"),
    };
    let store = RedisStore::start(config);
    refused(&store, Why::Authentication).await;
    std::fs::remove_file(&password).unwrap();
    refused(&store, Why::Authentication).await;
    written(folder.path(), "password", &format!("{PASSWORD}\r\n"));
    up(&store).await;
    places(&store).await;
}

#[tokio::test]
async fn without_credentials_a_guarded_server_lets_nobody_in() {
    let folder = tempfile::tempdir().unwrap();
    let Some(server) = guarded(folder.path()).await else { return };
    let store = RedisStore::start(config(&server.url(), None));
    refused(&store, Why::Authentication).await;
}

/// The environment of a running program must not be changed, so the one that looks into it is another.
#[tokio::test]
async fn credentials_come_from_the_environment() {
    if let Ok(port) = std::env::var(INNER) {
        let mut config = config(&format!("redis://127.0.0.1:{port}"), None);
        config.credentials = Credentials {
            username: SecretSource::file_or_environment(None, USERNAME_VARIABLE),
            password: SecretSource::file_or_environment(None, PASSWORD_VARIABLE),
        };
        let store = RedisStore::start(config);
        if std::env::var(PASSWORD_VARIABLE).unwrap() == PASSWORD {
            up(&store).await;
            places(&store).await;
        } else {
            refused(&store, Why::Authentication).await;
        }
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let Some(server) = guarded(folder.path()).await else { return };
    for password in [PASSWORD, "wrong", ""] {
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "access::credentials_come_from_the_environment", "--nocapture"])
            .env(INNER, server.port.to_string())
            .env(USERNAME_VARIABLE, "alice")
            .env(PASSWORD_VARIABLE, password)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && said.contains("1 passed"), "{password:?}: {said}{errors}");
    }
}

/// An authority that lives as long as a test.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn file(&self, folder: &Path, name: &str) -> PathBuf {
        written(folder, name, &self.0.pem())
    }
}

/// A server that speaks TLS on a second port, under a certificate for these names and addresses.
async fn secured(folder: &Path, authority: &Authority, names: Vec<SanType>) -> Option<(RedisServer, u16)> {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.subject_alt_names = names;
    let certificate = params.signed_by(&key, &authority.0).unwrap();
    let ca = authority.file(folder, "ca.pem");
    let certificate = written(folder, "server.pem", &certificate.pem());
    let key = written(folder, "server.key", &key.serialize_pem());
    let port = free_port();
    let arguments = [
        "--tls-port",
        &port.to_string(),
        "--tls-cert-file",
        certificate.to_str().unwrap(),
        "--tls-key-file",
        key.to_str().unwrap(),
        "--tls-ca-cert-file",
        ca.to_str().unwrap(),
        "--tls-auth-clients",
        "no",
    ];
    Some((RedisServer::start(&arguments).await?, port))
}

#[tokio::test]
async fn a_secured_server_is_used_under_its_own_authority_and_refused_under_another() {
    let folder = tempfile::tempdir().unwrap();
    let (ours, other) = (Authority::new(), Authority::new());
    let here = vec![SanType::IpAddress(Ipv4Addr::LOCALHOST.into())];
    let Some((_server, port)) = secured(folder.path(), &ours, here).await else { return };
    let url = format!("rediss://127.0.0.1:{port}");

    let store = RedisStore::start(config(&url, Some(&ours.file(folder.path(), "ours.pem"))));
    up(&store).await;
    places(&store).await;

    let store = RedisStore::start(config(&url, Some(&other.file(folder.path(), "other.pem"))));
    refused(&store, Why::Tls).await;
    assert!(store.get(crate::room(1)).await.is_err());
}

#[tokio::test]
async fn a_secured_server_of_another_name_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let ours = Authority::new();
    let elsewhere = vec![SanType::DnsName("redis.example.org".try_into().unwrap())];
    let Some((_server, port)) = secured(folder.path(), &ours, elsewhere).await else { return };
    let ca = ours.file(folder.path(), "ours.pem");
    let store = RedisStore::start(config(&format!("rediss://127.0.0.1:{port}"), Some(&ca)));
    refused(&store, Why::Tls).await;
}

#[tokio::test]
async fn a_server_that_speaks_no_tls_is_refused_in_time() {
    let Some(server) = RedisServer::start(&[]).await else { return };
    let folder = tempfile::tempdir().unwrap();
    let ca = Authority::new().file(folder.path(), "ca.pem");
    let store = RedisStore::start(config(&format!("rediss://127.0.0.1:{}", server.port), Some(&ca)));
    let wanted = |status: &StoreStatus| {
        matches!(status, StoreStatus::Down { why: Why::Tls | Why::ConnectTimeout, .. })
    };
    tokio::time::timeout(PATIENCE, status(&store, wanted)).await.unwrap();
}
