//! How much of a node its clients take: connections, and time of its processors.

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

/// Whoever renews the lease must not wait for clients.
#[tokio::test]
async fn cores_give_way_to_the_rest_of_the_node() {
    let nice_of = |stat: &str| -> i32 {
        // `proc_pid_stat(5)`: the name is in brackets, and field 19 is how nice the thread is.
        let (_, after_name) = stat.rsplit_once(") ").unwrap();
        after_name.split(' ').nth(16).unwrap().parse().unwrap()
    };
    let usual = nice_of(&std::fs::read_to_string("/proc/thread-self/stat").unwrap());
    let _bench = Bench::new(&[("one", upstream("one").await)]).await;
    // The first thread of this process is named after its program, `proxy-` and a hash.
    let is_core = |stat: &String| {
        let number = stat.split_once("(proxy-").and_then(|(_, rest)| rest.split_once(") "));
        number.is_some_and(|(number, _)| number.parse::<u8>().is_ok())
    };
    let cores = || -> Vec<i32> {
        let threads = std::fs::read_dir("/proc/self/task").unwrap();
        let stats =
            threads.filter_map(|thread| std::fs::read_to_string(thread.unwrap().path().join("stat")).ok());
        stats.filter(is_core).map(|stat| nice_of(&stat)).collect()
    };
    let nicer = (usual + 5).min(19);
    until("every core is nicer", || !cores().is_empty() && cores().iter().all(|nice| *nice == nicer)).await;
    assert_eq!(nice_of(&std::fs::read_to_string("/proc/thread-self/stat").unwrap()), usual);
}
