//! The links of a real lab, seen by hosts that send each other datagrams.

use super::*;
use crate::layout::{Ground, Shape as Size, Store};
use crate::left_out;
use crate::wan::Percent;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};
use twinsite_model::Profile;

const PORT: u16 = 7;
/// Ports take a moment to be up, and hosts ask each other's address again after a second.
const SOON: Duration = Duration::from_secs(10);
/// Nothing is on its way so long in a lab whose links are not slow.
const SILENCE: Duration = Duration::from_secs(1);

/// A lab, unless none can be made here; then it is said.
fn lab() -> Option<(Arc<Lab>, Layout)> {
    let layout = Layout::on(Ground::Lab, 1, Profile::Lan, &Size::default(), Store::Embedded);
    match Lab::up(&layout) {
        Ok(lab) => return Some((lab, layout)),
        Err(LabError::Command { command, problem }) if !command.starts_with("ip netns add") => {
            panic!("{command}: {problem}")
        }
        Err(why @ LabError::Link(_)) => panic!("{why}"),
        Err(why) => left_out(&format!("links of a lab: {why}")),
    }
    None
}

/// Where the first node of a site is.
fn place(layout: &Layout, site: &SiteName) -> (String, IpAddr) {
    let node = layout.nodes.iter().find(|node| node.site == *site).unwrap();
    (node.name.to_string(), node.ip)
}

/// A socket on a host of the lab.
fn socket(host: &str, address: SocketAddr) -> UdpSocket {
    let namespace = namespace(host);
    let bind = move || {
        enter(&namespace).unwrap();
        UdpSocket::bind(address).unwrap()
    };
    std::thread::spawn(bind).join().unwrap()
}

/// Answers everything for as long as the process lives.
fn echo(host: &str, ip: IpAddr) -> SocketAddr {
    let socket = socket(host, SocketAddr::new(ip, PORT));
    let address = socket.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut buffer = [0; 2_048];
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            drop(socket.send_to(&buffer[..length], from));
        }
    });
    address
}

/// A host that asks another.
struct Asker {
    socket: UdpSocket,
    number: u32,
}

impl Asker {
    fn new(host: &str, ip: IpAddr, to: SocketAddr) -> Self {
        let socket = socket(host, SocketAddr::new(ip, 0));
        socket.connect(to).unwrap();
        socket.set_read_timeout(Some(SILENCE)).unwrap();
        Self { socket, number: 0 }
    }

    fn send(&mut self, length: usize) -> u32 {
        self.number += 1;
        let mut datagram = vec![0; length];
        datagram[..4].copy_from_slice(&self.number.to_be_bytes());
        self.socket.send(&datagram).unwrap();
        self.number
    }

    /// The number of the next answer; none after a silence.
    fn answer(&self) -> Option<u32> {
        let mut buffer = [0; 2_048];
        self.socket.recv(&mut buffer).ok()?;
        Some(u32::from_be_bytes(*buffer.first_chunk().unwrap()))
    }

    fn comes_through(&mut self) {
        let deadline = Instant::now() + SOON;
        while self.round_trip().is_none() {
            assert!(Instant::now() < deadline, "nothing comes through");
        }
    }

    /// How long a question and its answer take; answers to earlier ones may still come.
    fn round_trip(&mut self) -> Option<Duration> {
        let (asked, number) = (Instant::now(), self.send(100));
        while let Some(answered) = self.answer() {
            if answered == number {
                return Some(asked.elapsed());
            }
        }
        None
    }
}

#[test]
fn links_are_slow_narrow_lossy_and_cut_as_told() {
    let Some((lab, layout)) = lab() else { return };
    let (gra, sbg) = (&layout.sites[0], &layout.sites[1]);
    let ((near, near_ip), (far, far_ip)) = (place(&layout, gra), place(&layout, sbg));
    let address = echo(&far, far_ip);
    let mut asker = Asker::new(&near, near_ip, address);
    let mut client = Asker::new(CLIENTS, layout.gateway(), address);
    let whole = Shape::default();
    asker.comes_through();
    client.comes_through();

    let slow = Shape { delay: Duration::from_millis(60), ..whole };
    lab.set_link(gra, sbg, slow).unwrap();
    let one_way = asker.round_trip().unwrap();
    assert!(one_way >= slow.delay, "{one_way:?}");
    lab.set_link(sbg, gra, slow).unwrap();
    let both_ways = asker.round_trip().unwrap();
    assert!(both_ways >= 2 * slow.delay, "{both_ways:?}");
    lab.set_link(sbg, gra, whole).unwrap();

    // A hundred kilobytes a second: twenty of a kilobyte take a fifth of one.
    lab.set_link(gra, sbg, Shape { rate: Some(100_000), ..whole }).unwrap();
    let began = Instant::now();
    let sent: Vec<_> = (0..20).map(|_| asker.send(1_000)).collect();
    let answered: Vec<_> = sent.iter().map_while(|_| asker.answer()).collect();
    assert_eq!(answered, sent, "in order, and none is lost");
    assert!(began.elapsed() >= Duration::from_millis(190), "{:?}", began.elapsed());

    lab.set_link(gra, sbg, Shape { loss: Percent::try_from(50).unwrap(), ..whole }).unwrap();
    for _ in 0..200 {
        asker.send(100);
    }
    let mut answered = 0;
    while asker.answer().is_some() {
        answered += 1;
    }
    // With chances of less than one to ten million it is less or more.
    assert!((60..=140).contains(&answered), "{answered} of 200");

    for (from, to) in [(gra, sbg), (sbg, gra)] {
        lab.set_link(gra, sbg, whole).unwrap();
        lab.set_link(sbg, gra, whole).unwrap();
        assert!(asker.round_trip().is_some());
        lab.set_link(from, to, Shape { cut: true, ..whole }).unwrap();
        assert_eq!(asker.round_trip(), None, "{from} -> {to} is cut");
        assert!(client.round_trip().is_some(), "and clients have ways of their own");
    }
    let bridge = std::thread::spawn(move || {
        enter(&lab.clients()).unwrap();
        let shown = Command::new("ip").args(["-oneline", "link", "show", "br0"]).output().unwrap();
        enter(&namespace(&far)).unwrap();
        let known =
            Command::new("ip").args(["neigh", "show", &layout.gateway().to_string()]).output().unwrap();
        drop(lab);
        (String::from_utf8(shown.stdout).unwrap(), String::from_utf8(known.stdout).unwrap())
    });
    let (shown, known) = bridge.join().unwrap();
    let mac = shown.split("link/ether ").nth(1).and_then(|rest| rest.split(' ').next()).unwrap();
    assert!(known.contains(mac), "{far_ip} knows the clients' bridge, {mac}, and no other: {known}");
}
