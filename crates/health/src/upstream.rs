//! Probes of the meeting instances.

use crate::exchange::{Answer, NoAnswer, get};
use crate::judge::Judge;
use http::{HeaderName, HeaderValue, header};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep};
use tokio_util::sync::{CancellationToken, DropGuard};
use twinsite_model::UpstreamName;
use twinsite_model::dial::DialMap;
use twinsite_model::spec::HealthSpec;
use twinsite_upstream::{Connector, Target};

/// While an opinion is formed or doubted, probes come so many times as often.
const DOUBT_FACTOR: u32 = 4;
/// The longest detail that is passed on, in bytes.
const DETAIL_BYTES_MAX: usize = 160;
/// A Socket.IO handshake without a room: the server answers and forgets it.
const SOCKET_IO_PATH: &str = "/socket.io/?EIO=4&transport=polling";

/// What is probed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamTarget {
    /// Its name.
    pub name: UpstreamName,
    /// The way to it.
    pub target: Target,
}

/// What this node thinks of an upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opinion {
    /// Whether it is well.
    pub healthy: bool,
    /// What the probe that decided it saw, for people. Equal causes read equal.
    pub detail: String,
}

/// All opinions, by name. An upstream without one has not been probed often enough.
pub type Opinions = Arc<BTreeMap<UpstreamName, Opinion>>;

/// Probes every upstream until dropped.
pub struct UpstreamProbes {
    connector: Arc<Connector>,
    seed: u64,
    opinions: watch::Sender<Opinions>,
    running: Mutex<BTreeMap<UpstreamName, Running>>,
}

struct Running {
    target: Target,
    health: HealthSpec,
    suspect: Arc<Notify>,
    _stop: DropGuard,
}

impl UpstreamProbes {
    /// Nothing to probe yet. `seed` makes the jitter of each node its own.
    pub fn start(dial: DialMap, seed: u64) -> Self {
        Self {
            connector: Arc::new(Connector::new(dial)),
            seed,
            opinions: watch::Sender::default(),
            running: Mutex::default(),
        }
    }

    /// Probes these from now on. What did not change goes on undisturbed, and keeps its opinion.
    pub fn configure(&self, health: &HealthSpec, targets: Vec<UpstreamTarget>) {
        let mut running = self.running();
        let wanted: BTreeMap<_, _> = targets.into_iter().map(|target| (target.name, target.target)).collect();
        let stays = |name: &UpstreamName, probe: &Running| {
            wanted.get(name) == Some(&probe.target) && probe.health == *health
        };
        running.retain(|name, probe| stays(name, probe));
        self.opinions.send_if_modified(|opinions| {
            let outdated = opinions.keys().any(|name| !running.contains_key(name));
            if outdated {
                Arc::make_mut(opinions).retain(|name, _| running.contains_key(name));
            }
            outdated
        });
        for (name, target) in wanted {
            if running.contains_key(&name) {
                continue;
            }
            let stop = CancellationToken::new();
            let suspect = Arc::new(Notify::new());
            let probe = Probe {
                name: name.clone(),
                target: target.clone(),
                health: health.clone(),
                connector: Arc::clone(&self.connector),
                opinions: self.opinions.clone(),
                suspect: Arc::clone(&suspect),
                random: fastrand::Rng::with_seed(self.seed ^ name_number(&name)),
                cookie: None,
            };
            tokio::spawn(probe.run(stop.clone()));
            running
                .insert(name, Running { target, health: health.clone(), suspect, _stop: stop.drop_guard() });
        }
    }

    /// What is thought of each.
    pub fn opinions(&self) -> watch::Receiver<Opinions> {
        self.opinions.subscribe()
    }

    /// Real traffic failed there: look at once.
    pub fn suspect(&self, name: &UpstreamName) {
        if let Some(probe) = self.running().get(name) {
            probe.suspect.notify_one();
        }
    }

    fn running(&self) -> MutexGuard<'_, BTreeMap<UpstreamName, Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn name_number(name: &UpstreamName) -> u64 {
    name.as_str().bytes().fold(0, |number, byte| number.wrapping_mul(31).wrapping_add(u64::from(byte)))
}

struct Probe {
    name: UpstreamName,
    target: Target,
    health: HealthSpec,
    connector: Arc<Connector>,
    opinions: watch::Sender<Opinions>,
    suspect: Arc<Notify>,
    random: fastrand::Rng,
    /// Kept from one probe to the next: without it each would leave a session of its own in the service's Redis.
    cookie: Option<HeaderValue>,
}

impl Probe {
    async fn run(mut self, stop: CancellationToken) {
        let mut judge = Judge::default();
        loop {
            let began = Instant::now();
            let outcome = tokio::select! {
                () = stop.cancelled() => return,
                outcome = self.look() => outcome,
            };
            let changed = judge.take(outcome.is_ok(), self.health.rise, self.health.fall);
            if changed && !stop.is_cancelled() {
                self.publish(&judge, outcome);
            }
            let pause = self.pause(judge.in_doubt()).saturating_sub(began.elapsed());
            tokio::select! {
                () = stop.cancelled() => return,
                () = sleep(pause) => {}
                () = self.after_suspicion() => {}
            }
        }
    }

    /// Suspicion hurries a probe, but never beyond the pace of doubt, however many requests fail.
    async fn after_suspicion(&self) {
        let least = self.health.interval.0 / DOUBT_FACTOR / 2;
        sleep(least).await;
        self.suspect.notified().await;
    }

    fn pause(&mut self, in_doubt: bool) -> Duration {
        let interval = self.health.interval.0;
        let base = if in_doubt { interval / DOUBT_FACTOR } else { interval };
        base.mul_f64(0.9 + 0.2 * self.random.f64())
    }

    async fn look(&mut self) -> Result<(), String> {
        let within = self.health.timeout.0;
        let began = Instant::now();
        let answer = get(&self.connector, &self.target, &self.health.path, &self.headers(), within).await;
        let answer = answer.map_err(|error: NoAnswer| error.to_string())?;
        self.keep_cookie(&answer);
        is_well(&answer)?;
        if self.health.socket_io {
            let left = within.saturating_sub(began.elapsed());
            let answer = get(&self.connector, &self.target, SOCKET_IO_PATH, &self.headers(), left).await;
            let answer = answer.map_err(|error| format!("Socket.IO: {error}"))?;
            shakes_hands(&answer)?;
        }
        Ok(())
    }

    fn headers(&self) -> Vec<(HeaderName, HeaderValue)> {
        let proto = (HeaderName::from_static("x-forwarded-proto"), HeaderValue::from_static("https"));
        let cookie = self.cookie.clone().map(|cookie| (header::COOKIE, cookie));
        std::iter::once(proto).chain(cookie).collect()
    }

    fn keep_cookie(&mut self, answer: &Answer) {
        let pairs = answer.headers.get_all(header::SET_COOKIE).iter();
        let pairs = pairs.filter_map(|cookie| cookie.to_str().ok()?.split(';').next().map(str::trim));
        let cookies = pairs.collect::<Vec<_>>().join("; ");
        if !cookies.is_empty() {
            self.cookie = HeaderValue::from_str(&cookies).ok();
        }
    }

    fn publish(&self, judge: &Judge, outcome: Result<(), String>) {
        let Some(healthy) = judge.healthy() else { return };
        let mut detail = outcome.err().unwrap_or_else(|| "answers".to_owned());
        while detail.len() > DETAIL_BYTES_MAX {
            detail.pop();
        }
        if healthy {
            tracing::info!(upstream = %self.name, "answers its probes");
        } else {
            tracing::warn!(upstream = %self.name, %detail, "fails its probes");
        }
        metrics::gauge!("twinsite_upstream_probe_healthy", "upstream" => self.name.to_string())
            .set(f64::from(u8::from(healthy)));
        self.opinions.send_modify(|opinions| {
            Arc::make_mut(opinions).insert(self.name.clone(), Opinion { healthy, detail });
        });
    }
}

/// A success, to the last byte; and where the answer is JSON with a `status`, a good one.
fn is_well(answer: &Answer) -> Result<(), String> {
    if !answer.status.is_success() {
        return Err(format!("answers {}", answer.status));
    }
    let json: Option<serde_json::Value> = serde_json::from_slice(&answer.body).ok();
    match json.as_ref().and_then(|json| json.get("status")) {
        None => Ok(()),
        Some(status) if is_good_word(status) => Ok(()),
        Some(status) => Err(format!("says that its status is {status}")),
    }
}

fn is_good_word(status: &serde_json::Value) -> bool {
    const GOOD: [&str; 6] = ["ok", "up", "pass", "healthy", "green", "true"];
    match status {
        serde_json::Value::String(word) => GOOD.iter().any(|good| word.eq_ignore_ascii_case(good)),
        serde_json::Value::Bool(good) => *good,
        serde_json::Value::Number(number) => number.as_u64().is_some_and(|code| (200..300).contains(&code)),
        _ => false,
    }
}

fn shakes_hands(answer: &Answer) -> Result<(), String> {
    if !answer.status.is_success() {
        return Err(format!("Socket.IO answers {}", answer.status));
    }
    let text = String::from_utf8_lossy(&answer.body);
    if text.contains("\"sid\"") { Ok(()) } else { Err("Socket.IO opens no session".to_owned()) }
}

#[cfg(test)]
#[path = "upstream_tests.rs"]
mod tests;
