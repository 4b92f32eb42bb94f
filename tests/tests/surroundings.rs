//! What a running cluster meets: a port that somebody else has, a stranger that wants to be a node, a disk that fills.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test's helpers end the test")]

use serde_json::Value;
use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use twinsite_drill::layout::{NodePlace, Store};
use twinsite_drill::process::{Authority, ProcessName};
use twinsite_tests::{Lab, left_out, owner};

/// How long anything may take to be seen.
const SOON: Duration = Duration::from_secs(20);

fn everybody_is_heard(status: &Value) -> bool {
    status["nodes"].as_array().is_some_and(|nodes| nodes.iter().all(|node| node["heard"] == true))
}

fn incarnation(status: &Value, name: &str) -> String {
    let mut nodes = status["nodes"].as_array().into_iter().flatten();
    let node = nodes.find(|node| node["name"] == name).unwrap();
    node["incarnation"].as_str().unwrap().to_owned()
}

fn is_heard(status: &Value, name: &str) -> bool {
    let mut nodes = status["nodes"].as_array().into_iter().flatten();
    nodes.any(|node| node["name"] == name && node["heard"] == true)
}

fn log(lab: &Lab, node: &NodePlace) -> PathBuf {
    lab.cluster.directory().join(node.name.as_str()).join("node.log")
}

/// Waits for a line of a log, beyond what it held before, that has all these parts.
#[track_caller]
fn wait_for_line(path: &Path, beyond: usize, parts: &[&str]) -> String {
    let deadline = Instant::now() + SOON;
    loop {
        let text = fs::read_to_string(path).unwrap();
        let new = text.get(beyond..).unwrap_or_default();
        if let Some(line) = new.lines().find(|line| parts.iter().all(|part| line.contains(part))) {
            return line.to_owned();
        }
        assert!(Instant::now() < deadline, "{parts:?} is not in {}: {new}", path.display());
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn length(path: &Path) -> usize {
    fs::read(path).map_or(0, |text| text.len())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_floating_port_that_somebody_else_has() {
    let mut lab = Lab::start(Store::Embedded).await;
    let layout = lab.cluster.layout().clone();
    let all = lab.cluster.processes();
    lab.cluster.kill_all(&all).await.unwrap();
    let taken = TcpListener::bind(layout.floating).unwrap();
    let holders: Vec<_> = layout.nodes.iter().filter(|node| node.kind.serves()).collect();
    let before: Vec<_> = holders.iter().map(|node| length(&log(&lab, node))).collect();
    lab.start_missing();
    let deadline = Instant::now() + SOON;
    let address = layout.floating.to_string();
    let said = 'said: loop {
        for (node, before) in holders.iter().zip(&before) {
            let text = fs::read_to_string(log(&lab, node)).unwrap();
            let mut new = text.get(*before..).unwrap_or_default().lines();
            if let Some(line) = new.find(|line| line.contains("cannot hold") && line.contains(&address)) {
                break 'said line.to_owned();
            }
        }
        assert!(Instant::now() < deadline, "nobody says that {address} is taken");
        std::thread::sleep(Duration::from_millis(20));
    };
    for part in ["in use", "end whatever else listens there"] {
        assert!(said.contains(part), "{part:?} is not in {said}");
    }
    drop(taken);
    // Nothing was damaged, and nobody has to do more than to free the port.
    let status =
        lab.wait("the address is held", SOON, |status| owner(status).is_some() && everybody_is_heard(status));
    let answered = std::iter::repeat_with(|| std::net::TcpStream::connect(layout.floating).is_ok());
    assert!(
        answered
            .inspect(|_| std::thread::sleep(Duration::from_millis(20)))
            .take(500)
            .any(|answered| answered),
        "nobody listens on {address}: {status:#}"
    );
    lab.cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_without_a_valid_certificate() {
    let mut lab = Lab::start(Store::Embedded).await;
    let layout = lab.cluster.layout().clone();
    let place = layout.nodes.iter().rfind(|node| node.kind.serves()).unwrap().clone();
    let process = Lab::node(&place.name);
    let before = lab.wait("all is well", SOON, everybody_is_heard);
    lab.cluster.kill_all(std::slice::from_ref(&process)).await.unwrap();

    // The right name and number, signed by somebody else.
    let home = lab.cluster.directory().join(place.name.as_str());
    let files = ["ca.pem", "node.pem", "node.key"];
    let good: Vec<_> = files.iter().map(|file| fs::read(home.join(file)).unwrap()).collect();
    let stranger = Authority::new(&layout.cluster).unwrap();
    let identity = stranger.node(place.id, &layout.addresses_of(&place)).unwrap();
    for (file, text) in files.iter().zip([stranger.pem(), &identity.certificate, &identity.key]) {
        fs::write(home.join(file), text).unwrap();
    }
    let beyond = length(&log(&lab, &place));
    lab.cluster.start_process(&process).unwrap();
    wait_for_line(&log(&lab, &place), beyond, &["starting"]);
    lab.wait("it is not heard", SOON, |status| !is_heard(status, place.name.as_str()));
    // Many times as long as an election takes, so that it had every chance to come in.
    let until = Instant::now() + 20 * twinsite_model::Timing::of(layout.profile).election_max;
    while Instant::now() < until {
        let status = lab.wait("the others go on", SOON, |_| true);
        assert!(!is_heard(&status, place.name.as_str()), "a stranger is heard: {status:#}");
        assert_eq!(status["generation"], before["generation"]);
    }
    let said = lab.ask(&["upstream", "drain", layout.instances[0].name.as_str()]);
    assert_eq!(said.code, 0, "the others take commands: {said:?}");

    lab.cluster.kill_all(std::slice::from_ref(&process)).await.unwrap();
    for (file, text) in files.iter().zip(good) {
        fs::write(home.join(file), text).unwrap();
    }
    lab.cluster.start_process(&process).unwrap();
    lab.wait("it is one of them again", SOON, everybody_is_heard);
    lab.cluster.stop().await;
}

/// A small file system in memory, at a folder; unmounted at the end.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// None where this user may not mount.
    fn mount(at: &Path, kilobytes: u64) -> Option<Self> {
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={kilobytes}k,mode=700"), "tmpfs"]).arg(at);
        mount.stderr(std::process::Stdio::null());
        mount.status().is_ok_and(|status| status.success()).then(|| Self(at.to_owned()))
    }

    /// Fills what is left of it with one file.
    fn fill(&self) -> PathBuf {
        let path = self.0.join("filler");
        let mut file = fs::File::create(&path).unwrap();
        for piece in [64 * 1024, 1] {
            while file.write_all(&vec![0_u8; piece]).is_ok() {}
        }
        path
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("-l").arg(&self.0).status());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_fills_while_the_node_runs() {
    let mut lab = Lab::start(Store::Embedded).await;
    let layout = lab.cluster.layout().clone();
    let before = lab.wait("all is well", SOON, everybody_is_heard);
    let holder = owner(&before).unwrap();
    let mut others = layout.nodes.iter().filter(|node| node.kind.serves() && node.name.as_str() != holder);
    let place = others.next().unwrap().clone();
    let process = Lab::node(&place.name);
    // The guardian too, whose socket lies beside the data.
    let guardian = ProcessName::Guardian(place.name.clone());
    lab.cluster.kill_all(&[guardian.clone(), process.clone()]).await.unwrap();
    lab.wait("it is not heard", SOON, |status| !is_heard(status, place.name.as_str()));

    // Its data goes on a disk with room for little more than what is there.
    let data = lab.cluster.directory().join(place.name.as_str()).join("data");
    let kept = lab.cluster.directory().join("kept");
    copy(&data, &kept);
    let size: u64 = files(&kept).iter().map(|file| fs::metadata(file).unwrap().len()).sum();
    let Some(disk) = SmallDisk::mount(&data, size / 1024 + 1_024) else {
        left_out("a disk that fills while the node runs", "mounting a small file system needs root");
        lab.cluster.stop().await;
        return;
    };
    copy(&kept, &data);
    for process in [&guardian, &process] {
        lab.cluster.start_process(process).unwrap();
    }
    lab.wait("it is back", SOON, everybody_is_heard);

    let beyond = length(&log(&lab, &place));
    let filler = disk.fill();
    let upstream = layout.instances[0].name.as_str();
    let mut drain = false;
    let deadline = Instant::now() + Duration::from_mins(2);
    while lab.cluster.runs(&process) {
        drain = !drain;
        let said = lab.ask(&["upstream", if drain { "drain" } else { "undrain" }, upstream]);
        assert_eq!(said.code, 0, "the others go on: {said:?}");
        assert!(Instant::now() < deadline, "it runs on with a full disk");
    }
    let log_text = fs::read_to_string(log(&lab, &place)).unwrap();
    let said: Vec<_> = log_text[beyond..].lines().filter(|line| line.starts_with("twinsite: ")).collect();
    let [line] = said.as_slice() else { panic!("one line, please: {}", &log_text[beyond..]) };
    for part in [&data.display().to_string(), "is full", "make room, then start again"] {
        assert!(line.contains(part), "{part:?} is not in {line}");
    }
    assert!(!log_text.contains("panicked"), "{log_text}");
    let status = lab.wait("the others see it", SOON, |status| !is_heard(status, place.name.as_str()));
    assert_eq!(owner(&status).as_deref(), Some(&*holder), "the owner had nothing to do with it");

    fs::remove_file(filler).unwrap();
    lab.cluster.start_process(&process).unwrap();
    let status = lab.wait("it is back with all its data", SOON, everybody_is_heard);
    let found = status["upstreams"].as_array().unwrap().iter().find(|one| one["name"] == upstream).unwrap();
    assert_eq!(found["drain"], drain, "{status:#}");
    lab.cluster.stop().await;
    drop(disk);
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.is_file()).collect()
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for file in files(from) {
        fs::copy(&file, to.join(file.file_name().unwrap())).unwrap();
    }
}

/// Nobody divides a cluster for want of a look at the others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recovery_while_a_quorum_lives() {
    let mut lab = Lab::start(Store::Embedded).await;
    let layout = lab.cluster.layout().clone();
    let survivor = layout.nodes.iter().find(|node| node.site != layout.nodes[0].site).unwrap().clone();
    let before = incarnation(&lab.status().unwrap(), survivor.name.as_str());
    lab.cluster.terminate(&Lab::node(&survivor.name)).await.unwrap();
    let others = layout.nodes.iter().filter(|node| node.name != survivor.name);
    let lost: Vec<_> = others.map(|node| node.name.clone()).collect();
    let refused = lab.cluster.recover(&survivor.name, &lost, false).await.unwrap_err().to_string();
    assert!(refused.contains("they are a quorum, and nothing is lost"), "{refused}");
    lab.start_missing();
    // What it said in its earlier life may still stand in the state.
    lab.wait("the cluster is whole again", SOON, |status| {
        everybody_is_heard(status) && incarnation(status, survivor.name.as_str()) != before
    });
}
