//! Whose request it is, behind proxies whose word counts.

use crate::headers::{FORWARDED_FOR, FORWARDED_PROTO};
use http::header::{HeaderMap, HeaderValue};
use std::net::{IpAddr, SocketAddr};
use twinsite_model::spec::{Cidr, Scheme};

/// Where a request comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Origin {
    /// The client.
    pub(crate) client: IpAddr,
    /// The port at which its connection came in here.
    pub(crate) port: u16,
    /// Whether a trusted proxy brought it, so that what it says of scheme, host and port counts too.
    pub(crate) is_trusted: bool,
    /// How the client came: here, or to the trusted proxy.
    pub(crate) scheme: Scheme,
}

impl Origin {
    /// Of a request on this connection, which came in at this port and in this way.
    pub(crate) fn of(
        connection: IpAddr,
        port: u16,
        scheme: Scheme,
        headers: &HeaderMap,
        trusted: &[Cidr],
    ) -> Self {
        let connection = connection.to_canonical();
        let is_trusted = trusted.iter().any(|prefix| prefix.contains(connection));
        let client = if is_trusted { client(connection, headers, trusted) } else { connection };
        let mut said = headers.get_all(FORWARDED_PROTO).iter();
        let said = (said.next().filter(|_| is_trusted), said.next());
        let scheme = match (said.0.map(HeaderValue::as_bytes), said.1) {
            (Some(b"https"), None) => Scheme::Https,
            (Some(b"http"), None) => Scheme::Http,
            _ => scheme,
        };
        Self { client, port, is_trusted, scheme }
    }
}

/// The client's address: that of the connection, unless a trusted proxy made it; then, from the right, the first that
/// `X-Forwarded-For` names and that is no trusted proxy itself. Whatever is further to the left anybody may have written. A
/// name that is no address ends the search: what a trusted proxy does not know nobody knows.
fn client(connection: IpAddr, headers: &HeaderMap, trusted: &[Cidr]) -> IpAddr {
    let mut client = connection;
    let is_trusted = |address: IpAddr| trusted.iter().any(|prefix| prefix.contains(address));
    // Several lines are one list (RFC 9110 section 5.3).
    let lines = headers.get_all(FORWARDED_FOR).iter();
    let words = lines.rev().flat_map(|line| line.as_bytes().rsplit(|byte| *byte == b','));
    for word in words {
        if !is_trusted(client) {
            return client;
        }
        let Some(named) = address(word) else { return client };
        client = named;
    }
    client
}

/// An address, with a port or without: `192.0.2.1`, `192.0.2.1:4711`, `2001:db8::1`, `[2001:db8::1]`, `[2001:db8::1]:4711`.
fn address(word: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(word).ok()?.trim_matches([' ', '\t']);
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    let parsed = bare.parse().or_else(|_| text.parse().map(|with_port: SocketAddr| with_port.ip()));
    parsed.ok().map(|address: IpAddr| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn found(connection: &str, lines: &[&str], trusted: &[&str]) -> String {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(FORWARDED_FOR, HeaderValue::from_str(line).unwrap());
        }
        let trusted: Vec<Cidr> = trusted.iter().map(|prefix| prefix.parse().unwrap()).collect();
        Origin::of(connection.parse().unwrap(), 443, Scheme::Http, &headers, &trusted).client.to_string()
    }

    const TRUSTED: [&str; 2] = ["10.0.0.0/8", "2001:db8:1::/48"];

    #[test]
    fn nobody_is_believed_who_is_not_trusted() {
        assert_eq!(found("192.0.2.1", &["198.51.100.1"], &TRUSTED), "192.0.2.1");
        assert_eq!(found("10.0.0.1", &["198.51.100.1"], &[]), "10.0.0.1");
        assert_eq!(found("::ffff:192.0.2.1", &[], &[]), "192.0.2.1");
    }

    #[test]
    fn the_first_from_the_right_that_is_no_trusted_proxy_is_the_client() {
        assert_eq!(found("10.0.0.1", &["198.51.100.1"], &TRUSTED), "198.51.100.1");
        assert_eq!(found("10.0.0.1", &["203.0.113.9, 198.51.100.1, 10.0.0.2"], &TRUSTED), "198.51.100.1");
        assert_eq!(found("10.0.0.1", &["203.0.113.9", "198.51.100.1,10.0.0.2"], &TRUSTED), "198.51.100.1");
        assert_eq!(found("10.0.0.1", &["10.0.0.3, 10.0.0.2"], &TRUSTED), "10.0.0.3");
        assert_eq!(found("::ffff:10.0.0.1", &["198.51.100.1"], &TRUSTED), "198.51.100.1");
        assert_eq!(found("2001:db8:1::5", &["[2001:db8:2::7]:443"], &TRUSTED), "2001:db8:2::7");
    }

    #[test]
    fn addresses_are_read_with_and_without_ports() {
        for word in ["192.0.2.1", " 192.0.2.1:80\t", "::ffff:192.0.2.1", "[::ffff:192.0.2.1]:80"] {
            assert_eq!(address(word.as_bytes()), Some("192.0.2.1".parse().unwrap()), "{word}");
        }
        assert_eq!(address(b"[2001:db8::1]"), Some("2001:db8::1".parse().unwrap()));
        for word in ["", "unknown", "_hidden", "192.0.2.1:", "192.0.2.300", "[192.0.2.1", "\u{e9}"] {
            assert_eq!(address(word.as_bytes()), None, "{word}");
        }
    }

    #[test]
    fn what_is_no_address_ends_the_search() {
        assert_eq!(found("10.0.0.1", &["198.51.100.1, unknown, 10.0.0.2"], &TRUSTED), "10.0.0.2");
        assert_eq!(found("10.0.0.1", &["198.51.100.1, "], &TRUSTED), "10.0.0.1");
    }

    #[test]
    fn a_trusted_proxy_says_how_the_client_came() {
        let scheme = |connection: &str, said: &[&str]| {
            let mut headers = HeaderMap::new();
            for one in said {
                headers.append(FORWARDED_PROTO, HeaderValue::from_str(one).unwrap());
            }
            Origin::of(
                connection.parse().unwrap(),
                80,
                Scheme::Http,
                &headers,
                &["10.0.0.0/8".parse().unwrap()],
            )
            .scheme
        };
        assert_eq!(scheme("10.0.0.1", &["https"]), Scheme::Https);
        for not in [&["http"][..], &[], &["gopher"], &["https", "http"]] {
            assert_eq!(scheme("10.0.0.1", not), Scheme::Http, "{not:?}");
        }
        assert_eq!(scheme("192.0.2.1", &["https"]), Scheme::Http);
    }

    proptest! {
        /// Whatever a client writes before it, the proxy's own word decides.
        #[test]
        fn a_client_cannot_choose_its_address(written in "[ -~]{0,40}") {
            let line = format!("{written}, 198.51.100.1");
            prop_assert_eq!(found("10.0.0.1", &[&line], &TRUSTED), "198.51.100.1");
        }
    }
}
