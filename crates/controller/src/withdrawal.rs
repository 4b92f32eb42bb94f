//! Addresses that the specification does not name any more: they are taken from their owners, so that they can come
//! back under another name or at another place. The same journal fences the owner; then the move is called off.

use crate::journal::{self, Next};
use crate::view::View;
use twinsite_model::state::FloatingIpState;
use twinsite_model::{
    Command, FloatingIpName, Incarnation, NodeId, Operation, OperationKind, Outcome, Owner, Reason, Step,
    StepResult,
};

/// What is said of it in the journal.
const WHY: &str = "the specification does not name the address any more";

/// The addresses that somebody may still hold and that the specification does not name.
pub(crate) fn due<'a>(view: &View<'a>) -> impl Iterator<Item = (&'a FloatingIpName, &'a FloatingIpState)> {
    let index = view.index;
    view.state.floating_ips.iter().filter(move |(ip, entry)| {
        index.ip(ip).is_none() && (entry.owner.is_some() || entry.operation.is_some())
    })
}

/// What such an address needs now.
pub(crate) fn next(view: &View<'_>, ip: &FloatingIpName, entry: &FloatingIpState) -> Next {
    match (&entry.operation, &entry.owner) {
        (Some(operation), _) => end(view, ip, operation),
        (None, Some(owner)) => begin(view, ip, owner),
        (None, None) => Next::default(),
    }
}

/// The right to renew is taken away. The move needs a target by name, which is never given the address.
fn begin(view: &View<'_>, ip: &FloatingIpName, owner: &Owner) -> Next {
    let Some((target, target_incarnation)) = stand_in(view, owner) else {
        return Next::wait(None, "a node that lives");
    };
    Next::propose([Command::BeginOperation {
        ip: ip.clone(),
        kind: OperationKind::Placement,
        reason: Reason::OwnerIneligible,
        evidence: vec![WHY.to_owned()],
        from: Some(owner.token),
        target,
        target_incarnation,
        overrides: Vec::new(),
    }])
}

fn stand_in(view: &View<'_>, owner: &Owner) -> Option<(NodeId, Incarnation)> {
    let owners = view.spec.nodes.iter().filter(|node| node.kind.may_own());
    let living = owners.filter_map(|node| Some((node.id, view.state.nodes.get(&node.id)?.incarnation)));
    living.min_by_key(|(node, _)| (*node != owner.node, *node))
}

fn end(view: &View<'_>, ip: &FloatingIpName, operation: &Operation) -> Next {
    let id = operation.id;
    let abort = || Command::AbortOperation { ip: ip.clone(), operation: id, detail: WHY.to_owned() };
    let finish = |step| Command::FinishStep {
        ip: ip.clone(),
        operation: id,
        step,
        result: StepResult::Skipped,
        detail: WHY.to_owned(),
    };
    if operation.token.is_some() {
        // Its target has the address: the move ends, and the address is taken from that one.
        let close = Command::CloseOperation { ip: ip.clone(), operation: id, outcome: Outcome::Unverified };
        return Next::propose(operation.current().map(finish).into_iter().chain([close]).collect::<Vec<_>>());
    }
    if operation.fence.is_some() {
        return Next::propose([abort()]);
    }
    match operation.current() {
        Some(Step::Fence) => match journal::fenced(view, ip, operation) {
            Ok((fence, detail)) => {
                let complete = Command::CompleteFence { ip: ip.clone(), operation: id, fence, detail };
                Next::propose([complete, abort()])
            }
            Err((at, what)) => Next::wait(Some(at), what),
        },
        step => {
            let start = Command::StartStep { ip: ip.clone(), operation: id, step: Step::Fence };
            Next::propose(step.map(finish).into_iter().chain([start]).collect::<Vec<_>>())
        }
    }
}
