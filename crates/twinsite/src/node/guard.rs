//! This node's line to its guardian. Nothing is held without one; a guardian that restarts is found again.

use arc_swap::ArcSwap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use twinsite_floating_ip::guardian::{GuardianClient, GuardianError, Holding};
use twinsite_model::{BootTime, FloatingIpName, Incarnation, Token};

/// How soon the guardian is looked for again.
const AGAIN: Duration = Duration::from_millis(50);

/// The line to the guardian. Clones share it.
#[derive(Clone)]
pub struct Guard {
    client: Arc<ArcSwap<GuardianClient>>,
}

impl Guard {
    /// Finds the guardian, waiting `patience` for one that is just starting.
    pub async fn connect(
        data: PathBuf,
        incarnation: Incarnation,
        patience: Duration,
    ) -> Result<Self, GuardianError> {
        let client = find(&data, incarnation, patience).await?;
        Ok(Self { client: Arc::new(ArcSwap::from_pointee(client)) })
    }

    /// Finds a guardian that restarted. Ends when none was found within `patience`: the node must then let go, because
    /// nobody would end it if it hung.
    pub async fn keep(
        self,
        data: PathBuf,
        incarnation: Incarnation,
        patience: Duration,
        gone: CancellationToken,
    ) {
        loop {
            self.client.load_full().lost().await;
            tracing::warn!("the guardian is gone; looking for it again");
            match find(&data, incarnation, patience).await {
                Ok(client) => {
                    tracing::info!("the guardian is back");
                    self.client.store(Arc::new(client));
                }
                Err(error) => {
                    tracing::error!(%error, "no guardian: this node lets go and ends");
                    gone.cancel();
                    return;
                }
            }
        }
    }

    /// Tells it that an address is held until then.
    pub fn holding(&self, holding: Holding, until: BootTime, slack: Duration) -> Result<(), GuardianError> {
        self.client.load().holding(holding, until, slack)
    }

    /// Tells it that an address was let go.
    pub fn released(&self, ip: &FloatingIpName, token: Token) -> Result<(), GuardianError> {
        self.client.load().released(ip, token)
    }
}

async fn find(
    data: &std::path::Path,
    incarnation: Incarnation,
    patience: Duration,
) -> Result<GuardianClient, GuardianError> {
    let deadline = tokio::time::Instant::now() + patience;
    loop {
        match GuardianClient::connect(data, incarnation).await {
            Ok(client) => return Ok(client),
            Err(error) if tokio::time::Instant::now() + AGAIN >= deadline => return Err(error),
            Err(_) => tokio::time::sleep(AGAIN).await,
        }
    }
}
