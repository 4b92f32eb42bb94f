//! The address on its interface.

use super::socket::{Line, is};
use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::address::{
    AddressAttribute, AddressFlags, AddressHeader, AddressMessage, AddressScope, CacheInfo,
};
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteType};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::protocols::NETLINK_ROUTE;
use rustix::io::Errno;
use std::io;
use std::net::IpAddr;
use std::time::Duration;

/// The longest that an address may outlive the last word of who put it there, beyond its lease. The kernel counts whole
/// seconds.
const OUTLIVES: Duration = Duration::from_secs(1);

/// A lifetime that never ends (`INFINITY_LIFE_TIME`).
const FOR_EVER: u32 = u32::MAX;

/// What is known of an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Interface {
    pub(super) index: u32,
    pub(super) hardware: Option<[u8; 6]>,
    pub(super) is_up: bool,
}

/// One address on one interface.
pub(super) struct Address {
    line: Line,
    ip: IpAddr,
    interface: String,
}

impl Address {
    pub(super) fn open(ip: IpAddr, interface: &str) -> io::Result<Self> {
        Ok(Self { line: Line::open(NETLINK_ROUTE)?, ip, interface: interface.to_owned() })
    }

    /// The interface as it is now; it may have been made anew.
    pub(super) fn interface(&mut self) -> io::Result<Interface> {
        let mut question = LinkMessage::default();
        question.attributes.push(LinkAttribute::IfName(self.interface.clone()));
        let answers = self.line.get(RouteNetlinkMessage::GetLink(question))?;
        let link = answers.into_iter().find_map(|answer| match answer {
            RouteNetlinkMessage::NewLink(link) => Some(link),
            _ => None,
        });
        let link = link.ok_or_else(|| io::Error::from(Errno::NODEV))?;
        let hardware = link.attributes.iter().find_map(|attribute| match attribute {
            LinkAttribute::Address(bytes) => bytes.as_slice().try_into().ok(),
            _ => None,
        });
        let is_up = link.header.flags.contains(LinkFlags::Up);
        Ok(Interface { index: link.header.index, hardware, is_up })
    }

    /// Puts the address there, or keeps it there, for a moment more than this. Afterwards the kernel removes it; without a
    /// time it never does.
    pub(super) fn put(&mut self, rest: Option<Duration>) -> io::Result<()> {
        let mut message = self.message()?;
        // One host, no network: the address brings no route, and is no choice for connections that begin here.
        let mut flags = AddressFlags::Noprefixroute;
        if self.ip.is_ipv6() {
            // Looking for a duplicate takes a second, and a conflict would leave the address unusable for good.
            flags |= AddressFlags::Nodad;
        }
        message.header.scope = AddressScope::Universe;
        message.attributes.push(AddressAttribute::Flags(flags));
        let mut lifetime = CacheInfo::default();
        lifetime.ifa_valid = rest.map_or(FOR_EVER, |rest| seconds(rest + OUTLIVES));
        lifetime.ifa_preferred = 0;
        message.attributes.push(AddressAttribute::CacheInfo(lifetime));
        self.line.change(RouteNetlinkMessage::NewAddress(message), NLM_F_CREATE | NLM_F_REPLACE)
    }

    /// Takes it away, if it is there.
    pub(super) fn remove(&mut self) -> io::Result<()> {
        let message = match self.message() {
            // With its interface the address is gone.
            Err(error) if is(&error, Errno::NODEV) => return Ok(()),
            message => message?,
        };
        match self.line.change(RouteNetlinkMessage::DelAddress(message), 0) {
            Err(error) if is(&error, Errno::ADDRNOTAVAIL) => Ok(()),
            removed => removed,
        }
    }

    /// Takes it away and reads back that no interface of this host has it.
    pub(super) fn clear(&mut self) -> io::Result<()> {
        self.remove()?;
        if self.is_there()? {
            let problem = "it is on another interface of this host already: remove it there";
            return Err(io::Error::new(io::ErrorKind::AddrInUse, problem));
        }
        Ok(())
    }

    /// The address.
    pub(super) fn ip(&self) -> IpAddr {
        self.ip
    }

    /// Whether it is on any interface of this host.
    pub(super) fn is_there(&mut self) -> io::Result<bool> {
        let mut question = AddressMessage::default();
        question.header.family = self.family();
        let answers = self.line.list(RouteNetlinkMessage::GetAddress(question))?;
        let mut addresses = answers.into_iter().filter_map(|answer| match answer {
            RouteNetlinkMessage::NewAddress(address) => Some(address),
            _ => None,
        });
        Ok(addresses.any(|found| {
            found.attributes.iter().any(|attribute| match attribute {
                AddressAttribute::Address(address) | AddressAttribute::Local(address) => *address == self.ip,
                _ => false,
            })
        }))
    }

    /// Whether packets to it are this host's own. An IPv6 address is there a moment before: its route is a piece of work
    /// that the kernel does later (`addrconf_dad_work` in `net/ipv6/addrconf.c`, without a look for duplicates too).
    pub(super) fn is_delivered_here(&mut self) -> io::Result<bool> {
        let mut question = RouteMessage::default();
        question.header.address_family = self.family();
        question.header.destination_prefix_length = if self.ip.is_ipv4() { 32 } else { 128 };
        question.attributes.push(RouteAttribute::Destination(RouteAddress::from(self.ip)));
        let answers = match self.line.get(RouteNetlinkMessage::GetRoute(question)) {
            Err(error) if is(&error, Errno::NETUNREACH) || is(&error, Errno::HOSTUNREACH) => {
                return Ok(false);
            }
            answers => answers?,
        };
        let mut routes = answers.into_iter().filter_map(|answer| match answer {
            RouteNetlinkMessage::NewRoute(route) => Some(route.header.kind),
            _ => None,
        });
        Ok(routes.any(|kind| kind == RouteType::Local))
    }

    fn message(&mut self) -> io::Result<AddressMessage> {
        let mut message = AddressMessage::default();
        message.header = AddressHeader {
            family: self.family(),
            prefix_len: if self.ip.is_ipv4() { 32 } else { 128 },
            index: self.interface()?.index,
            ..AddressHeader::default()
        };
        message.attributes = vec![AddressAttribute::Local(self.ip), AddressAttribute::Address(self.ip)];
        Ok(message)
    }

    fn family(&self) -> AddressFamily {
        if self.ip.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
    }
}

fn seconds(duration: Duration) -> u32 {
    let whole = duration.as_secs() + u64::from(duration.subsec_nanos() > 0);
    u32::try_from(whole).unwrap_or(FOR_EVER - 1)
}
