//! Headers on their way through (RFC 9110 section 7.6).

use crate::client_address::Origin;
use crate::facts::scheme_name;
use http::Version;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use std::net::IpAddr;

pub(crate) const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
pub(crate) const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
const REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
/// Asks for the two below.
pub(crate) const TRACE: HeaderName = HeaderName::from_static("x-twinsite-trace");
/// Which node answered.
pub(crate) const NODE: HeaderName = HeaderName::from_static("x-twinsite-node");
/// Under which token.
pub(crate) const TOKEN: HeaderName = HeaderName::from_static("x-twinsite-token");

/// Whether the request wants to become a WebSocket.
pub(crate) fn wants_websocket(headers: &HeaderMap) -> bool {
    let upgrades =
        headers.get(header::UPGRADE).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"));
    upgrades && lists(headers, &header::CONNECTION, "upgrade")
}

fn lists(headers: &HeaderMap, name: &HeaderName, wanted: &str) -> bool {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|token| token.trim().eq_ignore_ascii_case(wanted))
}

/// Takes out what concerns one connection only.
pub(crate) fn strip_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    let trailers = lists(headers, &header::TE, "trailers");
    for name in named {
        // The message's own framing and target are not for the sender to take away.
        if ![header::HOST, header::CONTENT_LENGTH].contains(&name) {
            headers.remove(name);
        }
    }
    for name in [
        header::CONNECTION,
        KEEP_ALIVE,
        PROXY_CONNECTION,
        header::PROXY_AUTHORIZATION,
        header::TE,
        header::TRAILER,
        header::TRANSFER_ENCODING,
        header::UPGRADE,
    ] {
        headers.remove(name);
    }
    if trailers {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
}

/// About as many bytes as the headers had when they came. hyper's own limit is one of its buffer, which may be full twice.
pub(crate) fn size(headers: &HeaderMap) -> usize {
    // A colon, a space, and the end of the line.
    headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum()
}

/// Makes the headers those of a request to an upstream. What a client says about itself and its way here is not
/// believed; a trusted proxy is, of the scheme, host and port that the client used.
pub(crate) fn prepare_request(
    headers: &mut HeaderMap,
    origin: Origin,
    address: HeaderValue,
    version: Version,
    websocket: bool,
) {
    strip_hop_by_hop(headers);
    for name in [header::FORWARDED, header::EXPECT, TRACE] {
        headers.remove(name);
    }
    if websocket {
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    }
    headers.insert(FORWARDED_FOR, address.clone());
    headers.insert(REAL_IP, address);
    headers.insert(FORWARDED_PROTO, HeaderValue::from_static(scheme_name(origin.scheme)));
    if !keeps(headers, origin, &FORWARDED_HOST, |value| !value.is_empty())
        && let Some(host) = headers.get(header::HOST).cloned()
    {
        headers.insert(FORWARDED_HOST, host);
    }
    let is_port = |value: &HeaderValue| value.to_str().is_ok_and(|port| port.parse::<u16>().is_ok());
    if !keeps(headers, origin, &FORWARDED_PORT, is_port) {
        headers.insert(FORWARDED_PORT, HeaderValue::from(origin.port));
    }
    let via = if version == Version::HTTP_2 {
        join_cookies(headers);
        "2.0 twinsite"
    } else {
        "1.1 twinsite"
    };
    headers.append(header::VIA, HeaderValue::from_static(via));
}

/// HTTP/2 may bring each cookie in a line of its own, and HTTP/1.1 knows one line (RFC 9113 section 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    if headers.get_all(header::COOKIE).iter().nth(1).is_none() {
        return;
    }
    let crumbs: Vec<_> = headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
    // Values, and a separator that is one.
    if let Ok(joined) = HeaderValue::from_bytes(&crumbs.join(&b"; "[..])) {
        headers.insert(header::COOKIE, joined);
    }
}

/// An address as headers have it.
pub(crate) fn address(address: IpAddr) -> HeaderValue {
    // An address has no byte that a header must not have.
    HeaderValue::try_from(address.to_string()).unwrap_or(HeaderValue::from_static("unknown"))
}

/// Whether a header stays as it came: a trusted proxy says it, once, and it makes sense.
fn keeps(
    headers: &HeaderMap,
    origin: Origin,
    name: &HeaderName,
    makes_sense: impl Fn(&HeaderValue) -> bool,
) -> bool {
    let mut values = headers.get_all(name).iter();
    origin.is_trusted && values.next().is_some_and(makes_sense) && values.next().is_none()
}

/// Says that the body's end is not known beforehand. Otherwise hyper takes a GET for one without a body.
pub(crate) fn announce_chunked(headers: &mut HeaderMap) {
    headers.remove(header::CONTENT_LENGTH);
    headers.insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
}

/// Makes the headers those of an answer to a client.
pub(crate) fn prepare_answer(headers: &mut HeaderMap, websocket: bool) {
    let upgrade = headers.get(header::UPGRADE).cloned().filter(|_| websocket);
    strip_hop_by_hop(headers);
    for name in [NODE, TOKEN] {
        headers.remove(name);
    }
    if let Some(upgrade) = upgrade {
        headers.insert(header::UPGRADE, upgrade);
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use twinsite_model::spec::Scheme;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let pairs = pairs
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(name, value);
        }
        map
    }

    fn origin(is_trusted: bool) -> Origin {
        let scheme = if is_trusted { Scheme::Https } else { Scheme::Http };
        Origin { client: "192.0.2.7".parse().unwrap(), port: 8080, is_trusted, scheme }
    }

    #[test]
    fn what_concerns_one_connection_stays_there() {
        let mut map = headers(&[
            ("host", "meet.example.org"),
            ("connection", "keep-alive, X-Secret, content-length"),
            ("x-secret", "1"),
            ("content-length", "5"),
            ("keep-alive", "timeout=5"),
            ("te", "trailers, deflate"),
            ("accept", "*/*"),
        ]);
        strip_hop_by_hop(&mut map);
        let left = headers(&[
            ("host", "meet.example.org"),
            ("content-length", "5"),
            ("te", "trailers"),
            ("accept", "*/*"),
        ]);
        assert_eq!(map, left);
    }

    #[test]
    fn a_client_cannot_say_who_it_is() {
        let mut map = headers(&[
            ("host", "meet.example.org"),
            ("x-forwarded-for", "10.0.0.1"),
            ("x-real-ip", "10.0.0.1"),
            ("forwarded", "for=10.0.0.1"),
            ("x-forwarded-proto", "https"),
        ]);
        prepare_request(&mut map, origin(false), address(origin(false).client), Version::HTTP_11, false);
        assert_eq!(map.get_all(FORWARDED_FOR).iter().collect::<Vec<_>>(), ["192.0.2.7"]);
        assert_eq!(map[REAL_IP], "192.0.2.7");
        assert_eq!(map[FORWARDED_PROTO], "http");
        assert_eq!(map[FORWARDED_HOST], "meet.example.org");
        assert_eq!(map[FORWARDED_PORT], "8080");
        assert!(!map.contains_key(header::FORWARDED));
    }

    #[test]
    fn a_trusted_proxy_says_how_the_client_came() {
        let said =
            [("x-forwarded-proto", "https"), ("x-forwarded-host", "a.example"), ("x-forwarded-port", "443")];
        let mut map =
            headers(&[&[("host", "meet.example.org"), ("x-forwarded-for", "10.9.9.9")][..], &said].concat());
        prepare_request(&mut map, origin(true), address(origin(true).client), Version::HTTP_11, false);
        assert_eq!(map[FORWARDED_FOR], "192.0.2.7", "who it is was found out before");
        for (name, value) in said {
            assert_eq!(map[name], value);
        }
        for nonsense in [&["99999"][..], &[""], &["80", "81"]] {
            let ports = nonsense.iter().map(|port| ("x-forwarded-port", *port));
            let mut map =
                headers(&[("host", "meet.example.org")].into_iter().chain(ports).collect::<Vec<_>>());
            prepare_request(&mut map, origin(true), address(origin(true).client), Version::HTTP_11, false);
            assert_eq!(map.get_all(FORWARDED_PORT).iter().collect::<Vec<_>>(), ["8080"], "{nonsense:?}");
        }
    }

    #[test]
    fn cookies_of_http_2_become_one_line() {
        let mut map = headers(&[("cookie", "a=1"), ("cookie", "b=2; c=3"), ("host", "meet.example.org")]);
        prepare_request(&mut map, origin(false), address(origin(false).client), Version::HTTP_2, false);
        assert_eq!(map.get_all(header::COOKIE).iter().collect::<Vec<_>>(), ["a=1; b=2; c=3"]);
        assert_eq!(map[header::VIA], "2.0 twinsite");
    }

    #[test]
    fn an_upgrade_needs_both_headers() {
        assert!(wants_websocket(&headers(&[
            ("upgrade", "WebSocket"),
            ("connection", "keep-alive, Upgrade")
        ])));
        assert!(!wants_websocket(&headers(&[("upgrade", "websocket")])));
        assert!(!wants_websocket(&headers(&[("upgrade", "h2c"), ("connection", "upgrade")])));
        let mut map =
            headers(&[("upgrade", "websocket"), ("connection", "upgrade"), ("x-twinsite-token", "9.9")]);
        prepare_answer(&mut map, true);
        assert_eq!(map, headers(&[("upgrade", "websocket"), ("connection", "upgrade")]));
    }
}
