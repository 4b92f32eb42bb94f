//! Data directories that must not be used, and disks without room: one line that says what to do, nothing damaged.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test's helpers end the test")]

use redb::{ReadableDatabase, ReadableTable, TableDefinition};
use std::fs;
use std::path::Path;
use twinsite_drill::process::Authority;
use twinsite_model::ClusterName;
use twinsite_tests::{LoneNode, left_out};

#[test]
fn a_data_directory_of_another_cluster() {
    let node = LoneNode::new(121);
    assert_eq!(node.start_and_stop(), 0);
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
    let was = format!("belongs to cluster `{}`, not to `other`", node.layout.cluster);
    said.assert_one_line(&["data", &was, "name another directory"]);
    assert_eq!(said.code, 78, "{said:?}");
    for (file, text) in files.iter().zip(&before) {
        node.write(file, text);
    }
    assert_eq!(node.start_and_stop(), 0, "the data still serves the cluster that it belongs to");
}

#[test]
fn a_data_directory_of_a_newer_version() {
    let node = LoneNode::new(125);
    assert_eq!(node.start_and_stop(), 0);
    let path = node.path("data/consensus.redb");
    set_format(&path, 99);
    let written = contents(&path);
    let said = node.run();
    said.assert_one_line(&["data", "has format 99; this program reads up to 1", "install the newer version"]);
    assert_eq!(said.code, 78, "{said:?}");
    assert_eq!(contents(&path), written, "what a newer version wrote is left alone");
    set_format(&path, 1);
    assert_eq!(node.start_and_stop(), 0, "the newer version could go on with it");
}

/// Everything in a data directory, table by table.
fn contents(path: &Path) -> Vec<(String, u64, Vec<u8>)> {
    let database = redb::Database::open(path).unwrap();
    let reading = database.begin_read().unwrap();
    let mut contents = Vec::new();
    for name in ["log", "meta", "snapshot"] {
        let table = reading.open_table(TableDefinition::<u64, &[u8]>::new(name)).unwrap();
        for row in table.iter().unwrap() {
            let (key, value) = row.unwrap();
            contents.push((name.to_owned(), key.value(), value.value().to_vec()));
        }
    }
    contents
}

/// Writes the version of the layout into a data directory, under its checksum, as a newer program would.
fn set_format(path: &Path, format: u64) {
    const META: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("meta");
    const FORMAT: u64 = 1;
    let value = format.to_le_bytes();
    let sum = crc32c::crc32c_append(crc32c::crc32c(&FORMAT.to_le_bytes()), &value);
    let database = redb::Database::open(path).unwrap();
    let writing = database.begin_write().unwrap();
    let sealed = [&sum.to_le_bytes()[..], &value].concat();
    writing.open_table(META).unwrap().insert(FORMAT, &*sealed).unwrap();
    writing.commit().unwrap();
}

#[test]
fn damaged_data() {
    let node = LoneNode::new(122);
    assert_eq!(node.start_and_stop(), 0);
    let path = node.path("data/consensus.redb");
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    for byte in &mut bytes[middle..middle + 4096] {
        *byte ^= 0x55;
    }
    bytes[100] ^= 1;
    fs::write(&path, &bytes).unwrap();
    let said = node.run();
    said.assert_one_line(&["data", "new node id"]);
    assert_eq!(said.code, 78, "{said:?}");
    assert_eq!(fs::read(&path).unwrap(), bytes, "nothing was repaired by guessing");
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
        left_out("a disk that is full at the start", "mounting a small file system needs root");
        return;
    }
    node.write_node("small");
    let said = node.run();
    drop(std::process::Command::new("umount").arg("-l").arg(&small).status());
    said.assert_one_line(&["small", "full"]);
}

#[test]
fn a_damaged_or_missing_count_of_lives() {
    let node = LoneNode::new(128);
    assert_eq!(node.start_and_stop(), 0);
    let path = node.path("data/lives");
    let whole = fs::read_to_string(&path).unwrap();
    let (count, rest) = whole.split_once('\n').unwrap();
    assert_eq!(count, "1");
    fs::write(&path, format!("0\n{rest}")).unwrap();
    let said = node.run();
    said.assert_one_line(&["data", "lives", "new node id"]);
    assert_eq!(said.code, 78, "{said:?}");
    fs::remove_file(&path).unwrap();
    let said = node.run();
    said.assert_one_line(&["data", "lives is missing", "new node id"]);
    assert_eq!(said.code, 78, "{said:?}");
    fs::write(&path, whole).unwrap();
    assert_eq!(node.start_and_stop(), 0, "what is whole again is used again");
}

#[test]
fn a_damaged_note_of_a_recovery() {
    let node = LoneNode::new(129);
    assert_eq!(node.start_and_stop(), 0);
    fs::write(node.path("data/recovery.json"), "{}\n").unwrap();
    let said = node.run();
    said.assert_one_line(&["recovery.json", "remove the file"]);
    assert_eq!(said.code, 78, "{said:?}");
}
