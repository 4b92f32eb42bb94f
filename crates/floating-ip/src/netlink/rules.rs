//! The rules behind which a floating IP is dark or light, as data: which tables, chains and rules there are, and what
//! each lets through. `firewall.rs` brings them into the kernel.
//!
//! A packet that carries the address is let through only while the address is an element of the set `lit` *and* the
//! wall clock is before the time in the chain `deadline`. Elements end by themselves (their timeout runs on the
//! kernel's monotonic clock), and a missing set element, a missing deadline and a deadline that has passed all mean
//! the same: dropped. So whatever happens to the process, and whatever is removed from these chains but the rules
//! that lead there, the address goes dark.

use netlink_packet_core::DefaultNla;
use netlink_packet_netfilter::NetfilterProtoFamily;
use netlink_packet_netfilter::nftables::{
    Cmp, DataAttribute, Expressions, Immediate, Lookup, Meta, MetaKey, Operator, Payload, Register, Verdict,
    VerdictAttribute,
};
use std::net::IpAddr;

/// The set that holds the address while it is light.
pub(super) const LIT: &str = "lit";
/// The chain that accepts until a time.
pub(super) const DEADLINE: &str = "deadline";

/// Where a packet's headers begin (`enum nft_payload_bases`).
const NETWORK_HEADER: u32 = 1;
const TRANSPORT_HEADER: u32 = 2;
/// Verdicts (`include/uapi/linux/netfilter.h`).
const NF_DROP: u32 = 0;
const NF_ACCEPT: u32 = 1;
/// `enum nft_byteorder_ops` and its attributes, which the library does not name.
const NFTA_BYTEORDER_SREG: u16 = 1;
const NFTA_BYTEORDER_DREG: u16 = 2;
const NFTA_BYTEORDER_OP: u16 = 3;
const NFTA_BYTEORDER_LEN: u16 = 4;
const NFTA_BYTEORDER_SIZE: u16 = 5;
const NFT_BYTEORDER_HTON: u32 = 1;
/// `nft`'s numbers of data types, for who lists the set by hand.
const TYPE_IPV4: u32 = 7;
const TYPE_IPV6: u32 = 8;

const NFPROTO_IPV4: u8 = 2;
const NFPROTO_IPV6: u8 = 10;
const IPPROTO_ICMPV6: u8 = 58;
const NEIGHBOUR_SOLICITATION: u8 = 135;
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
const ETHERTYPE_ARP: [u8; 2] = [0x08, 0x06];

/// The register that everything is compared in.
const REGISTER: Register = Register::Reg1;

/// Where in a packet the address stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    base: u32,
    offset: u32,
    length: u32,
}

const IPV4_SOURCE: Place = Place { base: NETWORK_HEADER, offset: 12, length: 4 };
const IPV4_DESTINATION: Place = Place { base: NETWORK_HEADER, offset: 16, length: 4 };
const IPV6_SOURCE: Place = Place { base: NETWORK_HEADER, offset: 8, length: 16 };
const IPV6_DESTINATION: Place = Place { base: NETWORK_HEADER, offset: 24, length: 16 };
/// RFC 826 over Ethernet: after the four numbers of the header and the sender's hardware address.
const ARP_SENDER: Place = Place { base: NETWORK_HEADER, offset: 14, length: 4 };
/// RFC 4861, sections 4.3 and 4.4.
const ND_TARGET: Place = Place { base: TRANSPORT_HEADER, offset: 8, length: 16 };
const ICMPV6_TYPE: Place = Place { base: TRANSPORT_HEADER, offset: 0, length: 1 };

/// What sees a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Seen {
    /// Packets to this host.
    Input,
    /// Packets from this host.
    Output,
    /// ARP that the kernel says: the family counts its hooks by itself.
    ArpOutput,
    /// Everything that leaves by this interface, frames that programs made by hand included.
    Egress(String),
}

/// One chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Chain {
    pub(super) name: &'static str,
    /// None: only what other chains send here.
    pub(super) seen: Option<Seen>,
}

/// One rule. Its name is kept in the kernel too, so that it can be found missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rule {
    pub(super) chain: &'static str,
    pub(super) name: &'static str,
    pub(super) expressions: Vec<Expressions>,
}

/// One table with a set of its own: sets cannot be shared between tables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Table {
    pub(super) family: NetfilterProtoFamily,
    pub(super) key: Vec<u8>,
    pub(super) key_type: u32,
    pub(super) chains: Vec<Chain>,
    pub(super) rules: Vec<Rule>,
}

/// All tables for an address on an interface. With `egress` (since Linux 5.16) frames that programs made by hand are
/// held back at the interface too, such as a gratuitous ARP of a process that was frozen before it sent it.
pub(super) fn tables(address: IpAddr, interface: &str, egress: bool) -> Vec<Table> {
    match address {
        IpAddr::V4(address) => {
            let key = address.octets().to_vec();
            let egress = egress.then(|| Seen::Egress(interface.to_owned()));
            let arp_seen = [Some(Seen::ArpOutput), egress].into_iter().flatten();
            let arp = arp_seen.map(|seen| arp(key.clone(), seen)).collect::<Vec<_>>();
            std::iter::once(ipv4(key)).chain(arp).collect()
        }
        IpAddr::V6(address) => vec![ipv6(address.octets().to_vec())],
    }
}

fn ipv4(key: Vec<u8>) -> Table {
    let version = [meta(MetaKey::Nfproto), equals(&[NFPROTO_IPV4])];
    let out = [&version[..], &[load(IPV4_SOURCE), equals(&key), jump("gate-out")]].concat();
    let to_us = [&version[..], &[load(IPV4_DESTINATION), equals(&key), jump("gate-in")]].concat();
    let mut rules = vec![
        Rule { chain: "out", name: "from the address", expressions: out },
        Rule { chain: "in", name: "to the address", expressions: to_us },
    ];
    rules.extend(gate("gate-out", IPV4_SOURCE));
    rules.extend(gate("gate-in", IPV4_DESTINATION));
    Table {
        family: NetfilterProtoFamily::Inet,
        key,
        key_type: TYPE_IPV4,
        chains: vec![
            Chain { name: DEADLINE, seen: None },
            Chain { name: "gate-out", seen: None },
            Chain { name: "gate-in", seen: None },
            Chain { name: "out", seen: Some(Seen::Output) },
            Chain { name: "in", seen: Some(Seen::Input) },
        ],
        rules,
    }
}

/// Every ARP with the address as its sender: a dark host's open socket would otherwise announce the address by asking
/// for its peer's. What the kernel says is held back on all interfaces: it answers on each for the addresses of all.
fn arp(key: Vec<u8>, seen: Seen) -> Table {
    let sender = [load(ARP_SENDER), equals(&key), jump("gate-out")];
    let (family, expressions) = match seen {
        Seen::Egress(_) => {
            let is_arp = [meta(MetaKey::EtherTypeProtocol), equals(&ETHERTYPE_ARP)];
            (NetfilterProtoFamily::NetDev, [&is_arp[..], &sender].concat())
        }
        _ => (NetfilterProtoFamily::ARP, sender.to_vec()),
    };
    let mut rules = vec![Rule { chain: "out", name: "ARP from the address", expressions }];
    rules.extend(gate("gate-out", ARP_SENDER));
    Table {
        family,
        key,
        key_type: TYPE_IPV4,
        chains: vec![
            Chain { name: DEADLINE, seen: None },
            Chain { name: "gate-out", seen: None },
            Chain { name: "out", seen: Some(seen) },
        ],
        rules,
    }
}

fn ipv6(key: Vec<u8>) -> Table {
    let version = [meta(MetaKey::Nfproto), equals(&[NFPROTO_IPV6])];
    let neighbour = |kind| {
        let icmp = [meta(MetaKey::L4Proto), equals(&[IPPROTO_ICMPV6]), load(ICMPV6_TYPE), equals(&[kind])];
        [&version[..], &icmp].concat()
    };
    let about_us = [load(ND_TARGET), equals(&key), jump("gate-target")];
    let advertised = [&neighbour(NEIGHBOUR_ADVERTISEMENT)[..], &about_us].concat();
    // Who looks for a duplicate asks from no address at all. To ask where the address is (from another one) is not to
    // claim it, and the other nodes do that when they look at it from outside.
    let nobody = [load(IPV6_SOURCE), equals(&[0; 16])];
    let duplicate = [&neighbour(NEIGHBOUR_SOLICITATION)[..], &nobody, &about_us].concat();
    let out = [&version[..], &[load(IPV6_SOURCE), equals(&key), jump("gate-out")]].concat();
    let to_us = [&version[..], &[load(IPV6_DESTINATION), equals(&key), jump("gate-in")]].concat();
    let mut rules = vec![
        Rule { chain: "out", name: "advertised", expressions: advertised },
        Rule { chain: "out", name: "asked whether it is a duplicate", expressions: duplicate },
        Rule { chain: "out", name: "from the address", expressions: out },
        Rule { chain: "in", name: "to the address", expressions: to_us },
    ];
    rules.extend(gate("gate-target", ND_TARGET));
    rules.extend(gate("gate-out", IPV6_SOURCE));
    rules.extend(gate("gate-in", IPV6_DESTINATION));
    Table {
        family: NetfilterProtoFamily::Inet,
        key,
        key_type: TYPE_IPV6,
        chains: vec![
            Chain { name: DEADLINE, seen: None },
            Chain { name: "gate-target", seen: None },
            Chain { name: "gate-out", seen: None },
            Chain { name: "gate-in", seen: None },
            Chain { name: "out", seen: Some(Seen::Output) },
            Chain { name: "in", seen: Some(Seen::Input) },
        ],
        rules,
    }
}

/// Lets through what is lit and before its deadline.
fn gate(chain: &'static str, place: Place) -> [Rule; 2] {
    let lit = Expressions::Lookup(vec![Lookup::Set(LIT.to_owned()), Lookup::SourceRegister(REGISTER)]);
    [
        Rule { chain, name: "light", expressions: vec![load(place), lit, jump(DEADLINE)] },
        Rule { chain, name: "dark", expressions: vec![verdict(Verdict::Other(NF_DROP), None)] },
    ]
}

/// The rule that accepts before a time: nanoseconds of the wall clock since 1970.
pub(super) fn before(nanos: u64) -> Rule {
    // Comparisons are of bytes, the most significant first; the clock is in the machine's order.
    let byteorder = |kind: u16, value: u32| DefaultNla::new(kind, value.to_be_bytes().to_vec());
    let in_order = Expressions::Other {
        expression_type: "byteorder".to_owned(),
        attributes: vec![
            byteorder(NFTA_BYTEORDER_SREG, REGISTER.into()),
            byteorder(NFTA_BYTEORDER_DREG, REGISTER.into()),
            byteorder(NFTA_BYTEORDER_OP, NFT_BYTEORDER_HTON),
            byteorder(NFTA_BYTEORDER_LEN, 8),
            byteorder(NFTA_BYTEORDER_SIZE, 8),
        ],
    };
    let earlier = compare(Operator::LessThan, nanos.to_be_bytes().to_vec());
    let accept = verdict(Verdict::Other(NF_ACCEPT), None);
    let expressions = vec![meta(MetaKey::TimeNs), in_order, earlier, accept];
    Rule { chain: DEADLINE, name: "before the deadline", expressions }
}

fn load(Place { base, offset, length }: Place) -> Expressions {
    Expressions::Payload(vec![
        Payload::DestinationRegister(REGISTER),
        Payload::Base(base),
        Payload::Offset(offset),
        Payload::Len(length),
    ])
}

fn meta(key: MetaKey) -> Expressions {
    Expressions::Meta(vec![Meta::DestinationRegister(REGISTER), Meta::Key(key)])
}

fn equals(value: &[u8]) -> Expressions {
    compare(Operator::Equal, value.to_vec())
}

fn compare(operator: Operator, value: Vec<u8>) -> Expressions {
    let value = Cmp::Data(DataAttribute::Value(value));
    Expressions::Cmp(vec![Cmp::SourceRegister(REGISTER), Cmp::Op(operator), value])
}

fn jump(chain: &str) -> Expressions {
    verdict(Verdict::Jump, Some(chain))
}

fn verdict(verdict: Verdict, chain: Option<&str>) -> Expressions {
    let mut attributes = vec![VerdictAttribute::Code(verdict)];
    attributes.extend(chain.map(|chain| VerdictAttribute::Chain(chain.to_owned())));
    Expressions::Immediate(vec![
        Immediate::DestinationRegister(Register::Verdict),
        Immediate::Data(DataAttribute::Verdict(attributes)),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// Every chain that a rule is in or leads to exists, and comes before the base chains that lead to it.
    #[test]
    fn rules_only_name_chains_that_are_there() {
        let addresses: [IpAddr; 2] = ["192.0.2.7".parse().unwrap(), "2001:db8::7".parse().unwrap()];
        for address in addresses {
            for by in [true, false] {
                for table in tables(address, "eth0", by) {
                    let chains: BTreeSet<_> = table.chains.iter().map(|chain| chain.name).collect();
                    assert_eq!(chains.len(), table.chains.len());
                    assert!(table.rules.iter().all(|rule| chains.contains(rule.chain)));
                    let gates: Vec<_> = chains.iter().filter(|name| name.starts_with("gate")).collect();
                    assert!(!gates.is_empty());
                    for gate in gates {
                        let of_gate: Vec<_> = table.rules.iter().filter(|rule| rule.chain == *gate).collect();
                        assert_eq!(of_gate.last().map(|rule| rule.name), Some("dark"), "{gate} ends dark");
                    }
                }
            }
        }
    }
}
