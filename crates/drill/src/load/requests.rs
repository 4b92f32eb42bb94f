//! The HTTP clients: new connections, and browsers with keep-alive.

use super::http::{self, Answer, Connection, Failure};
use super::{Client, LoadPlan, PATIENCE};
use crate::layout::Layout;
use crate::measure::{self, Kind};
use std::net::IpAddr;
use std::time::{Duration, Instant};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

/// How long a new connection with its one request may take.
const PROBE_PATIENCE: Duration = Duration::from_millis(500);
/// The page on which a node says who it is.
pub(crate) const IDENTITY_PATH: &str = "/.well-known/twinsite";
/// How soon a browser asks again whether somebody listens.
const CONNECT_AGAIN: Duration = Duration::from_millis(5);
/// How often a connection that was given up is asked on.
const ASK_OLD_EVERY: Duration = Duration::from_millis(100);
/// The source addresses of new connections; the first of the clients' block.
const PROBE_ADDRESSES: usize = 32;

pub(super) fn start(client: &Client, plan: &LoadPlan, layout: &Layout) {
    let sources: Vec<_> = (0..PROBE_ADDRESSES).map(|n| layout.client(n)).collect();
    client.spawn(connect_for_ever(client.clone(), sources, plan.connect_every));
    for n in 0..plan.http_clients {
        let browser = Browser {
            client: client.clone(),
            source: layout.client(PROBE_ADDRESSES + n),
            path: plan.path.clone(),
            connection: None,
        };
        client.spawn(browser.browse(plan.http_pause));
    }
}

async fn connect_for_ever(client: Client, sources: Vec<IpAddr>, every: Duration) {
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    for source in sources.into_iter().cycle() {
        ticks.tick().await;
        let probe = client.clone();
        client.spawn(async move {
            let sent = Instant::now();
            let outcome = http::ask_once(source, probe.floating, IDENTITY_PATH, PROBE_PATIENCE).await;
            if let Ok(answer) = &outcome {
                note(&probe, Kind::NewConnection, sent, answer);
            }
            probe.recorder.connect(outcome.map(drop));
        });
    }
}

fn note(client: &Client, kind: Kind, sent: Instant, answer: &Answer) {
    client.recorder.answer(measure::Answer {
        kind,
        sent: Some(sent),
        received: Instant::now(),
        identity: answer.identity.clone(),
        floating: true,
    });
}

struct Browser {
    client: Client,
    source: IpAddr,
    path: String,
    connection: Option<Connection>,
}

impl Browser {
    async fn browse(mut self, pause: Duration) {
        loop {
            // Spread, so that the clients do not ask in step.
            sleep(pause.mul_f64(0.5 + fastrand::f64())).await;
            match self.request().await {
                Ok(retried) => self.client.recorder.request_ok(retried),
                Err(failure) => self.client.recorder.request_failed(failure),
            }
        }
    }

    /// One request as a browser's user sees it; says whether it took more than one attempt.
    async fn request(&mut self) -> Result<bool, Failure> {
        let deadline = Instant::now() + PATIENCE;
        let mut retried = false;
        if let Some(connection) = self.connection.take() {
            match self.attempt(connection, deadline).await {
                Ok(()) => return Ok(false),
                // Closed while idle: no question was lost, and HTTP allows it at any time.
                Err(Failure::Closed) => retried = true,
                // Broken with the question on its way: a GET on a used connection is asked once more.
                Err(failure @ Failure::Broken) => {
                    self.client.recorder.attempt_failed(failure);
                    retried = true;
                }
                Err(failure) => return Err(failure),
            }
        }
        let connection = loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match Connection::open(self.source, self.client.floating, left, false).await {
                Ok(connection) => break connection,
                Err(failure) if left <= CONNECT_AGAIN => return Err(failure),
                Err(failure) => {
                    self.client.recorder.attempt_failed(failure);
                    retried = true;
                    sleep(CONNECT_AGAIN).await;
                }
            }
        };
        self.attempt(connection, deadline).await.map(|()| retried)
    }

    /// Asks on a connection, on a task of its own: when the browser has lost patience, the task goes on listening.
    async fn attempt(&mut self, mut connection: Connection, deadline: Instant) -> Result<(), Failure> {
        let (client, path) = (self.client.clone(), self.path.clone());
        let (done, outcome) = tokio::sync::oneshot::channel();
        self.client.spawn(async move {
            let sent = Instant::now();
            let answer = connection.ask(client.floating, &path, Duration::MAX).await;
            if let Ok(answer) = &answer {
                note(&client, Kind::KeepAlive, sent, answer);
            }
            if let Err((connection, Ok(_))) = done.send((connection, answer)) {
                ask_on(&client, connection, &path).await;
            }
        });
        let left = deadline.saturating_duration_since(Instant::now());
        let (connection, answer) =
            timeout(left, outcome).await.map_err(|_| Failure::TimedOut)?.map_err(|_| Failure::Broken)?;
        if !answer?.closes {
            self.connection = Some(connection);
        }
        Ok(())
    }
}

/// Goes on asking on a connection whose browser has given it up: nobody should answer there any more.
async fn ask_on(client: &Client, mut connection: Connection, path: &str) {
    loop {
        sleep(ASK_OLD_EVERY).await;
        let sent = Instant::now();
        match connection.ask(client.floating, path, Duration::MAX).await {
            Ok(answer) => note(client, Kind::KeepAlive, sent, &answer),
            Err(_) => return,
        }
    }
}
