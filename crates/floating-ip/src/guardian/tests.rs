//! Against real processes: a child that listens, dies or hangs is this test program itself, run again.

use super::*;
use crate::clock::boot_now;
use crate::loopback::{Loopback, address_is_free};
use crate::provider::{Accepted, Provider};
use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

const CHILD: &str = "TWINSITE_TEST_HOLDER";
const SLACK: Duration = Duration::from_millis(100);

#[derive(Default)]
struct Heard(Mutex<Vec<(Ended, Instant)>>);

impl Releases for Heard {
    fn ended(&self, ended: Ended) {
        self.0.lock().unwrap().push((ended, Instant::now()));
    }
}

struct Ignore;
impl Accepted for Ignore {
    fn accept(&self, _: TcpStream) {}
}

fn ip() -> FloatingIpName {
    FloatingIpName::new("public").unwrap()
}

/// Not a test: the life of the child process, which holds an address until its lease ends, renewed or not.
#[test]
fn child_that_holds() {
    let Ok(arguments) = std::env::var(CHILD) else { return };
    let (data, rest) = arguments.split_once('|').unwrap();
    let (address, mode) = rest.split_once('|').unwrap();
    let address: SocketAddr = address.parse().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let client = GuardianClient::connect(Path::new(data), Incarnation(7)).await.unwrap();
        let provider = Loopback::new(address.ip(), &[address.port()], |_| Arc::new(Ignore));
        let token = Token::new(1, 5);
        let holding = || Holding { ip: ip(), addresses: vec![address], interface: None, token };
        let lease = Duration::from_millis(600);
        client.holding(holding(), boot_now() + lease, SLACK).unwrap();
        provider.hold(token, boot_now() + lease).await.unwrap();
        println!("holding");
        loop {
            tokio::time::sleep(Duration::from_millis(50)).await;
            match mode {
                "renewed" => client.holding(holding(), boot_now() + lease, SLACK).unwrap(),
                "again" => {
                    // The line breaks, a new one is made, and then this process hangs.
                    let held = [(holding(), boot_now() + lease, SLACK)];
                    drop(client);
                    let line = GuardianClient::dial(Path::new(data), Incarnation(7)).await.unwrap();
                    let _new = line.begin(held).unwrap();
                    println!("hangs");
                    std::thread::sleep(Duration::from_secs(60));
                    return;
                }
                "let-go" => {
                    provider.release().await.unwrap();
                    client.released(&ip(), token).unwrap();
                    println!("let go");
                    tokio::time::sleep(Duration::from_secs(60)).await;
                }
                _ => {}
            }
        }
    });
}

struct Holder {
    child: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Holder {
    fn start(data: &Path, address: SocketAddr, mode: &str) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "guardian::tests::child_that_holds", "--nocapture"])
            .env(CHILD, format!("{}|{address}|{mode}", data.display()))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut holder = Self { lines: BufReader::new(child.stdout.take().unwrap()).lines(), child };
        holder.says("holding");
        holder
    }

    fn says(&mut self, wanted: &str) {
        assert!(self.lines.by_ref().any(|line| line.unwrap().contains(wanted)), "the child ended early");
    }

    fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).unwrap();
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

struct Guarded {
    data: tempfile::TempDir,
    heard: Arc<Heard>,
    stop: CancellationToken,
    guardian: tokio::task::JoinHandle<()>,
}

impl Guarded {
    async fn start() -> Self {
        let data = tempfile::tempdir().unwrap();
        let (heard, stop) = (Arc::new(Heard::default()), CancellationToken::new());
        let guardian = begin(data.path(), &heard, &stop);
        until(Duration::from_secs(5), || socket_path(data.path()).exists()).await;
        Self { data, heard, stop, guardian }
    }

    /// The guardian's process ends, with everything in it.
    async fn end(&mut self) {
        self.stop.cancel();
        (&mut self.guardian).await.unwrap();
    }

    fn begin_again(&mut self) {
        self.stop = CancellationToken::new();
        self.guardian = begin(self.data.path(), &self.heard, &self.stop);
    }

    async fn ended(&self, within: Duration) -> (Ended, Instant) {
        until(within, || !self.heard.0.lock().unwrap().is_empty()).await;
        self.heard.0.lock().unwrap()[0].clone()
    }
}

fn begin(data: &Path, heard: &Arc<Heard>, stop: &CancellationToken) -> tokio::task::JoinHandle<()> {
    let config = GuardianConfig { data: data.to_owned() };
    let (releases, stopped) = (Arc::clone(heard), stop.clone());
    tokio::spawn(async move { run(&config, releases, stopped).await.unwrap() })
}

async fn until(within: Duration, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + within;
    while !condition() {
        assert!(Instant::now() < deadline, "did not come true within {within:?}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_is_released_once_and_only_when_the_address_is_free() {
    let guarded = Guarded::start().await;
    let address = "127.44.7.1:8180".parse().unwrap();
    let holder = Holder::start(guarded.data.path(), address, "renewed");
    assert!(!address_is_free(address).unwrap());
    holder.signal(rustix::process::Signal::KILL);
    let (ended, _) = guarded.ended(Duration::from_secs(5)).await;
    assert_eq!(ended, Ended { ip: ip(), token: Token::new(1, 5), incarnation: Incarnation(7) });
    assert!(address_is_free(address).unwrap());
    guarded.stop.cancel();
    assert_eq!(guarded.heard.0.lock().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_holder_is_ended_before_its_lease_ends() {
    let guarded = Guarded::start().await;
    let address = "127.44.7.2:8180".parse().unwrap();
    let mut holder = Holder::start(guarded.data.path(), address, "renewed");
    let frozen = Instant::now();
    holder.signal(rustix::process::Signal::STOP);
    let (_, at) = guarded.ended(Duration::from_secs(5)).await;
    // Its last renewal was at most a moment before it froze, for 600 ms.
    assert!(at - frozen >= Duration::from_millis(300), "ended long before its lease: {:?}", at - frozen);
    assert!(at - frozen <= Duration::from_millis(600) + SLACK, "ended too late: {:?}", at - frozen);
    let status = holder.child.wait().unwrap();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_living_holder_whose_lease_has_ended_is_ended_too() {
    let guarded = Guarded::start().await;
    let mut holder = Holder::start(guarded.data.path(), "127.44.7.3:8180".parse().unwrap(), "not-renewed");
    guarded.ended(Duration::from_secs(5)).await;
    assert!(!holder.child.wait().unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_holder_that_hangs_is_ended_by_the_next_guardian_too() {
    let mut guarded = Guarded::start().await;
    let mut holder = Holder::start(guarded.data.path(), "127.44.7.5:8180".parse().unwrap(), "renewed");
    holder.signal(rustix::process::Signal::STOP);
    guarded.end().await;
    guarded.begin_again();
    // Whether the first one came to read what it holds or not.
    let mut status = None;
    let deadline = Instant::now() + Duration::from_secs(5);
    while status.is_none() {
        assert!(Instant::now() < deadline, "a hung holder lives on");
        status = holder.child.try_wait().unwrap();
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    assert_eq!(status.and_then(|status| std::os::unix::process::ExitStatusExt::signal(&status)), Some(9));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_end_that_nobody_saw_is_told_by_the_next_guardian() {
    let mut guarded = Guarded::start().await;
    let mut holder = Holder::start(guarded.data.path(), "127.44.7.6:8180".parse().unwrap(), "renewed");
    // Noted, in clear text: the name of the address.
    let record = guarded.data.path().join("guardian.record");
    let noted = || std::fs::read(&record).unwrap().windows(6).any(|bytes| bytes == b"public");
    until(Duration::from_secs(5), noted).await;
    guarded.end().await;
    holder.signal(rustix::process::Signal::KILL);
    holder.child.wait().unwrap();
    guarded.begin_again();
    let (ended, _) = guarded.ended(Duration::from_secs(5)).await;
    assert_eq!((ended.token, ended.incarnation), (Token::new(1, 5), Incarnation(7)));

    guarded.end().await;
    guarded.begin_again();
    // It listens only after it has read what the one before it knew.
    let socket = socket_path(guarded.data.path());
    until(Duration::from_secs(5), || std::os::unix::net::UnixStream::connect(&socket).is_ok()).await;
    assert_eq!(guarded.heard.0.lock().unwrap().len(), 1, "it is told once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_line_of_the_same_life_is_held_to_what_the_old_one_said() {
    let guarded = Guarded::start().await;
    let mut holder = Holder::start(guarded.data.path(), "127.44.7.7:8180".parse().unwrap(), "again");
    holder.says("hangs");
    let hung = Instant::now();
    let (ended, at) = guarded.ended(Duration::from_secs(5)).await;
    assert_eq!(ended.token, Token::new(1, 5));
    assert!(at - hung <= Duration::from_millis(600) + SLACK, "ended too late: {:?}", at - hung);
    assert_eq!(guarded.heard.0.lock().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_let_go_is_left_alone() {
    let guarded = Guarded::start().await;
    let mut holder = Holder::start(guarded.data.path(), "127.44.7.4:8180".parse().unwrap(), "let-go");
    holder.says("let go");
    tokio::time::sleep(Duration::from_millis(900)).await;
    assert!(holder.child.try_wait().unwrap().is_none(), "it was ended though it holds nothing");
    holder.signal(rustix::process::Signal::KILL);
    holder.child.wait().unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(guarded.heard.0.lock().unwrap().is_empty(), "nothing was held, so nothing ended");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_guardian_is_refused_and_a_stale_socket_replaced() {
    let guarded = Guarded::start().await;
    let config = GuardianConfig { data: guarded.data.path().to_owned() };
    let second = run(&config, Arc::new(Heard::default()), CancellationToken::new()).await;
    assert!(matches!(second, Err(GuardianError::AlreadyGuarded { .. })), "{second:?}");
    let client = GuardianClient::connect(guarded.data.path(), Incarnation(1)).await.unwrap();
    client
        .holding(
            Holding { ip: ip(), addresses: Vec::new(), interface: None, token: Token::new(1, 1) },
            boot_now(),
            SLACK * 600,
        )
        .unwrap();

    let empty = tempfile::tempdir().unwrap();
    let absent = GuardianClient::connect(empty.path(), Incarnation(1)).await;
    assert!(absent.is_err_and(|error| error.retryable() && error.to_string().contains("twinsite guardian")));
    drop(std::os::unix::net::UnixListener::bind(socket_path(empty.path())).unwrap()); // left behind
    let stop = CancellationToken::new();
    let (config, stopped) = (GuardianConfig { data: empty.path().to_owned() }, stop.clone());
    let guardian = tokio::spawn(async move { run(&config, Arc::new(Heard::default()), stopped).await });
    let deadline = Instant::now() + Duration::from_secs(5);
    let client = loop {
        match GuardianClient::connect(empty.path(), Incarnation(1)).await {
            Ok(client) => break client,
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    };
    stop.cancel();
    guardian.await.unwrap().unwrap();
    drop(client);
}
