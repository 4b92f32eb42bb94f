//! The data plane: HTTP/1.1 and WebSocket from clients to meeting instances.
//!
//! One single-threaded runtime for each core, a pool of upstream connections for each, and an immutable routing table
//! that is swapped whole: the request path takes no lock and waits for no consensus.
//!
//! See `OVERVIEW.md`.

mod authority;
mod balance;
mod body;
mod client_address;
mod client_io;
mod compress;
mod connection;
mod edits;
mod facts;
mod forward;
mod frames;
mod group;
mod headers;
mod host;
mod live_rooms;
mod local;
mod open;
mod pool;
mod proxy;
mod rooms;
mod table;
mod tunnel;
mod worker;

pub use authority::Authority;
pub use group::{Closing, Load};
pub use open::{Changed, Ends};
pub use proxy::{Proxy, ProxyError, ProxyOptions};
pub use rooms::{RoomRefused, Rooms};
pub use table::RoutingTable;
