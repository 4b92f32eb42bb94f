//! Whether anybody listens, asked of the kernel in a way that costs the same however many connections there are.
//! (`/proc/net/tcp` does not: with tens of thousands of connections reading it takes longer than a lease.)

use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::SocketAddr;

/// Whether anybody in this network namespace listens on this address. With `SO_REUSEADDR` a second socket may be bound
/// to an address that connections use, but not to one that is listened on (`inet_csk_get_port` in the kernel).
///
/// An error means that it cannot be told: a port below 1024 may be bound only with `CAP_NET_BIND_SERVICE`, and
/// descriptors or memory may have run out.
pub(super) fn any_listener(address: SocketAddr) -> io::Result<bool> {
    match bind(address) {
        Ok(()) => Ok(false),
        Err(error) => match error.kind() {
            io::ErrorKind::AddrInUse => Ok(true),
            // An address that this machine does not have cannot be listened on.
            io::ErrorKind::AddrNotAvailable => Ok(false),
            _ => Err(error),
        },
    }
}

fn bind(address: SocketAddr) -> io::Result<()> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn finds_a_listener_and_no_mere_connection() {
        for host in ["127.44.3.1:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(host) else { continue }; // a machine without IPv6
            let address = listener.local_addr().unwrap();
            assert!(any_listener(address).unwrap());
            let client = TcpStream::connect(address).unwrap();
            let (served, _) = listener.accept().unwrap();
            assert!(any_listener(address).unwrap());
            drop(listener);
            assert!(!any_listener(address).unwrap(), "a connection is no listener");
            drop((client, served));
            assert!(!any_listener(address).unwrap());
        }
        assert!(!any_listener("192.0.2.1:80".parse().unwrap()).unwrap());
    }
}
