//! The lab, from outside: a cluster on a network of its own, with a floating IP on real interfaces.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test's helpers end the test")]

use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use twinsite_drill::lab::life::Life;
use twinsite_tests::{Said, lab_is_possible, lab_namespaces, left_out, program, run, run_command};

const SOON: Duration = Duration::from_secs(60);

fn exercise(name: &str) -> Said {
    run(&["demo", "--lab", "--embedded", "--json", "--exercise", name])
}

/// What is seen of an address that moves between real interfaces. The exercises' own limits are for loopback, where who
/// comes while nobody listens is told so; on a network that one hears nothing, and its kernel asks again after a second.
#[test]
fn an_address_moves_between_hosts() {
    if !lab_is_possible("a floating IP in a lab") {
        return;
    }
    for name in ["owner-killed", "owner-frozen", "switchover", "site-isolated"] {
        let said = exercise(name);
        let report = said.json();
        let audit = &report["audit"];
        for harm in ["dual_answer_ms", "stale_epoch_writes", "split_rooms", "two_hosts_ms", "dark_frames"] {
            assert_eq!(audit[harm], 0, "{name}: {report:#}");
        }
        assert_eq!(audit["epochs_monotonic"], true, "{name}: {report:#}");
        let [run] = &report["runs"].as_array().unwrap()[..] else { panic!("{name}: {report:#}") };
        assert_ne!(run["owner_before"], run["owner_after"], "{name}: {report:#}");
        let gap = run["gap_ms"]["http"].as_u64().unwrap();
        assert!(gap < 5_000, "{name}: {report:#}");
        // Every host that serves was asked, and both owners answered, one after the other.
        let hosts = run["answering"]["hosts"].as_array().unwrap();
        assert!(hosts.iter().all(|host| host["probes"].as_u64() > Some(100)), "{name}: {report:#}");
        for owner in [&run["owner_before"], &run["owner_after"]] {
            let owner = owner.as_str().unwrap().split(' ').next().unwrap();
            let host = hosts.iter().find(|host| host["node"] == owner).unwrap();
            assert!(host["answers"].as_u64() > Some(100), "{name}, {owner}: {report:#}");
        }
    }
}

/// The kernel is asked without the program `nft`: it need not be there.
#[test]
fn no_program_of_nftables_is_needed() {
    if !lab_is_possible("a lab without `nft`") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = std::env::var_os("PATH").unwrap();
    for needed in ["ip", "bridge", "sh", "cat"] {
        let mut folders = std::env::split_paths(&path).map(|folder| folder.join(needed));
        let found = folders.find(|program| program.is_file()).unwrap();
        std::os::unix::fs::symlink(found, folder.path().join(needed)).unwrap();
    }
    let mut command = Command::new(program());
    command.args(["demo", "--lab", "--embedded", "--json", "--exercise", "owner-frozen"]);
    command.env("PATH", folder.path());
    let said = run_command(command);
    let report = said.json();
    assert_eq!(report["audit"]["two_hosts_ms"], 0, "{report:#}");
    let run = &report["runs"][0];
    assert!(run["owner_after"].is_string() && run["owner_before"] != run["owner_after"], "{report:#}");
}

/// One system, one cause, once.
fn compared(system: &str, cause: &str) -> serde_json::Value {
    let said = run(&["compare-failover", "--runs", "1", "--system", system, "--cause", cause]);
    assert_eq!(said.code, 0, "{said:?}");
    let comparison = said.json();
    let [cell] = &comparison["cells"].as_array().unwrap()[..] else { panic!("{comparison:#}") };
    assert_eq!(cell["trials"].as_array().unwrap().len(), 1, "{comparison:#}");
    cell.clone()
}

/// What `cargo xtask bench failover` does, once for each kind of system. A killed keepalived leaves its address behind,
/// which the proof that two hosts never answer must find in a system that it is not made for.
#[test]
fn systems_are_compared_and_two_hosts_at_once_are_found_where_they_are() {
    let what = "twinsite beside keepalived";
    if !lab_is_possible(what) {
        return;
    }
    let moved = compared("twinsite-wan", "planned");
    assert_eq!(moved["two_hosts_ms"]["max"], 0, "{moved:#}");
    assert_eq!(moved["failed_requests"], 0, "{moved:#}");
    assert_ne!(moved["trials"][0]["after"][0], moved["trials"][0]["before"], "{moved:#}");
    if Command::new("keepalived").arg("--version").output().is_err() {
        left_out(what, "keepalived is not installed");
        return;
    }
    let killed = compared("keepalived-100ms", "killed");
    // From when the other host takes the address until the repair, in a cause of six seconds.
    assert!(killed["two_hosts_ms"]["max"].as_u64() > Some(1_000), "{killed:#}");
    assert_eq!(killed["trials"][0]["after"].as_array().unwrap().len(), 2, "{killed:#}");
}

/// As `twinsite help drill run` says.
const CODE_DISTURBED: i32 = 5;

/// Whatever becomes of the runner, nothing stays: the next lab takes away what it left.
#[test]
fn a_killed_lab_leaves_nothing_to_the_next_one() {
    if !lab_is_possible("what a killed lab leaves") {
        return;
    }
    let mut first = Command::new(program());
    first.args(["demo", "--lab", "--embedded"]).stdout(Stdio::null()).stderr(Stdio::null());
    let mut first = first.spawn().unwrap();
    let deadline = Instant::now() + SOON;
    while lab_namespaces(first.id()).len() < 12 {
        assert!(Instant::now() < deadline, "{:?}", lab_namespaces(first.id()));
        std::thread::sleep(Duration::from_millis(20));
    }
    kill_process(Pid::from_child(&first), Signal::KILL).unwrap();
    first.wait().unwrap();
    assert!(!lab_namespaces(first.id()).is_empty(), "nobody was there to remove them");
    let said = exercise("leader-lost");
    // Also disturbed by a busy machine: it ran, and this is not about its times.
    assert!(matches!(said.code, 0 | CODE_DISTURBED), "{said:?}");
    assert_eq!(lab_namespaces(first.id()), Vec::<String>::new());
    let names =
        fs::read_dir("/run/netns").unwrap().filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    // Labs of processes that live are others' business.
    let is_left = |name: &String| {
        let pid = name.strip_prefix("twinsite-lab-").and_then(|rest| rest.split('-').next()?.parse().ok());
        pid.is_some_and(|pid| Life::of(pid).is_none())
    };
    assert_eq!(names.filter(is_left).collect::<Vec<_>>(), Vec::<String>::new(), "and nothing of its own");
}
