//! The data plane: HTTP/1.1 and WebSocket from clients to meeting instances.
//!
//! One single-threaded runtime for each core, a pool of upstream connections for each, and an immutable routing table
//! that is swapped whole: the request path takes no lock and waits for no consensus.
//!
//! See `OVERVIEW.md`.

mod access_log;
mod authority;
mod balance;
mod body;
mod client_address;
mod client_io;
mod compress;
mod connection;
mod edge;
mod edits;
mod facts;
mod forward;
mod frames;
mod greeting;
mod group;
mod headers;
mod host;
mod http2;
mod live_rooms;
mod local;
mod open;
mod pool;
mod proxy;
mod proxy_protocol;
mod retries;
mod rooms;
mod standing;
mod table;
mod tally;
mod tls;
mod tunnel;
mod wall;
mod worker;

pub use authority::Authority;
pub use group::{Closing, Load};
pub use open::{Changed, Ends};
pub use proxy::{Proxy, ProxyError, ProxyOptions};
pub use rooms::{RoomRefused, Rooms};
pub use table::RoutingTable;
pub use tls::{CertificateFinding, CertificateState, CertificatesState, examine_certificates};
