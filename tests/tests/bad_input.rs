//! Bad input of every kind: one line that says what is wrong, where, and what to do; and nothing is damaged.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test's helpers end the test")]

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::Command;
use twinsite_drill::process::Authority;
use twinsite_tests::{LoneNode, program, run_command};

#[test]
fn a_configuration_that_is_not_there() {
    let node = LoneNode::new(120);
    fs::remove_file(node.path("cluster.toml")).unwrap();
    node.run().assert_one_line(&["cluster.toml", "check that the path"]);
    fs::remove_file(node.path("node.toml")).unwrap();
    node.run().assert_one_line(&["node.toml", "check that the path"]);
}

#[test]
fn wrong_types_and_unknown_keys() {
    let node = LoneNode::new(120);
    node.replace("node.toml", "bootstrap = true", "bootstrap = \"yes\"");
    node.run().assert_one_line(&["node.toml", "line 3", "bool"]);
    node.replace("node.toml", "bootstrap = \"yes\"", "boostrap = true");
    node.run().assert_one_line(&["node.toml", "boostrap"]);
    node.write("node.toml", "node = [\n");
    node.run().assert_one_line(&["node.toml", "line"]);
    node.write("node.toml", "\0\u{fffd}");
    node.run().assert_one_line(&["node.toml"]);
}

#[test]
fn a_node_that_the_specification_does_not_know() {
    let node = LoneNode::new(120);
    node.replace("node.toml", "gra-1", "gra-9");
    node.run().assert_one_line(&["node.toml", "gra-9", "gra-1, gra-2"]);
}

#[test]
fn duplicate_ids() {
    let node = LoneNode::new(120);
    node.replace("cluster.toml", "id = 2", "id = 1");
    node.run().assert_one_line(&["cluster.toml", "node[2] (gra-2).id", "already used by node[1] (gra-1).id"]);
}

#[test]
fn a_timing_inequality_that_does_not_hold() {
    let node = LoneNode::new(120);
    let text = node.read("cluster.toml");
    node.write(
        "cluster.toml",
        &text.replacen("profile = \"lan\"", "profile = \"lan\"\ntiming = { lease = \"100ms\" }", 1),
    );
    node.run().assert_one_line(&["cluster.toml", "lease"]);
}

#[test]
fn somebody_elses_certificate() {
    let node = LoneNode::new(120);
    let authority = Authority::new(&node.layout.cluster).unwrap();
    let other = &node.layout.nodes[1];
    let identity = authority.node(other.id, &node.layout.addresses_of(other)).unwrap();
    node.write("node.pem", &identity.certificate);
    node.run().assert_one_line(&["node.pem", "node/2", "node/1"]);
    node.write("node.pem", "nothing");
    node.run().assert_one_line(&["node.pem", "certificate"]);
    node.write("node.key", "nothing");
    node.write("node.pem", &identity.certificate);
    node.run().assert_one_line(&["node.key"]);
}

#[test]
fn ports_in_use() {
    let node = LoneNode::new(120);
    let metrics = "\n[metrics]\nlisten = \"127.120.1.1:7102\"\n";
    node.write("node.toml", &(node.read("node.toml") + metrics));
    // The proxy is started when there is a guardian.
    let mut guardian = node.spawn("guardian");
    for (port, key) in
        [(7100, "node.peer"), (7101, "node.api"), (7102, "metrics.listen"), (8080, "node.http")]
    {
        let taken = TcpListener::bind((node.layout.nodes[0].ip, port)).unwrap();
        let address = taken.local_addr().unwrap().to_string();
        node.run().assert_one_line(&[key, &address, "in use by another program; stop it"]);
    }
    LoneNode::end(&mut guardian);
}

#[test]
fn files_that_cannot_be_read() {
    let configuration = ["node.toml", "cluster.toml"];
    for file in configuration.into_iter().chain(["ca.pem", "node.pem", "node.key"]) {
        let is_configuration = configuration.contains(&file);
        let node = LoneNode::new(120);
        let remedy = if is_configuration { "check that the path is right" } else { "check tls.ca" };
        let good = fs::read(node.path(file)).unwrap();
        fs::remove_file(node.path(file)).unwrap();
        node.run().assert_one_line(&[file, "No such file", remedy]);
        fs::create_dir(node.path(file)).unwrap();
        node.run().assert_one_line(&[file, "directory", remedy]);
        fs::remove_dir(node.path(file)).unwrap();
        fs::write(node.path(file), [&good[..], b"\xff\xfe"].concat()).unwrap();
        if is_configuration {
            node.run().assert_one_line(&[file, "UTF-8"]);
        }
    }
}

/// What nobody may read is refused to whoever is nobody; `root` has to become somebody else to see it.
#[test]
fn a_file_that_this_user_may_not_read() {
    let node = LoneNode::new(120);
    let open = fs::Permissions::from_mode(0o755);
    fs::set_permissions(node.folder.path(), open.clone()).unwrap();
    fs::set_permissions(node.path("node.toml"), fs::Permissions::from_mode(0o000)).unwrap();
    let is_root = rustix::process::geteuid().is_root();
    let mut command = if is_root {
        // A program that nobody may run proves nothing: it may lie in a folder that is closed to others.
        fs::copy(program(), node.path("twinsite")).unwrap();
        fs::set_permissions(node.path("twinsite"), open).unwrap();
        let mut command = Command::new(node.path("twinsite"));
        command.uid(65_534).gid(65_534).current_dir("/");
        command
    } else {
        Command::new(program())
    };
    command.args(["node", "--config"]).arg(node.path("node.toml"));
    run_command(command).assert_one_line(&["node.toml", "Permission denied", "this user may read it"]);
}

#[test]
fn an_operator_without_a_valid_certificate() {
    let node = LoneNode::new(124);
    let stranger = Authority::new(&node.layout.cluster).unwrap().operator("eve").unwrap();
    node.write("eve.pem", &stranger.certificate);
    node.write("eve.key", &stranger.key);
    let mut guardian = node.spawn("guardian");
    let mut process = node.spawn("node");
    node.wait_until_listening();
    let api = node.layout.api(&node.layout.nodes[0]);
    let client = format!(
        "cluster = \"{}\"\nendpoints = [\"{api}\"]\n[tls]\nca = \"ca.pem\"\ncert = \"eve.pem\"\nkey = \"eve.key\"\n",
        node.layout.cluster
    );
    node.write("client.toml", &client);
    let said = twinsite_tests::run(&["status", "--client", &node.path("client.toml").display().to_string()]);
    LoneNode::end(&mut process);
    LoneNode::end(&mut guardian);
    said.assert_one_line(&["no node answers"]);
    assert_eq!(said.code, 4, "{said:?}");
}

#[test]
fn nonsense_on_the_command_line() {
    let said = twinsite_tests::run(&["switchover", "--client", "/nowhere/client.toml"]);
    said.assert_one_line(&["/nowhere/client.toml", "check that the path"]);
    let said = twinsite_tests::run(&["demo", "--exercise", "no-such-thing"]);
    said.assert_one_line(&["no-such-thing", "owner-killed"]);
    let said = twinsite_tests::run(&["demo", "--exercise", "wan-lossy"]);
    said.assert_one_line(&["packets", "--lab"]);
    let said = twinsite_tests::run(&["pause", "--for", "soon"]);
    assert_eq!(said.code, 2, "{said:?}");
    assert!(said.err.contains("30s"), "{said:?}");
}
