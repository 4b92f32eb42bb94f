//! The connection to Redis: made, examined, given up and made again, for as long as the store lives.
//!
//! The stream is dialled here and handed to the client library, so that every address goes through the node's dial
//! map, and each phase has its own limit and its own reason when it fails.

use super::config::RedisConfig;
use super::scripts::Scripts;
use super::{Keys, sortable};
use crate::store::{Role, StoreStatus, Why};
use arc_swap::ArcSwapOption;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, ErrorKind, RedisConnectionInfo, RedisError, ServerErrorKind, Value};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_util::task::AbortOnDropHandle;
use twinsite_model::Token;

/// The first pause between attempts to connect.
const BACKOFF_MIN: Duration = Duration::from_millis(20);
/// A connection that held so long lets the next attempts begin with the shortest pause again.
const STEADY: Duration = Duration::from_secs(2);
/// How many addresses of one host name are tried.
const ADDRESSES_MAX: usize = 8;
/// Commands under way, at most; more wait.
const COMMANDS_MAX: usize = 1_024;

/// One connection. The library's task ends with it.
pub(super) struct Live {
    pub connection: MultiplexedConnection,
    driver: AbortOnDropHandle<()>,
}

/// What the store and its background task share.
pub(super) struct Link {
    pub config: RedisConfig,
    pub keys: Keys,
    pub scripts: Scripts,
    pub live: ArcSwapOption<Live>,
    pub status: watch::Sender<StoreStatus>,
    pub lives: watch::Sender<u64>,
    /// Somebody had trouble, or wants the token asserted: examine the connection now.
    pub examine: Notify,
    /// Set by whoever got an answer that means the end of the connection.
    verdict: Mutex<Option<Why>>,
    asserted: Mutex<Token>,
    /// The server's clock minus ours, in ms, as of the last beat; `i64::MIN` before the first.
    clock_offset: AtomicI64,
    begun: Instant,
}

impl Link {
    pub(super) fn new(config: RedisConfig) -> Self {
        let starting = StoreStatus::Down { why: Why::Starting };
        Self {
            keys: Keys::new(&config.cluster, config.node),
            scripts: Scripts::new(),
            config,
            live: ArcSwapOption::empty(),
            status: watch::Sender::new(starting),
            lives: watch::Sender::new(0),
            examine: Notify::new(),
            verdict: Mutex::default(),
            asserted: Mutex::default(),
            clock_offset: AtomicI64::new(i64::MIN),
            begun: Instant::now(),
        }
    }

    pub(super) fn assert_token(&self, token: Token) {
        let mut asserted = self.asserted.lock().unwrap_or_else(PoisonError::into_inner);
        if token > *asserted {
            *asserted = token;
            self.examine.notify_one();
        }
    }

    fn asserted(&self) -> Token {
        *self.asserted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn uptime_ms(&self) -> i64 {
        i64::try_from(self.begun.elapsed().as_millis()).unwrap_or(i64::MAX)
    }

    /// The time on the server's clock after which a command sent now shall do nothing; 0 before the first beat.
    pub(super) fn not_after(&self) -> i64 {
        let offset = self.clock_offset.load(Ordering::Relaxed);
        if offset == i64::MIN {
            return 0;
        }
        let patience = i64::try_from(self.config.response_timeout.as_millis()).unwrap_or(i64::MAX / 4);
        self.uptime_ms().saturating_add(offset).saturating_add(patience)
    }

    /// Notes an error that a command met: some mean the end of the connection.
    pub(super) fn note(&self, error: &RedisError) -> Why {
        let why = reason(error);
        if why == Why::ResponseTimeout {
            self.examine.notify_one();
        } else if why != Why::Protocol {
            *self.verdict.lock().unwrap_or_else(PoisonError::into_inner) = Some(why);
            self.examine.notify_one();
        }
        why
    }

    fn set_status(&self, now: Result<Role, Why>) {
        self.status.send_if_modified(|status| {
            let next = match now {
                Ok(role) => StoreStatus::Up { role },
                Err(why) => StoreStatus::Down { why },
            };
            let changed = next != *status;
            *status = next;
            changed
        });
    }

    /// The background task.
    pub(super) async fn run(self: Arc<Self>) {
        let mut pause = BACKOFF_MIN;
        loop {
            let begun = Instant::now();
            let why = match self.connect().await {
                Ok(live) => self.hold(live).await,
                Err(why) => why,
            };
            self.set_status(Err(why));
            if begun.elapsed() > STEADY {
                pause = BACKOFF_MIN;
            }
            // Jitter: the nodes of a cluster lose their store together and should not return together.
            sleep(pause.mul_f64(0.5 + fastrand::f64())).await;
            pause = (pause * 2).min(self.config.backoff_max);
        }
    }

    async fn connect(&self) -> Result<Live, Why> {
        let limit = self.config.connect_timeout;
        let lookup = lookup_host((self.config.host.as_str(), self.config.port));
        let Ok(Ok(addresses)) = timeout(limit, lookup).await else { return Err(Why::Resolve) };
        let mut why = Why::Resolve;
        for address in addresses.take(ADDRESSES_MAX) {
            match timeout(limit, self.connect_to(self.config.dial.resolve(address))).await {
                Ok(Ok(live)) => return Ok(live),
                Ok(Err(reason)) => why = reason,
                Err(_) => why = Why::ConnectTimeout,
            }
        }
        Err(why)
    }

    async fn connect_to(&self, address: SocketAddr) -> Result<Live, Why> {
        let stream = TcpStream::connect(address).await.map_err(|error| match error.kind() {
            std::io::ErrorKind::ConnectionRefused => Why::Refused,
            std::io::ErrorKind::TimedOut => Why::ConnectTimeout,
            _ => Why::Closed,
        })?;
        // Commands are small and each waits for its answer.
        let _ = stream.set_nodelay(true);
        match &self.config.tls {
            None => self.greet(stream).await,
            Some((tls, name)) => {
                let secured = TlsConnector::from(Arc::clone(tls)).connect(name.clone(), stream).await;
                self.greet(secured.map_err(|_| Why::Tls)?).await
            }
        }
    }

    async fn greet<S>(&self, stream: S) -> Result<Live, Why>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let mut info = RedisConnectionInfo::default().set_db(self.config.database).set_skip_set_lib_name();
        let username = self.config.credentials.username.read().await.map_err(|_| Why::Authentication)?;
        let password = self.config.credentials.password.read().await.map_err(|_| Why::Authentication)?;
        if let Some(username) = username {
            info = info.set_username(username);
        }
        if let Some(password) = password {
            info = info.set_password(password);
        }
        let options = AsyncConnectionConfig::new()
            .set_response_timeout(Some(self.config.response_timeout))
            .set_concurrency_limit(COMMANDS_MAX);
        let connected = MultiplexedConnection::new_with_config(&info, stream, options).await;
        let (connection, driver) = connected.map_err(|error| reason(&error))?;
        Ok(Live { connection, driver: AbortOnDropHandle::new(tokio::spawn(driver)) })
    }

    /// Uses a connection until it is good for nothing, and returns why. The token is asserted before anyone else can
    /// write over it.
    async fn hold(&self, live: Live) -> Why {
        *self.verdict.lock().unwrap_or_else(PoisonError::into_inner) = None;
        let mut beats = live.connection.clone();
        if let Err(why) = self.beat(&mut beats).await {
            return why;
        }
        let live = Arc::new(live);
        self.live.store(Some(Arc::clone(&live)));
        self.lives.send_modify(|life| *life += 1);
        self.set_status(Ok(Role::Primary));
        let why = loop {
            let _ = timeout(self.config.beat_interval, self.examine.notified()).await;
            if let Some(why) = *self.verdict.lock().unwrap_or_else(PoisonError::into_inner) {
                break why;
            }
            if live.driver.is_finished() {
                break Why::Closed;
            }
            match self.beat(&mut beats).await {
                Ok(false) => {}
                Ok(true) => self.lives.send_modify(|life| *life += 1),
                Err(why) => break why,
            }
        };
        self.live.store(None);
        why
    }

    /// Asserts the token, and shows that the server takes writes. Returns whether it was found empty.
    async fn beat(&self, connection: &mut MultiplexedConnection) -> Result<bool, Why> {
        let mut call = self.scripts.beat.prepare_invoke();
        self.keys.begin(&mut call);
        call.key(&self.keys.presence);
        // No time limit here: raising the token late is as right as raising it early.
        call.arg(sortable(self.asserted())).arg(0).arg(self.config.node.0).arg(self.audit_entries());
        call.arg(u64::try_from((self.config.beat_interval * 10).as_millis()).unwrap_or(u64::MAX));
        let before = self.uptime_ms();
        let answer: Vec<Value> = call.invoke_async(connection).await.map_err(|error| reason(&error))?;
        let texts: Vec<String> =
            answer.into_iter().filter_map(|value| redis::from_redis_value(value).ok()).collect();
        let [word, middle, clock] = texts.as_slice() else { return Err(Why::Protocol) };
        if let Ok(clock) = clock.parse::<i64>() {
            self.clock_offset.store(clock.saturating_sub(before), Ordering::Relaxed);
        }
        Ok(word == "OK" && middle == "1")
    }

    pub(super) fn audit_entries(&self) -> u64 {
        if self.config.audit { super::AUDIT_ENTRIES } else { 0 }
    }
}

/// What an error of the client library means here.
pub(super) fn reason(error: &RedisError) -> Why {
    if error.is_timeout() {
        return Why::ResponseTimeout;
    }
    if let Some(code) = error.code() {
        match code {
            "NOAUTH" | "WRONGPASS" => return Why::Authentication,
            "LOADING" => return Why::Loading,
            "READONLY" => return Why::ReadOnly,
            "MOVED" | "ASK" | "CLUSTERDOWN" | "CROSSSLOT" | "TRYAGAIN" => return Why::Misrouted,
            "OOM" | "MISCONF" | "NOPERM" | "NOREPLICAS" | "MASTERDOWN" => return Why::Refusing,
            // Who has not said a password may send short commands only; a script's call is refused with these words.
            "ERR" if error.detail().is_some_and(|detail| detail.contains("unauthenticated")) => {
                return Why::Authentication;
            }
            _ => {}
        }
    }
    match error.kind() {
        ErrorKind::AuthenticationFailed => Why::Authentication,
        ErrorKind::Server(ServerErrorKind::BusyLoading) => Why::Loading,
        ErrorKind::Server(ServerErrorKind::ReadOnly) => Why::ReadOnly,
        ErrorKind::Server(ServerErrorKind::NoPerm | ServerErrorKind::MasterDown) => Why::Refusing,
        ErrorKind::Io => Why::Closed,
        _ if error.is_connection_dropped() => Why::Closed,
        _ => Why::Protocol,
    }
}
