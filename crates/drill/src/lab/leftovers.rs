//! What belongs to a lab, found by its name: its namespaces, and the processes in them.

use super::life::{LOOK_EVERY, Life};
use super::{NAMES, PREFIX, disk, run};
use rustix::process::Signal;
use std::collections::BTreeSet;
use std::fs;
use std::os::linux::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long killed processes may take to be gone.
const DEATH_MAX: Duration = Duration::from_secs(10);

/// The namespaces of the lab that this process has made, by name.
pub fn namespaces(pid: u32) -> Vec<String> {
    let prefix = format!("{PREFIX}{pid}-");
    all().filter(|name| name.starts_with(&prefix)).collect()
}

/// Removes the namespaces and file systems of labs whose process is gone.
pub fn remove_leftovers() {
    disk::unmount_leftovers(is_left);
    for name in all().filter(|name| is_left(name)) {
        remove(&name);
    }
}

/// Whether this is the name of something that belongs to a lab whose process is gone.
fn is_left(name: &str) -> bool {
    let pid = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next()?.parse().ok());
    pid.is_some_and(|pid| Life::of(pid).is_none())
}

/// Removes a namespace; what is not there any more need not be removed.
pub(crate) fn remove(namespace: &str) {
    drop(run("ip", &["netns", "delete", namespace]));
}

/// Ends whatever lives in these namespaces, this process excepted: shells that were opened there too. Says who is
/// still there after some seconds.
pub fn end_inhabitants(namespaces: &[String]) -> BTreeSet<u32> {
    let deadline = Instant::now() + DEATH_MAX;
    loop {
        let mut here = inhabitants(namespaces);
        here.remove(&std::process::id());
        if here.is_empty() || Instant::now() > deadline {
            return here;
        }
        for pid in here {
            kill(pid, namespaces);
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

/// Ends one of them, unless its number is another one's by now.
fn kill(pid: u32, namespaces: &[String]) {
    if let Some(life) = Life::of(pid).filter(|_| is_in(pid, &places(namespaces))) {
        // Who cannot be killed is still there when it is looked again.
        life.signal(Signal::KILL).ok();
    }
}

/// The living processes in these namespaces.
pub fn inhabitants(namespaces: &[String]) -> BTreeSet<u32> {
    let places = places(namespaces);
    let Ok(processes) = fs::read_dir("/proc") else { return BTreeSet::new() };
    let numbers = processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    numbers.filter(|pid| is_in(*pid, &places) && Life::of(*pid).is_some()).collect()
}

/// The name of the namespace that this process is in, if it is one of these.
pub fn own_place(namespaces: &[String]) -> Option<&String> {
    let own = identity(Path::new("/proc/self/ns/net"))?;
    namespaces.iter().find(|name| identity(&Path::new(NAMES).join(name)) == Some(own))
}

fn places(namespaces: &[String]) -> BTreeSet<(u64, u64)> {
    namespaces.iter().filter_map(|name| identity(&Path::new(NAMES).join(name))).collect()
}

fn is_in(pid: u32, places: &BTreeSet<(u64, u64)>) -> bool {
    identity(&Path::new("/proc").join(pid.to_string()).join("ns/net"))
        .is_some_and(|place| places.contains(&place))
}

/// A namespace is the same if it is the same file.
fn identity(file: &Path) -> Option<(u64, u64)> {
    let found = fs::metadata(file).ok()?;
    Some((found.st_dev(), found.st_ino()))
}

/// Everything that is called like a lab's.
fn all() -> impl Iterator<Item = String> {
    let names = fs::read_dir(NAMES).into_iter().flatten();
    names
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.starts_with(PREFIX))
}
