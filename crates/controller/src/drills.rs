//! Drills, as the leader sees them: whether one may begin, and when one that nobody ends is over.
//!
//! No decision about an address looks at a drill: what fails in the middle of one fails for real.

use crate::alarms;
use crate::notice::Alarm;
use crate::operator::OperatorRefusal;
use crate::tenure::Subject;
use crate::view::View;
use std::time::Duration;
use twinsite_model::{BootTime, Command, DrillOutcome, NodeId, Refusal, WallTime};

/// When a drill of this length would be over.
pub(crate) fn until(view: &View<'_>, within: Duration) -> WallTime {
    view.wall().plus(within)
}

/// Why no drill of this length may begin now. The agreed state decides again when it is agreed on; what only the leader
/// knows, that the cluster is not well, is asked here.
pub(crate) fn forbidden(view: &View<'_>, me: NodeId, within: Duration) -> Option<OperatorRefusal> {
    if let Some(running) = &view.state.drill {
        return Some(Refusal::DrillRunning(running.id).into());
    }
    if let Some(why) = view.state.drill_block(view.wall(), until(view, within)) {
        return Some(Refusal::DrillBlocked(why).into());
    }
    if !view.settled() {
        return Some(OperatorRefusal::LeaderYoung);
    }
    let alarms: Vec<_> = alarms::conditions(view, me).iter().map(Alarm::as_str).collect();
    (!alarms.is_empty()).then_some(OperatorRefusal::Unwell(alarms))
}

/// A drill whose time is over, or whose runner lives no more, is ended, so that no drill blocks for ever.
pub(crate) fn over(view: &View<'_>) -> Option<(Subject, Command)> {
    let drill = view.state.drill.as_ref()?;
    let life = view.state.nodes.get(&drill.runner).map(|life| life.incarnation);
    let gone = life != Some(drill.incarnation);
    (gone || view.wall() >= drill.until).then(|| {
        let (drill, outcome) = (drill.id, DrillOutcome::Abandoned);
        (Subject::Drill, Command::EndDrill { drill, outcome, summary: String::new() })
    })
}

/// When the drill is over at the latest, as far as this node's own clock can tell.
pub(crate) fn wake(view: &View<'_>) -> Option<BootTime> {
    let drill = view.state.drill.as_ref()?;
    Some(view.now + drill.until.since(view.wall()))
}

/// What a person's wish to end the running drill comes to: its runner is told, through the log; one that is not heard is
/// not waited for.
pub(crate) fn stop(view: &View<'_>, me: NodeId, reason: &str) -> Result<Command, OperatorRefusal> {
    let drill = view.state.drill.as_ref().ok_or(OperatorRefusal::NoDrill)?;
    let heard = drill.runner == me || view.heard(drill.runner).is_some();
    Ok(if heard || !view.settled() {
        Command::StopDrill { drill: drill.id, reason: reason.to_owned() }
    } else {
        Command::EndDrill { drill: drill.id, outcome: DrillOutcome::Abandoned, summary: String::new() }
    })
}
