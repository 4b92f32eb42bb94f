//! A client's connection to a floating IP, as nodes tell each other of it.

use std::net::{IpAddr, SocketAddr};

/// Both ends of a TCP connection whose one end is a floating IP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Connection {
    /// The client, as the network shows it to the holder.
    pub client: IpAddr,
    /// The client's port.
    pub client_port: u16,
    /// The floating IP's port.
    pub port: u16,
}

impl Connection {
    /// The connection of a client to a port of the floating IP.
    pub const fn new(client: SocketAddr, port: u16) -> Self {
        Self { client: client.ip(), client_port: client.port(), port }
    }
}
