//! Floating IPs on a host: how they are held, how they are let go, and how a hung holder is made to.
//!
//! * [`Provider`] is what every way of holding an address can do; [`Loopback`] is the one for one machine,
//!   [`Netlink`] the one for hosts that share a network.
//! * [`routed`] is the way to a provider that routes addresses by itself, and is called to change that.
//! * [`Lease`] is the deadline that everything on the data path asks before it answers.
//! * [`guardian`] is the process that outlives the node, ends it when it hangs, and says so.
//!
//! See `OVERVIEW.md`.

mod clock;
mod connection;
pub mod guardian;
mod listen;
mod loopback;
mod netlink;
mod provider;
pub mod routed;

pub use clock::{Lease, boot_now};
pub use connection::Connection;
pub use loopback::{Loopback, address_is_free};
#[doc(hidden)]
pub use netlink::Layer;
pub use netlink::{HostFinding, LIT_AT_MOST, Netlink, clear, examine, take_over};
pub use provider::{Accepted, Fencing, Observation, Provider, ProviderError, Work};
