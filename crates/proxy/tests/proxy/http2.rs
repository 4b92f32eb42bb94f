//! HTTP/2: what it carries, and what it does not let a client do.

use crate::bench::{Bench, SOON, public, read_until, scripted, until, upstream};
use crate::tls::{Certificate, HOST, shake_hands};
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, Version};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;
use twinsite_model::spec::HumanDuration;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const PING: u8 = 6;

type Sender = SendRequest<Full<Bytes>>;

async fn connected(bench: &mut Bench, certificate: &Certificate) -> TlsStream<TcpStream> {
    bench.speak_tls(&[certificate]).await;
    let config = certificate.trusted(&[b"h2", b"http/1.1"]);
    let stream = shake_hands(bench.floating, &config, HOST).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    stream
}

async fn client(bench: &mut Bench, certificate: &Certificate) -> Sender {
    let stream = connected(bench, certificate).await;
    let shaken = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
    let (sender, connection) = shaken.unwrap();
    tokio::spawn(connection);
    sender
}

fn request(method: Method, path: &str, body: &'static str) -> Request<Full<Bytes>> {
    let uri = format!("https://{HOST}{path}");
    let builder = Request::builder().method(method).uri(uri).version(Version::HTTP_2);
    builder
        .header("cookie", "a=1")
        .header("cookie", "b=2")
        .body(Full::new(Bytes::from_static(body.as_bytes())))
        .unwrap()
}

async fn whole(response: Response<Incoming>) -> String {
    String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

#[tokio::test]
async fn many_requests_on_one_connection() {
    let certificate = Certificate::new("meet", HOST);
    let mut bench = Bench::new(&[("one", upstream("one").await)]).await;
    let sender = client(&mut bench, &certificate).await;
    let answers = (0..50).map(|number| {
        let mut sender = sender.clone();
        async move {
            let request = request(Method::POST, &format!("/web/{number}"), "a body");
            let response = timeout(SOON, sender.send_request(request)).await.unwrap().unwrap();
            assert_eq!(response.status(), StatusCode::OK);
            assert!(response.headers().get("connection").is_none());
            whole(response).await
        }
    });
    for (number, answer) in futures_util::future::join_all(answers).await.into_iter().enumerate() {
        assert!(answer.contains(&format!("POST /web/{number} HTTP/1.1\r\n")), "{answer}");
        assert!(answer.contains(&format!("host: {HOST}\r\n")), "{answer}");
        assert!(answer.contains("cookie: a=1; b=2\r\n"), "{answer}");
        assert!(answer.contains("x-forwarded-proto: https\r\n"), "{answer}");
        assert!(answer.contains("via: 2.0 twinsite\r\n"), "{answer}");
        assert!(answer.ends_with("a body"), "{answer}");
    }
    // What the proxy says itself.
    let mut sender = sender;
    let response = sender.send_request(request(Method::GET, "/nowhere", "")).await.unwrap();
    assert_eq!(response.status(), StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_connection_leaves_in_good_order_when_its_address_runs_empty() {
    let certificate = Certificate::new("meet", HOST);
    let slow = scripted(|mut stream| async move {
        read_until(&mut stream, b"\r\n\r\n").await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nlate").await.unwrap();
    })
    .await;
    let mut bench = Bench::new(&[("one", slow)]).await;
    let mut sender = client(&mut bench, &certificate).await;
    let under_way = tokio::spawn(sender.send_request(request(Method::GET, "/web/", "")));
    until("the request is under way", || bench.proxy.load().requests == 1).await;
    bench.proxy.drain_floating(&public(), Duration::from_secs(1));
    // The client is told before its request is answered, and the request is answered all the same.
    let gone = async {
        while sender.ready().await.is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(SOON, gone).await.unwrap();
    let response = timeout(SOON, under_way).await.unwrap().unwrap().unwrap();
    assert_eq!(whole(response).await, "late");
    until("nothing is open any more", || bench.proxy.load().connections == 0).await;
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

#[tokio::test]
async fn who_floods_is_hung_up_on() {
    let certificate = Certificate::new("meet", HOST);
    let mut bench = Bench::new(&[("one", upstream("one").await)]).await;
    for flood in [frame(PING, 0, 0, &[7; 8]), frame(SETTINGS, 0, 0, &[])] {
        let mut stream = connected(&mut bench, &certificate).await;
        stream.write_all(&[PREFACE, &frame(SETTINGS, 0, 0, &[])].concat()).await.unwrap();
        let (mut from, mut to) = tokio::io::split(stream);
        let reads = tokio::spawn(async move {
            let mut sink = vec![0; 64 * 1024];
            while from.read(&mut sink).await.is_ok_and(|count| count > 0) {}
        });
        let flood = flood.repeat(100);
        let floods = async { while to.write_all(&flood).await.is_ok() {} };
        timeout(SOON, floods).await.unwrap();
        timeout(SOON, reads).await.unwrap().unwrap();
    }
    until("their places are free again", || bench.proxy.load().connections == 0).await;
}

#[tokio::test]
async fn who_takes_nothing_of_an_answer_does_not_keep_its_upstream() {
    let certificate = Certificate::new("meet", HOST);
    let mut bench = Bench::with(&[("one", upstream("one").await)], |spec| {
        spec.routes[1].body_idle_timeout = HumanDuration(Duration::from_millis(300));
    })
    .await;
    let mut stream = connected(&mut bench, &certificate).await;
    // SETTINGS_INITIAL_WINDOW_SIZE (4) is zero: nothing of a body may be sent.
    let no_window = frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]);
    // `:method GET`, `:scheme https`, `:path /web/`, `:authority x`, by the static table and literals (RFC 7541).
    let mut head = vec![0x82, 0x87, 0x04, 5];
    head.extend(b"/web/");
    head.extend([0x01, 1, b'x']);
    let request = frame(HEADERS, 0x05, 1, &head);
    stream.write_all(&[PREFACE, &no_window, &request].concat()).await.unwrap();
    let mut read = [0; 9];
    let reset = async {
        loop {
            stream.read_exact(&mut read).await.unwrap();
            let length = u32::from_be_bytes([0, read[0], read[1], read[2]]) as usize;
            let mut payload = vec![0; length];
            stream.read_exact(&mut payload).await.unwrap();
            match read[3] {
                DATA => assert!(payload.is_empty(), "more than the window"),
                3 => return payload,
                _ => {}
            }
        }
    };
    let code = timeout(SOON, reset).await.expect("the stream is not reset");
    assert_eq!(code.len(), 4);
    until("its request is over", || bench.proxy.load().requests == 0).await;
}
