//! What the kernel of each host says of the floating address.
//!
//! A file of `/proc/net` shows the network that it was opened in, and a netlink socket asks the one that it was made in,
//! wherever their reader is later. So a thread visits each host once, and from then on one reader asks them all, without
//! a process of theirs (which may be dead) and without going from namespace to namespace.

use super::{HostPlace, LabError, enter};
use crate::layout::Layout;
use crate::measure::kernel::listeners;
use netlink_packet_core::{
    NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_netfilter::nftables::{NfTablesMessage, SetElementList, SetElementMessage};
use netlink_packet_netfilter::{
    NetfilterHeader, NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily,
};
use netlink_sys::protocols::NETLINK_NETFILTER;
use netlink_sys::{Socket, SocketAddr as NetlinkAddress};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{self, Read, Seek};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use twinsite_model::{FloatingIpName, NodeName};

/// The set in which the provider `netlink` has the address while it is light.
const LIT: &str = "lit";
/// The kernel's routes and addresses are few on a host of a lab.
const ADDRESSES_BYTES_MAX: u64 = 256 * 1024;
/// How often a list that changed while it was read is read again.
const READINGS_MAX: usize = 3;
/// Netlink messages begin at multiples of this, in bytes.
const ALIGNMENT: usize = 4;

/// Whether packets of the floating address leave and enter a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Gate {
    /// The rules drop them.
    Dark,
    /// The rules let them through at this moment.
    Light,
    /// There are no rules that would drop them.
    Missing,
}

/// What the kernel of one host says of the floating address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Holding {
    /// The address is on an interface.
    pub present: bool,
    /// Whether its packets pass.
    pub gate: Gate,
    /// Whether a socket listens on it, if that was asked.
    pub listening: Option<bool>,
}

impl Holding {
    /// Whether the host answers for the address, with whatever: ARP is enough to take the traffic of others. An address
    /// that is present and dark answers nothing, so several hosts may have that.
    pub fn answers(self) -> bool {
        self.present && self.gate != Gate::Dark
    }
}

/// The kernel of one host.
#[derive(Debug)]
pub struct HostKernel {
    address: SocketAddr,
    sockets: File,
    addresses: File,
    firewall: Firewall,
}

/// The kernels of all hosts of a lab that may own the floating address.
pub fn of_owners(layout: &Layout, hosts: &[HostPlace]) -> Result<Vec<(NodeName, HostKernel)>, LabError> {
    let owners = layout.nodes.iter().filter(|node| node.kind.serves());
    let places = owners
        .filter_map(|node| Some((&node.name, hosts.iter().find(|host| host.name == node.name.as_str())?)));
    let open = |(name, place): (&NodeName, _)| {
        Ok((name.clone(), HostKernel::open(place, &layout.floating_ip, layout.floating)?))
    };
    places.map(open).collect()
}

impl HostKernel {
    fn open(host: &HostPlace, ip: &FloatingIpName, address: SocketAddr) -> Result<Self, LabError> {
        let namespace = host.namespace.clone();
        let table = format!("twinsite-{ip}");
        let visit = move || -> Result<io::Result<Self>, LabError> {
            enter(&namespace)?;
            // The thread's own: those of the process show where its first thread is.
            let open = |file: &str| File::open(format!("/proc/thread-self/net/{file}"));
            let opened = || -> io::Result<_> {
                let (sockets, addresses) = match address.ip() {
                    IpAddr::V4(_) => (open("tcp")?, open("fib_trie")?),
                    IpAddr::V6(_) => (open("tcp6")?, open("if_inet6")?),
                };
                Ok(Self { address, sockets, addresses, firewall: Firewall::open(&table)? })
            };
            Ok(opened())
        };
        let failed = |source| LabError::Ask { host: host.name.clone(), source };
        let visitor =
            std::thread::Builder::new().name("lab-visit".to_owned()).spawn(visit).map_err(failed)?;
        let opened = visitor.join().map_err(|_| failed(io::Error::other("who visited it panicked")))?;
        opened?.map_err(failed)
    }

    /// What it says now of the address, cheaply enough for every few milliseconds.
    pub fn look(&mut self) -> io::Result<Holding> {
        let gate = self.firewall.gate()?;
        Ok(Holding { present: self.is_present()?, gate, listening: None })
    }

    /// The same, and whether a socket listens. For a host with few sockets the kernel walks the table of all hosts for
    /// that, which takes longer than all the rest.
    pub fn look_closely(&mut self) -> io::Result<Holding> {
        let seen = self.look()?;
        Ok(Holding { listening: Some(self.is_listening()?), ..seen })
    }

    fn is_present(&mut self) -> io::Result<bool> {
        self.addresses.rewind()?;
        let mut addresses = String::new();
        (&self.addresses).take(ADDRESSES_BYTES_MAX).read_to_string(&mut addresses)?;
        Ok(match self.address.ip() {
            IpAddr::V4(ip) => is_local(&addresses, ip),
            IpAddr::V6(ip) => is_on_an_interface(&addresses, ip),
        })
    }

    fn is_listening(&mut self) -> io::Result<bool> {
        self.sockets.rewind()?;
        Ok(!listeners(&self.sockets, self.address)?.is_empty())
    }
}

/// Whether an address is a host's own, by `/proc/net/fib_trie`: its line is followed by one for each of its routes.
fn is_local(routes: &str, address: Ipv4Addr) -> bool {
    let leaf = format!("|-- {address}");
    let mut lines = routes.lines().map(str::trim);
    while lines.by_ref().any(|line| line == leaf) {
        if lines.clone().take_while(|line| line.starts_with('/')).any(|line| line == "/32 host LOCAL") {
            return true;
        }
    }
    false
}

/// Whether an address is a host's own, by `/proc/net/if_inet6`: the first word of each line is one, in 32 digits.
fn is_on_an_interface(addresses: &str, address: Ipv6Addr) -> bool {
    let wanted = format!("{:032x}", address.to_bits());
    addresses.lines().any(|line| line.split_whitespace().next() == Some(&wanted))
}

/// A line to the packet filter of one host.
struct Firewall {
    socket: Socket,
    question: Vec<u8>,
}

impl std::fmt::Debug for Firewall {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Firewall")
    }
}

impl Firewall {
    fn open(table: &str) -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_NETFILTER)?;
        socket.bind_auto()?;
        socket.connect(&NetlinkAddress::new(0, 0))?;
        // The kernel works a question off while it is asked: the answer is there, or there is none.
        socket.set_non_blocking(true)?;
        let elements = SetElementMessage {
            attributes: vec![SetElementList::Table(table.to_owned()), SetElementList::Set(LIT.to_owned())],
        };
        let header = NetfilterHeader::new(NetfilterProtoFamily::Inet, 0, 0);
        let question = NetfilterMessage::new(header, NfTablesMessage::GetSetElement(elements));
        let mut message =
            NetlinkMessage::new(NetlinkHeader::default(), NetlinkPayload::InnerMessage(question));
        message.header.flags = NLM_F_REQUEST | NLM_F_DUMP;
        message.finalize();
        let mut question = vec![0; message.buffer_len()];
        message.serialize(&mut question);
        Ok(Self { socket, question })
    }

    fn gate(&self) -> io::Result<Gate> {
        for _ in 0..READINGS_MAX {
            while self.receive()?.is_some() {}
            self.socket.send(&self.question, 0)?;
            match self.answer() {
                Ok(Some(gate)) => return Ok(gate),
                Ok(None) => {}
                Err(error) if error.raw_os_error() == Some(Errno::NOENT.raw_os_error()) => {
                    return Ok(Gate::Missing);
                }
                Err(error) => return Err(error),
            }
        }
        // It changes all the time, and the element was in none of its states.
        Ok(Gate::Dark)
    }

    /// None if the set changed while it was read, and the element was not seen. Elements whose time is over are not listed.
    fn answer(&self) -> io::Result<Option<Gate>> {
        let (mut is_lit, mut is_whole) = (false, true);
        while let Some(datagram) = self.receive()? {
            let mut rest = &datagram[..];
            while !rest.is_empty() {
                let message = NetlinkMessage::<NetfilterMessage>::deserialize(rest).map_err(invalid)?;
                let length = (message.header.length as usize).next_multiple_of(ALIGNMENT);
                rest = rest.get(length..).unwrap_or_default();
                is_whole &= message.header.flags & NLM_F_DUMP_INTR == 0;
                match message.payload {
                    NetlinkPayload::InnerMessage(inner) => is_lit |= has_element(inner),
                    NetlinkPayload::Done(done) if done.code < 0 => {
                        return Err(io::Error::from_raw_os_error(done.code.abs()));
                    }
                    NetlinkPayload::Error(error) => {
                        let code = error.code.map_or(0, std::num::NonZero::get);
                        return Err(io::Error::from_raw_os_error(code.abs()));
                    }
                    _ => {}
                }
            }
        }
        Ok(match (is_lit, is_whole) {
            (true, _) => Some(Gate::Light),
            (false, true) => Some(Gate::Dark),
            (false, false) => None,
        })
    }

    fn receive(&self) -> io::Result<Option<Vec<u8>>> {
        match self.socket.recv_from_full() {
            Ok((datagram, _)) => Ok(Some(datagram)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }
}

fn has_element(message: NetfilterMessage) -> bool {
    let NetfilterMessageInner::NfTables(NfTablesMessage::NewSetElement(set)) = message.inner else {
        return false;
    };
    set.attributes
        .iter()
        .any(|attribute| matches!(attribute, SetElementList::Elements(elements) if !elements.is_empty()))
}

fn invalid(error: impl std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As Linux shows it.
    const ROUTES: &str = "Main:
  +-- 0.0.0.0/0 3 0 5
     +-- 10.88.0.0/16 2 0 2
        +-- 10.88.0.0/18 2 0 2
           |-- 10.88.0.0
              /16 link UNICAST
           |-- 10.88.0.10
              /32 host LOCAL
        |-- 10.88.1.1
           /16 link UNICAST
           /32 host LOCAL
     |-- 10.88.255.255
        /32 link BROADCAST
";

    #[test]
    fn an_address_of_the_hosts_own_is_told_from_others() {
        let is = |address: &str| is_local(ROUTES, address.parse().unwrap());
        assert_eq!([is("10.88.0.10"), is("10.88.1.1")], [true, true]);
        assert_eq!([is("10.88.0.1"), is("10.88.0.0"), is("10.88.255.255"), is("10.88.2.1")], [false; 4]);
        assert!(!is_local("", "10.88.0.10".parse().unwrap()));
    }

    #[test]
    fn an_ipv6_address_of_the_hosts_own_is_told_from_others() {
        let addresses = "fd88000000000000000000000001000a 02 40 00 80     eth0\n\
                         fe80000000000000001122fffe334455 02 40 20 80     eth0\n";
        let is = |address: &str| is_on_an_interface(addresses, address.parse().unwrap());
        assert_eq!([is("fd88::1:a"), is("fe80::11:22ff:fe33:4455")], [true, true]);
        assert_eq!([is("fd88::a"), is("::"), is("fd88::1:1")], [false; 3]);
    }

    #[test]
    fn dark_or_absent_is_silent() {
        let holding = |present, gate| Holding { present, gate, listening: None };
        assert!(holding(true, Gate::Light).answers() && holding(true, Gate::Missing).answers());
        assert!(!holding(true, Gate::Dark).answers() && !holding(false, Gate::Light).answers());
    }
}
