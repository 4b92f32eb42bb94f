//! What stands behind the proxies: answers of a fixed size, and `WebSockets` that say again what they hear.

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{LocalSet, spawn_local};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

/// Paths and the sizes of their answers, in bytes.
pub(crate) const SIZES: [(&str, usize); 4] =
    [("/small", 128), ("/64k", 64 * 1024), ("/10m", 10 * 1024 * 1024), ("/health", 2)];
/// Where a WebSocket is.
pub(crate) const ECHO: &str = "/echo";

/// Serves on all these addresses until the process ends.
pub(crate) fn serve(addresses: &[SocketAddr]) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let listeners = addresses.iter().map(std::net::TcpListener::bind).collect::<Result<Vec<_>, _>>()?;
    LocalSet::new().block_on(&runtime, async {
        let bodies: [Bytes; SIZES.len()] = SIZES.map(|(_, size)| Bytes::from(vec![b'x'; size]));
        for listener in listeners {
            listener.set_nonblocking(true)?;
            let listener = TcpListener::from_std(listener)?;
            spawn_local(accept(listener, bodies.clone()));
        }
        std::future::pending::<io::Result<()>>().await
    })
}

async fn accept(listener: TcpListener, bodies: [Bytes; SIZES.len()]) {
    loop {
        // Out of descriptors: those who wait get theirs when others have ended.
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            continue;
        };
        stream.set_nodelay(true).ok();
        spawn_local(connection(stream, bodies.clone()));
    }
}

async fn connection(stream: TcpStream, bodies: [Bytes; SIZES.len()]) {
    let service = service_fn(|request| {
        let response = answer(request, &bodies);
        async move { Ok::<_, Infallible>(response) }
    });
    let connection =
        hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    // A client that goes away is no error of an upstream's.
    connection.with_upgrades().await.ok();
}

fn answer(mut request: Request<Incoming>, bodies: &[Bytes; SIZES.len()]) -> Response<Full<Bytes>> {
    let path = request.uri().path();
    if path == ECHO {
        return echo(&mut request);
    }
    let found = SIZES.iter().position(|(known, _)| *known == path);
    let (status, body) = match found {
        Some(index) => (StatusCode::OK, bodies[index].clone()),
        None => (StatusCode::NOT_FOUND, Bytes::new()),
    };
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    response
}

fn echo(request: &mut Request<Incoming>) -> Response<Full<Bytes>> {
    let key = request.headers().get(header::SEC_WEBSOCKET_KEY).map(|key| derive_accept_key(key.as_bytes()));
    let accept = key.and_then(|key| HeaderValue::from_str(&key).ok());
    let mut response = Response::new(Full::default());
    let Some(accept) = accept else {
        *response.status_mut() = StatusCode::BAD_REQUEST;
        return response;
    };
    let upgrade = hyper::upgrade::on(request);
    spawn_local(async move {
        let Ok(upgraded) = upgrade.await else { return };
        let socket = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, None).await;
        let (mut out, mut heard) = socket.split();
        while let Some(Ok(message)) = heard.next().await {
            if (message.is_text() || message.is_binary()) && out.send(message).await.is_err() {
                return;
            }
        }
    });
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    response
}
