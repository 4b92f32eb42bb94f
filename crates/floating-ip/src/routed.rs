//! What every provider that routes addresses can be asked.
//!
//! Such a provider (OVH, Hetzner) routes an address to one server at a time, takes calls that change this, works on
//! them for a minute or so as tasks, and knows nothing of tokens: whoever called last wins. When and by whom it is called
//! is journaled by the cluster (see `twinsite_model::errand`); here is only the way to it.

use crate::provider::Work;
use twinsite_model::{BootTime, Errand, NodeId};

/// What a provider says about an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Routing {
    /// The node to which it routes it; none: to something that is no node.
    pub to: Option<NodeId>,
    /// Whether a task for this address is not finished, whoever asked for it.
    pub busy: bool,
}

/// Why a provider did not do, or did not say, what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RoutedError {
    /// It said no: nothing was changed.
    #[error("the provider refused: {0}")]
    Refused(String),
    /// There was no answer, or none that is understood. A call may have been taken all the same.
    #[error("the provider did not answer: {0}")]
    Unanswered(String),
}

impl RoutedError {
    /// Whether trying again may help, without anything else being changed.
    pub const fn retryable(&self) -> bool {
        matches!(self, Self::Unanswered(_))
    }
}

/// The way to a provider, for one address.
pub trait RoutedApi: Send + Sync + 'static {
    /// Where the address is routed, and whether that is about to change.
    fn routing(&self) -> Work<'_, Result<Routing, RoutedError>>;

    /// Goes on an errand: asks for the address to be routed to `errand.to`. Done when the provider has taken the task,
    /// not when it has carried it out. A call that is given up may still be taken.
    ///
    /// Nothing is sent after `until`, which the boot clock is asked for right before: a process that stood still while
    /// it connected must not call when it goes on.
    fn route<'a>(&'a self, errand: &'a Errand, until: BootTime) -> Work<'a, Result<(), RoutedError>>;
}
