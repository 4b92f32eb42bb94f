//! The proxy from outside: real sockets, real tunnels, upstreams that behave and upstreams that do not.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test's helpers end the test")]

mod balancers;
mod balancing;
mod bench;
mod bodies;
mod changes;
mod closing;
mod hostile;
mod hosts;
mod http2;
mod limits;
mod passing;
mod routes;
mod tls;
mod upstreams;
