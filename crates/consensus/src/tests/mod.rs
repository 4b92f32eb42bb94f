//! Clusters in one process.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_macros,
    reason = "these clusters run on tokio, its timers and its sockets"
)]

mod clusters;
mod freshness;
mod grpc;
mod harness;
mod membership;
mod storage;
mod traps;
mod turns;
