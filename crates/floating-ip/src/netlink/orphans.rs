//! TCP connections that an earlier life of the address has left in this kernel.
//!
//! A process that is killed leaves its connections to its kernel, which goes on for minutes to send what had been written
//! to them: later each time, and in vain while the address is dark. If this host is given the address again within that
//! time, a client reads an answer that was given under an older token, after others have answered under newer ones. (Seen
//! in a drill: 27 s after the answer was written, 8 s after the next token.) So before the address is light these
//! connections are broken off (`SOCK_DESTROY`, `sock_diag(7)`, Linux 4.5 with `CONFIG_INET_DIAG_DESTROY`), while the rules
//! hold back the resets that the kernel would say farewell with.

use super::socket::{Line, is};
use netlink_packet_sock_diag::constants::{AF_INET, AF_INET6, IPPROTO_TCP};
use netlink_packet_sock_diag::inet::{ExtensionFlags, InetRequest, SocketId, StateFlags};
use netlink_packet_sock_diag::{SockDiagDestroy, SockDiagMessage};
use netlink_sys::protocols::NETLINK_SOCK_DIAG;
use rustix::io::Errno;
use std::io;
use std::net::IpAddr;

/// Those that may still say something: not listeners, and not what is only remembered (`TIME_WAIT`).
const MAY_SPEAK: StateFlags = StateFlags::ESTABLISHED
    .union(StateFlags::SYN_RECV)
    .union(StateFlags::FIN_WAIT1)
    .union(StateFlags::FIN_WAIT2)
    .union(StateFlags::CLOSE_WAIT)
    .union(StateFlags::LAST_ACK)
    .union(StateFlags::CLOSING);

/// Breaks off every TCP connection of this kernel with this address of ours. Says how many there were.
pub(super) fn break_off(address: IpAddr) -> io::Result<usize> {
    let mut line = Line::open(NETLINK_SOCK_DIAG)?;
    let (family, anything) = match address {
        IpAddr::V4(_) => (AF_INET, SocketId::new_v4()),
        IpAddr::V6(_) => (AF_INET6, SocketId::new_v6()),
    };
    let about = |socket_id| {
        SockDiagMessage::InetRequest(InetRequest {
            family,
            protocol: IPPROTO_TCP,
            extensions: ExtensionFlags::empty(),
            states: MAY_SPEAK,
            socket_id,
        })
    };
    let mut broken_off = 0;
    for found in line.list(about(anything))? {
        let SockDiagMessage::InetResponse(found) = found else { continue };
        let socket = found.header.socket_id;
        if socket.source_address != address {
            continue;
        }
        match line.change(SockDiagDestroy::new(about(socket)), 0) {
            Ok(()) => broken_off += 1,
            // It has ended meanwhile.
            Err(error) if is(&error, Errno::NOENT) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(broken_off)
}
