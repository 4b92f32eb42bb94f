//! The public API: generated types, the services over a [`Backend`], and the client that commands use.
//!
//! See `OVERVIEW.md`.

mod backend;
pub mod client;
pub mod convert;
mod error;
mod hub;
mod services;

/// The generated types of `proto/twinsite/v1`.
pub mod v1 {
    #![allow(missing_docs, unreachable_pub, unused_qualifications, clippy::all, clippy::pedantic)]
    tonic::include_proto!("twinsite.v1");
}

/// The description of the API, for reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/twinsite.v1.bin"));

pub use backend::{
    Backend, Destination, DrillCall, DrillMessages, MoveAnswer, MoveCall, MoveKind, Mutation, RoomPlace,
};
pub use client::{Client, ClientOptions, ClientTls, WatchMessage};
pub use error::{ApiError, DOMAIN, LeaderHint, Reason};
pub use hub::{Subscription, WatchHub, WatchItem};
pub use services::{CallerCheck, services};

/// The largest message, in bytes: a state with ten thousand upstreams takes about five million.
pub const MESSAGE_BYTES_MAX: usize = 64 << 20;
