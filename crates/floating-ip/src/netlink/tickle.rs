//! Tickle ACKs: what makes the clients of a silently lost owner notice at once that their connections are gone.
//!
//! A client that waits for a message from an owner that has died without a word would wait on: nothing tells it. The new
//! owner knows which connections there were, and sends each client one TCP segment in the address's name: an ACK with
//! numbers that fit nothing. A segment outside the window must be answered by an ACK that says what was expected (RFC
//! 9293, section 3.10.7.4; RFC 5961, section 5 calls it the challenge ACK). That answer comes to this host, where no such
//! connection is known, and this kernel answers it by a reset (RFC 9293, section 3.10.7.1 and, where somebody listens,
//! 3.10.7.2). Its number is the one that the client just said it expects, so the client believes it (RFC 5961, section 3.2).
//! So no sequence number need be known, and only the client itself decides: one that has this connection with nobody
//! answers by a reset, which no one waits for, and one that has meanwhile made a new connection between the same ports to
//! this very host goes on with it. CTDB has done the same for twenty years.
//!
//! Routers that translate addresses, as most clients have at home, keep book of the numbers of each connection, and let
//! nothing through that is ahead of them; what is behind them is passed on as something that was late (`tcp_in_window` in
//! Linux's `net/netfilter/nf_conntrack_proto_tcp.c`). Of any two numbers half the circle apart one is behind, so of the four
//! segments that have one or the other as their own number and as the number they acknowledge, one passes whatever the
//! router knows.
//!
//! The segments go through the kernel (a raw socket, to which the header is given), so that its routes and neighbours are
//! used, and so that the rules hold them back like any other word from the address when it is dark.

use super::socket::is;
use crate::connection::Connection;
use rustix::io::Errno;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

/// The connections of earlier owners, whenever asked.
pub(super) type Orphans = Arc<dyn Fn() -> Vec<Connection> + Send + Sync>;

/// When a round begins, after the address became light. A segment may be lost, and the answer too. A kernel answers such
/// segments once in half a second for each connection (`tcp_invalid_ratelimit` in Linux), so rounds are farther apart.
const ROUNDS: [Duration; 3] = [Duration::ZERO, Duration::from_millis(700), Duration::from_millis(2_500)];
/// Connections in one turn; with the pauses between turns some five thousand in a second.
const TURN_MAX: usize = 128;
/// The numbers of the segments for one connection, their own and what they acknowledge.
const NUMBERS: [(u32, u32); 4] = [(0, 0), (0, HALF), (HALF, 0), (HALF, HALF)];
const HALF: u32 = 1 << 31;
/// `IPPROTO_RAW`: the header is given, and nothing is received.
const HEADER_GIVEN: i32 = 255;

const TCP: u8 = 6;
const TCP_LENGTH: u8 = 20;
const IPV4_LENGTH: u8 = 20;
const ACK: u8 = 0x10;
/// Whatever: a segment outside the window changes none.
const WINDOW: u16 = 1_024;
/// As kernels begin with (RFC 1700).
const HOPS: u8 = 64;
/// Not to be taken apart on its way.
const DO_NOT_FRAGMENT: [u8; 2] = [0x40, 0];

/// Sends them for one address, from the moment on at which it became light.
pub(super) struct Tickling {
    address: IpAddr,
    orphans: Orphans,
    /// Rounds that have begun.
    begun: usize,
    /// What is left of the present one.
    left: Vec<Connection>,
    socket: Option<Socket>,
}

impl Tickling {
    pub(super) fn new(address: IpAddr, orphans: Orphans) -> Self {
        Self { address, orphans, begun: 0, left: Vec::new(), socket: None }
    }

    /// Does what is due so long after the address became light; `may` is asked right before each segment.
    pub(super) fn turn(&mut self, since: Duration, may: &dyn Fn() -> bool) -> io::Result<()> {
        if self.left.is_empty() {
            if ROUNDS.get(self.begun).is_none_or(|at| since < *at) {
                return Ok(());
            }
            self.begun += 1;
            // Asked again for each round: what other nodes told of it may come late.
            self.left = (self.orphans)();
            self.left.retain(|connection| connection.client.is_ipv4() == self.address.is_ipv4());
            if self.left.is_empty() {
                return Ok(());
            }
            tracing::info!(ip = %self.address, round = self.begun, connections = self.left.len(), "tickling clients");
        }
        let socket = match self.socket.take() {
            Some(socket) => socket,
            None => open(self.address)?,
        };
        self.send(&socket, may);
        // Kept while there is more to send: making one is not free.
        self.socket = (!self.left.is_empty()).then_some(socket);
        Ok(())
    }

    fn send(&mut self, socket: &Socket, may: &dyn Fn() -> bool) {
        for _ in 0..TURN_MAX {
            let Some(connection) = self.left.last() else { return };
            for numbers in NUMBERS {
                if !may() {
                    return;
                }
                let to = SockAddr::from(SocketAddr::new(connection.client, 0));
                match socket.send_to(&packet(self.address, *connection, numbers), &to) {
                    Err(error) if is_for_later(&error) => return,
                    // No way leads to this one client any more, or somebody's rules forbid it.
                    Err(error) => {
                        tracing::debug!(client = %connection.client, %error, "a client cannot be tickled");
                    }
                    Ok(_) => metrics::counter!("twinsite_tickle_acks_total").increment(1),
                }
            }
            self.left.pop();
        }
    }
}

/// Whether the kernel has no room now.
fn is_for_later(error: &io::Error) -> bool {
    is(error, Errno::AGAIN) || is(error, Errno::NOBUFS)
}

fn open(address: IpAddr) -> io::Result<Socket> {
    let domain = Domain::for_address(SocketAddr::new(address, 0));
    let socket = Socket::new(domain, Type::RAW, Some(Protocol::from(HEADER_GIVEN)))?;
    socket.set_nonblocking(true)?;
    // So that routes are chosen as for the address's own packets.
    socket.bind(&SockAddr::from(SocketAddr::new(address, 0)))?;
    Ok(socket)
}

/// The segment with its IP header.
fn packet(address: IpAddr, connection: Connection, numbers: (u32, u32)) -> Vec<u8> {
    let segment = segment(address, connection, numbers);
    let header = match (address, connection.client) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            // The kernel fills in the checksum and the number of the packet (raw(7)).
            let fixed = [0x45, 0, 0, IPV4_LENGTH + TCP_LENGTH, 0, 0];
            [&fixed[..], &DO_NOT_FRAGMENT, &[HOPS, TCP, 0, 0], &from.octets(), &to.octets()].concat()
        }
        (from, to) => {
            let fixed = [0x60, 0, 0, 0, 0, TCP_LENGTH, TCP, HOPS];
            [&fixed[..], &octets(from), &octets(to)].concat()
        }
    };
    [header, segment].concat()
}

/// The segment: RFC 9293, section 3.1.
fn segment(address: IpAddr, connection: Connection, (own, acknowledged): (u32, u32)) -> Vec<u8> {
    let mut segment = [
        &connection.port.to_be_bytes()[..],
        &connection.client_port.to_be_bytes(),
        &own.to_be_bytes(),
        &acknowledged.to_be_bytes(),
        &[(TCP_LENGTH / 4) << 4, ACK],
        &WINDOW.to_be_bytes(),
        &[0; 4], // the checksum, and nothing urgent
    ]
    .concat();
    let pseudo = [&octets(address)[..], &octets(connection.client), &[0, TCP, 0, TCP_LENGTH]].concat();
    let checksum = checksum(&pseudo, &segment);
    segment[16..18].copy_from_slice(&checksum.to_be_bytes());
    segment
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// RFC 1071, over two pieces of even length.
fn checksum(pseudo: &[u8], segment: &[u8]) -> u16 {
    let words = pseudo.chunks_exact(2).chain(segment.chunks_exact(2));
    let mut sum: u32 = words.map(|word| u32::from(word[0]) << 8 | u32::from(word[1])).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    fn connection(client: &str, port: u16) -> Connection {
        Connection::new(client.parse().unwrap(), port)
    }

    /// Byte by byte as RFC 791, RFC 8200 and RFC 9293 have it.
    #[test]
    fn a_segment_says_nothing_but_ack() {
        let packet_v4 =
            packet("192.0.2.7".parse().unwrap(), connection("198.51.100.9:50000", 443), (0, 1 << 31));
        let expected: [&[u8]; 8] = [
            &[0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0, 0],
            &[192, 0, 2, 7],
            &[198, 51, 100, 9],
            &[0x01, 0xbb, 0xc3, 0x50],
            &[0, 0, 0, 0, 0x80, 0, 0, 0],
            &[0x50, 0x10, 0x04, 0x00],
            &packet_v4[36..38],
            &[0, 0],
        ];
        assert_eq!(packet_v4, expected.concat());

        let packet_v6 =
            packet("2001:db8::7".parse().unwrap(), connection("[2001:db8:1::9]:50000", 443), (1, 2));
        assert_eq!(packet_v6[..8], [0x60, 0, 0, 0, 0, 20, 6, 64]);
        assert_eq!(packet_v6.len(), 60);
        assert_eq!(packet_v6[44..52], [0, 0, 0, 1, 0, 0, 0, 2]);
    }

    /// A receiver adds everything up, checksum included, and finds all ones.
    #[test]
    fn a_receiver_finds_the_checksum_right() {
        for (address, client) in [("192.0.2.7", "198.51.100.9:50000"), ("2001:db8::7", "[2001:db8:1::9]:1")] {
            let address: IpAddr = address.parse().unwrap();
            let connection = connection(client, 8_443);
            let segment = segment(address, connection, (77, 78));
            assert_ne!(segment[16..18], [0, 0]);
            let pseudo = [&octets(address)[..], &octets(connection.client), &[0, 6, 0, 20]].concat();
            assert_eq!(checksum(&pseudo, &segment), 0);
        }
    }

    /// Whatever a router knows of a connection, one segment is behind it in both directions.
    #[test]
    fn one_segment_is_behind_whatever_the_numbers_are() {
        let is_behind = |number: u32, at: u32| at.wrapping_sub(number) < HALF;
        for seed in 0..100_000_u32 {
            let (ours, theirs) = (seed.wrapping_mul(0x9e37_79b9), seed.wrapping_mul(0x85eb_ca6b));
            let behind = |(own, acknowledged)| is_behind(own, ours) && is_behind(acknowledged, theirs);
            assert!(NUMBERS.into_iter().any(behind), "{ours} {theirs}");
        }
    }

    #[test]
    fn rounds_ask_anew_and_come_when_they_are_due() {
        let asked = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        let orphans = Arc::new(move || {
            count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            vec![connection("[2001:db8::9]:1", 443)] // of the other kind: nothing can be sent
        });
        let mut tickling = Tickling::new("192.0.2.7".parse().unwrap(), orphans);
        let said = Cell::new(0);
        let may = || {
            said.set(said.get() + 1);
            false
        };
        for millis in [0, 25, 699, 700, 725, 2_500, 2_525, 60_000] {
            tickling.turn(Duration::from_millis(millis), &may).unwrap();
        }
        assert_eq!(asked.load(std::sync::atomic::Ordering::Relaxed), ROUNDS.len());
        assert_eq!(said.get(), 0, "nothing was to be sent");
    }
}
