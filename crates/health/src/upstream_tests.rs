//! Against a server that misbehaves as servers do.

use super::*;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

/// Answers each connection with what `answer` says for its request head; `None` hangs up.
struct Server {
    address: String,
    heads: Arc<Mutex<Vec<String>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    async fn start(answer: impl Fn(usize) -> Vec<u8> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let heads: Arc<Mutex<Vec<String>>> = Arc::default();
        let (seen, count, answer) = (Arc::clone(&heads), AtomicUsize::new(0), Arc::new(answer));
        let task = tokio::spawn(async move {
            loop {
                let Ok((mut stream, _)) = listener.accept().await else { return };
                let number = count.fetch_add(1, Ordering::Relaxed);
                let (seen, answer) = (Arc::clone(&seen), Arc::clone(&answer));
                tokio::spawn(async move {
                    let mut head = Vec::new();
                    while !head.ends_with(b"\r\n\r\n") {
                        let Ok(byte) = stream.read_u8().await else { return };
                        head.push(byte);
                    }
                    seen.lock().unwrap().push(String::from_utf8(head).unwrap());
                    let answer = answer(number);
                    drop(stream.write_all(&answer).await);
                    if answer.ends_with(b"HANG") {
                        std::future::pending::<()>().await;
                    }
                });
            }
        });
        Self { address, heads, task }
    }

    fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }
}

fn answer(status: &str, extra: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n{extra}\r\n{body}", body.len()).into_bytes()
}

fn quick() -> HealthSpec {
    use twinsite_model::spec::HumanDuration;
    HealthSpec {
        interval: HumanDuration(Duration::from_millis(40)),
        timeout: HumanDuration(Duration::from_millis(300)),
        ..HealthSpec::default()
    }
}

fn name() -> UpstreamName {
    UpstreamName::new("one").unwrap()
}

async fn opinion_of(server: &Server, health: HealthSpec) -> Opinion {
    let probes = UpstreamProbes::start(DialMap::default(), 1);
    probes.configure(
        &health,
        vec![UpstreamTarget { name: name(), target: Target::in_clear(&*server.address) }],
    );
    first_opinion(&probes).await
}

async fn first_opinion(probes: &UpstreamProbes) -> Opinion {
    let mut opinions = probes.opinions();
    let found = opinions.wait_for(|opinions| opinions.contains_key(&name()));
    let found = tokio::time::timeout(Duration::from_secs(10), found).await.unwrap().unwrap();
    found[&name()].clone()
}

#[tokio::test]
async fn a_good_answer_is_good_and_the_cookie_is_kept() {
    let server =
        Server::start(|_| answer("200 OK", "set-cookie: sid=abc; Path=/; Secure\r\n", "{\"status\":\"ok\"}"))
            .await;
    let opinion = opinion_of(&server, quick()).await;
    assert!(opinion.healthy, "{opinion:?}");
    let heads = server.heads();
    assert!(heads.iter().all(|head| head.contains("x-forwarded-proto: https")));
    assert!(!heads[0].contains("cookie"));
    assert!(heads[1].contains("cookie: sid=abc\r\n"), "{}", heads[1]);
}

#[tokio::test]
async fn all_but_the_last_byte_is_not_an_answer() {
    let server =
        Server::start(|_| b"HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n{\"status\":\"ok\"HANG".to_vec())
            .await;
    let opinion = opinion_of(&server, quick()).await;
    assert_eq!(opinion, Opinion { healthy: false, detail: "no whole answer within 300 ms".to_owned() });
}

#[tokio::test]
async fn bad_words_bad_codes_and_cut_answers_are_bad() {
    let server = Server::start(|_| answer("200 OK", "", "{\"status\":\"degraded\"}")).await;
    assert_eq!(opinion_of(&server, quick()).await.detail, "says that its status is \"degraded\"");
    let server = Server::start(|_| answer("503 Service Unavailable", "", "")).await;
    assert_eq!(opinion_of(&server, quick()).await.detail, "answers 503 Service Unavailable");
    let server = Server::start(|_| b"HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\nshort".to_vec()).await;
    assert!(!opinion_of(&server, quick()).await.healthy);
    let server = Server::start(|_| answer("200 OK", "", "<html>")).await;
    assert!(opinion_of(&server, quick()).await.healthy, "what is no JSON has no status");
}

#[tokio::test]
async fn socket_io_is_asked_when_wanted() {
    let server = Server::start(|number| {
        let body = if number % 2 == 0 { "ok" } else { "0{\"sid\":\"x\"}" };
        answer("200 OK", "", body)
    })
    .await;
    assert!(opinion_of(&server, HealthSpec { socket_io: true, ..quick() }).await.healthy);
    assert!(server.heads()[1].starts_with("GET /socket.io/?EIO=4&transport=polling "));
    let server = Server::start(|_| answer("200 OK", "", "ok")).await;
    let opinion = opinion_of(&server, HealthSpec { socket_io: true, ..quick() }).await;
    assert_eq!(opinion.detail, "Socket.IO opens no session");
}

#[tokio::test]
async fn suspicion_is_looked_into_at_once_and_removal_forgets() {
    use twinsite_model::spec::HumanDuration;
    let server =
        Server::start(|number| answer(if number < 2 { "200 OK" } else { "500 Broken" }, "", "")).await;
    let health = HealthSpec { interval: HumanDuration(Duration::from_millis(400)), fall: 1, ..quick() };
    let slow = HealthSpec { interval: HumanDuration(Duration::from_secs(4)), ..health };
    let probes = UpstreamProbes::start(DialMap::default(), 1);
    let target = UpstreamTarget { name: name(), target: Target::in_clear(&*server.address) };
    probes.configure(&slow, vec![target.clone()]);
    assert!(first_opinion(&probes).await.healthy);
    let began = Instant::now();
    probes.suspect(&name());
    let mut opinions = probes.opinions();
    drop(opinions.wait_for(|opinions| !opinions[&name()].healthy).await.unwrap());
    assert!(began.elapsed() < Duration::from_secs(3), "waited for the next probe: {:?}", began.elapsed());

    probes.configure(&slow, vec![target]);
    assert!(opinions.borrow().contains_key(&name()), "nothing changed, nothing is forgotten");
    probes.configure(&slow, Vec::new());
    assert!(opinions.borrow().is_empty());
}

#[tokio::test]
async fn nobody_there_is_bad_and_says_why() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let probes = UpstreamProbes::start(DialMap::default(), 1);
    probes.configure(
        &quick(),
        vec![UpstreamTarget { name: name(), target: Target::in_clear(free.to_string()) }],
    );
    assert_eq!(first_opinion(&probes).await.detail, "cannot connect: connection refused");
}
