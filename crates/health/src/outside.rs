//! What floating IPs answer from outside: the truth that counts, because it is what clients see.

use crate::exchange::get;
use http::HeaderValue;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep};
use tokio_util::sync::{CancellationToken, DropGuard};
use twinsite_model::dial::DialMap;
use twinsite_model::{ClusterName, FloatingIpName, Incarnation, NodeId, Token};
use twinsite_upstream::{Connector, Target};

/// While an address is silent, probes come so many times as often.
const SILENCE_FACTOR: u32 = 4;
/// The shortest pause between probes.
const PAUSE_MIN: Duration = Duration::from_millis(10);
/// Where every node says who it is.
const WHO_PATH: &str = "/.well-known/twinsite";

/// What an address answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OutsideAnswer {
    /// A node of a cluster answered.
    Answered {
        /// The cluster.
        cluster: String,
        /// The node.
        node: NodeId,
        /// The token under which it answers.
        token: Token,
        /// Its life.
        incarnation: Incarnation,
    },
    /// Nobody did, or nobody who knows of twinsite.
    Silent {
        /// What happened instead, for people. Equal causes read equal.
        detail: String,
    },
}

impl OutsideAnswer {
    /// The answer as it counts for this cluster. Another one's node there, whatever it says of itself, is nobody: its
    /// numbers mean something else.
    #[must_use]
    pub fn for_cluster(&self, ours: &ClusterName) -> Self {
        match self {
            Self::Answered { cluster, .. } if cluster != ours.as_str() => {
                Self::Silent { detail: format!("a node of another cluster, {cluster}, answers") }
            }
            other => other.clone(),
        }
    }
}

/// All answers, by name.
pub type OutsideAnswers = Arc<BTreeMap<FloatingIpName, OutsideAnswer>>;

/// Probes floating IPs until dropped.
pub struct OutsideProbes {
    connector: Arc<Connector>,
    answers: watch::Sender<OutsideAnswers>,
    running: Mutex<BTreeMap<FloatingIpName, Running>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Pace {
    address: SocketAddr,
    interval: Duration,
    timeout: Duration,
}

struct Running {
    pace: Pace,
    soon: Arc<Notify>,
    _stop: DropGuard,
}

impl OutsideProbes {
    /// Nothing to probe yet.
    pub fn start(dial: DialMap) -> Self {
        Self {
            connector: Arc::new(Connector::new(dial)),
            answers: watch::Sender::default(),
            running: Mutex::default(),
        }
    }

    /// Probes these from now on.
    pub fn configure(
        &self,
        interval: Duration,
        timeout: Duration,
        targets: Vec<(FloatingIpName, SocketAddr)>,
    ) {
        let mut running = self.running();
        let wanted: BTreeMap<_, _> =
            targets.into_iter().map(|(ip, address)| (ip, Pace { address, interval, timeout })).collect();
        running.retain(|ip, probe| wanted.get(ip) == Some(&probe.pace));
        self.answers.send_if_modified(|answers| {
            let outdated = answers.keys().any(|ip| !running.contains_key(ip));
            if outdated {
                Arc::make_mut(answers).retain(|ip, _| running.contains_key(ip));
            }
            outdated
        });
        for (ip, pace) in wanted {
            if running.contains_key(&ip) {
                continue;
            }
            let (stop, soon) = (CancellationToken::new(), Arc::new(Notify::new()));
            let work =
                probe(ip.clone(), pace, Arc::clone(&self.connector), self.answers.clone(), Arc::clone(&soon));
            let stopped = stop.clone();
            tokio::spawn(async move { stopped.run_until_cancelled(work).await });
            running.insert(ip, Running { pace, soon, _stop: stop.drop_guard() });
        }
    }

    /// What each answered last.
    pub fn answers(&self) -> watch::Receiver<OutsideAnswers> {
        self.answers.subscribe()
    }

    /// Something happened to this address: look at once.
    pub fn probe_soon(&self, ip: &FloatingIpName) {
        if let Some(probe) = self.running().get(ip) {
            probe.soon.notify_one();
        }
    }

    fn running(&self) -> MutexGuard<'_, BTreeMap<FloatingIpName, Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn probe(
    ip: FloatingIpName,
    pace: Pace,
    connector: Arc<Connector>,
    answers: watch::Sender<OutsideAnswers>,
    soon: Arc<Notify>,
) {
    loop {
        let began = Instant::now();
        let answer = ask(&connector, pace).await;
        let silent = matches!(answer, OutsideAnswer::Silent { .. });
        answers.send_if_modified(|answers| {
            let changed = answers.get(&ip) != Some(&answer);
            if changed {
                Arc::make_mut(answers).insert(ip.clone(), answer);
            }
            changed
        });
        let every = if silent { pace.interval / SILENCE_FACTOR } else { pace.interval };
        let pause = every.max(PAUSE_MIN).saturating_sub(began.elapsed()).max(PAUSE_MIN);
        tokio::select! {
            () = sleep(pause) => {}
            () = soon.notified() => {}
        }
    }
}

async fn ask(connector: &Connector, pace: Pace) -> OutsideAnswer {
    let trace = (http::HeaderName::from_static("x-twinsite-trace"), HeaderValue::from_static("1"));
    match get(connector, &Target::in_clear(pace.address.to_string()), WHO_PATH, &[trace], pace.timeout).await
    {
        Err(error) => OutsideAnswer::Silent { detail: error.to_string() },
        Ok(answer) if !answer.status.is_success() => {
            OutsideAnswer::Silent { detail: format!("answers {}", answer.status) }
        }
        Ok(answer) => who(&answer.body).unwrap_or_else(|| OutsideAnswer::Silent {
            detail: "something that is no twinsite answers".to_owned(),
        }),
    }
}

fn who(body: &[u8]) -> Option<OutsideAnswer> {
    let json: serde_json::Value = serde_json::from_slice(body).ok()?;
    let incarnation = u64::from_str_radix(json.get("incarnation")?.as_str()?, 16).ok()?;
    Some(OutsideAnswer::Answered {
        cluster: json.get("cluster")?.as_str()?.to_owned(),
        node: NodeId(json.get("node_id")?.as_u64()?),
        token: json.get("token")?.as_str()?.parse().ok()?,
        incarnation: Incarnation(incarnation),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn understands_a_node_and_nothing_else() {
        let body = br#"{"cluster":"demo","node":"gra-1","node_id":1,"token":"1.7","incarnation":"00000000000000ff"}"#;
        let answered = OutsideAnswer::Answered {
            cluster: "demo".to_owned(),
            node: NodeId(1),
            token: Token::new(1, 7),
            incarnation: Incarnation(255),
        };
        assert_eq!(who(body), Some(answered.clone()));
        let cluster = |name: &str| ClusterName::new(name).unwrap();
        assert_eq!(answered.for_cluster(&cluster("demo")), answered);
        let OutsideAnswer::Silent { detail } = answered.for_cluster(&cluster("other")) else {
            panic!("another cluster's answer counted");
        };
        assert!(detail.contains("demo"), "{detail}");
        for other in [&b"<html>"[..], b"{}", br#"{"cluster":"demo","node_id":1,"incarnation":"ff"}"#] {
            assert_eq!(who(other), None);
        }
    }
}
