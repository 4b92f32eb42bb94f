//! What nodes tell each other beside the consensus: observations, renewals, releases, and the places of rooms.

mod client;
mod server;
mod wire;

pub use client::{Heard, PeerError, Peers};
pub use server::{Local, serve};
pub use wire::Malformed;

/// The wire types, generated from `proto/twinsite/internal/v1/node.proto`.
mod pb {
    #![allow(missing_docs, clippy::all, clippy::pedantic)]
    tonic::include_proto!("twinsite.internal.v1");
}
