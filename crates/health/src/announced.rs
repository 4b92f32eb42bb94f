//! What meeting instances announce: read back from them, not remembered from what was written.

use crate::exchange::get;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::time::sleep;
use tokio_util::sync::{CancellationToken, DropGuard};
use twinsite_model::UpstreamName;
use twinsite_model::dial::DialMap;
use twinsite_upstream::{Connector, Target};

/// After something was delivered, by whichever node, it is asked so many times as often, so many times.
const HURRY_FACTOR: u32 = 5;
const HURRIED: u32 = 10;
/// Where an instance says what it announces.
const ANNOUNCED_PATH: &str = "/announced";

/// Asks the instances until dropped.
pub struct ReadBack {
    targets: Arc<Mutex<BTreeMap<UpstreamName, Target>>>,
    announced: watch::Sender<BTreeMap<UpstreamName, Option<IpAddr>>>,
    soon: Arc<Notify>,
    _stop: DropGuard,
}

impl ReadBack {
    /// Asks nobody yet.
    pub fn start(dial: DialMap, every: Duration) -> Self {
        let targets: Arc<Mutex<BTreeMap<UpstreamName, Target>>> = Arc::default();
        let (announced, soon, stop) =
            (watch::Sender::default(), Arc::new(Notify::new()), CancellationToken::new());
        let work = ask_all(dial, every, Arc::clone(&targets), announced.clone(), Arc::clone(&soon));
        let stopped = stop.clone();
        tokio::spawn(async move { stopped.run_until_cancelled(work).await });
        Self { targets, announced, soon, _stop: stop.drop_guard() }
    }

    /// Asks these from now on, by name.
    pub fn configure(&self, targets: Vec<(UpstreamName, Target)>) {
        *self.targets.lock().unwrap_or_else(PoisonError::into_inner) = targets.into_iter().collect();
        self.soon.notify_one();
    }

    /// What each announces; none for one that does not say.
    pub fn announced(&self) -> watch::Receiver<BTreeMap<UpstreamName, Option<IpAddr>>> {
        self.announced.subscribe()
    }

    /// Something was delivered: ask at once.
    pub fn read_soon(&self) {
        self.soon.notify_one();
    }
}

async fn ask_all(
    dial: DialMap,
    every: Duration,
    targets: Arc<Mutex<BTreeMap<UpstreamName, Target>>>,
    announced: watch::Sender<BTreeMap<UpstreamName, Option<IpAddr>>>,
    soon: Arc<Notify>,
) {
    let connector = Arc::new(Connector::new(dial));
    let mut hurried = 0_u32;
    loop {
        let pause = if hurried > 0 { every / HURRY_FACTOR } else { every };
        hurried = hurried.saturating_sub(1);
        tokio::select! {
            () = sleep(pause) => {}
            () = soon.notified() => hurried = HURRIED,
        }
        let asked = targets.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut answers = tokio::task::JoinSet::new();
        for (name, target) in asked {
            let connector = Arc::clone(&connector);
            answers.spawn(async move { (name, ask(&connector, &target, every).await) });
        }
        let answers: BTreeMap<_, _> = answers.join_all().await.into_iter().collect();
        announced.send_if_modified(|known| {
            let changed = *known != answers;
            *known = answers;
            changed
        });
    }
}

async fn ask(connector: &Connector, target: &Target, within: Duration) -> Option<IpAddr> {
    let answer = get(connector, target, ANNOUNCED_PATH, &[], within).await.ok()?;
    let json: serde_json::Value = serde_json::from_slice(&answer.body).ok()?;
    json.get("announcedIp")?.as_str()?.parse().ok()
}
