//! Floating IPs, as the specification names them.

use super::duration::HumanDuration;
use crate::ids::{FloatingIpName, InterfaceName, SiteName};
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// How a floating IP is moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProviderKind {
    /// An address of one machine's loopback range: for the demo and for tests.
    Loopback,
    /// An address on an interface of its holder, in a network that all hosts share: a local network, or one that is
    /// stretched over the sites (a vRack).
    Netlink,
    /// An address that OVH routes to one server at a time, by its API.
    Ovh,
}

impl ProviderKind {
    /// Whether a provider routes the address to one node, and a call there moves it.
    pub const fn is_routed(self) -> bool {
        match self {
            Self::Loopback | Self::Netlink => false,
            Self::Ovh => true,
        }
    }
}

/// What a floating IP's holder does when it cannot tell whether a quorum exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnQuorumUnknown {
    /// Keep serving what still arrives, change nothing.
    ServeFrozen,
    /// Finish what runs, accept nothing new.
    Drain,
    /// Stop at the end of the lease.
    Stop,
}

/// When an address goes back to the preferred site by itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Failback {
    /// Never, and `switchover` to the preferred site is the only way.
    Never,
    /// When a person says so.
    #[default]
    Manual,
    /// After the preferred site has been fully healthy for so long.
    After(HumanDuration),
}

/// A public address that at most one node answers for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FloatingIpSpec {
    /// Its name.
    pub name: FloatingIpName,
    /// The address.
    pub address: IpAddr,
    /// The TCP ports on which the owner proxies HTTP.
    pub ports: Vec<u16>,
    /// Those of them on which it speaks TLS.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tls_ports: Vec<u16>,
    /// How it is moved.
    pub provider: ProviderKind,
    /// For `netlink`: the interface on which its holder has it. Where a host calls it otherwise, its `node.toml` says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<InterfaceName>,
    /// The sites that may own it, the preferred one first. Empty: all sites that are no witness, in their order.
    #[serde(default)]
    pub sites: Vec<SiteName>,
    /// When it goes back by itself.
    #[serde(default)]
    pub failback: Failback,
    /// What its holder does while it is unknown whether a quorum exists. For addresses that the network cannot keep
    /// apart (loopback, netlink) it is always `stop`: the lease ends without a quorum, and with it the right to act. Nothing
    /// else can be written for them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_quorum_unknown: Option<OnQuorumUnknown>,
}

impl FloatingIpSpec {
    /// The port at which the cluster itself looks whether the address answers: the first that speaks no TLS, so that a bad
    /// certificate is not taken for a lost address.
    pub fn probe_port(&self) -> Option<u16> {
        self.ports.iter().copied().find(|port| !self.tls_ports.contains(port))
    }

    /// What the holder does while it is unknown whether a quorum exists.
    pub fn on_quorum_unknown(&self) -> OnQuorumUnknown {
        self.on_quorum_unknown.unwrap_or(match self.provider {
            ProviderKind::Loopback | ProviderKind::Netlink => OnQuorumUnknown::Stop,
            ProviderKind::Ovh => OnQuorumUnknown::ServeFrozen,
        })
    }
}
