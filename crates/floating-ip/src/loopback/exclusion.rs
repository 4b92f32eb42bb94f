//! The name that the kernel gives to one process only.

use crate::provider::ProviderError;
use std::io;
use std::net::SocketAddr as TcpAddress;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// Holds the name of an address. Dropping it, or the end of the process however it comes, gives the name back.
#[derive(Debug)]
pub(super) struct Exclusion {
    _socket: UnixDatagram,
}

impl Exclusion {
    /// Takes the name.
    pub(super) fn take(address: TcpAddress) -> Result<Self, ProviderError> {
        match bind(address) {
            Ok(socket) => Ok(Self { _socket: socket }),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => Err(ProviderError::Held(address)),
            Err(error) => Err(ProviderError::Refused { address, why: error.to_string() }),
        }
    }
}

fn bind(address: TcpAddress) -> io::Result<UnixDatagram> {
    let name = SocketAddr::from_abstract_name(name(address))?;
    UnixDatagram::bind_addr(&name)
}

fn name(address: TcpAddress) -> String {
    format!("twinsite/{address}")
}

/// Whether somebody, this process included, holds the name.
pub(super) fn is_taken(address: TcpAddress) -> bool {
    matches!(bind(address), Err(error) if error.kind() == io::ErrorKind::AddrInUse)
}

/// Whether nobody holds the address and nobody listens on it: the name can be taken (and is given back at once), and
/// the kernel shows no listener.
///
/// An error means that it cannot be told, which is not the same as free.
pub fn address_is_free(address: TcpAddress) -> io::Result<bool> {
    match bind(address) {
        Ok(_given_back) => {}
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => return Ok(false),
        Err(error) => return Err(error),
    }
    Ok(!super::kernel::any_listener(address)?)
}
