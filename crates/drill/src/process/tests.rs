use super::certificates::Authority;
use super::children::Children;
use super::*;
use crate::layout::{Layout, Shape, Store};
use rustix::process::Signal;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use std::fs;
use std::path::Path;
use std::time::Instant;
use tokio::process::Command;
use twinsite_model::{NodeId, Profile};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

const PATIENCE: Duration = Duration::from_secs(10);

fn node(name: &str) -> ProcessName {
    ProcessName::Node(name.parse().unwrap())
}

fn sleeper() -> Command {
    let mut command = Command::new("sleep");
    command.arg("1000");
    command
}

/// The state letter of a process in the kernel's table; none when it is gone.
fn state(pid: u32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn processes_are_frozen_thawed_and_killed() {
    let folder = tempfile::tempdir().unwrap();
    let mut children = Children::new().unwrap();
    let name = node("gra-1");
    children.spawn(&name, sleeper(), &folder.path().join("log"), true).unwrap();
    assert!(children.runs(&name));
    let (_, pid) = children.pids().all()[0].clone();
    children.set_nice(&name, 7);
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let nice = stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(16));
    assert_eq!(nice, Some("7"), "{stat}");
    children.signal(&name, Signal::STOP).unwrap();
    until("stopped", || state(pid) == Some('T')).await;
    assert!(children.runs(&name), "a frozen process still lives");
    children.signal(&name, Signal::CONT).unwrap();
    until("going on", || state(pid) == Some('S')).await;
    children.kill(&name).await.unwrap();
    assert!(!children.runs(&name));
    assert_eq!(children.pids().all(), []);
    assert_eq!(state(pid), None);
}

#[tokio::test]
async fn when_the_runner_dies_everything_dies_frozen_ones_too() {
    let folder = tempfile::tempdir().unwrap();
    let mut children = Children::new().unwrap();
    for name in ["gra-1", "gra-2"] {
        // Without a standard input to watch, as Redis has none.
        children.spawn(&node(name), sleeper(), &folder.path().join(name), false).unwrap();
    }
    children.signal(&node("gra-2"), Signal::STOP).unwrap();
    // What the kernel does at the death of the runner.
    children.close_reaper_input();
    let pids: Vec<_> = children.pids().all().into_iter().map(|(_, pid)| pid).collect();
    until("all dead", || pids.iter().all(|pid| matches!(state(*pid), None | Some('Z')))).await;
}

#[tokio::test]
async fn a_process_that_does_not_end_when_asked_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let mut children = Children::new().unwrap();
    let mut command = Command::new("sh");
    command.args(["-c", "trap '' TERM; echo ready; while :; do sleep 1; done"]);
    let log = folder.path().join("log");
    children.spawn(&node("gra-1"), command, &log, false).unwrap();
    until("ready", || fs::read_to_string(&log).unwrap_or_default().contains("ready")).await;
    let status = children.end(&node("gra-1"), Signal::TERM, Duration::from_millis(200)).await.unwrap();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status.unwrap()), Some(9));
}

#[tokio::test]
async fn a_program_that_fails_is_reported_with_its_last_words() {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("twinsite");
    fs::write(&program, "#!/bin/sh\necho cannot do that >&2\nexit 3\n").unwrap();
    fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let error = start(&program, folder.path()).await.unwrap_err().to_string();
    assert!(error.contains("ended (exit status: 3) while the cluster was starting"), "{error}");
    assert!(error.contains("cannot do that"), "{error}");
    let again = start(&program, folder.path()).await.unwrap_err().to_string();
    assert!(again.contains("not empty; name a new or empty folder"), "{again}");
    let folder = tempfile::tempdir().unwrap();
    let error = start(Path::new("/no/such/program"), folder.path()).await.unwrap_err().to_string();
    assert!(error.contains("/no/such/program") && error.contains("check that the program exists"), "{error}");
}

async fn start(program: &Path, folder: &Path) -> Result<Cluster, ProcessError> {
    let options = ClusterOptions {
        launcher: Launcher::new(program),
        directory: Some(folder.join("cluster")),
        profile: Profile::Lan,
        shape: Shape::default(),
        store: Store::Embedded,
        lab: None,
    };
    Cluster::start(options, &mut |_| ()).await
}

#[test]
fn files_are_complete_and_say_what_the_layout_says() {
    let folder = tempfile::tempdir().unwrap();
    let layout = Layout::paired(70, Profile::Wan, &Shape::default(), Store::OwnRedis);
    let files = files::Files::new(folder.path().to_owned());
    files.write(&layout).unwrap();
    let text = fs::read_to_string(folder.path().join("sbg-1/node.toml")).unwrap();
    let written: toml::Table = toml::from_str(&text).unwrap();
    assert_eq!(written["node"].as_str(), Some("sbg-1"));
    assert_eq!(written["bootstrap"].as_bool(), Some(false));
    assert_eq!(written["dial"][0]["prefix"].as_str(), Some("127.70.1.0/24"));
    assert_eq!(written["dial"][0]["via"].as_str(), Some("127.70.21.0/24"));
    assert_eq!(written["instance"].as_array().unwrap().len(), 3);
    assert_eq!(written["instance"][0]["upstream"].as_str(), Some("sbg-meet-1"));
    assert_eq!(written["metrics"]["listen"].as_str(), Some("127.70.2.1:7102"));
    assert_eq!(written["lab"]["exit_with_stdin"].as_bool(), Some(true));
    let first: toml::Table =
        toml::from_str(&fs::read_to_string(folder.path().join("gra-1/node.toml")).unwrap()).unwrap();
    assert_eq!(first["bootstrap"].as_bool(), Some(true));
    let key = fs::metadata(folder.path().join("gra-1/node.key")).unwrap();
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&key.permissions()) & 0o777, 0o600);
    assert!(folder.path().join("operator.pem").is_file());

    fs::write(folder.path().join("gra-1/data/log"), "x").unwrap();
    files.wipe(&layout).unwrap();
    assert!(!folder.path().join("gra-1/data/log").exists());
    assert!(folder.path().join("gra-1/data").is_dir());
}

#[test]
fn certificates_name_the_node_and_every_address_at_which_it_is_reached() {
    let layout = Layout::paired(70, Profile::Lan, &Shape::default(), Store::Embedded);
    let authority = Authority::new(&layout.cluster).unwrap();
    let place = &layout.nodes[2];
    let identity = authority.node(place.id, &layout.addresses_of(place)).unwrap();
    let der = CertificateDer::from_pem_slice(identity.certificate.as_bytes()).unwrap();
    let (_, certificate) = X509Certificate::from_der(&der).unwrap();
    let names = certificate.subject_alternative_name().unwrap().unwrap();
    let mut uris = Vec::new();
    let mut addresses = Vec::new();
    let mut hosts = Vec::new();
    for name in &names.value.general_names {
        match name {
            GeneralName::URI(uri) => uris.push((*uri).to_owned()),
            GeneralName::DNSName(host) => hosts.push((*host).to_owned()),
            GeneralName::IPAddress(octets) => addresses.push(octets.to_vec()),
            _ => {}
        }
    }
    assert_eq!(uris, [format!("twinsite://{}/node/{}", layout.cluster, NodeId(3))]);
    assert_eq!(hosts, [format!("{}.twinsite.internal", layout.cluster)]);
    assert_eq!(addresses, [vec![127, 70, 12, 1], vec![127, 70, 2, 1], vec![127, 70, 32, 1]]);
    let usage = certificate.extended_key_usage().unwrap().unwrap().value;
    assert!(usage.server_auth && usage.client_auth);
    let ca = CertificateDer::from_pem_slice(authority.pem().as_bytes()).unwrap();
    let (_, ca) = X509Certificate::from_der(&ca).unwrap();
    assert_eq!(certificate.issuer(), ca.subject());
}
