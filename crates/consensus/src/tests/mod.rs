//! Clusters in one process.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod clusters;
mod freshness;
mod grpc;
mod harness;
mod membership;
mod storage;
mod traps;
