//! A hundred participants in twenty rooms, from a hundred addresses, through every node: each room on one instance.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test's helpers end the test")]

use twinsite_tests::{count, left_out, run};

#[test]
fn rooms_stay_whole_through_every_loss() {
    if !twinsite_drill::process::Launcher::new("").has_redis() {
        left_out("rooms through the loss of Redis", "redis-server is not installed");
        return;
    }
    rooms_stay_whole(&["rooms"]);
}

#[test]
fn rooms_stay_whole_without_redis() {
    rooms_stay_whole(&["rooms-embedded", "--embedded"]);
}

fn rooms_stay_whole(exercise: &[&str]) {
    let rounds = count("TWINSITE_ROUNDS", 1).to_string();
    let report = run_for_long(&[&["demo", "--json", "--runs", &rounds, "--exercise"], exercise].concat());
    assert_eq!(report["audit"]["split_rooms"], 0, "{report:#}");
    // Also on a machine that stood still: an owner that loses its lease to that splits no room either.
    assert!(report["verdict"] == "pass" || report["verdict"] == "disturbed", "{report:#}");
}

fn run_for_long(arguments: &[&str]) -> serde_json::Value {
    let output = std::process::Command::new(twinsite_tests::program()).args(arguments).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}\n{errors}"))
}

#[test]
fn a_scenario_file_that_makes_no_sense_is_refused_in_words() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bad.toml");
    std::fs::write(&path, "version = 1\nname = \"x\"\n[[step]]\ndo.fly = true\n").unwrap();
    let said = run(&["demo", "--exercise", &path.display().to_string()]);
    assert_ne!(said.code, 0);
    assert!(said.err.contains("bad.toml"), "{said:?}");
}
