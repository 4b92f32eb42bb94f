use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

/// An address prefix, `ADDRESS/LENGTH`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Cidr {
    base: IpAddr,
    length: u8,
}

/// Why a string is not a prefix.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an address prefix: write ADDRESS/LENGTH without host bits, as in `10.1.0.0/16`")]
pub struct CidrError(String);

fn bits(address: IpAddr) -> (u128, u32) {
    match address {
        IpAddr::V4(v4) => (u128::from(v4.to_bits()), 32),
        IpAddr::V6(v6) => (v6.to_bits(), 128),
    }
}

impl Cidr {
    /// Whether the address lies within.
    pub fn contains(&self, address: IpAddr) -> bool {
        let ((base, width), (given, given_width)) = (bits(self.base), bits(address));
        let host_bits = width - u32::from(self.length);
        width == given_width && (host_bits == 128 || base >> host_bits == given >> host_bits)
    }

    /// Whether every address of its kind lies within.
    pub const fn is_everything(&self) -> bool {
        self.length == 0
    }

    /// The address with this prefix put in place of `from`'s, keeping the host part: what a 1:1 NAT between two
    /// sites does. `None` if the address lies outside `from` or the two prefixes differ in kind or length.
    pub fn translate(&self, from: &Self, to: SocketAddr) -> Option<SocketAddr> {
        let same_shape = self.length == from.length && self.base.is_ipv4() == from.base.is_ipv4();
        if !same_shape || !from.contains(to.ip()) {
            return None;
        }
        let ((base, width), (given, _)) = (bits(self.base), bits(to.ip()));
        let host_bits = width - u32::from(self.length);
        let host_mask = if host_bits == 128 { u128::MAX } else { (1_u128 << host_bits) - 1 };
        let translated = base | (given & host_mask);
        let ip = if width == 32 {
            IpAddr::V4(u32::try_from(translated).ok()?.into())
        } else {
            IpAddr::V6(translated.into())
        };
        Some(SocketAddr::new(ip, to.port()))
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.base, self.length)
    }
}

impl FromStr for Cidr {
    type Err = CidrError;
    fn from_str(s: &str) -> Result<Self, CidrError> {
        let bad = || CidrError(s.chars().take(60).collect());
        let (base, length) = s.split_once('/').ok_or_else(bad)?;
        let base: IpAddr = base.parse().map_err(|_| bad())?;
        let length: u8 = length.parse().map_err(|_| bad())?;
        let (value, width) = bits(base);
        let host_bits = width.checked_sub(u32::from(length)).ok_or_else(bad)?;
        let host_mask = if host_bits == 128 { u128::MAX } else { (1_u128 << host_bits) - 1 };
        if value & host_mask != 0 {
            return Err(bad());
        }
        Ok(Self { base, length })
    }
}

impl TryFrom<String> for Cidr {
    type Error = CidrError;
    fn try_from(s: String) -> Result<Self, CidrError> {
        s.parse()
    }
}

impl From<Cidr> for String {
    fn from(cidr: Cidr) -> String {
        cidr.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cidr(s: &str) -> Cidr {
        s.parse().unwrap()
    }

    #[test]
    fn contains_and_translates() {
        let (near, far) = (cidr("127.7.2.0/24"), cidr("127.7.12.0/24"));
        assert!(near.contains("127.7.2.9".parse().unwrap()));
        assert!(!near.contains("127.7.3.9".parse().unwrap()));
        let to = "127.7.2.9:80".parse().unwrap();
        assert_eq!(far.translate(&near, to), Some("127.7.12.9:80".parse().unwrap()));
        assert_eq!(near.translate(&far, to), None);
        assert!(cidr("::/0").contains("2001:db8::1".parse().unwrap()));
        for bad in ["10.0.0.1/8", "10.0.0.0/33", "x/8", "10.0.0.0"] {
            assert!(bad.parse::<Cidr>().is_err(), "{bad}");
        }
    }
}
