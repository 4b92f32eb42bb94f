//! The other nodes, as agents ask them.

use std::future::Future;
use std::time::Duration;
use twinsite_consensus::LogIndex;
use twinsite_controller::{NodeReport, Release, Renewal, RenewalAnswer};
use twinsite_model::{NodeId, Token};

/// What a node said to a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heard {
    /// Whether it leads.
    pub leads: bool,
    /// Whether it leads and a quorum confirmed so a moment ago.
    pub has_quorum: bool,
}

/// What a node said to a release.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Noted {
    /// Whether it leads, and so acts on it.
    pub leads: bool,
    /// The newest token of the address that it knows.
    pub current: Option<Token>,
}

/// The way to the other nodes. Every call ends within the time it is given; an answer may be lost.
pub trait Peers: Clone + Send + Sync + 'static {
    /// Why a call came to nothing.
    type Error: std::error::Error + Send + Sync + 'static;

    /// Every other node.
    fn others(&self) -> Vec<NodeId>;

    /// Every node, this one too.
    fn everybody(&self) -> Vec<NodeId>;

    /// Gives a node this node's observations.
    fn report(
        &self,
        to: NodeId,
        report: NodeReport,
        within: Duration,
    ) -> impl Future<Output = Result<Heard, Self::Error>> + Send;

    /// Shows whether a node answers.
    fn ping(&self, to: NodeId, within: Duration) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// Asks a node for more time.
    fn renew(
        &self,
        to: NodeId,
        renewal: Renewal,
        within: Duration,
    ) -> impl Future<Output = Result<RenewalAnswer, Self::Error>> + Send;

    /// Has a node that leads make sure of it through a quorum: whoever then has applied the log up to the answer sees
    /// everything that was acknowledged before the question.
    fn read_index(
        &self,
        to: NodeId,
        within: Duration,
    ) -> impl Future<Output = Result<LogIndex, Self::Error>> + Send;

    /// Tells a node that a token has ended.
    fn release(
        &self,
        to: NodeId,
        release: &Release,
        within: Duration,
    ) -> impl Future<Output = Result<Noted, Self::Error>> + Send;
}
