//! The host that a request is for: one, whatever its lines say, for the route as for the upstream.

use http::header::{self, HeaderMap, HeaderValue};
use http::uri::Authority;
use http::{Request, Version};

/// A request's host.
pub(crate) struct Host {
    /// None if it is named empty, or not at all.
    authority: Option<Authority>,
    /// Whether the `Host` header is as it should be.
    is_in_header: bool,
}

impl Host {
    /// From the target if it is absolute, else from the `Host` header, of which there must be one (RFC 9112 section
    /// 3.2). `None` if it cannot be told.
    pub(crate) fn of<B>(request: &Request<B>) -> Option<Self> {
        let mut headers = request.headers().get_all(header::HOST).iter();
        let (named, second) = (headers.next(), headers.next());
        if second.is_some() {
            return None;
        }
        if request.version() == Version::HTTP_2 {
            return Self::of_pseudo_header(request.uri().authority()?, named);
        }
        if named.is_none() && request.version() != Version::HTTP_10 {
            return None;
        }
        if let Some(authority) = request.uri().authority() {
            return Some(Self { authority: Some(authority.clone()), is_in_header: false });
        }
        let Some(named) = named.filter(|named| !named.is_empty()) else {
            return Some(Self { authority: None, is_in_header: named.is_some() });
        };
        let authority = Authority::try_from(named.as_bytes()).ok()?;
        // Who asks does not belong here, and others might read it differently.
        (!authority.as_str().contains('@')).then_some(Self { authority: Some(authority), is_in_header: true })
    }

    /// Of HTTP/2: `:authority`, which a `Host` beside it must not contradict (RFC 9113 section 8.3.1).
    fn of_pseudo_header(authority: &Authority, named: Option<&HeaderValue>) -> Option<Self> {
        let agree =
            named.is_none_or(|named| named.as_bytes().eq_ignore_ascii_case(authority.as_str().as_bytes()));
        (agree && !authority.as_str().contains('@'))
            .then(|| Self { authority: Some(authority.clone()), is_in_header: false })
    }

    /// Its name, without port.
    pub(crate) fn name(&self) -> &str {
        self.authority.as_ref().map_or("", Authority::host)
    }

    /// The same with its port, if one was written.
    pub(crate) fn with_port(&self) -> &str {
        let authority = self.authority.as_ref().map_or("", Authority::as_str);
        authority.rsplit_once('@').map_or(authority, |(_who, host)| host)
    }

    /// Makes the `Host` header say the same.
    pub(crate) fn put(&self, headers: &mut HeaderMap) {
        if self.is_in_header {
            return;
        }
        // An authority has no byte that a header must not have.
        let host = HeaderValue::from_str(self.with_port()).unwrap_or(HeaderValue::from_static(""));
        headers.insert(header::HOST, host);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The name to route by and the header for the upstream.
    fn host(version: Version, target: &str, lines: &[&'static str]) -> Option<(String, String)> {
        let mut request = Request::builder().version(version).uri(target);
        for line in lines {
            request = request.header(header::HOST, *line);
        }
        let mut request = request.body(()).unwrap();
        let host = Host::of(&request)?;
        host.put(request.headers_mut());
        let lines: Vec<_> = request.headers().get_all(header::HOST).iter().collect();
        assert_eq!(lines.len(), 1);
        Some((host.name().to_owned(), lines[0].to_str().unwrap().to_owned()))
    }

    #[test]
    fn the_route_and_the_upstream_see_the_same_host() {
        let both = |name: &str, header: &str| Some((name.to_owned(), header.to_owned()));
        let new = |target: &str, lines: &[&'static str]| host(Version::HTTP_11, target, lines);
        assert_eq!(new("/", &["meet.example.org:8080"]), both("meet.example.org", "meet.example.org:8080"));
        assert_eq!(new("/", &["[2001:db8::1]:80"]), both("[2001:db8::1]", "[2001:db8::1]:80"));
        assert_eq!(new("/", &["[2001:db8::1]"]), both("[2001:db8::1]", "[2001:db8::1]"));
        assert_eq!(new("http://a:81/x", &["b"]), both("a", "a:81"));
        assert_eq!(new("http://who:secret@a/x", &["b"]), both("a", "a"));
        assert_eq!(new("/", &[""]), both("", ""));
        assert_eq!(host(Version::HTTP_10, "/", &[]), both("", ""));
        assert_eq!(host(Version::HTTP_10, "http://a/", &[]), both("a", "a"));
    }

    #[test]
    fn a_request_for_more_or_less_than_one_host_is_none() {
        for lines in [&[][..], &["a", "b"], &["a", "a"], &["who@a"], &["a b"], &["a/b"], &["a, b"]] {
            assert_eq!(host(Version::HTTP_11, "/", lines), None, "{lines:?}");
        }
        assert_eq!(host(Version::HTTP_11, "http://a/", &[]), None);
        assert_eq!(host(Version::HTTP_11, "http://a/", &["a", "a"]), None);
        assert_eq!(host(Version::HTTP_10, "/", &["a", "b"]), None);
    }
}
