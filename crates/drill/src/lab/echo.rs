//! The frames of a prober: ICMP echo requests (RFC 792) for one interface, and what says the address as its own.

use crate::measure::hosts::Frame;
use std::net::Ipv4Addr;

/// An Ethernet address.
pub(super) type Mac = [u8; 6];

pub(super) const ETHERNET_BYTES: usize = 14;
const IPV4_BYTES: usize = 20;
const ICMP_BYTES: usize = 8;
/// The prober's mark, the host, and the number of the probe.
const CARRIED_BYTES: usize = 8 + 2 + 8;
const FRAME_BYTES: usize = ETHERNET_BYTES + IPV4_BYTES + ICMP_BYTES + CARRIED_BYTES;
const ICMP: usize = ETHERNET_BYTES + IPV4_BYTES;
const CARRIED: usize = ICMP + ICMP_BYTES;

const ETHERTYPE_IPV4: [u8; 2] = [0x08, 0x00];
const ETHERTYPE_ARP: [u8; 2] = [0x08, 0x06];
const DONT_FRAGMENT: u8 = 0x40;
/// No host hands it on.
const HOPS: u8 = 1;
const PROTOCOL_ICMP: u8 = 1;
const ECHO_REQUEST: u8 = 8;
const ECHO_REPLY: u8 = 0;
/// In an ARP message, after the numbers of its types and lengths (RFC 826).
const ARP_OPERATION: usize = ETHERNET_BYTES + 6;
const ARP_REQUEST: [u8; 2] = [0, 1];

/// The probes to one host, which differ in their number only.
#[derive(Debug, Clone)]
pub(super) struct Request([u8; FRAME_BYTES]);

/// Of whom and to whom probes are.
#[derive(Debug, Clone, Copy)]
pub(super) struct Path {
    pub(super) from: (Mac, Ipv4Addr),
    pub(super) to: (Mac, Ipv4Addr),
}

impl Request {
    /// `mark` tells the prober's own probes from others, `host` the hosts of one prober from each other.
    pub(super) fn new(path: &Path, mark: u64, host: u16) -> Self {
        let length = (FRAME_BYTES - ETHERNET_BYTES) as u16;
        let [high, low] = length.to_be_bytes();
        let mut ip = [0x45, 0, high, low, 0, 0, DONT_FRAGMENT, 0, HOPS, PROTOCOL_ICMP, 0, 0];
        let addresses = [path.from.1.octets(), path.to.1.octets()].concat();
        let sum = checksum(&[&ip[..], &addresses].concat()).to_be_bytes();
        ip[10..].copy_from_slice(&sum);
        let message = [ECHO_REQUEST, 0, 0, 0, 0, 0, 0, 0];
        let carried = [&mark.to_be_bytes()[..], &host.to_be_bytes(), &[0; 8]].concat();
        let parts = [&path.to.0[..], &path.from.0, &ETHERTYPE_IPV4, &ip, &addresses, &message, &carried];
        let mut frame = [0; FRAME_BYTES];
        frame.copy_from_slice(&parts.concat());
        Self(frame)
    }

    /// The frame of probe number `number`.
    pub(super) fn numbered(&mut self, number: u64) -> &[u8] {
        let frame = &mut self.0;
        frame[FRAME_BYTES - 8..].copy_from_slice(&number.to_be_bytes());
        frame[ICMP + 2..ICMP + 4].fill(0);
        let sum = checksum(&frame[ICMP..]).to_be_bytes();
        frame[ICMP + 2..ICMP + 4].copy_from_slice(&sum);
        &self.0
    }
}

/// Which probe of which host a frame answers, if it answers one with this mark.
pub(super) fn answered(frame: &[u8], mark: u64) -> Option<(u16, u64)> {
    // Without options in the header, because the probes had none.
    let is_reply = frame.get(12..14)? == ETHERTYPE_IPV4
        && *frame.get(ETHERNET_BYTES)? == 0x45
        && *frame.get(ETHERNET_BYTES + 9)? == PROTOCOL_ICMP
        && *frame.get(ICMP)? == ECHO_REPLY;
    let (its_mark, rest) = frame.get(CARRIED..)?.split_first_chunk::<8>()?;
    let (host, rest) = rest.split_first_chunk::<2>()?;
    let number = rest.first_chunk::<8>()?;
    let ours = is_reply && u64::from_be_bytes(*its_mark) == mark;
    ours.then(|| (u16::from_be_bytes(*host), u64::from_be_bytes(*number)))
}

/// As what a frame says the address that it has as its source; none if it is too short to say anything.
pub(super) fn kind(frame: &[u8]) -> Option<Frame> {
    Some(if frame.get(12..14)? != ETHERTYPE_ARP {
        Frame::Packet
    } else if frame.get(ARP_OPERATION..ARP_OPERATION + 2)? == ARP_REQUEST {
        Frame::ArpRequest
    } else {
        Frame::ArpReply
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

    const PATH: Path = Path {
        from: ([2, 0, 0, 0, 0, 1], Ipv4Addr::new(10, 88, 191, 1)),
        to: ([2, 0, 0, 0, 0, 2], Ipv4Addr::new(10, 88, 0, 10)),
    };

    /// What a host makes of a probe.
    fn reply(request: &[u8]) -> Vec<u8> {
        let mut reply = request.to_vec();
        reply[ICMP] = ECHO_REPLY;
        reply
    }

    /// Byte by byte as RFC 791 and RFC 792 have it; the sums are of the kind that is right when all together, itself
    /// included, gives none.
    #[test]
    fn a_probe_is_an_echo_request_for_one_interface() {
        let mut request = Request::new(&PATH, 7, 3);
        for number in [1, u64::MAX] {
            let frame = request.numbered(number);
            assert_eq!(frame[..14], [2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0]);
            assert_eq!(frame[14..24], [0x45, 0, 0, 46, 0, 0, 0x40, 0, 1, 1]);
            assert_eq!(frame[26..34], [10, 88, 191, 1, 10, 88, 0, 10]);
            assert_eq!((checksum(&frame[14..34]), checksum(&frame[34..])), (0, 0));
            assert_eq!(frame[34], 8);
        }
    }

    #[test]
    fn an_answer_says_which_probe_it_answers() {
        let mut request = Request::new(&PATH, 7, 3);
        let reply = reply(request.numbered(65_537));
        assert_eq!(answered(&reply, 7), Some((3, 65_537)));
        assert_eq!(answered(&reply, 8), None, "another prober's");
        assert_eq!(answered(request.numbered(1), 7), None, "no answer");
        for length in 0..reply.len() {
            assert_eq!(answered(&reply[..length], 7), None);
        }
    }

    #[test]
    fn what_says_the_address_is_told_apart() {
        let arp = |operation| [&[0xff; 6][..], &[2; 6], &[8, 6, 0, 1, 8, 0, 6, 4, 0, operation]].concat();
        assert_eq!(kind(&arp(1)), Some(Frame::ArpRequest));
        assert_eq!(kind(&arp(2)), Some(Frame::ArpReply));
        assert_eq!(kind(Request::new(&PATH, 7, 3).numbered(1)), Some(Frame::Packet));
        assert_eq!(kind(&arp(1)[..21]), None);
    }
}
