//! Waiting until a cluster is healthy, seen from outside, with visible progress.

use super::ProcessError;
use crate::layout::{Layout, PEER_PORT, Store};
use crate::load::http;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

/// One step of a wait that a person may watch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// What is waited for, in a few words.
    pub stage: &'static str,
    /// How many of them are ready.
    pub done: usize,
    /// How many there are.
    pub of: usize,
}

const ASK_TIMEOUT: Duration = Duration::from_millis(700);
const POLL: Duration = Duration::from_millis(25);

/// The signs of a healthy cluster, in the order in which they come.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Sign {
    /// Something listens there.
    Listens(SocketAddr),
    /// The path is answered with 200 through this address.
    Answers(SocketAddr, &'static str),
}

impl fmt::Display for Sign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Listens(address) => write!(f, "nothing listens on {address}"),
            Self::Answers(address, path) => write!(f, "no good answer from http://{address}{path}"),
        }
    }
}

fn signs(layout: &Layout) -> Vec<(&'static str, Vec<Sign>)> {
    let redis = (layout.store == Store::OwnRedis).then(|| Sign::Listens(layout.redis()));
    let instances = layout.instances.iter().map(|instance| Sign::Answers(instance.address, "/health"));
    let nodes = layout.nodes.iter().map(|node| Sign::Listens(SocketAddr::new(node.ip, PEER_PORT)));
    let proxies = layout.nodes.iter().filter(|node| node.kind.serves());
    let proxies = proxies.map(|node| Sign::Answers(layout.own_http(node), "/health"));
    vec![
        ("session store", redis.into_iter().collect()),
        ("meeting instances", instances.collect()),
        ("nodes", nodes.collect()),
        ("floating address", vec![Sign::Answers(layout.floating, "/.well-known/twinsite")]),
        ("requests through every proxy", proxies.collect()),
    ]
}

/// Waits until all signs are there. Fails as soon as a look at the processes does, or after `patience`.
pub(super) async fn wait(
    layout: &Layout,
    logs: &Path,
    patience: Duration,
    look: &mut (dyn FnMut() -> Result<(), ProcessError> + Send),
    progress: &mut (dyn FnMut(Progress) + Send),
) -> Result<(), ProcessError> {
    let start = Instant::now();
    let client = layout.client(15_999);
    for (stage, signs) in signs(layout).into_iter().filter(|(_, signs)| !signs.is_empty()) {
        let of = signs.len();
        let mut missing = signs;
        progress(Progress { stage, done: 0, of });
        while !missing.is_empty() {
            look()?;
            if start.elapsed() > patience {
                let addresses: Vec<_> = missing.iter().map(Sign::to_string).collect();
                let waiting_for = format!("{stage}: {}", addresses.join(", "));
                return Err(ProcessError::NotReady { after: patience, waiting_for, logs: logs.to_owned() });
            }
            let mut still_missing = Vec::new();
            for sign in missing {
                if !is_there(&sign, client).await {
                    still_missing.push(sign);
                }
            }
            missing = still_missing;
            progress(Progress { stage, done: of - missing.len(), of });
            if !missing.is_empty() {
                sleep(POLL).await;
            }
        }
    }
    Ok(())
}

async fn is_there(sign: &Sign, client: IpAddr) -> bool {
    match sign {
        Sign::Listens(address) => {
            matches!(timeout(ASK_TIMEOUT, TcpStream::connect(address)).await, Ok(Ok(_)))
        }
        Sign::Answers(address, path) => {
            let answer = http::ask_once(client, *address, path, ASK_TIMEOUT).await;
            answer.is_ok_and(|answer| answer.status == 200)
        }
    }
}
