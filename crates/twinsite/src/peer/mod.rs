//! What nodes tell each other beside the consensus: observations, renewals, releases, and the places of rooms.

mod client;
mod drill_wire;
mod server;
#[cfg(test)]
pub mod tests;
mod wire;

pub use client::Peers;
pub use server::{Local, serve};

/// The wire types, generated from `proto/twinsite/internal/v1/node.proto`.
mod pb {
    #![allow(missing_docs, unreachable_pub, unused_qualifications, clippy::all, clippy::pedantic)]
    tonic::include_proto!("twinsite.internal.v1");
}
