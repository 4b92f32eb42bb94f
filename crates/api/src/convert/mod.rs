//! Between the model and the wire.

mod event;
mod ledger;
mod names;
mod state;

pub use event::{event, event_to_pb};
pub use ledger::ledger_to_pb;
pub use names::{
    drill_outcome, drill_outcome_to_pb, errand_end, errand_end_to_pb, fence, fence_to_pb, kind, kind_to_pb,
    outcome, outcome_to_pb, reason, reason_to_pb, result, result_to_pb, step, step_to_pb, verdict,
    verdict_to_pb, way, way_to_pb,
};
pub use state::{
    drill_record_to_pb, operation_to_pb, owner_to_pb, running_drill_to_pb, specs_to_pb, state_to_pb, token,
    token_to_pb,
};

/// A message that this client does not understand: it is newer, or broken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the answer holds something that this program does not know ({0}): it may be older than the cluster")]
pub struct Unknown(pub &'static str);
