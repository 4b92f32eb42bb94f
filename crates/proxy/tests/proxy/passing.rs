//! What passes, what is refused, and what ends when.

use crate::bench::{
    Bench, Book, SOON, ask, get, name, options, public, scripted, serve, until, upstream, websocket,
};
use futures_util::{SinkExt, StreamExt};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_tungstenite::tungstenite::protocol::Message;
use twinsite_model::Verdict;
use twinsite_proxy::{Closing, Proxy};

#[tokio::test]
async fn requests_pass_with_the_headers_that_upstreams_need() {
    let bench = Bench::new(&[("one", upstream("one").await)]).await;
    let request = "POST /web/x?y=1 HTTP/1.1\r\nHost: meet.example.org\r\nX-Forwarded-For: 10.0.0.1\r\n\
                   Content-Length: 5\r\nConnection: close, x-mine\r\nX-Mine: 1\r\nX-Twinsite-Trace: 1\r\n\r\nhello";
    let answer = ask(bench.floating, request).await;
    let lower = answer.to_lowercase();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    for wanted in [
        "post /web/x?y=1 http/1.1",
        "x-forwarded-for: 127.0.0.1",
        "x-forwarded-host: meet.example.org",
        "x-real-ip: 127.0.0.1",
        "x-twinsite-node: gra-1",
        "x-twinsite-token: 1.7",
        "hello",
    ] {
        assert!(lower.contains(wanted), "{wanted} is missing in {answer}");
    }
    for unwanted in ["10.0.0.1", "x-mine: 1", "x-twinsite-token: 9.9"] {
        assert!(!lower.contains(unwanted), "{unwanted} is in {answer}");
    }
    let plain = ask(bench.own, &get("/web/")).await.to_lowercase();
    assert!(!plain.contains("x-twinsite"), "nobody asked: {plain}");
}

#[tokio::test]
async fn what_cannot_be_passed_on_is_answered_in_words() {
    let bench = Bench::new(&[("one", upstream("one").await)]).await;
    let status =
        async |request: String| ask(bench.own, &request).await.lines().next().unwrap_or_default().to_owned();
    assert_eq!(status(get("/elsewhere")).await, "HTTP/1.1 404 Not Found");
    assert_eq!(
        status("GET /web/ HTTP/1.1\r\nConnection: close\r\n\r\n".to_owned()).await,
        "HTTP/1.1 400 Bad Request"
    );
    let large = "POST /web/ HTTP/1.1\r\nHost: x\r\nContent-Length: 1001\r\nConnection: close\r\n\r\n";
    assert_eq!(status(large.to_owned()).await, "HTTP/1.1 413 Payload Too Large");
    let who = ask(bench.floating, &get("/.well-known/twinsite")).await;
    assert!(who.contains("\"node\":\"gra-1\"") && who.contains("\"token\":\"1.7\""), "{who}");
    let slow = tokio::time::timeout(SOON, async {
        let mut stream = TcpStream::connect(bench.own).await.unwrap();
        stream.write_all(b"GET /web/ HTTP/1.1\r\n").await.unwrap();
        stream.read_to_end(&mut Vec::new()).await
    });
    assert!(slow.await.is_ok(), "a head that never ends keeps no connection");
}

#[tokio::test]
async fn a_dead_upstream_is_passed_over_and_reported() {
    let dead = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let bench = Bench::new(&[("dead", dead), ("alive", upstream("alive").await)]).await;
    let mut failures = bench.proxy.upstream_failures();
    let answer = ask(bench.own, &get("/web/")).await;
    assert!(answer.contains("\r\n\r\nalive\n"), "{answer}");
    assert_eq!(failures.recv().await.unwrap(), name("dead"));
    let only = Bench::new(&[("dead", dead)]).await;
    assert!(ask(only.own, &get("/web/")).await.starts_with("HTTP/1.1 502 "));
}

#[tokio::test]
async fn everybody_in_a_room_meets_wherever_its_upstream_ranks() {
    let (one, two) = (upstream("one").await, upstream("two").await);
    let mut bench = Bench::new(&[("one", one), ("two", two)]).await;
    let mut places = BTreeMap::new();
    for room in 0..20 {
        for to in [bench.own, bench.floating, bench.own] {
            let answer = ask(to, &get(&format!("/rooms/?roomId=room%20{room}"))).await;
            let place = answer.split("\r\n\r\n").nth(1).unwrap().lines().next().unwrap().to_owned();
            assert_eq!(*places.entry(room).or_insert(place.clone()), place, "room {room} is split");
        }
    }
    assert!(places.values().any(|place| place == "one") && places.values().any(|place| place == "two"));

    // Its upstream is given up: the room moves, and only such rooms do.
    bench.judge("one", Verdict::Unhealthy);
    for (room, before) in &places {
        let answer = ask(bench.own, &get(&format!("/rooms/?roomId=room%20{room}"))).await;
        assert!(answer.contains("\r\n\r\ntwo\n"), "room {room} was at {before}: {answer}");
    }
    bench.book.refuses.store(true, Ordering::Relaxed);
    let refused = ask(bench.own, &get("/rooms/?roomId=new")).await.to_lowercase();
    assert!(refused.starts_with("http/1.1 503 ") && refused.contains("retry-after: 1"), "{refused}");
    let known = ask(bench.own, &get("/rooms/?roomId=room%203")).await;
    assert!(known.starts_with("HTTP/1.1 200 "), "live rooms go on: {known}");
}

#[tokio::test]
async fn a_tunnel_carries_both_ways_and_says_goodbye_when_it_must_go() {
    let mut bench = Bench::new(&[("one", upstream("one").await), ("two", upstream("two").await)]).await;
    let mut socket = websocket(bench.floating, "/rooms/?roomId=a").await;
    let home = socket.next().await.unwrap().unwrap().into_text().unwrap().to_string();
    for size in [1, 125, 126, 70_000] {
        let text = "x".repeat(size);
        socket.send(Message::text(text.clone())).await.unwrap();
        assert_eq!(socket.next().await.unwrap().unwrap().into_text().unwrap().as_str(), text);
    }
    let load = bench.proxy.in_flight(&public());
    assert_eq!((load.tunnels, bench.proxy.live_rooms().len()), (1, 1));
    assert_eq!(bench.proxy.connections(), BTreeMap::from([(name(&home), 1)]));

    // The upstream is given up.
    bench.judge(&home, Verdict::Unhealthy);
    let close = tokio::time::timeout(SOON, socket.next()).await.unwrap().unwrap().unwrap();
    assert!(matches!(&close, Message::Close(Some(frame)) if u16::from(frame.code) == 1001), "{close:?}");

    // The address moves.
    let mut socket = websocket(bench.floating, "/rooms/?roomId=a").await;
    let other = socket.next().await.unwrap().unwrap().into_text().unwrap().to_string();
    assert_ne!(other, home);
    bench.proxy.drain_floating(&public(), Duration::from_millis(50));
    let close = tokio::time::timeout(SOON, socket.next()).await.unwrap().unwrap().unwrap();
    assert!(matches!(&close, Message::Close(Some(frame)) if u16::from(frame.code) == 1012), "{close:?}");
    until("the tunnel is forgotten", || bench.proxy.in_flight(&public()).tunnels == 0).await;
    let draining = ask(bench.floating, "GET /web/ HTTP/1.1\r\nHost: x\r\n\r\n").await.to_lowercase();
    assert!(draining.contains("connection: close"), "{draining}");
}

#[tokio::test]
async fn a_room_that_moved_takes_its_tunnels_along() {
    let bench = Bench::new(&[("one", upstream("one").await), ("two", upstream("two").await)]).await;
    let mut socket = websocket(bench.own, "/rooms/?roomId=b").await;
    let home = socket.next().await.unwrap().unwrap().into_text().unwrap().to_string();
    let (room, _) = bench.proxy.live_rooms()[0];
    bench.proxy.room_moved(room, &name(&home));
    socket.send(Message::text("still here")).await.unwrap();
    assert!(socket.next().await.unwrap().unwrap().is_text());
    bench.proxy.room_moved(room, &name(if home == "one" { "two" } else { "one" }));
    assert!(tokio::time::timeout(SOON, socket.next()).await.unwrap().unwrap().unwrap().is_close());
}

#[tokio::test]
async fn a_room_that_moves_during_a_handshake_is_met_where_it_is() {
    let (asked, mut asking) = tokio::sync::mpsc::unbounded_channel();
    let answers = watch::Sender::new(false);
    let late = |at: &'static str| {
        let (asked, answers) = (asked.clone(), answers.subscribe());
        scripted(move |stream| {
            let (asked, mut answers) = (asked.clone(), answers.clone());
            async move {
                asked.send(at).unwrap();
                answers.wait_for(|answers| *answers).await.unwrap();
                serve(at, stream).await;
            }
        })
    };
    let bench = Bench::new(&[("one", late("one").await), ("two", late("two").await)]).await;
    let to = bench.own;
    let client = tokio::spawn(async move { websocket(to, "/rooms/?roomId=e").await });
    let home = tokio::time::timeout(SOON, asking.recv()).await.unwrap().unwrap();
    let other = if home == "one" { "two" } else { "one" };
    bench.book.move_all(&name(other));
    answers.send_replace(true);
    let mut socket = tokio::time::timeout(SOON, client).await.unwrap().unwrap();
    assert_eq!(socket.next().await.unwrap().unwrap().into_text().unwrap().as_str(), other);
    socket.send(Message::text("we are all here")).await.unwrap();
    assert!(socket.next().await.unwrap().unwrap().is_text());
    let tunnels = bench.proxy.live_rooms();
    assert_eq!(tunnels.iter().map(|(_, at)| at.clone()).collect::<Vec<_>>(), [name(other)]);
    assert_eq!(bench.proxy.connections(), BTreeMap::from([(name(other), 1)]), "nobody is left at {home}");
}

#[tokio::test]
async fn an_idle_tunnel_ends_and_a_living_one_does_not() {
    let bench = Bench::new(&[("one", upstream("one").await)]).await;
    let mut living = websocket(bench.own, "/rooms/?roomId=c").await;
    let mut idle = websocket(bench.own, "/rooms/?roomId=c").await;
    for _ in 0..8 {
        tokio::time::sleep(Duration::from_millis(250)).await;
        living.send(Message::text("ping")).await.unwrap();
        assert!(living.next().await.unwrap().is_ok());
    }
    let _name = idle.next().await;
    let ended = tokio::time::timeout(SOON, idle.next()).await.unwrap();
    assert!(ended.is_none_or(|message| message.is_err()), "an idle tunnel must end");
}

#[tokio::test]
async fn without_the_right_to_answer_nothing_is_said() {
    let bench = Bench::new(&[("one", upstream("one").await)]).await;
    let mut socket = websocket(bench.floating, "/rooms/?roomId=d").await;
    assert!(socket.next().await.unwrap().is_ok());
    let mut kept = TcpStream::connect(bench.floating).await.unwrap();
    kept.write_all(b"GET /web/ HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    assert!(kept.read(&mut [0; 4_096]).await.unwrap() > 0);

    bench.authority.holds.store(false, Ordering::Relaxed);
    kept.write_all(b"GET /web/ HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let said = tokio::time::timeout(SOON, kept.read(&mut [0; 4_096])).await.unwrap();
    assert!(matches!(said, Ok(0) | Err(_)), "an old connection was answered: {said:?}");
    let new = ask(bench.floating, &get("/web/")).await;
    assert!(!new.contains("HTTP/1.1"), "a new connection was answered: {new}");
    let _lost = socket.send(Message::text("anybody?")).await;
    let heard = tokio::time::timeout(SOON, socket.next()).await.unwrap();
    assert!(heard.is_none_or(|message| message.is_err()), "a tunnel was answered");
    assert!(ask(bench.own, &get("/web/")).await.starts_with("HTTP/1.1 200 "), "its own address is its own");
    bench.proxy.close_floating(&public(), Closing::Involuntary, SOON).await;
    assert_eq!(bench.proxy.in_flight(&public()).connections, 0);
}

#[tokio::test]
async fn an_address_in_use_is_an_error_with_its_name() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let error = Proxy::start(options(taken.local_addr().unwrap()), Arc::new(Book::default())).err().unwrap();
    let error = error.to_string();
    assert!(error.contains("in use") && error.contains("ss -ltnp"), "what it is, and what to do: {error}");
}
