//! What the kernel says about listeners: `/proc/net/tcp` and `/proc/net/tcp6` (`Documentation/networking/proc_net_tcp.rst`).

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

/// Whether this process's listener is there. The exclusion keeps every other one out.
pub(super) fn own_listener(address: SocketAddr) -> bool {
    any_listener(address)
}

/// An address as those files write it: words of 32 bits in the byte order of the machine.
fn written(address: SocketAddr) -> String {
    let octets = match address.ip() {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    };
    let words = octets.chunks_exact(4).map(|word| u32::from_ne_bytes([word[0], word[1], word[2], word[3]]));
    let address_part: String = words.map(|word| format!("{word:08X}")).collect();
    format!("{address_part}:{:04X}", address.port())
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
