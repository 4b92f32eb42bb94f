//! Input that is meant to be read in two ways. Behind the proxy is a server that takes nothing but what RFC 9112 allows without
//! any leniency: whatever a client writes, it must get clean requests, and no more of them than the client was answered for.

use crate::bench::{Bench, SOON, scripted};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// What the strict server got.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Got {
    requests: Vec<(String, Vec<u8>)>,
    violations: Vec<String>,
}

async fn strict_server(got: Arc<Mutex<Got>>) -> SocketAddr {
    scripted(move |mut stream| {
        let got = Arc::clone(&got);
        async move {
            loop {
                match strict_request(&mut stream).await {
                    Ok(Some(request)) => got.lock().unwrap().requests.push(request),
                    Ok(None) => return,
                    Err(violation) => return got.lock().unwrap().violations.push(violation),
                }
                if stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.is_err() {
                    return;
                }
            }
        }
    })
    .await
}

/// One request; none at the end of the connection, or where a body breaks off.
async fn strict_request(stream: &mut TcpStream) -> Result<Option<(String, Vec<u8>)>, String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) if head.is_empty() => return Ok(None),
            Err(_) => return Err(format!("half a head: {:?}", String::from_utf8_lossy(&head))),
        }
    }
    let text = String::from_utf8(head).map_err(|error| format!("not text: {error}"))?;
    let clean = text.replace("\r\n", "");
    if clean.contains(['\r', '\n', '\0']) {
        return Err(format!("control characters: {text:?}"));
    }
    let mut lines = text.trim_end_matches("\r\n").split("\r\n");
    let first: Vec<_> = lines.next().unwrap_or_default().split(' ').collect();
    if first.len() != 3 || first[2] != "HTTP/1.1" || !first[1].starts_with('/') {
        return Err(format!("request line: {first:?}"));
    }
    let (mut lengths, mut codings, mut hosts) = (Vec::new(), Vec::new(), 0);
    for line in lines {
        let Some((name, value)) = line.split_once(':') else { return Err(format!("line: {line:?}")) };
        if name.is_empty() || name.contains([' ', '\t']) {
            return Err(format!("name: {name:?}"));
        }
        match name.to_ascii_lowercase().as_str() {
            "content-length" => lengths.push(value.trim().to_owned()),
            "transfer-encoding" => codings.push(value.trim().to_ascii_lowercase()),
            "host" => hosts += 1,
            _ => {}
        }
    }
    if hosts != 1 || lengths.len() + codings.len() > 1 {
        return Err(format!("{hosts} hosts, lengths {lengths:?}, codings {codings:?}"));
    }
    let mut body = Vec::new();
    if let Some(length) = lengths.first() {
        if !length.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(format!("length {length:?}"));
        }
        body = vec![0; length.parse().map_err(|_| format!("length {length:?}"))?];
        if stream.read_exact(&mut body).await.is_err() {
            return Ok(None);
        }
    }
    if let Some(coding) = codings.first() {
        if coding != "chunked" {
            return Err(format!("coding {coding:?}"));
        }
        loop {
            let Ok(size) = line(stream).await else { return Ok(None) };
            let count = usize::from_str_radix(&size, 16).map_err(|_| format!("chunk size {size:?}"))?;
            let mut chunk = vec![0; count];
            if stream.read_exact(&mut chunk).await.is_err() {
                return Ok(None);
            }
            body.extend(chunk);
            let Ok(end) = line(stream).await else { return Ok(None) };
            if !end.is_empty() {
                return Err(format!("after a chunk: {end:?}"));
            }
            if count == 0 {
                break;
            }
        }
    }
    Ok(Some((text, body)))
}

async fn line(stream: &mut TcpStream) -> std::io::Result<String> {
    let mut line = Vec::new();
    while !line.ends_with(b"\r\n") {
        line.push(stream.read_u8().await?);
    }
    Ok(String::from_utf8_lossy(&line[..line.len() - 2]).into_owned())
}

/// Says this, and nothing more; all that is answered until the connection is closed.
async fn said(to: SocketAddr, what: &[u8]) -> String {
    let mut stream = TcpStream::connect(to).await.unwrap();
    stream.write_all(what).await.unwrap();
    let mut answer = Vec::new();
    let closed = timeout(SOON, stream.read_to_end(&mut answer)).await;
    assert!(closed.is_ok(), "not closed after {:?}", String::from_utf8_lossy(what));
    String::from_utf8_lossy(&answer).into_owned()
}

fn statuses(answers: &str) -> Vec<u16> {
    let heads = answers.match_indices("HTTP/1.1 ");
    heads.filter_map(|(at, _)| answers.get(at + 9..at + 12)?.parse().ok()).collect()
}

async fn bench() -> (Bench, Arc<Mutex<Got>>) {
    let got = Arc::default();
    let bench = Bench::new(&[("strict", strict_server(Arc::clone(&got)).await)]).await;
    (bench, got)
}

/// A head with this in it, and what follows it.
fn request(lines: &str, body: &str) -> Vec<u8> {
    format!("POST /web/ HTTP/1.1\r\nHost: meet.example.org\r\n{lines}\r\n{body}").into_bytes()
}

/// Another request, that somebody hopes to get past the proxy as a body.
const HIDDEN: &str = "GET /web/hidden HTTP/1.1\r\nHost: meet.example.org\r\n\r\n";

#[tokio::test]
async fn what_can_be_read_in_two_ways_is_refused_and_the_connection_closed() {
    let (bench, got) = bench().await;
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("two lengths", request("Content-Length: 5\r\nContent-Length: 6\r\n", "hello")),
        ("two lengths in a line", request("Content-Length: 5, 6\r\n", "hello")),
        ("a signed length", request("Content-Length: +5\r\n", "hello")),
        ("a negative length", request("Content-Length: -5\r\n", "hello")),
        ("a hexadecimal length", request("Content-Length: 0x5\r\n", "hello")),
        ("a length of nothing", request("Content-Length: \r\n", "hello")),
        ("a length beyond all numbers", request("Content-Length: 99999999999999999999999\r\n", "hello")),
        ("an unknown coding", request("Transfer-Encoding: xchunked\r\n", "5\r\nhello\r\n0\r\n\r\n")),
        (
            "chunked, and then something",
            request("Transfer-Encoding: chunked, identity\r\n", "5\r\nhello\r\n0\r\n\r\n"),
        ),
        ("a space before the colon", request("Content-Length : 5\r\n", "hello")),
        ("a tab before the colon", request("Transfer-Encoding\t: chunked\r\n", "0\r\n\r\n")),
        ("a line that goes on", request("X-A: b\r\n c: d\r\n", "")),
        ("NUL in a value", request("X-A: a\0b\r\n", "")),
        ("CR in a value", request("X-A: a\rb\r\n", "")),
        ("a name with a control character", request("X\x01A: b\r\n", "")),
        ("no name", request(": b\r\n", "")),
        ("two hosts", request("Host: other.example\r\n", "")),
        ("no host", b"GET /web/ HTTP/1.1\r\n\r\n".to_vec()),
        ("a host with a user", b"GET /web/ HTTP/1.1\r\nHost: a@b\r\n\r\n".to_vec()),
        ("a space in the target", b"GET /web/ a HTTP/1.1\r\nHost: x\r\n\r\n".to_vec()),
        ("an unknown version", b"GET /web/ HTTP/3.7\r\nHost: x\r\n\r\n".to_vec()),
        ("CONNECT", b"CONNECT meet.example.org:443 HTTP/1.1\r\nHost: meet.example.org:443\r\n\r\n".to_vec()),
    ];
    for (what, raw) in cases {
        // Whatever is taken for a second request would be answered too.
        let answers = said(bench.own, &[&raw[..], HIDDEN.as_bytes()].concat()).await;
        let got = std::mem::take(&mut *got.lock().unwrap());
        assert_eq!(got, Got::default(), "{what}: it came through");
        let statuses = statuses(&answers);
        assert!(
            statuses.len() <= 1 && statuses.iter().all(|status| (400..500).contains(status)),
            "{what}: {answers}"
        );
    }
}

#[tokio::test]
async fn bodies_that_are_wrong_never_become_requests() {
    let (bench, got) = bench().await;
    let chunked = |body: &str| request("Transfer-Encoding: chunked\r\n", body);
    for (what, raw) in [
        ("a signed chunk size", chunked("+5\r\nhello\r\n0\r\n\r\n")),
        ("a chunk size of nothing", chunked("\r\nhello\r\n0\r\n\r\n")),
        ("a chunk size in another base", chunked("0x5\r\nhello\r\n0\r\n\r\n")),
        ("a chunk size beyond all numbers", chunked("fffffffffffffffff\r\nhello\r\n0\r\n\r\n")),
        ("a chunk longer than it says", chunked("2\r\nhello\r\n0\r\n\r\n")),
        ("a chunk that ends with LF", chunked("5\r\nhello\n0\r\n\r\n")),
        ("an endless extension", chunked(&format!("5;{}\r\nhello\r\n0\r\n\r\n", "x".repeat(100_000)))),
    ] {
        let answers = said(bench.own, &[&raw[..], HIDDEN.as_bytes()].concat()).await;
        let got = std::mem::take(&mut *got.lock().unwrap());
        assert_eq!(got.violations, Vec::<String>::new(), "{what}");
        assert!(got.requests.is_empty(), "{what}: {got:?}");
        assert!(statuses(&answers).iter().all(|status| (400..500).contains(status)), "{what}: {answers}");
    }
}

#[tokio::test]
async fn what_has_one_meaning_arrives_clean() {
    let (bench, got) = bench().await;
    let close = "Connection: close\r\n";
    for (what, raw, body) in [
        // RFC 9112 section 6.1: the coding wins, and the length does not go on.
        (
            "a coding beside a length",
            request(
                &format!("Content-Length: 3\r\nTransfer-Encoding: chunked\r\n{close}"),
                "5\r\nhello\r\n0\r\n\r\n",
            ),
            "hello",
        ),
        (
            "the same length twice",
            request(&format!("Content-Length: 5\r\nContent-Length: 5\r\n{close}"), "hello"),
            "hello",
        ),
        (
            "an extension of a chunk",
            request(&format!("Transfer-Encoding: chunked\r\n{close}"), "5;a=b\r\nhello\r\n0\r\n\r\n"),
            "hello",
        ),
        (
            "lines that end with LF",
            b"POST /web/ HTTP/1.1\nHost: meet.example.org\nConnection: close\nContent-Length: 5\n\nhello"
                .to_vec(),
            "hello",
        ),
        (
            "an absolute target",
            b"GET http://meet.example.org/web/ HTTP/1.1\r\nHost: other.example\r\nConnection: close\r\n\r\n"
                .to_vec(),
            "",
        ),
        (
            "a header that the client calls its connection's",
            request(
                "Connection: close, X-Forwarded-For, Host, X-Secret\r\nX-Secret: 1\r\nX-Forwarded-For: 9.9.9.9\r\n",
                "",
            ),
            "",
        ),
        (
            "an upgrade to HTTP/2",
            request(
                "Connection: Upgrade, HTTP2-Settings, close\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n",
                "",
            ),
            "",
        ),
        (
            "an upgrade with a body",
            request("Upgrade: websocket\r\nConnection: Upgrade\r\nContent-Length: 5\r\n", "hello"),
            "hello",
        ),
    ] {
        let mut stream = TcpStream::connect(bench.own).await.unwrap();
        stream.write_all(&raw).await.unwrap();
        let mut answer = vec![0; 4_096];
        let count = timeout(SOON, stream.read(&mut answer)).await.unwrap().unwrap();
        let answer = String::from_utf8_lossy(&answer[..count]).into_owned();
        let got = std::mem::take(&mut *got.lock().unwrap());
        assert_eq!(got.violations, Vec::<String>::new(), "{what}");
        assert!(answer.starts_with("HTTP/1.1 200 "), "{what}: {answer}");
        assert_eq!(got.requests.len(), 1, "{what}");
        let (head, came) = &got.requests[0];
        assert_eq!(String::from_utf8_lossy(came), body, "{what}");
        let head = head.to_ascii_lowercase();
        assert!(head.contains("host: meet.example.org\r\n"), "{what}: {head}");
        assert!(head.contains("x-forwarded-for: 127.0.0.1\r\n"), "{what}: {head}");
        for hop in ["upgrade:", "http2-settings:", "x-secret:"] {
            assert!(!head.contains(hop), "{what}: {head}");
        }
    }
}

/// A client that hopes that the proxy passes on what follows an upgrade that its upstream refuses.
#[tokio::test]
async fn what_follows_a_refused_upgrade_is_the_proxys_to_read() {
    let (bench, got) = bench().await;
    let upgrade = "GET /web/ HTTP/1.1\r\nHost: meet.example.org\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                   Sec-WebSocket-Version: 777\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    let smuggled = "GET /nowhere HTTP/1.1\r\nHost: meet.example.org\r\nConnection: close\r\n\r\n";
    let answers = said(bench.own, format!("{upgrade}{smuggled}").as_bytes()).await;
    let got = std::mem::take(&mut *got.lock().unwrap());
    assert_eq!((got.requests.len(), got.violations.len()), (1, 0), "{got:?}");
    assert_eq!(statuses(&answers), [200, 404], "{answers}");
}

#[tokio::test]
async fn too_much_is_too_much() {
    let (bench, got) = bench().await;
    let long = "x".repeat(100_000);
    let many = "X-A: b\r\n".repeat(2_000);
    for (what, raw, expected) in [
        ("a long target", format!("GET /web/{long} HTTP/1.1\r\nHost: x\r\n\r\n"), &[414, 431][..]),
        ("a long header", format!("GET /web/ HTTP/1.1\r\nHost: x\r\nX-A: {long}\r\n\r\n"), &[431]),
        ("many headers", format!("GET /web/ HTTP/1.1\r\nHost: x\r\n{many}\r\n"), &[431]),
        (
            "a long body",
            "POST /web/ HTTP/1.1\r\nHost: x\r\nContent-Length: 5000\r\nConnection: close\r\n\r\n".to_owned(),
            &[413],
        ),
    ] {
        let answers = said(bench.own, raw.as_bytes()).await;
        let statuses = statuses(&answers);
        assert!(statuses.len() == 1 && expected.contains(&statuses[0]), "{what}: {answers}");
    }
    assert_eq!(*got.lock().unwrap(), Got::default());
}

#[tokio::test]
async fn who_drips_is_let_go() {
    let (bench, got) = bench().await;
    let mut stream = TcpStream::connect(bench.own).await.unwrap();
    let drip = async {
        for byte in b"GET /web/ HTTP/1.1\r\nX-A: ".iter().chain(std::iter::repeat_n(&b'a', 10_000)) {
            if stream.write_all(&[*byte]).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("it may drip for ever");
    };
    timeout(SOON, drip).await.unwrap();
    assert_eq!(*got.lock().unwrap(), Got::default());
}
