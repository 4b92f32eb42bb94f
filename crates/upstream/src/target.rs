//! An upstream, as far as reaching it goes.

use twinsite_model::spec::{UpstreamProtocol, UpstreamSpec, UpstreamTlsSpec};

/// Whom to connect to, and how.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Target {
    /// `host:port`.
    pub address: String,
    /// What is spoken.
    pub protocol: UpstreamProtocol,
    /// How its certificate is looked at, if it has one.
    pub tls: UpstreamTlsSpec,
}

impl Target {
    /// The upstream of a specification.
    pub fn of(spec: &UpstreamSpec) -> Self {
        Self { address: spec.address.clone(), protocol: spec.protocol, tls: spec.tls.clone() }
    }

    /// Somebody who speaks HTTP/1.1 in clear.
    pub fn in_clear(address: impl Into<String>) -> Self {
        Self {
            address: address.into(),
            protocol: UpstreamProtocol::default(),
            tls: UpstreamTlsSpec::default(),
        }
    }

    /// The host alone, without the brackets of an IPv6 address.
    pub(crate) fn host(&self) -> &str {
        let host = self.address.rsplit_once(':').map_or(&*self.address, |(host, _)| host);
        host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_is_what_a_certificate_names() {
        for (address, host) in [
            ("meet.example:443", "meet.example"),
            ("10.0.0.1:8443", "10.0.0.1"),
            ("[2001:db8::1]:443", "2001:db8::1"),
        ] {
            assert_eq!(Target::in_clear(address).host(), host);
        }
    }
}
