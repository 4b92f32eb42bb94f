//! Whether another host answers for an address that this one holds.
//!
//! The nodes keep each other from answering at once; nothing keeps a host that is none of them from it (an address that
//! somebody configured by hand, a clone of a machine). So the holder asks the network who has the address, as a host
//! that is about to take one does (RFC 5227, section 2.1.1: a probe in nobody's name; for IPv6 a neighbour solicitation, RFC
//! 4861, section 7.2.2, from another address of this host), and hears whoever speaks in its name (RFC 5227, section 2.4).
//! Every node but the holder is dark, so whoever answers is a stranger.
//!
//! Nothing waits for the answer: a takeover would come later by it, and a stranger could prevent it. What is found is an
//! alarm for people.

use pnet_datalink::{Channel, ChannelType, Config};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddrV6};
use std::thread;
use std::time::{Duration, Instant};
use twinsite_model::HardwareAddress;

/// `ETH_P_ARP` (`include/uapi/linux/if_ether.h`).
const ETHERTYPE_ARP: u16 = 0x0806;
const BROADCAST: [u8; 6] = [0xff; 6];
const NEIGHBOUR_SOLICITATION: u8 = 135;
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
const SOURCE_LINK_LAYER_ADDRESS: u8 = 1;
const TARGET_LINK_LAYER_ADDRESS: u8 = 2;
/// Anything less has crossed a router, and is not answered (RFC 4861, section 7.1.1).
const HOPS: u32 = 255;
/// Messages read in one turn: whoever floods this host with them wins no more of its time.
const READ_MAX: usize = 64;
/// The longest message looked at: what follows an address in it is of no interest.
const MESSAGE_BYTES: usize = 256;
/// What one frame says may be the last word of an earlier holder that was long on its way. A stranger is believed when it
/// has spoken after two questions.
const QUESTIONS_TO_BELIEVE: u32 = 2;
/// How soon it is asked again when somebody has answered once.
const AGAIN: Duration = Duration::from_millis(500);
/// How long an answer may take where it is waited for: twice the way between sites.
const ANSWERS_WITHIN: Duration = Duration::from_millis(150);
/// Questions without an answer after which a stranger is gone.
const QUESTIONS_TO_FORGET: u32 = 2;

/// Asks for one address on one interface and listens.
pub(super) struct Listening {
    address: IpAddr,
    interface: String,
    index: u32,
    hardware: HardwareAddress,
    line: Socket,
    suspicion: Suspicion,
}

impl Listening {
    /// Listens from now on.
    pub(super) fn open(address: IpAddr, interface: &str, index: u32, hardware: [u8; 6]) -> io::Result<Self> {
        let line = match address {
            // Without the link header, so that Linux gives the ARP message itself.
            IpAddr::V4(_) => {
                let arp = Protocol::from(i32::from(ETHERTYPE_ARP.to_be()));
                Socket::new(Domain::PACKET, Type::DGRAM, Some(arp))?
            }
            IpAddr::V6(_) => {
                let line = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6))?;
                line.set_multicast_hops_v6(HOPS)?;
                line.set_multicast_if_v6(index)?;
                line.set_multicast_loop_v6(false)?;
                line
            }
        };
        line.set_nonblocking(true)?;
        let hardware = HardwareAddress(hardware);
        let interface = interface.to_owned();
        Ok(Self { address, interface, index, hardware, line, suspicion: Suspicion::default() })
    }

    /// Asks who has the address.
    pub(super) fn ask(&mut self) -> io::Result<()> {
        self.suspicion.asked(Instant::now());
        match self.address {
            IpAddr::V4(address) => {
                let known = pnet_datalink::interfaces();
                let interface = known.into_iter().find(|known| known.name == self.interface);
                let interface = interface
                    .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the interface is gone"))?;
                let config =
                    Config { channel_type: ChannelType::Layer2, promiscuous: false, ..Config::default() };
                let Channel::Ethernet(mut out, _) = pnet_datalink::channel(&interface, config)? else {
                    return Err(io::Error::other("the interface has no link layer"));
                };
                let frame = probe(address, self.hardware);
                out.send_to(&frame, None).unwrap_or(Err(io::ErrorKind::WriteZero.into()))
            }
            IpAddr::V6(address) => {
                let to = SocketAddrV6::new(all_with(address), 0, 0, self.index);
                let question = solicitation(address, self.hardware);
                self.line.send_to(&question, &SockAddr::from(to)).map(drop)
            }
        }
    }

    /// Whether it is time to ask again because of what was heard.
    pub(super) fn wants_to_ask(&self) -> bool {
        self.suspicion.wants_to_ask(Instant::now())
    }

    /// Takes what has come.
    pub(super) fn hear(&mut self) -> io::Result<()> {
        let mut message = [0; MESSAGE_BYTES];
        for _ in 0..READ_MAX {
            let length = match (&self.line).read(&mut message) {
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            let message = &message[..length];
            let said_by = match self.address {
                IpAddr::V4(address) => arp_sender(address, message),
                IpAddr::V6(address) => advertiser(address, message),
            };
            // This host may be in the same network by other interfaces, and answers there too.
            let is_ours = |said_by: HardwareAddress| {
                said_by == self.hardware
                    || pnet_datalink::interfaces()
                        .iter()
                        .any(|ours| ours.mac.is_some_and(|mac| mac.octets() == said_by.0))
            };
            if let Some(said_by) = said_by.filter(|said_by| !is_ours(*said_by)) {
                self.suspicion.heard(said_by);
            }
        }
        Ok(())
    }

    /// Who else answers for the address.
    pub(super) fn stranger(&self) -> Option<HardwareAddress> {
        self.suspicion.stranger()
    }
}

/// Which other host answers for an address that this one does not hold, be it a node or not. Takes as long as answers may
/// take.
pub(super) fn who_has(
    address: IpAddr,
    interface: &str,
    index: u32,
    hardware: [u8; 6],
) -> io::Result<Option<HardwareAddress>> {
    let mut listening = Listening::open(address, interface, index, hardware)?;
    for _ in 0..QUESTIONS_TO_BELIEVE {
        listening.ask()?;
        thread::sleep(ANSWERS_WITHIN);
        listening.hear()?;
    }
    Ok(listening.stranger())
}

/// What was heard of a stranger.
#[derive(Debug, Default)]
struct Suspicion {
    asked_at: Option<Instant>,
    suspect: Option<HardwareAddress>,
    /// Questions after which it has spoken.
    answered: u32,
    /// Questions since it has spoken, the last one included.
    unanswered: u32,
    /// Whether it has spoken since the last question.
    has_spoken: bool,
}

impl Suspicion {
    fn asked(&mut self, now: Instant) {
        self.asked_at = Some(now);
        self.has_spoken = false;
        if self.suspect.is_some() {
            self.unanswered += 1;
            if self.unanswered > QUESTIONS_TO_FORGET {
                *self = Self { asked_at: self.asked_at, ..Self::default() };
            }
        }
    }

    fn heard(&mut self, from: HardwareAddress) {
        if self.suspect != Some(from) && self.stranger().is_none() {
            (self.suspect, self.answered, self.has_spoken) = (Some(from), 0, false);
        }
        if self.suspect == Some(from) {
            self.answered += u32::from(!self.has_spoken);
            (self.has_spoken, self.unanswered) = (true, 0);
        }
    }

    fn wants_to_ask(&self, now: Instant) -> bool {
        self.suspect.is_some()
            && self.stranger().is_none()
            && self.asked_at.is_none_or(|at| now.saturating_duration_since(at) >= AGAIN)
    }

    fn stranger(&self) -> Option<HardwareAddress> {
        self.suspect.filter(|_| self.answered >= QUESTIONS_TO_BELIEVE)
    }
}

/// A question for the address in nobody's name (RFC 5227, section 2.1.1).
fn probe(address: Ipv4Addr, hardware: HardwareAddress) -> Vec<u8> {
    [
        &BROADCAST[..],
        &hardware.0,
        &ETHERTYPE_ARP.to_be_bytes(),
        &[0, 1, 0x08, 0x00, 6, 4, 0, 1], // Ethernet, IPv4, the lengths of their addresses, a question
        &hardware.0,
        &[0; 4],
        &[0; 6],
        &address.octets(),
    ]
    .concat()
}

/// Who says in an ARP message that it has the address (RFC 826).
fn arp_sender(address: Ipv4Addr, message: &[u8]) -> Option<HardwareAddress> {
    let is_ethernet = message.get(..6)? == [0, 1, 0x08, 0x00, 6, 4];
    let is_of_it = message.get(14..18)? == address.octets();
    (is_ethernet && is_of_it).then(|| message.get(8..14)?.try_into().ok().map(HardwareAddress))?
}

/// The group of all hosts that may have an address (RFC 4291, section 2.7.1).
fn all_with(address: Ipv6Addr) -> Ipv6Addr {
    let [.., high, low] = address.segments();
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | high & 0xff, low)
}

/// RFC 4861, section 4.3. The kernel fills in the checksum (RFC 3542, section 3.1).
fn solicitation(address: Ipv6Addr, hardware: HardwareAddress) -> Vec<u8> {
    [
        &[NEIGHBOUR_SOLICITATION, 0, 0, 0, 0, 0, 0, 0][..],
        &address.octets(),
        &[SOURCE_LINK_LAYER_ADDRESS, 1],
        &hardware.0,
    ]
    .concat()
}

/// Who advertises that it has the address (RFC 4861, section 4.4); an advertisement without the hardware address tells nothing.
fn advertiser(address: Ipv6Addr, message: &[u8]) -> Option<HardwareAddress> {
    let is_of_it = *message.first()? == NEIGHBOUR_ADVERTISEMENT && message.get(8..24)? == address.octets();
    let option = message.get(24..32).filter(|option| option[..2] == [TARGET_LINK_LAYER_ADDRESS, 1])?;
    is_of_it.then(|| option[2..].try_into().ok().map(HardwareAddress))?
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: HardwareAddress = HardwareAddress([2, 0, 0, 0, 0, 7]);
    const OTHER: HardwareAddress = HardwareAddress([2, 0, 0, 0, 0, 8]);

    /// Byte by byte as RFC 826 and RFC 5227 have it.
    #[test]
    fn a_probe_claims_nothing() {
        let address = Ipv4Addr::new(192, 0, 2, 7);
        let frame = probe(address, OURS);
        let head: [&[u8]; 3] = [&[0xff; 6], &OURS.0, &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1]];
        let body: [&[u8]; 4] = [&OURS.0, &[0; 4], &[0; 6], &[192, 0, 2, 7]];
        assert_eq!(frame, [head.concat(), body.concat()].concat());
        assert_eq!(arp_sender(address, &frame[14..]), None, "who hears it takes nobody for the holder");
    }

    #[test]
    fn who_speaks_in_its_name_is_known() {
        let address = Ipv4Addr::new(192, 0, 2, 7);
        let answer = [&[0, 1, 8, 0, 6, 4, 0, 2][..], &OTHER.0, &address.octets(), &OURS.0, &[0; 4]].concat();
        assert_eq!(arp_sender(address, &answer), Some(OTHER));
        assert_eq!(arp_sender(Ipv4Addr::new(192, 0, 2, 8), &answer), None);
        assert_eq!(arp_sender(address, &answer[..17]), None, "cut short");

        let address: Ipv6Addr = "2001:db8::a7:1234".parse().unwrap();
        assert_eq!(all_with(address), "ff02::1:ffa7:1234".parse::<Ipv6Addr>().unwrap());
        let advertised = [&[136, 0, 0, 0, 0x60, 0, 0, 0][..], &address.octets(), &[2, 1], &OTHER.0].concat();
        assert_eq!(advertiser(address, &advertised), Some(OTHER));
        assert_eq!(advertiser("2001:db8::8".parse().unwrap(), &advertised), None);
        assert_eq!(advertiser(address, &solicitation(address, OURS)), None);
        assert_eq!(advertiser(address, &advertised[..31]), None, "cut short");
    }

    #[test]
    fn a_stranger_is_believed_when_it_goes_on_and_forgotten_when_it_is_silent() {
        let begin = Instant::now();
        let at = |millis| begin + Duration::from_millis(millis);
        let mut suspicion = Suspicion::default();
        suspicion.asked(at(0));
        suspicion.heard(OTHER);
        suspicion.heard(OTHER);
        assert_eq!(suspicion.stranger(), None, "an earlier holder's last words");
        assert!(!suspicion.wants_to_ask(at(100)) && suspicion.wants_to_ask(at(600)));
        suspicion.asked(at(600));
        suspicion.heard(OTHER);
        assert_eq!(suspicion.stranger(), Some(OTHER));
        assert!(!suspicion.wants_to_ask(at(5_000)), "known");
        suspicion.heard(OURS);
        assert_eq!(suspicion.stranger(), Some(OTHER), "one after the other");

        for millis in [30_000, 60_000] {
            suspicion.asked(at(millis));
            assert_eq!(suspicion.stranger(), Some(OTHER), "one answer may be lost");
        }
        suspicion.asked(at(90_000));
        assert_eq!(suspicion.stranger(), None);
    }
}
