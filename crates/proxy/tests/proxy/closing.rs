//! What ends when an upstream is given up, an address runs empty, or is closed.

use crate::bench::{
    Bench, Client, SOON, ask, get, name, public, read_until, scripted, until, upstream, websocket,
};
use futures_util::{SinkExt, StreamExt};
use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::protocol::Message;
use twinsite_model::Verdict;
use twinsite_proxy::{Authority, Closing};

const UPGRADE: &[u8] = b"GET /web/ HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n";
const SWITCHING: &[u8] =
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n";
const GOING_AWAY: &[u8] = &[0x88, 0x02, 0x03, 0xe9];

async fn lives(socket: &mut Client) {
    socket.send(Message::text("still there?")).await.unwrap();
    let answer = timeout(SOON, socket.next()).await.unwrap().unwrap().unwrap();
    assert!(answer.is_text(), "{answer:?}");
}

async fn says_goodbye(socket: &mut Client, status: u16) {
    let close = timeout(SOON, socket.next()).await.unwrap().unwrap().unwrap();
    assert!(matches!(&close, Message::Close(Some(frame)) if u16::from(frame.code) == status), "{close:?}");
}

#[tokio::test]
async fn an_upstream_that_a_route_goes_on_using_keeps_its_tunnels() {
    let (one, two) = (upstream("one").await, upstream("two").await);
    let mut bench = Bench::with(&[("one", one), ("two", two)], |spec| {
        spec.routes[0].upstreams = vec![name("one")];
        spec.routes[1].upstreams = vec![name("two")];
    })
    .await;
    let mut socket = websocket(bench.own, "/rooms/?roomId=a").await;
    assert!(socket.next().await.unwrap().is_ok());
    // The only one of its route looks bad, and the route fails open.
    for _ in 0..3 {
        bench.judge("one", Verdict::Unhealthy);
        lives(&mut socket).await;
    }
    let answer = ask(bench.own, &get("/rooms/?roomId=a")).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    bench.judge("one", Verdict::Healthy);
    lives(&mut socket).await;
}

#[tokio::test]
async fn an_upstream_is_given_up_once_its_route_has_another() {
    let (one, two) = (upstream("one").await, upstream("two").await);
    let mut bench = Bench::new(&[("one", one), ("two", two)]).await;
    bench.judge("one", Verdict::Unhealthy);
    bench.judge("two", Verdict::Unhealthy);
    let mut socket = websocket(bench.own, "/web/").await;
    assert_eq!(socket.next().await.unwrap().unwrap().into_text().unwrap().as_str(), "one");
    lives(&mut socket).await;
    bench.judge("two", Verdict::Healthy);
    says_goodbye(&mut socket, 1001).await;
}

#[tokio::test]
async fn a_handshake_that_outlasts_its_upstream_is_ended() {
    let (asked, given_up) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (tell, wait) = (Arc::clone(&asked), Arc::clone(&given_up));
    let slow = scripted(move |mut stream| {
        let (tell, wait) = (Arc::clone(&tell), Arc::clone(&wait));
        async move {
            read_until(&mut stream, b"\r\n\r\n").await;
            tell.notify_one();
            wait.notified().await;
            stream.write_all(SWITCHING).await.unwrap();
            drop(stream.read_to_end(&mut Vec::new()).await);
        }
    })
    .await;
    let mut bench = Bench::new(&[("slow", slow), ("two", upstream("two").await)]).await;
    let mut client = TcpStream::connect(bench.own).await.unwrap();
    client.write_all(UPGRADE).await.unwrap();
    timeout(SOON, asked.notified()).await.unwrap();
    bench.judge("slow", Verdict::Unhealthy);
    given_up.notify_one();
    read_until(&mut client, GOING_AWAY).await;
}

#[tokio::test]
async fn an_address_at_which_nothing_had_come_in_runs_empty_too() {
    let bench = Bench::new(&[("one", upstream("one").await)]).await;
    bench.proxy.drain_floating(&public(), Duration::from_millis(50));
    let answer = ask(bench.floating, "GET /web/ HTTP/1.1\r\nHost: x\r\n\r\n").await.to_lowercase();
    assert!(answer.starts_with("http/1.1 200 ") && answer.contains("connection: close"), "{answer}");
    // A tunnel that begins now is not sent away again: it stays until all go, and nobody waits for it.
    let mut socket = websocket(bench.floating, "/rooms/?roomId=a").await;
    assert!(socket.next().await.unwrap().is_ok());
    let load = bench.proxy.in_flight(&public());
    assert_eq!((load.tunnels, load.late_tunnels), (1, 1));
    for _ in 0..4 {
        tokio::time::sleep(Duration::from_millis(50)).await; // longer than the drain
        socket.send(Message::text("still here")).await.unwrap();
        assert!(socket.next().await.unwrap().unwrap().is_text());
    }
    let ip = public();
    tokio::join!(bench.proxy.close_floating(&ip, Closing::Planned, SOON), says_goodbye(&mut socket, 1012));

    bench.proxy.undrain_floating(&public());
    let mut kept = TcpStream::connect(bench.floating).await.unwrap();
    for _ in 0..2 {
        kept.write_all(b"GET /web/ HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        let head = String::from_utf8(read_until(&mut kept, b"\r\n\r\n").await).unwrap().to_lowercase();
        assert!(!head.contains("connection: close"), "{head}");
        read_until(&mut kept, b"\r\n\r\n").await;
    }
}

/// Whether nothing of the connection is left on the other side: no waiting, it is so or it is not.
fn is_closed(stream: TcpStream) -> bool {
    let mut stream = stream.into_std().unwrap();
    loop {
        match stream.read(&mut [0; 4_096]) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) => return error.kind() != ErrorKind::WouldBlock,
        }
    }
}

/// An upstream that begins a frame and never ends it.
async fn unfinished() -> SocketAddr {
    scripted(|mut stream| async move {
        read_until(&mut stream, b"\r\n\r\n").await;
        stream.write_all(SWITCHING).await.unwrap();
        stream.write_all(&[0x82, 126, 0xff, 0xff, b'x']).await.unwrap();
        drop(stream.read_to_end(&mut Vec::new()).await);
    })
    .await
}

#[tokio::test]
async fn what_is_reported_closed_is_closed() {
    for (closing, within) in [
        (Closing::Planned, SOON),
        (Closing::Planned, Duration::from_millis(5)),
        (Closing::Planned, Duration::ZERO),
        (Closing::Involuntary, SOON),
        (Closing::Involuntary, Duration::ZERO),
    ] {
        let (web, tunnels) = (upstream("web").await, unfinished().await);
        let bench = Bench::with(&[("web", web), ("tunnels", tunnels)], |spec| {
            spec.routes[0].upstreams = vec![name("web")];
            spec.routes[1].upstreams = vec![name("tunnels")];
        })
        .await;
        let mut clients = Vec::new();
        for _ in 0..6 {
            let mut idle = TcpStream::connect(bench.floating).await.unwrap();
            idle.write_all(b"GET /rooms/ HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
            read_until(&mut idle, b"\r\n\r\n").await;
            read_until(&mut idle, b"\r\n\r\n").await;
            let mut tunnel = TcpStream::connect(bench.floating).await.unwrap();
            tunnel.write_all(UPGRADE).await.unwrap();
            read_until(&mut tunnel, &[0xff, 0xff, b'x']).await;
            let mut begun = TcpStream::connect(bench.floating).await.unwrap();
            begun.write_all(b"GET /rooms/ HTTP/1.1\r\n").await.unwrap();
            clients.extend([idle, tunnel, begun]);
        }
        until("all have come in", || bench.proxy.in_flight(&public()).connections == 18).await;
        assert_eq!(bench.proxy.in_flight(&public()).tunnels, 6);
        let ip = public();
        timeout(SOON, bench.proxy.close_floating(&ip, closing, within)).await.unwrap();
        assert_eq!(bench.proxy.in_flight(&public()).connections, 0);
        let open = clients.into_iter().filter_map(|client| (!is_closed(client)).then_some(())).count();
        assert_eq!(open, 0, "of 18 after {closing:?} within {within:?}");
    }
}

#[tokio::test]
async fn a_connection_that_comes_in_just_before_the_end_is_closed_with_the_others() {
    let bench = Bench::new(&[("one", upstream("one").await)]).await;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    for round in 0..50 {
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (accepted, _) = listener.accept().unwrap();
        let authority = Arc::clone(&bench.authority) as Arc<dyn Authority>;
        bench.proxy.accept_floating(accepted, authority);
        let closing = if round % 2 == 0 { Closing::Planned } else { Closing::Involuntary };
        timeout(SOON, bench.proxy.close_floating(&public(), closing, Duration::from_millis(200)))
            .await
            .unwrap();
        assert!(is_closed(client), "in round {round}");
    }
}

/// What other nodes hear of connections, so that the next owner can tell clients that nobody told.
#[tokio::test]
async fn a_connection_is_noted_until_its_client_was_told() {
    let bench = Bench::new(&[("one", upstream("one").await)]).await;
    let noted = || {
        let changed = bench.proxy.changed_connections();
        assert!(changed.iter().all(|one| one.ip == public() && one.token == bench.authority.token()));
        changed.into_iter().flat_map(|one| one.connections).collect::<Vec<_>>()
    };
    let mut socket = websocket(bench.floating, "/rooms/?roomId=a").await;
    assert!(socket.next().await.unwrap().is_ok());
    let kept = noted();
    let [((client, port), true)] = kept[..] else { panic!("{kept:?}") };
    assert_eq!((client.ip(), port), (bench.floating.ip(), bench.floating.port()));
    assert_eq!(bench.proxy.served(), [(public(), bench.authority.token())]);

    ask(bench.floating, &get("/web/")).await;
    until("the short one has ended", || bench.proxy.in_flight(&public()).connections == 1).await;
    let short = noted();
    assert!(short.is_empty(), "it began and ended between two looks: {short:?}");

    drop(socket);
    until("the client has gone", || bench.proxy.in_flight(&public()).connections == 0).await;
    assert_eq!(noted(), [((client, port), false)]);

    let mut socket = websocket(bench.floating, "/rooms/?roomId=a").await;
    assert!(socket.next().await.unwrap().is_ok());
    assert_eq!(noted().len(), 1);
    bench.authority.holds.store(false, Ordering::Relaxed);
    bench.proxy.close_floating(&public(), Closing::Involuntary, Duration::ZERO).await;
    assert_eq!(noted(), [], "nobody told this client");
}

/// Ten times, because it is a race: the cores accept at the same time as the listeners are closed.
#[tokio::test]
async fn who_connected_before_the_shutdown_is_answered() {
    let one = upstream("one").await;
    for _ in 0..10 {
        let bench = Bench::new(&[("one", one)]).await;
        let connect = || {
            let mut client = std::net::TcpStream::connect(bench.own).unwrap();
            client.write_all(get("/web/").as_bytes()).unwrap();
            client
        };
        let clients: Vec<_> = (0..50).map(|_| connect()).collect();
        bench.proxy.shutdown(SOON).await;
        for mut client in clients {
            let mut answer = [0; 12];
            client.read_exact(&mut answer).unwrap();
            assert_eq!(&answer, b"HTTP/1.1 200");
        }
    }
}

/// Between the kernel's "no more" and the closing of a listener another connection can be completed, which the closing
/// would reset.
#[tokio::test]
async fn who_connects_during_the_shutdown_is_answered_or_refused() {
    let one = upstream("one").await;
    for round in 0..30 {
        let bench = Bench::new(&[("one", one)]).await;
        let own = bench.own;
        let crowds: Vec<_> = (0..3).map(|_| std::thread::spawn(move || ask_until_refused(own))).collect();
        tokio::time::sleep(Duration::from_millis(5)).await;
        bench.proxy.shutdown(SOON).await;
        for crowd in crowds {
            if let Err(error) = crowd.join().unwrap() {
                panic!("round {round}: {error}");
            }
        }
    }
}

/// Asks on one new connection after the other.
fn ask_until_refused(address: SocketAddr) -> std::io::Result<()> {
    loop {
        let Ok(mut client) = std::net::TcpStream::connect(address) else { return Ok(()) };
        client.set_read_timeout(Some(SOON))?;
        client.write_all(get("/web/").as_bytes())?;
        let mut answer = [0; 12];
        client.read_exact(&mut answer)?;
        assert_eq!(&answer, b"HTTP/1.1 200");
    }
}
