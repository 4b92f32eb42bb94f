//! The names and numbers of the cluster, each with a type of its own, so that none is taken for another.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// The longest name that a person may give to anything in the cluster, in bytes.
pub const NAME_LENGTH_MAX: usize = 48;

/// Why a string is not a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{given}` is not a name: use 1 to {NAME_LENGTH_MAX} of a-z, 0-9 and `-`, beginning with a letter or digit"
)]
pub struct NameError {
    /// What was given, cut to a printable length.
    pub given: String,
}

fn check_name(given: &str) -> Result<(), NameError> {
    let bytes = given.as_bytes();
    let well_formed = !bytes.is_empty()
        && bytes.len() <= NAME_LENGTH_MAX
        && bytes[0] != b'-'
        && bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-');
    if well_formed {
        Ok(())
    } else {
        Err(NameError { given: given.chars().take(NAME_LENGTH_MAX + 1).collect() })
    }
}

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// Checks and wraps a name: 1 to 48 of `a-z`, `0-9` and `-`, beginning with a letter or digit.
            pub fn new(name: impl Into<String>) -> Result<Self, NameError> {
                let name = name.into();
                check_name(&name)?;
                Ok(Self(name))
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self.0)
            }
        }

        impl FromStr for $name {
            type Err = NameError;
            fn from_str(s: &str) -> Result<Self, NameError> {
                Self::new(s)
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;
            fn try_from(s: String) -> Result<Self, NameError> {
                Self::new(s)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0
            }
        }
    };
}

name_type! {
    /// The cluster's name. It is part of every certificate and of every message between nodes.
    ClusterName
}
name_type! {
    /// A failure domain with a short name, such as `gra` or `sbg`.
    SiteName
}
name_type! {
    /// A node's name for people, such as `gra-1`. Machines use [`NodeId`].
    NodeName
}
name_type! {
    /// The name of one instance of the meeting server.
    UpstreamName
}
name_type! {
    /// The name of a floating IP.
    FloatingIpName
}
name_type! {
    /// The name of a route.
    RouteName
}
name_type! {
    /// The name of a certificate.
    CertificateName
}

/// The longest name of a network interface, in bytes (`IFNAMSIZ` without its final zero).
pub const INTERFACE_NAME_LENGTH_MAX: usize = 15;

/// Why a string is not the name of a network interface.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{given}` is not the name of a network interface: 1 to {INTERFACE_NAME_LENGTH_MAX} printable characters without \
     `/`, `:` and spaces (`ip link` lists them)"
)]
pub struct InterfaceNameError {
    /// What was given, cut to a printable length.
    pub given: String,
}

/// The hardware address of a host on an Ethernet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HardwareAddress(pub [u8; 6]);

impl fmt::Display for HardwareAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0.map(|byte| format!("{byte:02x}")).join(":"))
    }
}

/// The name of a network interface of a host, as the kernel allows it (`dev_valid_name` in `net/core/dev.c`; narrower:
/// printable ASCII only).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct InterfaceName(String);

impl InterfaceName {
    /// Checks and wraps a name.
    pub fn new(name: impl Into<String>) -> Result<Self, InterfaceNameError> {
        let name = name.into();
        let well_formed = !name.is_empty()
            && name.len() <= INTERFACE_NAME_LENGTH_MAX
            && name != "."
            && name != ".."
            && name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/' && byte != b':');
        if well_formed {
            Ok(Self(name))
        } else {
            Err(InterfaceNameError { given: name.chars().take(INTERFACE_NAME_LENGTH_MAX + 1).collect() })
        }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for InterfaceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl TryFrom<String> for InterfaceName {
    type Error = InterfaceNameError;
    fn try_from(name: String) -> Result<Self, InterfaceNameError> {
        Self::new(name)
    }
}

impl From<InterfaceName> for String {
    fn from(name: InterfaceName) -> String {
        name.0
    }
}

macro_rules! number_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(
            Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    };
}

number_type! {
    /// A node's number in the consensus. Never used twice: a new disk is a new id (design section 5).
    NodeId
}
number_type! {
    /// The number that grows by one with every change of a floating IP's owner. Zero: never owned.
    Epoch
}
number_type! {
    /// The number that grows with every forced recovery. A cluster begins with generation 1.
    Generation
}
number_type! {
    /// The version of the replicated state: the log index of the last command that changed it.
    Revision
}
number_type! {
    /// A failover or switchover: the revision at which it began.
    OperationId
}
number_type! {
    /// A call at a provider: counted for each floating IP. Zero: there was none yet.
    ErrandId
}
number_type! {
    /// A drill on the live cluster: the revision at which it began.
    DrillId
}

/// One life of a process. The upper half counts the lives of one disk, so that later lives are larger; the lower half
/// is drawn at random, so that a restored copy of a disk is not taken for the original.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Incarnation(pub u64);

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// The fencing token: `(generation, epoch)`, compared in that order, everywhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Token {
    /// Compared first: a forced recovery outranks every epoch before it.
    pub generation: Generation,
    /// Compared second.
    pub epoch: Epoch,
}

impl Token {
    /// A token from its two numbers.
    pub const fn new(generation: u64, epoch: u64) -> Self {
        Self { generation: Generation(generation), epoch: Epoch(epoch) }
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.generation, self.epoch)
    }
}

/// Why a string is not a token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a token: write GENERATION.EPOCH, two whole numbers, as in `1.7`")]
pub struct TokenError(String);

impl FromStr for Token {
    type Err = TokenError;
    fn from_str(s: &str) -> Result<Self, TokenError> {
        let bad = || TokenError(s.chars().take(40).collect());
        let (generation, epoch) = s.split_once('.').ok_or_else(bad)?;
        Ok(Self::new(generation.parse().map_err(|_| bad())?, epoch.parse().map_err(|_| bad())?))
    }
}

/// A room, hashed: room names may be secrets and never leave the process in clear (design section 9).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RoomKey(pub [u8; 16]);

impl RoomKey {
    /// The key of a room, the same on every node of the cluster, different in every cluster.
    pub fn of(cluster: &ClusterName, room: &str) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("twinsite room key v1");
        hasher.update(cluster.as_str().as_bytes());
        hasher.update(&[0]);
        hasher.update(room.as_bytes());
        let mut key = [0; 16];
        key.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        Self(key)
    }
}

impl fmt::Display for RoomKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl fmt::Debug for RoomKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RoomKey({self})")
    }
}

/// Why a string is not a room key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a room key is 32 hexadecimal digits")]
pub struct RoomKeyError;

impl FromStr for RoomKey {
    type Err = RoomKeyError;
    fn from_str(s: &str) -> Result<Self, RoomKeyError> {
        let digits = s.as_bytes();
        if digits.len() != 32 || !digits.iter().all(u8::is_ascii_hexdigit) {
            return Err(RoomKeyError);
        }
        let mut key = [0; 16];
        for (byte, pair) in key.iter_mut().zip(digits.chunks_exact(2)) {
            let pair = std::str::from_utf8(pair).map_err(|_| RoomKeyError)?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| RoomKeyError)?;
        }
        Ok(Self(key))
    }
}

/// The caller's name for a mutation, so that a repetition of it is recognised (design section 12).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(String);

impl RequestId {
    /// The longest accepted id, in bytes.
    pub const LENGTH_MAX: usize = 64;

    /// Wraps an id of 1 to 64 bytes; `None` if it is empty or too long.
    pub fn new(id: impl Into<String>) -> Option<Self> {
        let id = id.into();
        (!id.is_empty() && id.len() <= Self::LENGTH_MAX).then_some(Self(id))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked() {
        assert!(SiteName::new("gra").is_ok());
        assert!(NodeName::new("gra-1").is_ok());
        for bad in ["", "-a", "Gra", "a b", "ä", &"x".repeat(49)] {
            assert!(SiteName::new(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_token_of_a_later_generation_outranks_every_epoch() {
        assert!(Token::new(2, 0) > Token::new(1, u64::MAX));
        assert!(Token::new(1, 8) > Token::new(1, 7));
        assert_eq!("3.9".parse(), Ok(Token::new(3, 9)));
        assert!("3".parse::<Token>().is_err());
        assert!("3.x".parse::<Token>().is_err());
    }

    #[test]
    fn a_room_key_hides_the_name_and_reads_back() {
        let demo = ClusterName::new("demo").unwrap();
        let other = ClusterName::new("other").unwrap();
        let key = RoomKey::of(&demo, "board meeting");
        assert_eq!(key, RoomKey::of(&demo, "board meeting"));
        assert_ne!(key, RoomKey::of(&other, "board meeting"));
        assert_eq!(key.to_string().parse(), Ok(key));
        assert!("zz".parse::<RoomKey>().is_err());
    }
}
