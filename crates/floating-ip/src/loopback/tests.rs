use super::*;
use crate::clock::boot_now;
use std::io::{Read, Write};
use std::net::TcpStream;

/// Answers one byte, the token's epoch, while the lease holds.
struct Answering(Lease);

impl Accepted for Answering {
    fn accept(&self, mut stream: TcpStream) {
        stream.set_nonblocking(false).unwrap();
        if self.0.holds() {
            stream.write_all(&[u8::try_from(self.0.token().epoch.0).unwrap()]).unwrap();
        }
    }
}

fn holder(address: SocketAddr) -> Loopback {
    Loopback::new(address.ip(), &[address.port()], |lease| Arc::new(Answering(lease)))
}

async fn answer(address: SocketAddr) -> Option<u8> {
    let ask = move || {
        let mut stream = TcpStream::connect(address).ok()?;
        let mut answer = [0];
        stream.read_exact(&mut answer).ok()?;
        Some(answer[0])
    };
    tokio::task::spawn_blocking(ask).await.unwrap()
}

fn soon() -> BootTime {
    boot_now() + Duration::from_secs(60)
}

/// What a crowd of clients got that connects all the time, each on new connections.
#[derive(Debug, Default)]
struct Crowd {
    answered: u64,
    refused: u64,
    broken: u64,
}

fn crowd(address: SocketAddr, stop: &std::sync::atomic::AtomicBool) -> Crowd {
    let mut seen = Crowd::default();
    while !stop.load(std::sync::atomic::Ordering::Relaxed) {
        let Ok(mut stream) = TcpStream::connect(address) else {
            seen.refused += 1;
            continue;
        };
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        match stream.read_exact(&mut [0]) {
            Ok(()) => seen.answered += 1,
            Err(_) => seen.broken += 1,
        }
    }
    seen
}

/// Between the kernel's "no more" and the closing another connection can be completed, which the closing would reset:
/// so new ones are refused first.
#[tokio::test]
async fn who_connects_while_it_closes_is_served_or_refused() {
    let address: SocketAddr = "127.44.8.10:8080".parse().unwrap();
    let holder = holder(address);
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let crowds: Vec<_> = (0..3)
        .map(|_| {
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || crowd(address, &stop))
        })
        .collect();
    for round in 1..=200 {
        holder.hold(Token::new(1, round), soon()).await.unwrap();
        tokio::time::sleep(Duration::from_millis(2)).await;
        holder.release().await.unwrap();
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    for crowd in crowds {
        let seen = crowd.join().unwrap();
        assert_eq!(seen.broken, 0, "{seen:?}");
        assert!(seen.answered > 0 && seen.refused > 0, "{seen:?}");
    }
}

/// On one thread the runtime cannot have heard of connections that came while the test kept that thread.
#[tokio::test]
async fn who_connected_before_the_closing_is_served() {
    let address: SocketAddr = "127.44.8.9:8080".parse().unwrap();
    let holder = holder(address);
    holder.hold(Token::new(1, 7), soon()).await.unwrap();
    let clients: Vec<_> = (0..20).map(|_| TcpStream::connect(address).unwrap()).collect();
    holder.close().await;
    for mut client in clients {
        let mut answer = [0];
        client.read_exact(&mut answer).unwrap();
        assert_eq!(answer, [7]);
    }
    holder.release().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_node_cannot_listen_until_the_first_has_let_go() {
    let address: SocketAddr = "127.44.8.1:8080".parse().unwrap();
    let (first, second) = (holder(address), holder(address));
    first.hold(Token::new(1, 1), soon()).await.unwrap();
    assert_eq!(answer(address).await, Some(1));
    let refused = second.hold(Token::new(1, 2), soon()).await;
    assert_eq!(refused, Err(ProviderError::Held(address)));
    assert_eq!(second.observe().attached, None);
    assert!(second.observe().error.is_some_and(|error| error.contains("held by another process")));
    assert_eq!(first.observe(), Observation { attached: Some(Token::new(1, 1)), ..Observation::default() });

    first.close().await;
    assert_eq!(answer(address).await, None, "closed: nothing new is accepted");
    let still = second.hold(Token::new(1, 2), soon()).await;
    assert_eq!(still, Err(ProviderError::Held(address)), "what was accepted may still be answered");

    first.release().await.unwrap();
    assert!(address_is_free(address).unwrap());
    second.hold(Token::new(1, 2), soon()).await.unwrap();
    assert_eq!(answer(address).await, Some(2));
    first.release().await.unwrap(); // again, while somebody else holds it
    second.release().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn holding_again_extends_the_lease_and_repairs_the_listener() {
    let address: SocketAddr = "127.44.8.2:8080".parse().unwrap();
    let holder = holder(address);
    let token = Token::new(1, 3);
    holder.hold(token, boot_now() - Duration::from_millis(1)).await.unwrap();
    assert_eq!(holder.observe().attached, None, "a lease that has ended attaches nothing");
    assert_eq!(answer(address).await, None);
    holder.hold(token, soon()).await.unwrap();
    assert_eq!(holder.observe().attached, Some(token));
    assert_eq!(answer(address).await, Some(3));
    holder.close().await;
    assert_eq!(holder.observe().attached, None);
    holder.hold(token, soon()).await.unwrap();
    assert_eq!(answer(address).await, Some(3));
    holder.release().await.unwrap();
    holder.release().await.unwrap();
}

#[tokio::test]
async fn an_address_that_the_kernel_refuses_is_an_error_with_its_name() {
    let address: SocketAddr = "192.0.2.1:8080".parse().unwrap();
    let holder = holder(address);
    let refused = holder.hold(Token::new(1, 1), soon()).await.unwrap_err();
    assert!(refused.to_string().starts_with("192.0.2.1:8080: "), "{refused}");
    assert!(!exclusion::is_taken(address), "the name is given back");
}
