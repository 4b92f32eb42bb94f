//! Bad input of every kind: one line that says what is wrong, where, and what to do; and nothing is damaged.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test's helpers end the test")]

use std::fs;
use std::net::TcpListener;
use twinsite_drill::process::Authority;
use twinsite_model::ClusterName;
use twinsite_tests::{LoneNode, Said};

/// Exactly one line, with everything in it that a person needs.
#[track_caller]
fn assert_one_line(said: &Said, wanted: &[&str]) {
    assert_ne!(said.code, 0, "{said:?}");
    let lines: Vec<_> = said.err.lines().filter(|line| line.starts_with("twinsite: ")).collect();
    assert_eq!(lines.len(), 1, "one line of error, please: {said:?}");
    for part in wanted {
        assert!(lines[0].contains(part), "{part:?} is missing in: {}", lines[0]);
    }
    assert!(!said.err.contains("panicked"), "{said:?}");
}

#[test]
fn a_configuration_that_is_not_there() {
    let node = LoneNode::new(120);
    fs::remove_file(node.path("cluster.toml")).unwrap();
    assert_one_line(&node.run(), &["cluster.toml", "check that the path"]);
    fs::remove_file(node.path("node.toml")).unwrap();
    assert_one_line(&node.run(), &["node.toml", "check that the path"]);
}

#[test]
fn wrong_types_and_unknown_keys() {
    let node = LoneNode::new(120);
    node.replace("node.toml", "bootstrap = true", "bootstrap = \"yes\"");
    assert_one_line(&node.run(), &["node.toml", "line 3", "bool"]);
    node.replace("node.toml", "bootstrap = \"yes\"", "boostrap = true");
    assert_one_line(&node.run(), &["node.toml", "boostrap"]);
    node.write("node.toml", "node = [\n");
    assert_one_line(&node.run(), &["node.toml", "line"]);
    node.write("node.toml", "\0\u{fffd}");
    assert_one_line(&node.run(), &["node.toml"]);
}

#[test]
fn a_node_that_the_specification_does_not_know() {
    let node = LoneNode::new(120);
    node.replace("node.toml", "gra-1", "gra-9");
    assert_one_line(&node.run(), &["node.toml", "gra-9", "gra-1, gra-2"]);
}

#[test]
fn duplicate_ids() {
    let node = LoneNode::new(120);
    node.replace("cluster.toml", "id = 2", "id = 1");
    assert_one_line(&node.run(), &["cluster.toml", "id"]);
}

#[test]
fn a_timing_inequality_that_does_not_hold() {
    let node = LoneNode::new(120);
    let text = node.read("cluster.toml");
    node.write(
        "cluster.toml",
        &text.replacen("profile = \"lan\"", "profile = \"lan\"\ntiming = { lease = \"100ms\" }", 1),
    );
    assert_one_line(&node.run(), &["cluster.toml", "lease"]);
}

#[test]
fn somebody_elses_certificate() {
    let node = LoneNode::new(120);
    let authority = Authority::new(&node.layout.cluster).unwrap();
    let other = &node.layout.nodes[1];
    let identity = authority.node(other.id, &node.layout.addresses_of(other)).unwrap();
    node.write("node.pem", &identity.certificate);
    assert_one_line(&node.run(), &["node.pem", "node/2", "node/1"]);
    node.write("node.pem", "nothing");
    assert_one_line(&node.run(), &["node.pem", "certificate"]);
    node.write("node.key", "nothing");
    node.write("node.pem", &identity.certificate);
    assert_one_line(&node.run(), &["node.key"]);
}

#[test]
fn ports_in_use() {
    let node = LoneNode::new(120);
    let taken = TcpListener::bind((node.layout.nodes[0].ip, 7100)).unwrap();
    assert_one_line(&node.run(), &["7100", "node.peer", "in use"]);
    drop(taken);
}

#[test]
fn a_data_directory_of_another_cluster() {
    let node = LoneNode::new(121);
    assert_eq!(start_and_stop(&node), 0);
    let files = ["cluster.toml", "ca.pem", "node.pem", "node.key"];
    let before: Vec<_> = files.iter().map(|file| node.read(file)).collect();
    let other = ClusterName::new("other").unwrap();
    let old = format!("cluster = \"{}\"", node.layout.cluster);
    node.replace("cluster.toml", &old, "cluster = \"other\"");
    let authority = Authority::new(&other).unwrap();
    let place = &node.layout.nodes[0];
    let identity = authority.node(place.id, &node.layout.addresses_of(place)).unwrap();
    node.write("ca.pem", authority.pem());
    node.write("node.pem", &identity.certificate);
    node.write("node.key", &identity.key);
    let said = node.run();
    assert_one_line(&said, &["data", "cluster"]);
    for (file, text) in files.iter().zip(&before) {
        node.write(file, text);
    }
    assert_eq!(start_and_stop(&node), 0, "the data still serves the cluster that it belongs to");
}

#[test]
fn damaged_data() {
    let node = LoneNode::new(122);
    assert_eq!(start_and_stop(&node), 0);
    let path = node.path("data/consensus.redb");
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    for byte in &mut bytes[middle..middle + 4096] {
        *byte ^= 0x55;
    }
    bytes[100] ^= 1;
    fs::write(&path, &bytes).unwrap();
    let said = node.run();
    assert_one_line(&said, &["data", "new node id"]);
    assert_eq!(said.code, 78, "{said:?}");
    assert_eq!(fs::read(&path).unwrap(), bytes, "nothing was repaired by guessing");
}

#[test]
fn a_damaged_or_missing_count_of_lives() {
    let node = LoneNode::new(128);
    assert_eq!(start_and_stop(&node), 0);
    let path = node.path("data/lives");
    let whole = fs::read_to_string(&path).unwrap();
    let (count, rest) = whole.split_once('\n').unwrap();
    assert_eq!(count, "1");
    fs::write(&path, format!("0\n{rest}")).unwrap();
    let said = node.run();
    assert_one_line(&said, &["data", "lives", "new node id"]);
    assert_eq!(said.code, 78, "{said:?}");
    fs::remove_file(&path).unwrap();
    let said = node.run();
    assert_one_line(&said, &["data", "lives is missing", "new node id"]);
    assert_eq!(said.code, 78, "{said:?}");
    fs::write(&path, whole).unwrap();
    assert_eq!(start_and_stop(&node), 0, "what is whole again is used again");
}

#[test]
fn a_damaged_note_of_a_recovery() {
    let node = LoneNode::new(129);
    assert_eq!(start_and_stop(&node), 0);
    fs::write(node.path("data/recovery.json"), "{}\n").unwrap();
    let said = node.run();
    assert_one_line(&said, &["recovery.json", "remove the file"]);
    assert_eq!(said.code, 78, "{said:?}");
}

#[test]
fn a_full_disk() {
    let node = LoneNode::new(123);
    let small = node.path("small");
    fs::create_dir(&small).unwrap();
    let mounted = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=16k", "tmpfs"])
        .arg(&small)
        .status();
    if !mounted.is_ok_and(|status| status.success()) {
        eprintln!("left out: a small file system needs the right to mount one");
        return;
    }
    node.write_node("small");
    let said = node.run();
    drop(std::process::Command::new("umount").arg("-l").arg(&small).status());
    assert_one_line(&said, &["small", "full"]);
}

#[test]
fn an_operator_without_a_valid_certificate() {
    let node = LoneNode::new(124);
    let stranger = Authority::new(&node.layout.cluster).unwrap().operator("eve").unwrap();
    node.write("eve.pem", &stranger.certificate);
    node.write("eve.key", &stranger.key);
    let mut guardian = spawn(&node, "guardian");
    let mut process = spawn(&node, "node");
    wait_until_listening(&node);
    let api = node.layout.api(&node.layout.nodes[0]);
    let client = format!(
        "cluster = \"{}\"\nendpoints = [\"{api}\"]\n[tls]\nca = \"ca.pem\"\ncert = \"eve.pem\"\nkey = \"eve.key\"\n",
        node.layout.cluster
    );
    node.write("client.toml", &client);
    let said = twinsite_tests::run(&["status", "--client", &node.path("client.toml").display().to_string()]);
    end(&mut process);
    end(&mut guardian);
    assert_one_line(&said, &["no node answers"]);
    assert_eq!(said.code, 4, "{said:?}");
}

#[test]
fn nonsense_on_the_command_line() {
    let said = twinsite_tests::run(&["switchover", "--client", "/nowhere/client.toml"]);
    assert_one_line(&said, &["/nowhere/client.toml", "check that the path"]);
    let said = twinsite_tests::run(&["demo", "--exercise", "no-such-thing"]);
    assert_one_line(&said, &["no-such-thing", "owner-killed"]);
    let said = twinsite_tests::run(&["pause", "--for", "soon"]);
    assert_eq!(said.code, 2, "{said:?}");
    assert!(said.err.contains("30s"), "{said:?}");
}

fn spawn(node: &LoneNode, command: &str) -> std::process::Child {
    std::process::Command::new(twinsite_tests::program())
        .args([command, "--config"])
        .arg(node.path("node.toml"))
        .env("RUST_LOG", "error")
        .spawn()
        .unwrap()
}

fn wait_until_listening(node: &LoneNode) {
    let api = node.layout.api(&node.layout.nodes[0]);
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while std::net::TcpStream::connect(api).is_err() {
        assert!(std::time::Instant::now() < deadline, "nothing listens on {api}");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}

fn end(child: &mut std::process::Child) -> i32 {
    let pid = rustix::process::Pid::from_child(child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    child.wait().unwrap().code().unwrap_or(-1)
}

/// Gives a node data of its own: it starts, and ends in good order.
fn start_and_stop(node: &LoneNode) -> i32 {
    let mut guardian = spawn(node, "guardian");
    let mut process = spawn(node, "node");
    wait_until_listening(node);
    let code = end(&mut process);
    end(&mut guardian);
    code
}
