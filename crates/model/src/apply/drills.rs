//! Drills on the live cluster: one at a time, never in the way of something, never for ever.

use super::{Effect, Handled, Refusal};
use crate::command::Command;
use crate::drill::{
    DRILL_LENGTH_MAX, DRILL_TEXT_BYTES_MAX, DRILLS_MAX, DrillOutcome, DrillRecord, DrillStop, RunningDrill,
    SUMMARY_BYTES_MAX,
};
use crate::event::Event;
use crate::ids::{DrillId, OperationId, Revision};
use crate::spec::{BlockedWindow, HumanDuration};
use crate::state::State;
use crate::time::WallTime;

/// Why no drill may begin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DrillBlock {
    /// The operators do not want any.
    #[error("the specification does not allow drills (drills.allowed)")]
    NotAllowed,
    /// Now, or before it had to end, drills are not wanted.
    #[error("drills are blocked {0} (drills.blocked), and it may last until {1}")]
    Window(BlockedWindow, WallTime),
    /// Something moves.
    #[error("operation {0} is moving an address")]
    Moving(OperationId),
    /// Automatic moves are paused.
    #[error("automatic moves are paused by {0}, who may not want it")]
    Paused(String),
    /// It would last too long, or be over before it began.
    #[error("it would last {0}, and at most {limit} are allowed", limit = HumanDuration(DRILL_LENGTH_MAX))]
    Length(HumanDuration),
}

impl State {
    pub(super) fn begin_drill(&mut self, revision: Revision, command: &Command) -> Handled {
        let Command::BeginDrill { name, by, runner, incarnation, until } = command else {
            unreachable!("called for BeginDrill only");
        };
        within("the drill's name", name, DRILL_TEXT_BYTES_MAX)?;
        within("the name of who wants it", by, DRILL_TEXT_BYTES_MAX)?;
        if self.nodes.get(runner).map(|life| life.incarnation) != Some(*incarnation) {
            return Err(Refusal::UnknownNode(*runner));
        }
        if let Some(running) = &self.drill {
            return Err(Refusal::DrillRunning(running.id));
        }
        if let Some(why) = self.drill_block(self.wall, *until) {
            return Err(Refusal::DrillBlocked(why));
        }
        let drill = RunningDrill {
            id: DrillId(revision.0),
            name: name.clone(),
            by: by.clone(),
            runner: *runner,
            incarnation: *incarnation,
            since: self.wall,
            until: *until,
            stop: None,
        };
        let event = Event::DrillBegan {
            drill: drill.id,
            name: name.clone(),
            by: by.clone(),
            runner: *runner,
            until: *until,
        };
        self.drill = Some(drill);
        Ok((Effect::Done, vec![event]))
    }

    /// Why no drill from now until then may begin, whoever wants it.
    pub fn drill_block(&self, now: WallTime, until: WallTime) -> Option<DrillBlock> {
        let drills = &self.spec.as_ref()?.drills;
        let length = until.since(now);
        if length.is_zero() || length > DRILL_LENGTH_MAX {
            return Some(DrillBlock::Length(HumanDuration(length)));
        }
        if !drills.allowed {
            return Some(DrillBlock::NotAllowed);
        }
        if let Some(window) = drills.blocking(now, until) {
            return Some(DrillBlock::Window(window.clone(), until));
        }
        if let Some(running) = self.floating_ips.values().find_map(|ip| ip.operation.as_ref()) {
            return Some(DrillBlock::Moving(running.id));
        }
        let paused = self.pause.as_ref().filter(|pause| pause.until > now)?;
        Some(DrillBlock::Paused(paused.by.clone()))
    }

    pub(super) fn stop_drill(&mut self, drill: DrillId, by: &str, reason: &str) -> Handled {
        within("the reason", reason, DRILL_TEXT_BYTES_MAX)?;
        within("the name of who wants it", by, DRILL_TEXT_BYTES_MAX)?;
        let running = self.drill.as_mut().filter(|running| running.id == drill);
        let running = running.ok_or(Refusal::NoSuchDrill(drill))?;
        if running.stop.is_some() {
            return Ok((Effect::Unchanged, Vec::new()));
        }
        running.stop = Some(DrillStop { by: by.to_owned(), reason: reason.to_owned() });
        let event = Event::DrillStopped { drill, by: by.to_owned(), reason: reason.to_owned() };
        Ok((Effect::Done, vec![event]))
    }

    pub(super) fn end_drill(&mut self, drill: DrillId, outcome: DrillOutcome, summary: &str) -> Handled {
        within("the drill's summary", summary, SUMMARY_BYTES_MAX)?;
        let Some(running) = self.drill.take_if(|running| running.id == drill) else {
            return Err(Refusal::NoSuchDrill(drill));
        };
        if self.drills.len() >= DRILLS_MAX {
            self.drills.pop_front();
        }
        let event = Event::DrillEnded { drill, name: running.name.clone(), outcome };
        self.drills.push_back(DrillRecord {
            id: drill,
            name: running.name,
            by: running.by,
            runner: running.runner,
            since: running.since,
            ended: self.wall,
            outcome,
            summary: summary.to_owned(),
        });
        Ok((Effect::Done, vec![event]))
    }
}

fn within(what: &'static str, text: &str, max: usize) -> Result<(), Refusal> {
    let bytes = text.len();
    if bytes <= max { Ok(()) } else { Err(Refusal::DrillTextTooLong { what, bytes, max }) }
}
