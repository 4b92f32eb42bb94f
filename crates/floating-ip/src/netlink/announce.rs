//! Telling the network where an address is now: gratuitous ARP (RFC 5227, section 3), unsolicited neighbour
//! advertisements (RFC 4861, section 7.2.6). And what goes with it: telling the clients of an earlier owner (`tickle.rs`),
//! and asking whether anybody else has the address (`conflict.rs`).
//!
//! The frames are made by hand, and the rules hold them back like any other word of this host when the address is dark
//! (IPv4: at the interface, since Linux 5.16; IPv6: they go through the kernel).

use super::address::Interface;
use super::conflict::Listening;
use super::tickle::{Orphans, Tickling};
use pnet_datalink::{Channel, ChannelType, Config, NetworkInterface};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::thread;
use std::time::{Duration, Instant};
use twinsite_model::HardwareAddress;

/// When it is told, after the address was taken: at once and again soon, because one frame may be lost, and because
/// switches that are just learning lose the first ones.
const BURST: [Duration; 5] = [
    Duration::ZERO,
    Duration::from_millis(50),
    Duration::from_millis(250),
    Duration::from_secs(1),
    Duration::from_secs(5),
];
/// How often afterwards.
const AGAIN: Duration = Duration::from_secs(30);
/// How often it is looked at whether the address is still held.
const LOOK_EVERY: Duration = Duration::from_millis(25);

const BROADCAST: [u8; 6] = [0xff; 6];
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
/// What the receiver knew is to be replaced.
const OVERRIDE: u8 = 0x20;
const TARGET_LINK_LAYER_ADDRESS: u8 = 2;
/// Anything less has crossed a router, and is not believed (RFC 4861, section 7.1.2).
const HOPS: u32 = 255;

/// Whether this process may tell the network anything, before it is to.
pub(super) fn may_tell(address: IpAddr) -> io::Result<()> {
    let socket = match address {
        // Without a protocol it hears nothing.
        IpAddr::V4(_) => Socket::new(Domain::PACKET, Type::RAW, None),
        IpAddr::V6(_) => Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6)),
    };
    socket.map(drop)
}

/// Tells it for one address on one interface.
pub(super) struct Announcing {
    address: IpAddr,
    interface: String,
    index: u32,
    /// None where there is no Ethernet, and nobody to be told.
    hardware: Option<[u8; 6]>,
}

impl Announcing {
    pub(super) fn new(address: IpAddr, name: &str, interface: &Interface) -> Self {
        let Interface { index, hardware, .. } = *interface;
        Self { address, interface: name.to_owned(), index, hardware }
    }

    /// Tells it, first often and then now and then, until `is_lit` says nothing any more; not while it says no.
    /// `orphans` are the connections of earlier owners; `stranger` is told who else has the address, and when it is gone.
    pub(super) fn run(
        self,
        is_lit: impl Fn() -> Option<bool>,
        orphans: Orphans,
        stranger: impl Fn(Option<HardwareAddress>),
    ) {
        let began = Instant::now();
        let may = || is_lit() == Some(true);
        let mut tickling = Tickling::new(self.address, orphans);
        let mut listening = self.hardware.and_then(|hardware| self.listen(hardware));
        let mut due =
            BURST.into_iter().chain((1..).map(|times| BURST[BURST.len() - 1] + AGAIN * times)).peekable();
        while let Some(lit) = is_lit() {
            let is_due = lit && due.next_if(|due| began.elapsed() >= *due).is_some();
            if let Some(hardware) = self.hardware.filter(|_| is_due)
                && let Err(error) = self.tell(hardware, &may)
            {
                tracing::warn!(ip = %self.address, %error, "the network was not told where a floating IP is");
            }
            // After the network was told: so the clients' answers come here.
            if lit && let Err(error) = tickling.turn(began.elapsed(), &may) {
                tracing::warn!(ip = %self.address, %error, "the clients of an earlier owner were not told");
            }
            if let Some(listening) = listening.as_mut().filter(|_| lit)
                && let Err(error) = look_for_strangers(listening, is_due)
            {
                tracing::debug!(ip = %self.address, %error, "it was not asked who else has a floating IP");
            }
            stranger(listening.as_ref().and_then(Listening::stranger));
            thread::sleep(LOOK_EVERY);
        }
        stranger(None); // whoever holds it next looks anew
    }

    fn listen(&self, hardware: [u8; 6]) -> Option<Listening> {
        let listening = Listening::open(self.address, &self.interface, self.index, hardware);
        let failed = |error: &io::Error| {
            tracing::warn!(ip = %self.address, %error, "it cannot be heard whether another host has a floating IP");
        };
        listening.inspect_err(failed).ok()
    }

    /// What has to be made ready may take its time: whether it may still be told is asked right before each word.
    fn tell(&self, hardware: [u8; 6], may: &dyn Fn() -> bool) -> io::Result<()> {
        match self.address {
            IpAddr::V4(address) => gratuitous_arp(address, &self.interface, hardware, may),
            IpAddr::V6(address) => advertise(address, self.index, hardware, may),
        }
    }
}

fn look_for_strangers(listening: &mut Listening, is_due: bool) -> io::Result<()> {
    listening.hear()?;
    if is_due || listening.wants_to_ask() { listening.ask() } else { Ok(()) }
}

fn gratuitous_arp(
    address: Ipv4Addr,
    interface: &str,
    hardware: [u8; 6],
    may: &dyn Fn() -> bool,
) -> io::Result<()> {
    let known = pnet_datalink::interfaces();
    let interface: NetworkInterface = known
        .into_iter()
        .find(|known| known.name == interface)
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the interface is gone"))?;
    // The library always opens a line that hears everything too: it is closed again at once.
    let config = Config { channel_type: ChannelType::Layer2, promiscuous: false, ..Config::default() };
    let Channel::Ethernet(mut out, _) = pnet_datalink::channel(&interface, config)? else {
        return Err(io::Error::other("the interface has no link layer"));
    };
    // As a question and as an answer: some systems believe only the one, some only the other.
    for operation in [1, 2] {
        let frame = arp_frame(address, hardware, operation);
        if !may() {
            return Ok(());
        }
        out.send_to(&frame, None).unwrap_or(Err(io::ErrorKind::WriteZero.into()))?;
    }
    Ok(())
}

fn arp_frame(address: Ipv4Addr, hardware: [u8; 6], operation: u8) -> Vec<u8> {
    let target = if operation == 1 { [0; 6] } else { hardware };
    [
        &BROADCAST[..],
        &hardware,
        &[0x08, 0x06],                           // ARP
        &[0, 1, 0x08, 0x00, 6, 4, 0, operation], // Ethernet, IPv4, the lengths of their addresses
        &hardware,
        &address.octets(),
        &target,
        &address.octets(),
    ]
    .concat()
}

fn advertise(address: Ipv6Addr, index: u32, hardware: [u8; 6], may: &dyn Fn() -> bool) -> io::Result<()> {
    let socket = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6))?;
    socket.set_multicast_hops_v6(HOPS)?;
    socket.set_multicast_if_v6(index)?;
    socket.set_multicast_loop_v6(false)?;
    socket.bind(&SockAddr::from(SocketAddr::new(IpAddr::V6(address), 0)))?;
    let to = SocketAddrV6::new(ALL_NODES, 0, 0, index);
    if !may() {
        return Ok(());
    }
    // The kernel fills in the checksum (RFC 3542, section 3.1).
    socket.send_to(&advertisement(address, hardware), &SockAddr::from(to)).map(drop)
}

fn advertisement(address: Ipv6Addr, hardware: [u8; 6]) -> Vec<u8> {
    [
        &[NEIGHBOUR_ADVERTISEMENT, 0, 0, 0, OVERRIDE, 0, 0, 0][..],
        &address.octets(),
        &[TARGET_LINK_LAYER_ADDRESS, 1],
        &hardware,
    ]
    .concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HARDWARE: [u8; 6] = [2, 0, 0, 0, 0, 7];

    /// Byte by byte as RFC 826 and RFC 5227 have it.
    #[test]
    fn a_gratuitous_arp_has_the_address_twice() {
        let frame = arp_frame(Ipv4Addr::new(192, 0, 2, 7), HARDWARE, 1);
        let expected = [
            &[0xff; 6][..],
            &HARDWARE,
            &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1],
            &HARDWARE,
            &[192, 0, 2, 7],
            &[0; 6],
            &[192, 0, 2, 7],
        ];
        assert_eq!(frame, expected.concat());
        assert_eq!(arp_frame(Ipv4Addr::new(192, 0, 2, 7), HARDWARE, 2)[32..38], HARDWARE);
    }

    #[test]
    fn an_advertisement_names_target_and_hardware() {
        let address: Ipv6Addr = "2001:db8::7".parse().unwrap();
        let message = advertisement(address, HARDWARE);
        assert_eq!((message[0], message[4], message.len()), (136, 0x20, 32));
        assert_eq!(message[8..24], address.octets());
        assert_eq!(message[24..], [&[2, 1][..], &HARDWARE].concat());
    }
}
