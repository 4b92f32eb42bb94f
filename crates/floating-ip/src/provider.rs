//! What every way of holding a floating IP can do.
//!
//! The trait is level-triggered: each call says what should be, may be repeated at any time, and finds out by itself
//! how far things already are. It fits three very different ways:
//!
//! | provider | attach | what keeps a second holder out | detach |
//! |---|---|---|---|
//! | loopback | binds a name that the kernel gives to one process only, then listens | that name; a hung holder is ended by its guardian | closes, waits, gives the name up last |
//! | netlink | rules first, then the address, then announcements; every call moves the kernel's own deadline | the kernel drops everything when the deadline passes | dark first, then without the address |
//! | routed (OVH, Hetzner) | an asynchronous task of the provider, one at a time, read back until it is done | the provider routes to one place only | nothing: the next attach elsewhere is the detach |

use std::future::Future;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::pin::Pin;
use twinsite_model::{BootTime, HardwareAddress, Token};

/// How a provider keeps two nodes from answering at the same instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fencing {
    /// The kernel ends the old holder's answers by itself when the deadline passes.
    KernelDeadline,
    /// A second holder cannot begin while the first one's process lives; a hung process is ended by its guardian.
    ExclusiveByGuardian,
    /// The network routes to one place; nothing that the old holder says arrives.
    RoutedToOne,
}

/// What is really there, read back and not remembered.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Observation {
    /// The token under which this node answers for the address.
    pub attached: Option<Token>,
    /// Why the address could not be attached or let go lately.
    pub error: Option<String>,
    /// A host that is no node and answers for the address too.
    pub stranger: Option<HardwareAddress>,
}

/// Why an address cannot be attached or let go.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProviderError {
    /// Another process holds it.
    #[error("{0} is held by another process on this machine")]
    Held(SocketAddr),
    /// The kernel refused.
    #[error("{address}: {why}")]
    Refused {
        /// The address.
        address: SocketAddr,
        /// What the kernel said.
        why: String,
    },
    /// It cannot be put on its interface, or taken away from it.
    #[error("{ip} on `{interface}`: {why}")]
    Interface {
        /// The address.
        ip: IpAddr,
        /// The interface.
        interface: String,
        /// Why, and what to do.
        why: String,
    },
    /// It was let go, and something of it is still there.
    #[error("{0} is still there after it was let go")]
    StillThere(SocketAddr),
}

impl ProviderError {
    /// Whether trying again may help.
    pub const fn retryable(&self) -> bool {
        true
    }
}

/// Takes the connections that arrive at a floating IP.
pub trait Accepted: Send + Sync + 'static {
    /// A client's connection, which may block or not: the taker sets what it needs.
    fn accept(&self, stream: TcpStream);
}

/// A future that can be kept in a box.
pub type Work<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A way of holding one floating IP on this node.
pub trait Provider: Send + Sync {
    /// How it keeps two nodes from answering at the same instant.
    fn fencing(&self) -> Fencing;

    /// Answer for the address under this token, until then at most. Repeated with every grant; cheap when nothing is
    /// to be done.
    fn hold(&self, token: Token, until: BootTime) -> Work<'_, Result<(), ProviderError>>;

    /// Say nothing more under this token from here on, whatever its lease says and whatever else is under way.
    fn end(&self, token: Token);

    /// Until when this node may answer under this token; none when it may not.
    fn until(&self, token: Token) -> Option<BootTime>;

    /// Accept nothing new. What was accepted goes on.
    fn close(&self) -> Work<'_, ()>;

    /// Let go for good, after everything that was accepted is closed; read back that nothing is left.
    fn release(&self) -> Work<'_, Result<(), ProviderError>>;

    /// What is really there.
    fn observe(&self) -> Observation;
}
