//! This node's line to its guardian. Nothing is held without one; a guardian that restarts is found again, and told
//! anew what is held.

use arc_swap::ArcSwap;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use twinsite_floating_ip::guardian::{GuardianClient, GuardianError, Held, Holding, Line};
use twinsite_model::{BootTime, FloatingIpName, Incarnation, Token};

/// How soon the guardian is looked for again.
const AGAIN: Duration = Duration::from_millis(20);

/// The line to the guardian. Clones share it.
#[derive(Clone)]
pub struct Guard(Arc<Inner>);

struct Inner {
    client: ArcSwap<GuardianClient>,
    /// What the guardian was told. Locked while something is said, so that a new line begins with all of it.
    held: Mutex<BTreeMap<FloatingIpName, Held>>,
}

/// How long to do without a guardian.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// After this the node is not fit to hold anything.
    pub fit: Duration,
    /// After this it ends.
    pub alive: Duration,
}

impl Guard {
    /// Finds the guardian, waiting `patience` for one that is just starting.
    pub async fn connect(
        data: &Path,
        incarnation: Incarnation,
        patience: Duration,
    ) -> Result<Self, GuardianError> {
        let client = find(data, incarnation, Instant::now() + patience).await?.begin([])?;
        Ok(Self(Arc::new(Inner { client: ArcSwap::from_pointee(client), held: Mutex::default() })))
    }

    /// Finds a guardian that restarted. Ends when none was found for too long: the node must then let go, because
    /// nobody would end it if it hung. `missing` is told when the node is not fit to hold anything, and when it is
    /// again.
    pub async fn keep(
        self,
        data: PathBuf,
        incarnation: Incarnation,
        patience: Patience,
        missing: impl Fn(bool) + Send,
        gone: CancellationToken,
    ) {
        loop {
            self.0.client.load_full().lost().await;
            tracing::warn!("the guardian is gone; looking for it again");
            let lost_at = Instant::now();
            let mut found = self.find_again(&data, incarnation, lost_at + patience.fit).await;
            if found.is_err() {
                tracing::error!("still no guardian: floating IPs are let go");
                missing(true);
                found = self.find_again(&data, incarnation, lost_at + patience.alive).await;
            }
            match found {
                Ok(()) => {
                    tracing::info!("the guardian is back");
                    missing(false);
                }
                Err(error) => {
                    tracing::error!(%error, "no guardian: this node lets go and ends");
                    gone.cancel();
                    return;
                }
            }
        }
    }

    async fn find_again(
        &self,
        data: &Path,
        incarnation: Incarnation,
        deadline: Instant,
    ) -> Result<(), GuardianError> {
        loop {
            let line = find(data, incarnation, deadline).await?;
            let held = self.held();
            match line.begin(held.values().cloned()) {
                Ok(client) => {
                    self.0.client.store(Arc::new(client));
                    return Ok(());
                }
                Err(error) if Instant::now() >= deadline => return Err(error),
                Err(_) => {} // it went away again
            }
        }
    }

    /// Tells it that an address is held until then.
    pub fn holding(&self, holding: Holding, until: BootTime, slack: Duration) -> Result<(), GuardianError> {
        let mut held = self.held();
        self.0.client.load().holding(holding.clone(), until, slack)?;
        held.insert(holding.ip.clone(), (holding, until, slack));
        Ok(())
    }

    /// Tells it that an address was let go.
    pub fn released(&self, ip: &FloatingIpName, token: Token) -> Result<(), GuardianError> {
        let mut held = self.held();
        held.retain(|name, (holding, _, _)| name != ip || holding.token > token);
        self.0.client.load().released(ip, token)
    }

    fn held(&self) -> MutexGuard<'_, BTreeMap<FloatingIpName, Held>> {
        self.0.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn find(data: &Path, incarnation: Incarnation, deadline: Instant) -> Result<Line, GuardianError> {
    loop {
        match GuardianClient::dial(data, incarnation).await {
            Ok(line) => return Ok(line),
            Err(error) if Instant::now() + AGAIN >= deadline => return Err(error),
            Err(_) => tokio::time::sleep(AGAIN).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering};
    use twinsite_floating_ip::boot_now;
    use twinsite_floating_ip::guardian::{Ended, GuardianConfig, Releases, run};

    struct Nobody;
    impl Releases for Nobody {
        fn ended(&self, _: Ended) {}
    }

    fn guardian(data: &Path) -> (CancellationToken, tokio::task::JoinHandle<()>) {
        let stop = CancellationToken::new();
        let (config, stopped) = (GuardianConfig { data: data.to_owned() }, stop.clone());
        let guardian = tokio::spawn(async move { run(&config, Arc::new(Nobody), stopped).await.unwrap() });
        (stop, guardian)
    }

    fn holding() -> Holding {
        let ip = FloatingIpName::new("public").unwrap();
        Holding { ip, addresses: Vec::new(), interface: None, token: Token::new(1, 1) }
    }

    async fn becomes(what: &str, condition: impl Fn() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(5);
        while !condition() {
            assert!(Instant::now() < deadline, "{what} did not come true");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    #[tokio::test]
    async fn a_guardian_that_comes_back_is_told_and_one_that_stays_away_makes_the_node_unfit() {
        let data = tempfile::tempdir().unwrap();
        let (stop, first) = guardian(data.path());
        let guard = Guard::connect(data.path(), Incarnation(1), Duration::from_secs(5)).await.unwrap();
        let slack = Duration::from_millis(20);
        let until = || boot_now() + Duration::from_secs(3_600);
        guard.holding(holding(), until(), slack).unwrap();

        let (unfit, gone) = (Arc::new(AtomicBool::new(false)), CancellationToken::new());
        let told = Arc::clone(&unfit);
        let patience = Patience { fit: Duration::from_millis(100), alive: Duration::from_millis(1_500) };
        let missing = move |missing| told.store(missing, Ordering::SeqCst);
        let keeping =
            guard.clone().keep(data.path().to_owned(), Incarnation(1), patience, missing, gone.clone());
        tokio::spawn(keeping);

        stop.cancel();
        first.await.unwrap();
        becomes("unfit", || unfit.load(Ordering::SeqCst)).await;
        assert!(guard.holding(holding(), until(), slack).is_err());
        // What is held is not forgotten when the guardian is: the next one is told without being asked.
        assert_eq!(guard.held().len(), 1);
        let (stop, second) = guardian(data.path());
        becomes("fit again", || !unfit.load(Ordering::SeqCst)).await;
        guard.holding(holding(), until(), slack).unwrap();
        guard.released(&holding().ip, holding().token).unwrap();
        assert!(guard.held().is_empty());

        stop.cancel();
        second.await.unwrap();
        becomes("the end", || gone.is_cancelled()).await;
    }
}
