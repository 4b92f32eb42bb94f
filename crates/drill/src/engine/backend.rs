//! What a drill runs on: processes on loopback addresses, or on the network of a lab.

use crate::lab::Prober;
use crate::lab::holding::HostKernel;
use crate::layout::Layout;
use crate::meeting::Answers;
use crate::process::{Cluster, Log, PidTable, ProcessError, ProcessName, Restarted};
use crate::wan;
use futures_util::future::BoxFuture;
use std::time::Duration;
use twinsite_model::{NodeName, SiteName, UpstreamName};

/// Why a backend could not do what a step asks for.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct BackendError(Box<dyn std::error::Error + Send + Sync>);

impl BackendError {
    /// Wraps a backend's own error.
    pub fn new(error: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self(Box::new(error))
    }

    /// Whether something did not come about in time, which is all that was wrong.
    pub(super) fn is_late(&self) -> bool {
        matches!(self.0.downcast_ref(), Some(ProcessError::NotReady { .. }))
    }
}

/// A running cluster that can be broken and repaired.
pub trait Backend: Send {
    /// Who lives where.
    fn layout(&self) -> &Layout;

    /// Every process that belongs to the cluster, in the order of starting.
    fn processes(&self) -> Vec<ProcessName>;

    /// The numbers of the running processes.
    fn pids(&self) -> PidTable;

    /// The kernels that may hold the floating address, in a lab; elsewhere there is only this machine's.
    fn kernels(&self) -> Result<Vec<(NodeName, HostKernel)>, BackendError> {
        Ok(Vec::new())
    }

    /// Whether a process runs or is frozen.
    fn runs(&mut self, process: &ProcessName) -> bool;

    /// Begins to ask every host whether it answers, where there are hosts.
    fn prober(&self) -> Result<Option<Prober>, BackendError> {
        Ok(None)
    }

    /// kill -9 of all of them in this order, before the first wait.
    fn kill<'a>(&'a mut self, processes: &'a [ProcessName]) -> BoxFuture<'a, Result<(), BackendError>>;

    /// Asks a process to end and waits for it.
    fn terminate<'a>(&'a mut self, process: &'a ProcessName) -> BoxFuture<'a, Result<(), BackendError>>;

    /// Starts a process if it does not run.
    fn start(&mut self, process: &ProcessName) -> Result<(), BackendError>;

    /// Stops a process in its tracks.
    fn freeze(&mut self, process: &ProcessName) -> Result<(), BackendError>;

    /// Lets a frozen process go on; nothing if it does not live.
    fn thaw(&mut self, process: &ProcessName) -> Result<(), BackendError>;

    /// What a direction between two sites does to bytes.
    fn link(&self, from: &SiteName, to: &SiteName) -> wan::Shape;

    /// Changes what a direction between two sites does to bytes.
    fn set_link(&mut self, from: &SiteName, to: &SiteName, shape: wan::Shape) -> Result<(), BackendError>;

    /// Lets nothing pass to and from a node's host, of which nobody there is told.
    fn cut_host(&mut self, node: &NodeName) -> Result<(), BackendError>;

    /// Makes all links whole, those of hosts too.
    fn heal_links(&mut self) -> Result<(), BackendError>;

    /// Removes every rule of the packet filter on a node's host.
    fn flush_firewall(&mut self, node: &NodeName) -> Result<(), BackendError>;

    /// Leaves no room for a node's data, or makes room again.
    fn set_disk_full(&mut self, node: &NodeName, full: bool) -> Result<(), BackendError>;

    /// How a meeting instance answers from now on.
    fn set_answers(&mut self, instance: &UpstreamName, answers: Answers) -> Result<(), BackendError>;

    /// Mends all that is no process: links, disks, and how instances answer.
    fn mend(&mut self) -> Result<(), BackendError>;

    /// Empties Redis.
    fn flush_redis(&mut self) -> BoxFuture<'_, Result<(), BackendError>>;

    /// Makes Redis the replica of nobody, or lets it write again.
    fn set_redis_replica(&mut self, replica: bool) -> BoxFuture<'_, Result<(), BackendError>>;

    /// The offline recovery on a stopped survivor.
    fn recover<'a>(
        &'a mut self,
        survivor: &'a NodeName,
        lost: &'a [NodeName],
        attest: bool,
    ) -> BoxFuture<'a, Result<(), BackendError>>;

    /// A new cluster in place of the old one.
    fn rebuild(&mut self) -> BoxFuture<'_, Result<(), BackendError>>;

    /// Starts what has ended by itself, as a supervisor does; what was ended on purpose stays so. Says what was started.
    fn tend(&mut self) -> Result<Vec<Restarted>, BackendError>;

    /// The ends of what the nodes and guardians have written.
    fn logs(&self) -> Vec<Log>;

    /// Waits until everything that is visible from outside is healthy, and tends the cluster meanwhile.
    fn wait_healthy(&mut self, within: Duration) -> BoxFuture<'_, Result<(), BackendError>>;
}

impl Backend for Cluster {
    fn layout(&self) -> &Layout {
        Self::layout(self)
    }

    fn processes(&self) -> Vec<ProcessName> {
        Self::processes(self)
    }

    fn pids(&self) -> PidTable {
        Self::pids(self).clone()
    }

    fn kernels(&self) -> Result<Vec<(NodeName, HostKernel)>, BackendError> {
        Self::kernels(self).map_err(BackendError::new)
    }

    fn runs(&mut self, process: &ProcessName) -> bool {
        Self::runs(self, process)
    }

    fn prober(&self) -> Result<Option<Prober>, BackendError> {
        Self::prober(self).map_err(BackendError::new)
    }

    fn kill<'a>(&'a mut self, processes: &'a [ProcessName]) -> BoxFuture<'a, Result<(), BackendError>> {
        Box::pin(async move { self.kill_all(processes).await.map_err(BackendError::new) })
    }

    fn terminate<'a>(&'a mut self, process: &'a ProcessName) -> BoxFuture<'a, Result<(), BackendError>> {
        Box::pin(async move { Self::terminate(self, process).await.map_err(BackendError::new) })
    }

    fn start(&mut self, process: &ProcessName) -> Result<(), BackendError> {
        self.start_process(process).map_err(BackendError::new)
    }

    fn freeze(&mut self, process: &ProcessName) -> Result<(), BackendError> {
        Self::freeze(self, process).map_err(BackendError::new)
    }

    fn thaw(&mut self, process: &ProcessName) -> Result<(), BackendError> {
        Self::thaw(self, process).map_err(BackendError::new)
    }

    fn link(&self, from: &SiteName, to: &SiteName) -> wan::Shape {
        Self::link(self, from, to)
    }

    fn set_link(&mut self, from: &SiteName, to: &SiteName, shape: wan::Shape) -> Result<(), BackendError> {
        Self::set_link(self, from, to, shape).map_err(BackendError::new)
    }

    fn cut_host(&mut self, node: &NodeName) -> Result<(), BackendError> {
        Self::cut_host(self, node).map_err(BackendError::new)
    }

    fn heal_links(&mut self) -> Result<(), BackendError> {
        Self::heal_links(self).map_err(BackendError::new)
    }

    fn flush_firewall(&mut self, node: &NodeName) -> Result<(), BackendError> {
        Self::flush_firewall(self, node).map_err(BackendError::new)
    }

    fn set_disk_full(&mut self, node: &NodeName, full: bool) -> Result<(), BackendError> {
        Self::set_disk_full(self, node, full).map_err(BackendError::new)
    }

    fn set_answers(&mut self, instance: &UpstreamName, answers: Answers) -> Result<(), BackendError> {
        Self::set_answers(self, instance, answers).map_err(BackendError::new)
    }

    fn mend(&mut self) -> Result<(), BackendError> {
        Self::mend(self).map_err(BackendError::new)
    }

    fn flush_redis(&mut self) -> BoxFuture<'_, Result<(), BackendError>> {
        Box::pin(async move { Self::flush_redis(self).await.map_err(BackendError::new) })
    }

    fn set_redis_replica(&mut self, replica: bool) -> BoxFuture<'_, Result<(), BackendError>> {
        Box::pin(async move { Self::set_redis_replica(self, replica).await.map_err(BackendError::new) })
    }

    fn recover<'a>(
        &'a mut self,
        survivor: &'a NodeName,
        lost: &'a [NodeName],
        attest: bool,
    ) -> BoxFuture<'a, Result<(), BackendError>> {
        Box::pin(async move {
            Self::recover(self, survivor, lost, attest).await.map(drop).map_err(BackendError::new)
        })
    }

    fn rebuild(&mut self) -> BoxFuture<'_, Result<(), BackendError>> {
        Box::pin(async move { Self::rebuild(self, &mut |_| ()).await.map_err(BackendError::new) })
    }

    fn tend(&mut self) -> Result<Vec<Restarted>, BackendError> {
        Self::tend(self).map_err(BackendError::new)
    }

    fn logs(&self) -> Vec<Log> {
        Self::logs(self)
    }

    fn wait_healthy(&mut self, within: Duration) -> BoxFuture<'_, Result<(), BackendError>> {
        Box::pin(async move { Self::wait_healthy(self, within).await.map_err(BackendError::new) })
    }
}
