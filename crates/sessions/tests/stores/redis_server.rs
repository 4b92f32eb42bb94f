//! A real `redis-server` of a test's own, on a free port, in a folder of its own.

use crate::contract::StoreUnderTest;
use crate::{PATIENCE, up};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tokio::time::{Instant, sleep, timeout};
use twinsite_model::{ClusterName, NodeId, Token};
use twinsite_sessions::{RedisConfig, RedisStore, Store};

/// One server; it ends with this value.
pub(crate) struct RedisServer {
    process: Process,
    folder: Arc<TempDir>,
    arguments: Vec<String>,
    /// Where it listens without TLS.
    pub(crate) port: u16,
}

struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // A stopped process can be killed, too.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Whether the tests that need it are left out; said plainly, and an error where everything must be tested.
#[allow(clippy::print_stdout, reason = "whoever reads the results must see what was not tested")]
fn is_left_out() -> bool {
    let there = Command::new("redis-server").arg("--version").stdout(Stdio::null()).status();
    if there.is_ok_and(|status| status.success()) {
        return false;
    }
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    println!("LEFT OUT: {test}: there is no redis-server on this machine");
    let required = ["CI", "TWINSITE_REQUIRE_REDIS"].iter().any(|name| std::env::var_os(name).is_some());
    assert!(!required, "CI or TWINSITE_REQUIRE_REDIS is set: {test} must not be left out");
    true
}

/// A port that nobody uses at the moment.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl RedisServer {
    /// Starts one with these further arguments and waits until it answers. `None`: left out.
    pub(crate) async fn start(arguments: &[&str]) -> Option<Self> {
        if is_left_out() {
            return None;
        }
        let folder = Arc::new(tempfile::tempdir().unwrap());
        // Somebody else may take the port before the server does.
        for _ in 0..5 {
            let port = free_port();
            let mut server = Self::spawn(port, Arc::clone(&folder), own(arguments));
            if server.answers().await {
                return Some(server);
            }
        }
        panic!("redis-server does not start: {}", log(folder.path()));
    }

    fn spawn(port: u16, folder: Arc<TempDir>, arguments: Vec<String>) -> Self {
        let log = std::fs::File::options().create(true).append(true).open(folder.path().join("log")).unwrap();
        let process = Command::new("redis-server")
            .args(["--bind", "127.0.0.1", "--save", "", "--dir"])
            .arg(folder.path())
            .args(["--port", &port.to_string()])
            .args(&arguments)
            .stdin(Stdio::null())
            .stdout(log)
            .spawn()
            .unwrap();
        Self { process: Process(process), folder, arguments, port }
    }

    async fn answers(&mut self) -> bool {
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            if self.process.0.try_wait().unwrap().is_some() {
                return false;
            }
            if tokio::net::TcpStream::connect(("127.0.0.1", self.port)).await.is_ok() {
                return true;
            }
            sleep(Duration::from_millis(10)).await;
        }
        panic!("redis-server does not answer: {}", log(self.folder.path()));
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Ends it without any warning.
    pub(crate) fn kill(&mut self) {
        self.process.0.kill().unwrap();
        self.process.0.wait().unwrap();
    }

    /// Starts it again on the same port, with further arguments.
    pub(crate) async fn start_again(&mut self, arguments: &[&str]) {
        let mut all = self.arguments.clone();
        all.extend(own(arguments));
        *self = Self::spawn(self.port, Arc::clone(&self.folder), all);
        assert!(self.answers().await, "redis-server does not start again: {}", log(self.folder.path()));
    }

    /// Stops its process where it stands, or lets it go on.
    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let process = rustix::process::Pid::from_child(&self.process.0);
        rustix::process::kill_process(process, signal).unwrap();
    }

    /// What it answers to a command.
    pub(crate) async fn ask<T: redis::FromRedisValue>(&self, words: &[&str]) -> T {
        let client = redis::Client::open(self.url()).unwrap();
        let mut command = redis::cmd(words[0]);
        command.arg(&words[1..]);
        let asked = async {
            let mut connection = client.get_multiplexed_async_connection().await.unwrap();
            command.query_async(&mut connection).await.unwrap()
        };
        timeout(PATIENCE, asked).await.unwrap()
    }
}

fn own(arguments: &[&str]) -> Vec<String> {
    arguments.iter().map(|argument| (*argument).to_owned()).collect()
}

fn log(folder: &Path) -> String {
    std::fs::read_to_string(folder.join("log")).unwrap_or_default()
}

/// How a store of these tests is set up: as by default, and quick to try again.
pub(crate) fn config(url: &str, ca_file: Option<&Path>) -> RedisConfig {
    let mut config = RedisConfig::new(ClusterName::new("meet").unwrap(), NodeId(1), url, ca_file).unwrap();
    config.beat_interval = Duration::from_millis(100);
    config.backoff_max = Duration::from_millis(200);
    config
}

/// The store over such a server.
pub(crate) struct InRedis<'a> {
    pub(crate) server: &'a RedisServer,
    pub(crate) store: RedisStore,
    epoch: u64,
}

impl<'a> InRedis<'a> {
    pub(crate) async fn start(server: &'a RedisServer) -> Self {
        let store = RedisStore::start(config(&server.url(), None));
        up(&store).await;
        Self { server, store, epoch: 0 }
    }
}

impl StoreUnderTest for InRedis<'_> {
    fn store(&self) -> &dyn Store {
        &self.store
    }

    fn raise(&mut self) -> Token {
        self.epoch += 1;
        Token::new(1, self.epoch)
    }

    async fn forget(&mut self) -> bool {
        let _: String = self.server.ask(&["FLUSHALL"]).await;
        true
    }
}
