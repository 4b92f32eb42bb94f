//! The proxy from outside: real sockets, real tunnels, upstreams that behave and upstreams that do not.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test's helpers end the test")]

mod balancing;
mod bench;
mod bodies;
mod closing;
mod hosts;
mod limits;
mod passing;
mod routes;
