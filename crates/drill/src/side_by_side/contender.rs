//! The two kinds of systems, as a trial sees them.

use super::{Cause, CompareError, Connect, System, layout};
use crate::engine::{self, Backend, ClusterApi};
use crate::lab::Lab;
use crate::layout::{Layout, Store};
use crate::process::{Cluster, ClusterOptions, Keepalived, Launcher, ProcessName};
use crate::scenario::LeaderPlace;
use futures_util::future::BoxFuture;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::time::sleep;
use twinsite_model::{NodeName, Profile};

/// How long a system may take until it is whole.
pub(super) const READY_MAX: Duration = Duration::from_mins(1);

/// How soon one is asked again that was not.
const READY_AGAIN: Duration = Duration::from_millis(200);

/// A running system that keeps the floating address of a lab on one of its hosts.
pub(super) trait Contender: Send {
    /// Who lives where.
    fn layout(&self) -> &Layout;

    /// Waits until it is whole, as it sees itself.
    fn ready(&mut self) -> BoxFuture<'_, Result<(), CompareError>>;

    /// Does to it what makes the address move from this host; not what the lab does.
    fn meet<'a>(&'a mut self, cause: Cause, owner: &'a NodeName) -> BoxFuture<'a, Result<(), CompareError>>;

    /// Makes it whole again.
    fn repair(&mut self) -> Result<(), CompareError>;

    /// Ends it.
    fn end(self: Box<Self>) -> BoxFuture<'static, ()>;
}

/// Starts a system on the hosts of a lab.
pub(super) async fn start(
    lab: &Arc<Lab>,
    system: System,
    launcher: &Launcher,
    connect: &Connect<'_>,
) -> Result<Box<dyn Contender>, CompareError> {
    let keepalived = |advert| -> Result<Box<dyn Contender>, CompareError> {
        let layout = layout(Profile::Wan);
        let keepalived = Keepalived::start(Arc::clone(lab), &layout, launcher.clone(), advert)?;
        Ok(Box::new(WithKeepalived { keepalived, layout }))
    };
    let profile = match system {
        System::KeepalivedSecond => return keepalived(Duration::from_secs(1)),
        System::KeepalivedTenth => return keepalived(Duration::from_millis(100)),
        System::TwinsiteWan => Profile::Wan,
        System::TwinsiteLan => Profile::Lan,
    };
    let options = ClusterOptions {
        launcher: launcher.clone(),
        directory: None,
        profile,
        shape: super::shape(),
        store: Store::Embedded,
        lab: Some(Arc::clone(lab)),
    };
    let cluster = Cluster::start(options, &mut |_| ()).await?;
    let api = connect(&cluster)?;
    Ok(Box::new(WithTwinsite { cluster, api }))
}

struct WithKeepalived {
    keepalived: Keepalived,
    layout: Layout,
}

impl Contender for WithKeepalived {
    fn layout(&self) -> &Layout {
        &self.layout
    }

    fn ready(&mut self) -> BoxFuture<'_, Result<(), CompareError>> {
        // It says nothing of itself; that one host answers for a while is waited for with every system.
        Box::pin(async { Ok(()) })
    }

    fn meet<'a>(&'a mut self, cause: Cause, owner: &'a NodeName) -> BoxFuture<'a, Result<(), CompareError>> {
        Box::pin(async move {
            match cause {
                Cause::HostCut => {}
                Cause::Killed => self.keepalived.kill(owner).await?,
                Cause::Frozen => self.keepalived.freeze(owner)?,
                Cause::Planned => self.keepalived.leave(owner)?,
            }
            Ok(())
        })
    }

    fn repair(&mut self) -> Result<(), CompareError> {
        Ok(self.keepalived.repair()?)
    }

    fn end(self: Box<Self>) -> BoxFuture<'static, ()> {
        Box::pin(self.keepalived.stop())
    }
}

struct WithTwinsite {
    cluster: Cluster,
    api: Box<dyn ClusterApi>,
}

impl Contender for WithTwinsite {
    fn layout(&self) -> &Layout {
        self.cluster.layout()
    }

    fn ready(&mut self) -> BoxFuture<'_, Result<(), CompareError>> {
        Box::pin(async move {
            // Where it wants to be by itself; a trial does not wait until it has gone there.
            let leader = LeaderPlace::AwayFromOwnerSite;
            let deadline = Instant::now() + READY_MAX;
            loop {
                // As its units do, if a process has ended: on a machine that is too busy a guardian ends its node.
                self.repair()?;
                let left = deadline.saturating_duration_since(Instant::now());
                match engine::made_ready(&mut self.cluster, self.api.as_ref(), leader, left).await {
                    Ok(_) => return Ok(()),
                    Err(error) if left.is_zero() => return Err(error.into()),
                    Err(_) => sleep(READY_AGAIN).await,
                }
            }
        })
    }

    fn meet<'a>(&'a mut self, cause: Cause, owner: &'a NodeName) -> BoxFuture<'a, Result<(), CompareError>> {
        let node = ProcessName::Node(owner.clone());
        Box::pin(async move {
            match cause {
                Cause::HostCut => {}
                Cause::Killed => self.cluster.kill(&node).await?,
                Cause::Frozen => self.cluster.freeze(&node)?,
                Cause::Planned => {
                    let layout = self.cluster.layout();
                    let here = layout.node(owner).map(|node| node.site.clone());
                    let other = layout.serving_sites().find(|site| Some(*site) != here.as_ref()).cloned();
                    if let Some(other) = other {
                        self.api.switchover(&other).await?;
                    }
                }
            }
            Ok(())
        })
    }

    fn repair(&mut self) -> Result<(), CompareError> {
        for process in Backend::processes(&self.cluster) {
            self.cluster.thaw(&process)?;
            self.cluster.start_process(&process)?;
        }
        Ok(())
    }

    fn end(self: Box<Self>) -> BoxFuture<'static, ()> {
        Box::pin(self.cluster.stop())
    }
}
