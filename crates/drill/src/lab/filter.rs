//! What the ears of a prober hear: filters that the kernel runs over every frame (classic BPF, `linux/filter.h`).

use socket2::SockFilter;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// So much of a frame is looked at.
pub(super) const FRAME_BYTES: u32 = 128;

/// `ld`, `ldh` and `ldb` absolute, `jeq`, `ret`.
const LOAD_WORD: u16 = 0x20;
const LOAD_HALF: u16 = 0x28;
const LOAD_BYTE: u16 = 0x30;
const JUMP_EQUAL: u16 = 0x15;
const RETURN: u16 = 0x06;
/// Where the filter finds of what type a packet is (`SKF_AD_OFF + SKF_AD_PKTTYPE`), and the type of one that goes out.
const PACKET_TYPE: u32 = 0xffff_f004;
const PACKET_OUTGOING: u32 = 4;

/// What one ear hears, of the frames that say the address as their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Heard {
    /// Echo replies. They have an ear of their own, so that the owner's traffic drowns none.
    Answers,
    /// Everything else.
    Rest,
}

impl Heard {
    fn takes(self, this: Self) -> u32 {
        if self == this { FRAME_BYTES } else { 0 }
    }
}

pub(super) fn nothing() -> Vec<SockFilter> {
    vec![SockFilter::new(RETURN, 0, 0, 0)]
}

/// Frames that come in with this address as their source, or that answer in its name whose it is.
pub(super) fn sent_by(address: IpAddr, heard: Heard) -> Vec<SockFilter> {
    match address {
        IpAddr::V4(address) => sent_by_v4(address, heard),
        IpAddr::V6(address) => sent_by_v6(address, heard),
    }
}

fn load(size: u16, offset: u32) -> SockFilter {
    SockFilter::new(size, 0, 0, offset)
}

/// A jump goes on so many instructions after the next one.
fn equal(value: u32, yes: u8, no: u8) -> SockFilter {
    SockFilter::new(JUMP_EQUAL, yes, no, value)
}

fn give(bytes: u32) -> SockFilter {
    SockFilter::new(RETURN, 0, 0, bytes)
}

fn sent_by_v4(address: Ipv4Addr, heard: Heard) -> Vec<SockFilter> {
    let address = u32::from(address);
    vec![
        load(LOAD_WORD, PACKET_TYPE),
        equal(PACKET_OUTGOING, 13, 0), // to the last
        load(LOAD_HALF, 12),           // what kind of frame
        equal(0x0806, 7, 0),           // ARP
        equal(0x0800, 0, 10),          // IPv4
        load(LOAD_WORD, 26),           // its source
        equal(address, 0, 8),
        load(LOAD_BYTE, 23), // its protocol
        equal(1, 0, 4),      // ICMP
        load(LOAD_BYTE, 34), // its type
        equal(0, 3, 2),      // an echo reply
        load(LOAD_WORD, 28), // of ARP, the sender
        equal(address, 0, 2),
        give(heard.takes(Heard::Rest)),
        give(heard.takes(Heard::Answers)),
        give(0),
    ]
}

/// Also advertisements with the address as their target, whatever their source is.
fn sent_by_v6(address: Ipv6Addr, heard: Heard) -> Vec<SockFilter> {
    let bits = address.to_bits();
    let [one, two, three, four] = [96, 64, 32, 0].map(|shift| (bits >> shift) as u32);
    vec![
        load(LOAD_WORD, PACKET_TYPE),
        equal(PACKET_OUTGOING, 28, 0), // to the last
        load(LOAD_HALF, 12),           // what kind of frame
        equal(0x86dd, 0, 26),          // IPv6
        load(LOAD_WORD, 22),           // its source
        equal(one, 0, 10),
        load(LOAD_WORD, 26),
        equal(two, 0, 8),
        load(LOAD_WORD, 30),
        equal(three, 0, 6),
        load(LOAD_WORD, 34),
        equal(four, 0, 4),
        load(LOAD_BYTE, 20), // its protocol
        equal(58, 0, 14),    // ICMPv6
        load(LOAD_BYTE, 54), // its type
        equal(129, 13, 12),  // an echo reply
        load(LOAD_BYTE, 20), // of another source
        equal(58, 0, 12),
        load(LOAD_BYTE, 54),
        equal(136, 0, 10),   // a neighbour advertisement
        load(LOAD_WORD, 62), // its target
        equal(one, 0, 8),
        load(LOAD_WORD, 66),
        equal(two, 0, 6),
        load(LOAD_WORD, 70),
        equal(three, 0, 4),
        load(LOAD_WORD, 74),
        equal(four, 0, 2),
        give(heard.takes(Heard::Rest)),
        give(heard.takes(Heard::Answers)),
        give(0),
    ]
}
