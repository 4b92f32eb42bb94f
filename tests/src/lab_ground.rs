//! Whether labs can be made on this machine, and what there is of them.

use crate::left_out;
use std::fs;
use std::process::{Command, Stdio};

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
    if fs::File::options().read(true).write(true).open("/dev/net/tun").is_err() {
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
