//! Which route a request takes, what a route answers by itself, and what it changes on the way.

use crate::bench::{Bench, SOON, ask, get, read_until, scripted, upstream};
use std::io::{Read, Write};
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use twinsite_model::spec::{ClusterSpec, RouteSpec};

/// A bench with a route before all others, as it is written.
async fn with_route(upstreams: &[(&'static str, SocketAddr)], written: &str) -> Bench {
    let route: RouteSpec = toml::from_str(written).unwrap();
    Bench::with(upstreams, |spec: &mut ClusterSpec| spec.routes.insert(0, route)).await
}

fn header<'a>(answer: &'a str, name: &str) -> Vec<&'a str> {
    let head = answer.split("\r\n\r\n").next().unwrap();
    let lines = head.lines().filter_map(|line| line.split_once(": "));
    lines.filter(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value).collect()
}

#[tokio::test]
async fn a_client_in_clear_is_sent_to_tls() {
    let written = "name = \"to-tls\"\nmatch.scheme = \"http\"\nredirect.to = \"https://{host}{uri}\"\n\
                   response_headers.set.Cache-Control = \"no-store\"\n";
    let bench = with_route(&[("one", upstream("one").await)], written).await;
    let answer =
        ask(bench.own, "GET /a%20b?c=d HTTP/1.1\r\nHost: meet.example.org:80\r\nConnection: close\r\n\r\n")
            .await;
    assert!(answer.starts_with("HTTP/1.1 308 "), "{answer}");
    assert_eq!(header(&answer, "location"), ["https://meet.example.org/a%20b?c=d"]);
    assert_eq!(header(&answer, "cache-control"), ["no-store"]);
    assert!(answer.ends_with("\r\n\r\n"), "no body: {answer}");
}

#[tokio::test]
async fn a_route_answers_by_itself() {
    let written = "name = \"robots\"\npath = \"/robots.txt\"\nmatch.methods = [\"GET\", \"HEAD\"]\n\
                   respond = { status = 203, body = \"{method} {path} {header.X-Say}\" }\n";
    let bench = with_route(&[("one", upstream("one").await)], written).await;
    let request = |method| {
        format!("{method} /robots.txt HTTP/1.1\r\nHost: x\r\nX-Say: <b>\r\nConnection: close\r\n\r\n")
    };
    let answer = ask(bench.own, &request("GET")).await;
    assert!(
        answer.starts_with("HTTP/1.1 203 ") && answer.ends_with("\r\n\r\nGET /robots.txt <b>"),
        "{answer}"
    );
    assert_eq!(header(&answer, "content-type"), ["text/plain; charset=utf-8"]);
    assert_eq!(header(&answer, "x-content-type-options"), ["nosniff"]);
    let head = ask(bench.own, &request("HEAD")).await;
    assert!(head.starts_with("HTTP/1.1 203 ") && head.ends_with("\r\n\r\n"), "{head}");
    let other = ask(bench.own, &request("DELETE")).await;
    assert!(other.starts_with("HTTP/1.1 404 "), "no route for it: {other}");
}

#[tokio::test]
async fn headers_are_changed_in_both_directions() {
    let written = "name = \"edited\"\npath = \"/web/*\"\n\
                   request_headers.remove = [\"X-Secret\"]\n\
                   request_headers.set = { X-Forwarded-For = \"{remote_ip}, 192.0.2.1\", X-Via = \"{scheme} {port}\" }\n\
                   response_headers.remove = [\"Server\"]\n\
                   response_headers.set = { Cache-Control = \"public, max-age=31536000, immutable\" }\n\
                   response_headers.add = { X-Served = \"{host}\" }\n";
    let bench = with_route(&[("one", upstream("one").await)], written).await;
    let request = "GET /web/x HTTP/1.1\r\nHost: meet.example.org\r\nX-Secret: 1\r\nConnection: close\r\n\r\n";
    let answer = ask(bench.own, request).await;
    let lower = answer.to_lowercase();
    assert!(lower.contains("x-forwarded-for: 127.0.0.1, 192.0.2.1\r\n"), "{answer}");
    assert!(lower.contains(&format!("x-via: http {}\r\n", bench.own.port())), "{answer}");
    assert!(!lower.contains("x-secret"), "{answer}");
    assert_eq!(header(&answer, "cache-control"), ["public, max-age=31536000, immutable"]);
    assert_eq!(header(&answer, "x-served"), ["meet.example.org"]);
    // What the node says in an upstream's place is an answer of this route too.
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let alone = with_route(&[("one", nobody)], written).await;
    let answer = ask(alone.own, &get("/web/")).await;
    assert!(answer.starts_with("HTTP/1.1 502 "), "{answer}");
    assert_eq!(header(&answer, "x-served").len(), 1, "{answer}");
}

#[tokio::test]
async fn a_route_is_taken_by_what_else_a_request_says() {
    let written = "name = \"beta\"\npath = \"/web/*\"\nmatch.headers = { X-Beta = \"y*\" }\n\
                   match.query = { room = \"a b\" }\nrespond.body = \"beta\"\n";
    let bench = with_route(&[("one", upstream("one").await)], written).await;
    let is_beta = async |path: &str, line: &str| {
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\n{line}Connection: close\r\n\r\n");
        ask(bench.own, &request).await.ends_with("beta")
    };
    assert!(is_beta("/web/?room=a+b", "X-Beta: Yes\r\n").await);
    assert!(!is_beta("/web/?room=a+b", "X-Beta: no\r\n").await);
    assert!(!is_beta("/web/?room=a", "X-Beta: yes\r\n").await);
    assert!(!is_beta("/web/?room=a+b", "").await);
    assert!(ask(bench.own, &get("/web/")).await.starts_with("HTTP/1.1 200 "));
}

/// An upstream whose answer is this head and this body, which then ends.
async fn answering(head: &'static str, body: Vec<u8>) -> SocketAddr {
    scripted(move |mut stream| {
        let body = body.clone();
        async move {
            read_until(&mut stream, b"\r\n\r\n").await;
            stream.write_all(head.as_bytes()).await.unwrap();
            stream.write_all(&body).await.unwrap();
        }
    })
    .await
}

#[tokio::test]
async fn texts_are_compressed_for_who_accepts_it() {
    let text = "The same line, again and again.\n".repeat(2_000);
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nETag: \"1\"\r\nConnection: close\r\n\r\n";
    let at = answering(head, text.clone().into_bytes()).await;
    let bench = with_route(&[("one", at)], "name = \"small\"\ncompress = [\"zstd\", \"gzip\"]\n").await;
    let fetch = async |accepts: &str| {
        let mut stream = TcpStream::connect(bench.own).await.unwrap();
        let request = format!("GET / HTTP/1.0\r\nHost: x\r\nAccept-Encoding: {accepts}\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut all = Vec::new();
        stream.read_to_end(&mut all).await.unwrap();
        let end = all.windows(4).position(|window| window == b"\r\n\r\n").unwrap() + 4;
        (String::from_utf8(all[..end].to_vec()).unwrap(), all[end..].to_vec())
    };
    let (head, body) = fetch("gzip, br").await;
    assert_eq!(
        (header(&head, "content-encoding"), header(&head, "etag")),
        (vec!["gzip"], vec!["W/\"1\""]),
        "{head}"
    );
    let mut plain = String::new();
    flate2::read::GzDecoder::new(&body[..]).read_to_string(&mut plain).unwrap();
    assert!(plain == text && body.len() < text.len() / 10, "{} bytes", body.len());
    let (head, body) = fetch("zstd;q=1, gzip;q=0.5").await;
    assert_eq!(header(&head, "content-encoding"), ["zstd"], "{head}");
    assert_eq!(zstd::stream::decode_all(&body[..]).unwrap(), text.as_bytes());
    let (head, body) = fetch("identity").await;
    assert!(header(&head, "content-encoding").is_empty() && body == text.as_bytes(), "{head}");
    assert_eq!(header(&head, "vary"), ["accept-encoding"]);
}

/// What an upstream says now its client hears now, compressed or not.
#[tokio::test]
async fn a_compressed_answer_goes_out_as_it_comes() {
    let (sender, receiver) = tokio::sync::watch::channel(false);
    let at = scripted(move |mut stream| {
        let mut go_on = receiver.clone();
        async move {
            read_until(&mut stream, b"\r\n\r\n").await;
            let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n";
            stream.write_all(format!("{head}first ").as_bytes()).await.unwrap();
            go_on.wait_for(|go_on| *go_on).await.unwrap();
            stream.write_all(b"second").await.unwrap();
        }
    })
    .await;
    let bench = with_route(&[("one", at)], "name = \"small\"\ncompress = [\"gzip\"]\n").await;
    let mut stream = TcpStream::connect(bench.own).await.unwrap();
    stream.write_all(b"GET / HTTP/1.0\r\nHost: x\r\nAccept-Encoding: gzip\r\n\r\n").await.unwrap();
    read_until(&mut stream, b"\r\n\r\n").await;
    let (mut decoder, mut chunk) = (flate2::write::GzDecoder::new(Vec::new()), [0; 1_024]);
    while decoder.get_ref().as_slice() != b"first " {
        let count = tokio::time::timeout(SOON, stream.read(&mut chunk)).await.unwrap().unwrap();
        assert!(count > 0, "{:?}", decoder.get_ref());
        decoder.write_all(&chunk[..count]).unwrap();
        decoder.flush().unwrap();
    }
    sender.send_replace(true);
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.unwrap();
    decoder.write_all(&rest).unwrap();
    assert_eq!(decoder.finish().unwrap(), b"first second");
}
