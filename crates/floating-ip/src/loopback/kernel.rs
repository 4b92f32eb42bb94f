//! What the kernel says about listeners: `/proc/net/tcp` and `/proc/net/tcp6` (`Documentation/networking/proc_net_tcp.rst`).

use std::fmt::Write;
use std::fs;
use std::net::{IpAddr, SocketAddr};

/// The state of a listening socket in those files.
const LISTEN: &str = "0A";

/// Whether anybody in this network namespace listens on exactly this address.
pub(super) fn any_listener(address: SocketAddr) -> bool {
    let file = if address.is_ipv4() { "/proc/net/tcp" } else { "/proc/net/tcp6" };
    let Ok(table) = fs::read_to_string(file) else { return true }; // unreadable: assume the worst
    let wanted = written(address);
    table.lines().skip(1).any(|line| {
        let mut fields = line.split_ascii_whitespace().skip(1);
        let local = fields.next();
        let state = fields.nth(1);
        local == Some(wanted.as_str()) && state == Some(LISTEN)
    })
}

/// An address as those files write it: words of 32 bits in the byte order of the machine.
fn written(address: SocketAddr) -> String {
    let octets = match address.ip() {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    };
    let mut written = String::with_capacity(octets.len() * 2 + 5);
    for word in octets.chunks_exact(4) {
        let word = u32::from_ne_bytes([word[0], word[1], word[2], word[3]]);
        let _ = write!(written, "{word:08X}"); // writing to a string cannot fail
    }
    let _ = write!(written, ":{:04X}", address.port());
    written
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn finds_a_listener_and_nothing_else() {
        for host in ["127.44.3.1:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(host) else { continue }; // a machine without IPv6
            let address = listener.local_addr().unwrap();
            assert!(any_listener(address));
            drop(listener);
            assert!(!any_listener(address));
        }
    }
}
