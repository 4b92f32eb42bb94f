//! How a node reaches addresses of other sites when the network between them translates (a 1:1 NAT, a VPN over
//! overlapping ranges, a relay). The cluster agrees on one address for everything; each node maps it at the
//! moment of dialling.

use crate::spec::Cidr;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;

/// One translation: addresses in `prefix` are reached in `via` (same length).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DialRule {
    /// The agreed addresses.
    pub prefix: Cidr,
    /// Where this node finds them.
    pub via: Cidr,
}

/// A node's translations, the first match counts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DialMap(pub Vec<DialRule>);

impl DialMap {
    /// The address to dial for an agreed address.
    pub fn resolve(&self, to: SocketAddr) -> SocketAddr {
        self.0.iter().find_map(|rule| rule.via.translate(&rule.prefix, to)).unwrap_or(to)
    }
}
