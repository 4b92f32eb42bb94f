//! The PROXY protocol, versions 1 and 2: a load balancer in front says whose connection it is (the specification is
//! `doc/proxy-protocol.txt` of `HAProxy`). Only from whom it is expected, and there always.

use ppp::{HeaderResult, v1, v2};
use std::io;
use std::net::{IpAddr, SocketAddr};
use tokio::io::{AsyncRead, AsyncReadExt};

/// The shortest header of either version: `PROXY UNKNOWN\r\n`.
const SHORTEST: usize = 15;
/// The longest of version 1 (section 2.1).
const V1_BYTES_MAX: usize = 107;
/// What a header of version 2 begins with (section 2.2), and how long its fixed part is.
const V2_SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
const V2_FIXED: usize = 16;
/// The longest of version 2 that is read: addresses have 36 bytes, the rest are extensions that nobody needs here.
const V2_BYTES_MAX: usize = 4 * 1024;

/// Why a connection has no usable header. It is closed: to go on would take its client for another.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProxyProtocolError {
    /// It ended, or broke.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Something else began.
    #[error("no PROXY header")]
    Missing,
    /// It is wrong.
    #[error("a damaged PROXY header")]
    Damaged,
    /// More than is read.
    #[error("a PROXY header of more than {0} bytes")]
    TooLong(usize),
}

/// Reads the header, and nothing beyond it: whose connection it is. None if it is the balancer's own, as for its probes, or
/// if the balancer does not know.
pub(crate) async fn read(
    stream: &mut (impl AsyncRead + Unpin),
) -> Result<Option<SocketAddr>, ProxyProtocolError> {
    let mut header = vec![0; SHORTEST];
    stream.read_exact(&mut header).await?;
    if header.starts_with(V2_SIGNATURE) {
        header.resize(V2_FIXED, 0);
        stream.read_exact(&mut header[SHORTEST..]).await?;
        let length = V2_FIXED + usize::from(u16::from_be_bytes([header[14], header[15]]));
        if length > V2_BYTES_MAX {
            return Err(ProxyProtocolError::TooLong(V2_BYTES_MAX));
        }
        header.resize(length, 0);
        stream.read_exact(&mut header[V2_FIXED..]).await?;
    } else if header.starts_with(b"PROXY ") {
        // A byte at a time, for what follows the line is not ours; it comes once for each connection.
        while !header.ends_with(b"\r\n") {
            if header.len() == V1_BYTES_MAX {
                return Err(ProxyProtocolError::TooLong(V1_BYTES_MAX));
            }
            header.push(stream.read_u8().await?);
        }
    } else {
        return Err(ProxyProtocolError::Missing);
    }
    source(&header)
}

fn source(header: &[u8]) -> Result<Option<SocketAddr>, ProxyProtocolError> {
    let at = |address: IpAddr, port| Some(SocketAddr::new(address.to_canonical(), port));
    Ok(match HeaderResult::parse(header) {
        HeaderResult::V1(Ok(header)) => match header.addresses {
            v1::Addresses::Unknown => None,
            v1::Addresses::Tcp4(addresses) => at(addresses.source_address.into(), addresses.source_port),
            v1::Addresses::Tcp6(addresses) => at(addresses.source_address.into(), addresses.source_port),
        },
        HeaderResult::V2(Ok(header)) => match (header.command, header.addresses) {
            (v2::Command::Local, _) | (_, v2::Addresses::Unspecified | v2::Addresses::Unix(_)) => None,
            (_, v2::Addresses::IPv4(addresses)) => at(addresses.source_address.into(), addresses.source_port),
            (_, v2::Addresses::IPv6(addresses)) => at(addresses.source_address.into(), addresses.source_port),
        },
        HeaderResult::V1(Err(_)) | HeaderResult::V2(Err(_)) => return Err(ProxyProtocolError::Damaged),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn run(bytes: &[u8]) -> (Result<Option<SocketAddr>, ProxyProtocolError>, Vec<u8>) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let mut rest = bytes;
        let found = runtime.block_on(read(&mut rest));
        (found, rest.to_vec())
    }

    fn v2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let length = u16::try_from(body.len()).unwrap().to_be_bytes();
        [V2_SIGNATURE, &[command, family], &length, body].concat()
    }

    #[test]
    fn both_versions_say_whose_connection_it_is_and_nothing_more_is_read() {
        let ipv4 =
            [&[192, 0, 2, 7, 192, 0, 2, 1][..], &4_711_u16.to_be_bytes(), &443_u16.to_be_bytes()].concat();
        for (header, source) in [
            (b"PROXY TCP4 192.0.2.7 192.0.2.1 4711 443\r\n".to_vec(), Some("192.0.2.7:4711")),
            (b"PROXY TCP6 2001:db8::7 2001:db8::1 4711 443\r\n".to_vec(), Some("[2001:db8::7]:4711")),
            (b"PROXY UNKNOWN\r\n".to_vec(), None),
            (b"PROXY UNKNOWN anything at all\r\n".to_vec(), None),
            (v2(0x21, 0x11, &ipv4), Some("192.0.2.7:4711")),
            (v2(0x21, 0x11, &[&ipv4[..], &[4, 0, 1, 0]].concat()), Some("192.0.2.7:4711")),
            (v2(0x20, 0x00, &[]), None),
            (v2(0x20, 0x11, &ipv4), None),
        ] {
            let (found, rest) = run(&[&header[..], b"GET / HTTP/1.1\r\n"].concat());
            assert_eq!(found.unwrap(), source.map(|source| source.parse().unwrap()), "{header:?}");
            assert_eq!(rest, b"GET / HTTP/1.1\r\n");
        }
    }

    #[test]
    fn anything_else_is_refused() {
        let error = |bytes: &[u8]| run(bytes).0.unwrap_err();
        assert!(matches!(error(b"GET / HTTP/1.1\r\n\r\n"), ProxyProtocolError::Missing));
        assert!(matches!(error(b"PROXY TCP4 192.0.2.7 x 4711 443\r\n"), ProxyProtocolError::Damaged));
        assert!(matches!(error(b"PROXY TCP4 192.0.2.7"), ProxyProtocolError::Io(_)));
        assert!(matches!(
            error(&[b"PROXY ".as_slice(), &[b'x'; 200]].concat()),
            ProxyProtocolError::TooLong(107)
        ));
        assert!(matches!(error(&v2(0x21, 0x11, &[1, 2])), ProxyProtocolError::Damaged));
        let long = [V2_SIGNATURE, &[0x21, 0x11], &[0xff, 0xff]].concat();
        assert!(matches!(error(&long), ProxyProtocolError::TooLong(_)));
    }

    proptest! {
        #[test]
        fn anything_may_come(bytes in prop::collection::vec(any::<u8>(), 0..300), begin in 0_usize..3) {
            let begins: [&[u8]; 3] = [b"", b"PROXY ", V2_SIGNATURE];
            // Whatever it says, it says it.
            drop(run(&[begins[begin], &bytes].concat()));
        }
    }
}
