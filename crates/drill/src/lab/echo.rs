//! The frames of a prober: ICMP echo requests (RFC 792, RFC 4443) for one interface, and what says the address as its own.

use crate::measure::hosts::Frame;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An Ethernet address.
pub(super) type Mac = [u8; 6];

pub(super) const ETHERNET_BYTES: usize = 14;
const IPV4_BYTES: usize = 20;
const IPV6_BYTES: usize = 40;
const ICMP_BYTES: usize = 8;
/// The prober's mark, the host, and the number of the probe.
const CARRIED_BYTES: usize = 8 + 2 + 8;
const MESSAGE_BYTES: u8 = (ICMP_BYTES + CARRIED_BYTES) as u8;

const ETHERTYPE_IPV4: [u8; 2] = [0x08, 0x00];
const ETHERTYPE_ARP: [u8; 2] = [0x08, 0x06];
const ETHERTYPE_IPV6: [u8; 2] = [0x86, 0xdd];
const DONT_FRAGMENT: u8 = 0x40;
/// No host hands it on.
const HOPS: u8 = 1;
const PROTOCOL_ICMP: u8 = 1;
const PROTOCOL_ICMPV6: u8 = 58;
const ECHO_REQUEST: u8 = 8;
const ECHO_REPLY: u8 = 0;
const ECHO_REQUEST_V6: u8 = 128;
const ECHO_REPLY_V6: u8 = 129;
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
/// In an ARP message, after the numbers of its types and lengths (RFC 826).
const ARP_OPERATION: usize = ETHERNET_BYTES + 6;
const ARP_REQUEST: [u8; 2] = [0, 1];

/// Of whom and to whom probes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ends {
    V4 { from: Ipv4Addr, to: Ipv4Addr },
    V6 { from: Ipv6Addr, to: Ipv6Addr },
}

impl Ends {
    /// None if they are not of one family.
    pub(super) fn new(from: IpAddr, to: IpAddr) -> Option<Self> {
        match (from, to) {
            (IpAddr::V4(from), IpAddr::V4(to)) => Some(Self::V4 { from, to }),
            (IpAddr::V6(from), IpAddr::V6(to)) => Some(Self::V6 { from, to }),
            _ => None,
        }
    }
}

/// The probes to one host, which differ in their number only.
#[derive(Debug, Clone)]
pub(super) struct Request {
    frame: Vec<u8>,
    /// Where the message begins.
    message: usize,
    /// What is summed up beside the message: with IPv6 the addresses, its length and its kind (RFC 8200, section 8.1).
    pseudo: Vec<u8>,
}

impl Request {
    /// From one interface to another. `mark` tells the prober's own probes from others, `host` the hosts of one prober from
    /// each other.
    pub(super) fn new([from, to]: [Mac; 2], ends: Ends, mark: u64, host: u16) -> Self {
        let (ethertype, ip, kind, pseudo) = match ends {
            Ends::V4 { from, to } => {
                let length = IPV4_BYTES as u8 + MESSAGE_BYTES;
                let mut ip = [0x45, 0, 0, length, 0, 0, DONT_FRAGMENT, 0, HOPS, PROTOCOL_ICMP, 0, 0];
                let addresses = [from.octets(), to.octets()].concat();
                let sum = checksum(&[&ip[..], &addresses].concat()).to_be_bytes();
                ip[10..].copy_from_slice(&sum);
                (ETHERTYPE_IPV4, [&ip[..], &addresses].concat(), ECHO_REQUEST, Vec::new())
            }
            Ends::V6 { from, to } => {
                let ip = [0x60, 0, 0, 0, 0, MESSAGE_BYTES, PROTOCOL_ICMPV6, HOPS];
                let addresses = [from.octets(), to.octets()].concat();
                let pseudo = [&addresses[..], &[0, 0, 0, MESSAGE_BYTES, 0, 0, 0, PROTOCOL_ICMPV6]].concat();
                (ETHERTYPE_IPV6, [&ip[..], &addresses].concat(), ECHO_REQUEST_V6, pseudo)
            }
        };
        let icmp = [kind, 0, 0, 0, 0, 0, 0, 0];
        let carried = [&mark.to_be_bytes()[..], &host.to_be_bytes(), &[0; 8]].concat();
        let frame = [&to[..], &from, &ethertype, &ip, &icmp, &carried].concat();
        Self { frame, message: ETHERNET_BYTES + ip.len(), pseudo }
    }

    /// The frame of probe number `number`.
    pub(super) fn numbered(&mut self, number: u64) -> &[u8] {
        let Self { frame, message, pseudo } = self;
        let message = &mut frame[*message..];
        message[ICMP_BYTES + CARRIED_BYTES - 8..].copy_from_slice(&number.to_be_bytes());
        message[2..4].fill(0);
        let sum = checksum(&[&pseudo[..], &message[..]].concat()).to_be_bytes();
        message[2..4].copy_from_slice(&sum);
        frame
    }
}

/// Which probe of which host a frame answers, if it answers one with this mark.
pub(super) fn answered(frame: &[u8], mark: u64) -> Option<(u16, u64)> {
    // Without options in the header, because the probes had none.
    let (at, kind) = match frame.get(12..14)?.try_into().ok()? {
        ETHERTYPE_IPV4 => {
            let [version, protocol] = [frame.get(ETHERNET_BYTES)?, frame.get(ETHERNET_BYTES + 9)?];
            let is_icmp = *version == 0x45 && *protocol == PROTOCOL_ICMP;
            (is_icmp.then_some(ETHERNET_BYTES + IPV4_BYTES)?, ECHO_REPLY)
        }
        ETHERTYPE_IPV6 => (icmpv6(frame)?, ECHO_REPLY_V6),
        _ => return None,
    };
    let (its_mark, rest) = frame.get(at + ICMP_BYTES..)?.split_first_chunk::<8>()?;
    let (host, rest) = rest.split_first_chunk::<2>()?;
    let number = rest.first_chunk::<8>()?;
    let ours = frame[at] == kind && u64::from_be_bytes(*its_mark) == mark;
    ours.then(|| (u16::from_be_bytes(*host), u64::from_be_bytes(*number)))
}

/// Where the `ICMPv6` message of a frame begins, if it is one without extension headers.
fn icmpv6(frame: &[u8]) -> Option<usize> {
    let is_ours = frame.get(12..14)? == ETHERTYPE_IPV6 && *frame.get(ETHERNET_BYTES + 6)? == PROTOCOL_ICMPV6;
    is_ours.then_some(ETHERNET_BYTES + IPV6_BYTES)
}

/// As what a frame says the address that it has as its source; none if it is too short to say anything.
pub(super) fn kind(frame: &[u8]) -> Option<Frame> {
    let message = icmpv6(frame).and_then(|at| frame.get(at));
    Some(if frame.get(12..14)? == ETHERTYPE_ARP {
        match frame.get(ARP_OPERATION..ARP_OPERATION + 2)?.try_into().ok()? {
            ARP_REQUEST => Frame::ArpRequest,
            _ => Frame::ArpReply,
        }
    } else if message == Some(&NEIGHBOUR_ADVERTISEMENT) {
        Frame::Advertisement
    } else {
        Frame::Packet
    })
}

/// RFC 1071. Of an even number of bytes.
fn checksum(bytes: &[u8]) -> u16 {
    let sum: u32 = bytes.chunks_exact(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
    let sum = (sum >> 16) + (sum & 0xffff);
    !((sum + (sum >> 16)) as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MACS: [Mac; 2] = [[2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]];

    fn ends() -> [Ends; 2] {
        let ends = |from: &str, to: &str| Ends::new(from.parse().unwrap(), to.parse().unwrap()).unwrap();
        [ends("10.88.191.1", "10.88.0.10"), ends("fd88:0:0:1::1", "fd88::a")]
    }

    /// What a host makes of a probe.
    fn reply(request: &[u8]) -> Vec<u8> {
        let mut reply = request.to_vec();
        let (at, kind) = if request[12] == 8 { (34, ECHO_REPLY) } else { (54, ECHO_REPLY_V6) };
        reply[at] = kind;
        reply
    }

    /// Byte by byte as RFC 791 and RFC 792 have it; the sums are of the kind that is right when all together, itself
    /// included, gives none.
    #[test]
    fn a_probe_is_an_echo_request_for_one_interface() {
        let mut request = Request::new(MACS, ends()[0], 7, 3);
        for number in [1, u64::MAX] {
            let frame = request.numbered(number);
            assert_eq!(frame[..14], [2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0]);
            assert_eq!(frame[14..24], [0x45, 0, 0, 46, 0, 0, 0x40, 0, 1, 1]);
            assert_eq!(frame[26..34], [10, 88, 191, 1, 10, 88, 0, 10]);
            assert_eq!((checksum(&frame[14..34]), checksum(&frame[34..])), (0, 0));
            assert_eq!((frame[34], frame.len()), (8, 60));
        }
    }

    /// The same as RFC 8200 and RFC 4443 have it.
    #[test]
    fn a_probe_over_ipv6_is_one_too() {
        let mut request = Request::new(MACS, ends()[1], 7, 3);
        let frame = request.numbered(u64::MAX);
        assert_eq!(frame[12..22], [0x86, 0xdd, 0x60, 0, 0, 0, 0, 26, 58, 1]);
        assert_eq!(frame[22..38], "fd88:0:0:1::1".parse::<Ipv6Addr>().unwrap().octets());
        assert_eq!(frame[38..54], "fd88::a".parse::<Ipv6Addr>().unwrap().octets());
        let summed = [&frame[22..54], &[0, 0, 0, 26, 0, 0, 0, 58], &frame[54..]].concat();
        assert_eq!((frame[54], frame.len(), checksum(&summed)), (128, 80, 0));
    }

    #[test]
    fn an_answer_says_which_probe_it_answers() {
        for ends in ends() {
            let mut request = Request::new(MACS, ends, 7, 3);
            let reply = reply(request.numbered(65_537));
            assert_eq!(answered(&reply, 7), Some((3, 65_537)));
            assert_eq!(answered(&reply, 8), None, "another prober's");
            assert_eq!(answered(request.numbered(1), 7), None, "no answer");
            for length in 0..reply.len() {
                assert_eq!(answered(&reply[..length], 7), None);
            }
        }
    }

    #[test]
    fn what_says_the_address_is_told_apart() {
        let arp = |operation| [&[0xff; 6][..], &[2; 6], &[8, 6, 0, 1, 8, 0, 6, 4, 0, operation]].concat();
        assert_eq!(kind(&arp(1)), Some(Frame::ArpRequest));
        assert_eq!(kind(&arp(2)), Some(Frame::ArpReply));
        assert_eq!(kind(&arp(1)[..21]), None);
        for ends in ends() {
            assert_eq!(kind(Request::new(MACS, ends, 7, 3).numbered(1)), Some(Frame::Packet));
        }
        let mut advertised = Request::new(MACS, ends()[1], 7, 3).numbered(1).to_vec();
        advertised[54] = NEIGHBOUR_ADVERTISEMENT;
        assert_eq!(kind(&advertised), Some(Frame::Advertisement));
    }
}
