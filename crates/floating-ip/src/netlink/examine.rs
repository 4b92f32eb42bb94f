//! What can be known of a host before it holds an address: looked at, and nothing changed.

use super::address::Address;
use super::conflict::who_has;
use super::socket::is;
use rustix::io::Errno;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::Path;
use twinsite_model::{HardwareAddress, InterfaceName};

/// The capabilities that are needed, with their numbers (`include/uapi/linux/capability.h`).
const NEEDED: [(u32, &str, &str); 3] = [
    (12, "CAP_NET_ADMIN", "to put the address on its interface, and to keep it dark"),
    (13, "CAP_NET_RAW", "to tell the network where the address is"),
    (10, "CAP_NET_BIND_SERVICE", "to listen on ports below 1024"),
];

/// Something that an operator should know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostFinding {
    /// Whether the address cannot be held here as long as it is so.
    pub forbids: bool,
    /// What, and what to do: one line.
    pub what: String,
}

/// Looks whether this host could hold the address on the interface.
pub fn examine(ip: IpAddr, interface: &InterfaceName) -> Vec<HostFinding> {
    let mut findings = Vec::new();
    match state_of(ip, interface.as_str()) {
        Ok(state) => {
            if let Some(holder) = state.answered_by {
                let what = format!(
                    "{ip} is answered for by the host with the hardware address {holder}: unless that is the node that \
                     holds it now, take it off there"
                );
                findings.push(HostFinding { forbids: false, what });
            }
            if !state.is_up {
                let what = format!("the interface `{interface}` is down: `ip link set {interface} up`");
                findings.push(HostFinding { forbids: true, what });
            }
            if !state.hardware {
                let what =
                    format!("the interface `{interface}` has no Ethernet address: nobody can be told there");
                findings.push(HostFinding { forbids: false, what });
            }
            if state.has_address {
                let what = format!(
                    "{ip} is on this host now: if no twinsite holds it here, take it out of the network configuration"
                );
                findings.push(HostFinding { forbids: false, what });
            }
        }
        Err(error) if is(&error, Errno::NODEV) => {
            let what = format!("this host has no interface `{interface}`; `ip link` lists what it has");
            findings.push(HostFinding { forbids: true, what });
        }
        Err(error) => {
            let what = format!("the interface `{interface}` cannot be looked at: {error}");
            findings.push(HostFinding { forbids: true, what });
        }
    }
    findings.extend(capabilities().into_iter().map(|what| HostFinding { forbids: false, what }));
    findings.extend(virtual_machine().map(|what| HostFinding { forbids: false, what }));
    findings
}

struct State {
    is_up: bool,
    hardware: bool,
    has_address: bool,
    /// By another host than this one.
    answered_by: Option<HardwareAddress>,
}

fn state_of(ip: IpAddr, interface: &str) -> io::Result<State> {
    let mut address = Address::open(ip, interface)?;
    let found = address.interface()?;
    let hardware = found.hardware.filter(|hardware| *hardware != [0; 6]);
    let has_address = address.is_there()?;
    let asked = hardware.filter(|_| found.is_up && !has_address);
    // Without the right to ask nothing is known; that it is missing is said below.
    let answered_by = asked.and_then(|hardware| who_has(ip, interface, found.index, hardware).ok()?);
    Ok(State { is_up: found.is_up, hardware: hardware.is_some(), has_address, answered_by })
}

/// What this process may not do and a node must.
fn capabilities() -> Vec<String> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let Some(effective) = effective.and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok()) else {
        return vec!["/proc/self/status does not tell what this process may do".to_owned()];
    };
    let missing = NEEDED.iter().filter(|(bit, ..)| effective >> bit & 1 == 0);
    missing
        .map(|(_, name, why)| {
            format!("this process has no {name}, which a node needs {why}; the systemd units give it")
        })
        .collect()
}

/// A guest's clocks may stand still with the guest, and the deadline with them.
fn virtual_machine() -> Option<String> {
    let processors = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let flags = processors.lines().find(|line| line.starts_with("flags"))?;
    if !flags.split_whitespace().any(|flag| flag == "hypervisor") {
        return None;
    }
    let clock = if Path::new("/dev/ptp0").exists() {
        "/dev/ptp0 shows the host's time"
    } else {
        "there is no /dev/ptp0 that would show the host's time"
    };
    Some(format!(
        "this is a virtual machine: while a hypervisor pauses all of it, its clocks may stand still, and a lease with \
         them ({clock}); forbid live migration and snapshots of running guests, or choose a lease that is longer than \
         their pauses"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_forbids_it_is_said_and_what_does_not_too() {
        let ip = "192.0.2.7".parse().unwrap();
        let missing = examine(ip, &InterfaceName::new("nothing7").unwrap());
        assert!(missing[0].forbids && missing[0].what.contains("no interface `nothing7`"), "{missing:?}");
        let loopback = examine("127.0.0.1".parse().unwrap(), &InterfaceName::new("lo").unwrap());
        let said =
            |part: &str| loopback.iter().any(|finding| finding.what.contains(part) && !finding.forbids);
        assert!(said("no Ethernet address") && said("127.0.0.1 is on this host"), "{loopback:?}");
    }
}
