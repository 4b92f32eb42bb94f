//! HTTPS from outside: certificates, and a session that is resumed with the node that took the address over.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test's helpers end the test")]

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, HandshakeKind, RootCertStore, StreamOwned};
use std::fs;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use twinsite_drill::layout::{HTTPS_PORT, METRICS_PORT, Shape, Store};
use twinsite_drill::process::ProcessName;
use twinsite_model::Profile;
use twinsite_tests::{Lab, metric, owner};

const SOON: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(50);

fn trusting(ca: &Path) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(ca).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    Arc::new(builder.with_root_certificates(roots).with_no_client_auth())
}

/// One request on a connection of its own: the handshake's kind, and the answer.
fn ask(to: SocketAddr, config: &Arc<ClientConfig>) -> io::Result<(HandshakeKind, String)> {
    let stream = TcpStream::connect_timeout(&to, Duration::from_secs(2))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let name = ServerName::try_from("localhost").map_err(io::Error::other)?;
    let connection = ClientConnection::new(Arc::clone(config), name).map_err(io::Error::other)?;
    let mut tls = StreamOwned::new(connection, stream);
    tls.write_all(b"GET /.well-known/twinsite HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    tls.read_to_string(&mut answer)?;
    let kind = tls.conn.handshake_kind().ok_or(io::ErrorKind::UnexpectedEof)?;
    Ok((kind, answer))
}

/// The first good answer.
fn ask_until_answered(to: SocketAddr, config: &Arc<ClientConfig>) -> (HandshakeKind, String) {
    let deadline = Instant::now() + SOON;
    loop {
        match ask(to, config) {
            Ok((kind, answer)) if answer.starts_with("HTTP/1.1 200 ") => return (kind, answer),
            other => assert!(Instant::now() < deadline, "{other:?}"),
        }
        std::thread::sleep(PAUSE);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_is_resumed_with_the_node_that_took_over() {
    let shape = Shape { https: true, ..Shape::default() };
    let mut lab = Lab::start_shaped(Store::Embedded, Profile::Lan, shape).await;
    let root = lab.cluster.directory().to_owned();
    let config = trusting(&root.join("ca.pem"));
    let at = SocketAddr::new(lab.cluster.layout().floating.ip(), HTTPS_PORT);

    // Keys of tickets are agreed on soon after the start; until then each handshake is a full one.
    let deadline = Instant::now() + SOON;
    while ask_until_answered(at, &config).0 != HandshakeKind::Resumed {
        assert!(Instant::now() < deadline, "no session is resumed");
        std::thread::sleep(PAUSE);
    }
    let first = owner(&lab.wait("an owner", SOON, |status| owner(status).is_some())).unwrap();
    lab.cluster.kill_all(&[ProcessName::Node(first.parse().unwrap())]).await.unwrap();
    lab.wait("another owner", SOON, |status| owner(status).is_some_and(|owner| owner != first));
    let (kind, answer) = ask_until_answered(at, &config);
    assert!(!answer.contains(&format!("\"{first}\"")), "{answer}");
    assert_eq!(kind, HandshakeKind::Resumed, "the ticket of one node is good with another");
    lab.start_missing();

    // One that makes no sense changes nothing; a new one is served without anything being started anew.
    let (chain, key) = (root.join("tls.pem"), root.join("tls.key"));
    fs::write(&chain, "nonsense").unwrap();
    let holder = owner(&lab.status().unwrap()).unwrap();
    let holder = lab.cluster.layout().node(&holder.parse().unwrap()).unwrap().ip;
    let refused = "twinsite_certificate_loads_total{result=\"failed\"}";
    let deadline = Instant::now() + SOON;
    while metric(SocketAddr::new(holder, METRICS_PORT), refused).is_none_or(|count| count < 1.0) {
        assert!(Instant::now() < deadline, "nobody looks at the file");
        std::thread::sleep(PAUSE);
    }
    ask_until_answered(at, &trusting(&root.join("ca.pem")));
    let other = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    fs::write(&key, other.signing_key.serialize_pem()).unwrap();
    fs::write(&chain, other.cert.pem()).unwrap();
    ask_until_answered(at, &trusting(&chain));

    // No secret is shown to anybody.
    let said = lab.ask(&["status", "--json"]);
    assert!(!said.out.contains("secret") && !said.out.contains("ticket"), "{}", said.out);
    lab.cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_specification_was_before_is_listed_and_comes_back() {
    let lab = Lab::start(Store::Embedded).await;
    let agreed = lab.ask(&["spec", "show"]);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("cluster.toml");
    // What is shown is what can be applied.
    fs::write(&file, &agreed.out).unwrap();
    let name = file.display().to_string();
    assert!(lab.ask(&["apply", &name]).out.contains("nothing changes"), "{agreed:?}");
    assert_eq!(lab.ask(&["spec", "rollback"]).code, 2, "there is nothing to go back to");

    fs::write(&file, agreed.out.replacen("fall = ", "fall = 1", 1)).unwrap();
    let applied = lab.ask(&["apply", &name]);
    assert_eq!(applied.code, 0, "{applied:?}");
    let history = lab.ask(&["spec", "history", "--json"]).json();
    assert_eq!(history["earlier"].as_array().unwrap().len(), 1, "{history}");
    assert!(lab.ask(&["spec", "history"]).out.contains("health.fall"));
    let dry = lab.ask(&["spec", "rollback", "--dry-run"]);
    assert!(dry.code == 0 && dry.out.contains("health.fall"), "{dry:?}");
    assert_ne!(lab.ask(&["spec", "show"]).out, agreed.out);
    let back = lab.ask(&["spec", "rollback"]);
    assert_eq!(back.code, 0, "{back:?}");
    assert_eq!(lab.ask(&["spec", "show"]).out, agreed.out);
    lab.ask(&["spec", "show", "--revision", "999999"]).assert_one_line(&["--revision 999999", "history"]);
}
