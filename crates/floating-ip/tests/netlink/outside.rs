//! What the clients' network sees of an address: everything that is said in its name, with the time, while it is asked
//! for several hundred times a second.

use crate::hosts::{Hosts, enter};
use pnet_datalink::{Channel, Config, DataLinkSender, NetworkInterface};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// How often it is asked for.
const ASK_EVERY: Duration = Duration::from_millis(2);
const SOON: Duration = Duration::from_secs(5);
const IPV4: [u8; 2] = [0x08, 0x00];
const ARP: [u8; 2] = [0x08, 0x06];
const IPV6: [u8; 2] = [0x86, 0xdd];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Anything,
    /// To us.
    Answer,
    /// To everybody.
    Announcement,
}

type Seen = Arc<Mutex<Vec<(Instant, Kind)>>>;

/// Watches until it is dropped.
pub(crate) struct Watch {
    seen: Seen,
    over: Arc<AtomicBool>,
}

impl Watch {
    pub(crate) fn start(hosts: &Hosts, address: IpAddr) -> Self {
        let (seen, over) = (Seen::default(), Arc::new(AtomicBool::new(false)));
        let namespace = hosts.namespace("client");
        let (ready, begun) = channel();
        let (noted, until) = (Arc::clone(&seen), Arc::clone(&over));
        thread::spawn(move || {
            enter(&namespace);
            let bridge = pnet_datalink::interfaces().into_iter().find(|one| one.name == "br0").unwrap();
            let config = Config { read_timeout: Some(Duration::from_millis(20)), ..Config::default() };
            let Channel::Ethernet(out, mut heard) = pnet_datalink::channel(&bridge, config).unwrap() else {
                panic!("no Ethernet");
            };
            let asking = Arc::clone(&until);
            thread::spawn(move || ask(address, &bridge, out, &asking));
            ready.send(()).unwrap();
            while !until.load(Ordering::Relaxed) {
                if let Ok(frame) = heard.next() {
                    let now = Instant::now();
                    if is_of(address, frame) {
                        let kind = if frame[0] & 1 == 1 { Kind::Announcement } else { Kind::Answer };
                        noted.lock().unwrap().push((now, kind));
                    }
                }
            }
        });
        begun.recv().unwrap();
        Self { seen, over }
    }

    /// Forgets what it saw, so that looking at it does not take ever longer.
    pub(crate) fn forget(&self) {
        self.seen.lock().unwrap().clear();
    }

    pub(crate) fn seen(&self, kind: Kind) -> usize {
        self.times(kind).len()
    }

    pub(crate) fn seen_after(&self, kind: Kind, after: Instant) -> usize {
        self.times(kind).into_iter().filter(|at| *at > after).count()
    }

    pub(crate) fn last(&self, kind: Kind) -> Option<Instant> {
        self.times(kind).into_iter().max()
    }

    fn times(&self, wanted: Kind) -> Vec<Instant> {
        let seen = self.seen.lock().unwrap();
        let wanted = seen.iter().filter(|(_, kind)| wanted == Kind::Anything || *kind == wanted);
        wanted.map(|(at, _)| *at).collect()
    }

    /// Waits until it has seen something.
    pub(crate) fn wait(&self, what: &str, hosts: &Hosts, wanted: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + SOON;
        while !wanted(self) {
            assert!(
                Instant::now() < deadline,
                "{what}: not within {SOON:?}: {} frames, the last {:?} ago: {}",
                self.seen(Kind::Anything),
                self.last(Kind::Anything).map(|last| last.elapsed()),
                hosts.describe("a")
            );
            thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
    }
}

/// Whether a frame says something in the name of an address.
fn is_of(address: IpAddr, frame: &[u8]) -> bool {
    let at = |from: usize, length: usize| frame.get(from..from + length);
    let kind = at(12, 2);
    match address {
        IpAddr::V4(address) => {
            let octets = Some(&address.octets()[..]);
            kind == Some(&IPV4) && at(26, 4) == octets || kind == Some(&ARP) && at(28, 4) == octets
        }
        IpAddr::V6(address) => {
            let octets = Some(&address.octets()[..]);
            let is_advertisement = at(20, 1) == Some(&[58]) && at(54, 1) == Some(&[136]);
            kind == Some(&IPV6) && (at(22, 16) == octets || is_advertisement && at(62, 16) == octets)
        }
    }
}

/// Asks where the address is, and whether it is there.
fn ask(address: IpAddr, bridge: &NetworkInterface, mut out: Box<dyn DataLinkSender>, over: &AtomicBool) {
    let (domain, protocol, echo) = match address {
        IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4, vec![8, 0, 0xf7, 0xff, 0, 0, 0, 0]),
        IpAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6, vec![128, 0, 0, 0, 0, 0, 0, 0]),
    };
    let socket = Socket::new(domain, Type::RAW, Some(protocol)).unwrap();
    let to = SockAddr::from(SocketAddr::new(address, 0));
    let hardware = bridge.mac.unwrap().octets();
    let question = match address {
        IpAddr::V4(address) => arp(address, hardware),
        IpAddr::V6(address) => solicitation(address, hardware),
    };
    while !over.load(Ordering::Relaxed) {
        // Nobody has it, the host is away: that is what is being found out.
        drop(socket.send_to(&echo, &to));
        drop(out.send_to(&question, None));
        thread::sleep(ASK_EVERY);
    }
}

fn arp(address: Ipv4Addr, hardware: [u8; 6]) -> Vec<u8> {
    let head = [0, 1, 8, 0, 6, 4, 0, 1];
    let us = [10, 77, 0, 1];
    [&[0xff; 6][..], &hardware, &ARP, &head, &hardware, &us, &[0; 6], &address.octets()].concat()
}

fn solicitation(address: Ipv6Addr, hardware: [u8; 6]) -> Vec<u8> {
    let target = address.octets();
    let us = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 1).octets();
    let mut group = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00, 0).octets();
    group[13..].copy_from_slice(&target[13..]);
    let to = [0x33, 0x33, group[12], group[13], group[14], group[15]];
    let mut message = [&[135, 0, 0, 0, 0, 0, 0, 0][..], &target, &[1, 1], &hardware].concat();
    let length = message.len() as u8;
    let pseudo = [&us[..], &group, &[0, 0, 0, length, 0, 0, 0, 58], &message].concat();
    let sum: u32 = pseudo.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let checksum = !((folded & 0xffff) + (folded >> 16)) as u16;
    message[2..4].copy_from_slice(&checksum.to_be_bytes());
    let head = [0x60, 0, 0, 0, 0, length, 58, 255];
    [&to[..], &hardware, &IPV6, &head, &us, &group, &message].concat()
}
