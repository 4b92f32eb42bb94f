//! How many connections a node takes.

use crate::bench::{Bench, ask, get, until, upstream, websocket};
use futures_util::StreamExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

#[tokio::test]
async fn tunnels_take_up_connections() {
    let one = upstream("one").await;
    let bench = Bench::with(&[("one", one)], |spec| spec.proxy.connections_max = 3).await;
    let mut tunnels = Vec::new();
    for to in [bench.floating, bench.own] {
        let mut socket = websocket(to, "/rooms/?roomId=r").await;
        assert!(socket.next().await.unwrap().is_ok());
        tunnels.push(socket);
    }
    let mut kept = TcpStream::connect(bench.own).await.unwrap();
    kept.write_all(b"GET /web/ HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    assert!(kept.read(&mut [0; 4_096]).await.unwrap() > 0);
    assert_eq!((bench.proxy.load().connections, bench.proxy.load().tunnels), (3, 2));
    for to in [bench.floating, bench.own] {
        let answer = ask(to, &get("/web/")).await;
        assert!(answer.is_empty() || answer.starts_with("ERROR"), "one too many was answered: {answer}");
    }
    drop(tunnels);
    until("the tunnels are forgotten", || bench.proxy.load().connections == 1).await;
    for to in [bench.floating, bench.own] {
        let answer = ask(to, &get("/web/")).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "there is room again: {answer}");
    }
}
