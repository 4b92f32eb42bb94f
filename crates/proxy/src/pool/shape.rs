//! One request in the shapes of both versions of HTTP. It is made in that of HTTP/1.1, and an attempt in vain may be followed by
//! one in the other.

use crate::headers::announce_chunked;
use http::header::{self, HeaderValue};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Request, Uri, Version};
use http_body::Body;

/// With its host in `:authority`, and nothing about a connection (RFC 9113 sections 8.2.2 and 8.3.1).
pub(super) fn for_http2<B>(request: Request<B>) -> Request<B> {
    let (mut head, body) = request.into_parts();
    if head.version != Version::HTTP_2 {
        let host = head.headers.remove(header::HOST);
        let authority = host.and_then(|host| Authority::try_from(host.as_bytes()).ok());
        let mut parts = head.uri.into_parts();
        parts.scheme = Some(Scheme::HTTP);
        // Nobody's host is nobody's upstream's: HTTP/2 cannot leave it out.
        parts.authority = Some(authority.unwrap_or_else(|| Authority::from_static("localhost")));
        parts.path_and_query.get_or_insert(PathAndQuery::from_static("/"));
        head.uri = Uri::from_parts(parts).unwrap_or_default();
        for name in [header::CONNECTION, header::TRANSFER_ENCODING, header::UPGRADE] {
            head.headers.remove(name);
        }
        head.version = Version::HTTP_2;
    }
    Request::from_parts(head, body)
}

/// With its host in `Host`, and the length of its body, or that it is not known.
pub(super) fn for_http1<B: Body>(request: Request<B>) -> Request<B> {
    let (mut head, body) = request.into_parts();
    if head.version == Version::HTTP_2 {
        let authority =
            head.uri.authority().and_then(|authority| HeaderValue::from_str(authority.as_str()).ok());
        head.headers.insert(header::HOST, authority.unwrap_or(HeaderValue::from_static("")));
        let path = head.uri.path_and_query().cloned();
        head.uri = Uri::from(path.unwrap_or_else(|| PathAndQuery::from_static("/")));
        if body.size_hint().exact().is_none() {
            announce_chunked(&mut head.headers);
        }
        head.version = Version::HTTP_11;
    }
    Request::from_parts(head, body)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::{Empty, StreamBody};
    use hyper::body::{Bytes, Frame};
    use std::convert::Infallible;

    #[test]
    fn there_and_back_is_the_same() {
        let request = || {
            let builder =
                Request::builder().uri("/a?b=c").header("host", "meet.example.org:8443").header("x-a", "1");
            builder.body(Empty::<Bytes>::new()).unwrap()
        };
        let there = for_http2(request());
        assert_eq!(there.uri(), "http://meet.example.org:8443/a?b=c");
        assert!(there.version() == Version::HTTP_2 && !there.headers().contains_key("host"));
        let again = for_http2(there);
        assert_eq!(again.uri(), "http://meet.example.org:8443/a?b=c");
        let back = for_http1(again);
        assert_eq!(back.headers(), request().headers());
        assert_eq!((back.uri(), back.version()), (request().uri(), Version::HTTP_11));
    }

    #[test]
    fn an_unknown_length_is_said_only_where_it_must_be() {
        let unknown = StreamBody::new(futures_util::stream::empty::<Result<Frame<Bytes>, Infallible>>());
        let request = Request::builder().uri("/").header("host", "x").header("transfer-encoding", "chunked");
        let there = for_http2(request.body(unknown).unwrap());
        assert!(!there.headers().contains_key("transfer-encoding"));
        assert_eq!(for_http1(there).headers()["transfer-encoding"], "chunked");
    }
}
