//! Whether labs can be made on this machine, and what there is of them.

use crate::left_out;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::process::{Command, Stdio};
use std::time::Duration;

/// Whether a lab can be made here; else it is said.
pub fn lab_is_possible(what: &str) -> bool {
    if !rustix::process::geteuid().is_root() {
        left_out(what, "a lab needs root");
        return false;
    }
    if Command::new("ip").arg("-V").output().is_err() {
        left_out(what, "a lab needs `ip`");
        return false;
    }
    if File::options().read(true).write(true).open("/dev/net/tun").is_err() {
        left_out(what, "/dev/net/tun cannot be opened here");
        return false;
    }
    let probe = format!("twinsite-probe-{}", std::process::id());
    let netns = |verb| Command::new("ip").args(["netns", verb, &probe]).stderr(Stdio::null()).status();
    if !netns("add").is_ok_and(|status| status.success()) {
        left_out(what, "network namespaces cannot be made here");
        return false;
    }
    netns("delete").is_ok_and(|status| status.success())
}

/// The namespaces of labs, by the process that made them.
pub fn lab_namespaces(pid: u32) -> Vec<String> {
    let prefix = format!("twinsite-lab-{pid}-");
    let Ok(names) = fs::read_dir("/run/netns") else { return Vec::new() };
    let names = names.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    names.filter(|name| name.starts_with(&prefix)).collect()
}

/// Does something on a thread in a network namespace, by its name.
///
/// # Panics
/// If there is none, or if the work does.
pub fn in_namespace<T: Send + 'static>(name: &str, work: impl FnOnce() -> T + Send + 'static) -> T {
    let namespace =
        File::open(format!("/run/netns/{name}")).unwrap_or_else(|error| panic!("{name}: {error}"));
    let there = std::thread::spawn(move || {
        let entered = move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network));
        entered.unwrap_or_else(|error| panic!("{error}"));
        work()
    });
    there.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// The connections on other nodes that a node knows of, by its metrics.
pub fn connections_noted(metrics: SocketAddr) -> Option<f64> {
    metric(metrics, "twinsite_connections_noted{of=\"other_nodes\"}")
}

/// What a node's metrics say of this one, named with its labels.
pub fn metric(metrics: SocketAddr, name: &str) -> Option<f64> {
    let mut stream = TcpStream::connect_timeout(&metrics, Duration::from_secs(1)).ok()?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: metrics\r\nConnection: close\r\n\r\n").ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
}
