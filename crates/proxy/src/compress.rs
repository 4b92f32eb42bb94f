//! Answers made smaller for clients that can take it (RFC 9110 sections 8.4 and 12.5.3).

use bytes::Bytes;
use flate2::write::GzEncoder;
use http::header::{self, HeaderMap, HeaderValue};
use http::response::Parts;
use http::{Method, StatusCode};
use std::io::{self, Write};
use twinsite_model::spec::Compression;

/// A shorter answer would hardly become smaller.
const BYTES_MIN: u64 = 512;
/// Compressed bytes that go out at once, if more is there to be compressed.
const CHUNK: usize = 16 * 1024;
/// Between the quickest and the best of each; zstd's is its own default.
const GZIP_LEVEL: u32 = 5;
const ZSTD_LEVEL: i32 = 3;

/// What is known of a request, for when its answer is there.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wish {
    /// None if the client wants it as it is.
    encoding: Option<Compression>,
    is_head: bool,
}

impl Wish {
    /// What a client takes, of what a route offers, the preferred first.
    pub(crate) fn of(method: &Method, headers: &HeaderMap, offered: &[Compression]) -> Self {
        Self { encoding: accepted(headers, offered), is_head: method == Method::HEAD }
    }

    /// Makes the head that of a compressed answer, and gives what compresses its body; none if it stays as it is.
    pub(crate) fn grant(self, head: &mut Parts, length: Option<u64>) -> io::Result<Option<Encoder>> {
        if !may_be_compressed(head, length) {
            return Ok(None);
        }
        // Also where this client gets it as it is: a cache must not give the one for the other.
        head.headers.append(header::VARY, HeaderValue::from_static("accept-encoding"));
        let Some(encoding) = self.encoding.filter(|_| !self.is_head) else { return Ok(None) };
        let encoder = Encoder::new(encoding)?;
        let headers = &mut head.headers;
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(name(encoding)));
        headers.remove(header::CONTENT_LENGTH);
        // Parts of it would be parts of something else.
        headers.remove(header::ACCEPT_RANGES);
        weaken_etag(headers);
        Ok(Some(encoder))
    }
}

const fn name(encoding: Compression) -> &'static str {
    match encoding {
        Compression::Zstd => "zstd",
        Compression::Gzip => "gzip",
    }
}

/// The encoding that a client likes most; of those that it likes alike, the first that is offered. None if it likes the plain
/// text more.
fn accepted(headers: &HeaderMap, offered: &[Compression]) -> Option<Compression> {
    let lines = headers.get_all(header::ACCEPT_ENCODING).iter().filter_map(|line| line.to_str().ok());
    let wishes: Vec<(&str, f64)> = lines.flat_map(|line| line.split(',')).filter_map(wish).collect();
    let of =
        |name: &str| wishes.iter().find(|(coding, _)| coding.eq_ignore_ascii_case(name)).map(|(_, q)| *q);
    let any = of("*");
    let best = offered
        .iter()
        .filter_map(|encoding| Some((*encoding, of(name(*encoding)).or(any)?)))
        .filter(|(_, quality)| *quality > 0.0)
        // The last of equal ones is the greatest: the first that is offered shall be.
        .rev()
        .max_by(|(_, one), (_, other)| one.total_cmp(other))?;
    (best.1 >= of("identity").unwrap_or(0.0)).then_some(best.0)
}

/// `gzip;q=0.8`: a name, and how much it is liked, from 0 to 1.
fn wish(item: &str) -> Option<(&str, f64)> {
    let mut parts = item.split(';');
    let name = parts.next()?.trim();
    let weight = parts.find_map(|part| part.trim().strip_prefix(['q', 'Q'])?.trim_start().strip_prefix('='));
    let quality = match weight {
        None => 1.0,
        Some(weight) => weight.trim().parse().ok().filter(|quality| (0.0..=1.0).contains(quality))?,
    };
    (!name.is_empty()).then_some((name, quality))
}

/// Whether an answer may be compressed: a whole text that nobody has compressed, and that nobody forbids to change.
fn may_be_compressed(head: &Parts, length: Option<u64>) -> bool {
    let headers = &head.headers;
    let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let is_whole = head.status.is_success() && head.status != StatusCode::PARTIAL_CONTENT
        || head.status.is_client_error()
        || head.status.is_server_error();
    let has_body = head.status != StatusCode::NO_CONTENT && length.is_none_or(|length| length >= BYTES_MIN);
    let is_plain = !headers.contains_key(header::CONTENT_ENCODING);
    let may_change = !text(header::CACHE_CONTROL).is_some_and(|control| {
        control.split(',').any(|directive| directive.trim().eq_ignore_ascii_case("no-transform"))
    });
    is_whole && has_body && is_plain && may_change && text(header::CONTENT_TYPE).is_some_and(is_text)
}

/// Types that become smaller. Streams of events are none: each has to go out at once.
fn is_text(content_type: &str) -> bool {
    let kind = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match kind.split_once('/') {
        Some(("text", kind)) => kind != "event-stream",
        Some(("application", kind)) => {
            let known = [
                "javascript",
                "json",
                "x-javascript",
                "xml",
                "wasm",
                "manifest+json",
                "rtf",
                "vnd.ms-fontobject",
            ];
            known.contains(&kind) || kind.ends_with("+json") || kind.ends_with("+xml")
        }
        Some(("image", kind)) => ["svg+xml", "bmp", "x-icon", "vnd.microsoft.icon"].contains(&kind),
        Some(("font", kind)) => ["ttf", "otf", "collection"].contains(&kind),
        _ => false,
    }
}

/// Two texts of the same meaning and other bytes are weakly the same (RFC 9110 section 8.8.1).
fn weaken_etag(headers: &mut HeaderMap) {
    let Some(strong) = headers.get(header::ETAG).filter(|etag| !etag.as_bytes().starts_with(b"W/")) else {
        return;
    };
    if let Ok(weak) = HeaderValue::from_bytes(&[b"W/", strong.as_bytes()].concat()) {
        headers.insert(header::ETAG, weak);
    }
}

/// Compresses what is written to it.
pub(crate) struct Encoder {
    kind: Kind,
    /// Whether something was written that was not flushed.
    holds: bool,
}

enum Kind {
    Gzip(GzEncoder<Vec<u8>>),
    Zstd(Box<zstd::stream::write::Encoder<'static, Vec<u8>>>),
}

impl Encoder {
    fn new(encoding: Compression) -> io::Result<Self> {
        let kind = match encoding {
            Compression::Gzip => Kind::Gzip(GzEncoder::new(Vec::new(), flate2::Compression::new(GZIP_LEVEL))),
            Compression::Zstd => {
                let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), ZSTD_LEVEL)?;
                // Browsers refuse more than 8 MiB (RFC 9659).
                encoder.window_log(21)?;
                Kind::Zstd(Box::new(encoder))
            }
        };
        Ok(Self { kind, holds: false })
    }

    /// Takes bytes in; those that are to go out at once, if there are enough.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<Option<Bytes>> {
        match &mut self.kind {
            Kind::Gzip(encoder) => encoder.write_all(bytes)?,
            Kind::Zstd(encoder) => encoder.write_all(bytes)?,
        }
        self.holds = true;
        Ok((self.ready().len() >= CHUNK).then(|| self.take()))
    }

    /// Everything that was taken in, when nothing more is there for a while; none if all of it went out.
    pub(crate) fn flush(&mut self) -> io::Result<Option<Bytes>> {
        if !std::mem::take(&mut self.holds) {
            return Ok(None);
        }
        match &mut self.kind {
            Kind::Gzip(encoder) => encoder.flush()?,
            Kind::Zstd(encoder) => encoder.flush()?,
        }
        Ok(Some(self.take()).filter(|bytes| !bytes.is_empty()))
    }

    /// The rest, with its end.
    pub(crate) fn finish(self) -> io::Result<Bytes> {
        let rest = match self.kind {
            Kind::Gzip(encoder) => encoder.finish()?,
            Kind::Zstd(encoder) => encoder.finish()?,
        };
        Ok(rest.into())
    }

    fn ready(&mut self) -> &mut Vec<u8> {
        match &mut self.kind {
            Kind::Gzip(encoder) => encoder.get_mut(),
            Kind::Zstd(encoder) => encoder.get_mut(),
        }
    }

    fn take(&mut self) -> Bytes {
        std::mem::take(self.ready()).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Read;

    const BOTH: [Compression; 2] = [Compression::Zstd, Compression::Gzip];

    fn chosen(line: &'static str) -> Option<Compression> {
        let headers = HeaderMap::from_iter([(header::ACCEPT_ENCODING, HeaderValue::from_static(line))]);
        accepted(&headers, &BOTH)
    }

    #[test]
    fn what_a_client_likes_most_is_taken() {
        use Compression::{Gzip, Zstd};
        for (line, wanted) in [
            ("gzip, deflate, br, zstd", Some(Zstd)),
            ("gzip, deflate, br", Some(Gzip)),
            ("zstd;q=0.5, gzip;q=0.8", Some(Gzip)),
            ("GZIP; Q = 0.2", Some(Gzip)),
            ("*", Some(Zstd)),
            ("*;q=0.1, zstd;q=0", Some(Gzip)),
            ("gzip;q=0, *;q=0", None),
            ("identity, gzip;q=0.5", None),
            ("gzip;q=2", None),
            ("br", None),
            ("", None),
            (";;,", None),
        ] {
            assert_eq!(chosen(line), wanted, "{line}");
        }
        assert_eq!(accepted(&HeaderMap::new(), &BOTH), None);
    }

    fn head(status: u16, lines: &[(&'static str, &'static str)]) -> Parts {
        let mut response = http::Response::builder().status(status);
        for (name, value) in lines {
            response = response.header(*name, *value);
        }
        response.body(()).unwrap().into_parts().0
    }

    #[test]
    fn only_whole_plain_texts_are_compressed() {
        let text = ("content-type", "text/html; charset=utf-8");
        let may = |status, lines: &[(&'static str, &'static str)], length| {
            may_be_compressed(&head(status, lines), length)
        };
        assert!(may(200, &[text], Some(512)) && may(200, &[text], None) && may(404, &[text], Some(900)));
        assert!(may(200, &[("content-type", "application/problem+json")], None));
        assert!(may(200, &[("content-type", "image/svg+xml")], None));
        assert!(!may(200, &[text], Some(511)));
        assert!(
            !may(206, &[text], None)
                && !may(304, &[text], None)
                && !may(204, &[text], None)
                && !may(101, &[text], None)
        );
        assert!(!may(200, &[text, ("content-encoding", "br")], None));
        assert!(!may(200, &[text, ("cache-control", "public, No-Transform")], None));
        for kind in
            ["text/event-stream", "image/png", "video/mp4", "application/zip", "application/octet-stream"]
        {
            assert!(!may(200, &[("content-type", kind)], None), "{kind}");
        }
        assert!(!may(200, &[], None));
    }

    #[test]
    fn the_head_says_what_was_done() {
        let lines = [
            ("content-type", "text/css"),
            ("content-length", "9000"),
            ("etag", "\"x\""),
            ("accept-ranges", "bytes"),
            ("vary", "origin"),
        ];
        let wish = |encoding| Wish { encoding, is_head: false };
        let mut compressed = head(200, &lines);
        assert!(wish(Some(Compression::Gzip)).grant(&mut compressed, Some(9_000)).unwrap().is_some());
        let all = |head: &Parts, name: &str| {
            head.headers
                .get_all(name)
                .iter()
                .map(|value| value.to_str().unwrap().to_owned())
                .collect::<Vec<_>>()
        };
        assert_eq!(all(&compressed, "content-encoding"), ["gzip"]);
        assert_eq!(all(&compressed, "vary"), ["origin", "accept-encoding"]);
        assert_eq!(all(&compressed, "etag"), ["W/\"x\""]);
        assert!(
            all(&compressed, "content-length").is_empty() && all(&compressed, "accept-ranges").is_empty()
        );
        for other in [wish(None), Wish { encoding: Some(Compression::Gzip), is_head: true }] {
            let mut plain = head(200, &lines);
            assert!(other.grant(&mut plain, Some(9_000)).unwrap().is_none());
            assert_eq!(all(&plain, "vary"), ["origin", "accept-encoding"], "a cache must know");
            assert_eq!(
                (all(&plain, "content-length"), all(&plain, "etag")),
                (vec!["9000".into()], vec!["\"x\"".into()])
            );
        }
    }

    fn plain(encoding: Compression, bytes: &[u8]) -> Vec<u8> {
        let mut plain = Vec::new();
        let mut decoder: Box<dyn Read> = match encoding {
            Compression::Gzip => Box::new(flate2::read::GzDecoder::new(bytes)),
            Compression::Zstd => Box::new(zstd::stream::read::Decoder::new(bytes).unwrap()),
        };
        decoder.read_to_end(&mut plain).unwrap();
        plain
    }

    proptest! {
        #[test]
        fn what_comes_out_is_what_went_in(
            pieces in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..30_000), any::<bool>()), 0..6),
            gzip in any::<bool>(),
        ) {
            let encoding = if gzip { Compression::Gzip } else { Compression::Zstd };
            let (mut encoder, mut out, mut all) = (Encoder::new(encoding).unwrap(), Vec::new(), Vec::new());
            for (piece, pause) in pieces {
                all.extend_from_slice(&piece);
                out.extend(encoder.write(&piece).unwrap().unwrap_or_default());
                if pause {
                    out.extend(encoder.flush().unwrap().unwrap_or_default());
                    prop_assert_eq!(encoder.flush().unwrap(), None, "all of it went out");
                }
            }
            out.extend(encoder.finish().unwrap());
            prop_assert_eq!(plain(encoding, &out), all);
        }
    }
}
