//! Upstreams: where they are, what they speak, how much of the requests each gets.

use crate::ids::{SiteName, UpstreamName};
use crate::state::Format;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// One instance of the meeting server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UpstreamSpec {
    /// Its name.
    pub name: UpstreamName,
    /// The site at which it runs.
    pub site: SiteName,
    /// `host:port`. Hashes score this very string, so it should not change while people are in rooms. A name is looked up
    /// again every few seconds, and its last good addresses are kept for an hour.
    pub address: String,
    /// What it speaks.
    #[serde(default, skip_serializing_if = "UpstreamProtocol::is_default")]
    pub protocol: UpstreamProtocol,
    /// How its certificate is looked at, with `https`.
    #[serde(default, skip_serializing_if = "UpstreamTlsSpec::is_default")]
    pub tls: UpstreamTlsSpec,
    /// How much it gets beside the others of its site: one of weight 2 twice as much as one of weight 1.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub weight: u32,
}

/// What an upstream speaks. `WebSockets` are HTTP/1.1 whatever it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UpstreamProtocol {
    /// HTTP/1.1 in clear.
    #[default]
    Http,
    /// HTTP/2 in clear. One that turns out not to speak it is spoken to in HTTP/1.1.
    H2c,
    /// HTTP/1.1 by TLS.
    Https,
}

impl UpstreamProtocol {
    /// Whether it is what nothing needs to be said of.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// How an upstream's certificate is looked at.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct UpstreamTlsSpec {
    /// Whether it must be good. Without, what is said is hidden from listeners, and who hears it is not known.
    pub verify: bool,
    /// The name that it must be for; without one, the host of `address`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Where the authorities are that may have signed it, on every node, PEM; without, those of the host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub authorities: Option<PathBuf>,
}

impl Default for UpstreamTlsSpec {
    fn default() -> Self {
        Self { verify: true, name: None, authorities: None }
    }
}

impl UpstreamTlsSpec {
    /// Whether it is what nothing needs to be said of.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl UpstreamSpec {
    /// One that speaks HTTP/1.1 in clear.
    pub fn new(name: UpstreamName, site: SiteName, address: String) -> Self {
        let (protocol, tls) = (UpstreamProtocol::default(), UpstreamTlsSpec::default());
        Self { name, site, address, protocol, tls, weight: 1 }
    }

    /// The oldest format whose programs read all that is written here.
    pub(crate) fn required_format(&self) -> Format {
        let is_of_format_6 = !self.protocol.is_default() || !self.tls.is_default() || self.weight != 1;
        if is_of_format_6 { Format::EDGE } else { Format::FIRST }
    }
}

const fn one() -> u32 {
    1
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
const fn is_one(weight: &u32) -> bool {
    *weight == 1
}
