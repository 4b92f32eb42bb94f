//! The kernel's own tables: which processes listen on the floating address, and in a lab which hosts hold it.

use super::Recorder;
use super::holders::{self, HolderPeriod};
use crate::lab::holding::HostKernel;
use crate::process::{PidTable, ProcessName};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use twinsite_model::NodeName;

/// A time in which the same processes listened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnerPeriod {
    /// From when.
    pub from: Instant,
    /// Until when.
    pub to: Instant,
    /// Who.
    pub owners: BTreeSet<ProcessName>,
}

/// How long two processes listened at once, over all periods.
pub fn doubly_owned(periods: &[OwnerPeriod]) -> Duration {
    let doubled = periods.iter().filter(|period| period.owners.len() > 1);
    doubled.map(|period| period.to.duration_since(period.from).max(Duration::from_millis(1))).sum()
}

const TCP_LISTEN: &str = "0A";
const SAMPLE_EVERY: Duration = Duration::from_millis(5);
/// Listening sockets stand first in the table and each has 150 bytes: more than a thousand of them.
const TABLE_BYTES_MAX: u64 = 256 * 1024;

/// The inodes of the sockets that listen on an IPv4 address, on loopback addresses.
pub fn listening(address: SocketAddr) -> io::Result<BTreeSet<u64>> {
    listeners(File::open("/proc/net/tcp")?, address)
}

/// The same, by a table of sockets that is read from its beginning.
pub(crate) fn listeners(table: impl Read, address: SocketAddr) -> io::Result<BTreeSet<u64>> {
    let mut file = table.take(TABLE_BYTES_MAX);
    let mut table = Vec::new();
    let mut chunk = [0; 4_096];
    // With hundreds of connections a second the table is long; the kernel lists listeners first, so reading
    // ends with the first line that is none.
    loop {
        let read = file.read(&mut chunk)?;
        table.extend_from_slice(&chunk[..read]);
        if read == 0 || last_line_is_no_listener(&table) {
            break;
        }
    }
    Ok(inodes(&String::from_utf8_lossy(&table), address))
}

fn last_line_is_no_listener(table: &[u8]) -> bool {
    let complete = table.rsplitn(2, |byte| *byte == b'\n').nth(1).unwrap_or_default();
    let last = complete.rsplit(|byte| *byte == b'\n').next().unwrap_or_default();
    let line = String::from_utf8_lossy(last);
    let state = line.split_whitespace().nth(3);
    // The heading has "st" there.
    state.is_some_and(|state| state != TCP_LISTEN && state != "st")
}

fn inodes(table: &str, address: SocketAddr) -> BTreeSet<u64> {
    let octets = match address.ip() {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    // Four octets at a time, as numbers of this machine.
    let numbers =
        octets.as_chunks::<4>().0.iter().map(|octets| format!("{:08X}", u32::from_ne_bytes(*octets)));
    let wanted = format!("{}:{:04X}", numbers.collect::<String>(), address.port());
    let lines = table.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
    let ours =
        lines.filter(|fields| fields.get(1) == Some(&wanted.as_str()) && fields.get(3) == Some(&TCP_LISTEN));
    ours.filter_map(|fields| fields.get(9)?.parse().ok()).collect()
}

/// Whether a process holds any of these sockets.
pub fn holds(pid: u32, inodes: &BTreeSet<u64>) -> bool {
    let Ok(entries) = std::fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    let links = entries.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
    links.into_iter().any(|link| {
        let text = link.to_string_lossy();
        let inode = text.strip_prefix("socket:[").and_then(|rest| rest.strip_suffix(']'));
        inode.and_then(|inode| inode.parse().ok()).is_some_and(|inode| inodes.contains(&inode))
    })
}

/// Looks at the tables every few milliseconds, on a thread of its own, until dropped.
#[derive(Debug)]
pub struct Sampler {
    stop: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Sampler {
    /// Starts looking at who listens on loopback addresses.
    pub fn of_processes(address: SocketAddr, pids: PidTable, recorder: Arc<Recorder>) -> io::Result<Self> {
        Self::start(move |stopped| sample(address, &pids, &recorder, stopped))
    }

    /// Starts looking at who holds the address in a lab, where every host has a kernel of its own.
    pub fn of_hosts(hosts: Vec<(NodeName, HostKernel)>, recorder: Arc<Recorder>) -> io::Result<Self> {
        Self::start(move |stopped| sample_hosts(hosts, &recorder, stopped))
    }

    fn start(look: impl FnOnce(&AtomicBool) + Send + 'static) -> io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::Builder::new().name("kernel-sampler".to_owned());
        let thread = thread.spawn(move || look(&stopped))?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Sampler {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

fn sample(address: SocketAddr, pids: &PidTable, recorder: &Recorder, stopped: &AtomicBool) {
    let mut sockets = BTreeSet::new();
    let mut period = OwnerPeriod { from: Instant::now(), to: Instant::now(), owners: BTreeSet::new() };
    while !stopped.load(Ordering::Relaxed) {
        let now = Instant::now();
        period.to = now;
        match listening(address) {
            // The same sockets have the same owners, except that a fork could share them: looked up anew only
            // when the set changes, because that walks every descriptor of every process.
            Ok(seen) if seen != sockets => {
                let all = pids.all();
                let holders = all.into_iter().filter(|(_, pid)| !seen.is_empty() && holds(*pid, &seen));
                let owners = holders.map(|(name, _)| name).collect();
                recorder
                    .listeners(std::mem::replace(&mut period, OwnerPeriod { from: now, to: now, owners }));
                sockets = seen;
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, "cannot read the kernel's socket table"),
        }
        thread::sleep(SAMPLE_EVERY);
    }
    recorder.listeners(period);
}

fn sample_hosts(mut hosts: Vec<(NodeName, HostKernel)>, recorder: &Recorder, stopped: &AtomicBool) {
    let mut period = HolderPeriod::beginning(Instant::now(), BTreeMap::new());
    while !stopped.load(Ordering::Relaxed) {
        let now = Instant::now();
        period.to = now;
        match holders::look(&mut hosts, HostKernel::look) {
            Ok(seen) if seen != period.holders => {
                recorder.holders(std::mem::replace(&mut period, HolderPeriod::beginning(now, seen)));
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, "cannot ask the kernel of a host"),
        }
        thread::sleep(SAMPLE_EVERY);
    }
    recorder.holders(period);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn a_listener_is_found_with_its_process() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let found = listening(address).unwrap();
        assert_eq!(found.len(), 1);
        assert!(holds(std::process::id(), &found));
        assert!(!holds(1, &BTreeSet::from([u64::MAX])));
        drop(listener);
        assert!(listening(address).unwrap().is_empty());
    }

    #[test]
    fn reading_ends_with_the_listeners() {
        let heading = "  sl  local_address rem_address   st tx_queue\n";
        let listener = "   0: 0A00467F:1F90 00000000:0000 0A 0:0 00:0 0 0 0 77 1\n";
        let other = "   1: 0A00467F:1F90 0100007F:A0A0 06 0:0 00:0 0 0 0 0 1\n";
        assert!(!last_line_is_no_listener(format!("{heading}{listener}   2: 0A").as_bytes()));
        assert!(last_line_is_no_listener(format!("{heading}{listener}{other}").as_bytes()));
        let address = "127.70.0.10:8080".parse().unwrap();
        assert_eq!(inodes(&format!("{heading}{listener}{other}"), address), BTreeSet::from([77]));
        let listener = "   0: 000088FD00000000000000000A000000:1F90 0:0 0A 0:0 00:0 0 0 0 78 1\n";
        let address = "[fd88::a]:8080".parse().unwrap();
        assert_eq!(inodes(&format!("{heading}{listener}"), address), BTreeSet::from([78]));
    }

    #[test]
    fn two_owners_at_once_are_counted() {
        let from = Instant::now();
        let period = |owners: &[&str]| OwnerPeriod {
            from,
            to: from + Duration::from_millis(30),
            owners: owners.iter().map(|name| ProcessName::Node(name.parse().unwrap())).collect(),
        };
        assert_eq!(doubly_owned(&[period(&["gra-1"]), period(&[])]), Duration::ZERO);
        assert_eq!(doubly_owned(&[period(&["gra-1", "sbg-1"])]), Duration::from_millis(30));
    }
}
